//! A server and a client of the layer, each on a simulated kernel of its own, joined by a wire
//! that the test carries.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use std::cell::RefCell;
use std::rc::Rc;

use reev::http1::Http1;
use reev::sim::{Faults, Peer, Simulation};
use reev::websocket::{CloseCode, Closed, Handler, Options, Remote, WebSocket, WebSockets};
use reev::{Config, ConnectOptions, Ctx};

/// What a handler saw, and what it is to send.
#[derive(Default)]
pub struct Log {
    pub opened: usize,
    pub got: Vec<Message>,
    pub closed: Vec<(u16, String, bool)>,
    pub failed: Option<String>,
    pub protocol: Option<String>,
    pub deflated: bool,
    pub drains: usize,
    pub pings: usize,
    pub pongs: usize,
    pub remote: Option<Remote>,
    /// Sent one by one from `on_open` and from each message.
    pub direct: Vec<Message>,
    pub echo: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    Text(String),
    Binary(Vec<u8>),
}

pub type Shared = Rc<RefCell<Log>>;

pub struct Recorder(pub Shared);

impl Recorder {
    fn send_next(&self, ws: &mut WebSocket<'_>) {
        let next = self.0.borrow_mut().direct.pop();
        match next {
            Some(Message::Text(text)) => ws.text(&text).unwrap(),
            Some(Message::Binary(data)) => ws.binary(&data).unwrap(),
            None => {}
        }
    }
}

impl Handler for Recorder {
    fn on_open(&mut self, ws: &mut WebSocket<'_>) {
        let remote = ws.remote();
        let mut log = self.0.borrow_mut();
        log.opened += 1;
        log.protocol = ws.protocol().map(str::to_owned);
        log.deflated = ws.is_deflated();
        log.remote = Some(remote);
        drop(log);
        self.send_next(ws);
    }

    fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
        self.0.borrow_mut().got.push(Message::Text(text.to_owned()));
        if self.0.borrow().echo {
            let _ = ws.text(text);
        }
        self.send_next(ws);
    }

    fn on_binary(&mut self, ws: &mut WebSocket<'_>, data: &[u8]) {
        self.0.borrow_mut().got.push(Message::Binary(data.to_vec()));
        if self.0.borrow().echo {
            let _ = ws.binary(data);
        }
        self.send_next(ws);
    }

    fn on_ping(&mut self, _ws: &mut WebSocket<'_>, _payload: &[u8]) {
        self.0.borrow_mut().pings += 1;
    }

    fn on_pong(&mut self, _ws: &mut WebSocket<'_>, _payload: &[u8]) {
        self.0.borrow_mut().pongs += 1;
    }

    fn on_drain(&mut self, _ws: &mut WebSocket<'_>) {
        self.0.borrow_mut().drains += 1;
    }

    fn on_notify(&mut self, ws: &mut WebSocket<'_>, value: u64) {
        ws.close(CloseCode(value as u16), "asked for");
    }

    fn on_connect_fail(&mut self, _cx: &mut Ctx<'_>, error: std::io::Error) {
        let again = self.0.borrow_mut().failed.replace(error.to_string());
        assert_eq!(again, None, "told twice");
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, closed: &Closed<'_>) {
        let closed = (closed.code.0, closed.reason.to_owned(), closed.clean);
        self.0.borrow_mut().closed.push(closed);
    }
}

/// One end: a simulation, its side of the wire, and what its handler saw.
pub struct End {
    pub sim: Simulation,
    pub wire: Peer,
    pub log: Shared,
}

/// A server that upgrades `/chat`, and one connection to it.
pub fn server(seed: u64, faults: Faults, config: Config, options: Options) -> End {
    let log = Shared::default();
    let mut sim = Simulation::with(seed, faults, config);
    let (http, sockets) = (Http1::new(Default::default()), WebSockets::new(options));
    let kept = log.clone();
    let listener = sim.listen(move |_peer| {
        let log = kept.clone();
        http.connection(sockets.path("/chat", move || Recorder(log.clone())))
    });
    let wire = sim.connect(listener);
    End { sim, wire, log }
}

/// A client that has connected and will ask for `/chat`.
pub fn client(seed: u64, faults: Faults, config: Config, options: Options) -> End {
    let log = Shared::default();
    let mut sim = Simulation::with(seed, faults, config);
    let handler = WebSockets::new(options).client("host", "/chat", Recorder(log.clone())).unwrap();
    sim.reactor().connect("127.0.0.1:80", &ConnectOptions::default(), handler);
    for _ in 0..1000 {
        sim.turn();
        if let Some(attempt) = sim.outgoing() {
            let wire = attempt.accept();
            return End { sim, wire, log };
        }
    }
    panic!("no attempt to connect");
}

impl End {
    /// Hands all that has come from here to `other`. True if something moved.
    pub fn carry_to(&self, other: &End, at_most: usize) -> bool {
        let bytes = self.wire.receive_at_most(at_most);
        other.wire.send(&bytes);
        if self.wire.saw_fin() {
            other.wire.finish();
        }
        !bytes.is_empty()
    }
}

/// Carries until nothing moves any more.
pub fn settle(one: &mut End, other: &mut End) {
    for _ in 0..100_000 {
        one.sim.settle();
        other.sim.settle();
        let moved = one.carry_to(other, usize::MAX);
        if !(other.carry_to(one, usize::MAX) || moved) {
            one.sim.settle();
            other.sim.settle();
            return;
        }
    }
    panic!("the two talk for ever");
}
