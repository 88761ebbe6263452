//! kqueue(2) and kevent(2) as one face of the five systems, whose structures and constants differ
//! in width. All comes from `raw`: the system's own, or, with `--cfg reev_kqueue_emulation` on
//! Linux, the emulation's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::time::Duration;

#[cfg(reev_kqueue_emulation)]
use super::emulation as raw;
#[cfg(not(reev_kqueue_emulation))]
use libc as raw;

// An id has to fit into the pointer that comes with an event.
const _: () = assert!(size_of::<*mut libc::c_void>() >= size_of::<u64>(), "a 64-bit system");

macro_rules! constants {
    ($type:ty: $($name:ident)*) => {
        $(
            #[allow(clippy::unnecessary_cast, reason = "the types differ by system")]
            pub(super) const $name: $type = raw::$name as $type;
        )*
    };
}

constants!(i64: EVFILT_READ EVFILT_WRITE EVFILT_USER);
constants!(u32: EV_ADD EV_DELETE EV_CLEAR EV_RECEIPT EV_ERROR EV_EOF);
constants!(u32: NOTE_TRIGGER NOTE_LOWAT);
#[cfg(test)]
constants!(i64: EVFILT_TIMER);
#[cfg(test)]
constants!(u32: EV_ENABLE EV_DISABLE EV_ONESHOT EV_DISPATCH);

#[cfg(target_os = "netbsd")]
type Flags = u32;
#[cfg(not(target_os = "netbsd"))]
type Flags = u16;

/// A change to make, or an event.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Kevent(raw::kevent);

// SAFETY: its pointer is a number, which nobody follows.
unsafe impl Send for Kevent {}

#[allow(clippy::unnecessary_cast, reason = "the types differ by system")]
impl Kevent {
    /// All zero: room for an event.
    pub(super) fn empty() -> Kevent {
        // SAFETY: it is a structure of numbers and a pointer, all of which may be zero.
        Kevent(unsafe { std::mem::zeroed() })
    }

    pub(super) fn new(ident: usize, filter: i64, flags: u32, udata: u64) -> Kevent {
        let mut change = Kevent::empty();
        change.0.ident = ident as _;
        change.0.filter = filter as _;
        change.0.flags = flags as _;
        change.0.udata = udata as usize as *mut _;
        change
    }

    /// The filter's own flags, and its number.
    pub(super) fn with(mut self, fflags: u32, data: i64) -> Kevent {
        self.0.fflags = fflags as _;
        self.0.data = data as _;
        self
    }

    /// The same change, which is answered.
    pub(super) fn with_receipt(mut self) -> Kevent {
        self.0.flags |= EV_RECEIPT as Flags;
        self
    }

    pub(super) fn ident(&self) -> usize {
        self.0.ident as usize
    }

    pub(super) fn filter(&self) -> i64 {
        self.0.filter as i64
    }

    pub(super) fn has(&self, flag: u32) -> bool {
        self.0.flags as u32 & flag != 0
    }

    pub(super) fn fflags(&self) -> u32 {
        self.0.fflags as u32
    }

    pub(super) fn data(&self) -> i64 {
        self.0.data as i64
    }

    pub(super) fn udata(&self) -> u64 {
        self.0.udata as usize as u64
    }
}

/// A kernel queue, which any thread may call.
pub(crate) struct Queue(RawFd);

impl Queue {
    pub(super) fn new() -> io::Result<Queue> {
        // SAFETY: the call has no pointers.
        let fd = unsafe { raw::kqueue() };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let queue = Queue(fd);
        // Not inherited by a fork, but by exec (kqueue(2)).
        // SAFETY: the call has no pointers.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(queue)
    }

    /// Makes the changes and waits for events, or, with no room for one, returns at once. No
    /// timeout: waits for ever.
    pub(super) fn call(
        &self,
        changes: &[Kevent],
        events: &mut [Kevent],
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let timeout = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos() as _,
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), |timeout| &raw const *timeout);
        // SAFETY: changes and events are as many as is said, in structures that are `raw::kevent`
        // by another name; the events are exclusively borrowed, and the timeout, if there is one,
        // lives through the call.
        let n = unsafe {
            raw::kevent(
                self.0,
                changes.as_ptr().cast(),
                changes.len() as _,
                events.as_mut_ptr().cast(),
                events.len() as _,
                timeout,
            )
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is ours, and open as long as this lives.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours, and nobody uses it after this.
        unsafe { raw::close(self.0) };
    }
}
