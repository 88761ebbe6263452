//! tokio-tungstenite as its example of an echo server does it: a task for each connection, whose messages are forwarded
//! from the reading to the writing half. TCP_NODELAY is the bench's.

use super::{Socket, runtime};
use crate::site::Site;
use futures_util::{StreamExt, TryStreamExt, future};
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;

pub fn run(socket: Socket, site: &Arc<Site>) -> io::Result<()> {
    runtime::run(socket.listener()?, site, |stream| drop(tokio::spawn(serve(stream))))
}

/// An error is the client's, as a reset: it ends this connection.
async fn serve(stream: TcpStream) {
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (write, read) = socket.split();
    let messages =
        read.try_filter(|message| future::ready(message.is_text() || message.is_binary()));
    let _ = messages.forward(write).await;
}
