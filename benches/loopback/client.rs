//! The load: a closed loop on one thread that costs much less than any server, so that the server stays saturated.
//!
//! - It spins instead of sleeping, so no server pays for waking it.
//! - SO_RCVLOWAT lets a socket become ready only when the whole answer is there: one event and one `recv` for each.
//! - `recv` with MSG_TRUNC drops the bytes in the kernel; only their number is checked here ([`crate::verify`] looks at
//!   the bytes themselves).
//! - The send buffer holds the largest request, so a request is one `send`.

use crate::sys::{self, EDGE, EMPTY_EVENT, Epoll, Event, IN, OUT};
use crate::workload::Workload;
use hdrhistogram::Histogram;
use std::fs::File;
use std::hint;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const EVENTS: usize = 256;
const STALL: Duration = Duration::from_secs(10);
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Requests of this size or more are sent with sendfile.
const SEND_FILE_MIN: usize = 16 * 1024;
const SEND_BUFFER: usize = 512 * 1024;

#[derive(Clone, Copy)]
pub enum Until {
    Time(Instant),
    /// Every answer is there. Nothing more is asked.
    Silence,
}

pub struct Client {
    epoll: Epoll,
    events: Vec<Event>,
    conns: Vec<Conn>,
    request: Request,
    answer_size: usize,
    scratch: Vec<u8>,
    /// Connections with a request under way.
    outstanding: usize,
    stopping: bool,
    ops: u64,
    ops_per_answer: u64,
    /// Nanoseconds from request to answer on the first connection, which stands for all.
    latency: Histogram<u64>,
    sent_at: Instant,
    idle: Duration,
}

/// What is sent on every connection.
struct Request {
    bytes: Vec<u8>,
    /// If it is large: a copy of it for each connection, sent from here without another copy.
    file: Option<File>,
}

struct Conn {
    stream: TcpStream,
    low_water: usize,
    /// Where its request begins in the file.
    offset: usize,
    sent: usize,
    received: usize,
}

impl Client {
    /// Connects all. `answer_size`: bytes of one whole answer.
    pub fn connect(
        addr: SocketAddr,
        workload: &Workload,
        answer_size: usize,
    ) -> io::Result<Client> {
        let epoll = Epoll::new()?;
        let request = Request::new(workload)?;
        let mut conns = Vec::with_capacity(workload.connections);
        for index in 0..workload.connections {
            let mut stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            workload.open(&mut stream)?;
            stream.set_nonblocking(true)?;
            sys::set_send_buffer(&stream, SEND_BUFFER)?;
            epoll.add(&stream, IN | OUT | EDGE, index as u64)?;
            let mut conn = Conn {
                stream,
                low_water: 0,
                offset: index * request.bytes.len(),
                sent: 0,
                received: 0,
            };
            conn.expect(answer_size)?;
            conns.push(conn);
        }
        Ok(Client {
            epoll,
            events: vec![EMPTY_EVENT; EVENTS],
            conns,
            request,
            answer_size,
            scratch: vec![0; answer_size + 1],
            outstanding: 0,
            stopping: false,
            ops: 0,
            ops_per_answer: workload.depth as u64,
            latency: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).map_err(io::Error::other)?,
            sent_at: Instant::now(),
            idle: Duration::ZERO,
        })
    }

    /// Sends the first request on each connection. Only after connecting, or after [`Until::Silence`].
    pub fn start(&mut self) -> io::Result<()> {
        self.stopping = false;
        self.outstanding = self.conns.len();
        self.sent_at = Instant::now();
        self.conns.iter_mut().try_for_each(|conn| conn.ask(&self.request))
    }

    /// Runs the loop and returns the number of operations that were finished in it.
    pub fn run(&mut self, until: Until) -> io::Result<u64> {
        let before = self.ops;
        let mut progress = Instant::now();
        let mut turn = progress;
        self.stopping = matches!(until, Until::Silence);
        self.idle = Duration::ZERO;
        loop {
            let count = self.epoll.wait(&mut self.events, 0)?;
            for index in 0..count {
                let token = self.events[index].u64;
                self.ready(token as usize)?;
            }
            let now = Instant::now();
            if count > 0 {
                progress = now;
            } else if now - progress > STALL {
                return Err(self.stalled());
            } else {
                self.idle += now - turn;
                hint::spin_loop();
            }
            turn = now;
            let done = match until {
                Until::Time(end) => now >= end,
                Until::Silence => self.outstanding == 0,
            };
            if done {
                return Ok(self.ops - before);
            }
        }
    }

    /// Of all runs so far.
    pub fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// How long the last run had nothing to do: while it is not zero, the server is what limits.
    pub fn idle(&self) -> Duration {
        self.idle
    }

    fn ready(&mut self, index: usize) -> io::Result<()> {
        let conn = &mut self.conns[index];
        if conn.sent < self.request.bytes.len() {
            conn.send(&self.request)?;
        }
        match sys::discard(&conn.stream, &mut self.scratch[..self.answer_size - conn.received + 1])
        {
            Ok(0) => {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "the server closed a connection",
                ));
            }
            Ok(length) => conn.received += length,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
        if conn.received < self.answer_size {
            return conn.expect(self.answer_size - conn.received);
        }
        if conn.received > self.answer_size || conn.sent < self.request.bytes.len() {
            return Err(io::Error::new(
                ErrorKind::InvalidData,
                "the server sent more than was asked for",
            ));
        }
        self.ops += self.ops_per_answer;
        conn.expect(self.answer_size)?;
        conn.received = 0;
        if index == 0 {
            let now = Instant::now();
            self.latency.saturating_record((now - self.sent_at).as_nanos() as u64);
            self.sent_at = now;
        }
        if self.stopping {
            self.outstanding -= 1;
            return Ok(());
        }
        conn.ask(&self.request)
    }

    fn stalled(&self) -> io::Error {
        let (sent, received) =
            (self.conns.iter().map(|c| c.sent).min(), self.conns.iter().map(|c| c.received).max());
        io::Error::new(
            ErrorKind::TimedOut,
            format!(
                "no answer for {STALL:?} (of {} B to send, the slowest has sent {} B; of {} B to receive, \
                 the fastest has {} B)",
                self.request.bytes.len(),
                sent.unwrap_or(0),
                self.answer_size,
                received.unwrap_or(0)
            ),
        )
    }
}

impl Request {
    fn new(workload: &Workload) -> io::Result<Request> {
        let bytes = workload.request(0);
        let file = if bytes.len() < SEND_FILE_MIN {
            None
        } else {
            Some(sys::memory_file(&bytes.repeat(workload.connections))?)
        };
        Ok(Request { bytes, file })
    }
}

impl Conn {
    /// Becomes ready when `bytes` are there. (The kernel also reports less, when the window is nearly full.)
    fn expect(&mut self, bytes: usize) -> io::Result<()> {
        if self.low_water != bytes {
            sys::set_receive_low_water(&self.stream, bytes)?;
            self.low_water = bytes;
        }
        Ok(())
    }

    /// Begins the next request.
    fn ask(&mut self, request: &Request) -> io::Result<()> {
        self.sent = 0;
        self.send(request)
    }

    /// Sends what is left of the request, until the kernel takes no more; then an edge brings the caller back.
    fn send(&mut self, request: &Request) -> io::Result<()> {
        while self.sent < request.bytes.len() {
            let sent = match &request.file {
                None => self.stream.write(&request.bytes[self.sent..]),
                Some(file) => sys::send_file(
                    &self.stream,
                    file,
                    self.offset + self.sent,
                    request.bytes.len() - self.sent,
                ),
            };
            match sent {
                Ok(sent) => self.sent += sent,
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
