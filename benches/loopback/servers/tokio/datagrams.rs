//! Datagrams as tokio's documentation of `UdpSocket` echoes them.

use crate::servers::{DATAGRAM_SIZE, runtime};
use crate::site::Site;
use std::io;
use std::sync::Arc;
use tokio::net::UdpSocket;

pub fn run(socket: std::net::UdpSocket, site: &Arc<Site>) -> io::Result<()> {
    site.enter()?;
    runtime::until_stopped(site, echo(socket))
}

async fn echo(socket: std::net::UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    let mut buffer = [0; DATAGRAM_SIZE];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        socket.send_to(&buffer[..length], from).await?;
    }
}
