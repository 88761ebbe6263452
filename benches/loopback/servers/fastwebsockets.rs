//! fastwebsockets as its example of an echo server does it: hyper upgrades the connection, a task of its own echoes,
//! outside of tokio's budget, with fragments collected. TCP_NODELAY is the bench's.

use super::{Socket, runtime};
use crate::site::Site;
use fastwebsockets::upgrade::{self, UpgradeFut};
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;

pub fn run(socket: Socket, site: &Arc<Site>) -> io::Result<()> {
    runtime::run(socket.listener()?, site, |stream| drop(tokio::spawn(serve(stream))))
}

/// An error is the client's, as a reset: it ends this connection.
async fn serve(stream: TcpStream) {
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(accept_upgrade))
        .with_upgrades()
        .await;
}

async fn accept_upgrade(
    mut request: Request<Incoming>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade::upgrade(&mut request)?;
    tokio::spawn(tokio::task::unconstrained(echo(upgraded)));
    Ok(response)
}

async fn echo(upgraded: UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(upgraded.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}
