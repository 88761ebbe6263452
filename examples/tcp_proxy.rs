//! A proxy for TCP and Unix streams with several backends: the one with the fewest connections
//! gets the next, one that cannot be reached is passed over and tried again later, and a client
//! sees its end only when no backend is left.
//!
//! ```sh
//! cargo run --release --example tcp_proxy -- --addr :8000 --backend 10.1.1.1:80 --backend 10.1.1.2:80
//! ```
//!
//! Both sides of a connection live on one reactor, joined by `Ctx::pair`. The counts of
//! connections are shared by all reactors.

mod common;

use std::cell::Cell;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reev::{Addr, Close, ConnId, ConnectOptions, Ctx, Endpoint, EvHandler, Handle, Stats, TimerId};

struct Backend {
    endpoint: Endpoint,
    open: AtomicUsize,
    served: AtomicU64,
    failed: AtomicU64,
    /// Milliseconds since the start until which it is left alone.
    rests_until: AtomicU64,
}

struct Shared {
    backends: Vec<Backend>,
    options: ConnectOptions,
    idle: Duration,
    /// How long a backend that cannot be reached is left alone, in milliseconds.
    rest_ms: u64,
    started: Instant,
    /// Clients that are connected.
    open: AtomicUsize,
    unserved: AtomicU64,
}

impl Shared {
    /// The backend with the fewest connections, those that rest last, `tried` ones left out.
    fn choose(&self, now: Instant, tried: &[usize]) -> Option<usize> {
        let now = self.millis(now);
        let left = (0..self.backends.len()).filter(|index| !tried.contains(index));
        left.min_by_key(|&index| {
            let backend = &self.backends[index];
            let rests = backend.rests_until.load(Ordering::Relaxed) > now;
            (rests, backend.open.load(Ordering::Relaxed))
        })
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.started).as_millis() as u64
    }
}

/// Begins to connect to the next backend for `client`, or ends it if none is left.
fn connect(
    cx: &mut Ctx<'_>,
    client: ConnId,
    shared: &Arc<Shared>,
    server: &Rc<Cell<ConnId>>,
    mut tried: Vec<usize>,
) {
    let Some(index) = shared.choose(cx.now(), &tried) else {
        shared.unserved.fetch_add(1, Ordering::Relaxed);
        if let Some(mut client) = cx.conn(client) {
            client.abort();
        }
        return;
    };
    tried.push(index);
    let backend = &shared.backends[index];
    backend.open.fetch_add(1, Ordering::Relaxed);
    let handler =
        ServerSide { client, index, tried, shared: shared.clone(), server: server.clone() };
    server.set(cx.connect(backend.endpoint.clone(), &shared.options, handler));
}

struct ClientSide {
    shared: Arc<Shared>,
    /// The backend's connection; changes while backends fail.
    server: Rc<Cell<ConnId>>,
}

impl EvHandler for ClientSide {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        cx.pause_reads(); // until there is somebody to read for
        cx.idle_timeout(self.shared.idle);
        connect(cx, cx.id(), &self.shared, &self.server, Vec::new());
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, _: &Close) {
        self.shared.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(mut server) = cx.conn(self.server.get()) {
            server.abort(); // still connecting, or else the pair has ended already
        }
    }
}

struct ServerSide {
    client: ConnId,
    index: usize,
    tried: Vec<usize>,
    shared: Arc<Shared>,
    server: Rc<Cell<ConnId>>,
}

impl EvHandler for ServerSide {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.shared.backends[self.index].served.fetch_add(1, Ordering::Relaxed);
        if !cx.pair(self.client) {
            cx.abort(); // the client has left
        }
        Ok(())
    }

    fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, error: io::Error) {
        let backend = &self.shared.backends[self.index];
        backend.open.fetch_sub(1, Ordering::Relaxed);
        if error.kind() == io::ErrorKind::ConnectionAborted {
            return; // the client has left
        }
        backend.failed.fetch_add(1, Ordering::Relaxed);
        let rest_ms = self.shared.rest_ms;
        let until = self.shared.millis(cx.now()).saturating_add(rest_ms);
        if backend.rests_until.swap(until, Ordering::Relaxed).saturating_add(rest_ms) <= until {
            log::warn!("{}: {error}", backend.endpoint);
        }
        connect(cx, self.client, &self.shared, &self.server, std::mem::take(&mut self.tried));
    }

    fn on_close(&mut self, _: &mut Ctx<'_>, _: &Close) {
        self.shared.backends[self.index].open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Prints a line of statistics now and then.
struct Reporter {
    shared: Arc<Shared>,
    every: Duration,
    handle: Handle,
}

impl EvHandler for Reporter {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.set_periodic(self.every);
        Ok(())
    }

    fn on_timeout(&mut self, _: &mut Ctx<'_>, _: TimerId) -> io::Result<()> {
        let total = Stats::total(&self.handle.stats());
        let mut line = format!(
            "accepted {} open {} in {} out {} unserved {}",
            total.accepted,
            self.shared.open.load(Ordering::Relaxed),
            total.bytes_in,
            total.bytes_out,
            self.shared.unserved.load(Ordering::Relaxed)
        );
        for backend in &self.shared.backends {
            use std::fmt::Write;
            let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
            let (open, served) = (backend.open.load(Ordering::Relaxed), count(&backend.served));
            let failed = count(&backend.failed);
            let _ =
                write!(line, "; {} open {open} served {served} failed {failed}", backend.endpoint);
        }
        eprintln!("{line}");
        Ok(())
    }
}

/// A proxy for TCP and Unix streams, with several backends
#[derive(clap::Parser)]
#[command(name = "tcp_proxy", version)]
struct Options {
    #[command(flatten)]
    serve: common::Serve,

    /// Where to connect to, as --addr; may be repeated
    #[arg(long, required = true, value_name = "ADDR")]
    backend: Vec<String>,

    /// Milliseconds to reach a backend in
    #[arg(long, default_value_t = 2000)]
    connect_timeout_ms: u64,

    /// Seconds for which a backend that could not be reached is left alone, if there are others
    #[arg(long, default_value_t = 2)]
    rest_s: u64,

    /// Seconds without traffic after which a connection is closed
    #[arg(long, default_value_t = 300)]
    idle_timeout_s: u64,

    /// Seconds between lines of statistics on standard error; 0 for none
    #[arg(long, default_value_t = 0)]
    stats_s: u64,
}

fn main() -> ExitCode {
    common::run("127.0.0.1:8000", |options: Options| {
        let mut backends = Vec::new();
        for text in &options.backend {
            let endpoint = Endpoint::parse(text)?;
            if endpoint.is_datagram() {
                let message = format!("{endpoint} is an address for datagrams, not for streams");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
            }
            backends.push(Backend {
                endpoint,
                open: AtomicUsize::new(0),
                served: AtomicU64::new(0),
                failed: AtomicU64::new(0),
                rests_until: AtomicU64::new(0),
            });
        }
        let (server, listener) = options.serve.listen()?;
        let addr = server.local_addr(listener);
        let shared = Arc::new(Shared {
            backends,
            options: ConnectOptions {
                timeout: Duration::from_millis(options.connect_timeout_ms),
                ..ConnectOptions::default()
            },
            idle: Duration::from_secs(options.idle_timeout_s),
            rest_ms: options.rest_s.saturating_mul(1000),
            started: Instant::now(),
            open: AtomicUsize::new(0),
            unserved: AtomicU64::new(0),
        });
        let every = Duration::from_secs(options.stats_s);
        let running = server.start(move |reactor| {
            if reactor.index() == 0 && !every.is_zero() {
                let handle = reactor.handle();
                reactor.add(Reporter { shared: shared.clone(), every, handle });
            }
            let shared = shared.clone();
            reactor.accept(listener, move |_: &Addr| ClientSide {
                shared: shared.clone(),
                server: Rc::default(),
            })
        })?;
        common::banner("tcp_proxy", &addr, common::how_to_try(&addr));
        running.join()
    })
}
