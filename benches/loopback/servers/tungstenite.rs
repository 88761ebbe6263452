//! tokio-tungstenite as its example of an echo server does it: a task for each connection, whose messages are forwarded
//! from the reading to the writing half. TCP_NODELAY is the bench's.

use crate::site::Site;
use futures_util::{StreamExt, TryStreamExt, future};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

pub fn run(listener: std::net::TcpListener, site: &Arc<Site>) -> io::Result<()> {
    site.enter()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stopper, stop) = oneshot::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let stopped = site.wait_for_stop();
            let _ = stopper.send(());
            stopped
        });
        runtime.block_on(accept(listener, stop))
    })
}

async fn accept(
    listener: std::net::TcpListener,
    mut stop: oneshot::Receiver<()>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let accepted = tokio::select! {
            _ = &mut stop => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == ErrorKind::ConnectionAborted => continue,
            Err(e) => return Err(e),
        };
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream));
    }
}

/// An error is the client's, as a reset: it ends this connection.
async fn serve(stream: TcpStream) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (write, read) = socket.split();
    let messages =
        read.try_filter(|message| future::ready(message.is_text() || message.is_binary()));
    let _ = messages.forward(write).await;
}
