//! A proxy on the bare loop: level-triggered, one read and one write for each event, or one splice in and one out. It
//! connects before it goes on, which on the loopback interface is at once.

use super::{EVENTS, LISTENER, STOP, would_block};
use crate::site::{READ_SIZE, Site};
use crate::sys::{EMPTY_EVENT, Epoll, IN, OUT, Pipe};
use crate::workload::backend;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

/// How bytes get from one stream to the other.
pub trait Carry: Sized {
    fn new() -> io::Result<Self>;
    /// Moves what there is; only with nothing waiting. Returns 0 at the end of the stream.
    fn pass(&mut self, from: &TcpStream, to: &TcpStream, buffer: &mut [u8]) -> io::Result<usize>;
    /// Goes on with what waits.
    fn flush(&mut self, to: &TcpStream) -> io::Result<()>;
    /// Taken from one stream and not given to the other.
    fn waiting(&self) -> usize;
}

/// What the kernel did not take.
pub struct Copying {
    output: Vec<u8>,
    sent: usize,
}

impl Carry for Copying {
    fn new() -> io::Result<Copying> {
        Ok(Copying { output: Vec::new(), sent: 0 })
    }

    fn pass(
        &mut self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let length = from.read(buffer)?;
        let sent = match to.write(&buffer[..length]) {
            Err(e) if would_block(&e) => 0,
            sent => sent?,
        };
        self.sent = 0;
        self.output.clear();
        self.output.extend_from_slice(&buffer[sent..length]);
        Ok(length)
    }

    fn flush(&mut self, mut to: &TcpStream) -> io::Result<()> {
        self.sent += to.write(&self.output[self.sent..])?;
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.output.len() - self.sent
    }
}

impl Carry for Pipe {
    fn new() -> io::Result<Pipe> {
        Pipe::new()
    }

    fn pass(&mut self, from: &TcpStream, to: &TcpStream, _: &mut [u8]) -> io::Result<usize> {
        let length = self.fill(from)?;
        if length > 0 {
            match self.drain(to) {
                Err(e) if would_block(&e) => {}
                drained => drained?,
            }
        }
        Ok(length)
    }

    fn flush(&mut self, to: &TcpStream) -> io::Result<()> {
        self.drain(to)
    }

    fn waiting(&self) -> usize {
        Pipe::waiting(self)
    }
}

struct Tunnel<C> {
    /// The client's and the backend's.
    ends: [TcpStream; 2],
    interests: [u32; 2],
    ways: [Way<C>; 2],
}

/// From the end with the same index to the other.
struct Way<C> {
    carry: C,
    ended: bool,
}

pub fn serve<C: Carry>(listener: &TcpListener, site: &Site) -> io::Result<()> {
    let target = backend(listener.local_addr()?);
    let epoll = Epoll::new()?;
    let mut events = [EMPTY_EVENT; EVENTS];
    let mut buffer = vec![0; READ_SIZE];
    let mut tunnels: Vec<Option<Tunnel<C>>> = Vec::new();
    listener.set_nonblocking(true)?;
    epoll.add(listener, IN, LISTENER)?;
    epoll.add(site, IN, STOP)?;
    loop {
        let count = epoll.wait(&mut events, -1)?;
        for event in &events[..count] {
            match event.u64 {
                STOP => return Ok(()),
                LISTENER => match listener.accept() {
                    Ok((client, _)) => open(client, target, &epoll, &mut tunnels)?,
                    Err(e) if would_block(&e) => {}
                    Err(e) => return Err(e),
                },
                token => {
                    let (index, end) = (token as usize / 2, token as usize % 2);
                    let slot = &mut tunnels[index];
                    let Some(tunnel) = slot else { continue };
                    let ready = tunnel.ready(end, &mut buffer);
                    if !ready
                        .and_then(|open| Ok(open && tunnel.watch(index, &epoll)?))
                        .unwrap_or(false)
                    {
                        *slot = None;
                    }
                }
            }
        }
    }
}

fn open<C: Carry>(
    client: TcpStream,
    target: SocketAddr,
    epoll: &Epoll,
    tunnels: &mut Vec<Option<Tunnel<C>>>,
) -> io::Result<()> {
    let ends = [client, TcpStream::connect(target)?];
    let index = ends[0].as_raw_fd() as usize;
    for (end, stream) in ends.iter().enumerate() {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        epoll.add(stream, IN, (index * 2 + end) as u64)?;
    }
    if tunnels.len() <= index {
        tunnels.resize_with(index + 1, || None);
    }
    let way = || Ok::<_, io::Error>(Way { carry: C::new()?, ended: false });
    tunnels[index] = Some(Tunnel { ends, interests: [IN; 2], ways: [way()?, way()?] });
    Ok(())
}

impl<C: Carry> Tunnel<C> {
    /// Moves what can be moved from and to this end. Returns whether anything may still come.
    fn ready(&mut self, end: usize, buffer: &mut [u8]) -> io::Result<bool> {
        for from in [end, 1 - end] {
            let (source, sink) = (&self.ends[from], &self.ends[1 - from]);
            let way = &mut self.ways[from];
            if way.carry.waiting() > 0 {
                let flushed = way.carry.flush(sink);
                flushed.or_else(|e| if would_block(&e) { Ok(()) } else { Err(e) })?;
            } else if from == end && !way.ended {
                match way.carry.pass(source, sink, buffer) {
                    Ok(length) => way.ended = length == 0,
                    Err(e) if would_block(&e) => continue,
                    Err(e) => return Err(e),
                }
            } else {
                continue;
            }
            if way.ended && way.carry.waiting() == 0 {
                sink.shutdown(Shutdown::Write)?;
            }
        }
        Ok(!self.ways.iter().all(|way| way.ended && way.carry.waiting() == 0))
    }

    /// An end is read while nothing waits for the other, and written to while something does.
    fn watch(&mut self, index: usize, epoll: &Epoll) -> io::Result<bool> {
        for end in 0..2 {
            let (from, to) = (&self.ways[end], &self.ways[1 - end]);
            let read = if from.ended || from.carry.waiting() > 0 { 0 } else { IN };
            let write = if to.carry.waiting() > 0 { OUT } else { 0 };
            if self.interests[end] != read | write {
                self.interests[end] = read | write;
                epoll.modify(&self.ends[end], read | write, (index * 2 + end) as u64)?;
            }
        }
        Ok(true)
    }
}
