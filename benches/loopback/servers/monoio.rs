//! monoio as its documentation does it, on io_uring: a task and a buffer for each connection, which the kernel borrows
//! for each read and write.

use super::{Socket, spread};
use crate::site::{READ_SIZE, Site};
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread;
use tokio::sync::oneshot;

const BUFFER_SIZE_MIN: usize = 4 * 1024;

pub fn available() -> Result<(), &'static str> {
    if monoio::utils::detect_uring() {
        Ok(())
    } else {
        Err("this kernel has no io_uring, or forbids it")
    }
}

pub fn run(socket: Socket, site: &Arc<Site>) -> io::Result<()> {
    spread(socket.listener()?, site, serve)
}

fn serve(listener: std::net::TcpListener, site: &Site) -> io::Result<()> {
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new().build()?;
    let (stopper, stop) = oneshot::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let stopped = site.wait_for_stop();
            let _ = stopper.send(());
            stopped
        });
        runtime.block_on(async {
            monoio::select! {
                _ = stop => Ok(()),
                ended = accept(listener, site) => ended,
            }
        })
    })
}

async fn accept(listener: std::net::TcpListener, site: &Site) -> io::Result<()> {
    let size = site.message.clamp(BUFFER_SIZE_MIN, READ_SIZE);
    let listener = TcpListener::from_std(listener)?;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == ErrorKind::ConnectionAborted => continue,
            Err(e) => return Err(e),
        };
        stream.set_nodelay(true)?;
        monoio::spawn(echo(stream, size));
    }
}

async fn echo(mut stream: TcpStream, size: usize) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(size);
    loop {
        let (read, filled) = stream.read(buffer).await;
        if read? == 0 {
            return Ok(());
        }
        let (written, sent) = stream.write_all(filled).await;
        written?;
        buffer = sent;
        buffer.clear();
    }
}
