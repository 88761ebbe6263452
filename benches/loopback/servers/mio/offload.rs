//! Another thread answers: it puts the answer into a queue behind a mutex and wakes the loop with mio's `Waker` if the
//! queue was empty.

use super::{Conn, EVENTS, LISTENER, STOP, accept};
use crate::servers::worker;
use crate::site::{READ_SIZE, Site};
use mio::net::TcpListener;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::mpsc::Sender;
use std::{mem, thread};

const ANSWERS: Token = Token(STOP.0 - 1);

/// For the connection with this index, if it is still the one with this number.
struct Message {
    index: usize,
    serial: u64,
    data: Vec<u8>,
}

pub fn serve(listener: std::net::TcpListener, site: &Site) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let waker = Waker::new(poll.registry(), ANSWERS)?;
    let messages: Mutex<Vec<Message>> = Mutex::default();
    thread::scope(|scope| {
        let jobs = worker::start(scope, site, |message| {
            let mut messages = messages.lock().unwrap();
            messages.push(message);
            if messages.len() == 1 {
                let _ = waker.wake(); // fails only without memory
            }
        });
        let mut events = Events::with_capacity(EVENTS);
        let mut buffer = vec![0; READ_SIZE];
        let mut conns: Vec<Option<Conn>> = Vec::new();
        let mut serials: Vec<u64> = Vec::new();
        let mut answers = Vec::new();
        listener.set_nonblocking(true)?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        poll.registry().register(&mut SourceFd(&site.as_raw_fd()), STOP, Interest::READABLE)?;
        loop {
            match poll.poll(&mut events, None) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                result => result?,
            }
            for event in &events {
                match event.token() {
                    STOP => return Ok(()),
                    LISTENER => {
                        accept(&listener, poll.registry(), &mut conns)?;
                        serials.resize(conns.len(), 0);
                    }
                    ANSWERS => {
                        mem::swap(&mut answers, &mut messages.lock().unwrap());
                        for Message { index, serial, data } in answers.drain(..) {
                            let Some(conn) = &mut conns[index] else { continue };
                            if serials[index] == serial && conn.send(&data).is_err() {
                                conns[index] = None;
                                serials[index] += 1;
                            }
                        }
                    }
                    Token(index) => {
                        let Some(conn) = &mut conns[index] else { continue };
                        let to = (index, serials[index]);
                        if !conn.hand_over(to, &mut buffer, &jobs).unwrap_or(false) {
                            conns[index] = None;
                            serials[index] += 1;
                        }
                    }
                }
            }
        }
    })
}

impl Conn {
    /// Behind what waits already.
    fn send(&mut self, data: &[u8]) -> io::Result<()> {
        if self.output.is_empty() {
            return self.write(data);
        }
        self.output.extend_from_slice(data);
        Ok(())
    }

    /// Flushes, and hands over what there is to read. Returns whether the connection is still open.
    fn hand_over(
        &mut self,
        (index, serial): (usize, u64),
        buffer: &mut [u8],
        jobs: &Sender<Message>,
    ) -> io::Result<bool> {
        self.flush()?;
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => {
                    let data = buffer[..length].to_vec();
                    jobs.send(Message { index, serial, data }).map_err(io::Error::other)?;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}
