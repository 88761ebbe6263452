//! Cases 17 to 19: memory and attention per connection are bounded.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use reev::sim::{Faults, Simulation};
use reev::{Config, ListenOptions, Remote, SendError};

use crate::common::origin::{Origin, both_ways};
use crate::common::{Log, Serving, What, config, each, pattern, read_all, until, usual};

fn marks() -> Config {
    Config { output_low: 1000, output_high: 10_000, output_max: 100_000, ..config() }
}

/// Each byte of input asks for 1,000 bytes of output. Planted: reading goes on above the high
/// mark; on_drain is called whenever output falls; the pending output is not published.
fn hard_case_17_slow_reader(origin: Origin) {
    let faults = Faults { send_buffer_max: 1, ..Faults::default() };
    let mut sim = Simulation::with(1, faults, marks());
    let log = Log::default();
    let remote = Rc::new(RefCell::new(None::<Remote>));
    let door = origin.listen(&mut sim, {
        let (log, remote) = (log.clone(), remote.clone());
        move |_| {
            let remote = remote.clone();
            log.each("it", move |cx, what| match what {
                What::Open => {
                    *remote.borrow_mut() = Some(cx.remote());
                    Ok(0)
                }
                What::Read(data) => {
                    let mut taken = 0;
                    while taken < data.len() && cx.pending_output() <= 10_000 {
                        cx.write(&[data[taken]; 1000]);
                        taken += 1;
                    }
                    Ok(taken)
                }
                other => usual(cx, other),
            })
        }
    });
    let peer = door.connect(&mut sim);
    sim.settle();
    let pending = || {
        let remote = remote.borrow().clone().unwrap();
        std::thread::spawn(move || remote.pending_output()).join().unwrap()
    };
    for round in 1..=3 {
        for i in 1..=50 {
            peer.send(&[i]);
            sim.settle();
        }
        // It stopped reading one answer above the high mark.
        assert!(peer.unread() >= 39, "round {round}: {} unread", peer.unread());
        assert!(pending() > 10_000 && pending() <= 11_000, "{} pending", pending());
        log.clear();
        let mut before = pending();
        while !log.has("it", "drain") {
            before = pending();
            assert_eq!(peer.receive().len(), 1);
            sim.settle();
        }
        assert_eq!(before, 1001, "drained at the low mark, not above and not below");
        assert_eq!(log.of("it").iter().filter(|line| *line == "drain").count(), 1);
        assert_eq!(log.of("it")[0], "drain", "{:?}", log.lines());
        // Reading went on, up to the high mark again.
        assert!(log.of("it")[1].starts_with("read"), "{:?}", log.lines());
        assert!(pending() > 10_000);
    }
    assert!(!peer.is_released());
}

/// Planted: nothing is closed above the maximum; it is closed at the high mark.
fn hard_case_17_above_the_maximum(origin: Origin) {
    let faults = Faults { send_buffer_max: 1, ..Faults::default() };
    let mut sim = Simulation::with(1, faults, marks());
    let log = Log::default();
    let remote = Rc::new(RefCell::new(None::<Remote>));
    let door = origin.listen(&mut sim, {
        let (log, remote) = (log.clone(), remote.clone());
        move |_| {
            let remote = remote.clone();
            log.each("it", move |cx, what| {
                if let What::Open = what {
                    *remote.borrow_mut() = Some(cx.remote());
                }
                usual(cx, what)
            })
        }
    });
    let peer = door.connect(&mut sim);
    sim.settle();
    let remote = remote.borrow().clone().unwrap();
    // 100,000 may wait, besides the one byte that the system has taken.
    for _ in 0..100 {
        remote.write(vec![0; 1000]).unwrap();
        sim.settle();
    }
    assert_eq!(remote.pending_output(), 99_999);
    remote.write(vec![0; 1]).unwrap();
    sim.settle();
    assert_eq!(log.of("it"), ["open"]);
    remote.write(vec![0; 1]).unwrap();
    sim.settle();
    assert_eq!(log.of("it"), ["open", "close slow_consumer"]);
    assert!(peer.saw_reset());
    assert_eq!((remote.pending_output(), remote.write("x")), (0, Err(SendError::Closed)));
}

/// A maximum below the size of the scratch buffer: what the system takes at once does not count.
/// Planted: output is judged before the system was asked to take it.
fn hard_case_17_a_fast_reader_is_not_slow(origin: Origin) {
    let config = Config { output_low: 100, output_high: 1000, output_max: 5000, ..config() };
    let faults = Faults { send_buffer_max: 1 << 30, ..Faults::default() }; // more than is sent
    let mut sim = Simulation::with(1, faults, config);
    let log = Log::default();
    let door = origin.listen(&mut sim, {
        let log = log.clone();
        move |_| {
            log.each("it", move |cx, what| {
                if let What::Open = what {
                    for i in 0..200u8 {
                        cx.write(&[i; 100]);
                    }
                    cx.write(&[200; 30_000]);
                    cx.write_owned(vec![201; 30_000]);
                }
                usual(cx, what)
            })
        }
    });
    let peer = door.connect(&mut sim);
    sim.settle();
    assert_eq!(log.of("it")[0], "open");
    assert!(!log.has("it", "close slow_consumer"), "{:?}", log.lines());
    let got = peer.receive();
    assert_eq!(got.len(), 80_000);
}

/// A peer that asks and never reads, on a real socket: what is held for it is bounded, and it
/// goes on when it reads. Planted: reading goes on above the high mark.
fn hard_case_17_slow_reader_on_tcp(origin: Origin) {
    let options = ListenOptions { send_buffer: Some(1), ..ListenOptions::default() };
    let (told, remotes) = mpsc::channel();
    let config = Config { output_max: 60_000, ..marks() };
    let serving = Serving::start(config, "127.0.0.1:0", &options, move |_| {
        let told = told.clone();
        each(move |cx, what| match what {
            What::Open => {
                told.send(cx.remote()).unwrap();
                Ok(0)
            }
            What::Read(data) => {
                // An answer to each byte, unless output waits: the rest is offered again.
                let mut taken = 0;
                while taken < data.len() && cx.pending_output() <= 10_000 {
                    cx.write(&[data[taken]; 1000]);
                    taken += 1;
                }
                Ok(taken)
            }
            other => usual(cx, other),
        })
    });
    let mut client = serving.peer(origin);
    let remote = remotes.recv().unwrap();
    let requests = pattern(5000, 1);
    client.write_all(&requests).unwrap();
    until("output waits", || remote.pending_output() > 10_000);
    assert!(remote.pending_output() <= 11_000 + 1000);
    let mut got = vec![0; 5_000_000];
    client.read_exact(&mut got).unwrap();
    for (answer, request) in got.chunks(1000).zip(&requests) {
        assert!(answer.iter().all(|byte| byte == request));
    }
    until("all has left", || remote.pending_output() == 0);
}

/// Input, FIN and reset while reading is paused, before and after something unread. The
/// simulation's `settle` fails if the loop spins; the count of waits is a second look.
/// Planted: EPOLLIN stays on while paused; the FIN is not watched; a FIN that was seen is
/// watched again; a hang-up that was seen stays registered.
fn hard_case_18_paused_connection(origin: Origin) {
    for unread in [0, 10] {
        for end in ["nothing", "fin", "close", "reset"] {
            let mut sim = Simulation::new(1);
            let log = Log::default();
            let remote = Rc::new(RefCell::new(None::<Remote>));
            let door = origin.listen(&mut sim, {
                let (log, remote) = (log.clone(), remote.clone());
                move |_| {
                    let remote = remote.clone();
                    log.each("it", move |cx, what| {
                        match what {
                            What::Open => {
                                cx.pause_reads();
                                *remote.borrow_mut() = Some(cx.remote());
                            }
                            What::Notify(_) => cx.resume_reads(),
                            other => return usual(cx, other),
                        }
                        Ok(0)
                    })
                }
            });
            let peer = door.connect(&mut sim);
            sim.settle();
            peer.send(&vec![7; unread]);
            sim.settle();
            match end {
                "fin" => peer.finish(),
                "close" => peer.close(),
                "reset" => peer.reset(),
                _ => {}
            }
            let waits = sim.calls().waits;
            sim.settle();
            sim.advance(Duration::from_secs(30));
            let spent = sim.calls().waits - waits;
            let case = format!("{end} after {unread}: {:?}, {spent} waits", log.lines());
            assert!(spent <= 6, "{case}");
            let lines = log.of("it");
            match (end, unread) {
                ("reset", _) => assert_eq!(lines, ["open", "close io"], "{case}"),
                ("fin" | "close", 0) => assert_eq!(lines, ["open", "eof", "close peer"], "{case}"),
                _ => assert_eq!(lines, ["open"], "{case}"),
            }
            if lines.len() == 1 {
                remote.borrow().as_ref().unwrap().notify(1).unwrap();
                sim.settle();
                let mut expected = vec!["open", "notify 1"];
                if unread > 0 {
                    expected.push("read 10");
                }
                if end != "nothing" {
                    expected.extend(["eof", "close peer"]);
                }
                assert_eq!(log.of("it"), expected, "{case}");
            }
        }
    }
}

/// Read and write interest are independent: a paused connection still sends what it owes.
/// Planted: a paused connection waits for nothing at all.
fn hard_case_18_a_paused_connection_still_writes(origin: Origin) {
    let faults = Faults { send_buffer_max: 50, ..Faults::default() };
    let mut sim = Simulation::with(1, faults, Config::default());
    let door = origin.listen(&mut sim, |_| {
        each(|cx, what| {
            if let What::Open = what {
                cx.pause_reads();
                cx.write(&[5; 5000]);
            }
            usual(cx, what)
        })
    });
    let peer = door.connect(&mut sim);
    peer.send(b"not read");
    let mut got = 0;
    for _ in 0..5000 {
        sim.settle();
        got += peer.receive().len();
    }
    assert_eq!((got, peer.unread()), (5000, 8));
}

/// The same on real TCP and Unix sockets, where EPOLLRDHUP and EPOLLHUP are the kernel's.
/// Planted: a FIN that was seen is watched again (TCP); a hang-up that was seen stays
/// registered (Unix).
fn hard_case_18_paused_connection_on_real_sockets(origin: Origin) {
    let (told, events) = mpsc::channel();
    let factory = move |_: &reev::Addr| {
        let told = told.clone();
        let mut read = 0;
        each(move |cx, what| {
            match what {
                What::Open => {
                    cx.pause_reads();
                    told.send((format!("{:?}", "open"), Some(cx.remote()))).unwrap();
                }
                What::Notify(_) => cx.resume_reads(),
                What::Read(data) => {
                    read += data.len();
                    return Ok(data.len());
                }
                What::Eof => {
                    told.send((format!("eof after {read}"), None)).unwrap();
                    cx.close();
                }
                What::Close(why) => told.send((why.kind().to_owned(), None)).unwrap(),
                _ => {}
            }
            Ok(0)
        })
    };
    let name = format!("unix://@reev-test-18-{origin}-{}", std::process::id());
    let servers = [
        Serving::tcp(factory.clone()),
        Serving::start(config(), &name, &ListenOptions::default(), factory),
    ];
    let next = || events.recv_timeout(Duration::from_secs(30)).unwrap();
    for serving in &servers {
        let at = &serving.addr;
        for unread in [0usize, 1000] {
            for end in ["fin", "close"] {
                let mut client = serving.meeting.peer(origin);
                let remote = next().1.unwrap();
                client.write_all(&vec![1; unread]).unwrap();
                let mut client = Some(client);
                match end {
                    "fin" => client.as_ref().unwrap().shutdown(Shutdown::Write).unwrap(),
                    _ => drop(client.take()),
                }
                if unread > 0 {
                    // Seen, and not acted on; and not seen again and again.
                    serving.ask(|_| ());
                    serving.comes_to_rest();
                    remote.notify(1).unwrap();
                }
                assert_eq!(next().0, format!("eof after {unread}"), "{end} at {at}");
                assert_eq!(next().0, "peer", "{end} at {at}");
            }
        }
    }
    // A reset is told at once, paused or not.
    let client = servers[0].meeting.peer(origin);
    next();
    client.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(next().0, "io");
}

/// Planted: EPOLLOUT stays on after the queue is empty (a spin); it is not switched on (a
/// stall).
fn hard_case_19_epollout_left_armed(origin: Origin) {
    for seed in 0..20 {
        let faults = Faults { send_buffer_max: 500, ..Faults::default() };
        let mut sim = Simulation::with(seed, faults, Config::default());
        let sent = Rc::new(Cell::new(0));
        let door = origin.listen(&mut sim, {
            let sent = sent.clone();
            move |_| {
                let sent = sent.clone();
                each(move |cx, what| match what {
                    What::Read(data) => {
                        cx.write(&[1; 2000]);
                        sent.set(sent.get() + 2000);
                        Ok(data.len())
                    }
                    other => usual(cx, other),
                })
            }
        });
        let peer = door.connect(&mut sim);
        sim.settle();
        let begun = sim.calls().interest_changes;
        let own = if origin == Origin::Accepted { 1 } else { 2 }; // connecting is watched, too
        assert_eq!(begun, 1 + own, "the listener's and the connection's");
        let mut got = 0;
        for _ in 0..5 {
            peer.send(b"x");
            sim.settle(); // a spin fails here
            while got < sent.get() {
                let new = peer.receive().len();
                assert!(new > 0, "seed {seed}: stalled at {got} of {}", sent.get());
                got += new;
                sim.settle();
            }
            let (waits, sends) = (sim.calls().waits, sim.calls().sends);
            sim.advance(Duration::from_secs(50));
            assert!(sim.calls().waits - waits <= 2);
            assert_eq!(sim.calls().sends, sends);
        }
        // On when blocked, off when not, and no other call.
        let changes = sim.calls().interest_changes - begun;
        assert!(changes <= 5 * 2, "seed {seed}: {changes} changes");
    }
}

/// Planted: the same.
fn hard_case_19_epollout_on_real_sockets(origin: Origin) {
    let options = ListenOptions { send_buffer: Some(1), ..ListenOptions::default() };
    let serving = Serving::start(config(), "127.0.0.1:0", &options, |_| {
        each(|cx, what| match what {
            What::Read(data) => {
                cx.write(&pattern(2_000_000, 19));
                Ok(data.len())
            }
            other => usual(cx, other),
        })
    });
    let mut client = serving.peer(origin);
    client.write_all(b"x").unwrap();
    until("it is blocked", || serving.handle.stats()[0].bytes_out > 0);
    serving.comes_to_rest(); // blocked
    let mut got = vec![0; 2_000_000];
    client.read_exact(&mut got).unwrap();
    assert!(got == pattern(2_000_000, 19));
    serving.comes_to_rest(); // all is sent
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(client), (Vec::new(), None));
}

both_ways!(
    hard_case_17_slow_reader,
    hard_case_17_above_the_maximum,
    hard_case_17_a_fast_reader_is_not_slow,
    hard_case_17_slow_reader_on_tcp,
    hard_case_18_paused_connection,
    hard_case_18_a_paused_connection_still_writes,
    hard_case_18_paused_connection_on_real_sockets,
    hard_case_19_epollout_left_armed,
    hard_case_19_epollout_on_real_sockets,
);
