//! Two connections joined: bytes, back-pressure, half-closes and ends are passed on.

mod common;
#[path = "support/refusing.rs"]
mod refusing;

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use common::{Serving, pattern, read_all, until};
use reev::sim::{Faults, Peer, Simulation};
use reev::{Close, Config, ConnId, ConnectOptions, Ctx, EvHandler};
use refusing::Refusing;

type Log = Rc<RefCell<Vec<String>>>;

/// A client's side: waits for the upstream, then is joined with it.
struct Front {
    target: SocketAddr,
    upstream: ConnId,
    log: Option<Log>,
}

struct Back {
    front: ConnId,
    log: Option<Log>,
}

impl EvHandler for Front {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.pause_reads();
        let back = Back { front: cx.id(), log: self.log.clone() };
        self.upstream = cx.connect(self.target, &ConnectOptions::default(), back);
        Ok(())
    }

    fn on_read(&mut self, _: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        panic!("{} bytes for a handler of a pair", data.len());
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        if let Some(log) = &self.log {
            log.borrow_mut().push(format!("front {}", why.kind()));
        }
        if let Some(mut upstream) = cx.conn(self.upstream) {
            upstream.abort();
        }
    }
}

impl EvHandler for Back {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        assert!(cx.pair(self.front));
        assert!(!cx.pair(self.front), "once only");
        assert!(!cx.pair(cx.id()), "not with itself");
        Ok(())
    }

    fn on_read(&mut self, _: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        panic!("{} bytes for a handler of a pair", data.len());
    }

    fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, _: io::Error) {
        if let Some(mut front) = cx.conn(self.front) {
            front.abort();
        }
    }

    fn on_close(&mut self, _: &mut Ctx<'_>, why: &Close) {
        if let Some(log) = &self.log {
            log.borrow_mut().push(format!("back {}", why.kind()));
        }
    }
}

/// A simulated proxy between two peers.
fn between(sim: &mut Simulation, log: &Log) -> (Peer, Peer) {
    let shared = log.clone();
    let target = "10.0.0.1:1".parse().unwrap();
    let front =
        move |_: &reev::Addr| Front { target, upstream: ConnId::NONE, log: Some(shared.clone()) };
    let listener = sim.listen(front);
    let client = sim.connect(listener);
    client.send(b"before "); // must not be lost
    sim.settle();
    let server = sim.outgoing().unwrap().accept();
    sim.settle();
    (client, server)
}

/// Planted: `PAIR_PAUSED` left set; a FIN sent before the queue is empty.
#[test]
fn what_goes_in_comes_out_whatever_the_kernel_does() {
    for seed in 0..100 {
        let config = Config { output_low: 1000, output_high: 3000, ..Config::default() };
        let mut sim = Simulation::with(seed, Faults::hostile(), config);
        let log = Log::default();
        let (client, server) = between(&mut sim, &log);
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut up, mut down) = (b"before ".to_vec(), Vec::new());
        let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
        let (mut up_done, mut down_done) = (false, false);
        for step in 0..200 {
            let piece = pattern(rng.usize(1..3000), seed * 1000 + step);
            match rng.u8(0..10) {
                0..3 if !up_done => {
                    client.send(&piece);
                    up.extend(piece);
                }
                3..6 if !down_done => {
                    server.send(&piece);
                    down.extend(piece);
                }
                6 => got_up.extend(server.receive_at_most(rng.usize(0..5000))),
                7 => got_down.extend(client.receive_at_most(rng.usize(0..5000))),
                8 if step > 150 && !up_done => {
                    client.finish();
                    up_done = true;
                }
                9 if step > 150 && !down_done => {
                    server.finish();
                    down_done = true;
                }
                _ => drop(sim.turn()),
            }
            let queued = sim.handle().stats()[0].output_queued;
            assert!(queued <= 2 * (3000 + 65_536), "seed {seed}: {queued} queued");
        }
        client.finish();
        server.finish();
        for _ in 0..20_000 {
            sim.turn();
            got_up.extend(server.receive());
            got_down.extend(client.receive());
            if server.is_released() && client.is_released() {
                break;
            }
        }
        assert!(got_up == up && got_down == down, "seed {seed}");
        let ends = (client.saw_fin(), server.saw_fin(), client.saw_reset(), server.saw_reset());
        assert_eq!(ends, (true, true, false, false), "seed {seed}");
        let mut log = log.take();
        log.sort();
        assert_eq!(log, ["back peer", "front peer"], "seed {seed}");
        let stats = &sim.handle().stats()[0];
        assert_eq!((stats.open, stats.paused, stats.output_queued), (0, 0, 0), "seed {seed}");
    }
}

/// Takes a line, which says where to, and leaves the rest to the pair.
struct Asking(Option<ConnId>);

impl EvHandler for Asking {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let Some(end) = data.iter().position(|&byte| byte == b'\n') else {
            return Ok(0);
        };
        cx.pause_reads();
        let target: SocketAddr = "10.0.0.1:1".parse().unwrap();
        let back = Back { front: cx.id(), log: None };
        self.0 = Some(cx.connect(target, &ConnectOptions::default(), back));
        Ok(end + 1)
    }
}

/// Planted: the tail is dropped; it goes behind what has come since.
#[test]
fn what_was_left_untaken_goes_first() {
    for more in [false, true] {
        let mut sim = Simulation::new(4);
        let listener = sim.listen(|_| Asking(None));
        let client = sim.connect(listener);
        client.send(b"to there\nthe rest, ");
        sim.settle();
        if more {
            client.send(b"and more");
        }
        let server = sim.outgoing().unwrap().accept();
        sim.settle();
        let expected: &[u8] = if more { b"the rest, and more" } else { b"the rest, " };
        assert_eq!(server.receive(), expected);
        client.finish();
        sim.settle();
        assert!(server.saw_fin());
    }
}

/// Has its upstream from the start, and joins it when the peer has said all.
struct Whole(ConnId);

impl EvHandler for Whole {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        let target: SocketAddr = "10.0.0.1:1".parse().unwrap();
        self.0 = cx.connect(target, &ConnectOptions::default(), Idle);
        Ok(())
    }

    fn on_read(&mut self, _: &mut Ctx<'_>, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        assert!(cx.pair(self.0));
        Ok(())
    }
}

struct Idle;

impl EvHandler for Idle {}

/// Planted: the FIN goes on before what was left untaken; the tail is dropped after `on_eof`.
#[test]
fn what_was_left_untaken_goes_before_the_fin() {
    let mut sim = Simulation::new(5);
    let listener = sim.listen(|_| Whole(ConnId::NONE));
    let client = sim.connect(listener);
    sim.settle();
    let server = sim.outgoing().unwrap().accept();
    client.send(b"all of it");
    client.finish();
    sim.settle();
    assert_eq!(server.receive(), b"all of it");
    assert!(server.saw_fin() && !client.saw_fin());
    server.send(b"an answer");
    server.finish();
    sim.settle();
    assert_eq!(client.receive(), b"an answer");
    assert!(client.saw_fin() && client.is_released() && server.is_released());
}

#[test]
fn hard_case_09_a_half_close_is_carried_over() {
    let (mut sim, log) = (Simulation::new(1), Log::default());
    let (client, server) = between(&mut sim, &log);
    client.send(b"request");
    client.finish();
    sim.settle();
    assert_eq!(server.receive(), b"before request");
    assert!(server.saw_fin() && !client.saw_fin());
    sim.advance(Duration::from_secs(60));
    server.send(b"a late answer");
    sim.settle();
    assert_eq!(client.receive(), b"a late answer");
    assert!(log.borrow().is_empty());
    server.finish();
    sim.settle();
    assert!(client.saw_fin() && client.is_released() && server.is_released());
}

#[test]
fn ends_are_carried_over() {
    // Each: what happens to the client's side, and what its own and the other side see.
    type Act = fn(&mut Simulation, &Peer, ConnId);
    let acts: [(Act, [&str; 2], bool); 4] = [
        (|_, client, _| client.reset(), ["front io", "back aborted"], true),
        (
            |sim, _, id| sim.reactor().conn(id).unwrap().close(),
            ["front local", "back local"],
            false,
        ),
        (
            |sim, _, id| sim.reactor().conn(id).unwrap().abort(),
            ["front aborted", "back aborted"],
            true,
        ),
        (
            |sim, _, id| {
                sim.reactor().conn(id).unwrap().idle_timeout(Duration::from_secs(9));
                sim.advance(Duration::from_secs(11));
            },
            ["front idle_timeout", "back local"],
            false,
        ),
    ];
    for (act, expected, reset) in acts {
        let (mut sim, log) = (Simulation::new(2), Log::default());
        let (client, server) = between(&mut sim, &log);
        let front = sim.reactor().conn_ids()[0];
        server.receive();
        act(&mut sim, &client, front);
        sim.advance(Duration::from_secs(60));
        assert_eq!(*log.borrow(), expected);
        assert_eq!((server.saw_reset(), server.saw_fin()), (reset, !reset), "{expected:?}");
        assert_eq!(sim.open_sockets(), 1, "the listener");
    }
}

#[test]
fn back_pressure_crosses_over_and_each_direction_is_its_own() {
    let faults = Faults { send_buffer_max: 1, ..Faults::default() };
    let config = Config { output_low: 1000, output_high: 4000, ..Config::default() };
    let (mut sim, log) = (Simulation::with(3, faults, config), Log::default());
    let (client, server) = between(&mut sim, &log);
    for _ in 0..10 {
        client.send(&[1; 2000]);
        sim.settle();
    }
    assert!(client.unread() > 0, "the client is stopped while the server does not read");
    server.send(b"!");
    sim.settle();
    assert_eq!(client.receive(), b"!", "though the other direction goes on");
    let mut received = 0;
    while received < 20_007 {
        received += server.receive().len();
        sim.settle();
    }
    assert_eq!(client.unread(), 0);
    assert_eq!(sim.handle().stats()[0].paused, 0);
}

fn proxy(target: SocketAddr) -> Serving {
    Serving::tcp(move |_| Front { target, upstream: ConnId::NONE, log: None })
}

#[test]
fn through_real_sockets_both_ways_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = proxy(listener.local_addr().unwrap());
    let client = proxy.connect();
    let (server, _) = listener.accept().unwrap();
    let (up, down) = (pattern(20 << 20, 1), pattern(20 << 20, 2));
    let talk = |mut stream: TcpStream, data: Vec<u8>| {
        std::thread::spawn(move || {
            let mut writer = stream.try_clone().unwrap();
            let writing = std::thread::spawn(move || {
                writer.write_all(&data).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let received = read_all(&mut stream);
            writing.join().unwrap();
            received
        })
    };
    let (a, b) = (talk(client, up.clone()), talk(server, down.clone()));
    assert!(a.join().unwrap() == (down, None));
    assert!(b.join().unwrap() == (up, None));
    until("both are closed", || proxy.handle.stats()[0].open == 0);
}

/// Two ends of what is relayed between sockets of a kind, and the proxy.
fn ends(unix: bool) -> (Serving, UnixOrTcp, UnixOrTcp) {
    if !unix {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = proxy(listener.local_addr().unwrap());
        let client = proxy.connect();
        let (server, _) = listener.accept().unwrap();
        return (proxy, client.into(), server.into());
    }
    let proxy = proxy("127.0.0.1:1".parse().unwrap());
    let (ours, client) = UnixStream::pair().unwrap();
    let (theirs, server) = UnixStream::pair().unwrap();
    proxy.ask(move |reactor| {
        let front = reactor.adopt(ours, Quiet).unwrap();
        reactor.adopt(theirs, Back { front, log: None }).unwrap();
    });
    (proxy, client.into(), server.into())
}

/// The other side of `Back`, without an upstream of its own.
struct Quiet;

impl EvHandler for Quiet {}

/// A stream of either kind by its descriptor, blocking.
type UnixOrTcp = socket2::Socket;

/// What goes through the pipe arrives whole and in order, in both directions, while receivers
/// rest again and again, and the FIN comes behind it.
/// Planted: what the receiver does not take is dropped.
#[test]
fn long_streams_go_through_a_pipe_whole() {
    for unix in [false, true] {
        let (proxy, client, server) = ends(unix);
        let (up, down) = (pattern(48 << 20, 1), pattern(24 << 20, 2));
        let talk = |stream: UnixOrTcp, data: Vec<u8>, rest: u64| {
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                let writing = std::thread::spawn(move || {
                    writer.write_all(&data).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let (mut received, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
                loop {
                    let n = (&stream).read(&mut buffer).unwrap();
                    received.extend_from_slice(&buffer[..n]);
                    if n == 0 {
                        break;
                    }
                    std::thread::sleep(Duration::from_micros(rest));
                }
                writing.join().unwrap();
                received
            })
        };
        let (a, b) = (talk(client, up.clone(), 300), talk(server, down.clone(), 50));
        assert!(a.join().unwrap() == down, "unix {unix}: to the client");
        assert!(b.join().unwrap() == up, "unix {unix}: to the server");
        until("both are closed", || proxy.handle.stats()[0].open == 0);
        let stats = &proxy.handle.stats()[0];
        assert_eq!((stats.bytes_in, stats.bytes_out), (72 << 20, 72 << 20));
        assert_eq!((stats.paused, stats.output_queued), (0, 0));
        if cfg!(any(target_os = "linux", target_os = "android")) {
            assert!(stats.bytes_spliced > 8 << 20, "{} bytes spliced", stats.bytes_spliced);
        }
    }
}

/// A receiver that reads nothing stops the sender, and little waits meanwhile; then it goes on.
#[test]
fn a_receiver_that_rests_stops_a_stream_through_the_pipe() {
    let (proxy, client, server) = ends(false);
    let data = pattern(64 << 20, 3);
    let sent = data.clone();
    let writing = std::thread::spawn(move || {
        (&client).write_all(&sent).unwrap();
        client
    });
    // First it flows, then it does not.
    let mut received = vec![0; 16 << 20];
    (&server).read_exact(&mut received).unwrap();
    proxy.comes_to_rest();
    let stats = &proxy.handle.stats()[0];
    assert!(stats.output_queued <= 512 << 10, "{} bytes queued", stats.output_queued);
    assert!(stats.bytes_in < 64 << 20, "the sender is not stopped");
    let mut rest = vec![0; (64 << 20) - received.len()];
    (&server).read_exact(&mut rest).unwrap();
    received.extend(rest);
    assert!(received == data);
    drop(writing.join().unwrap());
    assert_eq!((&server).read(&mut [0]).unwrap(), 0);
}

/// A reset by either end of a stream through the pipe ends both sides with it.
/// Planted: an error of the splice is taken for the peer's FIN; one of the receiver is ignored.
#[test]
fn a_reset_in_a_stream_through_the_pipe_is_passed_on() {
    for by_the_sender in [true, false] {
        let (proxy, client, server) = ends(false);
        let data = vec![7; 16 << 20];
        let writer = client.try_clone().unwrap();
        // To a receiver that goes, without end: what is on the way may be much.
        let writing = std::thread::spawn(move || {
            if by_the_sender {
                return (&writer).write_all(&data);
            }
            loop {
                (&writer).write_all(&data)?;
            }
        });
        let mut received = vec![0; 4 << 20];
        (&server).read_exact(&mut received).unwrap();
        if by_the_sender {
            (&server).read_exact(&mut vec![0; 12 << 20]).unwrap();
            writing.join().unwrap().unwrap();
            client.set_linger(Some(Duration::ZERO)).unwrap();
            drop(client);
            let end = (&server).read(&mut [0]);
            assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        } else {
            server.set_linger(Some(Duration::ZERO)).unwrap();
            drop(server);
            let failed = writing.join().unwrap().unwrap_err();
            let kinds = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
            assert!(kinds.contains(&failed.kind()), "{failed}");
        }
        until("both are gone", || proxy.handle.stats()[0].open == 0);
    }
}

#[test]
fn a_dead_backend_and_a_client_that_leaves_early_leave_nothing_behind() {
    let nobody = Refusing::new();
    let refused = proxy(nobody.addr());
    let mut client = refused.connect();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let serving = proxy(listener.local_addr().unwrap());
    for _ in 0..50 {
        drop(serving.connect());
    }
    until("all have come", || serving.handle.stats()[0].accepted == 50);
    drop(listener);
    until("all are gone", || serving.handle.stats()[0].open == 0);
    serving.comes_to_rest();
}
