//! The driver that offers a fixed rate in benches/loopback: what waits for a slow server is in its figures.

#![cfg(target_os = "linux")] // as the bench is

#[path = "../benches/loopback/open_loop.rs"]
#[allow(dead_code, unreachable_pub, reason = "the other figures are for the bench")]
mod open_loop;
#[path = "../benches/loopback/sys.rs"]
#[allow(dead_code, unreachable_pub, reason = "the servers' calls are for the bench")]
mod sys;
#[path = "../benches/loopback/websocket.rs"]
#[allow(dead_code, unreachable_pub, reason = "only echo is asked")]
mod websocket;
#[path = "../benches/loopback/workload.rs"]
#[allow(dead_code, unreachable_pub, reason = "only echo is asked")]
mod workload;

use open_loop::{Driver, Run};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use workload::Workload;

const CONNECTIONS: usize = 4;
const RATE: f64 = 1000.0;
const INTERVAL: Duration = Duration::from_millis(500);

/// An echo that answers nobody for `stall` when so many messages have come. All connections wait for one lock, as
/// they wait for one reactor.
fn echo(stall_at: u64, stall: Duration, size: usize) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let messages = Arc::new(Mutex::new(0));
    let serve = move |mut stream: TcpStream, messages: &Mutex<u64>| {
        let mut message = vec![0; size];
        stream.set_nodelay(true).unwrap();
        while stream.read_exact(&mut message).is_ok() {
            let mut count = messages.lock().unwrap();
            *count += 1;
            if *count == stall_at {
                thread::sleep(stall);
            }
            stream.write_all(&message).unwrap();
        }
    };
    thread::spawn(move || {
        for _ in 0..CONNECTIONS {
            let (stream, _) = listener.accept().unwrap();
            let messages = Arc::clone(&messages);
            thread::spawn(move || serve(stream, &messages));
        }
    });
    addr
}

fn run(stall_at: u64, stall: Duration, rate: f64, interval: Duration) -> Run {
    let base = Workload::find("echo-128").unwrap();
    let workload = Workload { connections: CONNECTIONS, ..*base };
    let addr = echo(stall_at, stall, workload.message);
    let mut driver = Driver::connect(addr, &workload, workload.message).unwrap();
    driver.run(rate, Duration::ZERO, interval).unwrap()
}

/// A closed loop would have seen one slow answer on each connection. Planted: latencies counted from when the request
/// was sent.
#[test]
fn what_waits_for_a_stalled_server_is_slow_too() {
    let run = run(100, Duration::from_millis(300), RATE, INTERVAL);
    assert_eq!(run.due, 500);
    assert_eq!(run.latency.len(), run.due);
    // When the 100th message came, at least 99 ms had passed, and 99 at most were answered. So of the 200 that were due
    // in the first 199 ms, 101 were answered after 399 ms.
    let slow = run.latency.count_between(199_000_000, u64::MAX);
    assert!(slow >= 101, "{slow} of {} waited", run.due);
}

/// Planted: what was not sent before the end is forgotten.
#[test]
fn what_was_never_sent_counts() {
    let run = run(0, Duration::ZERO, 20e6, Duration::from_millis(10));
    assert!((199_999..=200_001).contains(&run.due), "{} were due", run.due);
    assert_eq!(run.latency.len(), run.due);
    assert!(run.unsent_server + run.unsent_driver > run.due / 2);
}
