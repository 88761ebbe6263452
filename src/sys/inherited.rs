//! Descriptors that the process was started with, for us to take.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use socket2::SockRef;

/// The first descriptor that is handed over (sd_listen_fds(3)); those before are the standard streams.
const FIRST: RawFd = 3;

/// Whether they were taken already: each descriptor has one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The `count` descriptors from 3 on, in order, not to be inherited any further; none if they
/// were taken before.
pub(crate) fn take(count: usize) -> io::Result<Vec<OwnedFd>> {
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    // All are looked at before any is taken: behind those that are there may be one of somebody else.
    for fd in (FIRST..).take(count) {
        // SAFETY: fcntl(2) reads nothing from us; a number that is no descriptor is EBADF.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            let error = io::Error::last_os_error();
            let message = format!("descriptor {fd} of the {count} handed over: {error}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
    }
    // SAFETY: they are open, were opened for this process by whoever started it, and `TAKEN` says
    // that each is given to its owner here for the first time.
    let owned = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
    let taken: Vec<OwnedFd> = (FIRST..).take(count).map(owned).collect();
    for fd in &taken {
        SockRef::from(&fd.as_fd()).set_cloexec(true)?;
    }
    Ok(taken)
}
