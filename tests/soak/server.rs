//! The server: an echo, a source of bytes written by another thread, and their accounts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use reev::{
    Close, Config, Ctx, EvHandler, Handle, Remote, Running, SendError, Server, Stats, TimerId,
};

/// The first byte of a connection: what it is.
pub(crate) const ECHO: u8 = b'e';
/// Eight bytes follow: a seed of four and a length of four, little-endian.
pub(crate) const PUSH: u8 = b'p';
/// An echo that ends when nothing moves.
pub(crate) const IDLE: u8 = b'i';

const REACTORS: usize = 2;
const IDLE_TIME: Duration = Duration::from_millis(30);

#[derive(Default)]
struct Totals {
    opened: AtomicU64,
    ended: AtomicU64,
    read: AtomicU64,
    written: AtomicU64,
    /// Of connections that ended with all their output handed to the system.
    written_clean: AtomicU64,
    /// By other threads, accepted by the mailbox.
    pushed: AtomicU64,
}

impl Totals {
    fn get(number: &AtomicU64) -> u64 {
        number.load(Ordering::Relaxed)
    }
}

struct Connection {
    totals: Arc<Totals>,
    pusher: Sender<(Remote, u64, usize)>,
    kind: Option<u8>,
    read: u64,
    written: u64,
    ticks: u64,
}

impl Connection {
    /// What the first bytes say. None while they are too few.
    fn begin(&mut self, cx: &mut Ctx<'_>, data: &[u8]) -> Option<usize> {
        let (&kind, rest) = data.split_first()?;
        let mut used = 1;
        match kind {
            PUSH => {
                let (head, _) = rest.split_first_chunk::<8>()?;
                used += head.len();
                let number = |bytes: [u8; 4]| u32::from_le_bytes(bytes);
                let seed = number([head[0], head[1], head[2], head[3]]);
                let length = number([head[4], head[5], head[6], head[7]]) as usize;
                self.written += length as u64; // counted at its end, if it is a clean one
                let _ = self.pusher.send((cx.remote(), seed.into(), length));
            }
            IDLE => cx.idle_timeout(IDLE_TIME),
            _ => drop(cx.set_periodic(Duration::from_millis(7))),
        }
        self.kind = Some(kind);
        Some(used)
    }
}

impl EvHandler for Connection {
    fn on_open(&mut self, _cx: &mut Ctx<'_>) -> io::Result<()> {
        self.totals.opened.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let mut used = 0;
        if self.kind.is_none() {
            let Some(begun) = self.begin(cx, data) else {
                return Ok(0);
            };
            used = begun;
        }
        let payload = &data[used..];
        self.read += data.len() as u64;
        self.written += payload.len() as u64;
        cx.write(payload);
        Ok(data.len())
    }

    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.read += cx.unread() as u64;
        if self.kind != Some(PUSH) {
            cx.close(); // the pusher closes its own
        }
        Ok(())
    }

    fn on_timeout(&mut self, _cx: &mut Ctx<'_>, _timer: TimerId) -> io::Result<()> {
        self.ticks += 1;
        Ok(())
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, why: &Close) {
        let totals = &self.totals;
        totals.ended.fetch_add(1, Ordering::Relaxed);
        totals.read.fetch_add(self.read, Ordering::Relaxed);
        totals.written.fetch_add(self.written, Ordering::Relaxed);
        if why.is_clean() {
            totals.written_clean.fetch_add(self.written, Ordering::Relaxed);
        }
        if let Close::Error(error) = why {
            panic!("no callback fails here: {error}");
        }
    }
}

pub(crate) struct EchoServer {
    running: Option<Running>,
    handle: Handle,
    addr: SocketAddr,
    totals: Arc<Totals>,
    config: Config,
}

impl EchoServer {
    pub(crate) fn start() -> EchoServer {
        let config = Config {
            reactors: REACTORS,
            pin: false,
            linger_timeout: Duration::from_millis(300),
            close_timeout: Duration::from_secs(5),
            ..Config::default()
        };
        let mut server = Server::new(config.clone()).expect("a server");
        let listener = server.listen("127.0.0.1:0").expect("a port");
        let addr = server.local_addr(listener).socket_addr().expect("a TCP address");
        let totals = Arc::new(Totals::default());
        let (pusher, pushes) = channel();
        let pushed = totals.clone();
        std::thread::spawn(move || push(&pushes, &pushed));
        let counted = totals.clone();
        let running = server.start(move |reactor| {
            let (totals, pusher) = (counted.clone(), pusher.clone());
            reactor.accept(listener, move |_| Connection {
                totals: totals.clone(),
                pusher: pusher.clone(),
                kind: None,
                read: 0,
                written: 0,
                ticks: 0,
            })
        });
        let running = running.expect("reactors");
        let handle = running.handle();
        EchoServer { running: Some(running), handle, addr, totals, config }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats::total(&self.handle.stats())
    }

    /// Handlers on all reactors, as they themselves count them.
    pub(crate) fn handlers(&self) -> usize {
        let (count, counts) = channel();
        let task = move |reactor: &mut reev::Reactor| {
            let _ = count.send(reactor.conn_ids().len());
        };
        self.handle.broadcast(task).expect("room in the mailboxes");
        counts.iter().take(REACTORS).sum()
    }

    /// What waits for peers is bounded, whatever they do.
    pub(crate) fn check_bounds(&self, stats: &Stats) {
        // A push counts until the pusher sees that the high mark is crossed.
        let each = self.config.output_high + self.config.read_buffer + PUSH_PENDING_MAX + PIECE_MAX;
        let most = stats.open.max(16) * each as u64;
        assert!(stats.output_queued <= most, "{} bytes wait: {stats:?}", stats.output_queued);
    }

    /// The accounts at the end. Only when it is calm.
    pub(crate) fn check(mut self) {
        let (stats, totals) = (self.stats(), &*self.totals);
        println!("{stats:?}");
        let closed: u64 = stats.closed.iter().sum();
        assert_eq!((stats.accepted, closed), (Totals::get(&totals.opened), stats.accepted));
        assert_eq!(Totals::get(&totals.ended), stats.accepted, "on_close once for each on_open");
        let read = Totals::get(&totals.read);
        assert!(read <= stats.bytes_in, "{read} bytes seen, {} read", stats.bytes_in);
        // What no handler saw was a head cut short by a reset.
        assert!(stats.bytes_in - read <= 9 * closed, "bytes were read and shown to nobody");
        let (written, clean) = (Totals::get(&totals.written), Totals::get(&totals.written_clean));
        let sent = stats.bytes_out;
        assert!(clean <= sent && sent <= written, "clean {clean}, sent {sent}, written {written}");
        let running = self.running.take().expect("it runs");
        let cut = self.handle.shutdown(Duration::from_secs(10)).wait();
        assert_eq!(cut, 0);
        running.join().expect("a reactor failed");
    }
}

const PIECE_MAX: usize = 40_000;
/// The pusher waits while more than this is on the way.
const PUSH_PENDING_MAX: usize = 1 << 20;

/// The bytes of a push.
pub(crate) fn pushed_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Writes to connections from outside their reactors, in pieces, and closes them.
fn push(pushes: &Receiver<(Remote, u64, usize)>, totals: &Totals) {
    for (remote, seed, length) in pushes {
        let mut rng = fastrand::Rng::with_seed(!seed);
        let bytes = bytes::Bytes::from(pushed_bytes(seed, length));
        let mut sent = 0;
        while sent < length {
            let piece = rng.usize(1..=PIECE_MAX).min(length - sent);
            if remote.pending_output() > PUSH_PENDING_MAX {
                std::thread::yield_now();
                continue;
            }
            match remote.write(bytes.slice(sent..sent + piece)) {
                Ok(()) => sent += piece,
                Err(SendError::Full) => std::thread::yield_now(),
                Err(_) => break,
            }
        }
        totals.pushed.fetch_add(sent as u64, Ordering::Relaxed);
        let _ = remote.close(); // or its client has reset it
    }
}
