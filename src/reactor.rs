//! The loop: one thread, one poller, one turn after another.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::acceptor::Listening;
use crate::close::Close;
use crate::config::Config;
use crate::conn::{Flags, Kind};
use crate::core::{Core, nanos};
use crate::datagram::DatagramPart;
use crate::dispatch::Dispatcher;
use crate::handle::Handle;
use crate::handler::ConnId;
use crate::isolate::isolated;
use crate::mail::{Mail, ReactorShared};
use crate::shutdown::ShuttingDown;
use crate::source::Readiness;
use crate::sys::splice::Splicer;
use crate::sys::{Backend, DOORBELL, Event, Wait};
use crate::timer::{Fired, Purpose, TimerId};

/// One thread's event loop: its connections, timers and shared read buffer.
///
/// A `Reactor` is met in the setup closure of [`Server::run`](crate::Server::run) and in tasks
/// sent by [`Handle::broadcast`]; it never leaves its thread.
///
/// ```
/// # use reev::{Ctx, EvHandler};
/// # struct Echo;
/// # impl EvHandler for Echo {
/// #     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
/// #         cx.write(data);
/// #         Ok(data.len())
/// #     }
/// # }
/// use reev::{Config, Reactor, Server};
///
/// /// Runs on each reactor's thread, before any of them serves.
/// fn setup(reactor: &mut Reactor, listener: reev::ListenerId) -> std::io::Result<()> {
///     reactor.set_local(format!("state of reactor {}", reactor.index()));
///     reactor.accept(listener, |_peer| Echo)
/// }
///
/// let mut server = Server::new(Config { reactors: 2, pin: false, ..Config::default() })?;
/// let listener = server.listen("127.0.0.1:0")?;
/// let running = server.start(move |reactor| setup(reactor, listener))?;
/// running.handle().broadcast(|reactor| {
///     for id in reactor.conn_ids() {
///         if let Some(mut cx) = reactor.conn(id) {
///             cx.write(b"news for all\n");
///         }
///     }
/// })?;
/// # running.handle().shutdown(None).wait();
/// # running.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reactor {
    pub(crate) dispatcher: Dispatcher,
    /// What all connections read into; never seen after a callback.
    pub(crate) read_buffer: Box<[u8]>,
    /// This reactor's part of the server's listeners, by `ListenerId`.
    pub(crate) listeners: Vec<Listening>,
    /// Datagram sockets of the server, by `DatagramId`, until they are served.
    pub(crate) datagram_sockets: Vec<Option<DatagramPart>>,
    pub(crate) splicer: Splicer,
    pub(crate) inbox: VecDeque<Mail>,
    mail_left: bool,
    due: Vec<TimerId>,
    pub(crate) shutdown: Option<ShuttingDown>,
    pub(crate) running: bool,
}

impl Reactor {
    pub(crate) fn new(
        backend: Backend,
        config: Arc<Config>,
        shared: Arc<ReactorShared>,
        handle: Handle,
        listeners: Vec<Listening>,
    ) -> Reactor {
        let read_buffer = vec![0; config.read_buffer].into_boxed_slice();
        let mut core = Core::new(config, shared, handle, backend.epoch());
        core.begin_turn(backend.now()); // setup is a turn before the first
        Reactor {
            dispatcher: Dispatcher::new(backend, core),
            read_buffer,
            listeners,
            datagram_sockets: Vec::new(),
            splicer: Splicer::default(),
            inbox: VecDeque::new(),
            mail_left: false,
            due: Vec::new(),
            shutdown: None,
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
        let ready = self.poll()?;
        self.begin_turn();
        for i in 0..ready {
            self.dispatch(self.dispatcher.backend.event(i));
        }
        self.read_mail();
        self.fire_timers();
        self.run_deferred();
        self.dispatcher.begin_connects();
        self.resume_acceptors();
        self.check_shutdown();
        let cut = if self.running { 0 } else { self.stop_now() };
        self.end_turn(ready);
        if !self.running {
            self.report_shutdown(cut);
        }
        Ok(self.running)
    }

    /// Waits for events; their number. What is configured to spin looks for a while first.
    fn poll(&mut self) -> io::Result<usize> {
        let mut wait = self.wait();
        let spin = self.dispatcher.core.config.spin;
        if let Wait::AtMost(sleep) = wait
            && !spin.is_zero()
            && self.dispatcher.backend.is_native()
        {
            let backend = &mut self.dispatcher.backend;
            let end = backend.now().saturating_add(nanos(spin.min(sleep)));
            let mailbox = &self.dispatcher.core.shared.mailbox;
            while backend.now() < end {
                let ready = backend.wait(Wait::No)?;
                if ready > 0 || mailbox.has_mail() {
                    return Ok(ready);
                }
                std::thread::yield_now(); // to a peer on this core, or it could not answer
            }
            wait = self.wait(); // a timer may be due by now
        }
        let Dispatcher { core, backend, .. } = &mut self.dispatcher;
        let mailbox = &core.shared.mailbox;
        if wait == Wait::No || !mailbox.begin_sleep() {
            return backend.wait(Wait::No);
        }
        let ready = backend.wait(wait);
        mailbox.end_sleep();
        ready
    }

    fn begin_turn(&mut self) {
        let now = self.dispatcher.backend.now();
        self.dispatcher.core.begin_turn(now);
        self.dispatcher.watch_callbacks();
    }

    fn end_turn(&mut self, events: usize) {
        let core = &self.dispatcher.core;
        let took = self.dispatcher.backend.now() - core.now;
        core.shared.counters.end_turn(took, events, core.timers.len(), core.queued.get());
        if took > nanos(core.config.slow_turn) {
            log::warn!(
                "reactor {}: a turn of {events} events took {:?}",
                core.shared.index,
                Duration::from_nanos(took)
            );
        }
    }

    /// How long the poller may sleep: not at all while work is left, else until the next timer.
    fn wait(&self) -> Wait {
        let core = &self.dispatcher.core;
        let more = !core.deferred.is_empty() || !core.connects.is_empty() || core.has_work();
        if self.mail_left || more {
            return Wait::No;
        }
        let longest = nanos(core.config.poll_timeout_max);
        let shutdown = self.shutdown.as_ref().map(|shutdown| shutdown.deadline);
        let sleep = match core.timers.next_deadline().into_iter().chain(shutdown).min() {
            Some(next) => next.saturating_sub(self.dispatcher.backend.now()).min(longest),
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
            Kind::Listener => self.accept_ready(conn.listener, event.id),
            Kind::Source => self.source_ready(event),
            Kind::Datagram => self.datagrams_ready(event),
            Kind::Attempt => {
                self.dispatcher.attempt_ready(event);
                self.dispatcher.settle();
            }
            Kind::Detached | Kind::Connecting => {}
        }
    }

    fn source_ready(&mut self, event: Event) {
        let ready = Readiness::of(event);
        self.dispatcher.open_first(event.id);
        if self.is_live(event.id) {
            self.dispatcher.call(event.id, |handler, cx| handler.on_ready(cx, ready));
            self.dispatcher.settle();
        }
    }

    fn read_mail(&mut self) {
        let shared = &self.dispatcher.core.shared;
        self.mail_left = false;
        if shared.mailbox.has_mail() {
            let mut inbox = std::mem::take(&mut self.inbox);
            self.mail_left =
                shared.mailbox.take(self.dispatcher.core.config.mail_per_turn, &mut inbox);
            shared.counters.mail.add(inbox.len() as u64);
            for mail in inbox.drain(..) {
                self.open_mail(mail);
            }
            self.inbox = inbox;
        }
        // What many messages wrote to one connection leaves together; and what setup asked for.
        self.dispatcher.settle_others();
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
                if self.is_live(id) && self.may_call(id, Flags::ENDING) {
                    self.dispatcher.call(id, |handler, cx| handler.on_notify(cx, value));
                    self.dispatcher.settle();
                }
            }
            Mail::Close(id) => core.close(id),
            Mail::Abort(id) => core.doom(id, Close::Aborted),
            Mail::Task(task) => {
                if let Err(message) = isolated(|| task(self)) {
                    log::error!("reactor {}: a task panicked: {message}", self.index());
                }
                self.dispatcher.settle();
            }
            Mail::Accepted(listener, socket, peer) => self.accepted(listener, socket, peer),
            Mail::Shutdown(within, report) => self.begin_shutdown(within, report),
            Mail::Resolved(id, tries, found) => self.dispatcher.resolved(id, tries, found),
            Mail::Stop => self.running = false,
        }
    }

    fn fire_timers(&mut self) {
        let now = self.dispatcher.core.now;
        if self.dispatcher.core.timers.next_deadline().is_none_or(|next| next > now) {
            return;
        }
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
                if self.is_live(id) {
                    self.dispatcher.call(id, |handler, cx| handler.on_timeout(cx, timer));
                }
            }
            Purpose::Idle => self.idle_fired(timer, fired),
            Purpose::Linger => dispatcher.release(id, false),
            Purpose::Flush => dispatcher.core.doom(id, Close::CloseTimeout),
            Purpose::Accept => self.accept_again(id),
            Purpose::Stagger => dispatcher.next_attempt(id),
            Purpose::ConnectTimeout => dispatcher.connect_timed_out(id),
            Purpose::Retry => dispatcher.try_connect(id),
            Purpose::Leave => self.finish_leaving(id),
        }
        self.dispatcher.settle();
    }

    /// The idle timer's turn: if there was traffic since it was armed, it moves on by as much.
    fn idle_fired(&mut self, timer: TimerId, fired: Fired) {
        let core = &mut self.dispatcher.core;
        let Some(conn) = core.conns.get(fired.owner.0) else {
            return;
        };
        let idle = u64::from(core.now_ms.wrapping_sub(conn.last_active)) * 1_000_000;
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
        if self.dispatcher.core.deferred.is_empty() {
            return;
        }
        for id in std::mem::take(&mut self.dispatcher.core.deferred) {
            let Some(conn) = self.dispatcher.core.conns.get_mut(id.0) else {
                continue;
            };
            conn.flags.remove(Flags::DEFERRED);
            let drained = conn.flags.take(Flags::DRAIN_DUE);
            let offer = conn.flags.take(Flags::OFFER_DUE);
            let errors = conn.flags.take(Flags::ERRORS_DUE);
            let eof = conn.flags.take(Flags::EOF_DUE);
            if conn.flags.take(Flags::OPEN_DUE) && !conn.flags.any(Flags::ENDING) {
                self.dispatcher.open(id);
            }
            if errors {
                self.dispatcher.tell_errors(id);
            }
            if drained && self.may_call(id, Flags::ABOVE_HIGH | Flags::ENDING) {
                self.dispatcher.call(id, |handler, cx| handler.on_drain(cx));
                self.dispatcher.settle();
            }
            if offer && self.may_offer(id) {
                self.offer_tail(id);
            }
            if eof && self.may_call(id, Flags::ENDING) {
                self.peer_finished(id);
            }
        }
    }

    /// Whether `id` has had its `on_open` and may still be called.
    fn is_live(&self, id: ConnId) -> bool {
        let conn = self.dispatcher.core.conns.get(id.0);
        conn.is_some_and(|conn| conn.flags.any(Flags::OPENED) && !conn.flags.any(Flags::DOOMED))
    }

    fn may_offer(&self, id: ConnId) -> bool {
        self.dispatcher.core.conns.get(id.0).is_some_and(|conn| !conn.reading_rests())
    }

    fn may_call(&self, id: ConnId, unless: Flags) -> bool {
        let conn = self.dispatcher.core.conns.get(id.0);
        conn.is_some_and(|conn| !conn.flags.any(unless))
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("index", &self.index()).finish_non_exhaustive()
    }
}
