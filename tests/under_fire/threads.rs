//! Hard cases 21, 33 and 37: other threads, full mailboxes, and callbacks that take too long.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use reev::{Close, Config, Ctx, EvHandler, Remote, SendError};

use crate::origin::{Origin, both_ways};
use crate::support::{
    Host, PATIENCE, Record, assert_same, config, connect, eventually, logged, pattern, ping,
    read_exactly, read_to_end,
};

/// An echo that hands out its remotes, and counts its notifications.
struct Reachable {
    remotes: mpsc::Sender<Remote>,
    notified: Arc<AtomicU64>,
    record: Record,
}

impl EvHandler for Reachable {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.remotes.send(cx.remote()).unwrap();
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        cx.write(data);
        Ok(data.len())
    }

    fn on_notify(&mut self, _cx: &mut Ctx<'_>, _value: u64) -> io::Result<()> {
        self.notified.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, why: &Close) {
        self.record.note(why.kind());
    }
}

struct Setting {
    host: Host,
    remotes: mpsc::Receiver<Remote>,
    notified: Arc<AtomicU64>,
    record: Record,
}

impl Setting {
    fn new(config: Config) -> Setting {
        let (remote, remotes) = mpsc::channel();
        let (record, notified) = (Record::default(), Arc::new(AtomicU64::new(0)));
        let (remote, seen, count) = (Mutex::new(remote), record.clone(), notified.clone());
        let host = Host::serve(config, move |_| Reachable {
            remotes: remote.lock().unwrap().clone(),
            notified: count.clone(),
            record: seen.clone(),
        });
        Setting { host, remotes, notified, record }
    }

    fn remote(&self) -> Remote {
        self.remotes.recv_timeout(PATIENCE).unwrap()
    }

    /// Keeps the reactor busy until the sender is dropped.
    fn block(&self) -> mpsc::Sender<()> {
        let (free, freed) = mpsc::channel::<()>();
        let (busy, is_busy) = mpsc::channel();
        let task = move |_: &mut reev::Reactor| {
            busy.send(()).unwrap();
            let _ = freed.recv();
        };
        self.host.handle.run_on(0, task).unwrap();
        is_busy.recv_timeout(PATIENCE).unwrap();
        free
    }
}

/// Planted: the bound is not looked at (the test ends at 100 times as many).
#[test]
fn hard_case_21_a_full_mailbox_is_told_and_nothing_accepted_is_lost() {
    const MOST: u64 = 1000;
    let setting = Setting::new(Config { mailbox_max: MOST as usize, ..config(1) });
    let mut stream = setting.host.tcp();
    let remote = setting.remote();
    let mut wanted = 0;
    for _ in 0..3 {
        let free = setting.block();
        let producers: Vec<_> = (0..4)
            .map(|_| {
                let remote = remote.clone();
                std::thread::spawn(move || {
                    let mut accepted = 0;
                    loop {
                        match remote.notify(0) {
                            Ok(()) => accepted += 1,
                            Err(full) => break assert_eq!(full, SendError::Full),
                        }
                        assert!(accepted < 100 * MOST, "no bound");
                    }
                    accepted
                })
            })
            .collect();
        let accepted: u64 = producers.into_iter().map(|producer| producer.join().unwrap()).sum();
        assert_eq!(accepted, MOST);
        wanted += accepted;
        drop(free);
        eventually("all of it", || setting.notified.load(Ordering::Relaxed) == wanted);
        ping(&mut stream);
    }
    // What must not be refused is not, however full it is.
    let free = setting.block();
    while remote.notify(0).is_ok() {}
    remote.close().unwrap();
    drop(free);
    assert_eq!(read_to_end(&mut stream), b"");
    setting.record.wait_for("local");
}

/// Planted: the bytes are not counted.
#[test]
fn hard_case_21_a_mailbox_is_bounded_in_bytes() {
    let setting = Setting::new(Config { mailbox_bytes_max: 1 << 20, ..config(1) });
    let mut stream = setting.host.tcp();
    let remote = setting.remote();
    let free = setting.block();
    let piece = pattern(64 << 10);
    let mut accepted = 0;
    while remote.write(piece.clone()).is_ok() {
        accepted += 1;
        assert!(accepted < 1000, "no bound");
    }
    assert_eq!(accepted, 16);
    assert_eq!(remote.pending_output(), 1 << 20);
    drop(free);
    assert_same(&read_exactly(&mut stream, 1 << 20), &piece.repeat(16));
    eventually("all is sent", || remote.pending_output() == 0);
    remote.write(b"more".to_vec()).unwrap();
    assert_eq!(read_exactly(&mut stream, 4), b"more");
}

/// Each round sleeps until the reactor has answered, so that one lost wake-up is one too many.
///
/// Planted: the bell is not rung again once it has been.
#[test]
fn hard_case_21_no_wake_up_is_lost() {
    let setting = Setting::new(Config { mail_per_turn: 1, ..config(1) });
    let _stream = setting.host.tcp();
    let remote = setting.remote();
    for round in 1..=3000 {
        // Two at once, of which one turn takes one.
        remote.notify(0).unwrap();
        remote.notify(0).unwrap();
        let mut spins = 0;
        while setting.notified.load(Ordering::Relaxed) < 2 * round {
            spins += 1;
            std::thread::yield_now();
            assert!(spins < 50_000_000, "round {round} stalls");
        }
    }
}

/// Planted: a close from another thread does not wait for what is queued.
fn hard_case_33_write_then_close_from_another_thread_sends_all(origin: Origin) {
    for round in 0..20 {
        let setting = Setting::new(config(1));
        let mut stream = setting.host.peer::<TcpStream>(origin);
        let remote = setting.remote();
        let data = pattern(3_000_000 + round);
        let pieces = data.clone();
        let writer = std::thread::spawn(move || {
            for piece in pieces.chunks(50_000) {
                remote.write(piece.to_vec()).unwrap();
            }
            remote.close().unwrap();
            remote
        });
        assert_same(&read_to_end(&mut stream), &data);
        drop(stream);
        setting.record.wait_for("local");
        let remote = writer.join().unwrap();
        eventually("the remote knows", || !remote.is_open());
        assert_eq!(remote.write(b"late".to_vec()), Err(SendError::Closed));
        assert_eq!(remote.pending_output(), 0);
    }
}

/// A message for a connection that has ended meanwhile finds another in its slot.
///
/// Planted: mail is delivered by slot, whatever the generation.
fn hard_case_33_a_write_to_a_dead_generation_reaches_nobody(origin: Origin) {
    // One message a turn, so that the next connection comes between two of them.
    let setting = Setting::new(Config { mail_per_turn: 1, ..config(1) });
    let first = setting.host.peer::<TcpStream>(origin);
    let dead = setting.remote();
    let free = setting.block();
    dead.abort().unwrap();
    // The first is gone when the reactor gets here; the messages to it are behind.
    let (go_on, goes_on) = mpsc::channel::<()>();
    let (gone, is_gone) = mpsc::channel();
    let pause = move |_: &mut reev::Reactor| {
        gone.send(()).unwrap();
        let _ = goes_on.recv();
    };
    setting.host.handle.run_on(0, pause).unwrap();
    for _ in 0..50 {
        dead.write(b"ghost".to_vec()).unwrap();
        dead.notify(13).unwrap();
    }
    dead.close().unwrap();
    drop(free);
    is_gone.recv_timeout(PATIENCE).unwrap();
    let mut second = connect(setting.host.socket_addr());
    drop(go_on);
    let alive = setting.remote();
    let slot = |remote: &Remote| remote.id().as_u64() as u32;
    assert_eq!(slot(&alive), slot(&dead), "the slot was not reused, so this shows nothing");
    assert_ne!(alive.id(), dead.id());
    eventually("all mail is read", || setting.host.stats().mail >= 104);
    ping(&mut second);
    assert_eq!(setting.notified.load(Ordering::Relaxed), 0);
    assert_eq!(setting.record.seen().calls, ["aborted"]);
    drop(first);
}

/// Takes its time over a byte.
struct Sleepyhead(Duration);

impl EvHandler for Sleepyhead {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        if data[0] == b'z' {
            std::thread::sleep(self.0);
        }
        cx.write(data);
        Ok(data.len())
    }
}

/// Planted: callbacks are not timed.
#[test]
fn hard_case_37_a_slow_callback_is_logged_with_its_handler() {
    let log = logged();
    let slow_turn = Duration::from_millis(100);
    let host =
        Host::serve(Config { slow_turn, ..config(1) }, |_| Sleepyhead(Duration::from_millis(250)));
    let mut stream = host.tcp();
    stream.write_all(b"z").unwrap();
    read_exactly(&mut stream, 1);
    let warnings = || -> Vec<String> {
        let lines = log.lock().unwrap();
        lines
            .iter()
            .filter(|line| line.contains("::Sleepyhead kept its reactor"))
            .cloned()
            .collect()
    };
    eventually("a warning", || warnings().len() == 1);
    assert!(warnings()[0].starts_with("WARN"), "{:?}", warnings());
    eventually("the turn is measured", || {
        let stats = host.stats();
        stats.turn_longest >= Duration::from_millis(250)
            && stats.turn_recent >= Duration::from_millis(250) / 32
    });
}

/// What `broadcast` and `local` are for: each reactor's own number, changed from outside.
///
/// Planted: only the first reactor gets the closure.
#[test]
fn a_broadcast_reaches_every_reactor_s_local_state() {
    #[derive(Default)]
    struct Number(u8);
    struct Tell;
    impl EvHandler for Tell {
        fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
            let number = cx.local::<Number>().0;
            cx.write(&[cx.reactor_index() as u8, number]);
            Ok(data.len())
        }
    }
    let host = Host::serve(config(3), |_| Tell);
    host.handle
        .broadcast(|reactor| {
            let index = reactor.index() as u8;
            reactor.set_local(Number(100 + index));
        })
        .unwrap();
    let seen = AtomicUsize::new(0);
    eventually("all three have answered", || {
        let mut stream = host.tcp();
        stream.write_all(b"?").unwrap();
        let answer = read_exactly(&mut stream, 2);
        assert_eq!(answer[1], 100 + answer[0]);
        seen.fetch_or(1 << answer[0], Ordering::Relaxed);
        seen.load(Ordering::Relaxed) == 0b111
    });
}

both_ways!(
    hard_case_33_write_then_close_from_another_thread_sends_all,
    hard_case_33_a_write_to_a_dead_generation_reaches_nobody,
);
