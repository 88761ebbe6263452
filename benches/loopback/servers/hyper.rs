//! hyper as its guide does it, on tokio's current_thread runtime: a task for each connection, which serves a
//! `service_fn`. Two options beside the guide's: `pipeline_flush`, which its TechEmpower entry sets and which is to its
//! advantage, and `half_close`, without which what was asked before a FIN stays unanswered. No timer is given, so none
//! of its timeouts run.

use super::{Socket, runtime};
use crate::site::Site;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, SERVER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;

pub fn run(socket: Socket, site: &Arc<Site>) -> io::Result<()> {
    runtime::run(socket.listener()?, site, |stream| drop(tokio::spawn(serve(stream))))
}

/// An error is the client's, as a reset: it ends this connection.
async fn serve(stream: TcpStream) {
    let _ = http1::Builder::new()
        .pipeline_flush(true)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service_fn(plaintext))
        .await;
}

async fn plaintext(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let known = request.method() == Method::GET && request.uri().path() == "/plaintext";
    let body: &[u8] = if known { b"Hello, World!" } else { b"" };
    let mut response = Response::new(Full::new(Bytes::from_static(body)));
    if !known {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static("bench"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(response)
}
