//! What WebSockets cost in user space, counted by the allocator: idle ones, and ones in the middle of a message.
#![cfg(feature = "websocket")]

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use reev::http1::Http1;
use reev::websocket::{
    Config as Codec, Event, Handler, Header, Options, Receiver, Role, WebSocket, WebSockets,
};
use reev::{Config, Server};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const HANDSHAKE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// Of a power of two, so that what grows by doubling is full.
const CONNECTIONS: usize = 512;
const IDLE_MAX: usize = 200;

/// The allocator counts for the whole process.
static ALONE: Mutex<()> = Mutex::new(());
static HEARD: AtomicUsize = AtomicUsize::new(0);

struct Quiet;

impl Handler for Quiet {
    fn on_text(&mut self, _ws: &mut WebSocket<'_>, _text: &str) {
        HEARD.fetch_add(1, Ordering::Relaxed);
    }
}

fn live() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

#[test]
#[cfg_attr(reev_kqueue_emulation, ignore = "the emulation's memory would be counted")]
fn an_idle_websocket_takes_at_most_200_bytes() {
    let _alone = ALONE.lock();
    let config = Config { reactors: 1, pin: false, ..Config::default() };
    let mut server = Server::new(config).unwrap();
    let listener = server.listen("127.0.0.1:0").unwrap();
    let addr = server.local_addr(listener).socket_addr().unwrap();
    let running = server
        .start(move |reactor| {
            let http = Http1::new(Default::default());
            let sockets = WebSockets::new(Options::default());
            reactor.accept(listener, move |_| http.connection(sockets.path("/", || Quiet)))
        })
        .unwrap();
    let mut clients = Vec::with_capacity(2 * CONNECTIONS);
    let mut connect = |count: usize| {
        let before = HEARD.load(Ordering::Relaxed);
        for _ in 0..count {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.write_all(HANDSHAKE).unwrap();
            let mut answer = [0; 1024];
            let len = stream.read(&mut answer).unwrap();
            assert!(answer[..len].ends_with(b"\r\n\r\n"));
            stream.write_all(b"\x81\x82\0\0\0\0ok").unwrap();
            clients.push(stream);
        }
        while HEARD.load(Ordering::Relaxed) < before + count {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(50));
        live()
    };
    let first = connect(CONNECTIONS);
    let second = connect(CONNECTIONS);
    let each = (second - first) / CONNECTIONS;
    println!("{each} bytes for each idle WebSocket");
    assert!(each <= IDLE_MAX, "{each} bytes for each idle WebSocket");
    running.handle().stop();
    running.join().unwrap();
}

/// A length that is declared costs nothing before its bytes come, and a message that was delivered is given back.
#[test]
fn a_partial_message_takes_what_has_come() {
    let _alone = ALONE.lock();
    let config = Codec::default();
    for first in [0x81, 0x82] {
        let mut receivers: Vec<Receiver> =
            (0..CONNECTIONS).map(|_| Receiver::new(Role::Server, &config, None)).collect();
        let none = live();
        let len = config.message_max as u64;
        let mut head = Header { first, len, mask: Some([0; 4]) }.encode().to_vec();
        head.push(b'x');
        let mut feed = |data: &[u8], times: usize| {
            for receiver in &mut receivers {
                let (mut data, len) = (data.to_vec(), data.len());
                for _ in 0..times {
                    let decoded = receiver.decode(&mut data).unwrap();
                    assert_eq!((decoded.used, decoded.event), (len, None));
                }
            }
            (live() - none) / CONNECTIONS
        };
        let each = feed(&head, 1);
        assert!(each <= 256, "{each} bytes for a header and a byte");
        let each = feed(&[b'x'; 1000], 10);
        assert!((10_000..=20_256).contains(&each), "{each} bytes for 10,001 that came");
    }
    let mut receiver = Receiver::new(Role::Server, &config, None);
    let mut frame = Header { first: 0x81, len: 3000, mask: Some([0; 4]) }.encode().to_vec();
    frame.extend([b'x'; 3000]);
    let none = live();
    assert_eq!(receiver.decode(&mut frame[..2000]).unwrap().event, None);
    let whole = receiver.decode(&mut frame[2000..]).unwrap().event;
    assert!(matches!(whole, Some(Event::Text(text)) if text.len() == 3000));
    assert_eq!(receiver.decode(&mut []).unwrap().event, None);
    assert_eq!(live(), none);
}
