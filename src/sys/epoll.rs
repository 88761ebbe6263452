//! Linux: epoll, level-triggered.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{DOORBELL, Event, Interest, Socket, Wait, Waker, net};
use crate::addr::Addr;
use crate::handler::ConnId;
use crate::slab::{self, Key};

pub(crate) struct Epoll {
    poller: OwnedFd,
    /// The sockets, by slot.
    fds: Vec<Option<OwnedFd>>,
    events: Vec<libc::epoll_event>,
    epoch: Instant,
    /// The same, on the monotonic clock in nanoseconds.
    epoch_nanos: u64,
    /// The kernel lacks `epoll_pwait2` (before 5.11), so timeouts are whole milliseconds.
    coarse: bool,
    /// Given up for a moment when descriptors run out.
    spare: Option<OwnedFd>,
    /// Keeps the doorbell's descriptor in the poller alive.
    _doorbell: OwnedFd,
}

/// An eventfd, registered edge-triggered: a ring needs no answering read.
pub(crate) struct EventfdBell(EventFd);

impl EventfdBell {
    pub(crate) fn ring(&self) {
        // Fails only if the counter is full, and then the bell has rung already.
        let _ = self.0.write(1);
    }
}

/// Nanoseconds on a monotonic clock, by a call that costs half of what `Instant` does.
#[inline]
fn read_clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time lives through the call, which writes it.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Epoll {
    /// A poller for up to `events` events a turn, and the bell that wakes it.
    pub(crate) fn new(events: usize) -> io::Result<(Epoll, Waker)> {
        // SAFETY: the call has no pointers.
        let poller = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if poller < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made this descriptor for us, so nobody else owns it.
        let poller = unsafe { OwnedFd::from_raw_fd(poller) };
        let bell =
            EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let doorbell = net::duplicate(&bell)?;
        let epoll = Epoll {
            poller,
            fds: Vec::new(),
            events: vec![libc::epoll_event { events: 0, u64: 0 }; events],
            epoch: Instant::now(),
            epoch_nanos: read_clock(libc::CLOCK_MONOTONIC),
            coarse: false,
            spare: Some(net::spare()?),
            _doorbell: doorbell,
        };
        let flags = (libc::EPOLLIN | libc::EPOLLET) as u32;
        let poller = epoll.poller.as_fd();
        control(poller, libc::EPOLL_CTL_ADD, epoll._doorbell.as_fd(), flags, DOORBELL)?;
        Ok((epoll, Waker::Eventfd(EventfdBell(bell))))
    }

    #[inline]
    pub(crate) fn fd(&self, index: usize) -> io::Result<BorrowedFd<'_>> {
        match self.fds.get(index) {
            Some(Some(fd)) => Ok(fd.as_fd()),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }

    pub(crate) fn now(&self) -> u64 {
        read_clock(libc::CLOCK_MONOTONIC) - self.epoch_nanos
    }

    pub(crate) fn coarse_now(&self) -> u64 {
        read_clock(libc::CLOCK_MONOTONIC_COARSE)
    }

    #[cfg(feature = "http1")]
    pub(crate) fn unix_seconds(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }

    pub(crate) fn wait(&mut self, wait: Wait) -> io::Result<usize> {
        let timeout = match wait {
            Wait::No => Duration::ZERO,
            Wait::AtMost(timeout) => timeout,
            Wait::Forever => return self.wait_forever(),
        };
        let precise = !timeout.is_zero() && !self.coarse;
        let n = if precise { self.wait_precise(timeout) } else { self.wait_coarse(timeout) };
        usize::try_from(n).or_else(|_| {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => Ok(0),
                Some(libc::ENOSYS | libc::EPERM) if precise => {
                    self.coarse = true;
                    self.wait(wait)
                }
                _ => Err(error),
            }
        })
    }

    fn wait_forever(&mut self) -> io::Result<usize> {
        // SAFETY: the events are as many as is said and exclusively borrowed.
        let n = unsafe {
            libc::epoll_wait(
                self.poller.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as i32,
                -1,
            )
        };
        usize::try_from(n).or_else(|_| match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            error => Err(error),
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
                self.poller.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as i32,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        }
    }

    fn wait_coarse(&mut self, timeout: Duration) -> i64 {
        // Up, or a timer due in half a millisecond would spin.
        let millis = timeout.as_nanos().div_ceil(1_000_000);
        let millis = i32::try_from(millis).unwrap_or(i32::MAX);
        // SAFETY: the events are as many as is said and exclusively borrowed.
        let n = unsafe {
            libc::epoll_wait(
                self.poller.as_raw_fd(),
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
        }
    }

    pub(crate) fn install(&mut self, index: usize, socket: Socket) {
        #[allow(clippy::infallible_destructuring_match, reason = "not so with the feature sim")]
        let fd = match socket {
            Socket::Fd(fd) => fd,
            #[cfg(feature = "sim")]
            Socket::Sim(_) => unreachable!("a simulated socket on a real kernel"),
        };
        while self.fds.len() <= index {
            slab::reserve_one(&mut self.fds);
            self.fds.push(None);
        }
        self.fds[index] = Some(fd);
    }

    pub(crate) fn set_interest(
        &mut self,
        id: ConnId,
        old: Interest,
        new: Interest,
    ) -> io::Result<()> {
        watch(self.poller.as_fd(), self.fd(id.index())?, id, old, new)
    }

    #[cfg(feature = "proactor")]
    pub(crate) fn registrar(&self) -> io::Result<Registrar> {
        Ok(Registrar(net::duplicate(&self.poller)?))
    }

    pub(crate) fn accept(&mut self, index: usize) -> io::Result<(Socket, Addr)> {
        let (fd, peer) = net::accept(self.fd(index)?)?;
        if self.spare.is_none() {
            self.spare = net::spare().ok(); // lost when descriptors ran out; they are back
        }
        Ok((Socket::Fd(fd), peer))
    }

    /// Without a spare descriptor a client would wait in the queue, and the level-triggered
    /// listener would spin: the spare makes room for one accept, which is then undone.
    pub(crate) fn turn_away(&mut self, index: usize) -> io::Result<()> {
        self.spare = None;
        let turned_away = self.fd(index).and_then(net::accept).map(drop);
        self.spare = net::spare().ok();
        turned_away
    }

    pub(crate) fn take(&mut self, index: usize) -> Option<Socket> {
        self.fds.get_mut(index)?.take().map(Socket::Fd)
    }

    pub(crate) fn is_self_connected(&self, index: usize) -> bool {
        self.fd(index).is_ok_and(super::connect::is_self_connected)
    }

    #[inline]
    pub(crate) fn recv(&mut self, index: usize, into: &mut [u8]) -> io::Result<usize> {
        net::recv(self.fd(index)?, into, 0)
    }

    pub(crate) fn recv_spare(&mut self, index: usize, into: &mut Vec<u8>) -> io::Result<usize> {
        net::recv_spare(self.fd(index)?, into)
    }

    pub(crate) fn at_eof(&mut self, index: usize) -> bool {
        let peek = |fd| net::recv(fd, &mut [0], libc::MSG_PEEK | libc::MSG_DONTWAIT);
        matches!(self.fd(index).and_then(peek), Ok(0))
    }

    #[inline]
    pub(crate) fn send(&mut self, index: usize, data: &[u8]) -> io::Result<usize> {
        net::send(self.fd(index)?, data)
    }

    pub(crate) fn send_vectored(
        &mut self,
        index: usize,
        data: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        net::send_vectored(self.fd(index)?, data)
    }

    pub(crate) fn send_file(
        &mut self,
        index: usize,
        file: &File,
        start: u64,
        len: u64,
    ) -> io::Result<usize> {
        net::send_file(self.fd(index)?, file, start, len)
    }

    pub(crate) fn shutdown_write(&mut self, index: usize) {
        if let Ok(fd) = self.fd(index) {
            net::shutdown_write(fd);
        }
    }

    pub(crate) fn take_error(&mut self, index: usize) -> Option<io::Error> {
        self.fd(index).map_or_else(Some, net::take_error)
    }

    pub(crate) fn local_addr(&self, index: usize) -> io::Result<Addr> {
        net::local_addr(self.fd(index)?)
    }

    /// The poll entry goes first: closing alone would keep it alive if a copy of the descriptor
    /// exists, in a forked child for one.
    pub(crate) fn close(&mut self, id: ConnId, interest: Interest) {
        if let Some(fd) = self.fds.get_mut(id.index()).and_then(Option::take)
            && interest != Interest::UNREGISTERED
        {
            let _ = control(self.poller.as_fd(), libc::EPOLL_CTL_DEL, fd.as_fd(), 0, id);
        }
    }

    pub(crate) fn reset(&mut self, id: ConnId, interest: Interest) {
        if let Ok(fd) = self.fd(id.index()) {
            net::reset_on_close(fd);
        }
        self.close(id, interest);
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
        (Interest::EDGE, libc::EPOLLET),
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
    use crate::mailbox::Doorbell;

    /// Planted: the coarse timeout is cut to milliseconds.
    #[test]
    fn hard_case_31_a_poll_never_ends_before_its_timeout() {
        for coarse in [false, true] {
            let (mut epoll, _waker) = Epoll::new(8).unwrap();
            epoll.coarse = coarse;
            for micros in [1, 300, 1500] {
                let timeout = Duration::from_micros(micros);
                let before = epoll.now();
                assert_eq!(epoll.wait(Wait::AtMost(timeout)).unwrap(), 0);
                let slept = epoll.now() - before;
                assert!(slept >= micros * 1000, "{slept} ns of {micros} us, coarse {coarse}");
            }
        }
    }

    #[test]
    fn the_doorbell_wakes_once_for_each_ring() {
        let (mut epoll, waker) = Epoll::new(8).unwrap();
        for _ in 0..3 {
            waker.ring();
            waker.ring();
            assert_eq!(epoll.wait(Wait::AtMost(Duration::from_secs(30))).unwrap(), 1);
            assert_eq!(epoll.event(0).id, DOORBELL);
            assert_eq!(epoll.wait(Wait::No).unwrap(), 0, "a ring needs no answer");
        }
    }
}
