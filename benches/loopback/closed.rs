//! The closed loop: connections that ask again when they are answered, all of them, or a few at a time of many, chosen
//! at random. It costs much less than any server, so that the server stays saturated.
//!
//! - SO_RCVLOWAT lets a socket become ready only when the whole answer is there: one event and one `recv` for each.
//! - `recv` with MSG_TRUNC drops the bytes in the kernel; only their number is checked here ([`crate::verify`] looks at
//!   the bytes themselves).
//! - The send buffer holds the largest request, so a request is one `send`.

use crate::client::{Count, Load, closed_by_server, more_than_asked};
use crate::sys::{self, EDGE, EMPTY_EVENT, Epoll, Event, IN, OUT};
use crate::workload::{self, Protocol, Workload};
use fastrand::Rng;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

const EVENTS: usize = 256;
/// Requests of this size or more are sent with sendfile.
const SEND_FILE_MIN: usize = 16 * 1024;
const SEND_BUFFER: usize = 512 * 1024;
/// Of the choice among many connections: the same for all servers.
const SEED: u64 = 1;

pub struct Closed {
    epoll: Epoll,
    events: Vec<Event>,
    conns: Vec<Conn>,
    /// How many have a request under way at a time.
    active: usize,
    choice: Rng,
    request: Request,
    answer_size: usize,
    scratch: Vec<u8>,
    count: Count,
    ops_per_answer: u64,
}

/// What is sent on every connection.
struct Request {
    bytes: Vec<u8>,
    /// If it is large: a copy of it for each connection, sent from here without another copy.
    file: Option<File>,
}

struct Conn {
    stream: TcpStream,
    /// Where the answer comes, behind a proxy.
    far: Option<TcpStream>,
    low_water: usize,
    /// Where its request begins in the file.
    offset: usize,
    /// A request is under way.
    busy: bool,
    sent: usize,
    received: usize,
}

impl Closed {
    pub fn connect(
        addr: SocketAddr,
        workload: &Workload,
        answer_size: usize,
    ) -> io::Result<Closed> {
        let mut closed = Closed {
            epoll: Epoll::new()?,
            events: vec![EMPTY_EVENT; EVENTS],
            conns: Vec::with_capacity(workload.connections),
            active: 0,
            choice: Rng::with_seed(SEED),
            request: Request::new(workload)?,
            answer_size,
            scratch: vec![0; answer_size + 1],
            count: Count::new()?,
            ops_per_answer: workload.depth as u64,
        };
        closed.grow(addr, workload, workload.connections)?;
        closed.active = workload.active;
        Ok(closed)
    }

    /// Adds so many connections, which ask from the next start on.
    pub fn grow(
        &mut self,
        addr: SocketAddr,
        workload: &Workload,
        connections: usize,
    ) -> io::Result<()> {
        let backend = match workload.protocol {
            Protocol::Relay => Some(TcpListener::bind(workload::backend(addr))?),
            _ => None,
        };
        for index in self.conns.len()..self.conns.len() + connections {
            let (mut stream, far) = match &backend {
                None => (TcpStream::connect(addr)?, None),
                Some(backend) => {
                    let (near, far) = workload::tunnel(addr, backend)?;
                    far.set_nonblocking(true)?;
                    self.epoll.add(&far, IN | EDGE, index as u64)?;
                    (near, Some(far))
                }
            };
            stream.set_nodelay(true)?;
            workload.open(&mut stream)?;
            stream.set_nonblocking(true)?;
            sys::set_send_buffer(&stream, SEND_BUFFER)?;
            self.epoll.add(&stream, IN | OUT | EDGE, index as u64)?;
            let mut conn = Conn {
                stream,
                far,
                low_water: 0,
                offset: index * self.request.bytes.len(),
                busy: false,
                sent: 0,
                received: 0,
            };
            conn.expect(self.answer_size)?;
            self.conns.push(conn);
        }
        self.active += connections;
        Ok(())
    }

    /// Begins the next request, on this connection or, if only some are to be active, on any that has none.
    fn ask(&mut self, mut index: usize) -> io::Result<()> {
        if self.active < self.conns.len() {
            index = self.choice.usize(..self.conns.len());
            while self.conns[index].busy {
                index = self.choice.usize(..self.conns.len());
            }
        }
        self.count.asked(index);
        let conn = &mut self.conns[index];
        conn.busy = true;
        conn.sent = 0;
        conn.send(&self.request)
    }

    fn ready(&mut self, index: usize) -> io::Result<()> {
        let conn = &mut self.conns[index];
        if conn.busy && conn.sent < self.request.bytes.len() {
            conn.send(&self.request)?;
        }
        let stream = conn.far.as_ref().unwrap_or(&conn.stream);
        match sys::discard(stream, &mut self.scratch[..self.answer_size - conn.received + 1]) {
            Ok(0) => return Err(closed_by_server()),
            Ok(length) => conn.received += length,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
        if conn.received < self.answer_size {
            return conn.expect(self.answer_size - conn.received);
        }
        let asked = conn.busy && conn.sent == self.request.bytes.len();
        if conn.received > self.answer_size || !asked {
            return Err(more_than_asked());
        }
        conn.expect(self.answer_size)?;
        conn.received = 0;
        conn.busy = false;
        if self.count.answered(index, self.ops_per_answer) { self.ask(index) } else { Ok(()) }
    }
}

impl Load for Closed {
    fn start(&mut self) -> io::Result<()> {
        (0..self.active).try_for_each(|index| self.ask(index))
    }

    fn turn(&mut self) -> io::Result<bool> {
        let count = self.epoll.wait(&mut self.events, 0)?;
        for index in 0..count {
            let token = self.events[index].u64;
            self.ready(token as usize)?;
        }
        Ok(count > 0)
    }

    fn count(&mut self) -> &mut Count {
        &mut self.count
    }

    fn place(&self) -> String {
        let waiting = || self.conns.iter().filter(|conn| conn.busy);
        format!(
            "of {} B to send, the slowest has sent {} B; of {} B to receive, the fastest has {} B",
            self.request.bytes.len(),
            waiting().map(|conn| conn.sent).min().unwrap_or(0),
            self.answer_size,
            waiting().map(|conn| conn.received).max().unwrap_or(0)
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
            sys::set_receive_low_water(self.far.as_ref().unwrap_or(&self.stream), bytes)?;
            self.low_water = bytes;
        }
        Ok(())
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
