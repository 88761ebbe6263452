//! A client of the layer against a server of the layer, over real sockets.
#![cfg(feature = "websocket")]

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use reev::http1::Http1;
use reev::websocket::{
    CloseCode, Closed, DeflateConfig, Handler, Options, Prepared, SendError, WebSocket, WebSockets,
};
use reev::{Config, ConnectOptions, Ctx, Server};

struct Echo;

impl Handler for Echo {
    fn on_binary(&mut self, ws: &mut WebSocket<'_>, data: &[u8]) {
        ws.binary(data).unwrap();
    }
}

/// Sends messages of growing lengths, each when the one before is back; then closes.
struct Client {
    sent: Vec<u8>,
    done: Sender<Result<(usize, u16, bool), String>>,
}

const LONGEST: usize = 3 << 20;

impl Client {
    fn send(&mut self, ws: &mut WebSocket<'_>) {
        let len = self.sent.len() * 3 + 1;
        self.sent = (0..len).map(|at| ((at * at) >> 7) as u8).collect();
        ws.binary(&self.sent).unwrap();
    }
}

impl Handler for Client {
    fn on_open(&mut self, ws: &mut WebSocket<'_>) {
        self.send(ws);
    }

    fn on_binary(&mut self, ws: &mut WebSocket<'_>, data: &[u8]) {
        assert_eq!(data.len(), self.sent.len());
        assert!(data == self.sent);
        if data.len() > LONGEST {
            ws.close(CloseCode::NORMAL, "all is said");
        } else {
            self.send(ws);
        }
    }

    fn on_connect_fail(&mut self, _cx: &mut Ctx<'_>, error: io::Error) {
        self.done.send(Err(error.to_string())).unwrap();
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, closed: &Closed<'_>) {
        self.done.send(Ok((self.sent.len(), closed.code.0, closed.clean))).unwrap();
    }
}

fn run(deflate: Option<DeflateConfig>, path: &'static str) -> Result<(usize, u16, bool), String> {
    connect(deflate, path, |done| Client { sent: Vec::new(), done })
}

/// A server of echoes and one client; what the client says at its end.
fn connect<C: Handler, T: Send + 'static>(
    deflate: Option<DeflateConfig>,
    path: &'static str,
    client: impl Fn(Sender<T>) -> C + Send + Sync + 'static,
) -> T {
    let mut server = Server::new(Config { reactors: 1, pin: false, ..Config::default() }).unwrap();
    let listener = server.listen("127.0.0.1:0").unwrap();
    let addr = server.local_addr(listener).socket_addr().unwrap();
    let (done, outcome) = channel();
    let running = server
        .start(move |reactor| {
            let mut options = Options::default();
            options.codec.deflate = deflate;
            let (http, sockets) = (Http1::new(Default::default()), WebSockets::new(options));
            let dial = sockets.client("localhost", path, client(done.clone()))?;
            reactor.connect(addr, &ConnectOptions::default(), dial);
            reactor.accept(listener, move |_| http.connection(sockets.path("/", || Echo)))
        })
        .unwrap();
    let outcome = outcome.recv_timeout(Duration::from_secs(60)).unwrap();
    running.handle().stop();
    running.join().unwrap();
    outcome
}

#[test]
fn messages_of_all_lengths_come_back() {
    let (longest, code, clean) = run(None, "/").unwrap();
    assert!(longest > LONGEST);
    assert_eq!((code, clean), (1000, true));
}

#[test]
fn compressed_ones_too() {
    let (_, code, clean) = run(Some(DeflateConfig::default()), "/").unwrap();
    assert_eq!((code, clean), (1000, true));
}

#[test]
fn a_refusal_is_told() {
    assert!(run(None, "/other").unwrap_err().contains("404"));
}

/// Says what became of a message that it sent to itself as a peer: prepared ones have no mask.
struct Prepares(Sender<Result<(), SendError>>);

impl Handler for Prepares {
    fn on_open(&mut self, ws: &mut WebSocket<'_>) {
        let peer = ws.peer();
        self.0.send(peer.send(&mut ws.ctx(), &Prepared::binary(b"x"))).unwrap();
    }
}

#[test]
fn a_clients_peer_refuses_what_has_no_mask() {
    assert_eq!(connect(None, "/", Prepares), Err(SendError::ClientRole));
}
