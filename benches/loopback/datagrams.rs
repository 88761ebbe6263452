//! Datagrams: each socket has so many under way, and sends as many again as come back. Many go and come with one call,
//! so that the client costs less than a server that has a call for each.

use crate::client::{Count, Load};
use crate::sys::{Batch, EMPTY_EVENT, Epoll, Event, IN};
use crate::workload::Workload;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

const EVENTS: usize = 256;

pub struct Datagrams {
    epoll: Epoll,
    events: Vec<Event>,
    lanes: Vec<Lane>,
    /// What a lane has under way.
    depth: usize,
    requests: Batch,
    answers: Batch,
    count: Count,
}

/// A socket; datagrams do not overtake each other on the way.
struct Lane {
    socket: UdpSocket,
    sent: usize,
    received: usize,
}

impl Datagrams {
    pub fn connect(addr: SocketAddr, workload: &Workload) -> io::Result<Datagrams> {
        let epoll = Epoll::new()?;
        let mut lanes = Vec::with_capacity(workload.connections);
        for index in 0..workload.connections {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.connect(addr)?;
            epoll.add(&socket, IN, index as u64)?;
            lanes.push(Lane { socket, sent: 0, received: 0 });
        }
        Ok(Datagrams {
            epoll,
            events: vec![EMPTY_EVENT; EVENTS],
            lanes,
            depth: workload.depth,
            requests: Batch::filled(workload.depth, &workload.request(0)),
            answers: Batch::new(workload.depth, workload.message + 1),
            count: Count::new()?,
        })
    }

    fn send(&mut self, index: usize, count: usize) -> io::Result<()> {
        let lane = &mut self.lanes[index];
        if self.requests.send(&lane.socket, 0, count)? < count {
            return Err(io::Error::other("the client's socket takes no more"));
        }
        for serial in lane.sent..lane.sent + count {
            self.count.asked(serial * self.lanes.len() + index);
        }
        self.lanes[index].sent += count;
        Ok(())
    }

    fn ready(&mut self, index: usize) -> io::Result<()> {
        let lanes = self.lanes.len();
        let lane = &mut self.lanes[index];
        let count = match self.answers.receive(&lane.socket) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
            received => received?,
        };
        let mut again = 0;
        for serial in lane.received..lane.received + count {
            again += usize::from(self.count.answered(serial * lanes + index, 1));
        }
        lane.received += count;
        if again > 0 { self.send(index, again) } else { Ok(()) }
    }
}

impl Load for Datagrams {
    fn start(&mut self) -> io::Result<()> {
        (0..self.lanes.len()).try_for_each(|index| self.send(index, self.depth))
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
        let missing: usize = self.lanes.iter().map(|lane| lane.sent - lane.received).sum();
        format!("{missing} datagrams have not come back")
    }
}
