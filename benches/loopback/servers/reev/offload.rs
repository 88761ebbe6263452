//! Another thread answers, through the connection's `Remote`.

use crate::servers::worker;
use crate::site::Site;
use reev::{Ctx, EvHandler, Remote, SendError};
use std::io;
use std::sync::mpsc::Sender;
use std::thread::{self, Scope};

pub type Job = (Remote, Vec<u8>);

pub fn worker<'scope>(scope: &'scope Scope<'scope, '_>, site: &'scope Site) -> Sender<Job> {
    worker::start(scope, site, |(remote, data): Job| {
        while remote.pending_output() > OUTPUT_MAX {
            thread::yield_now();
        }
        let data = bytes::Bytes::from(data);
        while let Err(SendError::Full) = remote.write(data.clone()) {
            thread::yield_now();
        }
    })
}

/// What may wait for a slow reader: half of what ends a connection.
const OUTPUT_MAX: usize = 8 << 20;

pub struct Offload {
    jobs: Sender<Job>,
    remote: Option<Remote>,
}

impl Offload {
    pub fn new(jobs: Sender<Job>) -> Offload {
        Offload { jobs, remote: None }
    }
}

impl EvHandler for Offload {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let remote = self.remote.get_or_insert_with(|| cx.remote());
        self.jobs.send((remote.clone(), data.to_vec())).map_err(io::Error::other)?;
        Ok(data.len())
    }
}
