//! Cases 1 to 7: who an event is for, and when it is over.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use reev::sim::{Faults, Simulation};
use reev::{Config, ConnId, Ctx, Remote, SendError, TimerId};
use socket2::SockRef;

use crate::common::origin::{Origin, both_ways};
use crate::common::{Log, Serving, What, each, in_child, read_all, slot, until, usual};

/// Planted: the loop looks an event's connection up by its slot alone; a freed slot keeps its
/// generation.
fn hard_case_01_stale_event_reused_fd(origin: Origin) {
    let mut reused = 0;
    for seed in 0..300 {
        let faults = Faults { shuffle: true, ..Faults::default() };
        let mut sim = Simulation::with(seed, faults, Config::default());
        let log = Log::default();
        let ids = Rc::new(RefCell::new(Vec::new()));
        let old = Rc::new(RefCell::new(None::<(Remote, TimerId)>));
        let door = origin.listen(&mut sim, {
            let (log, ids, old) = (log.clone(), ids.clone(), old.clone());
            let mut n = 0;
            move |_| {
                n += 1;
                let (ids, old) = (ids.clone(), old.clone());
                log.each(["a", "b", "c"][n - 1], move |cx, what| {
                    if let What::Open = what {
                        ids.borrow_mut().push(cx.id());
                    }
                    match (n, what) {
                        (1, What::Read(data)) => {
                            let b = ids.borrow()[1];
                            if let Some(mut b) = cx.conn(b) {
                                b.abort();
                            }
                            return Ok(data.len());
                        }
                        (1, What::Notify(_)) => {
                            // The old names find nothing, though the slot has a new owner.
                            let b = ids.borrow()[1];
                            assert!(cx.conn(b).is_none());
                            let (remote, timer) = old.borrow().clone().unwrap();
                            assert!(!cx.cancel_timer(timer));
                            assert_eq!(remote.notify(1), Err(SendError::Closed));
                        }
                        (2, What::Open) => {
                            let timer = cx.set_timer(Duration::from_secs(1));
                            *old.borrow_mut() = Some((cx.remote(), timer));
                        }
                        (3, What::Open) => {
                            cx.pause_reads();
                            cx.set_timer(Duration::from_secs(9));
                        }
                        (_, what) => return usual(cx, what),
                    }
                    Ok(0)
                })
            }
        });
        let (a, b) = (door.connect(&mut sim), door.connect(&mut sim));
        sim.settle();
        let a_remote = {
            let a = ids.borrow()[0];
            sim.reactor().conn(a).unwrap().remote()
        };
        // All in one batch: A closes B, C takes B's slot and descriptor, B's end is told.
        a.send(b"close B");
        b.reset();
        let c = door.accepted(&mut sim);
        sim.settle();
        a_remote.notify(0).unwrap();
        sim.settle();
        sim.advance(Duration::from_secs(5));
        assert!(!log.has("a", "close panic"), "seed {seed}: {:?}", log.lines());
        assert_eq!(log.of("c"), ["open"], "seed {seed}: {:?}", log.lines());
        assert!(!c.is_released());
        // C is still heard, though it does not read.
        c.finish();
        sim.settle();
        assert_eq!(log.of("c"), ["open", "eof", "close peer"], "seed {seed}");
        reused += usize::from(slot(ids.borrow()[1]) == slot(ids.borrow()[2]));
    }
    assert!(reused >= 100, "the slot was reused in {reused} runs only");
}

/// As above, on real sockets: the batch is A's request, C's connect, B's end, in this order.
/// Planted: the same.
fn hard_case_01_stale_event_reused_fd_on_real_sockets(origin: Origin) {
    let (told, events) = mpsc::channel();
    let ids = Arc::new(Mutex::new(Vec::new()));
    let serving = Serving::tcp({
        let ids = ids.clone();
        move |_| {
            let (told, ids) = (told.clone(), ids.clone());
            let n = Cell::new(0);
            each(move |cx, what| {
                match what {
                    What::Open => {
                        let mut ids = ids.lock().unwrap();
                        ids.push(cx.id());
                        n.set(ids.len());
                        if n.get() == 3 {
                            cx.pause_reads();
                        }
                        told.send((n.get(), "open")).unwrap();
                    }
                    What::Read(data) => {
                        let b: ConnId = ids.lock().unwrap()[1];
                        if let Some(mut b) = cx.conn(b) {
                            b.abort();
                        }
                        return Ok(data.len());
                    }
                    What::Close(why) => told.send((n.get(), why.kind())).unwrap(),
                    other => return usual(cx, other),
                }
                Ok(0)
            })
        }
    });
    let mut a = serving.peer(origin);
    assert_eq!(events.recv().unwrap(), (1, "open"));
    let b = serving.peer(origin);
    assert_eq!(events.recv().unwrap(), (2, "open"));
    let stalled = serving.stall();
    a.write_all(b"close B").unwrap();
    let c = serving.connect();
    SockRef::from(&b).set_linger(Some(Duration::ZERO)).unwrap();
    drop(b); // with a reset, which nobody can mask
    drop(stalled);
    assert_eq!(events.recv().unwrap(), (2, "aborted"));
    assert_eq!(events.recv().unwrap(), (3, "open"));
    {
        let ids = ids.lock().unwrap();
        assert_eq!(slot(ids[1]), slot(ids[2]));
    }
    drop(c);
    let end = events.recv_timeout(Duration::from_secs(10));
    assert_eq!(end, Ok((3, "peer")), "C is not heard any more");
}

/// Planted: the loop looks an event's connection up by its slot alone (the dead ones' hang-ups
/// then end the new ones); a closed connection's handler is dropped only with the reactor.
fn hard_case_02_freed_object_in_poll_data(origin: Origin) {
    struct Alive(Rc<Cell<usize>>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }
    for seed in 0..40 {
        let faults = Faults { shuffle: true, ..Faults::default() };
        let mut sim = Simulation::with(seed, faults, Config::default());
        let (alive, ids) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(Vec::<ConnId>::new())));
        let seen = Rc::new(RefCell::new(Vec::new()));
        let door = origin.listen(&mut sim, {
            let (alive, ids, seen) = (alive.clone(), ids.clone(), seen.clone());
            move |_| {
                alive.set(alive.get() + 1);
                let (held, ids, seen) = (Alive(alive.clone()), ids.clone(), seen.clone());
                each(move |cx, what| {
                    let _ = &held;
                    let new = ids.borrow().len() >= 64;
                    match what {
                        What::Open => {
                            if new {
                                cx.pause_reads();
                            }
                            ids.borrow_mut().push(cx.id());
                        }
                        What::Read(data) => {
                            let me = cx.id();
                            for &id in ids.borrow()[..64].iter().filter(|&&id| id != me) {
                                if let Some(mut other) = cx.conn(id) {
                                    other.abort();
                                }
                            }
                            seen.borrow_mut().push(me);
                            return Ok(data.len());
                        }
                        What::Eof => seen.borrow_mut().push(cx.id()),
                        _ => {}
                    }
                    Ok(0)
                })
            }
        });
        let old: Vec<_> = (0..64).map(|_| door.connect(&mut sim)).collect();
        sim.settle();
        assert_eq!(alive.get(), 64);
        for peer in &old {
            peer.send(b"x");
            peer.close();
        }
        let new: Vec<_> = (0..32).map(|_| door.accepted(&mut sim)).collect();
        // The first to be called ends the others; their memory is gone, their events are not.
        sim.turn();
        assert_eq!(seen.borrow().len(), 1, "seed {seed}");
        assert_eq!(alive.get(), 1 + ids.borrow().len() - 64, "seed {seed}");
        while ids.borrow().len() < 96 {
            sim.turn();
        }
        assert!(alive.get() <= 33, "seed {seed}: {} alive", alive.get());
        for peer in &new {
            peer.finish();
        }
        sim.settle();
        for &id in &ids.borrow()[64..] {
            let told = seen.borrow().iter().filter(|&&seen| seen == id).count();
            assert_eq!(told, 1, "seed {seed}: {id:?} was told {told} times");
        }
    }
}

/// Planted: the socket of a refused connection is kept; its timers are kept.
fn hard_case_03_registration_refused(origin: Origin) {
    for way in ["error", "panic"] {
        let mut sim = Simulation::new(1);
        let log = Log::default();
        let remote = Rc::new(RefCell::new(None::<Remote>));
        let door = origin.listen(&mut sim, {
            let (log, remote) = (log.clone(), remote.clone());
            let mut n = 0;
            move |_| {
                n += 1;
                let remote = remote.clone();
                log.each(&format!("{n}"), move |cx, what| {
                    if let What::Open = what {
                        cx.set_timer(Duration::from_secs(1));
                        cx.set_periodic(Duration::from_millis(1));
                        cx.idle_timeout(Duration::from_secs(2));
                        cx.write(b"small");
                        cx.write(&[7; 100_000]);
                        *remote.borrow_mut() = Some(cx.remote());
                        if way == "panic" {
                            panic!("refused");
                        }
                        return Err(io::Error::other("refused"));
                    }
                    Ok(0)
                })
            }
        });
        for round in 1..=3 {
            let peer = door.connect(&mut sim);
            sim.settle();
            assert_eq!(log.of(&round.to_string()), ["open", &format!("close {way}")]);
            assert!(peer.is_released());
            assert_eq!(sim.open_sockets(), 1, "only the listener is left");
            let stats = &sim.handle().stats()[0];
            assert_eq!((stats.open, stats.timers), (0, 0));
            assert_eq!(remote.borrow().as_ref().unwrap().notify(1), Err(SendError::Closed));
        }
        let waits = sim.calls().waits;
        sim.advance(Duration::from_secs(10));
        assert!(sim.calls().waits - waits <= 4, "nothing is left to wake for");
        log.verify_ended();
    }
}

/// Finds the accepted socket whose peer is `peer`, and copies its descriptor.
#[allow(unsafe_code)]
fn copy_of_socket(peer: std::net::SocketAddr) -> OwnedFd {
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let name = entry.unwrap().file_name();
        let fd: i32 = name.to_str().unwrap().parse().unwrap();
        // SAFETY: the descriptor is used for one call; the test keeps the socket it looks for
        // open, and asking any other descriptor for its peer is harmless.
        let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
        let found = socket2::SockRef::from(&borrowed).peer_addr();
        if found.is_ok_and(|addr| addr.as_socket() == Some(peer)) {
            return borrowed.try_clone_to_owned().unwrap();
        }
    }
    panic!("no socket with the peer {peer}");
}

/// Planted: close() without EPOLL_CTL_DEL.
fn hard_case_04_a_dup_of_the_fd_exists(origin: Origin) {
    if !in_child(&format!("identity::{origin}::hard_case_04_a_dup_of_the_fd_exists")) {
        return; // descriptors are searched, so no other test may open and close some
    }
    let (told, events) = mpsc::channel();
    let serving = Serving::tcp(move |_| {
        let told = told.clone();
        each(move |cx, what| {
            match what {
                What::Open => told.send("open").unwrap(),
                What::Read(data) => {
                    cx.abort();
                    return Ok(data.len());
                }
                What::Close(why) => told.send(why.kind()).unwrap(),
                _ => {}
            }
            Ok(0)
        })
    });
    let mut client = serving.peer(origin);
    assert_eq!(events.recv().unwrap(), "open");
    let copy = copy_of_socket(client.local_addr().unwrap());
    client.write_all(b"abort").unwrap();
    assert_eq!(events.recv().unwrap(), "aborted");
    until("the slot is free", || serving.handle.stats()[0].open == 0);
    // The copy keeps the socket alive: it is readable, and no poller may know it.
    client.write_all(b"more").unwrap();
    serving.comes_to_rest();
    drop(copy);
}

/// Planted: accept4 without SOCK_CLOEXEC; the poller without EPOLL_CLOEXEC.
fn hard_case_04_descriptors_are_close_on_exec(origin: Origin) {
    if !in_child(&format!("identity::{origin}::hard_case_04_descriptors_are_close_on_exec")) {
        return; // a child of this process is to see only this test's descriptors
    }
    fn inherited() -> Vec<String> {
        let output = std::process::Command::new("ls").arg("/proc/self/fd").output().unwrap();
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
    let before = inherited();
    let serving = Serving::tcp(|_| each(usual));
    let clients: Vec<_> = (0..8).map(|_| serving.peer(origin)).collect();
    until("all are accepted", || serving.handle.stats()[0].open == 8);
    assert_eq!(inherited(), before);
    drop(clients);
}

/// The ways to end a connection in one of its callbacks, alone and on top of each other.
const WAYS: [&str; 11] = [
    "close",
    "abort",
    "error",
    "panic",
    "close close",
    "abort close",
    "close abort",
    "close error",
    "replace close",
    "close replace",
    "replace error",
];

fn end(cx: &mut Ctx<'_>, log: &Log, way: &str) -> io::Result<()> {
    for step in way.split(' ') {
        match step {
            "close" => cx.close(),
            "abort" => cx.abort(),
            "replace" => cx.replace(log.each(&format!("next of {:?}", cx.id()), usual)),
            "panic" => panic!("as asked"),
            _ => return Err(io::Error::other("as asked")),
        }
    }
    Ok(())
}

fn end_in(origin: Origin, place: &'static str, way: &'static str, linger: Duration) {
    let config =
        Config { linger_timeout: linger, output_low: 100, output_high: 1000, ..Config::default() };
    let faults = Faults { send_buffer_max: 2000, ..Faults::default() };
    let mut sim = Simulation::with(3, faults, config);
    let log = Log::default();
    let ids = Rc::new(RefCell::new(Vec::<ConnId>::new()));
    let door = origin.listen(&mut sim, {
        let (log, ids) = (log.clone(), ids.clone());
        let mut n = 0;
        move |_| {
            n += 1;
            let (ids, log_in) = (ids.clone(), log.clone());
            log.each(&format!("{n}"), move |cx, what| {
                let here = match &what {
                    What::Open => {
                        ids.borrow_mut().push(cx.id());
                        cx.set_timer(Duration::from_millis(5));
                        if place == "drain" {
                            cx.write(&[1; 5000]);
                        }
                        "open"
                    }
                    What::Read(_) => "read",
                    What::Eof => "eof",
                    What::Drain => "drain",
                    What::Timeout(_) => "timeout",
                    What::Notify(_) => "notify",
                    What::Close(_) => {
                        // Nothing that is asked for here may take effect, or harm.
                        cx.write(b"too late");
                        cx.set_timer(Duration::ZERO);
                        cx.close();
                        cx.abort();
                        cx.replace(each(usual));
                        return Ok(0);
                    }
                };
                if place == here && n == 1 {
                    end(cx, &log_in, way)?;
                }
                if place == "other" && here == "read" && n == 2 {
                    let first = ids.borrow()[0];
                    if let Some(mut first) = cx.conn(first) {
                        end(&mut first, &log_in, way)?;
                    }
                }
                Ok(if let What::Read(data) = what { data.len() } else { 0 })
            })
        }
    });
    let (one, two) = (door.connect(&mut sim), door.connect(&mut sim));
    sim.settle();
    let remote = {
        let id = ids.borrow()[0];
        sim.reactor().conn(id).map(|mut cx| cx.remote())
    };
    match place {
        "read" => one.send(b"x"),
        "eof" => one.finish(),
        "drain" => {
            for _ in 0..20 {
                one.receive();
                sim.settle();
            }
        }
        "timeout" => sim.advance(Duration::from_millis(5)),
        "notify" => remote.clone().unwrap().notify(1).unwrap(),
        "other" => two.send(b"x"),
        "remote" => {
            let remote = remote.clone().unwrap();
            for step in way.split(' ') {
                let _ = if step == "close" { remote.close() } else { remote.abort() };
            }
        }
        "task" => {
            let (id, log) = (ids.borrow()[0], log.clone());
            if let Some(mut cx) = sim.reactor().conn(id) {
                let _ = end(&mut cx, &log, way);
            }
        }
        _ => {}
    }
    sim.settle();
    let case = format!("{way} in {place}, linger {linger:?}: {:?}", log.lines());
    let at_once = place != "other" && place != "task" || !way.starts_with("error");
    assert!(!at_once || log.of("1").last().unwrap().starts_with("close"), "{case}");
    for peer in [&one, &two] {
        peer.receive();
        peer.finish();
    }
    sim.advance(Duration::from_secs(60));
    log.verify();
    sim.handle().stop();
    sim.settle();
    log.verify_ended();
    assert_eq!(sim.open_sockets(), 0, "{case}");
    let stats = &sim.handle().stats()[0];
    assert_eq!((stats.open, stats.timers), (0, 0), "{case}");
}

/// Planted: `end_handler` calls on_close of a handler that was never opened; `finish` forgets
/// the handler of an aborted connection.
fn hard_case_05_close_from_everywhere(origin: Origin) {
    for linger in [Duration::from_secs(2), Duration::ZERO] {
        for place in ["open", "read", "eof", "drain", "timeout", "notify", "other", "task"] {
            for way in WAYS {
                if way == "panic" && (place == "other" || place == "task") {
                    continue; // that is the other's panic
                }
                end_in(origin, place, way, linger);
            }
        }
        for way in ["close", "abort", "close close", "close abort", "abort close"] {
            end_in(origin, "remote", way, linger);
        }
    }
}

/// A handler that was to replace another, on a connection that ended instead, is dropped then
/// and not with the next owner of the slot. Planted: it is put into the lingering slot.
fn hard_case_05_a_replacement_that_comes_too_late_is_dropped(origin: Origin) {
    for linger in [Duration::from_secs(2), Duration::ZERO] {
        let config = Config { linger_timeout: linger, ..Config::default() };
        let mut sim = Simulation::with(1, Faults::default(), config);
        let held = Rc::new(());
        let door = origin.listen(&mut sim, {
            let held = held.clone();
            move |_| {
                let held = held.clone();
                each(move |cx, what| {
                    if let What::Read(_) = what {
                        let inner = held.clone();
                        cx.replace(each(move |cx, what| {
                            let _ = &inner;
                            usual(cx, what)
                        }));
                        cx.close();
                    }
                    usual(cx, what)
                })
            }
        });
        let peer = door.connect(&mut sim);
        peer.send(b"x");
        sim.settle();
        assert_eq!(peer.is_released(), linger.is_zero());
        assert_eq!(Rc::strong_count(&held), 2, "the test's and the factory's");
    }
}

/// A handler that was closed before its on_open came gets neither. Planted: as above.
#[test]
fn hard_case_05_closed_before_on_open() {
    for way in ["close", "abort"] {
        let mut sim = Simulation::new(1);
        let log = Log::default();
        let id = sim.reactor().add(log.each("added", usual));
        end(&mut sim.reactor().conn(id).unwrap(), &log, way).unwrap();
        sim.settle();
        assert_eq!(log.lines(), [""; 0]);
        assert_eq!(sim.handle().stats()[0].open, 0);
    }
}

/// During a stop, and by the handlers' own calls inside it. Planted: the stop forgets
/// connections that wait for their output to be flushed.
fn hard_case_05_close_during_stop(origin: Origin) {
    let faults = Faults { send_buffer_max: 100, ..Faults::default() };
    let mut sim = Simulation::with(5, faults, Config::default());
    let log = Log::default();
    let ids = Rc::new(RefCell::new(Vec::<ConnId>::new()));
    let door = origin.listen(&mut sim, {
        let (log, ids) = (log.clone(), ids.clone());
        let mut n = 0;
        move |_| {
            n += 1;
            let ids = ids.clone();
            log.each(&format!("{n}"), move |cx, what| {
                match what {
                    What::Open => {
                        ids.borrow_mut().push(cx.id());
                        cx.write(&[0; 1000]);
                        if n % 2 == 0 {
                            cx.close();
                        }
                    }
                    What::Close(_) => {
                        for &id in ids.borrow().iter() {
                            if let Some(mut other) = cx.conn(id) {
                                other.write(b"x");
                                other.close();
                                other.abort();
                            }
                        }
                        cx.add(each(usual));
                    }
                    _ => {}
                }
                Ok(0)
            })
        }
    });
    let _peers: Vec<_> = (0..10).map(|_| door.connect(&mut sim)).collect();
    sim.settle();
    sim.handle().stop();
    sim.handle().stop();
    sim.settle();
    assert!(!sim.turn());
    log.verify_ended();
    assert_eq!(sim.open_sockets(), 0);
}

/// Planted: the backend takes descriptor 0 for "none".
#[allow(unsafe_code)]
fn hard_case_06_fd_0_is_a_valid_fd(origin: Origin) {
    if !in_child(&format!("identity::{origin}::hard_case_06_fd_0_is_a_valid_fd")) {
        return; // it gives away the process's standard input
    }
    let serving = Serving::tcp(|_| {
        each(|cx, what| match what {
            What::Read(data) => {
                cx.write(data);
                Ok(data.len())
            }
            other => usual(cx, other),
        })
    });
    let mut client = serving.peer(origin);
    client.write_all(b"a").unwrap();
    let stalled = serving.stall();
    let second = serving.meeting.begin(origin);
    // SAFETY: nothing in this process uses standard input.
    unsafe { libc::close(0) };
    drop(stalled);
    let begun = |stats: &reev::Stats| stats.accepted + stats.connected;
    until("the second is there", || begun(&serving.handle.stats()[0]) == 2);
    let mut second = TcpStream::from(second.complete()); // which takes a number while it waits
    assert!(second.as_raw_fd() > 0);
    second.write_all(b"hello").unwrap();
    second.shutdown(std::net::Shutdown::Write).unwrap();
    let is_socket = std::fs::read_link("/proc/self/fd/0");
    assert_eq!(read_all(second), (b"hello".to_vec(), None));
    let is_socket = is_socket.map(|link| link.to_string_lossy().starts_with("socket:"));
    assert!(is_socket.unwrap_or(true), "descriptor 0 went to something else");
}

/// What a callback does to another connection takes effect when it returns, though nothing else
/// happens there. Planted: `touch` forgets to list the other connection.
fn hard_case_07_another_connection_without_an_event(origin: Origin) {
    for way in ["write", "close", "abort", "resume"] {
        let mut sim = Simulation::new(1);
        let log = Log::default();
        let ids = Rc::new(RefCell::new(Vec::<ConnId>::new()));
        let door = origin.listen(&mut sim, {
            let (log, ids) = (log.clone(), ids.clone());
            let mut n = 0;
            move |_| {
                n += 1;
                let ids = ids.clone();
                log.each(["a", "b"][n - 1], move |cx, what| {
                    match what {
                        What::Open => {
                            ids.borrow_mut().push(cx.id());
                            cx.pause_reads();
                            if n == 1 {
                                cx.resume_reads();
                            }
                        }
                        What::Read(_) if n == 1 => {
                            let mut b = cx.conn(ids.borrow()[1]).unwrap();
                            match way {
                                "write" => b.write(b"hello"),
                                "close" => b.close(),
                                "abort" => b.abort(),
                                _ => b.resume_reads(),
                            }
                            return Ok(1);
                        }
                        other => return usual(cx, other),
                    }
                    Ok(0)
                })
            }
        });
        let (a, b) = (door.connect(&mut sim), door.connect(&mut sim));
        sim.settle();
        b.send(b"unread");
        sim.settle();
        a.send(b"x");
        sim.settle();
        let expected: &[&str] = match way {
            "write" => &["open"],
            "close" => &["open", "close local"],
            "abort" => &["open", "close aborted"],
            _ => &["open", "read 6"],
        };
        assert_eq!(log.of("b"), expected, "{way}");
        assert_eq!(b.receive(), if way == "write" { b"hello".as_slice() } else { b"" });
        assert_eq!(log.of("a"), ["open", "read 1"]);
        log.verify();
    }
}

/// In each callback of A: write to B, to A through B's name for it, close B, replace B. B's
/// peer sees all in order, and nothing is called inside another callback.
///
/// Planted: `install` opens the new handler without the old one's on_close.
fn hard_case_07_reentrancy(origin: Origin) {
    for seed in 0..50 {
        let mut sim = Simulation::with(seed, Faults::hostile(), Config::default());
        let log = Log::default();
        let ids = Rc::new(RefCell::new(Vec::<ConnId>::new()));
        let expected = Rc::new(RefCell::new([Vec::new(), Vec::new()]));
        let door = origin.listen(&mut sim, {
            let (log, ids, expected) = (log.clone(), ids.clone(), expected.clone());
            let mut n = 0;
            move |_| {
                n += 1;
                let me = n - 1;
                let (ids, expected, log_in) = (ids.clone(), expected.clone(), log.clone());
                let mut step = 0;
                log.each(&format!("{n}"), move |cx, what| {
                    if let What::Close(_) = what {
                        return Ok(0);
                    }
                    if let What::Open = what {
                        ids.borrow_mut().push(cx.id());
                        cx.set_periodic(Duration::from_millis(1 + me as u64));
                        return Ok(0);
                    }
                    let ids = ids.borrow();
                    step += 1;
                    for (target, &id) in ids.iter().enumerate() {
                        let text = format!("[{me}>{target} {step}]");
                        let Some(mut other) = cx.conn(id) else {
                            continue;
                        };
                        other.write(text.as_bytes());
                        expected.borrow_mut()[target].extend_from_slice(text.as_bytes());
                        // And back through the other's eyes.
                        if let Some(mut back) = other.conn(ids[0]) {
                            back.write(b"!");
                            expected.borrow_mut()[0].push(b'!');
                        }
                    }
                    if me == 0 && step == 20 {
                        let mut b = cx.conn(ids[1]).unwrap();
                        let expected = expected.clone();
                        b.write(b"[last of the old]");
                        expected.borrow_mut()[1].extend_from_slice(b"[last of the old]");
                        b.replace(log_in.each("new", move |cx, what| {
                            if let What::Open = what {
                                cx.write(b"[new]");
                                expected.borrow_mut()[1].extend_from_slice(b"[new]");
                            }
                            usual(cx, what)
                        }));
                    }
                    if me == 0 && step == 40 {
                        cx.conn(ids[1]).unwrap().close();
                    }
                    Ok(if let What::Read(data) = what { data.len() } else { 0 })
                })
            }
        });
        let peers = [(); 2].map(|()| {
            let peer = door.connect(&mut sim);
            sim.settle(); // opened in this order
            peer
        });
        let mut got = [Vec::new(), Vec::new()];
        for round in 0..100 {
            if round % 3 == 0 {
                peers[round % 2].send(b"go");
            }
            sim.advance(Duration::from_millis(1));
            for (peer, got) in peers.iter().zip(&mut got) {
                got.extend(peer.receive());
            }
        }
        for _ in 0..200 {
            sim.settle();
            got[1].extend(peers[1].receive());
        }
        assert_eq!(log.of("2").last().unwrap(), "close replaced", "seed {seed}");
        assert_eq!(log.of("new").last().unwrap(), "close local", "seed {seed}");
        assert!(got[1] == expected.borrow()[1], "seed {seed}: {:?}", log.lines());
        let got0 = &got[0];
        assert!(expected.borrow()[0].starts_with(got0) && got0.len() > 20, "seed {seed}");
        log.verify();
    }
}

both_ways!(
    hard_case_01_stale_event_reused_fd,
    #[cfg_attr(
        reev_kqueue_emulation,
        ignore = "it counts on an order that the emulation shuffles"
    )]
    hard_case_01_stale_event_reused_fd_on_real_sockets,
    hard_case_02_freed_object_in_poll_data,
    hard_case_03_registration_refused,
    hard_case_04_a_dup_of_the_fd_exists,
    hard_case_04_descriptors_are_close_on_exec,
    hard_case_05_close_from_everywhere,
    hard_case_05_a_replacement_that_comes_too_late_is_dropped,
    hard_case_05_close_during_stop,
    hard_case_06_fd_0_is_a_valid_fd,
    hard_case_07_another_connection_without_an_event,
    hard_case_07_reentrancy,
);
