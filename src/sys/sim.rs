//! A kernel that is not there: sockets in memory, a clock that is told, faults by a seed.
//!
//! It does what the real one may do but seldom does when watched: reads and writes cut short,
//! `EAGAIN` after readiness, events in any order and fewer than there are, descriptors reused
//! at once, `EMFILE`, resets with data pending, time that jumps.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::{DOORBELL, Event, Interest, Socket, Wait};
use crate::addr::Addr;
use crate::connector::Destination;
use crate::core::nanos;
use crate::handler::ConnId;

/// The simulated wall clock's start: Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
#[cfg(feature = "http1")]
const UNIX_SECONDS: u64 = 784_111_777;

/// Bytes of a file that one simulated `sendfile` looks at.
const FILE_PIECE: usize = 64 << 10;

/// How unkind the simulated kernel is. Each chance is in 256ths.
#[derive(Clone, Debug)]
pub struct Faults {
    /// A read gives fewer bytes than there are.
    pub short_read: u8,
    /// A write takes fewer bytes than there is room for.
    pub short_write: u8,
    /// A read or write that could go on says "later".
    pub spurious: u8,
    /// An event is withheld for a turn.
    pub withhold: u8,
    /// A turn's events come in random order.
    pub shuffle: bool,
    /// At most this much time passes unasked in a turn.
    pub time_jump: Duration,
    /// The most bytes a socket holds for a peer that does not read; each socket's own bound is
    /// chosen from 1 to this.
    pub send_buffer_max: usize,
    /// Open sockets beyond which `accept` fails with `EMFILE`.
    pub open_max: usize,
}

impl Default for Faults {
    /// A kind kernel: nothing goes wrong.
    fn default() -> Faults {
        Faults {
            short_read: 0,
            short_write: 0,
            spurious: 0,
            withhold: 0,
            shuffle: false,
            time_jump: Duration::ZERO,
            send_buffer_max: 1 << 20,
            open_max: usize::MAX,
        }
    }
}

impl Faults {
    /// Everything goes wrong that may, often.
    pub fn hostile() -> Faults {
        Faults {
            short_read: 96,
            short_write: 96,
            spurious: 32,
            withhold: 64,
            shuffle: true,
            time_jump: Duration::from_micros(300),
            send_buffer_max: 4096,
            open_max: usize::MAX,
        }
    }
}

/// One connection, with both its ends, or a listener.
pub(crate) struct Wire {
    /// From the peer to us.
    pub(crate) inbound: VecDeque<u8>,
    pub(crate) peer_finished: bool,
    /// From us to the peer.
    pub(crate) outbound: VecDeque<u8>,
    pub(crate) we_finished: bool,
    /// We closed with a reset.
    pub(crate) we_reset: bool,
    /// Our end is closed.
    pub(crate) closed: bool,
    /// The peer reads no more: a write is answered by a reset.
    pub(crate) peer_gone: bool,
    error: Option<i32>,
    send_room: usize,
    backlog: VecDeque<usize>,
    /// We are connecting, and the far end has not answered.
    pub(crate) connecting: bool,
    registered: Option<(ConnId, Interest)>,
}

impl Wire {
    fn ready(&self) -> Option<Event> {
        let (id, interest) = self.registered.filter(|_| !self.connecting)?;
        let reset = self.error.is_some() || self.peer_gone && self.peer_finished;
        let hup = reset || self.peer_finished && self.we_finished;
        let readable = !self.inbound.is_empty() || self.peer_finished || !self.backlog.is_empty();
        let event = Event {
            id,
            readable: interest.has(Interest::READ) && (readable || hup),
            writable: interest.has(Interest::WRITE) && (self.room() > 0 || hup),
            fin: interest.has(Interest::FIN) && self.peer_finished,
            hup,
            error: self.error.is_some(),
            urgent: false,
        };
        let any = event.readable || event.writable || event.fin || event.hup || event.error;
        any.then_some(event)
    }

    fn room(&self) -> usize {
        self.send_room.saturating_sub(self.outbound.len())
    }
}

pub(crate) struct Kernel {
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) now: u64,
    /// How long the reactor would have slept in its last `wait`, if nothing was ready.
    pub(crate) idle: Option<Duration>,
    pub(crate) wires: Vec<Wire>,
    /// Descriptors: the lowest free one is given out, as a real kernel does.
    fds: Vec<Option<usize>>,
    bell: Arc<AtomicBool>,
    /// Connections that the reactor makes, unanswered, and where to.
    pub(crate) outgoing: VecDeque<(usize, Destination)>,
    /// System calls so far, by what a test wants to count.
    pub(crate) sends: u64,
    pub(crate) interest_changes: u64,
    pub(crate) waits: u64,
}

impl Kernel {
    pub(crate) fn new(seed: u64, faults: Faults) -> Kernel {
        Kernel {
            rng: Rng::with_seed(seed),
            faults,
            now: 0,
            idle: None,
            wires: Vec::new(),
            fds: Vec::new(),
            bell: Arc::new(AtomicBool::new(false)),
            outgoing: VecDeque::new(),
            sends: 0,
            interest_changes: 0,
            waits: 0,
        }
    }

    pub(crate) fn bell(&self) -> SimBell {
        SimBell(self.bell.clone())
    }

    /// A new wire; gives its index.
    pub(crate) fn add_wire(&mut self) -> usize {
        let send_room = self.rng.usize(1..=self.faults.send_buffer_max);
        self.wires.push(Wire {
            inbound: VecDeque::new(),
            peer_finished: false,
            outbound: VecDeque::new(),
            we_finished: false,
            we_reset: false,
            closed: false,
            peer_gone: false,
            error: None,
            send_room,
            backlog: VecDeque::new(),
            connecting: false,
            registered: None,
        });
        self.wires.len() - 1
    }

    /// The far end of `wire` refuses to be connected to.
    pub(crate) fn refuse(&mut self, wire: usize) {
        self.reset_by_peer(wire);
        self.wires[wire].error = Some(libc::ECONNREFUSED);
        self.wires[wire].connecting = false;
    }

    /// A descriptor for our end of a wire.
    pub(crate) fn open(&mut self, wire: usize) -> SimSocket {
        let fd = self.fds.iter().position(Option::is_none).unwrap_or_else(|| {
            self.fds.push(None);
            self.fds.len() - 1
        });
        self.fds[fd] = Some(wire);
        SimSocket(fd)
    }

    /// Descriptors in use.
    pub(crate) fn open_fds(&self) -> usize {
        self.fds.iter().flatten().count()
    }

    pub(crate) fn connect(&mut self, listener: usize) -> usize {
        let wire = self.add_wire();
        self.wires[listener].backlog.push_back(wire);
        wire
    }

    /// The peer resets; what it sent before is still there to be read.
    pub(crate) fn reset_by_peer(&mut self, wire: usize) {
        let wire = &mut self.wires[wire];
        wire.error = Some(libc::ECONNRESET);
        wire.peer_gone = true;
        wire.peer_finished = true;
        wire.outbound.clear();
    }

    fn chance(&mut self, of_256: u8) -> bool {
        of_256 > 0 && self.rng.u8(..) < of_256
    }

    fn some_of(&mut self, n: usize, short: u8) -> usize {
        if n > 1 && self.chance(short) { self.rng.usize(1..n) } else { n }
    }

    fn wire_of(&self, fd: usize) -> io::Result<usize> {
        let wire = self.fds.get(fd).copied().flatten();
        wire.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }
}

/// A descriptor of the simulated kernel that is in no slot yet.
#[derive(Debug)]
pub(crate) struct SimSocket(usize);

/// The simulated doorbell.
pub(crate) struct SimBell(Arc<AtomicBool>);

impl SimBell {
    pub(crate) fn ring(&self) {
        self.0.store(true, Ordering::Release);
    }
}

pub(crate) struct SimBackend {
    kernel: Rc<RefCell<Kernel>>,
    fds: Vec<Option<usize>>,
    events: Vec<Event>,
    events_max: usize,
    epoch: Instant,
}

impl SimBackend {
    pub(crate) fn new(
        kernel: Rc<RefCell<Kernel>>,
        events_max: usize,
        epoch: Instant,
    ) -> SimBackend {
        SimBackend { kernel, fds: Vec::new(), events: Vec::new(), events_max, epoch }
    }

    fn fd(&self, index: usize) -> io::Result<usize> {
        let fd = self.fds.get(index).copied().flatten();
        fd.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }

    pub(crate) fn now(&self) -> u64 {
        self.kernel.borrow().now
    }

    pub(crate) fn coarse_now(&self) -> u64 {
        self.now()
    }

    #[cfg(feature = "http1")]
    pub(crate) fn unix_seconds(&self) -> u64 {
        UNIX_SECONDS + self.now() / 1_000_000_000
    }

    pub(crate) fn wait(&mut self, wait: Wait) -> io::Result<usize> {
        let kernel = &mut *self.kernel.borrow_mut();
        kernel.waits += 1;
        let jump = nanos(kernel.faults.time_jump);
        kernel.now += kernel.rng.u64(0..=jump);
        self.events.clear();
        let mut withheld = false;
        for fd in 0..kernel.fds.len() {
            let ready = kernel.fds[fd].and_then(|wire| kernel.wires[wire].ready());
            if let Some(event) = ready {
                if kernel.chance(kernel.faults.withhold) {
                    withheld = true;
                } else {
                    self.events.push(event);
                }
            }
        }
        if kernel.bell.swap(false, Ordering::Acquire) {
            let doorbell = Event {
                id: DOORBELL,
                readable: true,
                writable: false,
                fin: false,
                hup: false,
                error: false,
                urgent: false,
            };
            self.events.push(doorbell);
        }
        if kernel.faults.shuffle {
            kernel.rng.shuffle(&mut self.events);
        }
        self.events.truncate(self.events_max);
        kernel.idle = match wait {
            Wait::AtMost(sleep) if self.events.is_empty() && !withheld => Some(sleep),
            _ => None,
        };
        Ok(self.events.len())
    }

    pub(crate) fn event(&self, i: usize) -> Event {
        self.events[i]
    }

    pub(crate) fn install(&mut self, index: usize, socket: Socket) {
        let Socket::Sim(SimSocket(fd)) = socket else {
            unreachable!("a real socket in a simulated kernel");
        };
        if self.fds.len() <= index {
            self.fds.resize(index + 1, None);
        }
        self.fds[index] = Some(fd);
    }

    pub(crate) fn set_interest(
        &mut self,
        id: ConnId,
        old: Interest,
        new: Interest,
    ) -> io::Result<()> {
        let fd = self.fd(id.index())?;
        let kernel = &mut *self.kernel.borrow_mut();
        kernel.interest_changes += 1;
        let wire = kernel.wire_of(fd)?;
        let registered = &mut kernel.wires[wire].registered;
        let errno = match (old == Interest::UNREGISTERED, registered.is_some()) {
            (true, true) => libc::EEXIST,
            (false, false) => libc::ENOENT,
            _ => 0,
        };
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        *registered = (new != Interest::UNREGISTERED).then_some((id, new));
        Ok(())
    }

    pub(crate) fn accept(&mut self, index: usize) -> io::Result<(Socket, Addr)> {
        let fd = self.fd(index)?;
        let kernel = &mut *self.kernel.borrow_mut();
        let listener = kernel.wire_of(fd)?;
        if kernel.wires[listener].backlog.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if kernel.open_fds() >= kernel.faults.open_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let Some(wire) = kernel.wires[listener].backlog.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        Ok((Socket::Sim(kernel.open(wire)), Addr::unix(None)))
    }

    /// From the seed, as all that is left to chance.
    pub(crate) fn chance(&mut self) -> f64 {
        self.kernel.borrow_mut().rng.f64()
    }

    /// The far end answers when the test says so.
    pub(crate) fn connect(&mut self, to: &Destination) -> io::Result<Socket> {
        let kernel = &mut *self.kernel.borrow_mut();
        if kernel.open_fds() >= kernel.faults.open_max {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        let wire = kernel.add_wire();
        kernel.wires[wire].connecting = true;
        kernel.outgoing.push_back((wire, to.clone()));
        Ok(Socket::Sim(kernel.open(wire)))
    }

    pub(crate) fn take(&mut self, index: usize) -> Option<Socket> {
        self.fds.get_mut(index)?.take().map(|fd| Socket::Sim(SimSocket(fd)))
    }

    pub(crate) fn turn_away(&mut self, index: usize) -> io::Result<()> {
        let fd = self.fd(index)?;
        let kernel = &mut *self.kernel.borrow_mut();
        let listener = kernel.wire_of(fd)?;
        let Some(wire) = kernel.wires[listener].backlog.pop_front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        kernel.wires[wire].closed = true;
        kernel.wires[wire].we_finished = true;
        Ok(())
    }

    pub(crate) fn recv(&mut self, index: usize, into: &mut [u8]) -> io::Result<usize> {
        let fd = self.fd(index)?;
        let kernel = &mut *self.kernel.borrow_mut();
        if kernel.chance(kernel.faults.spurious) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let wire = kernel.wire_of(fd)?;
        let n = kernel.wires[wire].inbound.len().min(into.len());
        let n = kernel.some_of(n, kernel.faults.short_read);
        let wire = &mut kernel.wires[wire];
        if n > 0 {
            for (to, from) in into.iter_mut().zip(wire.inbound.drain(..n)) {
                *to = from;
            }
            return Ok(n);
        }
        if let Some(errno) = wire.error.take() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if wire.peer_finished {
            return Ok(0);
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    pub(crate) fn recv_spare(&mut self, index: usize, into: &mut Vec<u8>) -> io::Result<usize> {
        let (kept, room) = (into.len(), into.capacity() - into.len());
        into.resize(kept + room, 0);
        let result = self.recv(index, &mut into[kept..]);
        into.truncate(kept + result.as_ref().map_or(0, |&n| n));
        result
    }

    pub(crate) fn at_eof(&mut self, index: usize) -> bool {
        let kernel = self.kernel.borrow();
        let wire = self.fd(index).and_then(|fd| kernel.wire_of(fd));
        wire.is_ok_and(|wire| {
            let wire = &kernel.wires[wire];
            wire.inbound.is_empty() && wire.peer_finished && wire.error.is_none()
        })
    }

    pub(crate) fn send(&mut self, index: usize, data: &[u8]) -> io::Result<usize> {
        self.send_vectored(index, &[IoSlice::new(data)])
    }

    pub(crate) fn send_vectored(
        &mut self,
        index: usize,
        data: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let fd = self.fd(index)?;
        let kernel = &mut *self.kernel.borrow_mut();
        kernel.sends += 1;
        let wire = kernel.wire_of(fd)?;
        if let Some(errno) = kernel.wires[wire].error.take() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if kernel.wires[wire].we_finished || kernel.wires[wire].peer_gone {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let offered: usize = data.iter().map(|slice| slice.len()).sum();
        let room = kernel.wires[wire].room().min(offered);
        if room == 0 || kernel.chance(kernel.faults.spurious) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = kernel.some_of(room, kernel.faults.short_write);
        let bytes = data.iter().flat_map(|slice| slice.iter()).take(n);
        kernel.wires[wire].outbound.extend(bytes);
        Ok(n)
    }

    pub(crate) fn send_file(
        &mut self,
        index: usize,
        file: &File,
        start: u64,
        len: u64,
    ) -> io::Result<usize> {
        let mut piece = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(FILE_PIECE)];
        match file.read_at(&mut piece, start)? {
            0 => Ok(0),
            n => self.send_vectored(index, &[IoSlice::new(&piece[..n])]),
        }
    }

    pub(crate) fn shutdown_write(&mut self, index: usize) {
        let kernel = &mut *self.kernel.borrow_mut();
        if let Ok(wire) = self.fd(index).and_then(|fd| kernel.wire_of(fd)) {
            kernel.wires[wire].we_finished = true;
        }
    }

    pub(crate) fn take_error(&mut self, index: usize) -> Option<io::Error> {
        let kernel = &mut *self.kernel.borrow_mut();
        let wire = self.fd(index).and_then(|fd| kernel.wire_of(fd)).ok()?;
        kernel.wires[wire].error.take().map(io::Error::from_raw_os_error)
    }

    pub(crate) fn local_addr(&self, index: usize) -> io::Result<Addr> {
        self.fd(index).map(|_| Addr::unix(None))
    }

    pub(crate) fn close(&mut self, id: ConnId, _interest: Interest) {
        self.end(id, false);
    }

    pub(crate) fn reset(&mut self, id: ConnId, _interest: Interest) {
        self.end(id, true);
    }

    fn end(&mut self, id: ConnId, reset: bool) {
        let Some(fd) = self.fds.get_mut(id.index()).and_then(Option::take) else {
            return;
        };
        let kernel = &mut *self.kernel.borrow_mut();
        let Some(index) = kernel.fds.get_mut(fd).and_then(Option::take) else {
            return;
        };
        let wire = &mut kernel.wires[index];
        debug_assert!(
            wire.registered.is_none_or(|(registered, _)| registered == id),
            "a socket was closed under another's id"
        );
        wire.registered = None;
        wire.closed = true;
        wire.we_finished = true;
        // Closing with unread input resets, as TCP does, and destroys what is under way.
        if reset || !wire.inbound.is_empty() {
            wire.we_reset = true;
            wire.outbound.clear();
        }
    }
}
