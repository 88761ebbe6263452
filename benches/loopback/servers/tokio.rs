//! tokio as its tutorial does it, on the current_thread runtime: a task and a buffer for each connection, `read` and
//! `write_all`.

mod datagrams;
mod fan;
mod offload;
mod relay;

use super::http::Response;
use super::{Socket, runtime};
use crate::site::{READ_SIZE, Site};
use crate::workload::Protocol;
use bytes::{Buf, BytesMut};
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};

const BUFFER_SIZE_MIN: usize = 4 * 1024;
const REQUEST_SIZE_MAX: usize = 16 * 1024;

thread_local! {
    static RESPONSE: RefCell<Response> = RefCell::new(Response::new(1));
}

pub fn run(socket: Socket, site: &Arc<Site>) -> io::Result<()> {
    if site.protocol == Protocol::Datagram {
        return datagrams::run(socket.datagrams()?, site);
    }
    let listener = socket.listener()?;
    match site.protocol {
        Protocol::Http => {
            let mut refreshing = None;
            runtime::run(listener, site, |stream| {
                refreshing.get_or_insert_with(|| tokio::spawn(refresh()));
                tokio::spawn(http(stream));
            })
        }
        Protocol::Offload => offload::run(listener, site),
        Protocol::Broadcast => fan::run(listener, site),
        Protocol::Relay => relay::run(listener, site),
        _ => {
            let size = site.message.clamp(BUFFER_SIZE_MIN, READ_SIZE);
            runtime::run(listener, site, |stream| drop(tokio::spawn(echo(stream, size))))
        }
    }
}

async fn echo(mut stream: TcpStream, size: usize) -> io::Result<()> {
    let mut buffer = vec![0; size];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length]).await?;
    }
}

async fn http(mut stream: TcpStream) -> io::Result<()> {
    let mut input = BytesMut::with_capacity(REQUEST_SIZE_MAX);
    let mut answers = Vec::new();
    loop {
        input.reserve(BUFFER_SIZE_MIN);
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        answers.clear();
        let used = RESPONSE.with_borrow(|response| response.answer(&input, &mut answers))?;
        input.advance(used);
        if input.len() > REQUEST_SIZE_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, "a request of more than 16 KiB"));
        }
        stream.write_all(&answers).await?;
    }
}

async fn refresh() {
    let mut tick = interval(Duration::from_millis(500));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        RESPONSE.with_borrow_mut(Response::refresh);
    }
}
