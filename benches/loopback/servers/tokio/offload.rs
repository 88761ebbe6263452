//! Another thread answers, through an unbounded channel of tokio's to the task that writes to the connection.

use super::BUFFER_SIZE_MIN;
use crate::servers::{runtime, worker};
use crate::site::Site;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

type Job = (UnboundedSender<Vec<u8>>, Vec<u8>);

pub fn run(listener: TcpListener, site: &Arc<Site>) -> io::Result<()> {
    thread::scope(|scope| {
        let jobs = worker::start(scope, site, |(connection, data): Job| {
            let _ = connection.send(data); // it may have left
        });
        runtime::run(listener, site, |stream| drop(tokio::spawn(serve(stream, jobs.clone()))))
    })
}

async fn serve(stream: TcpStream, jobs: Sender<Job>) -> io::Result<()> {
    let (mut input, output) = stream.into_split();
    let (sender, answers) = unbounded_channel();
    tokio::spawn(write(output, answers));
    let mut buffer = vec![0; BUFFER_SIZE_MIN];
    loop {
        let length = input.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        jobs.send((sender.clone(), buffer[..length].to_vec())).map_err(io::Error::other)?;
    }
}

/// Until all senders are gone: that of the reading half and those of jobs.
async fn write(
    mut output: OwnedWriteHalf,
    mut answers: UnboundedReceiver<Vec<u8>>,
) -> io::Result<()> {
    while let Some(answer) = answers.recv().await {
        output.write_all(&answer).await?;
    }
    Ok(())
}
