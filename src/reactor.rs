//! The loop: one thread, one poller, one turn after another.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::acceptor::{Acceptor, ListenerId, Listening};
use crate::addr::Addr;
use crate::buf::Tail;
use crate::close::Close;
use crate::config::{Config, TAIL_COPY_MAX};
use crate::conn::Flags;
use crate::conn::Kind;
use crate::core::{Core, nanos};
use crate::ctx::Ctx;
use crate::dispatch::Dispatcher;
use crate::handler::{ConnId, EvHandler};
use crate::mail::{Mail, ReactorShared};
use crate::server::Handle;
use crate::sys::{Backend, DOORBELL, Event, Wait};
use crate::timer::{Fired, Purpose, TimerId};

/// One thread's event loop: its connections, timers and shared read buffer.
///
/// A `Reactor` is met in the setup closure of [`Server::run`](crate::Server::run) and in tasks
/// sent by [`Handle::broadcast`]; it never leaves its thread.
pub struct Reactor {
    pub(crate) dispatcher: Dispatcher,
    /// What all connections read into; never seen after a callback.
    read_buffer: Box<[u8]>,
    pub(crate) acceptors: Vec<Acceptor>,
    /// The server's listeners, until an acceptor takes them.
    pub(crate) listeners: Vec<Option<Listening>>,
    inbox: VecDeque<Mail>,
    mail_left: bool,
    due: Vec<TimerId>,
    running: bool,
}

impl Reactor {
    pub(crate) fn new(
        backend: Backend,
        config: Arc<Config>,
        shared: Arc<ReactorShared>,
        handle: Handle,
        listeners: Vec<Option<Listening>>,
    ) -> Reactor {
        let read_buffer = vec![0; config.read_buffer].into_boxed_slice();
        let core = Core::new(config, shared, handle, backend.epoch());
        Reactor {
            dispatcher: Dispatcher::new(backend, core),
            read_buffer,
            acceptors: Vec::new(),
            listeners,
            inbox: VecDeque::new(),
            mail_left: false,
            due: Vec::new(),
            running: true,
        }
    }

    /// Turns until the reactor is told to stop.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while self.turn()? {}
        Ok(())
    }

    /// One turn: wait, events, mail, timers, what was put off. False when it was the last.
    pub(crate) fn turn(&mut self) -> io::Result<bool> {
        let wait = self.wait();
        let ready = self.dispatcher.backend.wait(wait)?;
        self.dispatcher.core.now = self.dispatcher.backend.now();
        for i in 0..ready {
            self.dispatch(self.dispatcher.backend.event(i));
        }
        self.read_mail();
        self.fire_timers();
        self.run_deferred();
        self.resume_acceptors();
        let counters = &self.dispatcher.core.shared.counters;
        counters.turns.add(1);
        counters.events.add(ready as u64);
        if !self.running {
            self.dispatcher.core.shared.mailbox.close();
            self.inbox.clear();
            self.dispatcher.stop_all();
        }
        let counters = &self.dispatcher.core.shared.counters;
        counters.timers.set(self.dispatcher.core.timers.len() as u64);
        Ok(self.running)
    }

    /// How long the poller may sleep: not at all while work is left, else until the next timer.
    fn wait(&self) -> Wait {
        let core = &self.dispatcher.core;
        if self.mail_left || !core.deferred.is_empty() {
            return Wait::No;
        }
        let longest = nanos(core.config.poll_timeout_max);
        let sleep = match core.timers.next_deadline() {
            // Timers are due by a clock reading, so ask for one before computing a sleep.
            Some(deadline) => deadline.saturating_sub(self.dispatcher.backend.now()).min(longest),
            None => longest,
        };
        match sleep {
            0 => Wait::No,
            sleep => Wait::AtMost(Duration::from_nanos(sleep)),
        }
    }

    #[inline]
    fn dispatch(&mut self, event: Event) {
        if event.id == DOORBELL {
            return; // the mail is read in every turn
        }
        let Some(conn) = self.dispatcher.core.conns.get(event.id.0) else {
            return; // an event of a connection that ended in this turn
        };
        match conn.kind {
            Kind::Stream => self.stream_ready(event),
            Kind::Listener => self.accept_ready(conn.acceptor, event.id),
            Kind::Detached => {}
        }
    }

    fn stream_ready(&mut self, event: Event) {
        let id = event.id;
        let Some(conn) = self.dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        if conn.flags.any(Flags::LINGERING) {
            return self.discard(id);
        }
        if conn.out.is_some() && (event.writable || event.hup || event.error) {
            self.dispatcher.core.touch(id);
            self.dispatcher.settle();
        }
        let Some(conn) = self.dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        if !conn.flags.any(Flags::READ_RESTS) {
            if event.readable || event.fin || event.hup || event.error {
                self.read(id);
            }
        } else if event.fin || event.hup || event.error {
            self.ended_while_resting(event);
        }
    }

    /// One `recv`, into the shared buffer behind what was left untaken, and `on_read`.
    fn read(&mut self, id: ConnId) {
        let dispatcher = &mut self.dispatcher;
        let Some(conn) = dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        let mut tail = conn.take_tail();
        let kept = tail.len();
        // Half of the buffer stays free: a read of nothing would look like the peer's FIN.
        let copied = kept <= TAIL_COPY_MAX.min(self.read_buffer.len() / 2);
        let received = if copied {
            self.read_buffer[..kept].copy_from_slice(tail.bytes());
            dispatcher.backend.recv(id.index(), &mut self.read_buffer[kept..])
        } else {
            dispatcher.backend.recv_spare(id.index(), tail.reserve(kept))
        };
        let received = match received {
            Ok(0) => {
                conn.put_tail(tail);
                return self.peer_finished(id);
            }
            Ok(n) => n,
            Err(error) => {
                conn.put_tail(tail);
                if error.kind() != io::ErrorKind::WouldBlock {
                    dispatcher.core.doom(id, Close::Io(error));
                    dispatcher.settle();
                }
                return;
            }
        };
        if !conn.flags.any(Flags::IDLE_WRITES) {
            conn.last_active = (dispatcher.core.now / 1_000_000) as u32;
        }
        dispatcher.core.shared.counters.bytes_in.add(received as u64);
        let offered = kept + received;
        let data = if copied { &mut self.read_buffer[..offered] } else { tail.bytes_mut() };
        let Some(taken) = dispatcher.call(id, |handler, cx| handler.on_read(cx, data)) else {
            return dispatcher.settle();
        };
        if taken == offered && kept == 0 {
            return dispatcher.settle();
        }
        if taken <= offered && copied {
            tail.replace(&self.read_buffer[taken..offered]);
        } else if taken <= offered {
            tail.consume(taken);
        }
        keep_tail(&mut dispatcher.core, id, tail, taken, offered);
        dispatcher.settle();
    }

    /// Offers what was left untaken once more, nothing new having arrived.
    fn offer_tail(&mut self, id: ConnId) {
        let dispatcher = &mut self.dispatcher;
        let Some(conn) = dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        let mut tail = conn.take_tail();
        if tail.is_empty() {
            return conn.put_tail(tail);
        }
        let offered = tail.len();
        let data = tail.bytes_mut();
        let taken = dispatcher.call(id, |handler, cx| handler.on_read(cx, data));
        if let Some(taken) = taken {
            tail.consume(taken.min(offered));
            keep_tail(&mut dispatcher.core, id, tail, taken, offered);
        }
        dispatcher.settle();
    }

    fn peer_finished(&mut self, id: ConnId) {
        let dispatcher = &mut self.dispatcher;
        if let Some(conn) = dispatcher.core.conns.get_mut(id.0) {
            conn.flags.insert(Flags::PEER_EOF);
            dispatcher.call(id, |handler, cx| handler.on_eof(cx));
            if let Some(conn) = dispatcher.core.conns.get_mut(id.0) {
                conn.put_tail(Tail::default());
            }
        }
        dispatcher.settle();
    }

    /// The poller tells of an end while nothing is read: it is noticed, without a spin.
    fn ended_while_resting(&mut self, event: Event) {
        let dispatcher = &mut self.dispatcher;
        let id = event.id;
        if event.error
            && let Some(error) = dispatcher.backend.take_error(id.index())
        {
            dispatcher.core.doom(id, Close::Io(error));
            return dispatcher.settle();
        }
        let Some(conn) = dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        if (event.hup || event.error) && conn.flags.any(Flags::PEER_EOF) {
            // Nobody is there to read an answer.
            dispatcher.core.doom(id, Close::Io(io::ErrorKind::BrokenPipe.into()));
            return dispatcher.settle();
        }
        if !conn.flags.any(Flags::ENDING)
            && conn.tail_len() == 0
            && dispatcher.backend.at_eof(id.index())
        {
            return self.peer_finished(id);
        }
        conn.flags.insert(Flags::SAW_FIN);
        conn.flags.set(Flags::SAW_HUP, event.hup || event.error);
        dispatcher.update_interest(id);
        dispatcher.settle();
    }

    /// Input of a connection that lingers: thrown away until the peer's FIN.
    fn discard(&mut self, id: ConnId) {
        let limit = self.dispatcher.core.config.linger_bytes_max;
        let received = self.dispatcher.backend.recv(id.index(), &mut self.read_buffer);
        let Some(conn) = self.dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        match received {
            Ok(n) if n > 0 => {
                let discarded = &mut conn.extra_mut().discarded;
                *discarded += n;
                if *discarded > limit {
                    self.dispatcher.release(id, false);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => self.dispatcher.release(id, false),
        }
    }

    fn read_mail(&mut self) {
        let most = self.dispatcher.core.config.mail_per_turn;
        let mut inbox = std::mem::take(&mut self.inbox);
        self.mail_left = self.dispatcher.core.shared.mailbox.take(most, &mut inbox);
        self.dispatcher.core.shared.counters.mail.add(inbox.len() as u64);
        for mail in inbox.drain(..) {
            self.open_mail(mail);
        }
        self.inbox = inbox;
        // What many messages wrote to one connection leaves together.
        self.dispatcher.settle();
    }

    fn open_mail(&mut self, mail: Mail) {
        let Dispatcher { core, backend, .. } = &mut self.dispatcher;
        match mail {
            Mail::Write(remote, bytes) => {
                remote.mailed.fetch_sub(bytes.len(), crate::sync::Ordering::Relaxed);
                core.write_owned(backend, remote.id, bytes);
            }
            Mail::Notify(id, value) => {
                self.dispatcher.open_first(id);
                let core = &self.dispatcher.core;
                if core.conns.get(id.0).is_some_and(|conn| !conn.flags.any(Flags::ENDING)) {
                    self.dispatcher.call(id, |handler, cx| handler.on_notify(cx, value));
                    self.dispatcher.settle();
                }
            }
            Mail::Close(id) => core.close(id),
            Mail::Abort(id) => core.doom(id, Close::Aborted),
            Mail::Task(task) => {
                task(self);
                self.dispatcher.settle();
            }
            Mail::Stop => self.running = false,
        }
    }

    fn fire_timers(&mut self) {
        let now = self.dispatcher.core.now;
        let mut due = std::mem::take(&mut self.due);
        self.dispatcher.core.timers.collect_due(now, &mut due);
        for timer in due.drain(..) {
            let Core { timers, conns, .. } = &mut self.dispatcher.core;
            let fired = timers
                .fire(timer, now, |owner| conns.get_mut(owner.0).map(|conn| &mut conn.timers));
            if let Some(fired) = fired {
                self.fire(timer, fired);
            }
        }
        self.due = due;
    }

    fn fire(&mut self, timer: TimerId, fired: Fired) {
        let dispatcher = &mut self.dispatcher;
        let id = fired.owner;
        match fired.purpose {
            Purpose::User => {
                dispatcher.open_first(id);
                dispatcher.call(id, |handler, cx| handler.on_timeout(cx, timer));
            }
            Purpose::Idle => self.idle_fired(timer, fired),
            Purpose::Linger => dispatcher.release(id, false),
            Purpose::Flush => dispatcher.core.doom(id, Close::CloseTimeout),
            Purpose::Accept => self.accept_again(id),
        }
        self.dispatcher.settle();
    }

    /// The idle timer's turn: if there was traffic since it was armed, it moves on by as much.
    fn idle_fired(&mut self, timer: TimerId, fired: Fired) {
        let core = &mut self.dispatcher.core;
        let Some(conn) = core.conns.get(fired.owner.0) else {
            return;
        };
        let idle = u64::from(core.now_ms().wrapping_sub(conn.last_active)) * 1_000_000;
        // Both times were cut to milliseconds, so allow one more: never early.
        let allowed = fired.period + 1_000_000;
        if idle < allowed {
            core.timers.reset(timer, core.now + (allowed - idle));
        } else {
            core.cancel_timer(timer);
            core.doom(fired.owner, Close::IdleTimeout);
        }
    }

    /// Callbacks that were due but not inside another: first calls, drained output, input left
    /// untaken.
    fn run_deferred(&mut self) {
        for id in std::mem::take(&mut self.dispatcher.core.deferred) {
            let Some(conn) = self.dispatcher.core.conns.get_mut(id.0) else {
                continue;
            };
            conn.flags.remove(Flags::DEFERRED);
            let drained = conn.flags.take(Flags::DRAIN_DUE);
            let offer = conn.flags.take(Flags::OFFER_DUE);
            if !conn.flags.any(Flags::OPENED | Flags::LINGERING) {
                self.dispatcher.open(id);
            }
            if drained && self.may_call(id, Flags::ENDING) {
                self.dispatcher.call(id, |handler, cx| handler.on_drain(cx));
                self.dispatcher.settle();
            }
            if offer && self.may_call(id, Flags::PAUSED | Flags::ABOVE_HIGH | Flags::ENDING) {
                self.offer_tail(id);
            }
        }
    }

    fn may_call(&self, id: ConnId, unless: Flags) -> bool {
        let conn = self.dispatcher.core.conns.get(id.0);
        conn.is_some_and(|conn| !conn.flags.any(unless))
    }
}

/// Keeps the tail that `on_read` left when it took `taken` of the bytes `offered`.
fn keep_tail(core: &mut Core, id: ConnId, tail: Tail, taken: usize, offered: usize) {
    let over = tail.len() > core.config.input_max;
    let Some(conn) = core.conns.get_mut(id.0) else {
        return;
    };
    if taken > offered {
        let message = format!("on_read claims {taken} of {offered} bytes");
        core.doom(id, Close::Error(io::Error::other(message)));
    } else if over {
        core.doom(id, Close::InputLimit);
    } else if !conn.flags.any(Flags::ENDING) {
        conn.put_tail(tail);
    }
}

/// What setup and tasks do with a reactor.
impl Reactor {
    /// This reactor's index, from 0.
    pub fn index(&self) -> usize {
        self.dispatcher.core.shared.index
    }

    /// The time of this turn: monotonic.
    pub fn now(&self) -> Instant {
        self.dispatcher.core.instant()
    }

    /// The server, for any thread.
    pub fn handle(&self) -> Handle {
        self.dispatcher.core.handle.clone()
    }

    /// Accepts the connections of `listener` here, with a handler that `factory` makes for each
    /// from the peer's address.
    ///
    /// # Errors
    /// `NotFound` if `listener` is of another server, `AlreadyExists` if this reactor accepts
    /// from it already, or what the poller says.
    pub fn accept<H: EvHandler>(
        &mut self,
        listener: ListenerId,
        mut factory: impl FnMut(&Addr) -> H + 'static,
    ) -> io::Result<()> {
        self.add_acceptor(listener, Box::new(move |peer| Box::new(factory(peer))))
    }

    /// Adds a handler without a socket: a timer user, a cron job, the consumer of a queue. Its
    /// `on_open` comes in the next turn; it lives until it calls `close`.
    pub fn add(&mut self, handler: impl EvHandler) -> ConnId {
        self.dispatcher.core.add(Box::new(handler))
    }

    /// A connection of this reactor; `None` if it is gone or ending. What is done to it takes
    /// effect when the present setup or task is over.
    pub fn conn(&mut self, id: ConnId) -> Option<Ctx<'_>> {
        let dispatcher = &mut self.dispatcher;
        let conn = dispatcher.core.conns.get(id.0)?;
        if conn.flags.any(Flags::ENDING) || conn.kind == Kind::Listener {
            return None;
        }
        Some(Ctx { core: &mut dispatcher.core, net: &mut dispatcher.backend, id })
    }

    /// The ids of all connections and other handlers that are there now.
    pub fn conn_ids(&self) -> Vec<ConnId> {
        let conns = &self.dispatcher.core.conns;
        let keys = (0..conns.slots()).filter_map(|index| conns.key_at(index));
        let live = keys.filter(|&key| {
            conns
                .get(key)
                .is_some_and(|conn| conn.kind != Kind::Listener && !conn.flags.any(Flags::ENDING))
        });
        live.map(ConnId).collect()
    }

    /// This reactor's one `T`, made by `T::default()` when it is first asked for; handlers find
    /// it with [`Ctx::local`].
    pub fn local<T: Default + 'static>(&mut self) -> &mut T {
        self.dispatcher.core.local()
    }

    /// Sets this reactor's one `T`.
    pub fn set_local<T: 'static>(&mut self, value: T) {
        self.dispatcher.core.set_local(value);
    }

    /// Ends this reactor after the present turn; every connection gets `on_close` with
    /// [`Close::Stopped`].
    pub fn stop(&mut self) {
        self.running = false;
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("index", &self.index()).finish_non_exhaustive()
    }
}
