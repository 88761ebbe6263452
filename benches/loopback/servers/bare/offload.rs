//! Another thread answers: it puts the answer into a queue behind a mutex and rings an eventfd if the queue was empty;
//! the loop sends what is in it.

use super::{Conn, EVENTS, LISTENER, STOP, accept, flush, send, would_block};
use crate::servers::worker;
use crate::site::{READ_SIZE, Site};
use crate::sys::{Bell, EMPTY_EVENT, Epoll, IN};
use std::io::{self, Read};
use std::mem;
use std::net::TcpListener;
use std::sync::Mutex;
use std::thread;

const ANSWERS: u64 = STOP - 1;

/// For the connection with this index, if it is still the one with this number.
struct Message {
    index: usize,
    serial: u64,
    data: Vec<u8>,
}

struct Mailbox {
    bell: Bell,
    messages: Mutex<Vec<Message>>,
}

impl Mailbox {
    fn post(&self, message: Message) {
        let mut messages = self.messages.lock().unwrap();
        messages.push(message);
        if messages.len() == 1 {
            self.bell.ring();
        }
    }
}

pub fn serve(listener: TcpListener, site: &Site) -> io::Result<()> {
    let mailbox = Mailbox { bell: Bell::new()?, messages: Mutex::default() };
    thread::scope(|scope| {
        let jobs = worker::start(scope, site, |message| mailbox.post(message));
        let epoll = Epoll::new()?;
        let mut events = [EMPTY_EVENT; EVENTS];
        let mut buffer = vec![0; READ_SIZE];
        let mut conns: Vec<Option<Conn>> = Vec::new();
        let mut serials: Vec<u64> = Vec::new();
        let mut answers = Vec::new();
        listener.set_nonblocking(true)?;
        epoll.add(&listener, IN, LISTENER)?;
        epoll.add(site, IN, STOP)?;
        epoll.add(&mailbox.bell, IN, ANSWERS)?;
        loop {
            let count = epoll.wait(&mut events, -1)?;
            for event in &events[..count] {
                let index = match event.u64 {
                    STOP => return Ok(()),
                    LISTENER => {
                        accept(&listener, &epoll, &mut conns)?;
                        serials.resize(conns.len(), 0);
                        continue;
                    }
                    ANSWERS => {
                        mailbox.bell.silence();
                        mem::swap(&mut answers, &mut mailbox.messages.lock().unwrap());
                        for Message { index, serial, data } in answers.drain(..) {
                            let Some(conn) = &mut conns[index] else { continue };
                            if serials[index] == serial && send(conn, &epoll, &data).is_err() {
                                conns[index] = None;
                                serials[index] += 1;
                            }
                        }
                        continue;
                    }
                    index => index as usize,
                };
                let Some(conn) = &mut conns[index] else { continue };
                let open = match &conn.blocked {
                    Some(_) => flush(conn, &epoll),
                    None => match conn.stream.read(&mut buffer) {
                        Ok(0) => Ok(false),
                        Ok(length) => {
                            let data = buffer[..length].to_vec();
                            Ok(jobs.send(Message { index, serial: serials[index], data }).is_ok())
                        }
                        Err(e) => {
                            if would_block(&e) {
                                Ok(true)
                            } else {
                                Err(e)
                            }
                        }
                    },
                };
                if !open.unwrap_or(false) {
                    conns[index] = None;
                    serials[index] += 1;
                }
            }
        }
    })
}
