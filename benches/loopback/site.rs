//! Where a server runs: what it is to speak, on which core, when to stop, and the threads that are measured.

use crate::sys::{self, Bell, EMPTY_EVENT, Epoll, IN, Thread};
use crate::workload::{Protocol, Workload};
use core_affinity::CoreId;
use std::io;
use std::ops::{AddAssign, Sub};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Mutex;
use std::time::Duration;

/// The reading size every server uses.
pub const READ_SIZE: usize = 64 * 1024;

pub struct Site {
    pub protocol: Protocol,
    /// Bytes of an echo message: how large a buffer of its own a connection is given, by servers that do so.
    pub message: usize,
    /// How many threads are to serve, by servers that can choose.
    pub reactors: usize,
    core: Option<usize>,
    bell: Bell,
    threads: Mutex<Vec<Thread>>,
}

/// What the threads of a server have used.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    pub cpu: Duration,
    pub sleeps: u64,
    pub preemptions: u64,
}

impl Site {
    pub fn new(workload: &Workload, core: Option<usize>) -> io::Result<Site> {
        Ok(Site {
            protocol: workload.protocol,
            message: workload.message,
            reactors: workload.reactors,
            core,
            bell: Bell::new()?,
            threads: Mutex::default(),
        })
    }

    /// To be called once by every thread that serves, on that thread, before it serves: pins it and measures it. One of
    /// several is not pinned: the kernel spreads them over all cores.
    pub fn enter(&self) -> io::Result<()> {
        if self.reactors > 1 {
            sys::unpin()?;
        } else if let Some(id) = self.core
            && !core_affinity::set_for_current(CoreId { id })
        {
            return Err(io::Error::other(format!("cannot pin the server's thread to core {id}")));
        }
        self.threads.lock().unwrap().push(Thread::current()?);
        Ok(())
    }

    /// Whether all threads serve.
    pub fn entered(&self) -> bool {
        self.threads.lock().unwrap().len() >= self.reactors
    }

    /// Makes [`Site::as_fd`] readable, for good.
    pub fn stop(&self) {
        self.bell.ring();
    }

    /// Blocks until [`Site::stop`]: for a helper thread of a server that is stopped by a call, not by a descriptor.
    pub fn wait_for_stop(&self) -> io::Result<()> {
        let epoll = Epoll::new()?;
        epoll.add(self, IN, 0)?;
        while epoll.wait(&mut [EMPTY_EVENT], -1)? == 0 {}
        Ok(())
    }

    /// The sum over the threads that have entered; fails once one of them has ended.
    pub fn usage(&self) -> io::Result<Usage> {
        let mut sum = Usage::default();
        let threads = self.threads.lock().unwrap();
        if threads.is_empty() {
            return Err(io::Error::other("the server has not called Site::enter"));
        }
        for thread in threads.iter() {
            let (sleeps, preemptions) = thread.switches()?;
            sum.cpu += thread.cpu_time()?;
            sum.sleeps += sleeps;
            sum.preemptions += preemptions;
        }
        Ok(sum)
    }
}

/// Readable once the server is to stop.
impl AsFd for Site {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl AsRawFd for Site {
    fn as_raw_fd(&self) -> RawFd {
        self.bell.as_raw_fd()
    }
}

impl Sub for Usage {
    type Output = Usage;

    fn sub(self, earlier: Usage) -> Usage {
        Usage {
            cpu: self.cpu - earlier.cpu,
            sleeps: self.sleeps - earlier.sleeps,
            preemptions: self.preemptions - earlier.preemptions,
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Usage) {
        self.cpu += more.cpu;
        self.sleeps += more.sleeps;
        self.preemptions += more.preemptions;
    }
}
