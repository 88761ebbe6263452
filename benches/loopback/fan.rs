//! One message at a time, which the server is to send to every connection: published on one connection, and again when
//! all have it. An operation is one delivered message.

use crate::client::{Count, Load, closed_by_server, more_than_asked};
use crate::sys::{self, EDGE, EMPTY_EVENT, Epoll, Event, IN};
use crate::workload::Workload;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};

const EVENTS: usize = 1024;

pub struct Fan {
    epoll: Epoll,
    events: Vec<Event>,
    members: Vec<Member>,
    /// Members that do not have the whole message yet.
    left: usize,
    message: Vec<u8>,
    scratch: Vec<u8>,
    count: Count,
}

struct Member {
    stream: TcpStream,
    received: usize,
}

impl Fan {
    pub fn connect(addr: SocketAddr, workload: &Workload) -> io::Result<Fan> {
        let epoll = Epoll::new()?;
        let mut members = Vec::with_capacity(workload.connections);
        for index in 0..workload.connections {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll.add(&stream, IN | EDGE, index as u64)?;
            members.push(Member { stream, received: 0 });
        }
        Ok(Fan {
            epoll,
            events: vec![EMPTY_EVENT; EVENTS],
            members,
            left: 0,
            message: workload.request(0),
            scratch: vec![0; workload.message + 1],
            count: Count::new()?,
        })
    }

    /// On the connection that was made last: once it is served, the others were accepted.
    fn publish(&mut self) -> io::Result<()> {
        self.left = self.members.len();
        self.members.iter_mut().for_each(|member| member.received = 0);
        self.count.asked(0);
        let publisher = self.members.last_mut().ok_or(ErrorKind::NotConnected)?;
        publisher.stream.write_all(&self.message)
    }

    fn ready(&mut self, index: usize) -> io::Result<()> {
        let member = &mut self.members[index];
        let wanted = self.message.len() - member.received;
        match sys::discard(&member.stream, &mut self.scratch[..=wanted]) {
            Ok(0) => return Err(closed_by_server()),
            Ok(length) if length > wanted => return Err(more_than_asked()),
            Ok(length) => member.received += length,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
        if member.received < self.message.len() {
            return Ok(());
        }
        self.left -= 1;
        if self.left > 0 {
            return Ok(());
        }
        let delivered = self.members.len() as u64;
        if self.count.answered(0, delivered) { self.publish() } else { Ok(()) }
    }
}

impl Load for Fan {
    fn start(&mut self) -> io::Result<()> {
        self.publish()
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
        format!("{} of {} have not got the message", self.left, self.members.len())
    }
}
