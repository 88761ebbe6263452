//! The load at a fixed rate: operation number k is due at the start plus k divided by the rate, whatever the server
//! does, and its latency is counted from there. So an operation that has to wait because the server is behind waits in
//! the figures too (no coordinated omission).
//!
//! It goes out on the connection that has been free longest. A driver that is itself late would blame the server for
//! it, so what may be its own share of each latency is recorded beside it: how late it sent although a connection was
//! free, and how long before it saw the answer it had last looked for one.

use crate::sys::{self, EDGE, EMPTY_EVENT, Epoll, Event, IN};
use crate::workload::Workload;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::hint;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const EVENTS: usize = 256;
const STALL: Duration = Duration::from_secs(10);
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Requests above may not fit into a send buffer at once.
pub const REQUEST_SIZE_MAX: usize = 32 * 1024;

pub struct Driver {
    epoll: Epoll,
    events: Vec<Event>,
    conns: Vec<Conn>,
    /// The connections without a request under way, the one that has been free longest first.
    free: VecDeque<usize>,
    request: Vec<u8>,
    answer_size: usize,
    scratch: Vec<u8>,
    schedule: Schedule,
    /// When the driver began to look for answers: the look before the one that is being worked off. What that one did
    /// not find came later.
    looked: Instant,
    run: Run,
}

/// Of one server at one rate: what all slices together have seen.
pub struct Run {
    /// Nanoseconds from the moment an operation was due to its answer.
    pub latency: Histogram<u64>,
    /// Nanoseconds of each latency that may be the driver's own, at most.
    pub own: Histogram<u64>,
    /// Operations that were due, and of those the ones that could not even be sent within the slice, because no
    /// connection was free, or because the driver was behind.
    pub due: u64,
    pub unsent_server: u64,
    pub unsent_driver: u64,
    /// How often another process took the server's core; the driver does not know it.
    pub preemptions: u64,
}

struct Conn {
    stream: TcpStream,
    /// Since the driver knows.
    free_since: Instant,
    due: Instant,
    late: Duration,
    received: usize,
    low_water: usize,
}

struct Schedule {
    start: Instant,
    /// What is due before is not in the figures.
    warm: Instant,
    end: Instant,
    rate: f64,
    next: u64,
}

impl Schedule {
    fn due(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.next as f64 / self.rate)
    }
}

impl Run {
    pub fn new() -> io::Result<Run> {
        let histogram =
            || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).map_err(io::Error::other);
        Ok(Run {
            latency: histogram()?,
            own: histogram()?,
            due: 0,
            unsent_server: 0,
            unsent_driver: 0,
            preemptions: 0,
        })
    }

    pub fn add(&mut self, other: &Run) -> io::Result<()> {
        self.latency.add(&other.latency).map_err(io::Error::other)?;
        self.own.add(&other.own).map_err(io::Error::other)?;
        self.due += other.due;
        self.unsent_server += other.unsent_server;
        self.unsent_driver += other.unsent_driver;
        self.preemptions += other.preemptions;
        Ok(())
    }
}

impl Driver {
    pub fn connect(
        addr: SocketAddr,
        workload: &Workload,
        answer_size: usize,
    ) -> io::Result<Driver> {
        let request = workload.request(0);
        assert!(request.len() <= REQUEST_SIZE_MAX, "the driver sends a request at once");
        let epoll = Epoll::new()?;
        let now = Instant::now();
        let mut conns = Vec::with_capacity(workload.connections);
        for index in 0..workload.connections {
            let mut stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            workload.open(&mut stream)?;
            stream.set_nonblocking(true)?;
            epoll.add(&stream, IN | EDGE, index as u64)?;
            let late = Duration::ZERO;
            let mut conn =
                Conn { stream, free_since: now, due: now, late, received: 0, low_water: 0 };
            conn.expect(answer_size)?;
            conns.push(conn);
        }
        Ok(Driver {
            epoll,
            events: vec![EMPTY_EVENT; EVENTS],
            free: (0..conns.len()).collect(),
            conns,
            request,
            answer_size,
            scratch: vec![0; answer_size + 1],
            schedule: Schedule { start: now, warm: now, end: now, rate: 1.0, next: 0 },
            looked: now,
            run: Run::new()?,
        })
    }

    /// Offers `rate` operations a second, for `warm_up` and then for `interval`, and waits for what is under way.
    pub fn run(&mut self, rate: f64, warm_up: Duration, interval: Duration) -> io::Result<Run> {
        let start = Instant::now();
        let warm = start + warm_up;
        self.schedule = Schedule { start, warm, end: warm + interval, rate, next: 0 };
        self.run = Run::new()?;
        let (mut look, mut progress) = (start, start);
        loop {
            self.looked = look;
            look = Instant::now();
            let count = self.epoll.wait(&mut self.events, 0)?;
            for index in 0..count {
                let token = self.events[index].u64;
                self.ready(token as usize)?;
                self.send_due()?;
            }
            self.send_due()?;
            let now = Instant::now();
            if now >= self.schedule.end && self.free.len() == self.conns.len() {
                break;
            }
            if count > 0 {
                progress = now;
            } else if now - progress > STALL && self.free.len() < self.conns.len() {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!("no answer for {STALL:?}"),
                ));
            } else {
                hint::spin_loop();
            }
        }
        Ok(std::mem::replace(&mut self.run, Run::new()?))
    }

    /// Sends what is due, as far as connections are free, and gives up what is left when the end has come.
    fn send_due(&mut self) -> io::Result<()> {
        loop {
            let now = Instant::now();
            let due = self.schedule.due();
            if due > now || due >= self.schedule.end {
                return Ok(());
            }
            if now >= self.schedule.end {
                self.give_up(now);
                return Ok(());
            }
            let Some(index) = self.free.pop_front() else { return Ok(()) };
            self.schedule.next += 1;
            let conn = &mut self.conns[index];
            conn.due = due;
            conn.late = now - due.max(conn.free_since);
            conn.received = 0;
            self.run.due += u64::from(due >= self.schedule.warm);
            match conn.stream.write(&self.request)? {
                sent if sent == self.request.len() => {}
                sent => {
                    return Err(io::Error::other(format!(
                        "only {sent} of {} B were sent at once",
                        self.request.len()
                    )));
                }
            }
        }
    }

    /// What was due before the end and is not sent counts with the time it has waited: less than it would have become.
    fn give_up(&mut self, now: Instant) {
        let servers = self.free.is_empty();
        loop {
            let due = self.schedule.due();
            if due >= self.schedule.end {
                return;
            }
            self.schedule.next += 1;
            if due < self.schedule.warm {
                continue;
            }
            self.run.due += 1;
            let unsent =
                if servers { &mut self.run.unsent_server } else { &mut self.run.unsent_driver };
            *unsent += 1;
            let waited = (now - due).as_nanos() as u64;
            self.run.latency.saturating_record(waited);
            self.run.own.saturating_record(if servers { 0 } else { waited });
        }
    }

    fn ready(&mut self, index: usize) -> io::Result<()> {
        let conn = &mut self.conns[index];
        let wanted = self.answer_size - conn.received;
        match sys::discard(&conn.stream, &mut self.scratch[..wanted + 1]) {
            Ok(0) => {
                let closed = "the server closed a connection";
                return Err(io::Error::new(ErrorKind::UnexpectedEof, closed));
            }
            Ok(length) if length > wanted => {
                let more = "the server sent more than was asked for";
                return Err(io::Error::new(ErrorKind::InvalidData, more));
            }
            Ok(length) => conn.received += length,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
        if conn.received < self.answer_size {
            return conn.expect(self.answer_size - conn.received);
        }
        conn.expect(self.answer_size)?;
        let now = Instant::now();
        conn.free_since = now;
        if conn.due >= self.schedule.warm {
            let nanos = |time: Duration| time.as_nanos() as u64;
            self.run.latency.saturating_record(nanos(now - conn.due));
            self.run.own.saturating_record(nanos(conn.late + (now - self.looked)));
        }
        self.free.push_back(index);
        Ok(())
    }
}

impl Conn {
    /// Becomes ready when `bytes` are there.
    fn expect(&mut self, bytes: usize) -> io::Result<()> {
        if self.low_water != bytes {
            sys::set_receive_low_water(&self.stream, bytes)?;
            self.low_water = bytes;
        }
        Ok(())
    }
}
