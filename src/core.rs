//! All that a [`Ctx`](crate::Ctx) can touch: connection states, timers, scratch output.
//!
//! The core holds no descriptor and reads no clock. It records what handlers ask for; the
//! reactor settles it after each callback.

use std::any::{Any, TypeId};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::addr::Addr;
use crate::buf::Gauge;
use crate::close::Close;
use crate::closing::DetachFn;
use crate::config::Config;
use crate::conn::{Conn, Flags, Kind, NO_LISTENER};
use crate::connector;
use crate::handle::Handle;
use crate::handler::{ConnId, EvHandler};
use crate::mail::ReactorShared;
use crate::remote::{Remote, RemoteState};
use crate::slab::Slab;
use crate::sync::Ordering;
use crate::sys::{Backend, Socket};
use crate::timer::{Purpose, TimerId, Timers};

pub(crate) struct Core {
    pub(crate) conns: Slab<Conn>,
    pub(crate) timers: Timers,
    /// Output of the connection whose callback runs, not yet sent.
    pub(crate) scratch: Vec<u8>,
    /// Whose callback runs.
    pub(crate) current: ConnId,
    /// How full the scratch may become before a write needs a closer look.
    pub(crate) scratch_limit: usize,
    /// Connections that were changed and are to be settled.
    pub(crate) dirty: VecDeque<ConnId>,
    /// Those of them that others have written to since the last settling, as far as they are not
    /// flushed.
    pub(crate) unflushed: VecDeque<ConnId>,
    /// Connections to end, and why.
    pub(crate) doomed: VecDeque<(ConnId, Close)>,
    /// Connections with a callback due that must not run inside or right after another.
    pub(crate) deferred: Vec<ConnId>,
    /// Handlers to put in their slots.
    pub(crate) incoming: Vec<(ConnId, Box<dyn EvHandler>)>,
    /// Connections to make.
    pub(crate) connects: Vec<connector::Request>,
    /// Connections to hand out, and to whom.
    pub(crate) detaching: VecDeque<(ConnId, DetachFn)>,
    /// Nanoseconds since `epoch`, read once a turn.
    pub(crate) now: u64,
    /// The same in milliseconds, modulo 2^32: the unit of idle timeouts.
    pub(crate) now_ms: u32,
    epoch: Instant,
    pub(crate) config: Arc<Config>,
    pub(crate) shared: Arc<ReactorShared>,
    pub(crate) handle: Handle,
    /// Bytes of output that wait for peers.
    pub(crate) queued: Gauge,
    /// A graceful shutdown is under way.
    pub(crate) shutting_down: bool,
    locals: HashMap<TypeId, Box<dyn Any>>,
}

impl Core {
    pub(crate) fn new(
        config: Arc<Config>,
        shared: Arc<ReactorShared>,
        handle: Handle,
        epoch: Instant,
    ) -> Core {
        Core {
            conns: Slab::new(),
            timers: Timers::new(),
            scratch: Vec::new(),
            current: ConnId::NONE,
            scratch_limit: 0,
            dirty: VecDeque::new(),
            unflushed: VecDeque::new(),
            doomed: VecDeque::new(),
            deferred: Vec::new(),
            incoming: Vec::new(),
            connects: Vec::new(),
            detaching: VecDeque::new(),
            now: 0,
            now_ms: 0,
            epoch,
            config,
            shared,
            handle,
            queued: Gauge::default(),
            shutting_down: false,
            locals: HashMap::new(),
        }
    }

    pub(crate) fn instant(&self) -> Instant {
        self.epoch + Duration::from_nanos(self.now)
    }

    /// A turn begins at `now`.
    pub(crate) fn begin_turn(&mut self, now: u64) {
        self.now = now;
        self.now_ms = (now / 1_000_000) as u32;
    }

    /// A callback of `id` is about to run.
    #[inline]
    pub(crate) fn begin(&mut self, id: ConnId) {
        debug_assert!(self.scratch.is_empty(), "the last callback was not settled");
        self.current = id;
        self.limit_scratch();
    }

    pub(crate) fn insert(&mut self, conn: Conn) -> ConnId {
        if conn.kind.has_handler() {
            self.shared.counters.open.add(1);
        }
        ConnId(self.conns.insert(conn))
    }

    /// A handler without a socket joins; `on_open` is called before anything else, when the
    /// present callback is over.
    pub(crate) fn add(&mut self, handler: Box<dyn EvHandler>) -> ConnId {
        let id = self.insert(Conn::new(Kind::Detached, Addr::NONE, NO_LISTENER));
        self.incoming.push((id, handler));
        self.defer(id, Flags::OPEN_DUE);
        id
    }

    /// An existing stream joins; `on_open` comes when the present callback is over.
    pub(crate) fn adopt(
        &mut self,
        net: &mut Backend,
        socket: impl Into<OwnedFd>,
        handler: Box<dyn EvHandler>,
    ) -> io::Result<ConnId> {
        let (socket, peer) = crate::sys::adopt_stream(socket.into())?;
        let id = self.insert(Conn::new(Kind::Stream, peer, NO_LISTENER));
        net.install(id.index(), Socket::Fd(socket));
        self.incoming.push((id, handler));
        self.defer(id, Flags::OPEN_DUE);
        Ok(id)
    }

    /// The connection leaves the reactor when the present callback is over.
    pub(crate) fn detach(&mut self, id: ConnId, then: DetachFn) {
        let Some(conn) = self.conns.get(id.0) else {
            return;
        };
        let leaves = self.detaching.iter().any(|(leaving, _)| *leaving == id);
        if matches!(conn.kind, Kind::Stream | Kind::Source)
            && !conn.flags.any(Flags::ENDING)
            && !leaves
        {
            self.detaching.push_back((id, then));
            self.touch(id);
        }
    }

    pub(crate) fn replace(&mut self, id: ConnId, handler: Box<dyn EvHandler>) {
        if self.conns.get(id.0).is_some_and(|conn| !conn.flags.any(Flags::ENDING)) {
            self.incoming.push((id, handler));
            self.touch(id);
        }
    }

    /// Whether something is left to settle beside the current connection.
    #[inline]
    pub(crate) fn has_work(&self) -> bool {
        !self.dirty.is_empty()
            || !self.doomed.is_empty()
            || !self.incoming.is_empty()
            || !self.detaching.is_empty()
    }

    /// Marks a connection as changed.
    pub(crate) fn touch(&mut self, id: ConnId) {
        if id == self.current {
            return; // settled after its callback anyway
        }
        if let Some(conn) = self.conns.get_mut(id.0)
            && !conn.flags.any(Flags::DIRTY)
        {
            conn.flags.insert(Flags::DIRTY);
            self.dirty.push_back(id);
        }
    }

    /// Has the reactor call `id` back for `why` later in this turn.
    pub(crate) fn defer(&mut self, id: ConnId, why: Flags) {
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.flags.insert(why);
            if !conn.flags.any(Flags::DEFERRED) {
                conn.flags.insert(Flags::DEFERRED);
                self.deferred.push(id);
            }
        }
    }

    pub(crate) fn pending_output(&self, id: ConnId) -> usize {
        let queued = self.conns.get(id.0).map_or(0, Conn::queued);
        queued + if id == self.current { self.scratch.len() } else { 0 }
    }

    /// Ends `id` at once, when the present callback is over. The first reason stays.
    pub(crate) fn doom(&mut self, id: ConnId, why: Close) {
        let Some(conn) = self.conns.get_mut(id.0) else {
            return;
        };
        if !conn.flags.any(Flags::DOOMED | Flags::LINGERING) {
            conn.flags.insert(Flags::DOOMED);
            if conn.out.take().is_some() {
                conn.flags.insert(Flags::OUT_FAILED);
            }
            self.doomed.push_back((id, why));
        }
        if id == self.current {
            self.scratch.clear();
            self.scratch_limit = 0;
        }
    }

    /// Flush, then close.
    pub(crate) fn close(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id.0) else {
            return;
        };
        if conn.flags.any(Flags::ENDING) {
            return;
        }
        if conn.kind == Kind::Connecting {
            return self.doom(id, Close::Local); // what it owes has nobody to go to
        }
        conn.flags.insert(Flags::CLOSING);
        conn.take_tail();
        if id == self.current {
            self.scratch_limit = 0;
        }
        self.touch(id);
    }

    /// Takes over the stream socket that the handler of `id` had to itself, and closes it as any
    /// other: with a FIN, and lingering while the peer may still send. `eof`: its FIN was read.
    #[cfg(feature = "proactor")]
    pub(crate) fn close_own(&mut self, net: &mut Backend, id: ConnId, socket: OwnedFd, eof: bool) {
        if let Some(conn) = self.conns.get_mut(id.0) {
            net.install(id.index(), Socket::Fd(socket));
            conn.kind = Kind::Stream;
            conn.flags.set(Flags::PEER_EOF, eof);
            self.close(id);
        }
    }

    pub(crate) fn read_while_blocked(&mut self, id: ConnId, on: bool) {
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.flags.set(Flags::READS_BLOCKED, on);
            self.touch(id);
        }
    }

    pub(crate) fn pause_reads(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id.0)
            && !conn.flags.any(Flags::ENDING)
        {
            self.shared.counters.paused.add(u64::from(!conn.flags.any(Flags::RESTS)));
            conn.flags.insert(Flags::PAUSED);
            self.touch(id);
        }
    }

    pub(crate) fn resume_reads(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id.0) else {
            return;
        };
        if conn.flags.take(Flags::PAUSED) {
            self.reading_resumed(id);
        }
    }

    /// One of the reasons not to read is gone: what was left unread is offered again, even if
    /// nothing new arrives, and what the poller told meanwhile is asked again.
    pub(crate) fn reading_resumed(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id.0) else {
            return;
        };
        if !conn.flags.any(Flags::RESTS) {
            self.shared.counters.paused.subtract(1);
        } else if conn.reading_rests() {
            return;
        }
        if conn.flags.any(Flags::ENDING) {
            return;
        }
        conn.flags.remove(Flags::SAW_FIN | Flags::SAW_HUP);
        if conn.tail_len() > 0 {
            self.defer(id, Flags::OFFER_DUE);
        }
        self.touch(id);
    }

    /// Arms a timer `after` from now; `TimerId::NONE` if the connection is ending.
    pub(crate) fn set_timer(&mut self, id: ConnId, after: Duration, period: Duration) -> TimerId {
        let deadline = self.now.saturating_add(nanos(after));
        match self.conns.get_mut(id.0) {
            Some(conn) if !conn.flags.any(Flags::DOOMED | Flags::LINGERING) => {
                self.timers.schedule(&mut conn.timers, id, Purpose::User, deadline, nanos(period))
            }
            _ => TimerId::NONE,
        }
    }

    /// A timer of the framework's own for `id`; at most one for each purpose.
    pub(crate) fn set_internal(
        &mut self,
        id: ConnId,
        purpose: Purpose,
        after: Duration,
        period: u64,
    ) {
        let deadline = self.now.saturating_add(nanos(after));
        if let Some(conn) = self.conns.get_mut(id.0) {
            match self.timers.find(conn.timers, purpose) {
                Some(timer) => {
                    self.timers.reset(timer, deadline);
                    self.timers.set_period(timer, period);
                }
                None => {
                    self.timers.schedule(&mut conn.timers, id, purpose, deadline, period);
                }
            }
        }
    }

    pub(crate) fn cancel_internal(&mut self, id: ConnId, purpose: Purpose) {
        if let Some(conn) = self.conns.get_mut(id.0)
            && let Some(timer) = self.timers.find(conn.timers, purpose)
        {
            self.timers.cancel(&mut conn.timers, timer);
        }
    }

    pub(crate) fn cancel_timer(&mut self, timer: TimerId) -> bool {
        let Some(owner) = self.timers.owner(timer) else {
            return false;
        };
        match self.conns.get_mut(owner.0) {
            Some(conn) => self.timers.cancel(&mut conn.timers, timer),
            None => false,
        }
    }

    pub(crate) fn reset_timer(&mut self, timer: TimerId, after: Duration) -> bool {
        let deadline = self.now.saturating_add(nanos(after));
        self.timers.reset(timer, deadline)
    }

    pub(crate) fn set_idle(&mut self, id: ConnId, after: Option<Duration>, renewed_by: Flags) {
        let now_ms = self.now_ms;
        let Some(conn) = self.conns.get_mut(id.0) else {
            return;
        };
        if conn.flags.any(Flags::DOOMED | Flags::LINGERING) {
            return;
        }
        conn.flags.remove(Flags::IDLE_READS | Flags::IDLE_WRITES);
        conn.flags.insert(renewed_by);
        conn.last_active = now_ms;
        match after {
            None => self.cancel_internal(id, Purpose::Idle),
            Some(after) => {
                // Activity is kept in whole milliseconds modulo 2^32, so a longer timeout could
                // not be told from a short one.
                let after = after.clamp(Duration::from_millis(1), IDLE_MAX);
                self.set_internal(id, Purpose::Idle, after, nanos(after));
            }
        }
    }

    pub(crate) fn remote(&mut self, id: ConnId) -> Remote {
        let shared = self.shared.clone();
        let fresh = |open| Arc::new(RemoteState::new(id, shared, open));
        let state = match self.conns.get_mut(id.0) {
            Some(conn) if !conn.flags.any(Flags::DOOMED | Flags::LINGERING) => {
                conn.extra_mut().remote.get_or_insert_with(|| fresh(true)).clone()
            }
            _ => fresh(false),
        };
        Remote { state }
    }

    /// Tells other threads how much `id` owes.
    pub(crate) fn publish_output(&self, conn: &Conn) {
        if let Some(remote) = conn.extra().and_then(|extra| extra.remote.as_ref()) {
            remote.queued.store(conn.queued(), Ordering::Relaxed);
        }
    }

    pub(crate) fn local<T: Default + 'static>(&mut self) -> &mut T {
        self.locals
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Box::new(T::default()))
            .downcast_mut()
            .expect("the map is keyed by type")
    }

    pub(crate) fn set_local<T: 'static>(&mut self, value: T) {
        self.locals.insert(TypeId::of::<T>(), Box::new(value));
    }
}

/// The longest idle timeout: half of what 32 bits of milliseconds can tell.
pub(crate) const IDLE_MAX: Duration = Duration::from_millis(u32::MAX as u64 / 2);

/// Nanoseconds, capped at 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
