//! Hard case 35: a panic ends one connection, and nothing else.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use reev::{Close, ConnId, Ctx, EvHandler, ListenOptions, Placement, Server, TimerId};

use crate::origin::{Meeting, Origin, both_ways};
use crate::support::{
    Echo, Host, Record, config, eventually, logged, ping, quiet_panics, read_exactly,
};

/// Where the planted panic is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Open,
    Read,
    Eof,
    Drain,
    Timeout,
    Notify,
    Shutdown,
    Close,
    Drop,
    Name,
}

struct Panics {
    at: At,
    record: Record,
}

impl Panics {
    fn reached(&self, at: At) {
        assert!(self.at != at, "planted at {at:?}");
    }
}

impl EvHandler for Panics {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.record.note("open");
        self.reached(At::Open);
        match self.at {
            At::Timeout => drop(cx.set_timer(Duration::ZERO)),
            At::Notify => cx.remote().notify(0).unwrap(),
            At::Drain => cx.write(&vec![0; 4 << 20]), // above the high mark, until it is read
            _ => {}
        }
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        self.reached(At::Read);
        self.reached(At::Name);
        cx.close();
        Ok(data.len())
    }

    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.reached(At::Eof);
        cx.close();
        Ok(())
    }

    fn on_drain(&mut self, _cx: &mut Ctx<'_>) -> io::Result<()> {
        self.reached(At::Drain);
        Ok(())
    }

    fn on_timeout(&mut self, _cx: &mut Ctx<'_>, _timer: TimerId) -> io::Result<()> {
        self.reached(At::Timeout);
        Ok(())
    }

    fn on_notify(&mut self, _cx: &mut Ctx<'_>, _value: u64) -> io::Result<()> {
        self.reached(At::Notify);
        Ok(())
    }

    fn on_shutdown(&mut self, _cx: &mut Ctx<'_>) -> io::Result<()> {
        self.reached(At::Shutdown);
        Ok(())
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, why: &Close) {
        self.record.note(why.kind());
        self.reached(At::Close);
    }

    fn name(&self) -> &'static str {
        self.reached(At::Name);
        std::any::type_name::<Self>()
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        self.record.note("drop");
        if self.at == At::Drop && !std::thread::panicking() {
            panic!("planted at {:?}", self.at);
        }
    }
}

/// One listener for the handlers that panic, one for an echo, one reactor for both.
fn panicking(at: At) -> (Host, Meeting, Record) {
    quiet_panics();
    let mut server = Server::new(config(1)).unwrap();
    let echo = server.listen("127.0.0.1:0").unwrap();
    // A small buffer in the system, so that output waits.
    let options = ListenOptions { send_buffer: Some(16 << 10), ..ListenOptions::default() };
    let panics = server.listen_with("127.0.0.1:0", &options).unwrap();
    let record = Record::default();
    let (to, seen) = (server.local_addr(panics), record.clone());
    let meeting =
        Meeting::new(&server.handle(), &to, &options, move |_| Panics { at, record: seen.clone() });
    let seen = record.clone();
    let host = Host::set_up(server, echo, move |reactor| {
        reactor.accept(echo, |_| Echo)?;
        let record = seen.clone();
        reactor.accept(panics, move |_| Panics { at, record: record.clone() })
    });
    (host, meeting, record)
}

/// Planted: `catch_unwind` around the callback is left out (the reactor's thread dies). Planted
/// for `Name`: the name is asked for outside of it.
fn hard_case_35_a_panic_in_any_callback_ends_that_connection_alone(origin: Origin) {
    use At::*;
    for at in [Open, Read, Eof, Drain, Timeout, Notify, Shutdown, Close, Drop, Name] {
        let (host, meeting, record) = panicking(at);
        let mut polite = host.tcp();
        ping(&mut polite);
        let mut victim = TcpStream::from(meeting.peer(origin));
        match at {
            Eof => victim.shutdown(std::net::Shutdown::Write).unwrap(),
            Drain => drop(io::copy(&mut victim, &mut io::sink())), // the panic resets the rest
            Shutdown => {
                // The echo's peer closes, as told; the other is ended by the panic.
                let shutdown = host.handle.shutdown(crate::support::PATIENCE);
                drop(polite);
                assert_eq!(shutdown.wait(), 0);
                assert_eq!(record.seen().calls, ["open", "panic", "drop"]);
                continue;
            }
            _ => victim.write_all(b"x").unwrap_or_default(),
        }
        eventually(at, || record.seen().calls.contains(&"drop"));
        let why = if matches!(at, Close | Drop) { "local" } else { "panic" };
        assert_eq!(record.seen().calls, ["open", why, "drop"], "{at:?}");
        drop(victim);
        eventually(at, || host.stats().open == 1);
        assert_eq!(host.closed("panic"), u64::from(why == "panic"), "{at:?}");
        ping(&mut polite);
    }
}

/// The log has what the panic said and whose it was.
///
/// Planted: the payload is dropped.
#[test]
fn hard_case_35_the_payload_is_logged_with_the_handler_s_type() {
    struct LoudlyPanics;
    impl EvHandler for LoudlyPanics {
        fn on_read(&mut self, _cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
            panic!("planted, with {} bytes", data.len());
        }
    }
    quiet_panics();
    let log = logged();
    let host = Host::serve(config(1), |_| LoudlyPanics);
    host.tcp().write_all(b"12345").unwrap();
    eventually("it is logged", || {
        let mut lines = log.lock().unwrap().clone().into_iter();
        lines.any(|l| l.contains("::LoudlyPanics panicked") && l.contains("planted, with 5 bytes"))
    });
}

/// Planted: the factory is called without `catch_unwind`.
#[test]
fn hard_case_35_a_panic_in_the_factory_costs_that_connection() {
    quiet_panics();
    let log = logged();
    let calls = Arc::new(AtomicUsize::new(0));
    let host = Host::serve(config(1), move |_| {
        assert!(calls.fetch_add(1, Ordering::Relaxed) % 2 == 1, "planted in a factory");
        Echo
    });
    for round in 1..=3 {
        let mut refused = host.tcp();
        let _ = refused.write_all(b"x");
        assert_eq!(io::Read::read(&mut refused, &mut [0]).unwrap_or(0), 0);
        ping(&mut host.tcp());
        eventually("both are gone", || host.stats().open == 0);
        let stats = host.stats();
        assert_eq!((stats.accepted, host.closed("panic")), (2 * round, round));
        assert_eq!(stats.closed.iter().sum::<u64>(), stats.accepted);
    }
    assert!(log.lock().unwrap().iter().any(|line| line.contains("planted in a factory")));
}

/// Planted: the task, or the placement, is called without `catch_unwind`.
#[test]
fn hard_case_35_a_panic_in_a_task_or_a_placement_costs_nothing_else() {
    quiet_panics();
    let broken = Placement::Custom(Arc::new(|_, _| panic!("planted in a placement")));
    let options = ListenOptions { placement: broken, ..ListenOptions::default() };
    let host = Host::serve_on("127.0.0.1:0", config(2), &options, |_| Echo);
    let mut streams: Vec<_> = (0..4).map(|_| host.tcp()).collect();
    streams.iter_mut().for_each(ping);
    host.handle.broadcast(|_| panic!("planted in a task")).unwrap();
    let (done, dones) = mpsc::channel();
    host.handle.broadcast(move |_| done.send(()).unwrap()).unwrap();
    assert_eq!(dones.iter().take(2).count(), 2);
    streams.iter_mut().for_each(ping);
    assert_eq!(host.handle.stats().iter().map(|s| s.open).collect::<Vec<_>>(), [2, 2]);
}

/// A setup that panics on one reactor: no reactor serves, and the caller is told.
///
/// Planted: the others begin to serve without waiting for it.
#[test]
fn hard_case_35_a_panic_in_the_setup_is_told_and_nobody_serves() {
    quiet_panics();
    let mut server = Server::new(config(2)).unwrap();
    let listener = server.listen("127.0.0.1:0").unwrap();
    let to = server.local_addr(listener).socket_addr().unwrap();
    let served = Arc::new(AtomicBool::new(false));
    let seen = served.clone();
    let waiting: Vec<_> = (0..20).map(|_| crate::support::connect(to)).collect();
    let failed = server.start(move |reactor| {
        if reactor.index() == 1 {
            // Time for the other one to serve whoever waits.
            std::thread::sleep(Duration::from_millis(100));
            panic!("planted in a setup");
        }
        let seen = seen.clone();
        reactor.accept(listener, move |_| {
            seen.store(true, Ordering::Relaxed);
            Echo
        })
    });
    assert!(failed.is_err());
    assert!(!served.load(Ordering::Relaxed), "one reactor served before all were ready");
    drop(waiting);
}

/// Other connections of the reactor can be reached in `on_close` after a panic.
///
/// Planted: as of the callbacks.
fn hard_case_35_on_close_after_a_panic_can_tell_others(origin: Origin) {
    struct Pair(Arc<Mutex<Option<ConnId>>>);
    impl EvHandler for Pair {
        fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
            self.0.lock().unwrap().get_or_insert(cx.id());
            Ok(())
        }

        fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
            cx.write(b"half an answer");
            assert!(data != b"panic", "planted");
            Ok(data.len())
        }

        fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
            let first = self.0.lock().unwrap().unwrap();
            if let Some(mut first) = cx.conn(first) {
                first.write(why.kind().as_bytes());
            }
        }
    }
    quiet_panics();
    let first = Arc::new(Mutex::new(None));
    let host = Host::serve(config(1), move |_| Pair(first.clone()));
    let mut first = host.peer::<TcpStream>(origin);
    eventually("the first is there", || host.stats().open == 1);
    host.peer::<TcpStream>(origin).write_all(b"panic").unwrap();
    assert_eq!(read_exactly(&mut first, 5), b"panic");
}

both_ways!(
    hard_case_35_a_panic_in_any_callback_ends_that_connection_alone,
    hard_case_35_on_close_after_a_panic_can_tell_others,
);
