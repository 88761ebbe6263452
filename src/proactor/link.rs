//! What the caller's threads and the watcher's have in common of a connection: its socket, and
//! the operations that are not complete.
//!
//! Operations are attempted at once, on the thread that submits them, and need the watcher's
//! thread only if they have to wait. The poller tells of changes by edge, so what has to wait
//! has been refused by the system before; [`State::readable`] and [`State::writable`] remember
//! that.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::completion::{Buffers, Done, Kind};
use super::conn::Conn;
use super::operation::{Destination, Lane, Operation, Read, Write};
use super::outbox::{Lent, Outbox};
use crate::addr::Addr;
use crate::config::ATTEMPTS_MAX;
use crate::ctx::Ctx;
use crate::remote::Remote;
use crate::source::Readiness;
use crate::sync::lock_std;
use crate::sys::{Interest, net};
use crate::timer::TimerId;

pub(crate) struct Link<T> {
    outbox: Arc<Outbox<T>>,
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
    pub(crate) socket: Option<OwnedFd>,
    pub(crate) reads: Lane<Read<T>>,
    pub(crate) writes: Lane<Write<T>>,
    /// The system has not said that there is nothing to read.
    readable: bool,
    /// The system has not said that it takes no more.
    writable: bool,
    /// A FIN or an error was told of: that a read fell short proves nothing any more.
    ended: bool,
    /// The peer's FIN was read.
    pub(crate) eof: bool,
    /// Why writing failed. What the peer sent before can still be read.
    write_error: Option<io::ErrorKind>,
    /// It stands in line for the swap buffer.
    starved: bool,
    /// Nothing more is accepted.
    pub(crate) closed: bool,
}

/// What an attempt leaves behind, to be dealt with when the connection is unlocked.
pub(crate) struct Wake<T> {
    /// Timers of operations that are over.
    timers: Vec<TimerId>,
    /// Completions that nobody takes any more. Dropping them may run the caller's code.
    refused: Vec<Done<T>>,
    /// The watcher has to look: at work that is left, or at the end.
    pub(crate) more: bool,
}

impl<T> Wake<T> {
    pub(crate) fn new() -> Wake<T> {
        Wake { timers: Vec::new(), refused: Vec::new(), more: false }
    }

    pub(crate) fn cancel_timers(&mut self, cx: &mut Ctx<'_>) {
        for timer in self.timers.drain(..) {
            cx.cancel_timer(timer);
        }
    }
}

impl<T> Link<T> {
    pub(crate) fn new(socket: OwnedFd, peer: Addr, outbox: Arc<Outbox<T>>) -> Link<T> {
        let state = State {
            socket: Some(socket),
            reads: Lane::new(),
            writes: Lane::new(),
            readable: true,
            writable: true,
            ended: false,
            eof: false,
            write_error: None,
            starved: false,
            closed: false,
        };
        Link {
            outbox,
            peer,
            remote: OnceLock::new(),
            handles: AtomicUsize::new(0),
            told: AtomicBool::new(false),
            free: AtomicBool::new(false),
            state: Mutex::new(state),
        }
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

    /// Nothing more is accepted from here on, and the watcher closes.
    pub(crate) fn free(&self) {
        self.free.store(true, Ordering::Release);
        self.lock().closed = true;
        self.tell();
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
    pub(crate) fn look(&self) {
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
        let first = state.reads.is_empty();
        let deadline = read.deadline.is_some();
        state.reads.push(read);
        if first {
            self.attempt_reads(&mut state, false, &mut wake);
        }
        let tell = wake.more || (deadline && !state.reads.is_empty());
        drop(state);
        if tell {
            self.tell();
        }
        Ok(())
    }

    /// Submits a write, and attempts it if nothing is before it.
    pub(crate) fn submit_write(self: &Arc<Self>, write: Write<T>) -> Result<(), Write<T>> {
        let mut wake = Wake::new();
        let mut state = self.lock();
        if state.closed {
            return Err(write);
        }
        let first = state.writes.is_empty();
        let deadline = write.deadline.is_some();
        state.writes.push(write);
        if first {
            self.attempt_writes(&mut state, &mut wake);
        }
        // A blocked write needs the watcher to ask the poller for room.
        let tell = wake.more || (!state.writes.is_empty() && (deadline || first));
        drop(state);
        if tell {
            self.tell();
        }
        Ok(())
    }

    /// The poller told of a change.
    pub(crate) fn ready(&self, state: &mut State<T>, ready: Readiness) {
        state.readable |= ready.readable || ready.error;
        state.writable |= ready.writable || ready.error;
        state.ended |= ready.error;
    }

    /// Reads as long as somebody wants to and there is something. `first_in_line`: a read into
    /// the swap buffer has its turn.
    pub(crate) fn attempt_reads(
        self: &Arc<Self>,
        state: &mut State<T>,
        first_in_line: bool,
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
            if attempts == ATTEMPTS_MAX {
                wake.more = true;
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
                    self.fail(state, error.kind(), wake);
                    wake.more = true;
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
        *done += n;
        let over = n == wanted || (n > 0 && !*full);
        state.eof = n == 0;
        state.readable = n == wanted || state.ended;
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
        let lent = self.outbox.lend(self, socket.as_fd(), first_in_line, |index, bytes| {
            let read = reads.pop().expect("the read that this is for");
            wake.timers.extend((read.timer != TimerId::NONE).then_some(read.timer));
            let (conn, kind, result) = (self.handle(), Kind::Read, Ok(()));
            Done { conn, kind, context: read.context, buffers: Buffers::Swap(index), bytes, result }
        })?;
        match lent {
            Ok(Lent::Bytes { all }) => state.readable = !all || state.ended,
            Ok(Lent::Eof) => state.eof = true,
            Ok(Lent::Full) => state.starved = true,
            Err(refused) => wake.refused.push(refused),
        }
        Ok(())
    }

    /// Writes as long as there is something and the system takes it.
    pub(crate) fn attempt_writes(self: &Arc<Self>, state: &mut State<T>, wake: &mut Wake<T>) {
        let mut attempts = 0;
        while let Some(write) = state.writes.front() {
            if write.done == write.len {
                self.finish_write(state, Ok(()), wake);
                continue;
            }
            if let Some(kind) = state.write_error {
                self.finish_write(state, Err(kind.into()), wake);
                continue;
            }
            if !state.writable {
                return;
            }
            if attempts == ATTEMPTS_MAX {
                wake.more = true;
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
            let sent = match &slices[..] {
                [slice] => net::send(socket.as_fd(), slice),
                slices => net::send_vectored(socket.as_fd(), slices),
            };
            drop(slices);
            match sent {
                Ok(n) => {
                    write.advance(n);
                    state.writable = n == offered;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => state.writable = false,
                Err(error) => state.write_error = Some(error.kind()),
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
        mut operation: O,
        result: io::Result<()>,
        wake: &mut Wake<T>,
    ) {
        let timer = *operation.timer();
        wake.timers.extend((timer != TimerId::NONE).then_some(timer));
        if let Err(done) = self.outbox.push(operation.into_done(self.handle(), result)) {
            wake.refused.push(done);
        }
    }

    /// The deadline of the operation with `timer` has come.
    pub(crate) fn time_out(
        self: &Arc<Self>,
        state: &mut State<T>,
        timer: TimerId,
        wake: &mut Wake<T>,
    ) {
        let late = || Err(io::ErrorKind::TimedOut.into());
        if let Some(read) = state.reads.remove(timer) {
            self.complete(read, late(), wake);
        } else if let Some(write) = state.writes.remove(timer) {
            self.complete(write, late(), wake);
        }
    }

    /// The end: what is pending completes with an error, and nothing more is accepted.
    pub(crate) fn fail(
        self: &Arc<Self>,
        state: &mut State<T>,
        kind: io::ErrorKind,
        wake: &mut Wake<T>,
    ) {
        state.closed = true;
        while !state.reads.is_empty() {
            self.finish_read(state, Err(kind.into()), wake);
        }
        while !state.writes.is_empty() {
            self.finish_write(state, Err(kind.into()), wake);
        }
    }
}

impl<T> State<T> {
    /// What the poller should tell of: what arrives, and where a write is blocked, room.
    pub(crate) fn interest(&self) -> Interest {
        let always = Interest::READ | Interest::FIN | Interest::EDGE;
        let blocked = !self.writable && !self.writes.is_empty();
        if blocked { always | Interest::WRITE } else { always }
    }
}
