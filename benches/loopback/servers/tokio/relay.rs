//! A proxy with `copy_bidirectional`, whose buffers are as large as everybody's.

use crate::servers::runtime;
use crate::site::{READ_SIZE, Site};
use crate::workload::backend;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;

pub fn run(listener: TcpListener, site: &Arc<Site>) -> io::Result<()> {
    let target = backend(listener.local_addr()?);
    runtime::run(listener, site, |stream| drop(tokio::spawn(relay(stream, target))))
}

async fn relay(mut client: TcpStream, target: SocketAddr) -> io::Result<()> {
    let mut backend = TcpStream::connect(target).await?;
    backend.set_nodelay(true)?;
    copy_bidirectional_with_sizes(&mut client, &mut backend, READ_SIZE, READ_SIZE).await.map(drop)
}
