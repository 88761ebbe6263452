//! Pools of connections, on the simulated kernel.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use reev::sim::{Peer, Simulation};
use reev::{Close, ConnId, Ctx, EvHandler, Pool, PoolOptions, TimerId};

type Log = Rc<RefCell<Vec<String>>>;

/// Asks one question on a connection of the pool, and gives it back with the answer.
struct Ask(&'static str, Pool, Log);

impl EvHandler for Ask {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.write(self.0.as_bytes());
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let answer = String::from_utf8_lossy(data).into_owned();
        self.2.borrow_mut().push(format!("{} {answer}", self.0));
        self.1.release(cx);
        Ok(data.len())
    }

    fn on_connect_fail(&mut self, _: &mut Ctx<'_>, error: io::Error) {
        self.2.borrow_mut().push(format!("{} fail {:?}", self.0, error.kind()));
    }

    fn on_close(&mut self, _: &mut Ctx<'_>, why: &Close) {
        self.2.borrow_mut().push(format!("{} {}", self.0, why.kind()));
    }
}

/// Any handler, to have a `Ctx` from.
struct Nobody;

impl EvHandler for Nobody {}

fn setup(options: PoolOptions) -> (Simulation, Pool, Log) {
    let mut sim = Simulation::new(1);
    let backends = ["10.0.0.1:1", "10.0.0.2:1"];
    let pool = sim.reactor().pool(&backends, options).unwrap();
    sim.settle();
    (sim, pool, Log::default())
}

fn acquire(sim: &mut Simulation, pool: &Pool, handler: impl EvHandler) {
    let id = sim.reactor().add(Nobody);
    sim.settle(); // a turn, which reads the clock
    let mut cx = sim.reactor().conn(id).unwrap();
    pool.acquire(&mut cx, handler);
    cx.close();
    sim.settle();
}

fn ask(sim: &mut Simulation, pool: &Pool, log: &Log, name: &'static str) {
    acquire(sim, pool, Ask(name, pool.clone(), log.clone()));
}

fn answer(sim: &mut Simulation, peer: &Peer, expected: &str) {
    assert_eq!(String::from_utf8(peer.receive()).unwrap(), expected);
    peer.send(b"ok");
    sim.settle();
}

/// Idle, lent, connecting, waiting.
fn counts(pool: &Pool) -> [usize; 4] {
    let stats = pool.stats();
    [stats.idle, stats.lent, stats.connecting, stats.waiting]
}

/// Planted: a time is added to the clock's as it is, which overflows.
#[test]
fn times_that_no_clock_reaches_are_no_bounds() {
    let ever = Duration::MAX;
    let times =
        PoolOptions { max_age: Some(ever), wait_max: ever, rest: ever, ..Default::default() };
    let (mut sim, pool, log) = setup(PoolOptions { max: 1, ..times });
    ask(&mut sim, &pool, &log, "a");
    sim.outgoing().unwrap().refuse();
    sim.settle();
    let peer = sim.outgoing().unwrap().accept();
    sim.settle();
    answer(&mut sim, &peer, "a");
    assert_eq!(*log.borrow(), ["a ok", "a replaced"]);
    assert_eq!(counts(&pool), [1, 0, 0, 0]);
}

#[test]
fn a_connection_is_made_lent_given_back_and_lent_again() {
    let (mut sim, pool, log) = setup(PoolOptions::default());
    ask(&mut sim, &pool, &log, "a");
    assert_eq!(counts(&pool), [0, 0, 1, 1]);
    let peer = sim.outgoing().unwrap().accept();
    sim.settle();
    assert_eq!(counts(&pool), [0, 1, 0, 0]);
    answer(&mut sim, &peer, "a");
    assert_eq!(counts(&pool), [1, 0, 0, 0]);
    ask(&mut sim, &pool, &log, "b");
    answer(&mut sim, &peer, "b");
    assert!(sim.outgoing().is_none(), "one connection is enough");
    assert_eq!(log.take(), ["a ok", "a replaced", "b ok", "b replaced"]);
}

#[test]
fn at_the_maximum_they_wait_in_order_and_no_longer_than_allowed() {
    let options = PoolOptions { max: 1, waiting_max: 2, ..PoolOptions::default() };
    let (mut sim, pool, log) = setup(options);
    for name in ["a", "b", "c"] {
        ask(&mut sim, &pool, &log, name);
        if name == "a" {
            continue;
        }
    }
    assert_eq!(log.take(), ["c fail WouldBlock"]);
    let peer = sim.outgoing().unwrap().accept();
    sim.settle();
    answer(&mut sim, &peer, "a");
    assert_eq!(counts(&pool), [0, 1, 0, 0], "lent on at once");
    ask(&mut sim, &pool, &log, "d");
    sim.advance(Duration::from_secs(6));
    assert_eq!(log.take(), ["a ok", "a replaced", "d fail TimedOut"]);
    answer(&mut sim, &peer, "b");
    assert_eq!(counts(&pool), [1, 0, 0, 0]);
}

#[test]
fn a_dead_idle_connection_is_evicted_at_once_and_replaced() {
    let options = PoolOptions { min_idle: 2, ..PoolOptions::default() };
    let (mut sim, pool, log) = setup(options);
    let first = sim.outgoing().unwrap().accept();
    let second = sim.outgoing().unwrap().accept();
    sim.settle();
    assert_eq!(counts(&pool), [2, 0, 0, 0]);
    first.close();
    second.send(b"nobody asked");
    sim.settle();
    assert_eq!(counts(&pool), [0, 0, 2, 0]);
    ask(&mut sim, &pool, &log, "a");
    let third = sim.outgoing().unwrap().accept();
    sim.settle();
    answer(&mut sim, &third, "a");
    // The lent connection's end is its own handler's affair, and a place is free.
    ask(&mut sim, &pool, &log, "b");
    third.reset();
    sim.settle();
    assert_eq!(log.take(), ["a ok", "a replaced", "b io"]);
    assert_eq!(counts(&pool)[1], 0);
}

#[test]
fn backends_that_refuse_are_passed_over_and_all_refusing_is_told() {
    let (mut sim, pool, log) = setup(PoolOptions::default());
    ask(&mut sim, &pool, &log, "a");
    sim.outgoing().unwrap().refuse();
    sim.settle();
    assert!(log.borrow().is_empty());
    let peer = sim.outgoing().unwrap().accept();
    sim.settle();
    answer(&mut sim, &peer, "a");
    assert_eq!(log.take(), ["a ok", "a replaced"]);

    let (mut sim, pool, log) = setup(PoolOptions::default());
    ask(&mut sim, &pool, &log, "b");
    for _ in 0..2 {
        sim.outgoing().unwrap().refuse();
        sim.settle();
    }
    assert_eq!(log.take(), ["b fail ConnectionRefused"]);
    assert!(sim.outgoing().is_none());
    assert_eq!(counts(&pool), [0; 4]);
}

#[test]
fn old_connections_are_closed_and_not_lent_again() {
    let max_age = Some(Duration::from_secs(10));
    let (mut sim, pool, log) = setup(PoolOptions { max_age, ..PoolOptions::default() });
    ask(&mut sim, &pool, &log, "a");
    let peer = sim.outgoing().unwrap().accept();
    sim.settle();
    answer(&mut sim, &peer, "a");
    sim.advance(Duration::from_secs(11));
    assert!(peer.saw_fin() && counts(&pool) == [0; 4]);
    ask(&mut sim, &pool, &log, "b");
    let peer = sim.outgoing().unwrap().accept();
    sim.advance(Duration::from_secs(11));
    answer(&mut sim, &peer, "b");
    assert!(peer.saw_fin() && counts(&pool) == [0; 4]);
}

#[test]
fn other_threads_acquire_and_shutdown_leaves_nothing() {
    let (mut sim, pool, _) = setup(PoolOptions { max: 1, ..PoolOptions::default() });
    let remote = sim.reactor().pool_remote(&pool).unwrap();
    std::thread::spawn(move || (0..3).for_each(|_| remote.acquire(|| Nobody).unwrap()))
        .join()
        .unwrap();
    sim.settle();
    assert_eq!(counts(&pool), [0, 0, 1, 3]);
    let peer = sim.outgoing().unwrap().accept();
    sim.settle();
    assert_eq!(counts(&pool), [0, 1, 0, 2]);
    let shutdown = sim.handle().shutdown(Duration::from_secs(1));
    sim.settle();
    peer.finish();
    sim.advance(Duration::from_secs(2));
    assert!(!sim.turn());
    assert_eq!(shutdown.wait(), 0);
    assert_eq!(sim.open_sockets(), 0);
}

/// Panics in its last callback.
struct Panics;

impl EvHandler for Panics {
    fn on_close(&mut self, _: &mut Ctx<'_>, _: &Close) {
        panic!("as the test wants");
    }
}

/// Planted: the pool is told of an end after the lent handler, whose panic passes that by.
#[test]
fn a_panic_in_on_close_frees_the_place_too() {
    let (mut sim, pool, log) = setup(PoolOptions { max: 1, ..PoolOptions::default() });
    acquire(&mut sim, &pool, Panics);
    let first = sim.outgoing().unwrap().accept();
    sim.settle();
    ask(&mut sim, &pool, &log, "a");
    assert_eq!(counts(&pool), [0, 1, 0, 1]);
    first.close();
    sim.settle();
    assert_eq!(counts(&pool), [0, 0, 1, 1]);
    let second = sim.outgoing().unwrap().accept();
    sim.settle();
    answer(&mut sim, &second, "a");
    assert_eq!(log.take(), ["a ok", "a replaced"]);
}

/// Works on for a second after the shutdown began, and asks then.
struct Drains(Pool, Log);

impl EvHandler for Drains {
    fn on_shutdown(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.set_timer(Duration::from_secs(1));
        Ok(())
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, _: TimerId) -> io::Result<()> {
        self.0.acquire(cx, Ask("late", self.0.clone(), self.1.clone()));
        cx.close();
        Ok(())
    }
}

/// Planted: an acquire during a graceful shutdown waits for a keeper that has gone.
#[test]
fn an_acquire_during_a_shutdown_is_refused_at_once() {
    let (mut sim, pool, log) = setup(PoolOptions::default());
    sim.reactor().add(Drains(pool.clone(), log.clone()));
    sim.settle();
    let shutdown = sim.handle().shutdown(Duration::from_secs(60));
    sim.advance(Duration::from_secs(1));
    assert_eq!(log.take(), ["late fail ConnectionAborted"]);
    assert!(!sim.turn());
    assert_eq!(shutdown.wait(), 0);
}

/// Asks in its last callback.
struct AsksAtItsEnd(Rc<OnceCell<Pool>>, Log);

impl EvHandler for AsksAtItsEnd {
    fn on_close(&mut self, cx: &mut Ctx<'_>, _: &Close) {
        let pool = self.0.get().unwrap();
        pool.acquire(cx, Ask("last", pool.clone(), self.1.clone()));
    }
}

/// Whether the pool's own end comes first or the asking handler's, which is by their slots.
/// Planted: an idle connection is lent that ends in this turn; no refusal without a keeper.
#[test]
fn an_acquire_while_the_reactor_stops_is_refused() {
    for asks_first in [false, true] {
        let (mut sim, cell, log) = (Simulation::new(1), Rc::new(OnceCell::new()), Log::default());
        if asks_first {
            sim.reactor().add(AsksAtItsEnd(cell.clone(), log.clone()));
        }
        let options = PoolOptions { max: 1, min_idle: 1, ..PoolOptions::default() };
        let pool = sim.reactor().pool(&["10.0.0.1:1"], options).unwrap();
        assert!(cell.set(pool.clone()).is_ok());
        if !asks_first {
            sim.reactor().add(AsksAtItsEnd(cell, log.clone()));
        }
        sim.settle();
        let _peer = sim.outgoing().unwrap().accept();
        sim.settle();
        assert_eq!(counts(&pool), [1, 0, 0, 0]);
        sim.handle().stop();
        assert!(!sim.turn());
        assert_eq!(log.take(), ["last fail ConnectionAborted"], "asks first: {asks_first}");
        assert_eq!(sim.open_sockets(), 0);
    }
}

/// Gives its connection back again and again, and says which it was.
struct GivesBackTwice(Pool, Rc<Cell<ConnId>>);

impl EvHandler for GivesBackTwice {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        self.1.set(cx.id());
        self.0.release(cx);
        self.0.release(cx);
        Ok(data.len())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, _: &Close) {
        self.0.release(cx);
    }
}

/// Planted: a second release puts a second empty handler in place, whose first is taken for one
/// that left the pool; an idle connection that is released is idle twice; one that is released
/// in a last callback stays marked as moving, and is kept though another handler takes it.
#[test]
fn only_the_first_release_of_a_connection_counts() {
    let (mut sim, pool, log) = setup(PoolOptions { max: 1, ..PoolOptions::default() });
    let id = Rc::new(Cell::default());
    acquire(&mut sim, &pool, GivesBackTwice(pool.clone(), id.clone()));
    let peer = sim.outgoing().unwrap().accept();
    sim.settle();
    peer.send(b"x");
    sim.settle();
    assert_eq!(counts(&pool), [1, 0, 0, 0]);
    let mut idle = sim.reactor().conn(id.get()).unwrap();
    pool.release(&mut idle);
    sim.settle();
    assert_eq!(counts(&pool), [1, 0, 0, 0]);

    acquire(&mut sim, &pool, GivesBackTwice(pool.clone(), id.clone()));
    ask(&mut sim, &pool, &log, "a");
    ask(&mut sim, &pool, &log, "b");
    peer.send(b"x");
    sim.settle();
    answer(&mut sim, &peer, "a");
    answer(&mut sim, &peer, "b");
    assert_eq!(log.take(), ["a ok", "a replaced", "b ok", "b replaced"]);
    assert_eq!(counts(&pool), [1, 0, 0, 0]);
    assert!(sim.outgoing().is_none(), "one connection, as allowed");

    acquire(&mut sim, &pool, GivesBackTwice(pool.clone(), id.clone()));
    peer.send(b"x");
    sim.settle();
    sim.reactor().conn(id.get()).unwrap().replace(Nobody);
    sim.settle();
    assert_eq!(counts(&pool), [0; 4]);
}

fn timers(sim: &Simulation) -> u64 {
    sim.handle().stats()[0].timers
}

/// Planted: a timer for each handler that has to wait, and for each connect that failed, which
/// stays until its time comes.
#[test]
fn a_pool_has_one_timer_whoever_waits_and_whatever_fails() {
    let (mut sim, pool, log) = setup(PoolOptions { max: 1, ..PoolOptions::default() });
    ask(&mut sim, &pool, &log, "a");
    let peer = sim.outgoing().unwrap().accept();
    sim.settle();
    for _ in 0..100 {
        ask(&mut sim, &pool, &log, "a");
        answer(&mut sim, &peer, "a");
        assert!(timers(&sim) <= 1);
    }

    let (mut sim, pool, log) = setup(PoolOptions { min_idle: 1, ..PoolOptions::default() });
    for _ in 0..100 {
        ask(&mut sim, &pool, &log, "b");
        while let Some(attempt) = sim.outgoing() {
            attempt.refuse();
            sim.settle();
        }
        assert!(timers(&sim) <= 1);
    }
    assert_eq!(log.borrow().last().unwrap(), "b fail ConnectionRefused");
}

/// Planted: the timer is not set anew for the next when it has fired.
#[test]
fn each_that_waits_is_told_when_its_own_time_is_up() {
    let (mut sim, pool, log) = setup(PoolOptions { max: 1, ..PoolOptions::default() });
    ask(&mut sim, &pool, &log, "a");
    let peer = sim.outgoing().unwrap().accept();
    sim.advance(Duration::from_secs(1));
    for name in ["b", "c", "d"] {
        ask(&mut sim, &pool, &log, name);
        sim.advance(Duration::from_secs(1));
    }
    answer(&mut sim, &peer, "a");
    assert_eq!(log.take(), ["a ok", "a replaced"]);
    sim.advance(Duration::from_millis(2_999)); // it is 4 s now, and c waits until 7 s
    assert!(log.borrow().is_empty());
    sim.advance(Duration::from_millis(1));
    assert_eq!(log.take(), ["c fail TimedOut"]);
    sim.advance(Duration::from_millis(999));
    assert!(log.borrow().is_empty());
    sim.advance(Duration::from_millis(1));
    assert_eq!(log.take(), ["d fail TimedOut"]);
}

/// Planted: a timer that is set for the end of a rest is not moved for a handler whose time is up
/// before; the end of a rest sets none.
#[test]
fn rests_and_waits_share_the_timer() {
    let rest = Duration::from_secs(10);
    let (mut sim, pool, log) = setup(PoolOptions { min_idle: 1, rest, ..PoolOptions::default() });
    for _ in 0..2 {
        sim.outgoing().unwrap().refuse();
        sim.settle();
    }
    assert!(sim.outgoing().is_none(), "both rest until 10 s");
    sim.advance(Duration::from_secs(1));
    ask(&mut sim, &pool, &log, "a");
    let attempt = sim.outgoing().expect("who waits does not wait for the end of a rest");
    sim.advance(Duration::from_millis(4_999));
    assert!(log.borrow().is_empty());
    sim.advance(Duration::from_millis(1));
    assert_eq!(log.take(), ["a fail TimedOut"]);
    let again = attempt.addr().clone();
    attempt.refuse();
    sim.advance(Duration::from_millis(3_999));
    assert!(sim.outgoing().is_none(), "this one rests until 16 s, the other until 10 s");
    sim.advance(Duration::from_millis(1));
    let other = sim.outgoing().unwrap();
    assert_ne!(*other.addr(), again);
    other.refuse();
    sim.advance(Duration::from_millis(5_999));
    assert!(sim.outgoing().is_none());
    sim.advance(Duration::from_millis(1));
    assert_eq!(*sim.outgoing().unwrap().addr(), again);
}

/// Planted: a rest of zero is taken: what fails counts as another that is to be tried, a connect
/// each turn, and nobody is told why.
#[test]
fn backends_that_refuse_are_not_tried_each_turn() {
    for rest in [Duration::ZERO, Duration::from_micros(999)] {
        let options = PoolOptions { rest, ..PoolOptions::default() };
        let error = Simulation::new(1).reactor().pool(&["10.0.0.1:1"], options).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{rest:?}");
    }

    let rest = Duration::from_millis(1);
    let (mut sim, pool, log) = setup(PoolOptions { min_idle: 1, rest, ..PoolOptions::default() });
    ask(&mut sim, &pool, &log, "a");
    for tries in 1..=3 {
        for _ in 0..2 {
            sim.outgoing().unwrap().refuse();
            sim.settle();
        }
        assert!(sim.outgoing().is_none(), "each once, {tries}");
        assert_eq!(log.borrow()[..], ["a fail ConnectionRefused"]);
        sim.advance(rest);
    }
}
