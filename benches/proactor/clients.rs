//! Clients that send a message, take it back whole, and send the next.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// What was done in a slice of time.
pub struct Work {
    messages: u64,
    took: Duration,
    /// Processor time of the process, client and server together.
    cpu: Duration,
}

impl Work {
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.took.as_secs_f64()
    }

    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages.max(1) as f64
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

/// Counts what is done between the end of the warm-up and the end of the slice.
struct Meter {
    from: Instant,
    until: Instant,
    begun: Option<(Instant, Duration)>,
    messages: u64,
}

impl Meter {
    fn new(slice: Duration) -> Meter {
        let from = Instant::now() + slice.mul_f64(WARM_UP);
        Meter { from, until: from + slice, begun: None, messages: 0 }
    }

    /// Notes `messages` more; gives the result when the time is over.
    fn note(&mut self, messages: u64) -> io::Result<Option<Work>> {
        let now = Instant::now();
        match self.begun {
            None if now >= self.from => self.begun = Some((now, cpu_time()?)),
            None => {}
            Some((began, cpu)) => {
                self.messages += messages;
                if now >= self.until {
                    let cpu = cpu_time()?.saturating_sub(cpu);
                    return Ok(Some(Work { messages: self.messages, took: now - began, cpu }));
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
    let mut meter = Meter::new(slice);
    loop {
        stream.write_all(&message)?;
        stream.read_exact(&mut answer)?;
        if let Some(work) = meter.note(1)? {
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
    checked: bool,
}

impl Client {
    /// Goes on as far as the system allows; the number of messages that came back.
    fn go_on(&mut self, message: &[u8], scratch: &mut [u8]) -> io::Result<u64> {
        let mut messages = 0;
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
                    if !self.checked {
                        same(&scratch[..n], &message[self.received..][..n])?;
                    }
                    self.received += n;
                    blocked = false;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if self.received == message.len() {
                (self.sent, self.received, self.checked) = (0, 0, true);
                messages += 1;
            } else if blocked {
                return Ok(messages);
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
        clients.push(Client { stream, sent: 0, received: 0, checked: false });
    }
    let mut events = Events::with_capacity(256);
    let mut meter = Meter::new(slice);
    loop {
        poll.poll(&mut events, Some(STEP))?;
        if events.is_empty() {
            return Err(io::Error::new(ErrorKind::TimedOut, "the server has gone silent"));
        }
        for event in &events {
            let messages = clients[event.token().0].go_on(&message, &mut scratch)?;
            if let Some(work) = meter.note(messages)? {
                return Ok(work);
            }
        }
    }
}
