//! Calling a handler, and settling afterwards what it asked for.
//!
//! The three parts of a reactor are borrowed side by side here: the backend, the handlers and
//! the core. A callback sees the core and the backend through [`Ctx`]; no handler can reach
//! another's memory, so nothing is ever called inside a callback.

use std::io;

use crate::close::Close;
use crate::conn::{Flags, Kind};
use crate::connector::Connector;
use crate::core::{Core, nanos};
use crate::ctx::Ctx;
use crate::handler::{ConnId, EvHandler};
use crate::isolate::{drop_isolated, isolated};
use crate::slab;
use crate::sys::Backend;
use crate::sys::datagram::Batch;
use crate::timer::Purpose;

pub(crate) struct Dispatcher {
    pub(crate) backend: Backend,
    /// By slot; `None` where there is no handler, as of a listener.
    handlers: Vec<Option<Box<dyn EvHandler>>>,
    pub(crate) core: Core,
    /// When the last callback ended, by the coarse clock, in nanoseconds.
    watched: u64,
    /// Callbacks longer than this are logged, in nanoseconds.
    slow_callback: u64,
    pub(crate) connector: Connector,
    pub(crate) batch: Batch,
    /// Listeners one of whose connections has ended, for their limits.
    pub(crate) released: Vec<u16>,
}

impl Dispatcher {
    pub(crate) fn new(backend: Backend, core: Core) -> Dispatcher {
        let slow_callback = nanos(core.config.slow_turn);
        Dispatcher {
            backend,
            handlers: Vec::new(),
            core,
            watched: 0,
            slow_callback,
            connector: Connector::default(),
            batch: Batch::new(),
            released: Vec::new(),
        }
    }

    pub(crate) fn drop_handler(&mut self, id: ConnId) {
        drop_isolated(self.handlers.get_mut(id.index()).and_then(Option::take));
    }

    pub(crate) fn put_handler(&mut self, id: ConnId, handler: Box<dyn EvHandler>) {
        while self.handlers.len() <= id.index() {
            slab::reserve_one(&mut self.handlers);
            self.handlers.push(None);
        }
        let old = self.handlers[id.index()].replace(handler);
        drop_isolated(old);
    }

    /// Runs one callback of `id`. An error or a panic dooms the connection and gives `None`.
    #[inline]
    pub(crate) fn call<R>(
        &mut self,
        id: ConnId,
        callback: impl FnOnce(&mut dyn EvHandler, &mut Ctx<'_>) -> io::Result<R>,
    ) -> Option<R> {
        debug_assert!(self.core.conns.get(id.0).is_some(), "{id:?} is gone: who has its slot?");
        let handler = self.handlers.get_mut(id.index())?.as_deref_mut()?;
        self.core.begin(id);
        let mut cx = Ctx { core: &mut self.core, net: &mut self.backend, id };
        let result = isolated(|| callback(handler, &mut cx));
        let ended = self.backend.coarse_now();
        if ended.saturating_sub(self.watched) > self.slow_callback {
            log_slow(name_of(handler), id, ended - self.watched);
        }
        self.watched = ended;
        match result {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                self.core.doom(id, Close::Error(error));
                None
            }
            Err(message) => {
                let name = name_of(handler);
                self.panicked(id, name, message);
                None
            }
        }
    }

    /// Measures callbacks from now on.
    pub(crate) fn watch_callbacks(&mut self) {
        self.watched = self.backend.coarse_now();
    }

    #[cold]
    fn panicked(&mut self, id: ConnId, name: &str, message: String) {
        log::error!("{name} panicked on {id:?}: {message}");
        self.core.doom(id, Close::Panic(message));
    }

    /// The first callback of a connection that has its slot, socket and handler.
    pub(crate) fn open(&mut self, id: ConnId) {
        self.open_current(id);
        self.settle();
    }

    /// Has an added handler's first callback come before the one that is about to run.
    #[inline]
    pub(crate) fn open_first(&mut self, id: ConnId) {
        let conn = self.core.conns.get_mut(id.0);
        if conn.is_some_and(|conn| conn.flags.take(Flags::OPEN_DUE)) {
            self.settle(); // puts the handler in its slot
            self.open(id);
        }
    }

    /// As `open`, within a settling: other connections are settled later.
    fn open_current(&mut self, id: ConnId) {
        let now_ms = self.core.now_ms;
        if let Some(conn) = self.core.conns.get_mut(id.0) {
            conn.flags.insert(Flags::OPENED);
            conn.last_active = now_ms;
        }
        self.call(id, |handler, cx| handler.on_open(cx));
        if self.core.shutting_down {
            self.settle_current();
            self.say_goodbye(id);
        }
    }

    /// Tells a handler that the server is shutting down, if it is still there to be told.
    pub(crate) fn say_goodbye(&mut self, id: ConnId) {
        let conn = self.core.conns.get(id.0);
        if conn.is_some_and(|conn| !conn.flags.any(Flags::ENDING) && conn.flags.any(Flags::OPENED))
        {
            self.call(id, |handler, cx| handler.on_shutdown(cx));
        }
    }

    /// Brings the world in line with what the last callback did: output is sent, interest is
    /// updated, and what is to end ends. Runs after each callback, never inside one.
    #[inline]
    pub(crate) fn settle(&mut self) {
        self.settle_current();
        self.settle_others();
    }

    /// As `settle`, where no callback has just run.
    #[inline]
    pub(crate) fn settle_others(&mut self) {
        if self.core.has_work() {
            self.settle_lists();
        }
    }

    #[cold]
    fn settle_lists(&mut self) {
        self.core.unflushed.clear(); // each is dirty too
        loop {
            for (id, handler) in std::mem::take(&mut self.core.incoming) {
                self.install(id, handler);
            }
            if !self.core.incoming.is_empty() {
                continue; // what ends has to have its handler, to be told
            }
            if let Some(id) = self.core.dirty.pop_front() {
                self.settle_conn(id);
            } else if let Some((id, then)) = self.core.detaching.pop_front() {
                self.hand_out(id, then);
            } else if let Some((id, why)) = self.core.doomed.pop_front() {
                self.finish(id, why);
            } else if !self.core.has_work() {
                return;
            }
        }
    }

    /// A handler asked for by a callback: of a new slot, or in the place of another, which is
    /// told.
    fn install(&mut self, id: ConnId, handler: Box<dyn EvHandler>) {
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return drop_isolated(Some(handler));
        };
        if !conn.flags.any(Flags::OPENED | Flags::LINGERING) {
            return self.put_handler(id, handler);
        }
        if conn.flags.any(Flags::ENDING) {
            return drop_isolated(Some(handler)); // the old one sees the end
        }
        conn.flags.insert(Flags::DOOMED); // nothing takes effect in a last callback
        self.call(id, |old, cx| {
            old.on_close(cx, &Close::Replaced);
            Ok(())
        });
        self.core.current = ConnId::NONE;
        if let Some(conn) = self.core.conns.get_mut(id.0) {
            conn.flags.remove(Flags::DOOMED);
        }
        self.put_handler(id, handler);
        self.open_current(id);
        self.settle_current();
        let Some(conn) = self.core.conns.get(id.0) else {
            return;
        };
        if conn.flags.any(Flags::PEER_EOF) {
            self.core.defer(id, Flags::EOF_DUE);
        } else if conn.tail_len() > 0 {
            self.core.defer(id, Flags::OFFER_DUE);
        }
    }

    #[inline]
    fn settle_current(&mut self) {
        let current = self.core.current;
        self.settle_conn(current);
        self.core.current = ConnId::NONE;
    }

    /// Sends what `id` owes and computes what follows from its state.
    #[inline]
    fn settle_conn(&mut self, id: ConnId) {
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            self.core.scratch.clear();
            return;
        };
        conn.flags.remove(Flags::DIRTY);
        if id == self.core.current && !self.core.scratch.is_empty() {
            self.send_scratch(id);
        } else if conn.out.is_some() {
            self.core.flush(&mut self.backend, id);
        }
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return;
        };
        if conn.is_ordinary() {
            return;
        }
        self.settle_state(id);
    }

    /// One `send` for all that the callback wrote.
    #[inline]
    fn send_scratch(&mut self, id: ConnId) {
        let core = &mut self.core;
        let Some(conn) = core.conns.get_mut(id.0) else {
            return;
        };
        if conn.out.is_some() {
            core.spill_scratch();
            return self.core.flush(&mut self.backend, id);
        }
        match self.backend.send(id.index(), &core.scratch) {
            Ok(sent) => {
                core.shared.counters.bytes_out.add(sent as u64);
                conn.sent(sent, core.now_ms);
                if sent < core.scratch.len() {
                    conn.flags.insert(Flags::BLOCKED);
                    conn.queue(&core.queued).push(&core.scratch[sent..]);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                conn.flags.insert(Flags::BLOCKED);
                conn.queue(&core.queued).push(&core.scratch);
            }
            Err(error) => conn.fail_output(error),
        }
        core.scratch.clear();
    }

    /// All that is not the ordinary case: marks, closing, failed output, changed interest.
    fn settle_state(&mut self, id: ConnId) {
        if self.core.is_datagram(id) {
            return self.settle_datagrams(id);
        }
        self.settle_marks(id);
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return;
        };
        let flags = conn.flags;
        if flags.any(Flags::DOOMED) {
            return; // its turn to end comes when all else is settled
        }
        if flags.any(Flags::OUT_FAILED)
            && flags.any(Flags::CLOSING | Flags::PAUSED | Flags::PEER_EOF)
        {
            let error = conn.take_send_error().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
            return self.core.doom(id, Close::Io(error));
        }
        if flags.any(Flags::FIN_DUE) && self.settle_pair(id) {
            return;
        }
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return;
        };
        if flags.any(Flags::CLOSING) && !flags.any(Flags::LINGERING) {
            if conn.out.is_none() {
                return self.finish_closing(id);
            }
            let timeout = self.core.config.close_timeout;
            if self.core.timers.find(conn.timers, Purpose::Flush).is_none() {
                self.core.set_internal(id, Purpose::Flush, timeout, 0);
            }
        }
        self.update_interest(id);
    }

    fn settle_marks(&mut self, id: ConnId) {
        self.core.check_marks(id);
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return;
        };
        let failed = conn.flags.any(Flags::OUT_FAILED);
        let above = conn.flags.any(Flags::ABOVE_HIGH);
        if above && (failed || conn.queued() <= self.core.config.output_low) {
            conn.flags.remove(Flags::ABOVE_HIGH);
            if !failed && !conn.flags.any(Flags::ENDING) {
                self.core.defer(id, Flags::DRAIN_DUE);
            }
            self.core.reading_resumed(id);
        }
        if let Some(conn) = self.core.conns.get(id.0)
            && conn.flags.any(Flags::PAIR_FULL)
            && (failed || conn.pair_drained(self.core.config.output_low))
        {
            self.core.pair_drained(id);
        }
        if let Some(conn) = self.core.conns.get(id.0) {
            self.core.publish_output(conn);
        }
    }

    /// Tells the poller what the state wants, if that has changed.
    pub(crate) fn update_interest(&mut self, id: ConnId) {
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return;
        };
        if !matches!(conn.kind, Kind::Stream | Kind::Datagram) {
            return;
        }
        let (old, new) = (conn.interest, conn.wanted_interest());
        if old != new {
            conn.interest = new;
            if let Err(error) = self.backend.set_interest(id, old, new) {
                conn.interest = old;
                self.core.doom(id, Close::Io(error));
            }
        }
    }
}

#[cold]
fn log_slow(name: &str, id: ConnId, took: u64) {
    let took = std::time::Duration::from_nanos(took);
    log::warn!("{name} kept its reactor busy for {took:?} in a callback of {id:?}");
}

/// A handler's name, which is the handler's own code too.
fn name_of(handler: &dyn EvHandler) -> &'static str {
    isolated(|| handler.name()).unwrap_or("a handler whose name panics")
}
