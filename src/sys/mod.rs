//! The seam between the reactor and the system, and the one place that chooses a backend.
//!
//! Every backend fulfils the same contract:
//!
//! - Sockets are named by the index of their slot; `install` gives a slot its socket, and
//!   nothing but `close`, `reset` or `take` ends that.
//! - `wait` reports readiness by level, as often as it holds. An event carries the id under
//!   which its socket was registered, and may be stale: the reactor checks generations.
//! - `set_interest` is told the old and the new interest; `UNREGISTERED` means that the poller
//!   does not know the socket.
//! - `EINTR` is never seen outside; `WouldBlock` is the only error that means "later".
//! - Writing to a peer that is gone is `EPIPE` or a reset, never a signal.

#![allow(clippy::disallowed_methods)] // clocks are read here, and nowhere else

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::addr::Addr;
use crate::connector::{ConnectOptions, Destination};
use crate::handler::ConnId;
use crate::mailbox::Doorbell;

pub(crate) mod connect;
pub(crate) mod datagram;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(reev_kqueue_emulation)))]
mod epoll;
#[cfg(feature = "http1")]
pub(crate) mod folder;
pub(crate) mod inherited;
#[cfg(any(not(any(target_os = "linux", target_os = "android")), reev_kqueue_emulation))]
mod kqueue;
pub(crate) mod listen;
pub(crate) mod native;
pub(crate) mod net;
#[cfg(feature = "sim")]
pub(crate) mod sim;
pub(crate) mod splice;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) mod steer;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[path = "unsteered.rs"]
pub(crate) mod steer;

pub(crate) use connect::Progress;
#[cfg(all(
    feature = "proactor",
    any(target_os = "linux", target_os = "android"),
    not(reev_kqueue_emulation)
))]
pub(crate) use epoll::Registrar;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(reev_kqueue_emulation)))]
use epoll::{Bell, Poller};
#[cfg(all(
    feature = "proactor",
    any(not(any(target_os = "linux", target_os = "android")), reev_kqueue_emulation)
))]
pub(crate) use kqueue::Registrar;
#[cfg(any(not(any(target_os = "linux", target_os = "android")), reev_kqueue_emulation))]
use kqueue::{Bell, Poller};
pub(crate) use native::Native;

/// What the poller should tell about a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Interest(u8);

impl Interest {
    /// Registered, for errors and hang-ups alone.
    pub(crate) const NONE: Interest = Interest(0);
    pub(crate) const READ: Interest = Interest(1);
    pub(crate) const WRITE: Interest = Interest(2);
    /// The peer's FIN, while nothing is read.
    pub(crate) const FIN: Interest = Interest(4);
    /// Shared by several pollers, of which one is to be woken.
    pub(crate) const EXCLUSIVE: Interest = Interest(8);
    /// Told when it changes, not as long as it holds; of urgent data as well.
    #[cfg_attr(not(feature = "proactor"), allow(dead_code, reason = "a reactor goes by level"))]
    pub(crate) const EDGE: Interest = Interest(16);
    pub(crate) const UNREGISTERED: Interest = Interest(0x80);

    pub(crate) fn has(self, other: Interest) -> bool {
        self.0 & other.0 != 0
    }
}

impl std::ops::BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

impl std::ops::BitOrAssign for Interest {
    fn bitor_assign(&mut self, other: Interest) {
        self.0 |= other.0;
    }
}

/// What the poller told about one socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Event {
    pub(crate) id: ConnId,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer sent its FIN.
    pub(crate) fin: bool,
    /// Both directions are over.
    pub(crate) hup: bool,
    pub(crate) error: bool,
    /// Urgent data is there, or may be: reads fall short at its mark. Told by edge alone.
    pub(crate) urgent: bool,
}

/// The id of the doorbell, which no connection has.
pub(crate) const DOORBELL: ConnId = ConnId::NONE;

/// How long to sleep in the poller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wait {
    No,
    AtMost(Duration),
    /// Until something happens: no timer is set up.
    #[cfg_attr(
        not(feature = "proactor"),
        expect(dead_code, reason = "a reactor looks now and then")
    )]
    Forever,
}

/// A socket that is not in a slot yet.
#[derive(Debug)]
pub(crate) enum Socket {
    Fd(OwnedFd),
    #[cfg(feature = "sim")]
    Sim(sim::SimSocket),
}

/// Wakes a reactor, from any thread.
pub(crate) enum Waker {
    Native(Bell),
    #[cfg(feature = "sim")]
    Sim(sim::SimBell),
}

impl Doorbell for Waker {
    fn ring(&self) {
        match self {
            Waker::Native(bell) => bell.ring(),
            #[cfg(feature = "sim")]
            Waker::Sim(bell) => bell.ring(),
        }
    }
}

/// The kernel, real or simulated.
pub(crate) enum Backend {
    Native(Native),
    #[cfg(feature = "sim")]
    Sim(sim::SimBackend),
}

macro_rules! forward {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self {
            Backend::Native(backend) => backend.$method($($argument),*),
            #[cfg(feature = "sim")]
            Backend::Sim(backend) => backend.$method($($argument),*),
        }
    };
}

impl Backend {
    /// The instant that `now` counts from.
    pub(crate) fn epoch(&self) -> Instant {
        forward!(self.epoch())
    }

    /// Nanoseconds since `epoch`, monotonic.
    pub(crate) fn now(&self) -> u64 {
        forward!(self.now())
    }

    /// Nanoseconds on a monotonic clock that is cheap to read and moves in steps of some
    /// milliseconds.
    #[inline]
    pub(crate) fn coarse_now(&self) -> u64 {
        forward!(self.coarse_now())
    }

    /// Seconds since 1970: the wall clock, which may jump. For dates that people read.
    #[cfg(feature = "http1")]
    pub(crate) fn unix_seconds(&self) -> u64 {
        forward!(self.unix_seconds())
    }

    /// Sleeps until something is ready; the number of events.
    #[inline]
    pub(crate) fn wait(&mut self, wait: Wait) -> io::Result<usize> {
        forward!(self.wait(wait))
    }

    /// Event `i` of the last `wait`.
    #[inline]
    pub(crate) fn event(&self, i: usize) -> Event {
        forward!(self.event(i))
    }

    pub(crate) fn install(&mut self, index: usize, socket: Socket) {
        forward!(self.install(index, socket));
    }

    pub(crate) fn set_interest(
        &mut self,
        id: ConnId,
        old: Interest,
        new: Interest,
    ) -> io::Result<()> {
        forward!(self.set_interest(id, old, new))
    }

    /// Whether the poller took the last change of interest of `id`. Changes may be put off until
    /// the next `wait`, and one that is refused is then an error of the socket; this makes them
    /// now, where whoever asked for one wants to know.
    pub(crate) fn confirm_interest(&mut self, id: ConnId) -> io::Result<()> {
        match self {
            Backend::Native(backend) => backend.confirm_interest(id),
            #[cfg(feature = "sim")]
            Backend::Sim(_) => Ok(()),
        }
    }

    pub(crate) fn accept(&mut self, index: usize) -> io::Result<(Socket, Addr)> {
        forward!(self.accept(index))
    }

    /// Begins to connect; the socket is writable when that has succeeded or failed.
    pub(crate) fn connect(
        &mut self,
        destination: &Destination,
        options: &ConnectOptions,
    ) -> io::Result<Socket> {
        match self {
            Backend::Native(_) => connect::begin(destination, options).map(Socket::Fd),
            #[cfg(feature = "sim")]
            Backend::Sim(backend) => backend.connect(destination),
        }
    }

    /// A number from 0 to 1, for what should not happen everywhere at once.
    pub(crate) fn chance(&mut self) -> f64 {
        match self {
            Backend::Native(_) => fastrand::f64(),
            #[cfg(feature = "sim")]
            Backend::Sim(backend) => backend.chance(),
        }
    }

    /// How far a socket without an error has come in connecting.
    pub(crate) fn connect_progress(&self, index: usize) -> Progress {
        match self {
            Backend::Native(backend) => backend.connect_progress(index),
            #[cfg(feature = "sim")]
            Backend::Sim(_) => Progress::Done,
        }
    }

    /// Takes a socket out of its slot, still registered if it was.
    pub(crate) fn take(&mut self, index: usize) -> Option<Socket> {
        forward!(self.take(index))
    }

    /// Accepts a connection with the descriptor kept for the purpose, and closes it.
    /// `WouldBlock`: nobody waits.
    pub(crate) fn turn_away(&mut self, index: usize) -> io::Result<()> {
        forward!(self.turn_away(index))
    }

    /// Reads once; 0 is the peer's FIN.
    #[inline]
    pub(crate) fn recv(&mut self, index: usize, into: &mut [u8]) -> io::Result<usize> {
        forward!(self.recv(index, into))
    }

    /// Reads once into the spare capacity of `into`; 0 is the peer's FIN.
    pub(crate) fn recv_spare(&mut self, index: usize, into: &mut Vec<u8>) -> io::Result<usize> {
        forward!(self.recv_spare(index, into))
    }

    /// Whether the peer's FIN is the next thing to read.
    pub(crate) fn at_eof(&mut self, index: usize) -> bool {
        forward!(self.at_eof(index))
    }

    #[inline]
    pub(crate) fn send(&mut self, index: usize, data: &[u8]) -> io::Result<usize> {
        forward!(self.send(index, data))
    }

    pub(crate) fn send_vectored(
        &mut self,
        index: usize,
        data: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        forward!(self.send_vectored(index, data))
    }

    /// As `send_vectored`, where more follows at once.
    pub(crate) fn send_before_more(
        &mut self,
        index: usize,
        data: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        match self {
            Backend::Native(backend) => net::send_before_more(backend.fd(index)?, data),
            #[cfg(feature = "sim")]
            Backend::Sim(backend) => backend.send_vectored(index, data),
        }
    }

    /// Sends up to `len` bytes of `file` from `start` on; 0 if it ends there.
    pub(crate) fn send_file(
        &mut self,
        index: usize,
        file: &File,
        start: u64,
        len: u64,
    ) -> io::Result<usize> {
        forward!(self.send_file(index, file, start, len))
    }

    pub(crate) fn shutdown_write(&mut self, index: usize) {
        forward!(self.shutdown_write(index));
    }

    /// The socket's pending error, which is cleared.
    pub(crate) fn take_error(&mut self, index: usize) -> Option<io::Error> {
        forward!(self.take_error(index))
    }

    pub(crate) fn local_addr(&self, index: usize) -> io::Result<Addr> {
        forward!(self.local_addr(index))
    }

    /// The descriptor in a slot, for what only datagram sockets do.
    pub(crate) fn descriptor(&self, index: usize) -> io::Result<BorrowedFd<'_>> {
        match self {
            Backend::Native(backend) => backend.fd(index),
            #[cfg(feature = "sim")]
            Backend::Sim(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Whether it has real descriptors.
    pub(crate) fn is_native(&self) -> bool {
        matches!(self, Backend::Native(_))
    }

    /// Closes with a FIN. `interest` is what the poller knows.
    pub(crate) fn close(&mut self, id: ConnId, interest: Interest) {
        forward!(self.close(id, interest));
    }

    /// Closes with a reset, where the socket has such a thing.
    pub(crate) fn reset(&mut self, id: ConnId, interest: Interest) {
        forward!(self.reset(id, interest));
    }
}

/// Prepares a connected stream socket made elsewhere; its peer's address comes with it.
pub(crate) fn adopt_stream(fd: OwnedFd) -> io::Result<(OwnedFd, Addr)> {
    if !net::is_stream(&fd)? {
        let message = "only a connected stream socket can be adopted";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let peer = net::peer_addr(&fd)?;
    net::set_nonblocking(&fd)?;
    net::close_at_once(&fd)?;
    net::silence(&fd)?;
    Ok((fd, peer))
}
