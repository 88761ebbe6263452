//! Faults that a review found, each with the test that fails on a build that has it.

mod common;

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::origin::{Origin, both_ways};
use common::{Log, Serving, What, config, each, usual};
use reev::sim::{Faults, Simulation};
use reev::{
    Close, Config, ConnId, ConnectOptions, Ctx, EvHandler, ListenOptions, Placement, Remote, Server,
};

/// The bytes that a paused handler left are offered again when it resumes, though the peer's FIN
/// is told in the same batch of events.
fn a_tail_is_offered_before_the_fin_that_comes_with_the_resumption(origin: Origin) {
    let mut sim = Simulation::new(1);
    let log = Log::default();
    let first: Rc<Cell<ConnId>> = Rc::new(Cell::new(ConnId::NONE));
    let waits = Rc::new(Cell::new(true));
    let waker = {
        let (first, waits) = (first.clone(), waits.clone());
        origin.listen(&mut sim, move |_| {
            let (first, waits) = (first.clone(), waits.clone());
            each(move |cx, what| {
                if let What::Read(_) = what {
                    waits.set(false);
                    cx.conn(first.get()).unwrap().resume_reads();
                }
                usual(cx, what)
            })
        })
    };
    let sleeper = {
        let log = log.clone();
        let first = first.clone();
        origin.listen(&mut sim, move |_| {
            let (first, waits) = (first.clone(), waits.clone());
            log.each("sleeper", move |cx, what| {
                if let What::Open = what {
                    first.set(cx.id());
                }
                if let (What::Read(_), true) = (&what, waits.get()) {
                    cx.pause_reads();
                    return Ok(0);
                }
                usual(cx, what)
            })
        })
    };
    let a = waker.connect(&mut sim);
    sim.settle();
    let b = sleeper.connect(&mut sim);
    sim.settle();
    b.send(b"kept");
    sim.settle();
    a.send(b"x");
    b.finish();
    sim.settle();
    assert_eq!(log.of("sleeper"), ["open", "read 4", "read 4", "eof", "close peer"]);
}

/// A send that met the reset takes the error from the socket, so that the next read looks like a
/// FIN: what was torn is not to be told as whole.
fn a_reset_that_a_send_met_is_no_eof(origin: Origin) {
    let mut sim = Simulation::new(1);
    let log = Log::default();
    let listener = {
        let log = log.clone();
        origin.listen(&mut sim, move |_| {
            log.each("it", move |cx, what| {
                if let What::Read(_) = what {
                    cx.write(b"answer");
                }
                usual(cx, what)
            })
        })
    };
    let peer = listener.connect(&mut sim);
    sim.settle();
    peer.send(b"half of a");
    peer.reset();
    sim.settle();
    assert_eq!(log.of("it"), ["open", "read 9", "close io"]);
}

/// As above, on a real socket.
fn a_reset_that_a_send_met_is_no_eof_on_tcp(origin: Origin) {
    let (told, tells) = mpsc::channel::<String>();
    let serving = Serving::tcp(move |_| {
        let told = told.clone();
        each(move |cx, what| {
            match &what {
                What::Read(_) => cx.write(b"answer"),
                What::Eof => told.send("eof".into()).unwrap(),
                What::Close(why) => told.send(why.kind().into()).unwrap(),
                _ => {}
            }
            usual(cx, what)
        })
    });
    let mut client = serving.peer(origin);
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
    let go = serving.stall();
    client.write_all(b"half of a").unwrap();
    std::thread::sleep(Duration::from_millis(20));
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    std::thread::sleep(Duration::from_millis(20));
    drop(go);
    assert_eq!(tells.recv_timeout(Duration::from_secs(5)).unwrap(), "io");
}

struct Bomb;
impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("the payload's destructor");
        }
    }
}

/// The payload of a panic may itself panic when it is dropped.
fn a_panic_s_payload_that_panics_costs_nothing_else(origin: Origin) {
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
    let mut other = serving.peer(origin);
    let mut client = serving.peer(origin);
    client.write_all(b"!").unwrap();
    let _ = client.read(&mut [0; 1]);
    other.write_all(b"x").unwrap();
    let mut answer = [0; 2];
    other.read_exact(&mut answer).expect("the reactor lives");
}

/// Mail of one turn that is more than the maximum is no proof of a slow peer.
fn mail_in_plenty_to_a_fast_reader_is_not_slow(origin: Origin) {
    let limits =
        Config { output_low: 1000, output_high: 4000, output_max: 16_000, ..Config::default() };
    let mut sim =
        Simulation::with(1, Faults { send_buffer_max: 1 << 30, ..Default::default() }, limits);
    let log = Log::default();
    let remote: Rc<RefCell<Option<Remote>>> = Rc::default();
    let listener = {
        let (log, remote) = (log.clone(), remote.clone());
        origin.listen(&mut sim, move |_| {
            let remote = remote.clone();
            log.each("it", move |cx, what| {
                *remote.borrow_mut() = Some(cx.remote());
                usual(cx, what)
            })
        })
    };
    let peer = listener.connect(&mut sim);
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
fn plenty_from_another_callback_to_a_fast_reader_is_not_slow(origin: Origin) {
    let limits =
        Config { output_low: 1000, output_high: 4000, output_max: 16_000, ..Config::default() };
    let mut sim =
        Simulation::with(1, Faults { send_buffer_max: 1 << 30, ..Default::default() }, limits);
    let log = Log::default();
    let target: Rc<Cell<ConnId>> = Rc::new(Cell::new(ConnId::NONE));
    let listener = {
        let (log, target) = (log.clone(), target.clone());
        origin.listen(&mut sim, move |_| {
            let target = target.clone();
            log.each("it", move |cx, what| {
                if let What::Open = what {
                    target.set(cx.id());
                }
                usual(cx, what)
            })
        })
    };
    let source = origin.listen(&mut sim, move |_| {
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
    let peer = listener.connect(&mut sim);
    sim.settle();
    let other = source.connect(&mut sim);
    sim.settle();
    other.send(b"go");
    sim.settle();
    assert_eq!(log.of("it"), ["open"]);
    assert_eq!(peer.receive().len(), 100_000);
}

/// What a reactor that ends alone holds of a listener's limit is given back to the others.
#[test]
fn a_reactor_that_ends_alone_gives_its_connections_back() {
    let mut server = Server::new(Config { reactors: 2, pin: false, ..Config::default() }).unwrap();
    let options =
        ListenOptions { max_connections: Some(1), reuse_port: false, ..Default::default() };
    let listener = server.listen_with("127.0.0.1:0", &options).unwrap();
    let addr = server.local_addr(listener).socket_addr().unwrap();
    let running = server
        .start(move |reactor| {
            reactor.accept(listener, |_| {
                each(|cx, what| {
                    if let What::Read(_) = what {
                        let index = cx.reactor_index() as u8;
                        cx.write(&[index]);
                    }
                    usual(cx, what)
                })
            })
        })
        .unwrap();
    let ask = || -> io::Result<u8> {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        stream.write_all(b"?")?;
        let mut index = [0];
        stream.read_exact(&mut index)?;
        std::mem::forget(stream);
        Ok(index[0])
    };
    let first = ask().unwrap();
    running.handle().run_on(first.into(), |reactor| reactor.stop()).unwrap();
    let second = ask();
    running.handle().stop();
    running.join().unwrap();
    assert_eq!(second.expect("the other reactor accepts"), 1 - first);
}

/// Where connections are handed over, one that has ended alone is no longer asked.
#[test]
fn a_reactor_that_ended_alone_gets_no_share() {
    let mut server = Server::new(Config { reactors: 3, pin: false, ..Config::default() }).unwrap();
    let options = ListenOptions { placement: Placement::LeastConnections, ..Default::default() };
    let listener = server.listen_with("127.0.0.1:0", &options).unwrap();
    let addr = server.local_addr(listener).socket_addr().unwrap();
    let running = server
        .start(move |reactor| {
            reactor.accept(listener, |_| {
                each(|cx, what| {
                    if let What::Read(_) = what {
                        let index = cx.reactor_index() as u8;
                        cx.write(&[index]);
                    }
                    usual(cx, what)
                })
            })
        })
        .unwrap();
    running.handle().run_on(2, |reactor| reactor.stop()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let mut open = Vec::new();
    let mut spread = [0; 3];
    for _ in 0..10 {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.write_all(b"?").unwrap();
        let mut index = [0];
        stream.read_exact(&mut index).unwrap();
        spread[usize::from(index[0])] += 1;
        open.push(stream);
    }
    running.handle().stop();
    running.join().unwrap();
    assert_eq!(spread, [5, 5, 0]);
}

/// What even a full mailbox accepts is bounded otherwise: once for each connection.
fn closing_again_and_again_fills_no_mailbox(origin: Origin) {
    let mut sim = Simulation::new(1);
    let remote: Rc<RefCell<Option<Remote>>> = Rc::default();
    let listener = {
        let remote = remote.clone();
        origin.listen(&mut sim, move |_| {
            let remote = remote.clone();
            each(move |cx, what| {
                *remote.borrow_mut() = Some(cx.remote());
                usual(cx, what)
            })
        })
    };
    let _peer = listener.connect(&mut sim);
    sim.settle();
    let remote = remote.borrow().clone().unwrap();
    let before = sim.handle().stats()[0].mail;
    for _ in 0..1000 {
        remote.close().unwrap();
        remote.clone().abort().unwrap();
    }
    sim.settle();
    assert!(sim.handle().stats()[0].mail - before <= 2);
    assert!(!remote.is_open());
}

/// Nor does stopping: once for each reactor.
#[test]
fn stopping_again_and_again_fills_no_mailbox() {
    let mut sim = Simulation::new(1);
    sim.settle();
    let handle = sim.handle();
    let before = handle.stats()[0].mail;
    (0..1000).for_each(|_| handle.stop());
    sim.settle();
    assert_eq!(handle.stats()[0].mail - before, 1);
}

/// `on_drain` says that output is at or below the low mark; if it has risen above the high one
/// again before the call, the call waits for the next crossing.
fn on_drain_finds_the_output_drained(origin: Origin) {
    let limits =
        Config { output_low: 1000, output_high: 4000, output_max: 1 << 20, ..Config::default() };
    let mut sim = Simulation::with(1, Faults { send_buffer_max: 1, ..Default::default() }, limits);
    let pending: Rc<RefCell<Vec<usize>>> = Rc::default();
    let remote: Rc<RefCell<Option<Remote>>> = Rc::default();
    let listener = {
        let (pending, remote) = (pending.clone(), remote.clone());
        origin.listen(&mut sim, move |_| {
            let (pending, remote) = (pending.clone(), remote.clone());
            each(move |cx, what| {
                match what {
                    What::Open => {
                        *remote.borrow_mut() = Some(cx.remote());
                        cx.write(&[1; 4100]);
                    }
                    What::Drain => pending.borrow_mut().push(cx.pending_output()),
                    _ => {}
                }
                usual(cx, what)
            })
        })
    };
    let peer = listener.connect(&mut sim);
    sim.settle();
    let remote = remote.borrow().clone().unwrap();
    // One byte a turn; the low mark is crossed in a turn whose mail crosses the high one.
    for _ in 0..3200 {
        peer.receive();
        sim.turn();
        if remote.pending_output() == 1001 {
            remote.write(vec![1; 8000]).unwrap();
        }
    }
    for _ in 0..20_000 {
        peer.receive();
        sim.turn();
    }
    let pending = pending.borrow();
    assert!(pending.len() <= 2 && pending.iter().all(|&pending| pending <= 1000), "{pending:?}");
}

/// A handler that takes over after the FIN is told of it.
fn a_handler_that_takes_over_after_the_fin_is_told(origin: Origin) {
    let mut sim = Simulation::new(1);
    let log = Log::default();
    let listener = {
        let log = log.clone();
        origin.listen(&mut sim, move |_| {
            let second = log.clone();
            log.each("first", move |cx, what| match what {
                What::Eof => {
                    cx.replace(second.each("second", usual));
                    Ok(0)
                }
                what => usual(cx, what),
            })
        })
    };
    let peer = listener.connect(&mut sim);
    sim.settle();
    peer.finish();
    sim.settle();
    assert_eq!(log.of("second"), ["open", "eof", "close peer"]);
}

/// Connecting again in `on_connect_fail` when the failure is at once does not hold the reactor.
#[test]
fn connecting_again_at_once_does_not_starve_the_rest() {
    struct Again(Rc<Cell<u32>>);
    impl EvHandler for Again {
        fn on_read(&mut self, _: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
            Ok(data.len())
        }
        fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, _: io::Error) {
            self.0.set(self.0.get() + 1);
            if self.0.get() < 100_000 {
                cx.connect("nonsense", &ConnectOptions::default(), Again(self.0.clone()));
            }
        }
    }
    let mut sim = Simulation::new(1);
    let count = Rc::new(Cell::new(0));
    sim.reactor().connect("nonsense", &ConnectOptions::default(), Again(count.clone()));
    sim.turn();
    sim.turn();
    assert!(count.get() < 100, "{} tries in two turns", count.get());
}

/// `close` cancels a connection under way, written to or not.
#[test]
fn close_cancels_a_connection_under_way_that_was_written_to() {
    struct Noting(Rc<RefCell<Vec<String>>>);
    impl EvHandler for Noting {
        fn on_open(&mut self, _: &mut Ctx<'_>) -> io::Result<()> {
            self.0.borrow_mut().push("open".into());
            Ok(())
        }
        fn on_read(&mut self, _: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
            Ok(data.len())
        }
        fn on_connect_fail(&mut self, _: &mut Ctx<'_>, error: io::Error) {
            self.0.borrow_mut().push(format!("fail {:?}", error.kind()));
        }
        fn on_close(&mut self, _: &mut Ctx<'_>, why: &Close) {
            self.0.borrow_mut().push(why.kind().into());
        }
    }
    let log: Rc<RefCell<Vec<String>>> = Rc::default();
    let mut sim = Simulation::new(1);
    let addr: std::net::SocketAddr = "10.0.0.1:1".parse().unwrap();
    let id = sim.reactor().connect(addr, &ConnectOptions::default(), Noting(log.clone()));
    sim.reactor().conn(id).unwrap().write(b"early");
    sim.settle();
    sim.reactor().conn(id).unwrap().close();
    sim.settle();
    assert_eq!(*log.borrow(), ["fail ConnectionAborted"]);
}

/// close(2) waits with SO_LINGER even on a non-blocking socket: a reactor stood still for three
/// seconds for one slow peer.
#[test]
fn a_linger_that_would_block_the_reactor_is_refused() {
    let mut server = Server::new(config()).unwrap();
    let linger = |seconds| ListenOptions {
        linger: Some(Duration::from_secs(seconds)),
        ..ListenOptions::default()
    };
    let error = server.listen_with("127.0.0.1:0", &linger(3)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(server.listen_with("127.0.0.1:0", &linger(0)).is_ok());
}

/// A handler whose connection cannot be made as the reactor stops is told, too.
#[test]
fn connecting_in_the_last_callback_of_a_stop_is_answered() {
    struct Peerless(Arc<Mutex<Vec<&'static str>>>);
    impl EvHandler for Peerless {
        fn on_read(&mut self, _: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
            Ok(data.len())
        }
        fn on_connect_fail(&mut self, _: &mut Ctx<'_>, _: io::Error) {
            self.0.lock().unwrap().push("fail");
        }
    }
    let mut sim = Simulation::new(1);
    let log = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let log = log.clone();
        sim.listen(move |_| {
            let log = log.clone();
            each(move |cx, what| {
                if let What::Close(_) = what {
                    let addr: std::net::SocketAddr = "10.0.0.1:1".parse().unwrap();
                    cx.connect(addr, &ConnectOptions::default(), Peerless(log.clone()));
                }
                usual(cx, what)
            })
        })
    };
    let _peer = sim.connect(listener);
    sim.settle();
    sim.handle().stop();
    sim.settle();
    assert_eq!(*log.lock().unwrap(), ["fail"]);
    assert_eq!(sim.open_sockets(), 0);
}

/// A second server on the same port is refused, though both would share it by SO_REUSEPORT;
/// unless it says that it means to.
#[test]
fn a_port_of_another_server_is_in_use() {
    let mut first = Server::new(Config { reactors: 2, ..config() }).unwrap();
    let listener = first.listen("127.0.0.1:0").unwrap();
    let addr = first.local_addr(listener).to_string();
    let mut second = Server::new(Config { reactors: 2, ..config() }).unwrap();
    let refused = |result: io::Result<_>| result.unwrap_err().kind() == io::ErrorKind::AddrInUse;
    assert!(refused(second.listen(&addr)));
    assert!(refused(first.listen(&addr)));
    let successor = ListenOptions { share_port: true, ..ListenOptions::default() };
    second.listen_with(&addr, &successor).unwrap();
}

/// What is dropped instead of being called may panic in its destructor.
fn what_is_dropped_uncalled_may_panic(origin: Origin) {
    let mut sim = Simulation::new(1);
    let log = Log::default();
    let listener = {
        let log = log.clone();
        origin.listen(&mut sim, move |_| {
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
    let (one, _other) = (listener.connect(&mut sim), listener.connect(&mut sim));
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

/// Nobody waits for the shutdown of a server that never ran.
#[test]
fn the_shutdown_of_a_server_that_never_ran_is_over() {
    let server = Server::new(config()).unwrap();
    let handle = server.handle();
    let shutdown = handle.shutdown(None);
    drop(server);
    assert_eq!(shutdown.wait(), 0);
}

/// A socket adopted in an `on_open`, and written to at once, is not read before its own.
#[test]
fn an_adopted_socket_is_opened_before_it_is_read() {
    let (told, tells) = mpsc::channel();
    let (mut far, near) = std::os::unix::net::UnixStream::pair().unwrap();
    far.write_all(b"early").unwrap();
    let near = Mutex::new(Some(near));
    let server = Server::new(config()).unwrap();
    let running = server
        .start(move |reactor| {
            let (told, near) = (told.clone(), near.lock().unwrap().take().unwrap());
            let mut near = Some(near);
            reactor.add(each(move |cx, what| {
                if let What::Open = what {
                    let told = told.clone();
                    let adopted = each(move |cx, what| {
                        match &what {
                            What::Open => told.send("open").unwrap(),
                            What::Read(_) => told.send("read").unwrap(),
                            _ => {}
                        }
                        usual(cx, what)
                    });
                    let id = cx.adopt(near.take().unwrap(), adopted).unwrap();
                    cx.conn(id).unwrap().write(b"hello");
                }
                usual(cx, what)
            }));
            Ok(())
        })
        .unwrap();
    let first: Vec<_> = (0..2).map(|_| tells.recv_timeout(Duration::from_secs(5))).collect();
    running.handle().stop();
    running.join().unwrap();
    assert_eq!(first, [Ok("open"), Ok("read")]);
}

/// Connections that end in one callback are told in the order in which they were ended.
fn connections_that_end_together_are_told_in_order(origin: Origin) {
    let mut sim = Simulation::new(1);
    let all = Rc::new(RefCell::new(Vec::<ConnId>::new()));
    let ended = Rc::new(RefCell::new(Vec::<ConnId>::new()));
    let listener = {
        let (all, ended) = (all.clone(), ended.clone());
        origin.listen(&mut sim, move |_| {
            let (all, ended) = (all.clone(), ended.clone());
            each(move |cx, what| {
                match &what {
                    What::Open => all.borrow_mut().push(cx.id()),
                    What::Close(_) => ended.borrow_mut().push(cx.id()),
                    What::Read(_) => {
                        for &id in all.borrow().iter() {
                            cx.conn(id).unwrap().abort();
                        }
                    }
                    _ => {}
                }
                usual(cx, what)
            })
        })
    };
    let peers: Vec<_> = (0..4).map(|_| listener.connect(&mut sim)).collect();
    sim.settle();
    peers[2].send(b"x");
    sim.settle();
    assert_eq!(all.borrow().len(), 4);
    assert_eq!(*ended.borrow(), *all.borrow());
}

both_ways!(
    a_tail_is_offered_before_the_fin_that_comes_with_the_resumption,
    a_reset_that_a_send_met_is_no_eof,
    a_reset_that_a_send_met_is_no_eof_on_tcp,
    a_panic_s_payload_that_panics_costs_nothing_else,
    mail_in_plenty_to_a_fast_reader_is_not_slow,
    plenty_from_another_callback_to_a_fast_reader_is_not_slow,
    closing_again_and_again_fills_no_mailbox,
    on_drain_finds_the_output_drained,
    a_handler_that_takes_over_after_the_fin_is_told,
    what_is_dropped_uncalled_may_panic,
    connections_that_end_together_are_told_in_order,
);
