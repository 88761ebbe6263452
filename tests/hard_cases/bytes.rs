//! Cases 12, 13, 15 and 16: every byte, once, in order, to the right one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use proptest::prelude::*;
use reev::sim::{Faults, Simulation};
use reev::{Config, ConnId, Ctx, EvHandler, ListenOptions, Remote, TimerId};

use crate::common::origin::{Origin, both_ways};
use crate::common::{Log, Serving, What, config, each, in_child, pattern, read_all, usual};

/// For properties, which take the origin by chance.
fn origins() -> impl Strategy<Value = Origin> {
    prop_oneof![Just(Origin::Accepted), Just(Origin::ConnectedOut)]
}

/// Where a step of the plan is carried out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Notify,
    Read,
    Timer,
    Other,
    Task,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Write(usize),
    Owned(usize),
    Out(usize),
    Pause,
    Resume,
    Close,
}

#[derive(Clone, Debug)]
struct Step {
    place: Place,
    acts: Vec<Act>,
    /// What the peer reads before the next step, and the turns of the loop until then.
    peer_reads: usize,
    turns: usize,
}

fn plan(sizes: impl Strategy<Value = usize> + Clone + 'static) -> impl Strategy<Value = Vec<Step>> {
    let act = prop_oneof![
        6 => sizes.clone().prop_map(Act::Write),
        3 => sizes.clone().prop_map(Act::Owned),
        2 => sizes.prop_map(Act::Out),
        1 => Just(Act::Pause),
        1 => Just(Act::Resume),
        1 => prop::bool::weighted(0.1).prop_map(|y| if y { Act::Close } else { Act::Resume }),
    ];
    let place = prop_oneof![
        Just(Place::Notify),
        Just(Place::Read),
        Just(Place::Timer),
        Just(Place::Other),
        Just(Place::Task),
    ];
    let step = (place, prop::collection::vec(act, 1..8), 0..6000usize, 0..4usize)
        .prop_map(|(place, acts, peer_reads, turns)| Step { place, acts, peer_reads, turns });
    prop::collection::vec(step, 1..16)
}

/// What was written to a connection, as the peer has to receive it.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<(Vec<u8>, bool)>>);

impl Written {
    fn perform(&self, cx: &mut Ctx<'_>, acts: &[Act]) {
        let (expected, closed) = &mut *self.0.lock().unwrap();
        for &act in acts {
            let mut data = |n| {
                let data = pattern(n, expected.len() as u64 + 1);
                if !*closed {
                    expected.extend_from_slice(&data);
                }
                data
            };
            match act {
                Act::Write(n) => cx.write(&data(n)),
                Act::Owned(n) => cx.write_owned(data(n)),
                Act::Out(n) => cx.out().write_all(&data(n)).unwrap(),
                Act::Pause => cx.pause_reads(),
                Act::Resume => cx.resume_reads(),
                Act::Close => {
                    cx.close();
                    *closed = true;
                }
            }
        }
    }

    fn expected(&self) -> Vec<u8> {
        self.0.lock().unwrap().0.clone()
    }
}

/// The step number that stands for the close at the end.
const LAST: u64 = 255;

/// Carries out the steps of `plan` that are its own, as `place` and number tell.
fn writer(plan: Vec<Step>, written: Written, opened: mpsc::Sender<Remote>) -> impl EvHandler {
    let mut armed = HashMap::<TimerId, usize>::new();
    each(move |cx, what| {
        match what {
            What::Open => opened.send(cx.remote()).unwrap(),
            What::Notify(LAST) => written.perform(cx, &[Act::Resume, Act::Close]),
            What::Notify(n) => match plan[n as usize].place {
                Place::Timer => {
                    armed.insert(cx.set_timer(Duration::ZERO), n as usize);
                }
                _ => written.perform(cx, &plan[n as usize].acts),
            },
            What::Timeout(timer) => written.perform(cx, &plan[armed[&timer]].acts),
            What::Read(data) => {
                for &n in data.iter() {
                    written.perform(cx, &plan[usize::from(n)].acts);
                }
                return Ok(data.len());
            }
            What::Eof => cx.close(),
            _ => {}
        }
        Ok(0)
    })
}

/// Writes to another connection, as told by its notification.
fn other(plan: Vec<Step>, written: Written, target: ConnId) -> impl EvHandler {
    each(move |cx, what| {
        if let What::Notify(n) = what
            && let Some(mut target) = cx.conn(target)
        {
            written.perform(&mut target, &plan[n as usize].acts);
        }
        Ok(0)
    })
}

fn tight() -> Config {
    Config {
        direct_write_min: 64,
        output_low: 100,
        output_high: 1000,
        close_timeout: Duration::from_secs(36_000),
        ..config()
    }
}

fn in_the_simulator(origin: Origin, plan: Vec<Step>, seed: u64) {
    let mut sim = Simulation::with(seed, Faults::hostile(), tight());
    let written = Written::default();
    let (opened, remotes) = mpsc::channel();
    let door = origin.listen(&mut sim, {
        let (plan, written) = (plan.clone(), written.clone());
        move |_| writer(plan.clone(), written.clone(), opened.clone())
    });
    let peer = door.connect(&mut sim);
    sim.settle();
    let remote = remotes.recv().unwrap();
    let other = sim.reactor().add(other(plan.clone(), written.clone(), remote.id()));
    sim.settle();
    let other = sim.reactor().conn(other).unwrap().remote();
    let mut got = Vec::new();
    for (n, step) in plan.iter().enumerate() {
        // Refused once the connection is closed, which the plan may ask for at any point.
        let _ = match step.place {
            Place::Read => {
                peer.send(&[n as u8]);
                Ok(())
            }
            Place::Notify | Place::Timer => remote.notify(n as u64),
            Place::Other => other.notify(n as u64),
            Place::Task => {
                let (written, acts, id) = (written.clone(), step.acts.clone(), remote.id());
                sim.handle().run_on(0, move |reactor| {
                    if let Some(mut cx) = reactor.conn(id) {
                        written.perform(&mut cx, &acts);
                    }
                })
            }
        };
        for _ in 0..step.turns {
            sim.turn();
        }
        got.extend(peer.receive_at_most(step.peer_reads));
    }
    let _ = remote.notify(LAST);
    for _ in 0..1_000_000 {
        sim.turn();
        got.extend(peer.receive());
        if peer.saw_fin() {
            break;
        }
    }
    assert!(peer.saw_fin() && !peer.saw_reset());
    assert!(got == written.expected(), "got {} of {}", got.len(), written.expected().len());
    peer.finish();
    sim.settle();
    sim.advance(Duration::from_secs(5));
    assert!(peer.is_released());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 500, failure_persistence: None, ..Default::default() })]

    /// Planted: a short direct write queues the rest without its first byte; the flush of a
    /// partly sent queue drops the tail; a write behind queued output is sent at once.
    #[test]
    fn hard_case_12_partial_writes(
        origin in origins(),
        plan in plan(prop_oneof![0..70usize, 50..700usize, 4000..6000usize]),
        seed: u64,
    ) {
        in_the_simulator(origin, plan, seed);
    }
}

/// The plans on real sockets, one connection after the other on one server.
fn on_real_sockets(addr: &str, origin: Origin) {
    let options = ListenOptions { send_buffer: Some(1), ..ListenOptions::default() };
    let next = Arc::new(Mutex::new((Vec::new(), Written::default())));
    let (opened, remotes) = mpsc::channel();
    let serving = Serving::start(tight(), addr, &options, {
        let next = next.clone();
        move |_| {
            let (plan, written) = next.lock().unwrap().clone();
            writer(plan, written, opened.clone())
        }
    });
    let sizes = prop_oneof![0..200usize, 1000..6000usize, 60_000..70_000usize];
    let config = ProptestConfig {
        cases: 24,
        max_shrink_iters: 500,
        failure_persistence: None,
        ..Default::default()
    };
    proptest!(config, |(plan in plan(sizes))| {
        let written = Written::default();
        *next.lock().unwrap() = (plan.clone(), written.clone());
        let mut client = serving.meeting.peer(origin);
        let remote = remotes.recv_timeout(Duration::from_secs(30)).unwrap();
        let other = {
            let (plan, written, target) = (plan.clone(), written.clone(), remote.id());
            serving.ask(move |reactor| {
                let id = reactor.add(other(plan, written, target));
                reactor.conn(id).unwrap().remote()
            })
        };
        let mut got = Vec::new();
        for (n, step) in plan.iter().enumerate() {
            let _ = match step.place {
                Place::Read => {
                    let _ = client.write_all(&[n as u8]); // an error once it is closed
                    Ok(())
                }
                Place::Notify | Place::Timer => remote.notify(n as u64),
                Place::Other => other.notify(n as u64),
                Place::Task => {
                    let (written, acts, id) = (written.clone(), step.acts.clone(), remote.id());
                    serving.handle.run_on(0, move |reactor| {
                        if let Some(mut cx) = reactor.conn(id) {
                            written.perform(&mut cx, &acts);
                        }
                    })
                }
            };
            // Reads what has come already, and no more than the step says.
            let mut buffer = vec![0; step.peer_reads.max(1)];
            client.set_nonblocking(true).unwrap();
            if let Ok(n) = client.read(&mut buffer) {
                got.extend_from_slice(&buffer[..n]);
            }
            client.set_nonblocking(false).unwrap();
        }
        let _ = remote.notify(LAST);
        let (rest, error) = read_all(&mut client);
        got.extend(rest);
        prop_assert_eq!(error, None);
        prop_assert!(got == written.expected(), "{} of {}", got.len(), written.expected().len());
        other.close().unwrap();
    });
}

/// Planted: as in the simulator.
fn hard_case_12_partial_writes_on_tcp(origin: Origin) {
    on_real_sockets("127.0.0.1:0", origin);
}

/// Planted: as in the simulator.
fn hard_case_12_partial_writes_on_unix_sockets(origin: Origin) {
    on_real_sockets(&format!("unix://@reev-test-12-{origin}-{}", std::process::id()), origin);
}

/// Planted: the error of a failed send is dropped, and the connection closed as if by choice.
fn hard_case_13_write_after_the_peers_close(origin: Origin) {
    for reset in [false, true] {
        for (unread, pause) in [(false, false), (true, false), (true, true)] {
            let mut sim = Simulation::new(1);
            let log = Log::default();
            let (read, why) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(None)));
            let door = origin.listen(&mut sim, {
                let (log, read, why) = (log.clone(), read.clone(), why.clone());
                move |_| {
                    let (read, why) = (read.clone(), why.clone());
                    log.each("it", move |cx, what| {
                        match what {
                            What::Open => {
                                cx.set_periodic(Duration::from_millis(1));
                                if pause {
                                    cx.pause_reads();
                                }
                            }
                            What::Timeout(_) => cx.write(b"tick"),
                            What::Read(data) => {
                                read.set(read.get() + data.len());
                                return Ok(data.len());
                            }
                            What::Close(reev::Close::Io(error)) => {
                                *why.borrow_mut() = Some(error.kind());
                            }
                            What::Eof => {} // an answer may still be under way
                            _ => {}
                        }
                        Ok(0)
                    })
                }
            });
            let peer = door.connect(&mut sim);
            sim.advance(Duration::from_micros(1500));
            if unread {
                peer.send(&[1; 1000]);
            }
            if reset {
                peer.reset();
            } else {
                peer.close();
            }
            sim.advance(Duration::from_millis(10));
            let case = format!("reset {reset}, unread {unread}, pause {pause}: {:?}", log.lines());
            assert_eq!(log.of("it").last().unwrap(), "close io", "{case}");
            let kind = why.borrow().unwrap();
            assert!(
                matches!(kind, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset),
                "{case}: {kind:?}"
            );
            assert!(!unread || pause || read.get() == 1000, "{case}: {}", read.get());
            assert!(peer.is_released());
        }
    }
}

/// With SIGPIPE as deadly as it is by default, which Rust's own start-up code hides. The peer
/// goes while a callback runs, so that the loop learns of it by its own writes: a small one
/// (send), a large one (send), and both at once (sendmsg). Planted: send, and sendmsg, without
/// MSG_NOSIGNAL.
#[allow(unsafe_code)]
fn hard_case_13_no_sigpipe(origin: Origin) {
    if !in_child(&format!("bytes::{origin}::hard_case_13_no_sigpipe")) {
        return;
    }
    // SAFETY: no handler is installed, the default is restored.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let (told, events) = mpsc::channel();
    let (gone, is_gone) = mpsc::channel::<()>();
    let is_gone = Arc::new(Mutex::new(is_gone));
    let factory = move |_: &reev::Addr| {
        let (told, is_gone) = (told.clone(), is_gone.clone());
        each(move |cx, what| {
            match what {
                What::Open => told.send(("open", Some(cx.remote()))).unwrap(),
                What::Notify(writes) => {
                    told.send(("inside", None)).unwrap();
                    is_gone.lock().unwrap().recv().unwrap();
                    cx.write(&[0; 20_000]); // TCP answers the first with a reset
                    match writes {
                        0 => cx.write(b"small"),
                        1 => cx.write(&[0; 20_000]),
                        _ => {
                            cx.write(b"small");
                            cx.write(&[0; 20_000]);
                        }
                    }
                }
                What::Close(why) => told.send((why.kind(), None)).unwrap(),
                other => return usual(cx, other),
            }
            Ok(0)
        })
    };
    let name = format!("unix://@reev-test-13-{}", std::process::id());
    let unix = Serving::start(config(), &name, &ListenOptions::default(), factory.clone());
    let tcp = Serving::tcp(factory);
    let next = || events.recv_timeout(Duration::from_secs(30)).unwrap();
    for serving in [&tcp, &unix] {
        for writes in 0..3 {
            let peer = serving.meeting.peer(origin);
            let remote = next().1.unwrap();
            remote.notify(writes).unwrap();
            assert_eq!(next().0, "inside");
            drop(peer);
            gone.send(()).unwrap();
            assert_eq!(next().0, "io", "{writes} on {}", serving.addr);
        }
    }
}

/// Eight connections, each of which sends one byte value only and leaves tails of all lengths;
/// in its callback each makes others write and read. Planted: `on_read` is given the whole read
/// buffer; new bytes are read to the buffer's start, over the tail.
fn hard_case_15_the_shared_read_buffer(origin: Origin) {
    for seed in 0..30 {
        let config = Config { direct_write_min: 40, ..Config::default() };
        let mut sim = Simulation::with(seed, Faults::hostile(), config);
        let taken = Rc::new(RefCell::new(vec![0usize; 8]));
        let ids = Rc::new(RefCell::new(Vec::<ConnId>::new()));
        let broken = Rc::new(RefCell::new(Vec::new()));
        let door = origin.listen(&mut sim, {
            let (taken, ids, broken) = (taken.clone(), ids.clone(), broken.clone());
            let mut n = 0;
            move |_| {
                let me = n;
                n += 1;
                let (taken, ids, broken) = (taken.clone(), ids.clone(), broken.clone());
                let mut calls = 0usize;
                each(move |cx, what| {
                    match what {
                        What::Open => ids.borrow_mut().push(cx.id()),
                        What::Read(data) => {
                            calls += 1;
                            let whole = data.iter().all(|&byte| byte == me as u8 + 1);
                            for &id in ids.borrow().iter() {
                                if let Some(mut other) = cx.conn(id) {
                                    other.write(&[0xaa; 10]);
                                    other.write(&[0xbb; 50]); // not copied
                                }
                            }
                            cx.write(&data[..data.len().min(60)]);
                            if !whole || !data.iter().all(|&byte| byte == me as u8 + 1) {
                                broken.borrow_mut().push(format!("{me}: {data:?}"));
                            }
                            // Every length of tail is left at some time, none for ever.
                            let left = if calls.is_multiple_of(3) { 0 } else { (calls * 37) % 900 };
                            let take = data.len().saturating_sub(left);
                            data.fill(0xee); // nobody sees what is done to it
                            data[take..].fill(me as u8 + 1);
                            taken.borrow_mut()[me] += take;
                            return Ok(take);
                        }
                        _ => {}
                    }
                    Ok(0)
                })
            }
        });
        let peers: Vec<_> = (0..8).map(|_| door.connect(&mut sim)).collect();
        sim.settle();
        for round in 0..60usize {
            for (i, peer) in peers.iter().enumerate() {
                peer.send(&vec![i as u8 + 1; (round * 131 + i * 29) % 2000]);
                peer.receive();
            }
            sim.turn();
        }
        for _ in 0..200 {
            sim.settle();
            for (i, peer) in peers.iter().enumerate() {
                peer.receive();
                peer.send(&[i as u8 + 1]);
            }
        }
        assert!(broken.borrow().is_empty(), "seed {seed}: {:.200}", broken.borrow()[0]);
        for (i, &taken) in taken.borrow().iter().enumerate() {
            let sent: usize = (0..60).map(|round| (round * 131 + i * 29) % 2000).sum();
            assert!(taken + 900 >= sent, "seed {seed}: {i} took {taken} of {sent}");
        }
    }
}

/// Takes messages of a length in two bytes and so many bytes, in one of several manners.
fn framed(manner: u8, messages: Rc<RefCell<Vec<Vec<u8>>>>) -> impl EvHandler {
    each(move |cx, what| match what {
        What::Read(data) => {
            let mut used = 0;
            while let Some(header) = data.get(used..used + 2) {
                let len = usize::from(u16::from_be_bytes([header[0], header[1]]));
                let Some(body) = data.get(used + 2..used + 2 + len) else {
                    break;
                };
                messages.borrow_mut().push(body.to_vec());
                used += 2 + len;
                if manner == 1 {
                    // One at a time: the rest is offered again when reading goes on.
                    cx.pause_reads();
                    cx.set_timer(Duration::from_micros(50));
                    break;
                }
            }
            if manner == 2 && cx.id().as_u64() % 2 == 1 {
                cx.pause_reads();
                cx.resume_reads();
            }
            Ok(used)
        }
        What::Timeout(_) => {
            cx.resume_reads();
            Ok(0)
        }
        other => usual(cx, other),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, max_shrink_iters: 500, failure_persistence: None, ..Default::default() })]

    /// Planted: new bytes are put before the tail; a tail that is offered again is offered
    /// without its first byte; what is left when reading pauses is not offered again.
    #[test]
    fn hard_case_16_tail_at_any_split(
        origin in origins(),
        sizes in prop::collection::vec(prop_oneof![0..40usize, 0..3000usize, 4000..9000usize], 1..12),
        cuts in prop::collection::vec(prop_oneof![1..4usize, 1..5000usize, 4090..4100usize], 1..40),
        manner in 0..3u8,
        seed: u64,
        kind: bool,
        big_buffer: bool,
    ) {
        let faults = if kind { Faults::default() } else { Faults::hostile() };
        let read_buffer = if big_buffer { 64 << 10 } else { 4 << 10 };
        let config = Config { read_buffer, input_max: 128 << 10, ..Config::default() };
        let mut sim = Simulation::with(seed, faults, config);
        let messages = Rc::new(RefCell::new(Vec::new()));
        let door = origin.listen(&mut sim, {
            let messages = messages.clone();
            move |_| framed(manner, messages.clone())
        });
        let peer = door.connect(&mut sim);
        let sent: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(i, &n)| pattern(n, i as u64 + 1)).collect();
        let mut stream = Vec::new();
        for message in &sent {
            stream.extend((message.len() as u16).to_be_bytes());
            stream.extend(message);
        }
        let mut rest = stream.as_slice();
        for &cut in cuts.iter().cycle().take(4000) {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            peer.send(now);
            rest = later;
            sim.turn();
            if rest.is_empty() {
                break;
            }
        }
        peer.send(rest);
        sim.advance(Duration::from_millis(20));
        prop_assert!(*messages.borrow() == sent, "{} of {}", messages.borrow().len(), sent.len());
    }
}

/// A message of 32 KiB that comes byte by byte: beyond the length up to which tails are copied,
/// it grows where it is. Planted: the tail is always copied in front of the next read.
fn hard_case_16_one_byte_at_a_time(origin: Origin) {
    const MESSAGE: usize = 32 << 10;
    let config = Config { read_buffer: 64 << 10, ..Config::default() };
    let mut sim = Simulation::with(1, Faults::default(), config);
    let places = Rc::new(RefCell::new(Vec::<usize>::new()));
    let door = origin.listen(&mut sim, {
        let places = places.clone();
        move |_| {
            let places = places.clone();
            each(move |cx, what| match what {
                What::Read(data) => {
                    let mut places = places.borrow_mut();
                    places.push(data.as_ptr() as usize);
                    assert_eq!(data.len(), places.len());
                    Ok(if data.len() == MESSAGE { MESSAGE } else { 0 })
                }
                other => usual(cx, other),
            })
        }
    });
    let peer = door.connect(&mut sim);
    sim.settle();
    for _ in 0..MESSAGE {
        peer.send(b"x");
        sim.turn();
    }
    let places = places.borrow();
    assert_eq!(places.len(), MESSAGE);
    let shared = places[0];
    let beyond = &places[8 << 10..];
    assert!(!beyond.contains(&shared), "a long tail is copied for each byte");
    let moves = beyond.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!(moves <= 6, "a long tail moved {moves} times");
}

/// Planted: the bound is checked against what is offered, not what is left; `>=` for `>`.
fn hard_case_16_over_the_bound(origin: Origin) {
    let config = Config { read_buffer: 4096, input_max: 10_000, ..Config::default() };
    let mut sim = Simulation::with(1, Faults::default(), config);
    let log = Log::default();
    let door = origin.listen(&mut sim, {
        let log = log.clone();
        let mut n = 0;
        move |_| {
            n += 1;
            log.each(&format!("{n}"), move |cx, what| match what {
                What::Read(data) if n == 3 => Ok(data.len().saturating_sub(9000)),
                What::Read(_) => Ok(0),
                other => usual(cx, other),
            })
        }
    });
    let peers = [door.connect(&mut sim), door.connect(&mut sim), door.connect(&mut sim)];
    sim.settle();
    for _ in 0..10 {
        peers[0].send(&[1; 1000]); // exactly the bound
        peers[1].send(&[1; 1000]);
        sim.settle();
    }
    peers[1].send(b"x");
    peers[2].send(&[1; 100_000]); // a lot, but most of it is taken
    sim.settle();
    assert!(!log.of("1").iter().any(|line| line.starts_with("close")));
    assert_eq!(log.of("2").last().unwrap(), "close input_limit");
    assert!(!log.of("3").iter().any(|line| line.starts_with("close")));
    log.verify();
}

/// As the first of these, on a real socket: a message that is longer than the read buffer.
/// Planted: the tail is copied even where it fills the read buffer, so that no room is left
/// and the read of nothing is taken for the peer's FIN.
fn hard_case_16_a_message_longer_than_the_read_buffer(origin: Origin) {
    let config = Config { read_buffer: 4096, input_max: 1 << 20, ..config() };
    let (told, messages) = mpsc::channel();
    let serving = Serving::start(config, "127.0.0.1:0", &ListenOptions::default(), move |_| {
        let told = told.clone();
        each(move |cx, what| match what {
            What::Read(data) if data.len() < 300_000 => Ok(0),
            What::Read(data) => {
                told.send(data.to_vec()).unwrap();
                Ok(data.len())
            }
            other => usual(cx, other),
        })
    });
    let mut client = serving.peer(origin);
    let message = pattern(300_000, 1);
    for piece in message.chunks(4096) {
        client.write_all(piece).unwrap();
    }
    let got = messages.recv_timeout(Duration::from_secs(30));
    assert!(got.as_ref() == Ok(&message), "{:?}", got.map(|got| got.len()));
}

both_ways!(
    hard_case_12_partial_writes_on_tcp,
    hard_case_12_partial_writes_on_unix_sockets,
    hard_case_13_write_after_the_peers_close,
    hard_case_13_no_sigpipe,
    hard_case_15_the_shared_read_buffer,
    hard_case_16_one_byte_at_a_time,
    hard_case_16_over_the_bound,
    hard_case_16_a_message_longer_than_the_read_buffer,
);
