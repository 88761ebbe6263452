//! tokio's runtime as its servers here use it: accept, and a task for each connection; current_thread, or for several
//! threads multi_thread, beside whose workers this thread accepts.

use crate::site::Site;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// Until the site stops. `serve` spawns the task.
pub fn run(
    listener: std::net::TcpListener,
    site: &Arc<Site>,
    serve: impl FnMut(TcpStream),
) -> io::Result<()> {
    site.enter()?;
    until_stopped(site, accept(listener, serve))
}

/// Runs `work`, and what it spawns, until the site stops.
pub fn until_stopped(
    site: &Arc<Site>,
    work: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let workers = site.reactors;
    let runtime = if site.reactors > 1 {
        let site = Arc::clone(site);
        let enter = move || {
            if let Err(e) = site.enter() {
                eprintln!("a worker of tokio's is not measured: {e}");
            }
        };
        Builder::new_multi_thread()
            .worker_threads(workers)
            .on_thread_start(enter)
            .enable_all()
            .build()?
    } else {
        Builder::new_current_thread().enable_all().build()?
    };
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
