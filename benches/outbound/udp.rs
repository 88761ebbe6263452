//! UDP echo: a burst of datagrams from several clients, answered in batches or one by one.

use std::io;
use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use reev::{Addr, Config, Ctx, DatagramOptions, EvHandler, Server};

use crate::sys::Thread;
use crate::{median, pin};

const CLIENTS: usize = 4;
const BURST: usize = 32;
const SIZE: usize = 64;

struct Echo;

impl EvHandler for Echo {
    fn on_datagram(&mut self, cx: &mut Ctx<'_>, data: &mut [u8], from: &Addr) -> io::Result<()> {
        cx.send_to(from, data);
        Ok(())
    }
}

/// Datagrams a second, and processor time of the server for each.
fn measure(options: &DatagramOptions, slice: Duration) -> (f64, f64) {
    let mut server = Server::new(Config { reactors: 1, pin: false, ..Config::default() }).unwrap();
    let options = DatagramOptions { recv_buffer: Some(4 << 20), ..options.clone() };
    let socket = server.bind_datagrams("udp://127.0.0.1:0", &options).unwrap();
    let addr = server.datagram_addr(socket).socket_addr().unwrap();
    let (tell, told) = mpsc::channel();
    let running = server.start(move |reactor| {
        pin(0);
        tell.send(Thread::current()?).map_err(io::Error::other)?;
        reactor.serve_datagrams(socket, Echo).map(drop)
    });
    let (running, thread) = (running.unwrap(), told.recv().unwrap());
    let clients: Vec<UdpSocket> = (0..CLIENTS)
        .map(|_| {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.connect(addr).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            client
        })
        .collect();
    let run = |time: Duration| {
        let (began, mut count) = (Instant::now(), 0);
        while began.elapsed() < time {
            for client in &clients {
                (0..BURST).for_each(|_| assert_eq!(client.send(&[7; SIZE]).unwrap(), SIZE));
            }
            for client in &clients {
                for _ in 0..BURST {
                    assert_eq!(client.recv(&mut [0; 128]).expect("none is lost"), SIZE);
                    count += 1;
                }
            }
        }
        (f64::from(count), began.elapsed().as_secs_f64())
    };
    run(slice / 4);
    let before = thread.cpu_time().unwrap();
    let (count, took) = run(slice);
    let spent = thread.cpu_time().unwrap() - before;
    running.handle().stop();
    running.join().unwrap();
    (count / took, spent.as_nanos() as f64 / count)
}

pub fn compare(rounds: u64, slice: Duration) {
    let plain = DatagramOptions { gso: false, ..DatagramOptions::default() };
    let ways = [
        ("a call for each", DatagramOptions { batches: false, ..plain.clone() }),
        ("batches", plain),
        ("batches, GSO", DatagramOptions::default()),
        ("batches, GSO, GRO", DatagramOptions { gro: true, ..DatagramOptions::default() }),
    ];
    pin(1);
    println!(
        "UDP echo: {CLIENTS} clients, bursts of {BURST} datagrams of {SIZE} B; medians of {rounds} rounds"
    );
    println!("{:>18} {:>12} {:>16}", "", "datagrams/s", "CPU ns/datagram");
    let mut results: Vec<Vec<(f64, f64)>> = ways.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (i, (_, options)) in ways.iter().enumerate() {
            results[i].push(measure(options, slice));
        }
    }
    for ((name, _), results) in ways.iter().zip(&results) {
        let rate = median(results.iter().map(|r| r.0).collect());
        let cost = median(results.iter().map(|r| r.1).collect());
        println!("{name:>18} {rate:>12.0} {cost:>16.0}");
    }
}
