//! A server to fire at, clients to fire with, and the patience to wait for what has to come.

use std::fmt::Debug;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::time::{Duration, Instant};

use reev::{
    Addr, Close, Config, Ctx, EvHandler, Handle, ListenOptions, ListenerId, Reactor, Running,
    Server, Stats,
};

use crate::origin::{Meeting, Origin};

/// Longer than anything takes, on however busy a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `done`; a test that waits in vain says for what.
pub(crate) fn eventually(what: impl Debug, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE, "in vain: {what:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// `n` bytes of which no two stretches are alike.
pub(crate) fn pattern(n: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9u32;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    (0..n).map(next).collect()
}

/// As `assert_eq`, without printing megabytes.
pub(crate) fn assert_same(got: &[u8], wanted: &[u8]) {
    assert_eq!(got.len(), wanted.len(), "the length differs");
    let differs = got.iter().zip(wanted).position(|(a, b)| a != b);
    assert_eq!(differs, None, "a byte differs");
}

pub(crate) fn config(reactors: usize) -> Config {
    Config { reactors, pin: false, ..Config::default() }
}

/// A running server, stopped at the end of the test.
pub(crate) struct Host {
    pub(crate) handle: Handle,
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only leaving.rs asks"))]
    pub(crate) listener: ListenerId,
    pub(crate) addr: Addr,
    meeting: Option<Meeting>,
    running: Option<Running>,
}

impl Host {
    pub(crate) fn serve<H: EvHandler>(
        config: Config,
        factory: impl Fn(&Addr) -> H + Send + Sync + 'static,
    ) -> Host {
        Host::serve_on("127.0.0.1:0", config, &ListenOptions::default(), factory)
    }

    pub(crate) fn serve_on<H: EvHandler>(
        addr: &str,
        config: Config,
        options: &ListenOptions,
        factory: impl Fn(&Addr) -> H + Send + Sync + 'static,
    ) -> Host {
        let mut server = Server::new(config).unwrap();
        let listener = server.listen_with(addr, options).unwrap();
        Host::run_with(server, listener, options, factory)
    }

    pub(crate) fn run<H: EvHandler>(
        server: Server,
        listener: ListenerId,
        factory: impl Fn(&Addr) -> H + Send + Sync + 'static,
    ) -> Host {
        Host::run_with(server, listener, &ListenOptions::default(), factory)
    }

    fn run_with<H: EvHandler>(
        server: Server,
        listener: ListenerId,
        options: &ListenOptions,
        factory: impl Fn(&Addr) -> H + Send + Sync + 'static,
    ) -> Host {
        let factory = Arc::new(factory);
        let (at, same) = (server.local_addr(listener), factory.clone());
        let meeting = Meeting::new(&server.handle(), &at, options, move |peer| same(peer));
        let mut host = Host::set_up(server, listener, move |reactor| {
            let factory = factory.clone();
            reactor.accept(listener, move |peer| factory(peer))
        });
        host.meeting = Some(meeting);
        host
    }

    pub(crate) fn set_up(
        server: Server,
        listener: ListenerId,
        setup: impl Fn(&mut Reactor) -> io::Result<()> + Send + Sync + 'static,
    ) -> Host {
        let addr = server.local_addr(listener);
        let running = server.start(setup).unwrap();
        Host { handle: running.handle(), listener, addr, meeting: None, running: Some(running) }
    }

    pub(crate) fn socket_addr(&self) -> SocketAddr {
        self.addr.socket_addr().unwrap()
    }

    pub(crate) fn tcp(&self) -> TcpStream {
        connect(self.socket_addr())
    }

    /// The test's end of a new connection.
    pub(crate) fn peer<S: From<OwnedFd>>(&self, origin: Origin) -> S {
        OwnedFd::from(self.meeting.as_ref().expect("a host with one factory").peer(origin)).into()
    }

    pub(crate) fn unix(&self) -> UnixStream {
        let stream = UnixStream::connect(self.addr.unix_path().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats::total(&self.handle.stats())
    }

    /// Connections ended in this way.
    pub(crate) fn closed(&self, kind: &str) -> u64 {
        closed(&self.stats(), kind)
    }

    /// Waits for the end, which something else brought about.
    pub(crate) fn join(mut self) {
        self.running.take().unwrap().join().unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.handle().stop();
            let joined = running.join();
            assert!(std::thread::panicking() || joined.is_ok(), "{joined:?}");
        }
    }
}

pub(crate) fn closed(stats: &Stats, kind: &str) -> u64 {
    let index = Close::KIND_NAMES.iter().position(|&name| name == kind).unwrap();
    stats.closed[index]
}

pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A TCP or a Unix stream.
pub(crate) trait Stream: Read + Write + Send + 'static {
    fn unblock(&self);
    fn half_close(&self);
}

impl Stream for TcpStream {
    fn unblock(&self) {
        self.set_nonblocking(true).unwrap();
    }

    fn half_close(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Stream for UnixStream {
    fn unblock(&self) {
        self.set_nonblocking(true).unwrap();
    }

    fn half_close(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

pub(crate) fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    got
}

pub(crate) fn read_exactly(stream: &mut impl Read, n: usize) -> Vec<u8> {
    let mut got = vec![0; n];
    stream.read_exact(&mut got).unwrap();
    got
}

/// Sends one byte to an echo and waits for it: the connection lives.
pub(crate) fn ping(stream: &mut (impl Read + Write)) {
    stream.write_all(b"!").unwrap();
    assert_eq!(read_exactly(stream, 1), b"!");
}

/// Writes back what it reads.
pub(crate) struct Echo;

impl EvHandler for Echo {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        cx.write(data);
        Ok(data.len())
    }
}

/// What handlers have seen, shared with the test.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Seen>>);

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) bytes: Vec<u8>,
    /// Callbacks in order, `on_read` left out; of `on_close` the kind.
    pub(crate) calls: Vec<&'static str>,
}

impl Record {
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }

    pub(crate) fn note(&self, call: &'static str) {
        self.seen().calls.push(call);
    }

    pub(crate) fn wait_for(&self, call: &'static str) {
        eventually(call, || self.seen().calls.contains(&call));
    }

    pub(crate) fn count(&self, call: &'static str) -> usize {
        self.seen().calls.iter().filter(|&&seen| seen == call).count()
    }
}

/// A place in the file system for a Unix socket, of this test alone.
pub(crate) fn unix_path() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("reev-under-fire-{}-{number}.sock", std::process::id());
    std::env::temp_dir().join(name)
}

pub(crate) fn unix_host<H: EvHandler>(
    config: Config,
    factory: impl Fn(&Addr) -> H + Send + Sync + 'static,
) -> Host {
    let addr = format!("unix://{}", unix_path().display());
    Host::serve_on(&addr, config, &ListenOptions::default(), factory)
}

/// Whether this process was started by [`in_own_process`] for the test that asks.
fn is_child(test: &str) -> bool {
    std::env::var(CHILD).is_ok_and(|child| child == test)
}

const CHILD: &str = "REEV_TEST_CHILD";

/// Runs `body` in a process of its own, for what belongs to a process as a whole: limits,
/// signal handlers, the logger. `test` is the full name of the test that calls this.
pub(crate) fn in_own_process(test: &str, body: impl FnOnce()) {
    in_own_process_under(&[], test, body);
}

/// The same, under `strace` with these arguments, which makes system calls fail. Where it is not
/// to be had, the test is skipped, and says so.
pub(crate) fn in_own_process_traced(arguments: &[&str], test: &str, body: impl FnOnce()) {
    if is_child(test) {
        return body();
    }
    let tried = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: strace is not here or not allowed, so no system call can be failed");
        return;
    }
    let quiet = ["strace", "-f", "-qq", "-o", "/dev/null"];
    in_own_process_under(&[&quiet, arguments].concat(), test, body);
}

fn in_own_process_under(tracer: &[&str], test: &str, body: impl FnOnce()) {
    if is_child(test) {
        return body();
    }
    let this = std::env::current_exe().unwrap();
    let mut command = match tracer.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(this);
            command
        }
        None => Command::new(this),
    };
    let ended = command
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(CHILD, test)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    let warned = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{test} in its own process:\n{said}\n{warned}");
    assert!(said.contains("1 passed"), "{test} did not run in its own process:\n{said}");
    print!("{said}"); // with its figures
}

/// What the library logs from now on, by all tests of this process.
pub(crate) fn logged() -> &'static Mutex<Vec<String>> {
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
    static LOGGER: Logger = Logger;
    struct Logger;
    impl log::Log for Logger {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            LINES.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
        }

        fn flush(&self) {}
    }
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
    &LINES
}

/// Planted panics of reactors' threads are not worth a backtrace each.
pub(crate) fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.to_string().contains("planted") {
                default(info);
            }
        }));
    });
}
