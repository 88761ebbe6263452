//! Cases 1 to 4 and 6: who an event is for, and which descriptor.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use reev::sim::{Faults, Simulation};
use reev::{Config, ConnId, Remote, SendError, TimerId};
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
    hard_case_06_fd_0_is_a_valid_fd,
);
