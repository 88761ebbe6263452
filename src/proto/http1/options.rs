use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::connection::Connection;
use super::date::DateCache;
use super::last_head::LastHead;
use super::limits::Limits;
use super::service::Service;
use super::sweeper::Wheel;
use crate::{Addr, Ctx};

/// The settings of a server. Start from the default and change fields:
///
/// ```
/// let mut options = reev::http1::Options::default();
/// options.idle_timeout = std::time::Duration::from_secs(20);
/// options.limits.body_bytes_max = 64 << 10;
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The bounds of a request.
    pub limits: Limits,
    /// From the first byte of a request to the end of its head; then 408. Default 10 s.
    pub head_timeout: Duration,
    /// The longest pause in a body; then 408. Default 30 s.
    pub body_timeout: Duration,
    /// From the first byte of a request to the start of its answer: 408 if the request is not
    /// complete then, 503 if a [`Responder`](super::Responder) has not answered. Default 60 s.
    pub request_timeout: Duration,
    /// A connection that carries no request, or an answer that the peer does not read, for so
    /// long is closed; up to an eighth later, because all connections of a reactor share one
    /// timer for this. At least 8 ms, default 75 s.
    pub idle_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            limits: Limits::default(),
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(75),
        }
    }
}

/// What the HTTP connections of one reactor share; makes their handlers.
///
/// ```
/// use reev::http1::{Fields, Http1, Options, Request, Response, Service, Status};
///
/// struct Hello;
///
/// impl Service for Hello {
///     fn on_request(&mut self, _req: &Request<'_>, res: &mut Response<'_>) {
///         res.send(Status::OK, Fields::NONE, b"hello");
///     }
/// }
///
/// let mut server = reev::Server::new(reev::Config { reactors: 1, ..Default::default() })?;
/// let listener = server.listen("127.0.0.1:0")?;
/// let running = server.start(move |reactor| {
///     let http = Http1::new(Options::default());
///     reactor.accept(listener, move |_peer| http.connection(Hello))
/// })?;
/// running.handle().stop();
/// running.join()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Http1 {
    pub(super) shared: Rc<Shared>,
}

impl Http1 {
    /// To be made once on each reactor, in the setup closure.
    pub fn new(options: Options) -> Http1 {
        let shared = Shared {
            wheel: RefCell::new(Wheel::new(options.idle_timeout)),
            options,
            date: RefCell::new(DateCache::new(0)),
            date_until: Cell::new(0),
            lines: Cell::new(Vec::new()),
            last_head: RefCell::default(),
            begun: Cell::new(Begun::No),
        };
        Http1 { shared: Rc::new(shared) }
    }

    /// The handler of one connection, for [`Reactor::accept`](crate::Reactor::accept) and
    /// [`Ctx::replace`].
    pub fn connection<S: Service>(&self, service: S) -> Connection<S> {
        Connection::new(service, self.shared.clone())
    }
}

impl fmt::Debug for Http1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// Serves `addr` until SIGINT or SIGTERM with the default options, and a service that `factory`
/// makes for each connection: one pinned reactor for each core the process may use.
///
/// # Errors
/// As of [`reev::serve`](crate::serve).
pub fn serve<S: Service>(
    addr: &str,
    factory: impl Fn(&Addr) -> S + Send + Sync + 'static,
) -> std::io::Result<()> {
    let mut server = crate::Server::new(crate::Config::default())?;
    let listener = server.listen(addr)?;
    crate::stop_on_signals(&server.handle())?;
    let factory = std::sync::Arc::new(factory);
    server.run(move |reactor| {
        let http = Http1::new(Options::default());
        let factory = factory.clone();
        reactor.accept(listener, move |peer| http.connection(factory(peer)))
    })
}

/// How far the present answer is: what a panic in a callback leaves to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Begun {
    No,
    Partly,
    Whole,
}

pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) date: RefCell<DateCache>,
    /// The reactor's time, in nanoseconds, at which the date is another.
    date_until: Cell<u64>,
    /// A buffer for header fields, used by one answer after the other.
    pub(super) lines: Cell<Vec<u8>>,
    /// The head of the last usual answer.
    pub(super) last_head: RefCell<LastHead>,
    pub(super) begun: Cell<Begun>,
    /// All connections, by when to look whether they are idle.
    pub(super) wheel: RefCell<Wheel>,
}

const SECOND: u64 = 1_000_000_000;

impl Shared {
    /// Keeps the date right to a second: a comparison for each call, the clock once a second.
    #[inline]
    pub(super) fn refresh_date(&self, cx: &Ctx<'_>) {
        if cx.core.now >= self.date_until.get() {
            self.read_clock(cx);
        }
    }

    #[cold]
    fn read_clock(&self, cx: &Ctx<'_>) {
        self.date_until.set(cx.core.now + SECOND);
        self.last_head.borrow_mut().forget();
        self.date.borrow_mut().refresh(cx.net.unix_seconds());
    }
}
