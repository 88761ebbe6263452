//! The servers that are compared. To add one: a file with
//! `pub fn run(listener: TcpListener, site: &Arc<Site>) -> io::Result<()>`, a `mod` line and an entry in [`ALL`].
//!
//! `run` calls `site.enter()` on each thread that serves, speaks `site.protocol` (HTTP: the response of
//! [`http::Response`] for `/plaintext`), sets TCP_NODELAY, takes partial reads and writes, flushes and closes after the
//! peer's FIN, survives resets, and returns when `site` becomes readable.

mod bare;
mod http;
mod mio;
mod reev;
mod tokio;

use crate::site::Site;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;

pub struct Server {
    pub name: &'static str,
    pub what: &'static str,
    pub run: fn(TcpListener, &Arc<Site>) -> io::Result<()>,
    /// The same code as another entry: only for the noise of time measurements.
    pub again: bool,
}

/// The first is the one the others are compared with.
pub const ALL: &[Server] = &[
    Server {
        name: "bare",
        what: "level-triggered epoll loop of the bench: the limit",
        run: bare::run,
        again: false,
    },
    Server {
        name: "bare2",
        what: "the same loop again: the run's noise",
        run: bare::run,
        again: true,
    },
    Server { name: "reev", what: "reev, one reactor", run: reev::run, again: false },
    Server { name: "mio", what: "mio 1, edge-triggered", run: mio::run, again: false },
    Server {
        name: "tokio",
        what: "tokio 1, current_thread, a task per connection",
        run: tokio::run,
        again: false,
    },
];

impl Server {
    pub fn find(name: &str) -> Option<&'static Server> {
        ALL.iter().find(|server| server.name == name)
    }
}
