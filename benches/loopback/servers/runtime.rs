//! tokio's current_thread runtime as its servers here use it: accept, and a task for each connection.

use crate::site::Site;
use std::io::{self, ErrorKind};
use std::thread;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// Until the site stops. `serve` spawns the task.
pub fn run(
    listener: std::net::TcpListener,
    site: &Site,
    serve: impl FnMut(TcpStream),
) -> io::Result<()> {
    site.enter()?;
    until_stopped(site, accept(listener, serve))
}

/// Runs `work`, and what it spawns, until the site stops.
pub fn until_stopped(site: &Site, work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stopper, stop) = oneshot::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let stopped = site.wait_for_stop();
            let _ = stopper.send(());
            stopped
        });
        runtime.block_on(async {
            tokio::select! {
                _ = stop => Ok(()),
                ended = work => ended,
            }
        })
    })
}

async fn accept(
    listener: std::net::TcpListener,
    mut serve: impl FnMut(TcpStream),
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == ErrorKind::ConnectionAborted => continue,
            Err(e) => return Err(e),
        };
        stream.set_nodelay(true)?;
        serve(stream);
    }
}
