//! Proxies between a client and a backend, both played by the load's one thread.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};
use reev::{Addr, Config, ConnId, ConnectOptions, Ctx, EvHandler, Server};

use crate::sys::{EMPTY_EVENT, Epoll, IN, Thread};
use crate::{median, pin};

const BUFFER: usize = 64 << 10;
const PIPE: i32 = 1 << 20;

/// A proxy that runs: its address, its thread, and how to stop it.
struct Proxy {
    addr: SocketAddr,
    thread: Thread,
    stop: Box<dyn FnOnce()>,
}

struct Front(SocketAddr);

struct Back(ConnId);

impl EvHandler for Front {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.pause_reads();
        cx.connect(self.0, &ConnectOptions::default(), Back(cx.id()));
        Ok(())
    }
}

impl EvHandler for Back {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.pair(self.0);
        Ok(())
    }
}

fn reev(backend: SocketAddr) -> Proxy {
    let mut server = Server::new(Config { reactors: 1, pin: false, ..Config::default() }).unwrap();
    let listener = server.listen("127.0.0.1:0").unwrap();
    let addr = server.local_addr(listener).socket_addr().unwrap();
    let (tell, told) = mpsc::channel();
    let running = server.start(move |reactor| {
        pin(0);
        tell.send(Thread::current()?).map_err(io::Error::other)?;
        reactor.accept(listener, move |_: &Addr| Front(backend))
    });
    let running = running.unwrap();
    let stop = Box::new(move || {
        running.handle().stop();
        running.join().unwrap();
    });
    Proxy { addr, thread: told.recv().unwrap(), stop }
}

/// One direction of a bare proxy. Both wait for the receiver, so nothing is ever queued.
enum Way {
    Copy(Vec<u8>),
    Splice(io::PipeReader, io::PipeWriter),
}

impl Way {
    fn new(splices: bool) -> Way {
        if !splices {
            return Way::Copy(vec![0; BUFFER]);
        }
        let (reader, writer) = io::pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE)).unwrap();
        Way::Splice(reader, writer)
    }

    /// One event's worth of bytes; false at the end.
    fn pass(&mut self, from: &mut TcpStream, to: &mut TcpStream) -> io::Result<bool> {
        match self {
            Way::Copy(buffer) => {
                let n = from.read(buffer)?;
                let mut rest = &buffer[..n];
                while !rest.is_empty() {
                    match to.write(rest) {
                        Ok(sent) => rest = &rest[sent..],
                        Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                        Err(e) => return Err(e),
                    }
                }
                Ok(n > 0)
            }
            Way::Splice(reader, writer) => {
                let flags = SpliceFFlags::SPLICE_F_NONBLOCK;
                let taken = splice(&*from, None, &*writer, None, PIPE as usize, flags)?;
                let mut sent = 0;
                while sent < taken {
                    match splice(&*reader, None, &*to, None, taken - sent, flags) {
                        Ok(n) => sent += n,
                        Err(nix::errno::Errno::EAGAIN) => std::thread::yield_now(),
                        Err(e) => return Err(e.into()),
                    }
                }
                Ok(taken > 0)
            }
        }
    }
}

fn bare(backend: SocketAddr, splices: bool) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let stopped = Arc::new(AtomicBool::new(false));
    let (tell, told) = mpsc::channel();
    let theirs = stopped.clone();
    let thread: JoinHandle<io::Result<()>> = std::thread::spawn(move || {
        pin(0);
        tell.send(Thread::current()?).map_err(io::Error::other)?;
        let (epoll, mut events) = (Epoll::new()?, [EMPTY_EVENT; 64]);
        epoll.add(&listener, IN, u64::MAX)?;
        let mut streams: Vec<(TcpStream, Way)> = Vec::new();
        while !theirs.load(Ordering::Relaxed) {
            let ready = epoll.wait(&mut events, 50)?;
            for event in &events[..ready] {
                if event.u64 == u64::MAX {
                    for stream in [listener.accept()?.0, TcpStream::connect(backend)?] {
                        stream.set_nonblocking(true)?;
                        stream.set_nodelay(true)?;
                        epoll.add(&stream, IN, streams.len() as u64)?;
                        streams.push((stream, Way::new(splices)));
                    }
                    continue;
                }
                let (here, there) = (event.u64 as usize, event.u64 as usize ^ 1);
                let mut to = streams[there].0.try_clone()?;
                let (from, way) = &mut streams[here];
                match way.pass(from, &mut to) {
                    Ok(true) => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Ok(false) | Err(_) => return Ok(()), // the load is done
                }
            }
        }
        Ok(())
    });
    let stop = Box::new(move || {
        stopped.store(true, Ordering::Relaxed);
        thread.join().unwrap().unwrap();
    });
    Proxy { addr, thread: told.recv().unwrap(), stop }
}

/// A message on its way there and back.
struct Trip {
    client: TcpStream,
    backend: TcpStream,
    there: (usize, usize),
    back: (usize, usize),
    began: Instant,
}

/// Writes and reads what can be now: `progress` is what was written, and what was read.
fn move_on(
    from: &mut TcpStream,
    to: &mut TcpStream,
    progress: &mut (usize, usize),
    message: &[u8],
    buffer: &mut [u8],
) {
    if progress.0 < message.len() {
        match from.write(&message[progress.0..]) {
            Ok(n) => progress.0 += n,
            Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
        }
    }
    match to.read(buffer) {
        Ok(n) => {
            assert!(n > 0, "the proxy has closed");
            assert!(buffer[..n] == message[progress.1..progress.1 + n], "bytes were changed");
            progress.1 += n;
        }
        Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}"),
    }
}

struct Measured {
    megabytes_a_second: f64,
    ns_a_kib: f64,
    median_us: f64,
}

fn measure(start: impl Fn(SocketAddr) -> Proxy, message: &[u8], slice: Duration) -> Measured {
    const CONNECTIONS: usize = 4;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = start(listener.local_addr().unwrap());
    let mut trips: Vec<Trip> = (0..CONNECTIONS)
        .map(|_| {
            let client = TcpStream::connect(proxy.addr).unwrap();
            let (backend, _) = listener.accept().unwrap();
            for stream in [&client, &backend] {
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
            }
            Trip { client, backend, there: (0, 0), back: (0, 0), began: Instant::now() }
        })
        .collect();
    let mut buffer = vec![0; 256 << 10];
    let mut run = |time: Duration| {
        let (began, mut trip_times) = (Instant::now(), Vec::new());
        while began.elapsed() < time {
            for trip in &mut trips {
                let Trip { client, backend, there, back, .. } = trip;
                move_on(client, backend, there, message, &mut buffer);
                if there.1 == message.len() {
                    move_on(backend, client, back, message, &mut buffer);
                }
                if back.1 == message.len() {
                    trip_times.push(trip.began.elapsed().as_secs_f64() * 1e6);
                    (trip.there, trip.back, trip.began) = ((0, 0), (0, 0), Instant::now());
                }
            }
        }
        (trip_times, began.elapsed())
    };
    run(slice / 4);
    let before = proxy.thread.cpu_time().unwrap();
    let (trip_times, took) = run(slice);
    let spent = proxy.thread.cpu_time().unwrap() - before;
    let bytes = (trip_times.len().max(1) * message.len() * 2) as f64;
    drop(trips);
    (proxy.stop)();
    Measured {
        megabytes_a_second: bytes / took.as_secs_f64() / 1e6,
        ns_a_kib: spent.as_nanos() as f64 / (bytes / 1024.0),
        median_us: if trip_times.is_empty() { f64::NAN } else { median(trip_times) },
    }
}

pub fn compare(rounds: u64, slice: Duration) {
    type Start = fn(SocketAddr) -> Proxy;
    let servers: [(&str, Start); 3] = [
        ("bare copy", |backend| bare(backend, false)),
        ("bare splice", |backend| bare(backend, true)),
        ("reev pair", reev),
    ];
    pin(1);
    println!("proxy: 4 connections, a message there and back; medians of {rounds} rounds");
    println!("{:>10} {:>12} {:>9} {:>10} {:>12}", "message", "", "MB/s", "CPU ns/KiB", "median us");
    for size in [128, 1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20] {
        let message: Vec<u8> = (0..size).map(|i: usize| (i * 31 + (i >> 8) * 7) as u8).collect();
        let mut results: Vec<Vec<Measured>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (i, (_, start)) in servers.iter().enumerate() {
                results[i].push(measure(start, &message, slice));
            }
        }
        for ((name, _), results) in servers.iter().zip(&results) {
            let of = |field: fn(&Measured) -> f64| median(results.iter().map(field).collect());
            println!(
                "{size:>10} {name:>12} {:>9.0} {:>10.1} {:>12.1}",
                of(|m| m.megabytes_a_second),
                of(|m| m.ns_a_kib),
                of(|m| m.median_us)
            );
        }
    }
}
