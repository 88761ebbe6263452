//! may_minihttp as its TechEmpower entry: a coroutine for each connection, here on one worker thread.
//!
//! Its `Server: M` and `Ok` are fixed, so its response is a few bytes shorter. It binds the address itself, does not
//! set TCP_NODELAY, and its scheduler has no end: the worker thread, which sleeps while there is nothing to do, is
//! shared by all rounds of the process.

use super::Socket;
use crate::site::Site;
use may_minihttp::{HttpServer, HttpService, Request, Response};
use std::io;
use std::sync::Arc;

#[derive(Clone)]
struct Plaintext;

impl HttpService for Plaintext {
    fn call(
        &mut self,
        request: Request<'_, '_, '_>,
        response: &mut Response<'_>,
    ) -> io::Result<()> {
        match request.path() {
            "/plaintext" => response.header("Content-Type: text/plain").body("Hello, World!"),
            _ => drop(response.status_code(404, "Not Found")),
        }
        Ok(())
    }
}

pub fn run(socket: Socket, site: &Arc<Site>) -> io::Result<()> {
    may::config().set_workers(1).set_worker_pin(false);
    let addr = socket.addr()?;
    drop(socket);
    let accepting = HttpServer(Plaintext).start(addr)?;
    let entering = Arc::clone(site);
    let entered = may::go!(move || entering.enter()).join();
    entered.unwrap_or_else(|_| Err(io::Error::other("the worker thread panicked")))?;
    site.wait_for_stop()?;
    cancel(accepting.coroutine());
    accepting.wait();
    Ok(())
}

/// Ends the coroutine that accepts connections, at its next system call.
#[allow(unsafe_code, reason = "there is no other way to end it")]
fn cancel(accepting: &may::coroutine::Coroutine) {
    // SAFETY: the coroutine unwinds from where it waits, so what it owns is dropped: a listener, which no other uses.
    unsafe { accepting.cancel() }
}
