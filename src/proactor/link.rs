//! What the caller's threads and the watcher's have in common of a connection: its socket, and
//! the operations that are not complete.
//!
//! An operation is attempted at once, on the thread that submits it. The poller tells of changes
//! by edge, so what has to wait has been refused by the system before, which
//! [`State::readable`] and [`State::writable`] remember; it goes on where the poller tells, on
//! the caller's thread or the watcher's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

use super::completion::{Buffers, Done, Kind};
use super::conn::Conn;
use super::operation::{Destination, Fault, Lane, Operation, Read, Write};
use super::outbox::Lent;
use super::shared::Shared;
use crate::addr::Addr;
use crate::config::ATTEMPTS_MAX;
use crate::handler::ConnId;
use crate::remote::Remote;
use crate::sync::lock_std;
use crate::sys::{Event, Interest, net};

pub(crate) struct Link<T> {
    shared: Arc<Shared<T>>,
    pub(crate) peer: Addr,
    /// There once the watcher has taken the connection in.
    remote: OnceLock<Remote>,
    /// Clones of `Conn`; the watcher's own reference is none.
    handles: AtomicUsize,
    /// The watcher was told that there is something to look at, and has not looked yet.
    told: AtomicBool,
    /// The caller wants the connection closed.
    free: AtomicBool,
    state: Mutex<State<T>>,
}

pub(crate) struct State<T> {
    /// There until the watcher closes it.
    socket: Option<OwnedFd>,
    /// The poller's name for it.
    id: ConnId,
    /// What the poller is told to watch.
    interest: Interest,
    reads: Lane<Read<T>>,
    pub(crate) writes: Lane<Write<T>>,
    /// The watcher looks at the deadlines at this time: the earliest, or that of one that was met.
    pub(crate) armed: Option<Instant>,
    /// The watcher's timer is for another time, or for none.
    pub(crate) rearm: bool,
    /// The system has not said that there is nothing to read.
    readable: bool,
    /// The system has not said that it takes no more.
    writable: bool,
    /// That a read falls short does not prove that nothing is left: an end or urgent data was told
    /// of, or messages have bounds of their own, as those with descriptors on a Unix socket.
    ragged: bool,
    /// The peer's FIN was read.
    pub(crate) eof: bool,
    /// Why writing failed. What the peer sent before can still be read.
    write_error: Option<Fault>,
    /// It stands in line for the swap buffer.
    starved: bool,
    /// Nothing more is accepted.
    pub(crate) closed: bool,
}

/// What an attempt leaves behind, to be dealt with when the connection is unlocked.
pub(crate) struct Wake<T> {
    /// Completions that nobody takes any more. Dropping them may run the caller's code.
    refused: Vec<Done<T>>,
    /// The watcher has to look: at work that is left, at a deadline, or at the end.
    pub(crate) look: bool,
}

impl<T> Wake<T> {
    pub(crate) fn new() -> Wake<T> {
        Wake { refused: Vec::new(), look: false }
    }
}

impl<T> Link<T> {
    /// Has the poller watch `socket` from here on.
    pub(crate) fn new(
        socket: OwnedFd,
        peer: Addr,
        shared: Arc<Shared<T>>,
    ) -> io::Result<Arc<Link<T>>> {
        let state = State {
            socket: Some(socket),
            id: ConnId::NONE,
            interest: Interest::UNREGISTERED,
            reads: Lane::new(),
            writes: Lane::new(),
            armed: None,
            rearm: false,
            readable: true,
            writable: true,
            ragged: peer.socket_addr().is_none(),
            eof: false,
            write_error: None,
            starved: false,
            closed: false,
        };
        let link = Arc::new(Link {
            shared,
            peer,
            remote: OnceLock::new(),
            handles: AtomicUsize::new(0),
            told: AtomicBool::new(false),
            free: AtomicBool::new(false),
            state: Mutex::new(state),
        });
        let mut state = link.lock();
        state.id = link.shared.enter(link.clone());
        if let Err(error) = link.watch(&mut state) {
            link.unwatch(&mut state);
            return Err(error);
        }
        drop(state);
        Ok(link)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<T>> {
        lock_std(&self.state)
    }

    /// A handle more.
    pub(crate) fn handle(self: &Arc<Self>) -> Conn<T> {
        self.handles.fetch_add(1, Ordering::Relaxed);
        Conn(self.clone())
    }

    /// A handle less; the last one closes. Locks nothing, for it may happen anywhere.
    pub(crate) fn let_go(&self) {
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.free.store(true, Ordering::Release);
            self.tell();
        }
    }

    /// All that is pending fails, nothing more is accepted, and the watcher closes.
    pub(crate) fn free(self: &Arc<Self>) {
        self.free.store(true, Ordering::Release);
        let mut wake = Wake::new();
        let mut state = self.lock();
        self.fail(&mut state, io::ErrorKind::ConnectionAborted, &mut wake);
        wake.look = true;
        drop(state);
        self.settle(wake);
    }

    /// Has the watcher look at the connection, soon.
    pub(crate) fn tell(&self) {
        // Whoever finds the flag set leaves what it did to the one who has set it: the exchange
        // orders both before the look that clears it.
        if !self.told.swap(true, Ordering::AcqRel)
            && let Some(remote) = self.remote.get()
        {
            let _ = remote.notify_urgent(0); // refused only if it is closed
        }
        // Without a remote the watcher has yet to take the connection in, and looks then.
    }

    /// The watcher has taken the connection in.
    pub(crate) fn taken_in(&self, remote: Remote) {
        let _ = self.remote.set(remote); // happens once
    }

    /// The watcher looks from here on.
    pub(crate) fn begin_look(&self) {
        self.told.swap(false, Ordering::AcqRel);
    }

    pub(crate) fn is_freed(&self) -> bool {
        self.free.load(Ordering::Acquire)
    }

    /// Submits a read, and attempts it if nothing is before it.
    pub(crate) fn submit_read(self: &Arc<Self>, read: Read<T>) -> Result<(), Read<T>> {
        let mut wake = Wake::new();
        let mut state = self.lock();
        if state.closed {
            return Err(read);
        }
        let (first, deadline) = (state.reads.is_empty(), read.deadline);
        state.reads.push(read);
        if first {
            self.attempt_reads(&mut state, false, ATTEMPTS_MAX, &mut wake);
        }
        wake.look |= !state.reads.is_empty() && state.arm(deadline);
        drop(state);
        self.settle(wake);
        Ok(())
    }

    /// Submits a write, and attempts it if nothing is before it.
    pub(crate) fn submit_write(self: &Arc<Self>, write: Write<T>) -> Result<(), Write<T>> {
        let mut wake = Wake::new();
        let mut state = self.lock();
        if state.closed {
            return Err(write);
        }
        let (first, deadline) = (state.writes.is_empty(), write.deadline);
        state.writes.push(write);
        if first {
            self.attempt_writes(&mut state, ATTEMPTS_MAX, &mut wake);
            self.watch_or_fail(&mut state, &mut wake);
        }
        wake.look |= !state.writes.is_empty() && state.arm(deadline);
        drop(state);
        self.settle(wake);
        Ok(())
    }

    /// Goes on after the poller has told of `event`.
    pub(crate) fn told(self: &Arc<Self>, event: Event) {
        let mut wake = Wake::new();
        let mut state = self.lock();
        let ended = event.fin || event.hup || event.error;
        state.readable |= event.readable || ended;
        state.writable |= event.writable || event.hup || event.error;
        state.ragged |= ended || event.urgent;
        self.attempt(&mut state, false, &mut wake);
        drop(state);
        self.settle(wake);
    }

    /// Goes on with all that can go on. `due`: deadlines have come, before which each operation
    /// has its attempt.
    pub(crate) fn attempt(self: &Arc<Self>, state: &mut State<T>, due: bool, wake: &mut Wake<T>) {
        let most = |waiting: usize| ATTEMPTS_MAX + if due { waiting } else { 0 };
        self.attempt_writes(state, most(state.writes.len()), wake);
        self.attempt_reads(state, false, most(state.reads.len()), wake);
        self.watch_or_fail(state, wake);
    }

    /// Has the poller tell what the state wants, if that has changed.
    fn watch(&self, state: &mut State<T>) -> io::Result<()> {
        let (old, new) = (state.interest, state.wanted_interest());
        if old != new
            && let Some(socket) = &state.socket
        {
            self.shared.watch(socket.as_fd(), state.id, old, new)?;
            state.interest = new;
        }
        Ok(())
    }

    fn watch_or_fail(self: &Arc<Self>, state: &mut State<T>, wake: &mut Wake<T>) {
        if let Err(error) = self.watch(state) {
            self.fail(state, &error, wake);
            wake.look = true;
        }
    }

    /// Takes the socket from the poller: before it is closed, for a copy of it may live on
    /// elsewhere.
    pub(crate) fn unwatch(&self, state: &mut State<T>) -> Option<OwnedFd> {
        let socket = state.socket.take()?;
        self.shared.leave(state.id);
        if state.interest != Interest::UNREGISTERED {
            let none = Interest::UNREGISTERED;
            // It is going to leave in any case.
            let _ = self.shared.watch(socket.as_fd(), state.id, state.interest, none);
        }
        Some(socket)
    }

    /// Does what has to be done without the lock.
    pub(crate) fn settle(&self, wake: Wake<T>) {
        drop(wake.refused);
        if wake.look {
            self.tell();
        }
    }

    /// Reads as long as somebody wants to and there is something. `first_in_line`: a read into
    /// the swap buffer has its turn. `most`: attempts before others have theirs.
    pub(crate) fn attempt_reads(
        self: &Arc<Self>,
        state: &mut State<T>,
        first_in_line: bool,
        most: usize,
        wake: &mut Wake<T>,
    ) {
        state.starved &= !first_in_line;
        let mut turn = first_in_line;
        let mut attempts = 0;
        while let Some(read) = state.reads.front() {
            let wanted = match &read.into {
                Destination::Owned(buffer) => buffer.len() - read.done,
                Destination::Swap => usize::MAX,
            };
            if wanted == 0 {
                // A buffer of no bytes: a result of 0 would look like the peer's FIN.
                self.finish_read(state, Err(io::ErrorKind::InvalidInput.into()), wake);
                continue;
            }
            if state.eof {
                let full = read.full;
                let end = if full { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) };
                self.finish_read(state, end, wake);
                continue;
            }
            if !state.readable || state.starved {
                return;
            }
            if attempts == most {
                wake.look = true;
                return;
            }
            attempts += 1;
            let done = match state.reads.front().map(|read| &read.into) {
                Some(Destination::Owned(_)) => self.read_owned(state, wanted, wake),
                _ => self.read_swap(state, std::mem::take(&mut turn), wake),
            };
            match done {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => state.readable = false,
                Err(error) => {
                    self.fail(state, &error, wake);
                    wake.look = true;
                }
            }
        }
    }

    fn read_owned(
        self: &Arc<Self>,
        state: &mut State<T>,
        wanted: usize,
        wake: &mut Wake<T>,
    ) -> io::Result<()> {
        let State { socket: Some(socket), reads, .. } = state else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let Some(Read { into: Destination::Owned(buffer), done, full, .. }) = reads.front() else {
            return Ok(());
        };
        let n = net::recv(socket.as_fd(), &mut buffer[*done..], 0)?;
        if n == 0 {
            return state.meet_end();
        }
        *done += n;
        let over = n == wanted || !*full;
        state.readable = n == wanted || state.ragged;
        if over {
            self.finish_read(state, Ok(()), wake);
        }
        Ok(())
    }

    fn read_swap(
        self: &Arc<Self>,
        state: &mut State<T>,
        first_in_line: bool,
        wake: &mut Wake<T>,
    ) -> io::Result<()> {
        let State { socket: Some(socket), reads, .. } = &mut *state else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let lent =
            self.shared.outbox.lend(self, socket.as_fd(), first_in_line, |index, bytes| {
                let read = reads.pop().expect("the read that this is for");
                let (conn, kind, result) = (self.handle(), Kind::Read, Ok(()));
                Done {
                    conn,
                    kind,
                    context: read.context,
                    buffers: Buffers::Swap(index),
                    bytes,
                    result,
                }
            })?;
        match lent {
            Ok(Lent::Bytes { all }) => state.readable = !all || state.ragged,
            Ok(Lent::Eof) => return state.meet_end(),
            Ok(Lent::Full) => state.starved = true,
            Err(refused) => wake.refused.push(refused),
        }
        Ok(())
    }

    /// Writes as long as there is something and the system takes it, with `most` attempts before
    /// others have theirs.
    pub(crate) fn attempt_writes(
        self: &Arc<Self>,
        state: &mut State<T>,
        most: usize,
        wake: &mut Wake<T>,
    ) {
        let mut attempts = 0;
        while let Some(write) = state.writes.front() {
            if write.done == write.len {
                self.finish_write(state, Ok(()), wake);
                continue;
            }
            if let Some(fault) = state.write_error {
                self.finish_write(state, Err(fault.error()), wake);
                continue;
            }
            if !state.writable {
                return;
            }
            if attempts == most {
                wake.look = true;
                return;
            }
            attempts += 1;
            let State { socket: Some(socket), writes, .. } = &mut *state else {
                return;
            };
            let Some(write) = writes.front() else {
                return;
            };
            let slices = write.slices();
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            let sent = net::send_vectored(socket.as_fd(), &slices);
            drop(slices);
            match sent {
                Ok(n) => {
                    write.advance(n);
                    state.writable = n == offered;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => state.writable = false,
                Err(error) => state.write_error = Some(Fault::from(&error)),
            }
        }
    }

    fn finish_read(
        self: &Arc<Self>,
        state: &mut State<T>,
        result: io::Result<()>,
        wake: &mut Wake<T>,
    ) {
        if let Some(read) = state.reads.pop() {
            self.complete(read, result, wake);
        }
    }

    fn finish_write(
        self: &Arc<Self>,
        state: &mut State<T>,
        result: io::Result<()>,
        wake: &mut Wake<T>,
    ) {
        if let Some(write) = state.writes.pop() {
            self.complete(write, result, wake);
        }
    }

    /// Hands an operation over to the caller. The connection's lock is held, so that its
    /// operations stay in order.
    fn complete<O: Operation<T>>(
        self: &Arc<Self>,
        operation: O,
        result: io::Result<()>,
        wake: &mut Wake<T>,
    ) {
        if let Err(done) = self.shared.outbox.push(operation.into_done(self.handle(), result)) {
            wake.refused.push(done);
        }
    }

    /// Completes what has come to its deadline.
    pub(crate) fn time_out(
        self: &Arc<Self>,
        state: &mut State<T>,
        now: Instant,
        wake: &mut Wake<T>,
    ) {
        let late = || Err(io::ErrorKind::TimedOut.into());
        for read in state.reads.take_due(now) {
            self.complete(read, late(), wake);
        }
        for write in state.writes.take_due(now) {
            self.complete(write, late(), wake);
        }
    }

    /// The end: what is pending completes with an error, and nothing more is accepted.
    pub(crate) fn fail(
        self: &Arc<Self>,
        state: &mut State<T>,
        why: impl Into<Fault>,
        wake: &mut Wake<T>,
    ) {
        let fault = why.into();
        state.closed = true;
        while !state.reads.is_empty() {
            self.finish_read(state, Err(fault.error()), wake);
        }
        while !state.writes.is_empty() {
            self.finish_write(state, Err(fault.error()), wake);
        }
    }
}

impl<T> State<T> {
    /// What the poller should tell of: what arrives, and where a write is blocked, room.
    fn wanted_interest(&self) -> Interest {
        let always = Interest::READ | Interest::FIN | Interest::EDGE;
        let blocked = !self.writable && !self.writes.is_empty();
        if blocked { always | Interest::WRITE } else { always }
    }

    /// Nothing more comes: the peer's FIN, unless a write has met a reset before and so taken the
    /// error that this read would have had.
    fn meet_end(&mut self) -> io::Result<()> {
        let error = self.write_error.map(Fault::error);
        match error.filter(|error| error.kind() != io::ErrorKind::BrokenPipe) {
            Some(error) => Err(error),
            None => {
                self.eof = true;
                Ok(())
            }
        }
    }

    /// The socket, as long as the connection is open.
    pub(crate) fn socket(&self) -> io::Result<BorrowedFd<'_>> {
        let socket = self.socket.as_ref().filter(|_| !self.closed);
        socket.map(OwnedFd::as_fd).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The poller may have yet to tell of what has become possible.
    pub(crate) fn forget_refusals(&mut self) {
        self.readable = true;
        self.writable = true;
    }

    /// Takes note of a new deadline; true if the watcher would be late for it. One that is later
    /// than those before, as a fixed time for each operation is, costs the watcher nothing.
    fn arm(&mut self, deadline: Option<Instant>) -> bool {
        let sooner = deadline.is_some_and(|at| self.armed.is_none_or(|armed| at < armed));
        if sooner {
            self.armed = deadline;
            self.rearm = true;
        }
        sooner
    }

    /// Has the watcher look at the earliest deadline that is left.
    pub(crate) fn arm_next(&mut self) {
        self.armed = self.reads.earliest().into_iter().chain(self.writes.earliest()).min();
        self.rearm = true;
    }
}
