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
