//! The layer against peers that flood, stall and leave at awkward moments.
#![cfg(all(feature = "websocket", feature = "sim"))]

#[path = "support/websocket_fuzzing.rs"]
mod frames;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use frames::frame_for;
use reev::http1::Http1;
use reev::sim::{Faults, Peer as Wire, Simulation};
use reev::websocket::{
    CloseCode, Closed, Handler, KeepAlivePolicy, Options, Peer, Prepared, Role, SendError,
    SlowConsumer, WebSocket, WebSockets,
};
use reev::{Config, Ctx, ListenerId};

const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: \
    Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// A server, and what its handlers kept.
struct Site<S> {
    sim: Simulation,
    listener: ListenerId,
    kept: Rc<S>,
}

impl<S: Default + 'static> Site<S> {
    fn new<H: Handler>(
        faults: Faults,
        config: Config,
        options: Options,
        handler: fn(Rc<S>) -> H,
    ) -> Site<S> {
        let mut sim = Simulation::with(1, faults, config);
        let (http, sockets) = (Http1::new(Default::default()), WebSockets::new(options));
        let kept = Rc::<S>::default();
        let shared = kept.clone();
        let listener = sim.listen(move |_| {
            let kept = shared.clone();
            http.connection(sockets.path("/", move || handler(kept.clone())))
        });
        Site { sim, listener, kept }
    }

    fn open(&mut self, fields: &str) -> Wire {
        let wire = self.sim.connect(self.listener);
        wire.send(format!("{HANDSHAKE}{fields}\r\n").as_bytes());
        let mut head = Vec::new();
        for _ in 0..1000 {
            self.sim.settle();
            head.extend(wire.receive());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 ") && head.ends_with(b"\r\n\r\n"));
        wire
    }

    fn send(&mut self, wire: &Wire, first: u8, payload: &[u8]) {
        wire.send(&frame_for(Role::Server, first, payload));
        self.sim.settle();
    }
}

fn keep_alive(policy: KeepAlivePolicy) -> Options {
    let mut options = Options::default();
    options.keep_alive = policy;
    options
}

const POLICY: KeepAlivePolicy = KeepAlivePolicy {
    ping_after: Some(Duration::from_secs(8)),
    pong_within: Duration::from_secs(3),
    close_within: Some(Duration::from_secs(5)),
};

/// Sends itself a farewell at every end that it is told of.
#[derive(Default)]
struct Farewells {
    sent: RefCell<Vec<(&'static str, Result<(), SendError>)>>,
}

struct Farewell {
    kept: Rc<Farewells>,
    peer: Option<Peer>,
}

impl Farewell {
    fn say(&self, cx: &mut Ctx<'_>, at: &'static str) {
        let sent = self.peer.as_ref().unwrap().send(cx, &Prepared::text("bye"));
        self.kept.sent.borrow_mut().push((at, sent));
    }
}

impl Handler for Farewell {
    fn on_open(&mut self, ws: &mut WebSocket<'_>) {
        self.peer = Some(ws.peer());
    }

    fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
        match text {
            "abort" => ws.ctx().abort(),
            "hang up" => ws.ctx().close(),
            _ => ws.close(CloseCode::NORMAL, ""),
        }
        self.say(&mut ws.ctx(), "close");
        let sent = ws.text("bye");
        self.kept.sent.borrow_mut().push(("text", sent));
    }

    fn on_close_frame(&mut self, ws: &mut WebSocket<'_>, _code: CloseCode, _reason: &str) {
        self.say(&mut ws.ctx(), "frame");
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, _closed: &Closed<'_>) {
        self.say(cx, "end");
    }
}

/// RFC 6455 section 5.5.1: behind this side's close frame stands nothing, and whoever tries is told.
#[test]
fn a_peer_sends_nothing_behind_the_close_frame() {
    let faults = Faults::default;
    let farewell = |kept| Farewell { kept, peer: None };
    let refused = Err(SendError::Closed);
    for (first, payload, answer, told) in [
        (0x88, &b"\x03\xe8"[..], &b"\x88\x02\x03\xe8"[..], &["frame", "end"][..]),
        (0x81, b"close", b"\x88\x02\x03\xe8", &["close", "text"]),
        (0x81, b"hang up", b"", &["close", "text", "end"]),
        (0x81, b"abort", b"", &["close", "text", "end"]),
    ] {
        let mut site = Site::new(faults(), Config::default(), Options::default(), farewell);
        let wire = site.open("");
        site.send(&wire, first, payload);
        assert_eq!(wire.receive(), answer, "{payload:?}");
        let told: Vec<_> = told.iter().map(|&at| (at, refused)).collect();
        assert_eq!(*site.kept.sent.borrow(), told, "{payload:?}");
    }
}

#[derive(Default)]
struct Ends(RefCell<Vec<(u16, String)>>);

impl Ends {
    fn note(&self, closed: &Closed<'_>) {
        self.0.borrow_mut().push((closed.code.0, closed.cause.kind().to_owned()));
    }
}

/// Rests for a minute when told to.
struct Rester(Rc<Ends>);

impl Handler for Rester {
    fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
        if text == "rest" {
            ws.ctx().pause_reads();
            ws.set_timer(Duration::from_secs(60));
        } else {
            ws.text(text).unwrap();
        }
    }

    fn on_timeout(&mut self, ws: &mut WebSocket<'_>, _timer: reev::TimerId) {
        ws.ctx().resume_reads();
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, closed: &Closed<'_>) {
        self.0.note(closed);
    }
}

/// Who does not read cannot say that nothing came.
#[test]
fn a_handler_that_rests_does_not_lose_its_peer() {
    let mut site = Site::new(Faults::default(), Config::default(), keep_alive(POLICY), Rester);
    let wire = site.open("");
    site.send(&wire, 0x81, b"rest");
    site.send(&wire, 0x81, b"still here");
    let mut got = Vec::new();
    for _ in 0..65 {
        site.sim.advance(Duration::from_secs(1));
        got.extend(wire.receive());
    }
    assert!(site.kept.0.borrow().is_empty(), "{:?}", site.kept.0.borrow());
    assert!(got.ends_with(b"\x81\x0astill here"), "{got:?}");
    // Then silence counts again.
    for _ in 0..20 {
        site.sim.advance(Duration::from_secs(1));
    }
    assert_eq!(*site.kept.0.borrow(), [(1006, "local".to_owned())]);
}

/// Says much when asked.
struct Talker(Rc<Ends>);

impl Handler for Talker {
    fn on_text(&mut self, ws: &mut WebSocket<'_>, _text: &str) {
        for _ in 0..100 {
            ws.binary(&[7; 1000]).unwrap();
        }
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, closed: &Closed<'_>) {
        self.0.note(closed);
    }
}

fn narrow() -> (Faults, Config) {
    let config =
        Config { output_low: 1_000, output_high: 10_000, output_max: 1 << 20, ..Config::default() };
    (Faults { send_buffer_max: 1000, ..Faults::default() }, config)
}

/// Nothing is read from a peer whose output waits, so what it takes is its sign of life.
#[test]
fn a_peer_that_takes_its_output_slowly_stays_and_one_that_takes_nothing_goes() {
    let (faults, config) = narrow();
    let mut site = Site::new(faults, config, keep_alive(POLICY), Talker);
    let (slow, stuck) = (site.open(""), site.open(""));
    site.sim.advance(Duration::from_secs(7));
    for wire in [&slow, &stuck] {
        site.send(wire, 0x81, b"talk");
    }
    let mut got = 0;
    for _ in 0..20 {
        site.sim.advance(Duration::from_secs(2));
        got += slow.receive_at_most(100).len();
    }
    assert!(!slow.saw_reset() && !slow.saw_fin());
    assert!(stuck.saw_reset(), "{:?}", site.kept.0.borrow());
    assert_eq!(site.kept.0.borrow().len(), 1);
    for _ in 0..10_000 {
        site.sim.settle();
        got += slow.receive().len();
    }
    assert!(got >= 100 * 1004, "{got}");
}

/// Tells when it may go on.
#[derive(Default)]
struct Drains(RefCell<usize>);

struct Counter(Rc<Drains>);

impl Handler for Counter {
    fn on_drain(&mut self, _ws: &mut WebSocket<'_>) {
        *self.0.0.borrow_mut() += 1;
    }
}

/// Pongs count as output: a flood of pings stops the reading, all are answered in the end, and the handler is told once
/// for each crossing.
#[test]
fn a_flood_of_pings_is_answered_at_the_peers_pace() {
    let (faults, config) = narrow();
    let mut site = Site::new(faults, config, Options::default(), Counter);
    let wire = site.open("");
    let ping = frame_for(Role::Server, 0x89, &[b'p'; 125]);
    wire.send(&ping.repeat(2000));
    site.sim.settle();
    assert!(wire.unread() > 1000 * ping.len(), "{}", wire.unread());
    let mut got = Vec::new();
    for _ in 0..10_000 {
        site.sim.settle();
        got.extend(wire.receive());
    }
    assert_eq!(got.len(), 2000 * 127);
    assert!(got.chunks(127).all(|pong| pong[..2] == [0x8a, 125]));
    assert!(*site.kept.0.borrow() > 0);
}

/// Panics where it is told to.
struct Fragile(Rc<Ends>);

impl Handler for Fragile {
    fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
        match text {
            "timer" => drop(ws.set_timer(Duration::from_secs(1))),
            "close" => ws.close(CloseCode::NORMAL, ""),
            "echo" => ws.text(text).unwrap(),
            _ => panic!("{text}"),
        }
    }

    fn on_ping(&mut self, _ws: &mut WebSocket<'_>, _payload: &[u8]) {
        panic!("ping");
    }

    fn on_close_frame(&mut self, _ws: &mut WebSocket<'_>, _code: CloseCode, _reason: &str) {
        panic!("close frame");
    }

    fn on_timeout(&mut self, _ws: &mut WebSocket<'_>, _timer: reev::TimerId) {
        panic!("timer");
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, closed: &Closed<'_>) {
        self.0.note(closed);
    }
}

#[test]
fn a_handler_that_panics_takes_nobody_with_it() {
    let mut site = Site::new(Faults::default(), Config::default(), Options::default(), Fragile);
    let other = site.open("");
    let ways = [(0x81, &b"text"[..]), (0x89, b""), (0x88, b"\x03\xe8"), (0x81, b"timer")];
    for (number, (first, payload)) in ways.into_iter().enumerate() {
        let wire = site.open("");
        site.send(&wire, first, payload);
        site.sim.advance(Duration::from_secs(2));
        assert!(wire.saw_reset(), "{payload:?}");
        let ends = site.kept.0.borrow();
        assert_eq!((ends.len(), ends[number].1.as_str()), (number + 1, "panic"));
        drop(ends);
        site.send(&other, 0x81, b"echo");
        assert_eq!(other.receive(), b"\x81\x04echo");
    }
}

/// A peer for others to send to, and a remote for other threads.
#[derive(Default)]
struct Reached(RefCell<Vec<(Peer, reev::websocket::Remote)>>);

struct Reachable(Rc<Reached>);

impl Handler for Reachable {
    fn on_open(&mut self, ws: &mut WebSocket<'_>) {
        let reached = (ws.peer(), ws.remote());
        self.0.0.borrow_mut().push(reached);
    }
}

/// A broadcast is held to the policy for each of its receivers.
#[test]
fn a_broadcast_is_held_to_each_policy() {
    let message = Prepared::binary(&[7; 1000]);
    for policy in [SlowConsumer::Wait, SlowConsumer::Drop, SlowConsumer::Close] {
        let (faults, config) = narrow();
        let mut options = Options::default();
        options.slow_consumer = policy;
        let mut site = Site::new(faults, config, options, Reachable);
        let (slow, quick) = (site.open(""), site.open(""));
        let mut got = Vec::new();
        let mut told = Vec::new();
        for _ in 0..100 {
            for (place, (peer, _)) in site.kept.0.borrow().iter().enumerate() {
                let sent = match site.sim.reactor().conn(peer.id()) {
                    Some(mut cx) => peer.send(&mut cx, &message),
                    None => Err(SendError::Closed),
                };
                if place == 0 {
                    told.push(sent);
                } else {
                    assert_eq!(sent, Ok(()));
                }
            }
            for _ in 0..1000 {
                site.sim.settle();
                got.extend(quick.receive());
            }
        }
        assert_eq!(got.len(), 100 * 1004, "{policy:?}");
        let kept = told.iter().take_while(|sent| sent.is_ok()).count();
        let wanted = |error: SendError| told[kept..].iter().all(|&sent| sent == Err(error));
        match policy {
            SlowConsumer::Wait => assert_eq!(kept, 100),
            SlowConsumer::Drop => {
                assert!((9..13).contains(&kept) && wanted(SendError::SlowConsumer))
            }
            _ => {
                assert!((9..13).contains(&kept), "{kept}");
                assert_eq!(told[kept], Err(SendError::SlowConsumer));
                assert!(told[kept + 1..].iter().all(|&sent| sent == Err(SendError::Closed)));
            }
        }
        assert_eq!(slow.saw_reset(), policy == SlowConsumer::Close);
    }
}

/// What waited for a WebSocket that has ended is given back, though somebody keeps its remote.
#[test]
fn a_remote_that_is_kept_keeps_no_messages() {
    let (faults, config) = narrow();
    let mut site = Site::new(faults, config, Options::default(), Reachable);
    let wire = site.open("");
    let remote = site.kept.0.borrow()[0].1.clone();
    let data = bytes::Bytes::from(vec![7; 100_000]);
    for _ in 0..10 {
        remote.binary(data.clone()).unwrap();
    }
    site.sim.settle();
    assert!(!data.is_unique());
    wire.reset();
    site.sim.settle();
    assert_eq!(remote.binary(data.clone()), Err(SendError::Closed));
    assert!(data.is_unique());
}

/// More than one turn sends: the rest follows without another call.
#[test]
fn a_long_queue_of_a_remote_is_sent_to_its_end() {
    let mut site = Site::new(Faults::default(), Config::default(), Options::default(), Reachable);
    let wire = site.open("");
    let remote = site.kept.0.borrow()[0].1.clone();
    for number in 0..5000 {
        remote.text(format!("{number:04}")).unwrap();
    }
    site.sim.settle();
    let got = wire.receive();
    assert_eq!(got.len(), 5000 * 6);
    assert!(got.ends_with(b"\x81\x044999"));
}
