//! One server started on a fresh port and a fresh thread of this process, and stopped again.

use crate::servers::{Server, Socket};
use crate::site::{Site, Usage};
use crate::workload::Workload;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often is looked whether the server is ready: some bind the address anew.
const ENTRY_POLL: Duration = Duration::from_millis(1);

pub struct Host {
    pub addr: SocketAddr,
    site: Arc<Site>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Host {
    pub fn start(
        server: &'static Server,
        workload: &Workload,
        core: Option<usize>,
    ) -> io::Result<Host> {
        let socket = Socket::bind(workload)?;
        let addr = socket.addr()?;
        let site = Arc::new(Site::new(workload, core)?);
        let theirs = Arc::clone(&site);
        let thread = thread::Builder::new()
            .name(server.name.to_owned())
            .spawn(move || (server.run)(socket, &theirs))?;
        while !site.entered() && !thread.is_finished() {
            thread::sleep(ENTRY_POLL);
        }
        Ok(Host { addr, site, thread: Some(thread) })
    }

    pub fn usage(&self) -> io::Result<Usage> {
        self.site.usage()
    }

    /// Stops the server and returns what it returned.
    pub fn stop(mut self) -> io::Result<()> {
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.site.stop();
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the server panicked")))
    }
}

/// After an error of the client: the server's own error, if it has one, is the cause, so it is printed.
impl Drop for Host {
    fn drop(&mut self) {
        if let Err(e) = self.join() {
            eprintln!("the server ended with: {e}");
        }
    }
}
