//! The system has no rule for which socket of a group gets a new connection, nor one that has a
//! listening socket ignore new ones: what `steer.rs` does on Linux is unsupported here.

use std::io;
use std::os::fd::BorrowedFd;

use super::net::unsupported;

/// The rule for a group.
pub(crate) struct Steering {
    pub(crate) by_cpu: Vec<(u32, Vec<u32>)>,
    pub(crate) others: Vec<u32>,
}

pub(crate) fn forget(_fd: BorrowedFd<'_>) -> io::Result<()> {
    Err(unsupported("steering of connections"))
}

pub(crate) fn steer(_fd: BorrowedFd<'_>, rule: &Steering) -> io::Result<()> {
    let Steering { by_cpu, others } = rule;
    log::debug!("no rule for {} reactors and {} CPUs", others.len(), by_cpu.len());
    Err(unsupported("steering of connections"))
}

pub(crate) fn ignore_new(_fd: BorrowedFd<'_>) -> io::Result<()> {
    Err(unsupported("filter of new connections"))
}

pub(crate) fn heed_new(_fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(()) // it never ignored any
}
