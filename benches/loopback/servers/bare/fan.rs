//! Broadcast on the bare loop: what comes on one connection is written to each at once.

use super::{Conn, EVENTS, LISTENER, STOP, accept, flush, send, would_block};
use crate::site::{READ_SIZE, Site};
use crate::sys::{EMPTY_EVENT, Epoll, IN};
use std::io::{self, Read};
use std::net::TcpListener;

pub fn serve(listener: TcpListener, site: &Site) -> io::Result<()> {
    let epoll = Epoll::new()?;
    let mut events = [EMPTY_EVENT; EVENTS];
    let mut buffer = vec![0; READ_SIZE];
    let mut conns: Vec<Option<Conn>> = Vec::new();
    listener.set_nonblocking(true)?;
    epoll.add(&listener, IN, LISTENER)?;
    epoll.add(site, IN, STOP)?;
    loop {
        let count = epoll.wait(&mut events, -1)?;
        for event in &events[..count] {
            let index = match event.u64 {
                STOP => return Ok(()),
                LISTENER => {
                    accept(&listener, &epoll, &mut conns)?;
                    continue;
                }
                index => index as usize,
            };
            let Some(conn) = &mut conns[index] else { continue };
            let read = match &conn.blocked {
                Some(_) => flush(conn, &epoll).map(|open| if open { None } else { Some(0) }),
                None => match conn.stream.read(&mut buffer) {
                    Err(e) if would_block(&e) => Ok(None),
                    read => read.map(Some),
                },
            };
            match read {
                Ok(None) => {}
                Ok(Some(0)) | Err(_) => conns[index] = None,
                Ok(Some(length)) => {
                    for slot in &mut conns {
                        if let Some(conn) = slot
                            && send(conn, &epoll, &buffer[..length]).is_err()
                        {
                            *slot = None;
                        }
                    }
                }
            }
        }
    }
}
