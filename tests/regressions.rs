//! Faults that a review found, each with the test that fails on a build that has it.

mod common;

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::{Log, Serving, What, config, each, usual};
use reev::sim::{Faults, Simulation};
use reev::{
    Close, Config, ConnId, ConnectOptions, Ctx, EvHandler, ListenOptions, Placement, Remote, Server,
};

/// The bytes that a paused handler left are offered again when it resumes, though the peer's FIN
/// A send that met the reset takes the error from the socket, so that the next read looks like a
/// The payload of a panic may itself panic when it is dropped.
#[test]
fn a_panic_s_payload_that_panics_costs_nothing_else() {
    let serving = Serving::tcp(move |_| {
        each(move |cx, what| {
            if let What::Read(data) = &what {
                if data[0] == b'!' {
                    std::panic::panic_any(Bomb);
                }
                cx.write(b"ok");
            }
            usual(cx, what)
        })
    });
    let mut other = serving.connect();
    let mut client = serving.connect();
    client.write_all(b"!").unwrap();
    let _ = client.read(&mut [0; 1]);
    other.write_all(b"x").unwrap();
    let mut answer = [0; 2];
    other.read_exact(&mut answer).expect("the reactor lives");
}

/// Mail of one turn that is more than the maximum is no proof of a slow peer.
#[test]
fn mail_in_plenty_to_a_fast_reader_is_not_slow() {
    let limits =
        Config { output_low: 1000, output_high: 4000, output_max: 16_000, ..Config::default() };
    let mut sim =
        Simulation::with(1, Faults { send_buffer_max: 1 << 30, ..Default::default() }, limits);
    let log = Log::default();
    let remote: Rc<RefCell<Option<Remote>>> = Rc::default();
    let listener = {
        let (log, remote) = (log.clone(), remote.clone());
        sim.listen(move |_| {
            let remote = remote.clone();
            log.each("it", move |cx, what| {
                *remote.borrow_mut() = Some(cx.remote());
                usual(cx, what)
            })
        })
    };
    let peer = sim.connect(listener);
    sim.settle();
    let remote = remote.borrow().clone().unwrap();
    for _ in 0..100 {
        remote.write(vec![1; 1000]).unwrap();
    }
    sim.settle();
    assert_eq!(log.of("it"), ["open"]);
    assert_eq!(peer.receive().len(), 100_000);
}

/// Another's callback that writes more than the maximum, to a peer that takes it.
#[test]
fn plenty_from_another_callback_to_a_fast_reader_is_not_slow() {
    let limits =
        Config { output_low: 1000, output_high: 4000, output_max: 16_000, ..Config::default() };
    let mut sim =
        Simulation::with(1, Faults { send_buffer_max: 1 << 30, ..Default::default() }, limits);
    let log = Log::default();
    let target: Rc<Cell<ConnId>> = Rc::new(Cell::new(ConnId::NONE));
    let listener = {
        let (log, target) = (log.clone(), target.clone());
        sim.listen(move |_| {
            let target = target.clone();
            log.each("it", move |cx, what| {
                if let What::Open = what {
                    target.set(cx.id());
                }
                usual(cx, what)
            })
        })
    };
    let source = sim.listen(move |_| {
        let target = target.clone();
        each(move |cx, what| {
            if let What::Read(_) = what {
                for _ in 0..100 {
                    cx.conn(target.get()).unwrap().write(&[1; 1000]);
                }
            }
            usual(cx, what)
        })
    });
    let peer = sim.connect(listener);
    sim.settle();
    let other = sim.connect(source);
    sim.settle();
    other.send(b"go");
    sim.settle();
    assert_eq!(log.of("it"), ["open"]);
    assert_eq!(peer.receive().len(), 100_000);
}

/// `on_drain` says that output is at or below the low mark; if it has risen above the high one
/// close(2) waits with SO_LINGER even on a non-blocking socket: a reactor stood still for three
/// A second server on the same port is refused, though both would share it by SO_REUSEPORT;
/// What is dropped instead of being called may panic in its destructor.
#[test]
fn what_is_dropped_uncalled_may_panic() {
    let mut sim = Simulation::new(1);
    let log = Log::default();
    let listener = {
        let log = log.clone();
        sim.listen(move |_| {
            log.each("it", move |cx, what| {
                if let What::Read(_) = what {
                    let bomb = Bomb;
                    cx.detach(move |_| drop(bomb));
                    cx.abort();
                }
                usual(cx, what)
            })
        })
    };
    let (one, _other) = (sim.connect(listener), sim.connect(listener));
    sim.settle();
    one.send(b"x");
    sim.settle();
    assert_eq!(log.of("it"), ["open", "open", "read 1", "close aborted"]);
    let bomb = Bomb;
    sim.handle().stop();
    sim.handle().run_on(0, move |_| drop(bomb)).unwrap();
    assert!(!sim.turn());
    assert_eq!(log.of("it").iter().filter(|line| line.starts_with("close")).count(), 2);
}
