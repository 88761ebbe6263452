//! The clients: kind ones, slow ones, rude ones. Those who stay to the end check every byte.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use socket2::SockRef;

use crate::server::{ECHO, IDLE, PUSH, pushed_bytes};

/// Longer than any exchange takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client did.
#[derive(Default)]
pub(crate) struct Accounts {
    /// Connections of each kind, in the order of `KINDS`.
    counts: [u64; KINDS.len()],
    /// Bytes that came back as they should.
    verified: u64,
}

impl Accounts {
    pub(crate) fn add(&mut self, other: &Accounts) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
        self.verified += other.verified;
    }
}

impl fmt::Display for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u64 = self.counts.iter().sum();
        write!(f, "{total} connections, {} bytes verified:", self.verified)?;
        for ((name, _), count) in KINDS.iter().zip(self.counts) {
            write!(f, " {name} {count}")?;
        }
        Ok(())
    }
}

/// A kind of client; gives the bytes it has verified.
type Kind = (&'static str, fn(SocketAddr, &mut Rng) -> io::Result<u64>);

const KINDS: [Kind; 9] = [
    ("whole", whole),
    ("bytewise", bytewise),
    ("slow", slow),
    ("flood", flood),
    ("push", push),
    ("push-reset", push_reset),
    ("reset", reset),
    ("leave", leave),
    ("idle", idle),
];

pub(crate) fn run(addr: SocketAddr, seed: u64, stop: &AtomicBool) -> Accounts {
    let mut rng = Rng::with_seed(seed);
    let mut accounts = Accounts::default();
    while !stop.load(Ordering::Relaxed) {
        let kind = rng.usize(..KINDS.len());
        let (name, client) = KINDS[kind];
        if name == "flood" && rng.u8(..8) > 0 {
            continue; // they take long
        }
        match client(addr, &mut rng) {
            Ok(verified) => accounts.verified += verified,
            Err(error) => panic!("client {seed}, {name}: {error}"),
        }
        accounts.counts[kind] += 1;
    }
    accounts
}

fn connect(addr: SocketAddr, kind: u8) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&[kind])?;
    Ok(stream)
}

fn some_bytes(rng: &mut Rng, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; rng.usize(..most)];
    rng.fill(&mut bytes);
    bytes
}

fn differs(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

/// Sends `data` and a FIN, and reads it back at the same time, `piece` bytes at once, pausing
/// after each.
fn exchange(mut stream: TcpStream, data: &[u8], piece: usize, pause: Duration) -> io::Result<u64> {
    stream.set_nonblocking(true)?;
    let give_up = Instant::now() + PATIENCE;
    let (mut sent, mut got, mut finished) = (0, 0, false);
    let mut buffer = vec![0; piece];
    loop {
        let mut moved = false;
        if sent < data.len() {
            match stream.write(&data[sent..]) {
                Ok(n) => (sent, moved) = (sent + n, true),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        } else if !finished {
            stream.shutdown(Shutdown::Write)?;
            finished = true;
        }
        match stream.read(&mut buffer) {
            Ok(0) if got == data.len() && finished => return Ok(got as u64),
            Ok(0) => return Err(differs("the echo ends early")),
            Ok(n) => {
                if data.get(got..got + n) != Some(&buffer[..n]) {
                    return Err(differs("the echo differs"));
                }
                (got, moved) = (got + n, true);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if Instant::now() > give_up {
            return Err(differs("the echo stalls"));
        }
        std::thread::sleep(if moved { pause } else { Duration::from_micros(100) });
    }
}

fn whole(addr: SocketAddr, rng: &mut Rng) -> io::Result<u64> {
    let data = some_bytes(rng, 400_000);
    exchange(connect(addr, ECHO)?, &data, 64 << 10, Duration::ZERO)
}

fn bytewise(addr: SocketAddr, rng: &mut Rng) -> io::Result<u64> {
    let mut stream = connect(addr, ECHO)?;
    let data = some_bytes(rng, 300);
    for byte in &data {
        stream.write_all(std::slice::from_ref(byte))?;
    }
    let mut got = vec![0; data.len()];
    stream.read_exact(&mut got)?;
    if got != data {
        return Err(differs("the echo differs"));
    }
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0])? {
        0 => Ok(data.len() as u64),
        _ => Err(differs("more than was sent")),
    }
}

fn slow(addr: SocketAddr, rng: &mut Rng) -> io::Result<u64> {
    let data = some_bytes(rng, 200_000);
    exchange(connect(addr, ECHO)?, &data, 2000, Duration::from_micros(500))
}

/// Sends without reading until nothing more goes, so that the server stops reading. Then either
/// reads it all, or leaves.
fn flood(addr: SocketAddr, rng: &mut Rng) -> io::Result<u64> {
    let mut stream = connect(addr, ECHO)?;
    stream.set_nonblocking(true)?;
    let mut block = vec![0; 1_000_003];
    rng.fill(&mut block);
    let data = block.repeat(16);
    let mut sent = 0;
    let give_up = Instant::now() + PATIENCE;
    let mut stuck_since = Instant::now();
    while sent < data.len() && stuck_since.elapsed() < Duration::from_millis(20) {
        match stream.write(&data[sent..]) {
            Ok(n) => (sent, stuck_since) = (sent + n, Instant::now()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
        if Instant::now() > give_up {
            return Err(differs("the flood never ebbs"));
        }
    }
    if rng.bool() {
        return Ok(0); // closing with the echo unread resets
    }
    stream.set_nonblocking(false)?;
    stream.shutdown(Shutdown::Write)?;
    let mut got = Vec::with_capacity(sent);
    stream.read_to_end(&mut got)?;
    if got != data[..sent] {
        return Err(differs("the flood comes back different"));
    }
    Ok(sent as u64)
}

fn ask_for_a_push(addr: SocketAddr, rng: &mut Rng) -> io::Result<(TcpStream, Vec<u8>)> {
    let mut stream = connect(addr, PUSH)?;
    let (seed, length) = (rng.u32(..), rng.u32(..500_000));
    // In two pieces: the head may come in any.
    let head = [seed.to_le_bytes(), length.to_le_bytes()].concat();
    let cut = rng.usize(..head.len());
    stream.write_all(&head[..cut])?;
    stream.write_all(&head[cut..])?;
    Ok((stream, pushed_bytes(seed.into(), length as usize)))
}

/// Gets what another thread of the server writes, in order, and the FIN behind it.
fn push(addr: SocketAddr, rng: &mut Rng) -> io::Result<u64> {
    let (mut stream, wanted) = ask_for_a_push(addr, rng)?;
    if rng.bool() {
        stream.shutdown(Shutdown::Write)?;
    }
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    if got != wanted {
        return Err(differs("what was pushed differs"));
    }
    Ok(got.len() as u64)
}

fn push_reset(addr: SocketAddr, rng: &mut Rng) -> io::Result<u64> {
    let (mut stream, wanted) = ask_for_a_push(addr, rng)?;
    let mut got = vec![0; wanted.len().min(rng.usize(..100_000))];
    stream.read_exact(&mut got)?;
    if got != wanted[..got.len()] {
        return Err(differs("what was pushed differs"));
    }
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(got.len() as u64)
}

/// Resets in the middle.
fn reset(addr: SocketAddr, rng: &mut Rng) -> io::Result<u64> {
    let mut stream = connect(addr, ECHO)?;
    let data = some_bytes(rng, 50_000);
    stream.write_all(&data)?;
    let mut got = vec![0; rng.usize(..=data.len())];
    stream.read_exact(&mut got)?;
    if got != data[..got.len()] {
        return Err(differs("the echo differs"));
    }
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(got.len() as u64)
}

/// Sends something, or nothing at all, and leaves.
fn leave(addr: SocketAddr, rng: &mut Rng) -> io::Result<u64> {
    if rng.bool() {
        return TcpStream::connect(addr).map(|_| 0);
    }
    let mut stream = connect(addr, ECHO)?;
    stream.write_all(&some_bytes(rng, 10_000))?;
    Ok(0)
}

/// Says a little and then nothing, until the server has had enough.
fn idle(addr: SocketAddr, rng: &mut Rng) -> io::Result<u64> {
    let mut stream = connect(addr, IDLE)?;
    let data = some_bytes(rng, 1000);
    stream.write_all(&data)?;
    let mut got = Vec::new();
    stream.read_to_end(&mut got)?;
    if got != data {
        return Err(differs("the echo differs"));
    }
    Ok(got.len() as u64)
}
