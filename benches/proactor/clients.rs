//! Clients that send a message, take it back whole, and send the next.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// What was done in a slice of time.
pub struct Work {
    /// Of some a part: bytes that came back, by the size of a message.
    messages: f64,
    took: Duration,
    /// Processor time of the process, client and server together.
    cpu: Duration,
}

impl Work {
    pub fn rate(&self) -> f64 {
        self.messages / self.took.as_secs_f64()
    }

    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages
    }
}

/// The part of a slice that is not counted.
const WARM_UP: f64 = 0.15;
const STEP: Duration = Duration::from_secs(10);

fn cpu_time() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(micros as u64))
}

/// Counts what comes back for a slice of time, which begins when the time to warm up is over and
/// every client has had a message back. Bytes, for of large messages on many connections all are
/// under way at once, and come back whole at once.
struct Meter {
    from: Instant,
    slice: Duration,
    size: usize,
    begun: Option<(Instant, Duration)>,
    bytes: u64,
}

impl Meter {
    fn new(slice: Duration, size: usize) -> Meter {
        let from = Instant::now() + slice.mul_f64(WARM_UP);
        Meter { from, slice, size, begun: None, bytes: 0 }
    }

    /// Notes `bytes` more; gives the result when the time is over.
    fn note(&mut self, bytes: u64, all_have_begun: bool) -> io::Result<Option<Work>> {
        let now = Instant::now();
        match self.begun {
            None if now >= self.from && all_have_begun => self.begun = Some((now, cpu_time()?)),
            None => {}
            Some((began, cpu)) => {
                self.bytes += bytes;
                if now - began >= self.slice {
                    let cpu = cpu_time()?.saturating_sub(cpu);
                    let messages = self.bytes as f64 / self.size as f64;
                    return Ok(Some(Work { messages, took: now - began, cpu }));
                }
            }
        }
        Ok(None)
    }
}

/// The bytes of a message, which differ by place.
fn message(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 + i / 251) as u8).collect()
}

pub fn run(streams: Vec<TcpStream>, size: usize, slice: Duration) -> io::Result<Work> {
    match <[TcpStream; 1]>::try_from(streams) {
        Ok([stream]) => alone(stream, size, slice),
        Err(streams) => many(streams, size, slice),
    }
}

/// A thread that blocks: with a server that blocks, the two-thread echo.
fn alone(mut stream: TcpStream, size: usize, slice: Duration) -> io::Result<Work> {
    stream.set_read_timeout(Some(STEP))?;
    let (message, mut answer) = (message(size), vec![0; size]);
    let mut meter = Meter::new(slice, size);
    loop {
        stream.write_all(&message)?;
        stream.read_exact(&mut answer)?;
        if let Some(work) = meter.note(size as u64, true)? {
            same(&answer, &message)?;
            return Ok(work);
        }
    }
}

fn same(answer: &[u8], message: &[u8]) -> io::Result<()> {
    let wrong = "the server did not send the message back";
    if answer == message { Ok(()) } else { Err(io::Error::new(ErrorKind::InvalidData, wrong)) }
}

struct Client {
    stream: mio::net::TcpStream,
    sent: usize,
    received: usize,
    /// A message came back, and was right.
    had_one: bool,
}

impl Client {
    /// Goes on as far as the system allows; the number of bytes that came back.
    fn go_on(&mut self, message: &[u8], scratch: &mut [u8]) -> io::Result<u64> {
        let mut bytes = 0;
        loop {
            let mut blocked = true;
            while self.sent < message.len() {
                match self.stream.write(&message[self.sent..]) {
                    Ok(n) => self.sent += n,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            let left = message.len() - self.received;
            match self.stream.read(&mut scratch[..left]) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    if !self.had_one {
                        same(&scratch[..n], &message[self.received..][..n])?;
                    }
                    self.received += n;
                    bytes += n as u64;
                    blocked = false;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if self.received == message.len() {
                (self.sent, self.received, self.had_one) = (0, 0, true);
            } else if blocked {
                return Ok(bytes);
            }
        }
    }
}

/// One thread that waits for all its connections.
fn many(streams: Vec<TcpStream>, size: usize, slice: Duration) -> io::Result<Work> {
    let (message, mut scratch) = (message(size), vec![0; size]);
    let mut poll = Poll::new()?;
    let mut clients = Vec::with_capacity(streams.len());
    for (i, stream) in streams.into_iter().enumerate() {
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(i), interest)?;
        clients.push(Client { stream, sent: 0, received: 0, had_one: false });
    }
    let mut events = Events::with_capacity(256);
    let mut meter = Meter::new(slice, size);
    let mut waiting = clients.len();
    loop {
        poll.poll(&mut events, Some(STEP))?;
        if events.is_empty() {
            return Err(io::Error::new(ErrorKind::TimedOut, "the server has gone silent"));
        }
        for event in &events {
            let client = &mut clients[event.token().0];
            let had_none = !client.had_one;
            let bytes = client.go_on(&message, &mut scratch)?;
            waiting -= usize::from(had_none && client.had_one);
            if let Some(work) = meter.note(bytes, waiting == 0)? {
                return Ok(work);
            }
        }
    }
}
