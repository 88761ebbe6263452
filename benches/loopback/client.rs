//! The load: one thread that spins instead of sleeping, so that no server pays for waking it. What it asks, and how, is
//! one of the files behind [`Load`].

use crate::churn::Churn;
use crate::closed::Closed;
use crate::datagrams::Datagrams;
use crate::fan::Fan;
use crate::workload::{Pattern, Workload};
use hdrhistogram::Histogram;
use std::hint;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const STALL: Duration = Duration::from_secs(10);
const LATENCY_NS_MAX: u64 = 60_000_000_000;

#[derive(Clone, Copy)]
pub enum Until {
    Time(Instant),
    /// Every answer is there. Nothing more is asked.
    Silence,
}

pub trait Load {
    /// Asks for the first time, or after a silence.
    fn start(&mut self) -> io::Result<()>;
    /// Works off what is ready. Returns whether there was anything.
    fn turn(&mut self) -> io::Result<bool>;
    fn count(&mut self) -> &mut Count;
    /// How far it is, for the message that it has stalled.
    fn place(&self) -> String;
}

/// What is under way and what was done.
pub struct Count {
    outstanding: usize,
    stopping: bool,
    ops: u64,
    latency: Histogram<u64>,
    /// The one thing under way whose time is taken, and when it began: one after the other, they stand for all.
    watched: Option<(usize, Instant)>,
}

pub struct Client<L: Load + ?Sized = dyn Load> {
    idle: Duration,
    pub load: Box<L>,
}

impl Client {
    /// Connects all. `answer_size`: bytes of one whole answer.
    pub fn connect(
        addr: SocketAddr,
        workload: &Workload,
        answer_size: usize,
    ) -> io::Result<Client> {
        let load: Box<dyn Load> = match workload.pattern {
            Pattern::Closed => Box::new(Closed::connect(addr, workload, answer_size)?),
            Pattern::Churn => Box::new(Churn::new(addr, workload, answer_size)?),
            Pattern::Datagrams => Box::new(Datagrams::connect(addr, workload)?),
            Pattern::Fan => Box::new(Fan::connect(addr, workload)?),
        };
        Ok(Client { idle: Duration::ZERO, load })
    }
}

impl<L: Load> Client<L> {
    pub fn of(load: L) -> Client<L> {
        Client { idle: Duration::ZERO, load: Box::new(load) }
    }
}

impl<L: Load + ?Sized> Client<L> {
    /// Asks for the first time. Only after connecting, or after [`Until::Silence`].
    pub fn start(&mut self) -> io::Result<()> {
        self.load.count().stopping = false;
        self.load.start()
    }

    /// Runs the loop and returns the number of operations that were finished in it.
    pub fn run(&mut self, until: Until) -> io::Result<u64> {
        let before = self.load.count().ops;
        let mut progress = Instant::now();
        let mut turn = progress;
        self.load.count().stopping = matches!(until, Until::Silence);
        self.idle = Duration::ZERO;
        loop {
            let busy = self.load.turn()?;
            let now = Instant::now();
            if busy {
                progress = now;
            } else if now - progress > STALL {
                let place = self.load.place();
                let stalled = format!("no answer for {STALL:?} ({place})");
                return Err(io::Error::new(ErrorKind::TimedOut, stalled));
            } else {
                self.idle += now - turn;
                hint::spin_loop();
            }
            turn = now;
            let done = match until {
                Until::Time(end) => now >= end,
                Until::Silence => self.load.count().outstanding == 0,
            };
            if done {
                return Ok(self.load.count().ops - before);
            }
        }
    }

    /// Nanoseconds from request to answer, of all runs so far.
    pub fn latency(&mut self) -> &Histogram<u64> {
        &self.load.count().latency
    }

    /// How long the last run had nothing to do: while it is not zero, the server is what limits.
    pub fn idle(&self) -> Duration {
        self.idle
    }
}

impl Count {
    pub fn new() -> io::Result<Count> {
        let latency = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).map_err(io::Error::other)?;
        Ok(Count { outstanding: 0, stopping: false, ops: 0, latency, watched: None })
    }

    /// `name` tells what is under way apart.
    pub fn asked(&mut self, name: usize) {
        self.outstanding += 1;
        if self.watched.is_none() {
            self.watched = Some((name, Instant::now()));
        }
    }

    /// Returns whether to go on asking.
    pub fn answered(&mut self, name: usize, ops: u64) -> bool {
        self.outstanding -= 1;
        self.ops += ops;
        if let Some((watched, since)) = self.watched
            && watched == name
        {
            self.latency.saturating_record(since.elapsed().as_nanos() as u64);
            self.watched = None;
        }
        !self.stopping
    }
}

pub fn closed_by_server() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "the server closed a connection")
}

pub fn more_than_asked() -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "the server sent more than was asked for")
}
