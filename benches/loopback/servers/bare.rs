//! The limit: level-triggered epoll, one static buffer, one `recv` and one `send` for each event, no framework.
//!
//! HTTP is not parsed at all: blank lines are counted and a block made beforehand is sent, uncopied. What any
//! framework does on top of this is its cost. `run` counts with SIMD, so it hardly looks at the bytes; `run_bytes` has
//! the loop that one writes first, a byte at a time.

mod datagrams;
mod fan;
mod offload;
mod relay;

use super::http::Response;
use super::{Socket, spread};
use crate::site::{READ_SIZE, Site};
use crate::sys::{EMPTY_EVENT, Epoll, IN, OUT, Pipe};
use crate::workload::Protocol;
use memchr::memmem::Finder;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;

const EVENTS: usize = 1024;
const REQUEST_SIZE_MIN: usize = 64;
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

pub fn run(socket: Socket, site: &Arc<Site>) -> io::Result<()> {
    if site.protocol == Protocol::Datagram {
        site.enter()?;
        return datagrams::serve(&socket.datagrams()?, site);
    }
    spread(socket.listener()?, site, |listener, site| match site.protocol {
        Protocol::Http => serve(listener, site, Plaintext::new(BySearch(Finder::new(b"\r\n\r\n")))),
        Protocol::Offload => offload::serve(listener, site),
        Protocol::Broadcast => fan::serve(listener, site),
        Protocol::Relay => relay::serve::<relay::Copying>(&listener, site),
        _ => serve(listener, site, Echo),
    })
}

/// HTTP only.
pub fn run_bytes(socket: Socket, site: &Arc<Site>) -> io::Result<()> {
    site.enter()?;
    serve(socket.listener()?, site, Plaintext::new(ByByte))
}

/// A proxy only.
pub fn run_splice(socket: Socket, site: &Arc<Site>) -> io::Result<()> {
    site.enter()?;
    relay::serve::<Pipe>(&socket.listener()?, site)
}

/// Datagrams only.
pub fn run_batches(socket: Socket, site: &Arc<Site>) -> io::Result<()> {
    site.enter()?;
    datagrams::serve_batches(&socket.datagrams()?, site)
}

trait Answer {
    fn turn(&mut self);
    fn answer<'a>(&'a mut self, state: &mut u8, input: &'a [u8]) -> io::Result<&'a [u8]>;
}

struct Conn {
    stream: TcpStream,
    state: u8,
    blocked: Option<Box<Blocked>>,
}

/// Output that the kernel did not take. Its owner does not read meanwhile.
struct Blocked {
    output: Vec<u8>,
    sent: usize,
}

fn serve(listener: TcpListener, site: &Site, mut protocol: impl Answer) -> io::Result<()> {
    let epoll = Epoll::new()?;
    let mut events = [EMPTY_EVENT; EVENTS];
    let mut buffer = vec![0; READ_SIZE];
    let mut conns: Vec<Option<Conn>> = Vec::new();
    listener.set_nonblocking(true)?;
    epoll.add(&listener, IN, LISTENER)?;
    epoll.add(site, IN, STOP)?;
    loop {
        let count = epoll.wait(&mut events, -1)?;
        protocol.turn();
        for event in &events[..count] {
            match event.u64 {
                STOP => return Ok(()),
                LISTENER => accept(&listener, &epoll, &mut conns)?,
                index => {
                    let slot = &mut conns[index as usize];
                    let Some(conn) = slot else { continue };
                    let open = match &conn.blocked {
                        None => read(conn, &epoll, &mut buffer, &mut protocol),
                        Some(_) => flush(conn, &epoll),
                    };
                    if !open.unwrap_or(false) {
                        *slot = None;
                    }
                }
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &Epoll, conns: &mut Vec<Option<Conn>>) -> io::Result<()> {
    let stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {
            return Ok(());
        }
        Err(e) => return Err(e),
    };
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let index = stream.as_raw_fd() as usize;
    if conns.len() <= index {
        conns.resize_with(index + 1, || None);
    }
    epoll.add(&stream, IN, index as u64)?;
    conns[index] = Some(Conn { stream, state: 0, blocked: None });
    Ok(())
}

/// Returns whether the connection is still open, as `flush` does.
fn read(
    conn: &mut Conn,
    epoll: &Epoll,
    buffer: &mut [u8],
    protocol: &mut impl Answer,
) -> io::Result<bool> {
    let length = match conn.stream.read(buffer) {
        Ok(0) => return Ok(false),
        Ok(length) => length,
        Err(e) if would_block(&e) => return Ok(true),
        Err(e) => return Err(e),
    };
    let answer = protocol.answer(&mut conn.state, &buffer[..length])?;
    if answer.is_empty() {
        return Ok(true);
    }
    send(conn, epoll, answer)?;
    Ok(true)
}

fn send(conn: &mut Conn, epoll: &Epoll, data: &[u8]) -> io::Result<()> {
    if let Some(blocked) = &mut conn.blocked {
        blocked.output.extend_from_slice(data);
        return Ok(());
    }
    let sent = match conn.stream.write(data) {
        Ok(sent) => sent,
        Err(e) if would_block(&e) => 0,
        Err(e) => return Err(e),
    };
    if sent < data.len() {
        conn.blocked = Some(Box::new(Blocked { output: data[sent..].to_vec(), sent: 0 }));
        epoll.modify(&conn.stream, OUT, conn.stream.as_raw_fd() as u64)?;
    }
    Ok(())
}

fn flush(conn: &mut Conn, epoll: &Epoll) -> io::Result<bool> {
    let Some(blocked) = &mut conn.blocked else { return Ok(true) };
    match conn.stream.write(&blocked.output[blocked.sent..]) {
        Ok(sent) => blocked.sent += sent,
        Err(e) if would_block(&e) => return Ok(true),
        Err(e) => return Err(e),
    }
    if blocked.sent == blocked.output.len() {
        conn.blocked = None;
        epoll.modify(&conn.stream, IN, conn.stream.as_raw_fd() as u64)?;
    }
    Ok(true)
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

struct Echo;

impl Answer for Echo {
    fn turn(&mut self) {}

    fn answer<'a>(&'a mut self, _: &mut u8, input: &'a [u8]) -> io::Result<&'a [u8]> {
        Ok(input)
    }
}

/// Counts blank lines. `state` is how much of one the bytes so far end with.
trait Count {
    fn count(&self, state: &mut u8, input: &[u8]) -> usize;
}

struct BySearch(Finder<'static>);

struct ByByte;

struct Plaintext<C> {
    blank_lines: C,
    response: Response,
}

impl<C: Count> Plaintext<C> {
    fn new(blank_lines: C) -> Plaintext<C> {
        Plaintext { blank_lines, response: Response::new(READ_SIZE / REQUEST_SIZE_MIN) }
    }
}

impl<C: Count> Answer for Plaintext<C> {
    fn turn(&mut self) {
        self.response.refresh();
    }

    fn answer<'a>(&'a mut self, state: &mut u8, input: &'a [u8]) -> io::Result<&'a [u8]> {
        let too_many =
            || io::Error::new(ErrorKind::InvalidData, "requests shorter than any of this bench");
        self.response.copies(self.blank_lines.count(state, input)).ok_or_else(too_many)
    }
}

impl Count for BySearch {
    fn count(&self, state: &mut u8, input: &[u8]) -> usize {
        let mut count = 0;
        let mut at = 0;
        while *state > 0 && at < input.len() {
            *state = step(*state, input[at]);
            at += 1;
            if *state == 4 {
                count += 1;
                *state = 0;
            }
        }
        while let Some(found) = self.0.find(&input[at..]) {
            count += 1;
            at += found + 4;
        }
        for &byte in &input[at.max(input.len().saturating_sub(3))..] {
            *state = step(*state, byte);
        }
        count
    }
}

impl Count for ByByte {
    fn count(&self, state: &mut u8, input: &[u8]) -> usize {
        let mut count = 0;
        for &byte in input {
            *state = step(*state, byte);
            if *state == 4 {
                count += 1;
                *state = 0;
            }
        }
        count
    }
}

fn step(state: u8, byte: u8) -> u8 {
    match (state, byte) {
        (0 | 2, b'\r') | (1 | 3, b'\n') => state + 1,
        (_, b'\r') => 1,
        _ => 0,
    }
}
