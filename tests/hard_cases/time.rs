//! Cases 29 to 31: timers fire when due, in order, once, and for the living only.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use reev::sim::{Faults, Simulation};
use reev::{Config, Ctx, EvHandler, TimerId, Traffic};

use crate::common::origin::{Origin, both_ways};
use crate::common::{Log, What, each, usual};

const MS: Duration = Duration::from_millis(1);

/// A simulation with one handler without a socket.
fn with_handler(sim: &mut Simulation, handler: impl EvHandler) -> reev::ConnId {
    let id = sim.reactor().add(handler);
    sim.settle();
    id
}

/// When timers fired, by the names they were given.
#[derive(Clone, Default)]
struct Fired(Rc<RefCell<Vec<(&'static str, Duration)>>>);

impl Fired {
    fn names(&self) -> Vec<&'static str> {
        self.0.borrow().iter().map(|(name, _)| *name).collect()
    }
}

/// Planted: ties fire in the heap's order; `fire` calls what was cancelled in the same turn;
/// timers are called while they are collected, so that a zero delay fires in the same turn.
#[test]
fn hard_case_29_timers() {
    let mut sim = Simulation::new(1);
    let fired = Fired::default();
    let handler = {
        let fired = fired.clone();
        let mut start = None::<Instant>;
        let mut timers = Vec::<(TimerId, &'static str)>::new();
        let mut zeros = 0;
        let mut turn = None;
        each(move |cx, what| {
            match what {
                What::Open => {
                    start = Some(cx.now());
                    let mut arm = |after, name| timers.push((cx.set_timer(after), name));
                    arm(20 * MS, "late");
                    arm(10 * MS, "a");
                    arm(10 * MS, "b cancels c");
                    arm(10 * MS, "c");
                    arm(10 * MS, "d moves e");
                    arm(10 * MS, "e");
                    arm(5 * MS, "early");
                    arm(30 * MS, "zero");
                }
                What::Timeout(timer) => {
                    let name = timers.iter().find(|(id, _)| *id == timer).unwrap().1;
                    fired.0.borrow_mut().push((name, cx.now() - start.unwrap()));
                    let id = |name| timers.iter().find(|(_, n)| *n == name).unwrap().0;
                    match name {
                        "b cancels c" => {
                            assert!(cx.cancel_timer(id("c")) && !cx.cancel_timer(id("c")));
                            // The own one is spent, and so is an old one.
                            assert!(!cx.cancel_timer(timer) && !cx.cancel_timer(id("a")));
                            assert!(!cx.reset_timer(timer, MS));
                        }
                        "d moves e" => assert!(cx.reset_timer(id("e"), 15 * MS)),
                        "zero" if zeros < 5 => {
                            assert_ne!(turn, Some(cx.handle().stats()[0].turns), "one a turn");
                            turn = Some(cx.handle().stats()[0].turns);
                            zeros += 1;
                            let new = cx.set_timer(Duration::ZERO);
                            assert!(timers.iter().all(|(old, _)| *old != new));
                            timers.push((new, "zero"));
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
            Ok(0)
        })
    };
    with_handler(&mut sim, handler);
    sim.advance(100 * MS);
    let expected = [
        ("early", 5),
        ("a", 10),
        ("b cancels c", 10),
        ("d moves e", 10),
        ("late", 20),
        ("e", 25),
        ("zero", 30),
        ("zero", 30),
        ("zero", 30),
        ("zero", 30),
        ("zero", 30),
        ("zero", 30),
    ];
    let expected: Vec<_> = expected.iter().map(|&(name, ms)| (name, ms * MS)).collect();
    assert_eq!(*fired.0.borrow(), expected);
    assert_eq!(sim.handle().stats()[0].timers, 0);
}

/// Planted: a periodic timer is armed for `now + period` (drift); for `deadline + period`
/// whatever the time (a burst after a stall).
#[test]
fn hard_case_29_periods_are_skipped_in_a_stall() {
    for seed in 0..50 {
        let mut sim = Simulation::new(seed);
        let fired = Fired::default();
        let handler = {
            let fired = fired.clone();
            let mut start = None::<Instant>;
            each(move |cx, what| {
                match what {
                    What::Open => {
                        start = Some(cx.now());
                        cx.set_periodic(MS);
                    }
                    What::Timeout(_) => {
                        fired.0.borrow_mut().push(("tick", cx.now() - start.unwrap()));
                    }
                    _ => {}
                }
                Ok(0)
            })
        };
        with_handler(&mut sim, handler);
        sim.advance(3 * MS);
        assert_eq!(fired.0.borrow().len(), 3);
        for _ in 0..10 {
            fired.0.borrow_mut().clear();
            sim.set_faults(Faults { time_jump: 100 * MS, ..Faults::default() });
            sim.turn(); // it was away for up to 100 periods
            assert!(fired.names().len() <= 1, "seed {seed}: a burst");
            sim.set_faults(Faults::default());
            fired.0.borrow_mut().clear();
            sim.settle();
            assert!(fired.names().is_empty(), "seed {seed}: a burst");
            sim.advance(4 * MS);
            let times = fired.0.borrow().clone();
            assert_eq!(times.len(), 4, "seed {seed}");
            assert!(times.iter().all(|(_, at)| at.subsec_nanos() % 1_000_000 == 0), "{times:?}");
        }
    }
}

/// Cancelling and re-arming a periodic timer in its own callback. Planted: a periodic timer that
/// was cancelled in its callback is armed again after it.
#[test]
fn hard_case_29_a_periodic_timer_in_its_own_callback() {
    let mut sim = Simulation::new(1);
    let fired = Fired::default();
    let handler = {
        let fired = fired.clone();
        let mut start = None::<Instant>;
        let mut n = 0;
        each(move |cx, what| {
            match what {
                What::Open => {
                    start = Some(cx.now());
                    cx.set_periodic(2 * MS);
                }
                What::Timeout(timer) => {
                    fired.0.borrow_mut().push(("tick", cx.now() - start.unwrap()));
                    n += 1;
                    match n {
                        2 => assert!(cx.reset_timer(timer, 10 * MS)),
                        4 => {
                            assert!(cx.cancel_timer(timer) && !cx.cancel_timer(timer));
                            cx.set_timer(7 * MS);
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
            Ok(0)
        })
    };
    with_handler(&mut sim, handler);
    sim.advance(100 * MS);
    let times: Vec<_> = fired.0.borrow().iter().map(|(_, at)| at.as_millis()).collect();
    assert_eq!(times, [2, 4, 14, 16, 23]);
}

/// What is set for a handler before its first callback waits for that. Planted: timers and
/// notifications are delivered to a handler that has not had its on_open.
#[test]
fn hard_case_29_nothing_comes_before_on_open() {
    let mut sim = Simulation::new(1);
    let log = Log::default();
    let id = sim.reactor().add(log.each("outer", usual));
    let mut cx = sim.reactor().conn(id).unwrap();
    cx.set_timer(Duration::ZERO);
    cx.remote().notify(7).unwrap();
    sim.settle();
    assert_eq!(log.of("outer"), ["open", "notify 7", "timeout"]);
    // The same for one that is added in a callback.
    let adder = {
        let log = log.clone();
        each(move |cx: &mut Ctx<'_>, what| {
            if let What::Timeout(_) = what {
                let id = cx.add(log.each("inner", usual));
                let mut inner = cx.conn(id).unwrap();
                inner.set_timer(Duration::ZERO);
                inner.remote().notify(8).unwrap();
            } else if let What::Open = what {
                cx.set_timer(MS);
            }
            Ok(0)
        })
    };
    with_handler(&mut sim, adder);
    sim.advance(2 * MS);
    assert_eq!(log.of("inner")[0], "open");
    assert_eq!(log.of("inner").len(), 3);
    log.verify();
}

/// Planted: closing does not cancel the connection's timers.
fn hard_case_30_timers_of_closed_connections(origin: Origin) {
    for way in ["close", "abort", "error", "peer"] {
        let mut sim = Simulation::new(1);
        let log = Log::default();
        let door = origin.listen(&mut sim, {
            let log = log.clone();
            move |_| {
                log.each("it", move |cx, what| {
                    match what {
                        What::Open => {
                            cx.set_periodic(MS);
                            cx.set_timer(5 * MS);
                            cx.idle_timeout(50 * MS);
                        }
                        What::Read(data) => {
                            match way {
                                "close" => cx.close(),
                                "abort" => cx.abort(),
                                "error" => return Err(std::io::Error::other("as asked")),
                                _ => {}
                            }
                            cx.set_timer(MS);
                            return Ok(data.len());
                        }
                        other => return usual(cx, other),
                    }
                    Ok(0)
                })
            }
        });
        let peer = door.connect(&mut sim);
        sim.advance(2 * MS);
        peer.send(b"x");
        if way == "peer" {
            peer.finish();
        }
        sim.settle();
        // A new one, perhaps in the same slot.
        let next = door.connect(&mut sim);
        sim.settle();
        drop(next);
        let lines = log.of("it");
        let close = lines.iter().position(|line| line.starts_with("close")).unwrap();
        assert!(!lines[close..].iter().any(|line| line == "timeout"), "{way}: {lines:?}");
        // The new one's three, and that of the old one's socket while it lingers.
        assert_eq!(sim.handle().stats()[0].timers, 3 + u64::from(!peer.is_released()));
    }
}

/// What happens every 60 ms while an idle timeout of 100 ms is set.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Traffics {
    Silence,
    Reads,
    SmallWrites,
    LargeWrites,
    LargeOwned,
    /// Of output that was queued long before, as the peer reads it.
    Flushes,
}

/// Planted: large writes, which are sent at once, do not count as traffic; the timeout fires at
/// its first deadline whatever the traffic; reads count for `Traffic::Writes`.
fn hard_case_30_idle_timeouts_count_both_directions(origin: Origin) {
    use Traffics::*;
    for renewed_by in [Traffic::Both, Traffic::Reads, Traffic::Writes] {
        for traffic in [Silence, Reads, SmallWrites, LargeWrites, LargeOwned, Flushes] {
            let case = format!("{traffic:?} renewing {renewed_by:?}");
            let mut sim = Simulation::new(1);
            if traffic == Flushes {
                sim.set_faults(Faults { send_buffer_max: 10, ..Faults::default() });
            }
            let log = Log::default();
            let closed_at = Rc::new(Cell::new(None::<Instant>));
            let door = origin.listen(&mut sim, {
                let (log, closed_at) = (log.clone(), closed_at.clone());
                move |_| {
                    let closed_at = closed_at.clone();
                    log.each("it", move |cx, what| {
                        match what {
                            What::Open => {
                                if traffic == Flushes {
                                    cx.write(&[1; 1000]);
                                } else {
                                    cx.set_periodic(60 * MS);
                                }
                                cx.idle_timeout_by(100 * MS, renewed_by);
                            }
                            What::Timeout(_) => match traffic {
                                SmallWrites => cx.write(b"x"),
                                LargeWrites => cx.write(&[1; 20_000]),
                                LargeOwned => cx.write_owned(vec![1; 20_000]),
                                _ => {}
                            },
                            What::Close(_) => closed_at.set(Some(cx.now())),
                            other => return usual(cx, other),
                        }
                        Ok(0)
                    })
                }
            });
            let peer = door.connect(&mut sim);
            sim.settle();
            let start = sim.reactor().now();
            for _ in 0..10 {
                sim.advance(60 * MS);
                if traffic == Reads {
                    peer.send(b"x");
                }
                peer.receive();
                sim.settle();
            }
            let lives = match renewed_by {
                Traffic::Reads => traffic == Reads,
                Traffic::Writes => traffic != Reads && traffic != Silence,
                _ => traffic != Silence,
            };
            let lines = log.of("it");
            assert_eq!(!lines.last().unwrap().starts_with("close"), lives, "{case}: {lines:?}");
            if !lives {
                assert_eq!(lines.last().unwrap(), "close idle_timeout", "{case}");
                // Of the initial write of `Flushes`, the first bytes went at the start.
                let after = closed_at.get().unwrap() - start;
                assert!(after >= 100 * MS && after <= 102 * MS, "{case}: after {after:?}");
            }
        }
    }
}

/// An idle end that cuts output short is a reset, not a FIN that looks like a whole answer.
/// Planted: it is a FIN.
fn hard_case_30_an_idle_timeout_with_output_pending(origin: Origin) {
    for (written, reset) in [(0, false), (5, false), (1000, true)] {
        let mut sim = Simulation::new(1);
        sim.set_faults(Faults { send_buffer_max: 10, ..Faults::default() });
        let door = origin.listen(&mut sim, move |_| {
            each(move |cx, what| {
                if let What::Open = what {
                    cx.idle_timeout(50 * MS);
                    cx.write(&vec![1; written]);
                }
                usual(cx, what)
            })
        });
        let peer = door.connect(&mut sim);
        sim.settle();
        let mut got = 0;
        while got < written.min(5) {
            got += peer.receive_at_most(5 - got).len();
            sim.settle();
        }
        sim.advance(200 * MS);
        assert!(peer.is_released());
        assert_eq!((peer.saw_reset(), peer.saw_fin()), (reset, !reset), "{written} written");
    }
}

/// The simulation's clock moves only as the loop sleeps, so a timeout that is rounded down is a
/// spin, which `settle` reports, and one that is rounded up too far is a late timer. Planted:
/// the sleep is cut to whole milliseconds; it is not capped.
#[test]
fn hard_case_31_poll_timeout_rounding() {
    for micros in [1, 300, 999, 1000, 1001, 1500, 123_456] {
        let mut sim = Simulation::new(1);
        let at = Rc::new(Cell::new(None::<Instant>));
        let handler = {
            let at = at.clone();
            each(move |cx, what| {
                match what {
                    What::Open => {
                        cx.set_timer(Duration::from_micros(micros));
                    }
                    What::Timeout(_) => at.set(Some(cx.now())),
                    _ => {}
                }
                Ok(0)
            })
        };
        with_handler(&mut sim, handler);
        let (start, waits) = (sim.reactor().now(), sim.calls().waits);
        sim.advance(200 * MS);
        assert_eq!(at.get().unwrap() - start, Duration::from_micros(micros));
        assert!(sim.calls().waits - waits <= 3, "{micros} us: {} waits", sim.calls().waits - waits);
    }
    let config = Config { poll_timeout_max: 10 * MS, ..Config::default() };
    let mut sim = Simulation::with(1, Faults::default(), config);
    with_handler(
        &mut sim,
        each(|cx, what| {
            if let What::Open = what {
                cx.set_timer(Duration::from_secs(3600));
            }
            Ok(0)
        }),
    );
    let waits = sim.calls().waits;
    sim.advance(1000 * MS);
    let waits = sim.calls().waits - waits;
    assert!((100..=102).contains(&waits), "{waits} waits of 10 ms in a second");
}

/// Processor time that the calling thread has had, in nanoseconds.
fn processor_time() -> u64 {
    let stats = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stats.split_whitespace().next().unwrap().parse().unwrap()
}

/// A reactor that looks for events before it sleeps misses none: messages, bytes, timers. It
/// does look, for as long as it is told, and then it sleeps.
/// Planted: `spin` is not looked at; it is taken for endless; timers do not
/// end it.
#[test]
fn a_reactor_that_spins_misses_nothing_and_sleeps_in_the_end() {
    use std::io::{Read, Write};
    use std::sync::mpsc;

    use crate::common::Serving;
    for (spin, sleeps) in [(Duration::from_secs(3600), false), (Duration::from_millis(2), true)] {
        let (told, ticks) = mpsc::channel();
        let config = Config { spin, ..crate::common::config() };
        let serving = Serving::start(config, "127.0.0.1:0", &Default::default(), move |_| {
            let told = told.clone();
            crate::common::each(move |cx, what| {
                match what {
                    What::Open => drop(cx.set_periodic(Duration::from_millis(3))),
                    What::Timeout(_) => drop(told.send(())),
                    What::Read(data) => {
                        cx.write(data);
                        return Ok(data.len());
                    }
                    other => return usual(cx, other),
                }
                Ok(0)
            })
        });
        let mut client = serving.connect();
        for _ in 0..20 {
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0]).unwrap();
            ticks.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        drop(client);
        crate::common::until("it is closed", || serving.handle.stats()[0].open == 0);
        let had = || serving.ask(|_| processor_time());
        let spent = |rest: Duration| {
            let before = had();
            std::thread::sleep(rest);
            had() - before
        };
        if sleeps {
            let burnt = spent(Duration::from_millis(200));
            assert!(burnt < 100_000_000, "{burnt} ns of 200 ms in which nothing happens");
        } else {
            crate::common::until("it spins", || spent(50 * MS) > 20_000_000);
        }
    }
}

both_ways!(
    hard_case_30_timers_of_closed_connections,
    hard_case_30_idle_timeouts_count_both_directions,
    hard_case_30_an_idle_timeout_with_output_pending,
);
