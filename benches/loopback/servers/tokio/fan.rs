//! Broadcast as tokio's example of a chat does it: every connection's task has a channel, whose sending ends stand in a
//! shared list. The bytes are shared too.

use super::BUFFER_SIZE_MIN;
use crate::servers::runtime;
use crate::site::Site;
use bytes::Bytes;
use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

type Members = Arc<Mutex<Vec<UnboundedSender<Bytes>>>>;

pub fn run(listener: TcpListener, site: &Arc<Site>) -> io::Result<()> {
    let members = Members::default();
    runtime::run(listener, site, |stream| {
        let (sender, messages) = unbounded_channel();
        members.lock().unwrap().push(sender);
        tokio::spawn(serve(stream, messages, Arc::clone(&members)));
    })
}

async fn serve(
    mut stream: TcpStream,
    mut messages: UnboundedReceiver<Bytes>,
    members: Members,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_SIZE_MIN];
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => stream.write_all(&message).await?,
                None => return Ok(()),
            },
            read = stream.read(&mut buffer) => match read? {
                0 => break,
                length => publish(&members, Bytes::copy_from_slice(&buffer[..length])),
            },
        }
    }
    messages.close();
    while let Some(message) = messages.recv().await {
        stream.write_all(&message).await?;
    }
    Ok(())
}

/// Who has left is left out from then on.
fn publish(members: &Members, message: Bytes) {
    members.lock().unwrap().retain(|member| member.send(message.clone()).is_ok());
}
