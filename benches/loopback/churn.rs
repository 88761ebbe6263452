//! Connections that live for one message: connect, ask, wait for the answer, close. So many at a time; when one is
//! closed the next is connected.
//!
//! The client closes first, so it is the one with the sockets in TIME_WAIT.

use crate::client::{Count, Load, closed_by_server, more_than_asked};
use crate::sys::{self, EDGE, EMPTY_EVENT, Epoll, Event, IN};
use crate::workload::Workload;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};

const EVENTS: usize = 256;

pub struct Churn {
    addr: SocketAddr,
    epoll: Epoll,
    events: Vec<Event>,
    places: Vec<Place>,
    request: Vec<u8>,
    scratch: Vec<u8>,
    count: Count,
}

/// One connection after the other.
struct Place {
    stream: Option<TcpStream>,
    /// How many there were: tells an event of an earlier one.
    serial: u32,
    received: usize,
}

impl Churn {
    pub fn new(addr: SocketAddr, workload: &Workload, answer_size: usize) -> io::Result<Churn> {
        let place = |_| Place { stream: None, serial: 0, received: 0 };
        Ok(Churn {
            addr,
            epoll: Epoll::new()?,
            events: vec![EMPTY_EVENT; EVENTS],
            places: (0..workload.active).map(place).collect(),
            request: workload.request(0),
            scratch: vec![0; answer_size + 1],
            count: Count::new()?,
        })
    }

    fn open(&mut self, index: usize) -> io::Result<()> {
        self.count.asked(index);
        let place = &mut self.places[index];
        place.serial = place.serial.wrapping_add(1);
        place.received = 0;
        let mut stream = TcpStream::connect(self.addr)?;
        stream.set_nonblocking(true)?;
        self.epoll.add(&stream, IN | EDGE, u64::from(place.serial) << 32 | index as u64)?;
        stream.write_all(&self.request)?;
        place.stream = Some(stream);
        Ok(())
    }

    fn ready(&mut self, token: u64) -> io::Result<()> {
        let index = token as u32 as usize;
        let answer_size = self.scratch.len() - 1;
        let place = &mut self.places[index];
        let Some(stream) = &place.stream else { return Ok(()) };
        if place.serial != (token >> 32) as u32 {
            return Ok(());
        }
        match sys::discard(stream, &mut self.scratch[..=answer_size - place.received]) {
            Ok(0) => return Err(closed_by_server()),
            Ok(length) => place.received += length,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
        if place.received < answer_size {
            return Ok(());
        }
        if place.received > answer_size {
            return Err(more_than_asked());
        }
        place.stream = None;
        if self.count.answered(index, 1) { self.open(index) } else { Ok(()) }
    }
}

impl Load for Churn {
    fn start(&mut self) -> io::Result<()> {
        (0..self.places.len()).try_for_each(|index| self.open(index))
    }

    fn turn(&mut self) -> io::Result<bool> {
        let count = self.epoll.wait(&mut self.events, 0)?;
        for index in 0..count {
            let token = self.events[index].u64;
            self.ready(token)?;
        }
        Ok(count > 0)
    }

    fn count(&mut self) -> &mut Count {
        &mut self.count
    }

    fn place(&self) -> String {
        let open = self.places.iter().filter(|place| place.stream.is_some()).count();
        format!("{open} connections wait for {} B", self.scratch.len() - 1)
    }
}
