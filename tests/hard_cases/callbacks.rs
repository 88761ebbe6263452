//! Cases 5 and 7: what a callback asks for, wherever it runs, takes effect once, and after it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use reev::sim::{Faults, Simulation};
use reev::{Config, ConnId, Ctx};

use crate::common::origin::{Origin, both_ways};
use crate::common::{Log, What, each, usual};

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
    hard_case_05_close_from_everywhere,
    hard_case_05_a_replacement_that_comes_too_late_is_dropped,
    hard_case_05_close_during_stop,
    hard_case_07_another_connection_without_an_event,
    hard_case_07_reentrancy,
);
