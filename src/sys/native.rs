//! A real kernel: the sockets by slot, the clocks, and the system's poller.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::connect::{self, Progress};
use super::{Bell, Event, Interest, Poller, Socket, Wait, Waker, net};
use crate::addr::Addr;
use crate::handler::ConnId;
use crate::slab;

/// The clock that `Instant` reads. That of macOS stands still while the machine sleeps, as the
/// waits of kevent(2) do, and CLOCK_MONOTONIC goes on there: it would be ahead after a sleep.
#[cfg(target_os = "macos")]
const CLOCK: libc::clockid_t = libc::CLOCK_UPTIME_RAW;
#[cfg(not(target_os = "macos"))]
const CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// A monotonic clock that is cheap to read.
#[cfg(any(target_os = "linux", target_os = "android"))]
const COARSE_CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_COARSE;
#[cfg(any(target_os = "freebsd", target_os = "dragonfly"))]
const COARSE_CLOCK: libc::clockid_t = libc::CLOCK_MONOTONIC_FAST;
#[cfg(target_os = "macos")]
const COARSE_CLOCK: libc::clockid_t = libc::CLOCK_UPTIME_RAW_APPROX;
#[cfg(any(target_os = "netbsd", target_os = "openbsd"))]
const COARSE_CLOCK: libc::clockid_t = CLOCK; // there is no cheaper one

pub(crate) struct Native {
    poller: Poller,
    /// The sockets, by slot.
    fds: Vec<Option<OwnedFd>>,
    epoch: Instant,
    /// The same, on [`CLOCK`] in nanoseconds.
    epoch_nanos: u64,
    /// Given up for a moment when descriptors run out.
    spare: Option<OwnedFd>,
}

/// Nanoseconds on a monotonic clock, by a call that costs half of what `Instant` does.
#[inline]
fn read_clock(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time lives through the call, which writes it.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[inline]
fn fd_at(fds: &[Option<OwnedFd>], index: usize) -> io::Result<BorrowedFd<'_>> {
    match fds.get(index) {
        Some(Some(fd)) => Ok(fd.as_fd()),
        _ => Err(io::ErrorKind::NotConnected.into()),
    }
}

impl Native {
    /// A poller for up to `events` events a turn, and the bell that wakes it.
    pub(crate) fn new(events: usize) -> io::Result<(Native, Waker)> {
        let (poller, bell): (Poller, Bell) = Poller::new(events)?;
        let spare = Some(net::spare()?);
        // The instant first: a turn's time must not be later than what `Instant` says, or timers
        // are early for those who look there.
        let epoch = Instant::now();
        let epoch_nanos = read_clock(CLOCK);
        let native = Native { poller, fds: Vec::new(), epoch, epoch_nanos, spare };
        Ok((native, Waker::Native(bell)))
    }

    #[inline]
    pub(crate) fn fd(&self, index: usize) -> io::Result<BorrowedFd<'_>> {
        fd_at(&self.fds, index)
    }

    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }

    pub(crate) fn now(&self) -> u64 {
        read_clock(CLOCK) - self.epoch_nanos
    }

    pub(crate) fn coarse_now(&self) -> u64 {
        read_clock(COARSE_CLOCK)
    }

    #[cfg(feature = "http1")]
    pub(crate) fn unix_seconds(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    }

    #[inline]
    pub(crate) fn wait(&mut self, wait: Wait) -> io::Result<usize> {
        self.poller.wait(match wait {
            Wait::No => Some(Duration::ZERO),
            Wait::AtMost(timeout) => Some(timeout),
            Wait::Forever => None,
        })
    }

    #[cfg(feature = "proactor")]
    pub(crate) fn registrar(&self) -> io::Result<super::Registrar> {
        self.poller.registrar()
    }

    #[inline]
    pub(crate) fn event(&self, i: usize) -> Event {
        self.poller.event(i)
    }

    pub(crate) fn set_interest(
        &mut self,
        id: ConnId,
        old: Interest,
        new: Interest,
    ) -> io::Result<()> {
        self.poller.watch(fd_at(&self.fds, id.index())?, id, old, new)
    }

    pub(crate) fn confirm_interest(&mut self, id: ConnId) -> io::Result<()> {
        self.poller.confirm(id)
    }

    /// What the poller knows of a descriptor goes first: closing alone would keep it alive if a
    /// copy exists, in a forked child for one.
    pub(crate) fn close(&mut self, id: ConnId, interest: Interest) {
        if let Some(fd) = self.fds.get_mut(id.index()).and_then(Option::take)
            && interest != Interest::UNREGISTERED
        {
            self.poller.forget(fd.as_fd(), id);
        }
    }

    pub(crate) fn take_error(&mut self, index: usize) -> Option<io::Error> {
        if let Some(error) = self.poller.take_refusal(index) {
            return Some(error);
        }
        self.fd(index).map_or_else(Some, net::take_error)
    }

    pub(crate) fn connect_progress(&self, index: usize) -> Progress {
        self.fd(index).map_or(Progress::UnderWay, connect::progress)
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

    pub(crate) fn local_addr(&self, index: usize) -> io::Result<Addr> {
        net::local_addr(self.fd(index)?)
    }

    pub(crate) fn reset(&mut self, id: ConnId, interest: Interest) {
        if let Ok(fd) = self.fd(id.index()) {
            net::reset_on_close(fd);
        }
        self.close(id, interest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted: the epoch's two clocks are read in the other order.
    #[test]
    fn its_time_is_never_ahead_of_the_systems() {
        for _ in 0..1000 {
            let (native, _waker) = Native::new(1).unwrap();
            let said = native.epoch() + std::time::Duration::from_nanos(native.now());
            let passed = Instant::now();
            assert!(said <= passed, "{:?} ahead", said - passed);
        }
    }
}
