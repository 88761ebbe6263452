//! Linux: epoll, level-triggered.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{DOORBELL, Event, Interest, net};
use crate::handler::ConnId;
use crate::slab::Key;

pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
    /// The kernel lacks `epoll_pwait2` (before 5.11), so timeouts are whole milliseconds.
    coarse: bool,
    /// Keeps the doorbell's descriptor in the poller alive.
    _doorbell: OwnedFd,
}

/// An eventfd, registered edge-triggered: a ring needs no answering read.
pub(crate) struct Bell(EventFd);

impl Bell {
    pub(crate) fn ring(&self) {
        // Fails only if the counter is full, and then the bell has rung already.
        let _ = self.0.write(1);
    }
}

impl Poller {
    /// A poller for up to `events` events a turn, and the bell that wakes it.
    pub(crate) fn new(events: usize) -> io::Result<(Poller, Bell)> {
        // SAFETY: the call has no pointers.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us, so nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let bell =
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let doorbell = net::duplicate(&bell)?;
        let poller = Poller {
            epoll,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; events],
            coarse: false,
            _doorbell: doorbell,
        };
        let flags = (libc::EPOLLIN | libc::EPOLLET) as u32;
        let doorbell = poller._doorbell.as_fd();
        control(poller.epoll.as_fd(), libc::EPOLL_CTL_ADD, doorbell, flags, DOORBELL)?;
        Ok((poller, Bell(bell)))
    }

    /// Waits, without a timeout for ever.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let (n, precise) = match timeout {
            None => (self.wait_millis(-1), false),
            Some(timeout) if !timeout.is_zero() && !self.coarse => {
                (self.wait_precise(timeout), true)
            }
            // Up, or a timer due in half a millisecond would spin.
            Some(timeout) => {
                let millis = timeout.as_nanos().div_ceil(1_000_000);
                (self.wait_millis(i32::try_from(millis).unwrap_or(i32::MAX)), false)
            }
        };
        usize::try_from(n).or_else(|_| {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => Ok(0),
                Some(libc::ENOSYS | libc::EPERM) if precise => {
                    self.coarse = true;
                    self.wait(timeout)
                }
                _ => Err(error),
            }
        })
    }

    fn wait_precise(&mut self, timeout: Duration) -> i64 {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: the events are as many as is said and exclusively borrowed, the timeout lives
        // through the call, and no signal mask is passed.
        unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as i32,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        }
    }

    fn wait_millis(&mut self, millis: i32) -> i64 {
        // SAFETY: the events are as many as is said and exclusively borrowed.
        let n = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as i32,
                millis,
            )
        };
        n.into()
    }

    #[inline]
    pub(crate) fn event(&self, i: usize) -> Event {
        let event = self.events[i];
        let flags = event.events;
        let has = |bit: i32| flags & bit as u32 != 0;
        Event {
            id: ConnId(Key::from_bits(event.u64)),
            readable: has(libc::EPOLLIN),
            writable: has(libc::EPOLLOUT),
            fin: has(libc::EPOLLRDHUP),
            hup: has(libc::EPOLLHUP),
            error: has(libc::EPOLLERR),
            urgent: has(libc::EPOLLPRI),
        }
    }

    pub(crate) fn watch(
        &mut self,
        fd: BorrowedFd<'_>,
        id: ConnId,
        old: Interest,
        new: Interest,
    ) -> io::Result<()> {
        watch(self.epoll.as_fd(), fd, id, old, new)
    }

    /// For other threads.
    #[cfg(feature = "proactor")]
    pub(crate) fn registrar(&self) -> io::Result<Registrar> {
        Ok(Registrar(net::duplicate(&self.epoll)?))
    }

    /// Each change is made and judged at once.
    pub(crate) fn confirm(&mut self, _id: ConnId) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn take_refusal(&mut self, _index: usize) -> Option<io::Error> {
        None
    }

    /// The descriptor is about to be closed.
    pub(crate) fn forget(&mut self, fd: BorrowedFd<'_>, id: ConnId) {
        let _ = control(self.epoll.as_fd(), libc::EPOLL_CTL_DEL, fd, 0, id);
    }
}

/// Changes what `poller` is told to watch `fd` for.
fn watch(
    poller: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    id: ConnId,
    old: Interest,
    new: Interest,
) -> io::Result<()> {
    let operation = match (old, new) {
        (Interest::UNREGISTERED, _) => libc::EPOLL_CTL_ADD,
        (_, Interest::UNREGISTERED) => libc::EPOLL_CTL_DEL,
        _ => libc::EPOLL_CTL_MOD,
    };
    let mut flags = 0;
    for (interest, flag) in [
        (Interest::READ, libc::EPOLLIN),
        (Interest::WRITE, libc::EPOLLOUT),
        (Interest::FIN, libc::EPOLLRDHUP),
        (Interest::EXCLUSIVE, libc::EPOLLEXCLUSIVE),
        (Interest::EDGE, libc::EPOLLET | libc::EPOLLPRI),
    ] {
        if new.has(interest) {
            flags |= flag as u32;
        }
    }
    control(poller, operation, fd, flags, id)
}

fn control(
    poller: BorrowedFd<'_>,
    operation: i32,
    fd: BorrowedFd<'_>,
    flags: u32,
    id: ConnId,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events: flags, u64: id.as_u64() };
    // SAFETY: the event lives through the call, which only reads it.
    let done =
        unsafe { libc::epoll_ctl(poller.as_raw_fd(), operation, fd.as_raw_fd(), &mut event) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Tells a poller what to watch, from any thread, also while another polls. The sockets are the
/// caller's, who ends this before closing one.
#[cfg(feature = "proactor")]
pub(crate) struct Registrar(OwnedFd);

#[cfg(feature = "proactor")]
impl Registrar {
    pub(crate) fn watch(
        &self,
        fd: BorrowedFd<'_>,
        id: ConnId,
        old: Interest,
        new: Interest,
    ) -> io::Result<()> {
        watch(self.0.as_fd(), fd, id, old, new)
    }

    /// Readable while the poller has something to tell, so that another can watch it.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        net::duplicate(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted: the coarse timeout is cut to milliseconds.
    #[test]
    fn hard_case_31_a_poll_never_ends_before_its_timeout() {
        for coarse in [false, true] {
            let (mut poller, _bell) = Poller::new(8).unwrap();
            poller.coarse = coarse;
            for micros in [1, 300, 1500] {
                let timeout = Duration::from_micros(micros);
                let started = std::time::Instant::now();
                assert_eq!(poller.wait(Some(timeout)).unwrap(), 0);
                let slept = started.elapsed();
                assert!(slept >= timeout, "{slept:?} of {timeout:?}, coarse {coarse}");
            }
        }
    }

    #[test]
    fn the_doorbell_wakes_once_for_each_ring() {
        let (mut poller, bell) = Poller::new(8).unwrap();
        for _ in 0..3 {
            bell.ring();
            bell.ring();
            assert_eq!(poller.wait(Some(Duration::from_secs(30))).unwrap(), 1);
            assert_eq!(poller.event(0).id, DOORBELL);
            assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), 0, "a ring needs no answer");
        }
    }
}
