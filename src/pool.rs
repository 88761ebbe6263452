//! A pool of connections to one or several backends, of one reactor.
//!
//! Every connection of a pool has a `Member` for its handler: an empty one while it is idle, one
//! around the user's handler while it is lent. An idle connection stays registered with the
//! poller, so one that dies is evicted in the turn in which that is known.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::conn::Flags;
use crate::connector::{ConnectOptions, Target};
use crate::core::Core;
use crate::ctx::Ctx;
use crate::endpoint::Endpoint;
use crate::handle::Handle;
use crate::handler::{ConnId, EvHandler};
use crate::mailbox::SendError;
use crate::reactor::Reactor;
use crate::timer::TimerId;

mod member;

use member::{Keeper, Member};

/// With less, backends that refuse would be tried again and again without a pause.
const REST_MIN: Duration = Duration::from_millis(1);
/// Longer times are as good as this one, which can be added to any time of the clock's.
const TIME_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The bounds of a [`Pool`].
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// Connections at most: idle, lent and under way. Default 16.
    pub max: usize,
    /// Idle connections that are kept ready. At most `max`, default 0.
    pub min_idle: usize,
    /// A connection older than this is not lent again, and closed when it is idle. Default none.
    pub max_age: Option<Duration>,
    /// Handlers that may wait for a connection; more are refused. Default 1,024.
    pub waiting_max: usize,
    /// How long a handler waits at most. Default 5 s.
    pub wait_max: Duration,
    /// How long a backend that could not be reached is passed over if there are others, and
    /// until idle connections to it are tried again. At least 1 ms, default 1 s.
    pub rest: Duration,
    /// The options of the connections.
    pub connect: ConnectOptions,
}

impl Default for PoolOptions {
    fn default() -> PoolOptions {
        PoolOptions {
            max: 16,
            min_idle: 0,
            max_age: None,
            waiting_max: 1024,
            wait_max: Duration::from_secs(5),
            rest: Duration::from_secs(1),
            connect: ConnectOptions::default(),
        }
    }
}

/// What a [`Pool`] holds now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct PoolStats {
    /// Connections ready to be lent.
    pub idle: usize,
    /// Connections lent.
    pub lent: usize,
    /// Connections under way.
    pub connecting: usize,
    /// Handlers that wait.
    pub waiting: usize,
}

struct Backend {
    endpoint: Endpoint,
    open: usize,
    rests_until: Option<Instant>,
}

struct Connection {
    backend: usize,
    /// When it was made; `None` while it is under way.
    born: Option<Instant>,
    /// The pool itself is putting another handler in place.
    moving: bool,
}

struct Waiting {
    handler: Box<dyn EvHandler>,
    until: Instant,
}

struct State {
    options: PoolOptions,
    backends: Vec<Backend>,
    connections: HashMap<ConnId, Connection>,
    /// The one used last is lent first, so that those not needed grow old.
    idle: Vec<ConnId>,
    connecting: usize,
    waiting: VecDeque<Waiting>,
    /// `NONE` when it has ended: nothing is lent or connected any more.
    keeper: ConnId,
    /// The keeper's only one, for what `due` says.
    timer: TimerId,
}

/// Connections to one or several backends, kept and lent; of one reactor, and cheap to clone.
/// Made by [`Reactor::pool`].
///
/// ```no_run
/// use std::io;
/// use reev::{Ctx, EvHandler, Pool, PoolOptions};
///
/// /// Passes each line to a backend, on a connection that it borrows.
/// struct Front {
///     pool: Pool,
/// }
///
/// /// Asks on a borrowed connection, and gives it back when the answer is there.
/// struct Ask {
///     pool: Pool,
///     question: Vec<u8>,
/// }
///
/// impl EvHandler for Front {
///     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
///         let ask = Ask { pool: self.pool.clone(), question: data.to_vec() };
///         self.pool.acquire(cx, ask);
///         Ok(data.len())
///     }
/// }
///
/// impl EvHandler for Ask {
///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
///         cx.write(&self.question);
///         Ok(())
///     }
///
///     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
///         if data.ends_with(b"\n") {
///             self.pool.release(cx);
///             return Ok(data.len());
///         }
///         Ok(0)
///     }
/// }
///
/// let mut server = reev::Server::new(reev::Config::default())?;
/// let listener = server.listen("127.0.0.1:7000")?;
/// server.run(move |reactor| {
///     let pool = reactor.pool(&["127.0.0.1:6379"], PoolOptions { max: 8, ..PoolOptions::default() })?;
///     reactor.accept(listener, move |_peer| Front { pool: pool.clone() })
/// })?;
/// # Ok::<(), io::Error>(())
/// ```
#[derive(Clone)]
pub struct Pool(Rc<RefCell<State>>);

/// The pools of a reactor, for other threads.
#[derive(Default)]
struct Pools(Vec<Pool>);

impl Pool {
    /// Gives `handler` a connection: its `on_open` comes soon, with an idle connection or a new
    /// one to the backend with the fewest, or when one is given back. If that cannot be, its
    /// `on_connect_fail` is called once: `WouldBlock` if too many wait, `TimedOut` after
    /// `PoolOptions::wait_max`, `ConnectionAborted` when the reactor shuts down or stops, or why
    /// no backend could be reached.
    pub fn acquire(&self, cx: &mut Ctx<'_>, handler: impl EvHandler) {
        self.acquire_on(cx.core, Box::new(handler));
    }

    /// Gives the connection of this callback back, from a handler that it was lent to; the
    /// handler gets `on_close` with [`Close::Replaced`](crate::Close::Replaced). A connection
    /// that is too old, has output pending, or bytes that were not taken, is closed instead. Its
    /// timers end. Harmless when repeated.
    ///
    /// A lent connection that ends, or whose handler is replaced or detached otherwise, leaves
    /// the pool by itself.
    pub fn release(&self, cx: &mut Ctx<'_>) {
        let now = cx.now();
        let id = cx.id;
        let state = &mut *self.0.borrow_mut();
        let max_age = state.options.max_age;
        let Some(connection) = state.connections.get_mut(&id) else {
            return cx.close();
        };
        if connection.moving || state.idle.contains(&id) {
            return; // it was given back already
        }
        let aged = connection.too_old(max_age, now);
        let shut = cx
            .core
            .conns
            .get(id.0)
            .is_none_or(|conn| conn.flags.any(Flags::OUTPUT_SHUT | Flags::PEER_EOF));
        if aged || shut || cx.pending_output() > 0 {
            return cx.close();
        }
        connection.moving = true;
        if let Some(conn) = cx.core.conns.get_mut(id.0) {
            cx.core.timers.cancel_all(&mut conn.timers);
        }
        cx.resume_reads();
        cx.core.replace(id, Box::new(self.member(None)));
    }

    /// What it holds now.
    pub fn stats(&self) -> PoolStats {
        let state = self.0.borrow();
        PoolStats {
            idle: state.idle.len(),
            lent: state.connections.len() - state.idle.len() - state.connecting,
            connecting: state.connecting,
            waiting: state.waiting.len(),
        }
    }

    fn member(&self, inner: Option<Box<dyn EvHandler>>) -> Member {
        Member { pool: self.clone(), inner, age: TimerId::NONE }
    }

    fn acquire_on(&self, core: &mut Core, handler: Box<dyn EvHandler>) {
        let mut state = self.0.borrow_mut();
        if state.keeper == ConnId::NONE {
            drop(state);
            return refuse(core, handler, shutting_down());
        }
        while let Some(id) = state.idle.pop() {
            if core.conns.get(id.0).is_some_and(|conn| !conn.flags.any(Flags::ENDING)) {
                drop(state);
                return self.lend(core, id, handler);
            }
        }
        if state.waiting.len() >= state.options.waiting_max {
            drop(state);
            let message = "too many wait for a connection of the pool";
            return refuse(core, handler, io::Error::new(io::ErrorKind::WouldBlock, message));
        }
        let until = core.instant() + state.options.wait_max;
        state.waiting.push_back(Waiting { handler, until });
        drop(state);
        self.top_up(core);
    }

    fn lend(&self, core: &mut Core, id: ConnId, handler: Box<dyn EvHandler>) {
        if let Some(connection) = self.0.borrow_mut().connections.get_mut(&id) {
            connection.moving = true;
        }
        core.replace(id, Box::new(self.member(Some(handler))));
    }

    /// Connects as often as is wanted, and sets the keeper's timer for what comes next.
    fn top_up(&self, core: &mut Core) {
        let state = &mut *self.0.borrow_mut();
        let now = core.instant();
        while let Some(index) = state.wanted(now) {
            let target = state.backends[index].endpoint.clone().into();
            let id =
                core.connect(target, state.options.connect.clone(), Box::new(self.member(None)));
            state.backends[index].open += 1;
            state.connecting += 1;
            state.connections.insert(id, Connection { backend: index, born: None, moving: false });
        }
        if let Some(due) = state.due(now) {
            let after = due.saturating_duration_since(now);
            if !core.reset_timer(state.timer, after) {
                state.timer = core.set_timer(state.keeper, after, Duration::ZERO);
            }
        }
    }

    /// A connection is there and idle: for the first that waits, or to be kept.
    fn ready(&self, cx: &mut Ctx<'_>) -> Option<Duration> {
        let (now, id) = (cx.now(), cx.id);
        let mut state = self.0.borrow_mut();
        let max_age = state.options.max_age;
        let connection = state.connections.get_mut(&id)?;
        if connection.born.is_none() {
            connection.born = Some(now);
            let backend = connection.backend;
            state.connecting -= 1;
            state.backends[backend].rests_until = None;
        } else if connection.too_old(max_age, now) || cx.unread() > 0 {
            drop(state);
            cx.close();
            return None;
        }
        if let Some(waiting) = state.waiting.pop_front() {
            drop(state);
            self.lend(cx.core, id, waiting.handler);
            return None;
        }
        state.idle.push(id);
        let born = state.connections.get(&id)?.born?;
        max_age.map(|age| (born + age).saturating_duration_since(now))
    }

    /// A connection is not idle any more.
    fn evict(&self, id: ConnId) {
        self.0.borrow_mut().idle.retain(|&other| other != id);
    }

    /// A connection has ended, or left the pool.
    fn ended(&self, core: &mut Core, id: ConnId) {
        self.evict(id);
        let mut state = self.0.borrow_mut();
        if let Some(connection) = state.connections.remove(&id) {
            state.backends[connection.backend].open -= 1;
            state.connecting -= usize::from(connection.born.is_none());
        }
        drop(state);
        self.top_up(core);
    }

    /// A backend could not be reached: others are tried, or the first that waits is told.
    fn failed(&self, core: &mut Core, id: ConnId, error: io::Error) {
        let now = core.instant();
        let mut state = self.0.borrow_mut();
        let rest = state.options.rest;
        if let Some(connection) = state.connections.get(&id) {
            let backend = connection.backend;
            state.backends[backend].rests_until = Some(now + rest);
        }
        // Not this one, which rests from now on.
        let others = state.backends.iter().any(|backend| !backend.rests(now));
        let told = if others { None } else { state.waiting.pop_front() };
        drop(state);
        if let Some(waiting) = told {
            refuse(core, waiting.handler, error);
        }
        self.ended(core, id);
    }

    /// The keeper's timer: those that have waited too long are told, and what rested is tried.
    fn keep(&self, core: &mut Core) {
        let now = core.instant();
        loop {
            let mut state = self.0.borrow_mut();
            match state.waiting.front() {
                Some(waiting) if waiting.until <= now => {}
                _ => break,
            }
            let late = state.waiting.pop_front();
            drop(state);
            if let Some(waiting) = late {
                let message = "no connection of the pool was free in time";
                let error = io::Error::new(io::ErrorKind::TimedOut, message);
                refuse(core, waiting.handler, error);
            }
        }
        self.top_up(core);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.stats()).finish()
    }
}

impl Backend {
    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }
}

impl Connection {
    fn too_old(&self, max_age: Option<Duration>, now: Instant) -> bool {
        matches!((max_age, self.born), (Some(age), Some(born)) if now >= born + age)
    }
}

impl State {
    /// The backend to connect to, if those that wait or the idle ones to be kept need one more.
    fn wanted(&self, now: Instant) -> Option<usize> {
        let missing = self.options.min_idle.saturating_sub(self.idle.len());
        let full = self.connections.len() >= self.options.max;
        let enough = self.connecting >= self.waiting.len().max(missing);
        if self.keeper == ConnId::NONE || full || enough {
            return None;
        }
        self.choose(now, !self.waiting.is_empty())
    }

    /// When somebody will have waited too long, or a rest ends that idle connections wait for.
    fn due(&self, now: Instant) -> Option<Instant> {
        let rests = self.backends.iter().filter_map(|backend| backend.rests_until);
        let rests = rests.filter(|&until| self.options.min_idle > 0 && until > now);
        rests.chain(self.waiting.front().map(|waiting| waiting.until)).min()
    }

    /// The backend with the fewest connections; one that rests only if `needed` and all do.
    fn choose(&self, now: Instant, needed: bool) -> Option<usize> {
        let of = |index: usize| &self.backends[index];
        (0..self.backends.len())
            .filter(|&index| needed || !of(index).rests(now))
            .min_by_key(|&index| (of(index).rests(now), of(index).open))
    }
}

fn shutting_down() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the reactor is shutting down")
}

/// Has `handler` told by `on_connect_fail`, as if it had tried to connect.
fn refuse(core: &mut Core, handler: Box<dyn EvHandler>, error: io::Error) {
    core.connect(Target::failed(error), ConnectOptions::default(), handler);
}

/// A [`Pool`] as other threads see it.
#[derive(Clone, Debug)]
pub struct PoolRemote {
    handle: Handle,
    reactor: usize,
    index: usize,
}

impl PoolRemote {
    /// [`Pool::acquire`] from any thread; `factory` makes the handler on the pool's.
    ///
    /// # Errors
    /// As of [`Handle::run_on`]; the factory is not called then.
    pub fn acquire<H: EvHandler>(
        &self,
        factory: impl FnOnce() -> H + Send + 'static,
    ) -> Result<(), SendError> {
        let index = self.index;
        self.handle.run_on(self.reactor, move |reactor| {
            let core = &mut reactor.dispatcher.core;
            if let Some(pool) = core.local::<Pools>().0.get(index).cloned() {
                pool.acquire_on(core, Box::new(factory()));
            }
        })
    }
}

impl Reactor {
    /// Makes a pool of connections to `backends`, address strings as of [`Endpoint`]. It lives as
    /// long as the reactor.
    ///
    /// # Errors
    /// `InvalidInput` for an address that does not parse, for no backends, or for bounds that
    /// make no sense.
    pub fn pool(&mut self, backends: &[&str], mut options: PoolOptions) -> io::Result<Pool> {
        if backends.is_empty() || options.max == 0 || options.min_idle > options.max {
            let message = "pool: it needs a backend, and min_idle at most max, which is at least 1";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        if options.rest < REST_MIN {
            let message =
                format!("pool: a rest of {:?}; it is at least {REST_MIN:?}", options.rest);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        options.wait_max = options.wait_max.min(TIME_MAX);
        options.rest = options.rest.min(TIME_MAX);
        options.max_age = options.max_age.map(|age| age.min(TIME_MAX));
        let mut parsed = Vec::new();
        for text in backends {
            let endpoint = Endpoint::parse(text)?.only(false)?;
            parsed.push(Backend { endpoint, open: 0, rests_until: None });
        }
        let pool = Pool(Rc::new(RefCell::new(State {
            options,
            backends: parsed,
            connections: HashMap::new(),
            idle: Vec::new(),
            connecting: 0,
            waiting: VecDeque::new(),
            keeper: ConnId::NONE,
            timer: TimerId::NONE,
        })));
        let core = &mut self.dispatcher.core;
        let keeper = core.add(Box::new(Keeper(pool.clone())));
        pool.0.borrow_mut().keeper = keeper;
        core.local::<Pools>().0.push(pool.clone());
        Ok(pool)
    }

    /// `pool` for other threads, if it is one of this reactor.
    ///
    /// ```no_run
    /// # use reev::{Ctx, EvHandler, PoolOptions, Reactor};
    /// # struct Ask;
    /// # impl EvHandler for Ask {}
    /// # fn setup(reactor: &mut Reactor) -> std::io::Result<()> {
    /// let pool = reactor.pool(&["127.0.0.1:6379"], PoolOptions::default())?;
    /// let remote = reactor.pool_remote(&pool).expect("a pool of this reactor");
    /// std::thread::spawn(move || {
    ///     if let Err(error) = remote.acquire(|| Ask) {
    ///         log::warn!("nobody is asked: {error}");
    ///     }
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn pool_remote(&mut self, pool: &Pool) -> Option<PoolRemote> {
        let pools = &self.dispatcher.core.local::<Pools>().0;
        let index = pools.iter().position(|other| Rc::ptr_eq(&other.0, &pool.0))?;
        Some(PoolRemote { handle: self.handle(), reactor: self.index(), index })
    }
}
