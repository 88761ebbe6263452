//! Datagrams on the bare loop, with a call for each or a call for many.

use super::{STOP, would_block};
use crate::servers::{DATAGRAM_SIZE, DATAGRAMS};
use crate::site::Site;
use crate::sys::{Batch, EMPTY_EVENT, Epoll, IN};
use std::io;
use std::net::UdpSocket;

const SOCKET: u64 = 0;

/// One that does not fit is lost, as everywhere.
pub fn serve(socket: &UdpSocket, site: &Site) -> io::Result<()> {
    let mut buffer = [0; DATAGRAM_SIZE];
    turns(socket, site, || {
        for _ in 0..DATAGRAMS {
            let (length, from) = socket.recv_from(&mut buffer)?;
            socket.send_to(&buffer[..length], from)?;
        }
        Ok(())
    })
}

pub fn serve_batches(socket: &UdpSocket, site: &Site) -> io::Result<()> {
    let mut batch = Batch::new(DATAGRAMS, DATAGRAM_SIZE);
    turns(socket, site, || {
        let count = batch.receive(socket)?;
        let mut sent = 0;
        while sent < count {
            sent += batch.send(socket, sent, count - sent)?;
        }
        Ok(())
    })
}

/// Calls `turn` whenever the socket is readable. That it would block ends a turn.
fn turns(
    socket: &UdpSocket,
    site: &Site,
    mut turn: impl FnMut() -> io::Result<()>,
) -> io::Result<()> {
    let epoll = Epoll::new()?;
    let mut events = [EMPTY_EVENT; 2];
    socket.set_nonblocking(true)?;
    epoll.add(socket, IN, SOCKET)?;
    epoll.add(site, IN, STOP)?;
    loop {
        let count = epoll.wait(&mut events, -1)?;
        for event in &events[..count] {
            if event.u64 == STOP {
                return Ok(());
            }
            match turn() {
                Err(e) if !would_block(&e) => return Err(e),
                _ => {}
            }
        }
    }
}
