//! The handlers of both roles: handshakes, ends, times, slow consumers, other threads, broadcasts.
#![cfg(all(feature = "websocket", feature = "sim"))]

#[path = "support/websocket_fuzzing.rs"]
mod frames;
#[path = "support/websocket_pair.rs"]
mod pair;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use frames::frame_for;
use pair::{End, Message, client, server, settle};
use reev::http1::Http1;
use reev::sim::{Faults, Simulation};
use reev::websocket::{
    CloseCode, Handler, KeepAlivePolicy, Kind, Options, Origins, Peer, Prepared, Role, SendError,
    SlowConsumer, WebSocket, WebSockets,
};
use reev::{Close, Config, Ctx, EvHandler};

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: \
    keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn plain(options: Options) -> End {
    server(1, Faults::default(), Config::default(), options)
}

/// A server that has been asked with these fields added; its answer.
fn asked(options: Options, head: &str) -> (End, String) {
    let mut end = plain(options);
    end.wire.send(format!("{head}\r\n").as_bytes());
    end.sim.settle();
    let answer = String::from_utf8_lossy(&end.wire.receive()).into_owned();
    (end, answer)
}

fn open(options: Options) -> End {
    let (end, answer) = asked(options, HANDSHAKE);
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    end
}

fn send(end: &mut End, first: u8, payload: &[u8]) {
    end.wire.send(&frame_for(Role::Server, first, payload));
    end.sim.settle();
}

/// RFC 6455 section 1.3 and 4.2.2: the answer to the example's key.
#[test]
fn a_handshake_is_answered() {
    let (end, answer) = asked(Options::default(), HANDSHAKE);
    assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: upgrade\r\n"), "{answer}");
    assert_eq!(end.log.borrow().opened, 1);
}

/// Frames behind the handshake, in the same read, are the WebSocket's.
#[test]
fn frames_may_follow_the_handshake_at_once() {
    let mut end = plain(Options::default());
    let mut bytes = format!("{HANDSHAKE}\r\n").into_bytes();
    bytes.extend(frame_for(Role::Server, 0x81, b"early"));
    end.wire.send(&bytes);
    end.sim.settle();
    assert_eq!(end.log.borrow().got, [Message::Text("early".into())]);
}

#[test]
fn what_is_no_handshake_gets_the_right_answer() {
    let without = |line: &str| HANDSHAKE.replace(line, "");
    let cases = [
        (HANDSHAKE.replace("Version: 13", "Version: 8"), "426"),
        (without("Upgrade: websocket\r\n"), "426"),
        (HANDSHAKE.replace("keep-alive, Upgrade", "keep-alive"), "400"),
        (without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), "400"),
        (HANDSHAKE.replace("GET", "POST"), "405"),
        (HANDSHAKE.replace("/chat", "/other"), "404"),
        (format!("{HANDSHAKE}Origin: http://evil\r\n"), "403"),
        (format!("{HANDSHAKE}Origin: http://a\r\n"), "101"),
    ];
    for (head, status) in cases {
        let (end, answer) = asked(Options::default(), &head);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}\n{answer}");
        assert_eq!(end.log.borrow().opened, usize::from(status == "101"));
        if status == "426" {
            assert!(answer.contains("Sec-WebSocket-Version: 13\r\n"), "{answer}");
            assert!(answer.to_lowercase().contains("connection: close, upgrade\r\n"), "{answer}");
        }
    }
    let mut options = Options::default();
    options.origins = Origins::Any;
    let (_, answer) = asked(options, &format!("{HANDSHAKE}Origin: http://evil\r\n"));
    assert!(answer.starts_with("HTTP/1.1 101 "));
}

#[test]
fn subprotocols_are_chosen_in_the_clients_order() {
    let speaks = |protocols: &[&str]| {
        let mut options = Options::default();
        options.protocols = protocols.iter().map(|&name| name.to_owned()).collect();
        options
    };
    let mut server = plain(speaks(&["b", "a"]));
    let mut client = client(2, Faults::default(), Config::default(), speaks(&["x", "a", "b"]));
    settle(&mut server, &mut client);
    for end in [&server, &client] {
        assert_eq!(end.log.borrow().protocol.as_deref(), Some("a"));
    }
}

#[test]
fn a_broken_protocol_is_answered_with_its_code() {
    for (first, payload, code) in [
        (0xc1, &b"x"[..], 1002u16),
        (0x81, b"\xff", 1007),
        (0x83, b"", 1002),
        (0x88, b"\x03", 1002),
    ] {
        let mut end = open(Options::default());
        send(&mut end, first, payload);
        let answer = end.wire.receive();
        assert_eq!(answer[0], 0x88);
        assert_eq!(answer[2..4], code.to_be_bytes());
        assert!(end.wire.saw_fin());
        end.wire.close();
        end.sim.settle();
        assert_eq!(end.log.borrow().closed.len(), 1);
        assert_eq!((end.log.borrow().closed[0].0, end.log.borrow().closed[0].2), (code, false));
    }
}

#[test]
fn an_end_without_a_close_frame_is_abnormal() {
    let mut end = open(Options::default());
    end.wire.close();
    end.sim.settle();
    assert_eq!(end.log.borrow().closed, [(1006, String::new(), false)]);
}

#[test]
fn the_peers_reason_is_told() {
    let mut end = open(Options::default());
    send(&mut end, 0x88, b"\x0f\xa0enough");
    assert_eq!(end.wire.receive(), b"\x88\x02\x0f\xa0");
    assert!(end.wire.saw_fin());
    assert_eq!(end.log.borrow().closed, [(4000, "enough".to_owned(), true)]);
}

fn keep_alive(ping: u64, pong: u64, close: u64) -> Options {
    let mut options = Options::default();
    options.keep_alive = KeepAlivePolicy {
        ping_after: Some(Duration::from_secs(ping)),
        pong_within: Duration::from_secs(pong),
        close_within: Some(Duration::from_secs(close)),
    };
    options
}

#[test]
fn a_silent_peer_is_pinged_and_then_given_up() {
    let mut end = open(keep_alive(8, 3, 5));
    end.sim.advance(Duration::from_secs(7));
    assert_eq!(end.wire.receive(), b"");
    end.sim.advance(Duration::from_secs(3));
    assert_eq!(end.wire.receive(), b"\x89\x00");
    // Any traffic is as good as a pong, and renews.
    send(&mut end, 0x82, b"x");
    end.sim.advance(Duration::from_secs(7));
    assert_eq!(end.wire.receive(), b"");
    assert!(end.log.borrow().closed.is_empty());
    end.sim.advance(Duration::from_secs(3));
    assert_eq!(end.wire.receive(), b"\x89\x00");
    end.sim.advance(Duration::from_secs(4));
    assert!(end.wire.saw_fin());
    assert_eq!(end.log.borrow().closed, [(1006, String::new(), false)]);
}

#[test]
fn a_peer_that_answers_pings_stays_for_hours() {
    let mut server = plain(keep_alive(8, 3, 5));
    let mut client = client(2, Faults::default(), Config::default(), keep_alive(3600 * 24, 3, 5));
    settle(&mut server, &mut client);
    for _ in 0..2000 {
        server.sim.advance(Duration::from_secs(2));
        client.sim.advance(Duration::from_secs(2));
        settle(&mut server, &mut client);
    }
    assert!(client.log.borrow().pings >= 400, "{}", client.log.borrow().pings);
    assert!(server.log.borrow().closed.is_empty() && client.log.borrow().closed.is_empty());
}

#[test]
fn a_close_that_is_not_answered_has_its_time() {
    let mut end = open(keep_alive(100, 3, 5));
    end.log.borrow().remote.as_ref().unwrap().notify(1001).unwrap();
    end.sim.settle();
    assert_eq!(end.wire.receive()[..4], *b"\x88\x0b\x03\xe9");
    end.sim.advance(Duration::from_secs(4));
    assert!(!end.wire.saw_fin());
    end.sim.advance(Duration::from_secs(2));
    assert!(end.wire.saw_fin());
    assert_eq!(end.log.borrow().closed, [(1001, String::new(), false)]);
}

/// Planted: the key is not looked at; an interim answer (RFC 9110 section 15.2) is taken for the
/// last, or what came with it waits for more.
#[test]
fn a_client_checks_the_servers_key() {
    let hints = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n";
    for before in ["", hints] {
        let mut end = client(1, Faults::default(), Config::default(), Options::default());
        end.sim.settle();
        let request = String::from_utf8(end.wire.receive()).unwrap();
        assert!(request.starts_with("GET /chat HTTP/1.1\r\nHost: host\r\n"), "{request}");
        end.wire.send(before.as_bytes());
        end.wire.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
        end.sim.settle();
        let log = end.log.borrow();
        assert_eq!((log.opened, log.closed.len()), (0, 0));
        let failed = log.failed.as_ref().unwrap();
        assert!(failed.contains("does not answer the key"), "{failed}");
    }
}

#[test]
fn a_client_is_told_of_each_failure_once() {
    let answers: [&[u8]; 3] =
        [b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n", b""];
    for answer in answers {
        let mut end = client(1, Faults::default(), Config::default(), Options::default());
        end.wire.send(answer);
        end.wire.finish();
        end.sim.settle();
        assert!(end.log.borrow().failed.is_some(), "{answer:?}");
    }
    let mut silent = client(1, Faults::default(), Config::default(), Options::default());
    silent.sim.advance(Duration::from_secs(11));
    assert!(silent.log.borrow().failed.as_ref().unwrap().contains("in time"));
}

/// Counts what its sends give, while its peer reads nothing.
struct Flood(Rc<RefCell<Vec<Result<(), SendError>>>>);

impl Handler for Flood {
    fn on_text(&mut self, ws: &mut WebSocket<'_>, _text: &str) {
        for _ in 0..100 {
            self.0.borrow_mut().push(ws.binary(&[7; 1000]));
        }
    }

    fn on_drain(&mut self, ws: &mut WebSocket<'_>) {
        let _ = ws.text("drained");
    }
}

fn flood(policy: SlowConsumer) -> (Simulation, reev::sim::Peer, Vec<Result<(), SendError>>) {
    let results = Rc::new(RefCell::new(Vec::new()));
    let config =
        Config { output_low: 1_000, output_high: 10_000, output_max: 1 << 20, ..Config::default() };
    let faults = Faults { send_buffer_max: 1, ..Faults::default() };
    let mut sim = Simulation::with(1, faults, config);
    let mut options = Options::default();
    options.slow_consumer = policy;
    let (http, sockets) = (Http1::new(Default::default()), WebSockets::new(options));
    let kept = results.clone();
    let listener = sim.listen(move |_| {
        let kept = kept.clone();
        http.connection(sockets.path("/chat", move || Flood(kept.clone())))
    });
    let wire = sim.connect(listener);
    wire.send(format!("{HANDSHAKE}\r\n").as_bytes());
    for _ in 0..1000 {
        sim.settle();
        wire.receive();
    }
    wire.send(&frame_for(Role::Server, 0x81, b"go"));
    sim.settle();
    let results = results.borrow().clone();
    (sim, wire, results)
}

#[test]
fn a_slow_consumer_is_waited_for() {
    let (mut sim, wire, results) = flood(SlowConsumer::Wait);
    assert!(results.iter().all(Result::is_ok));
    let mut got = Vec::new();
    for _ in 0..200_000 {
        sim.settle();
        got.extend(wire.receive());
    }
    assert!(got.ends_with(b"\x81\x07drained"), "{}", got.len());
    assert_eq!(got.len(), 100 * 1004 + 9);
}

#[test]
fn messages_for_a_slow_consumer_are_dropped_whole() {
    let (mut sim, wire, results) = flood(SlowConsumer::Drop);
    let sent = results.iter().filter(|result| result.is_ok()).count();
    assert!((9..13).contains(&sent), "{sent}");
    assert!(results.contains(&Err(SendError::SlowConsumer)));
    let mut got = Vec::new();
    for _ in 0..50_000 {
        sim.settle();
        got.extend(wire.receive());
    }
    assert_eq!(got.len(), sent * 1004 + 9);
}

#[test]
fn a_slow_consumer_is_closed() {
    let (_sim, wire, results) = flood(SlowConsumer::Close);
    assert!(results.contains(&Err(SendError::SlowConsumer)));
    assert!(wire.saw_reset());
}

#[test]
fn what_threads_send_keeps_its_order_and_its_bound() {
    let mut options = Options::default();
    options.remote_bytes_max = 10_000;
    let mut end = open(options);
    let remote = end.log.borrow().remote.clone().unwrap();
    let sender = remote.clone();
    std::thread::spawn(move || {
        sender.text("one").unwrap();
        sender.binary(&b"two"[..]).unwrap();
        sender.prepared(&Prepared::text("three")).unwrap();
        assert_eq!(sender.close(CloseCode(1005), ""), Err(SendError::CloseCode(1005)));
        sender.close(CloseCode(4000), "four").unwrap();
        sender.text("never").unwrap();
        assert_eq!(sender.binary(vec![0; 10_000]), Err(SendError::Full));
    })
    .join()
    .unwrap();
    end.sim.settle();
    assert_eq!(end.wire.receive(), b"\x81\x03one\x82\x03two\x81\x05three\x88\x06\x0f\xa0four");
    end.wire.close();
    end.sim.settle();
    assert_eq!(remote.text("late"), Err(SendError::Closed));
}

/// Everybody hears what one says.
struct Member(Rc<RefCell<Vec<Peer>>>);

impl Handler for Member {
    fn on_open(&mut self, ws: &mut WebSocket<'_>) {
        self.0.borrow_mut().push(ws.peer());
    }

    fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
        let message = Prepared::text(text);
        for peer in self.0.borrow().iter() {
            peer.send(&mut ws.ctx(), &message).unwrap();
        }
    }
}

#[test]
fn a_broadcast_to_ten_thousand_is_encoded_once() {
    let peers = Rc::new(RefCell::new(Vec::new()));
    let mut sim = Simulation::new(1);
    let (http, sockets) = (Http1::new(Default::default()), WebSockets::new(Options::default()));
    let kept = peers.clone();
    let listener = sim.listen(move |_| {
        let kept = kept.clone();
        http.connection(sockets.path("/chat", move || Member(kept.clone())))
    });
    let wires: Vec<_> = (0..10_000).map(|_| sim.connect(listener)).collect();
    for wire in &wires {
        wire.send(format!("{HANDSHAKE}\r\n").as_bytes());
    }
    // Some of the simulated sockets hold but a few bytes at a time.
    let receive = |sim: &mut Simulation| -> Vec<Vec<u8>> {
        let mut got = vec![Vec::new(); wires.len()];
        for _ in 0..200 {
            sim.settle();
            got.iter_mut().zip(&wires).for_each(|(got, wire)| got.extend(wire.receive()));
        }
        got
    };
    receive(&mut sim);
    assert_eq!(peers.borrow().len(), wires.len());
    wires[17].send(&frame_for(Role::Server, 0x81, b"hello all"));
    let heard = receive(&mut sim);
    assert!(heard.iter().all(|got| got == b"\x81\x09hello all"));
    // One that closes is not sent to any more.
    wires[3].send(&frame_for(Role::Server, 0x88, b""));
    sim.settle();
    wires[3].receive();
    let gone = peers.borrow()[3].clone();
    let mut other = sim.reactor().conn(peers.borrow()[4].id()).unwrap();
    assert_eq!(gone.send(&mut other, &Prepared::text("x")), Err(SendError::Closed));
}

/// Gives its connection to a handler of another protocol at the first message.
struct Leaving(Other);

/// Writes as many bytes as are asked for when it begins, and notes what it is told later.
#[derive(Clone)]
struct Other(usize, Rc<RefCell<Vec<&'static str>>>);

impl Handler for Leaving {
    fn on_text(&mut self, ws: &mut WebSocket<'_>, _text: &str) {
        ws.ctx().replace(self.0.clone());
    }
}

impl EvHandler for Other {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.write(&vec![b'x'; self.0]);
        Ok(())
    }

    fn on_drain(&mut self, _: &mut Ctx<'_>) -> io::Result<()> {
        self.1.borrow_mut().push("drained");
        Ok(())
    }

    fn on_close(&mut self, _: &mut Ctx<'_>, why: &Close) {
        self.1.borrow_mut().push(why.kind());
    }
}

/// Planted: the wheel goes on with the connection, tells it of drained output at every step, and
/// cuts it as a WebSocket whose peer takes nothing.
#[test]
fn a_connection_that_is_no_websocket_any_more_is_not_watched() {
    for len in [0, 1 << 20] {
        let told = Rc::default();
        let other = Other(len, Rc::clone(&told));
        let mut sim = Simulation::new(1);
        let (http, sockets) = (Http1::new(Default::default()), WebSockets::new(Options::default()));
        let listener = sim.listen(move |_| {
            let other = other.clone();
            http.connection(sockets.path("/chat", move || Leaving(other.clone())))
        });
        let wire = sim.connect(listener);
        wire.send(format!("{HANDSHAKE}\r\n").as_bytes());
        sim.settle();
        wire.send(&frame_for(Role::Server, 0x81, b"leave"));
        sim.settle();
        for _ in 0..20 {
            sim.advance(Duration::from_secs(60));
        }
        assert_eq!(*told.borrow(), [""; 0], "with {len} bytes that the peer does not read");
        assert_eq!(sim.handle().stats()[0].open, 1);
    }
}

/// What a broadcast compressed once goes to those whose compression has no history; the others, whose history it would
/// not be part of, get it plain.
#[test]
fn a_broadcast_is_compressed_where_there_is_no_history() {
    struct Loud(Member);
    impl Handler for Loud {
        fn on_open(&mut self, ws: &mut WebSocket<'_>) {
            self.0.on_open(ws);
        }
        fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
            let message = Prepared::with_deflate(Kind::Text, text.as_bytes(), 6);
            for peer in self.0.0.borrow().iter() {
                peer.send(&mut ws.ctx(), &message).unwrap();
            }
        }
    }
    let peers = Rc::new(RefCell::new(Vec::new()));
    let mut sim = Simulation::new(1);
    let mut options = Options::default();
    options.codec.deflate = Some(Default::default());
    let (http, sockets) = (Http1::new(Default::default()), WebSockets::new(options));
    let listener = sim.listen(move |_| {
        let peers = peers.clone();
        http.connection(sockets.path("/chat", move || Loud(Member(peers.clone()))))
    });
    let offers = [
        "",
        "Sec-WebSocket-Extensions: permessage-deflate\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n",
        "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
            server_max_window_bits=9\r\n",
    ];
    let said = "as often as not ".repeat(50);
    let wires = offers.map(|offer| {
        let wire = sim.connect(listener);
        wire.send(format!("{HANDSHAKE}{offer}\r\n").as_bytes());
        sim.settle();
        assert!(wire.receive().starts_with(b"HTTP/1.1 101 "));
        wire
    });
    wires[0].send(&frame_for(Role::Server, 0x81, said.as_bytes()));
    let mut heard = [const { Vec::new() }; 4];
    for _ in 0..200 {
        sim.settle();
        heard.iter_mut().zip(&wires).for_each(|(heard, wire)| heard.extend(wire.receive()));
    }
    for plain in [0, 1, 3] {
        assert_eq!(heard[plain][..4], [0x81, 126, 3, 32]);
        assert_eq!(&heard[plain][4..], said.as_bytes());
    }
    assert_eq!(usize::from(heard[2][1]), heard[2].len() - 2);
    assert!(heard[2][0] == 0xc1 && heard[2].len() < 50, "{:x?}", heard[2]);
}

/// The handler sees the same, however the bytes are cut into reads.
#[test]
fn every_split_gives_the_same() {
    let mut stream = Vec::new();
    for (first, payload) in [
        (0x81, "whole \u{20ac}".as_bytes()),
        (0x01, b"\xe2\x82"),
        (0x89, b"between"),
        (0x80, b"\xac."),
        (0x82, &[9; 200]),
        (0x8a, b""),
        (0x88, b"\x03\xe8end"),
    ] {
        stream.extend(frame_for(Role::Server, first, payload));
    }
    let run = |cuts: &[usize]| {
        let mut end = open(Options::default());
        let mut from = 0;
        for &cut in cuts.iter().chain([&stream.len()]) {
            end.wire.send(&stream[from..cut]);
            end.sim.settle();
            from = cut;
        }
        let log = end.log.borrow();
        (log.got.clone(), log.pings, log.pongs, log.closed.clone(), end.wire.receive())
    };
    let whole = run(&[]);
    assert_eq!(whole.0.len(), 3);
    for cut in 1..stream.len() {
        assert_eq!(run(&[cut]), whole, "cut at {cut}");
    }
    let bytewise: Vec<usize> = (1..stream.len()).collect();
    assert_eq!(run(&bytewise), whole);
}
