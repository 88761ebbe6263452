//! What the tests share: handlers made of closures, a log that checks the order of callbacks,
//! and servers on loopback sockets.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part of this")]

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use reev::{Addr, Close, Config, Ctx, EvHandler, Handle, ListenOptions, Running, Server, TimerId};

#[cfg(feature = "sim")]
pub mod door;
pub mod origin;
use origin::{Meeting, Origin};

/// The backend is kqueue's, or an emulation of it.
pub const KQUEUE: bool =
    cfg!(any(not(any(target_os = "linux", target_os = "android")), reev_kqueue_emulation));

/// One callback, as data.
pub enum What<'a> {
    Open,
    Read(&'a mut [u8]),
    Eof,
    Drain,
    Timeout(TimerId),
    Notify(u64),
    Close(&'a Close),
}

impl What<'_> {
    fn line(&self) -> String {
        match self {
            What::Open => "open".into(),
            What::Read(data) => format!("read {}", data.len()),
            What::Eof => "eof".into(),
            What::Drain => "drain".into(),
            What::Timeout(_) => "timeout".into(),
            What::Notify(value) => format!("notify {value}"),
            What::Close(why) => format!("close {}", why.kind()),
        }
    }
}

/// A handler that is one closure; what it returns counts in `Read` only.
pub struct Each<F>(F);

pub fn each<F>(f: F) -> Each<F>
where
    F: FnMut(&mut Ctx<'_>, What<'_>) -> io::Result<usize> + 'static,
{
    Each(f)
}

impl<F> EvHandler for Each<F>
where
    F: FnMut(&mut Ctx<'_>, What<'_>) -> io::Result<usize> + 'static,
{
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        (self.0)(cx, What::Open).map(drop)
    }
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        (self.0)(cx, What::Read(data))
    }
    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        (self.0)(cx, What::Eof).map(drop)
    }
    fn on_drain(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        (self.0)(cx, What::Drain).map(drop)
    }
    fn on_timeout(&mut self, cx: &mut Ctx<'_>, timer: TimerId) -> io::Result<()> {
        (self.0)(cx, What::Timeout(timer)).map(drop)
    }
    fn on_notify(&mut self, cx: &mut Ctx<'_>, value: u64) -> io::Result<()> {
        (self.0)(cx, What::Notify(value)).map(drop)
    }
    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        let _ = (self.0)(cx, What::Close(why));
    }
}

/// All callbacks of a thread's handlers in their order, as `name: callback`.
#[derive(Clone, Default)]
pub struct Log(Rc<RefCell<Vec<(String, String)>>>);

impl Log {
    fn push(&self, name: &str, line: String) {
        self.0.borrow_mut().push((name.to_owned(), line));
    }

    /// The callbacks of `name`.
    pub fn of(&self, name: &str) -> Vec<String> {
        let log = self.0.borrow();
        log.iter().filter(|(n, _)| n == name).map(|(_, line)| line.clone()).collect()
    }

    pub fn has(&self, name: &str, line: &str) -> bool {
        self.of(name).iter().any(|l| l == line)
    }

    /// Every line, `name: callback`.
    pub fn lines(&self) -> Vec<String> {
        self.0.borrow().iter().map(|(name, line)| format!("{name}: {line}")).collect()
    }

    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    /// Each handler's first callback is `open`; `close` comes at most once, and then last; no
    /// callback ran inside another.
    #[track_caller]
    pub fn verify(&self) {
        let mut names: Vec<String> = self.0.borrow().iter().map(|(n, _)| n.clone()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let lines = self.of(&name);
            let all = lines.join(", ");
            assert_eq!(lines[0], "open", "{name}: {all}");
            assert_eq!(lines.iter().filter(|l| *l == "open").count(), 1, "{name}: {all}");
            let close = lines.iter().position(|l| l.starts_with("close"));
            assert!(close.is_none_or(|at| at == lines.len() - 1), "{name}: {all}");
            assert!(!lines.iter().any(|l| l.contains("NESTED")), "{name}: {all}");
        }
    }

    /// [`Log::verify`], and every handler has had its `on_close`.
    #[track_caller]
    pub fn verify_ended(&self) {
        self.verify();
        let mut names: Vec<String> = self.0.borrow().iter().map(|(n, _)| n.clone()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let lines = self.of(&name);
            let last = lines.last().expect("a name has lines");
            assert!(last.starts_with("close"), "{name} did not end: {}", lines.join(", "));
        }
    }

    /// A handler whose callbacks are logged as `name`'s.
    pub fn each<F>(&self, name: &str, mut f: F) -> impl EvHandler + use<F>
    where
        F: FnMut(&mut Ctx<'_>, What<'_>) -> io::Result<usize> + 'static,
    {
        thread_local!(static INSIDE: Cell<bool> = const { Cell::new(false) });
        struct Leave;
        impl Drop for Leave {
            fn drop(&mut self) {
                INSIDE.set(false);
            }
        }
        let (log, name) = (self.clone(), name.to_owned());
        each(move |cx, what| {
            let nested = if INSIDE.replace(true) { " NESTED" } else { "" };
            let _leave = Leave;
            log.push(&name, format!("{}{nested}", what.line()));
            f(cx, what)
        })
    }
}

/// The default of `on_eof` and "take everything" of `on_read`, for closures that add to it.
pub fn usual(cx: &mut Ctx<'_>, what: What<'_>) -> io::Result<usize> {
    match what {
        What::Read(data) => Ok(data.len()),
        What::Eof => {
            cx.close();
            Ok(0)
        }
        _ => Ok(0),
    }
}

/// The slot of a connection: the low half of its id.
pub fn slot(id: reev::ConnId) -> u32 {
    id.as_u64() as u32
}

/// One reactor that is not pinned.
pub fn config() -> Config {
    Config { reactors: 1, pin: false, ..Config::default() }
}

/// Waits for a condition that another thread brings about.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A running server with one listener; stops when dropped.
pub struct Serving {
    pub addr: Addr,
    pub handle: Handle,
    pub meeting: Meeting,
    running: Option<Running>,
}

impl Serving {
    pub fn start<H: EvHandler>(
        config: Config,
        addr: &str,
        options: &ListenOptions,
        factory: impl Fn(&Addr) -> H + Send + Sync + Clone + 'static,
    ) -> Serving {
        let mut server = Server::new(config).unwrap();
        let listener = server.listen_with(addr, options).unwrap();
        let addr = server.local_addr(listener);
        let meeting = Meeting::new(&server.handle(), &addr, options, factory.clone());
        let running = server.start(move |reactor| reactor.accept(listener, factory.clone()));
        let running = running.unwrap();
        Serving { addr, handle: running.handle(), meeting, running: Some(running) }
    }

    /// On a loopback TCP port, with one reactor.
    pub fn tcp<H: EvHandler>(
        factory: impl Fn(&Addr) -> H + Send + Sync + Clone + 'static,
    ) -> Serving {
        Serving::start(config(), "127.0.0.1:0", &ListenOptions::default(), factory)
    }

    pub fn socket_addr(&self) -> SocketAddr {
        self.addr.socket_addr().expect("a TCP server")
    }

    pub fn connect(&self) -> TcpStream {
        self.peer(Origin::Accepted)
    }

    /// The test's end of a new TCP connection.
    pub fn peer(&self, origin: Origin) -> TcpStream {
        let stream = TcpStream::from(self.meeting.peer(origin));
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Keeps the reactor busy until the result is dropped, so that what happens meanwhile is
    /// met in one turn.
    pub fn stall(&self) -> mpsc::Sender<()> {
        // Two turns pass first, so that no event of before is left in the poller.
        self.ask(|_| ());
        self.ask(|_| ());
        let (go, wait) = mpsc::channel::<()>();
        let (stalled, is_stalled) = mpsc::channel();
        let task = move |_: &mut reev::Reactor| {
            stalled.send(()).unwrap();
            let _ = wait.recv();
        };
        self.handle.run_on(0, task).unwrap();
        is_stalled.recv().unwrap();
        go
    }

    /// Runs a closure on the reactor and gives its result.
    pub fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut reev::Reactor) -> R + Send + 'static,
    ) -> R {
        let (answer, answered) = mpsc::channel();
        let task = move |reactor: &mut reev::Reactor| answer.send(question(reactor)).unwrap();
        self.handle.run_on(0, task).unwrap();
        answered.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    /// Waits until the reactor has nothing left to do; one that spins never gets there.
    #[track_caller]
    pub fn comes_to_rest(&self) {
        let turns = || self.handle.stats()[0].turns;
        let mut before = turns();
        until("it rests", || {
            std::thread::sleep(Duration::from_millis(60));
            let now = turns();
            now - std::mem::replace(&mut before, now) < 10
        });
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(running) = self.running.take() {
            let ended = running.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// Reads until the end of the stream, or its reset, which is told by the second result.
pub fn read_all(mut from: impl Read) -> (Vec<u8>, Option<io::ErrorKind>) {
    let mut all = Vec::new();
    match from.read_to_end(&mut all) {
        Ok(_) => (all, None),
        Err(error) => (all, Some(error.kind())),
    }
}

/// `n` bytes without a short period, so that a swap or a gap shows.
pub fn pattern(n: usize, salt: u64) -> Vec<u8> {
    let mut state = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..n).map(|_| next()).collect()
}

/// Runs a test of the calling crate in a process of its own, for what concerns a whole process.
/// In that process it gives true.
pub fn in_child(test: &str) -> bool {
    const MARK: &str = "REEV_TEST_CHILD";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "in its own process, {}: {text}", output.status);
    assert!(text.contains("1 passed"), "no such test as {test}: {text}");
    false
}
