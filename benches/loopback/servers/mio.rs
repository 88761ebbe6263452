//! mio as its documentation recommends: edge-triggered, both interests registered once, each event drained until
//! `WouldBlock`, input and output that are not whole kept by the connection.

mod offload;

use super::http::Response;
use super::{Socket, spread};
use crate::site::{READ_SIZE, Site};
use crate::workload::Protocol;
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;

const EVENTS: usize = 1024;
const LISTENER: Token = Token(usize::MAX - 1);
const STOP: Token = Token(usize::MAX - 2);

struct Conn {
    stream: TcpStream,
    /// The beginning of a request.
    input: Vec<u8>,
    /// What the kernel did not take, from `sent` on. Nothing is read meanwhile.
    output: Vec<u8>,
    sent: usize,
}

/// What the connections of the thread share.
struct Shared {
    buffer: Vec<u8>,
    answers: Vec<u8>,
    /// `None`: echo.
    response: Option<Response>,
}

pub fn run(socket: Socket, site: &Arc<Site>) -> io::Result<()> {
    spread(socket.listener()?, site, |listener, site| match site.protocol {
        Protocol::Offload => offload::serve(listener, site),
        _ => serve(listener, site),
    })
}

fn serve(listener: std::net::TcpListener, site: &Site) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(EVENTS);
    let mut shared = Shared {
        buffer: vec![0; READ_SIZE],
        answers: Vec::new(),
        response: (site.protocol == Protocol::Http).then(|| Response::new(1)),
    };
    let mut conns: Vec<Option<Conn>> = Vec::new();
    listener.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(listener);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut SourceFd(&site.as_raw_fd()), STOP, Interest::READABLE)?;
    loop {
        match poll.poll(&mut events, None) {
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            result => result?,
        }
        if let Some(response) = &mut shared.response {
            response.refresh();
        }
        for event in &events {
            match event.token() {
                STOP => return Ok(()),
                LISTENER => accept(&listener, poll.registry(), &mut conns)?,
                Token(index) => {
                    let slot = &mut conns[index];
                    let Some(conn) = slot else { continue };
                    if !conn.ready(&mut shared).unwrap_or(false) {
                        *slot = None;
                    }
                }
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    registry: &Registry,
    conns: &mut Vec<Option<Conn>>,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {
                continue;
            }
            Err(e) => return Err(e),
        };
        stream.set_nodelay(true)?;
        let index = stream.as_raw_fd() as usize;
        if conns.len() <= index {
            conns.resize_with(index + 1, || None);
        }
        registry.register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        conns[index] = Some(Conn { stream, input: Vec::new(), output: Vec::new(), sent: 0 });
    }
}

impl Conn {
    /// Writes and reads until both would block. Returns whether the connection is still open.
    fn ready(&mut self, shared: &mut Shared) -> io::Result<bool> {
        loop {
            if !self.flush()? {
                return Ok(true);
            }
            match self.stream.read(&mut shared.buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => self.answer(length, shared)?,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn answer(&mut self, length: usize, shared: &mut Shared) -> io::Result<()> {
        let data = &shared.buffer[..length];
        let Some(response) = &shared.response else {
            return self.write(data);
        };
        shared.answers.clear();
        if self.input.is_empty() {
            let used = response.answer(data, &mut shared.answers)?;
            self.input.extend_from_slice(&data[used..]);
        } else {
            self.input.extend_from_slice(data);
            let used = response.answer(&self.input, &mut shared.answers)?;
            self.input.drain(..used);
        }
        self.write(&shared.answers)
    }

    /// Only called with nothing left of the output before.
    fn write(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            match self.stream.write(data) {
                Ok(sent) => data = &data[sent..],
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.output.extend_from_slice(data);
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Returns whether there is nothing left to write.
    fn flush(&mut self) -> io::Result<bool> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.output.clear();
        self.sent = 0;
        Ok(true)
    }
}
