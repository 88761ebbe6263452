//! Connecting out, on the simulated kernel and on real sockets.

#[path = "support/refusing.rs"]
mod refusing;

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use reev::sim::Simulation;
use reev::{Close, Config, ConnectOptions, Ctx, EvHandler, Retry, SendError, Server};

use refusing::Refusing;

type Log = Rc<RefCell<Vec<String>>>;

/// Notes every callback.
struct Noting(Log);

impl Noting {
    fn note(&self, text: impl Into<String>) {
        self.0.borrow_mut().push(text.into());
    }
}

impl EvHandler for Noting {
    fn on_open(&mut self, _: &mut Ctx<'_>) -> io::Result<()> {
        self.note("open");
        Ok(())
    }

    fn on_read(&mut self, _: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        self.note(format!("read {}", String::from_utf8_lossy(data)));
        Ok(data.len())
    }

    fn on_connect_fail(&mut self, _: &mut Ctx<'_>, error: io::Error) {
        self.note(format!("fail {:?}", error.kind()));
    }

    fn on_close(&mut self, _: &mut Ctx<'_>, why: &Close) {
        self.note(format!("close {}", why.kind()));
    }
}

fn addrs(texts: &[&str]) -> Vec<SocketAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn taken(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.borrow_mut())
}

#[test]
fn what_is_written_before_waits_for_the_connection() {
    let (mut sim, log) = (Simulation::new(1), Log::default());
    let options = ConnectOptions::default();
    let id = sim.reactor().connect(addrs(&["10.0.0.1:1"]), &options, Noting(log.clone()));
    sim.reactor().conn(id).unwrap().write(b"early");
    sim.settle();
    assert!(taken(&log).is_empty());
    let peer = sim.outgoing().unwrap().accept();
    sim.settle();
    assert_eq!(taken(&log), ["open"]);
    assert_eq!(peer.receive(), b"early");
    peer.send(b"answer");
    peer.finish();
    sim.settle();
    assert_eq!(taken(&log), ["read answer", "close peer"]);
    assert_eq!(sim.open_sockets(), 0);
}

#[test]
fn hard_case_25_refused_everywhere_is_told_once_with_the_first_reason() {
    let (mut sim, log) = (Simulation::new(2), Log::default());
    let two = addrs(&["10.0.0.1:1", "10.0.0.2:1"]);
    sim.reactor().connect(two, &ConnectOptions::default(), Noting(log.clone()));
    sim.settle();
    sim.outgoing().unwrap().refuse();
    sim.settle();
    assert!(taken(&log).is_empty(), "one address is left");
    sim.outgoing().unwrap().refuse();
    sim.settle();
    assert_eq!(taken(&log), ["fail ConnectionRefused"]);
    assert!(sim.outgoing().is_none());
    assert_eq!(sim.open_sockets(), 0);
    let stats = &sim.handle().stats()[0];
    assert_eq!((stats.open, stats.timers, stats.connect_errors), (0, 0, 1));
}

/// Planted: nobody tells the `Remote` that there is nothing to reach.
#[test]
fn a_remote_of_what_was_never_connected_is_closed() {
    for way in ["refused", "timeout", "cancelled", "stopped"] {
        let (mut sim, log) = (Simulation::new(1), Log::default());
        let to = addrs(&["10.0.0.1:1"]);
        let id = sim.reactor().connect(to, &ConnectOptions::default(), Noting(log.clone()));
        let remote = sim.reactor().conn(id).unwrap().remote();
        remote.write("early").unwrap();
        sim.settle();
        assert_eq!(remote.pending_output(), 5);
        let attempt = sim.outgoing().unwrap();
        match way {
            "refused" => attempt.refuse(),
            "timeout" => sim.advance(Duration::from_secs(10)),
            "cancelled" => remote.close().unwrap(),
            _ => sim.handle().stop(),
        }
        sim.settle();
        assert!(taken(&log)[0].starts_with("fail "));
        assert_eq!((remote.is_open(), remote.pending_output()), (false, 0), "{way}");
        assert_eq!(remote.write("late"), Err(SendError::Closed), "{way}");
    }
}

/// A handler that takes over connects and changes its mind in its first callback. Planted: what
/// is to end ends before the handlers of the last callback are in their slots.
#[test]
fn cancelled_in_the_first_callback_of_a_handler_that_takes_over() {
    struct TakesOver(Log);
    impl EvHandler for TakesOver {
        fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
            let to = addrs(&["10.0.0.1:1"]);
            let id = cx.connect(to, &ConnectOptions::default(), Noting(self.0.clone()));
            cx.conn(id).unwrap().abort();
            Ok(())
        }
        fn on_read(&mut self, _: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
            Ok(data.len())
        }
    }
    struct MakesWay(Log);
    impl EvHandler for MakesWay {
        fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
            cx.replace(TakesOver(self.0.clone()));
            Ok(data.len())
        }
    }
    let (mut sim, log) = (Simulation::new(1), Log::default());
    let listener = {
        let log = log.clone();
        sim.listen(move |_| MakesWay(log.clone()))
    };
    let peer = sim.connect(listener);
    peer.send(b"x");
    sim.settle();
    assert_eq!(taken(&log), ["fail ConnectionAborted"]);
}

#[test]
fn the_next_address_starts_after_the_stagger_and_the_first_to_answer_wins() {
    let (mut sim, log) = (Simulation::new(3), Log::default());
    let two = addrs(&["10.0.0.1:1", "10.0.0.2:1"]);
    sim.reactor().connect(two, &ConnectOptions::default(), Noting(log.clone()));
    sim.settle();
    let first = sim.outgoing().unwrap();
    assert!(sim.outgoing().is_none());
    sim.advance(Duration::from_millis(250));
    let second = sim.outgoing().unwrap().accept();
    sim.settle();
    assert_eq!(taken(&log), ["open"]);
    assert!(first.is_abandoned());
    assert!(!second.is_released());
    assert_eq!(sim.open_sockets(), 1);
    assert_eq!(sim.handle().stats()[0].timers, 0);
}

#[test]
fn timeout_and_cancel_have_one_outcome() {
    let (mut sim, log) = (Simulation::new(4), Log::default());
    let options = ConnectOptions { timeout: Duration::from_secs(3), ..ConnectOptions::default() };
    sim.reactor().connect(addrs(&["10.0.0.1:1"]), &options, Noting(log.clone()));
    sim.advance(Duration::from_secs(4));
    assert_eq!(taken(&log), ["fail TimedOut"]);
    assert!(sim.outgoing().unwrap().is_abandoned());

    let id = sim.reactor().connect(addrs(&["10.0.0.1:1"]), &options, Noting(log.clone()));
    sim.settle();
    sim.reactor().conn(id).unwrap().close();
    sim.advance(Duration::from_secs(4));
    assert_eq!(taken(&log), ["fail ConnectionAborted"]);
    assert_eq!(sim.open_sockets(), 0);

    // Closed before anything was started, and a target that does not parse.
    let id = sim.reactor().connect(addrs(&["10.0.0.1:1"]), &options, Noting(log.clone()));
    sim.reactor().conn(id).unwrap().abort();
    sim.reactor().connect("nonsense", &options, Noting(log.clone()));
    sim.settle();
    assert_eq!(taken(&log), ["fail ConnectionAborted", "fail InvalidInput"]);
    assert_eq!(sim.handle().stats()[0].open, 0);
}

/// Planted: the system's error is passed on as it is.
#[test]
fn a_failure_names_the_address_or_all_and_the_time() {
    struct Saying(Log);
    impl EvHandler for Saying {
        fn on_connect_fail(&mut self, _: &mut Ctx<'_>, error: io::Error) {
            self.0.borrow_mut().push(error.to_string());
        }
    }
    let (mut sim, log) = (Simulation::new(12), Log::default());
    let options = ConnectOptions { timeout: Duration::from_secs(3), ..ConnectOptions::default() };
    sim.reactor().connect("192.0.2.1:80", &options, Saying(log.clone()));
    sim.settle();
    sim.outgoing().unwrap().refuse();
    sim.settle();
    let refused = taken(&log).remove(0);
    assert!(refused.starts_with("cannot connect to 192.0.2.1:80: Connection refused"), "{refused}");
    sim.reactor().connect("192.0.2.1:80", &options, Saying(log.clone()));
    let two = addrs(&["10.0.0.1:1", "[::1]:2"]);
    sim.reactor().connect(two, &options, Saying(log.clone()));
    sim.reactor().connect(Vec::new(), &options, Saying(log.clone()));
    sim.advance(Duration::from_secs(4));
    let late = "cannot connect to tcp://192.0.2.1:80 within 3s";
    let both = "cannot connect to any of [10.0.0.1:1, [::1]:2] within 3s";
    assert_eq!(taken(&log), ["no address is given", late, both]);
}

#[test]
fn tries_are_repeated_with_growing_waits() {
    let (mut sim, log) = (Simulation::new(5), Log::default());
    let retry = Retry { tries: 2, ..Retry::default() };
    let options = ConnectOptions { retry: Some(retry), ..ConnectOptions::default() };
    sim.reactor().connect(addrs(&["10.0.0.1:1"]), &options, Noting(log.clone()));
    for wait in [100, 200] {
        sim.settle();
        sim.outgoing().unwrap().refuse();
        sim.settle();
        assert!(sim.outgoing().is_none() && taken(&log).is_empty());
        sim.advance(Duration::from_millis(wait));
    }
    sim.outgoing().unwrap().refuse();
    sim.advance(Duration::from_secs(60));
    assert_eq!(taken(&log), ["fail ConnectionRefused"]);
    assert!(sim.outgoing().is_none());
}

#[test]
fn shutdown_cancels_what_is_under_way() {
    let (mut sim, log) = (Simulation::new(6), Log::default());
    let options = ConnectOptions::default();
    sim.reactor().connect(addrs(&["10.0.0.1:1"]), &options, Noting(log.clone()));
    sim.settle();
    let shutdown = sim.handle().shutdown(Duration::from_secs(1));
    sim.settle();
    assert!(!sim.turn());
    assert_eq!(shutdown.wait(), 0);
    assert_eq!(taken(&log), ["fail ConnectionAborted"]);
}

/// Success, timeout, refusal and cancellation come in one turn, on a kernel that reorders and
/// withholds events: whichever comes first counts, and it alone.
/// Planted: the attempts that have not won are not closed.
#[test]
fn hard_case_25_a_race_of_answer_timeout_and_cancel_has_one_outcome() {
    let mut outcomes = std::collections::BTreeMap::<String, usize>::new();
    for seed in 0..2000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut sim = Simulation::with(seed, reev::sim::Faults::hostile(), Config::default());
        let log = Log::default();
        let timeout = Duration::from_millis(rng.u64(1..4));
        let stagger = Duration::from_millis(rng.u64(0..3));
        let options = ConnectOptions { timeout, stagger, ..ConnectOptions::default() };
        let two = addrs(&["10.0.0.1:1", "10.0.0.2:1"]);
        let id = sim.reactor().connect(two, &options, Noting(log.clone()));
        let mut peers = Vec::new();
        for _ in 0..6 {
            match rng.u8(0..6) {
                0 => peers.extend(sim.outgoing().map(reev::sim::Outgoing::accept)),
                1 => drop(sim.outgoing().map(reev::sim::Outgoing::refuse)),
                2 => drop(sim.reactor().conn(id).map(|mut cx| cx.close())),
                3 => drop(sim.turn()),
                _ => sim.advance(Duration::from_micros(rng.u64(1..2000))),
            }
        }
        sim.advance(Duration::from_secs(60));
        if let Some(mut cx) = sim.reactor().conn(id) {
            cx.abort();
        }
        sim.advance(Duration::from_secs(60));
        let lines = taken(&log);
        let opened = lines[0] == "open";
        let ended = lines.last().unwrap().starts_with("close ");
        assert!(if opened { ended } else { lines.len() == 1 }, "seed {seed}: {lines:?}");
        assert_eq!(sim.open_sockets(), 0, "seed {seed}: {lines:?}");
        let stats = &sim.handle().stats()[0];
        assert_eq!((stats.open, stats.timers), (0, 0), "seed {seed}: {lines:?}");
        *outcomes.entry(lines[0].clone()).or_default() += 1;
    }
    assert_eq!(outcomes.len(), 4, "each outcome is met: {outcomes:?}");
}

/// The life of a connection is the same whichever side made it: each seed's script of bytes,
/// ends and resets is played on an accepted and on a made connection.
#[test]
fn made_and_accepted_connections_live_the_same_life() {
    for seed in 0..300 {
        let lives = [false, true].map(|made| {
            let (mut sim, log) = (Simulation::new(seed), Log::default());
            let peer = if made {
                let options = ConnectOptions::default();
                sim.reactor().connect(addrs(&["10.0.0.1:1"]), &options, Noting(log.clone()));
                sim.settle();
                sim.outgoing().unwrap().accept()
            } else {
                let shared = log.clone();
                let listener = sim.listen(move |_| Noting(shared.clone()));
                sim.connect(listener)
            };
            sim.settle();
            let mut rng = fastrand::Rng::with_seed(seed);
            let id = sim.reactor().conn_ids()[0];
            for _ in 0..rng.usize(1..8) {
                match rng.u8(0..8) {
                    0..3 => peer.send(b"bytes"),
                    3 => peer.finish(),
                    4 => peer.reset(),
                    5 => drop(sim.reactor().conn(id).map(|mut cx| cx.write(b"answer"))),
                    6 => drop(sim.reactor().conn(id).map(|mut cx| cx.close())),
                    _ => drop(sim.reactor().conn(id).map(|mut cx| cx.abort())),
                }
                sim.settle();
            }
            sim.advance(Duration::from_secs(60));
            (taken(&log), peer.receive(), peer.saw_fin(), peer.saw_reset())
        });
        assert_eq!(lives[0], lives[1], "seed {seed}");
    }
}

/// Sends its outcome to the test's thread.
struct Telling(mpsc::Sender<String>);

impl EvHandler for Telling {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.write(b"hello");
        self.0.send("open".to_owned()).map_err(io::Error::other)
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        self.0.send(String::from_utf8_lossy(data).into_owned()).map_err(io::Error::other)?;
        cx.close();
        Ok(data.len())
    }

    fn on_connect_fail(&mut self, _: &mut Ctx<'_>, error: io::Error) {
        let _ = self.0.send(format!("fail {:?}", error.kind()));
    }
}

fn on_a_reactor(target: String) -> (reev::Running, mpsc::Receiver<String>) {
    let config = Config { reactors: 1, pin: false, ..Config::default() };
    let running = Server::new(config).unwrap().start(|_| Ok(())).unwrap();
    let (tell, told) = mpsc::channel();
    let connect = move |reactor: &mut reev::Reactor| {
        reactor.connect(&target, &ConnectOptions::default(), Telling(tell));
    };
    running.handle().run_on(0, connect).unwrap();
    (running, told)
}

#[test]
fn a_name_is_resolved_and_connected_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (running, told) = on_a_reactor(format!("tcp://localhost:{port}"));
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(told.recv().unwrap(), "open");
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    stream.write_all(b"bye").unwrap();
    assert_eq!(told.recv().unwrap(), "bye");
    assert_eq!(stream.read(&mut hello).unwrap(), 0);
    running.handle().stop();
    running.join().unwrap();
}

#[test]
fn hard_case_25_a_real_refusal_is_a_refusal() {
    let refusing = Refusing::new();
    let (running, told) = on_a_reactor(format!("tcp://{}", refusing.addr()));
    assert_eq!(told.recv().unwrap(), "fail ConnectionRefused");
    assert!(told.recv().is_err(), "told once, and the handler dropped");
    running.handle().stop();
    running.join().unwrap();
}
