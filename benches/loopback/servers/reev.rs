//! reev: a zero-sized handler for echo, its HTTP/1.1 and WebSocket layers, a `Remote` where another thread
//! answers.

mod datagrams;
mod fan;
mod offload;
mod relay;

use super::Socket;
use crate::site::Site;
use crate::workload::{Protocol, backend};
use reev::http1::{Fields, Http1, Options, Request, Response, Service, Status};
use reev::websocket::{Handler, WebSocket, WebSockets};
use reev::{Config, Ctx, DatagramOptions, EvHandler, ListenOptions, Server};
use std::io;
use std::sync::Arc;
use std::thread;

struct Echo;

impl EvHandler for Echo {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        cx.write(data);
        Ok(data.len())
    }
}

const PLAIN: Fields<'static> = Fields::new("Server: bench\r\nContent-Type: text/plain\r\n");

/// What examples/http_plaintext.rs does, with the bench's answer.
struct Plaintext;

impl Service for Plaintext {
    #[inline]
    fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
        match (req.method(), req.target()) {
            ("GET", "/plaintext") => res.send(Status::OK, PLAIN, b"Hello, World!"),
            _ => res.send(Status::NOT_FOUND, PLAIN, b""),
        }
    }
}

/// What examples/ws_echo.rs does.
struct Messages;

impl Handler for Messages {
    fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
        let _ = ws.text(text); // nothing is sent after the close frame
    }

    fn on_binary(&mut self, ws: &mut WebSocket<'_>, data: &[u8]) {
        let _ = ws.binary(data);
    }
}

pub fn run(socket: Socket, site: &Arc<Site>) -> io::Result<()> {
    if site.protocol == Protocol::Datagram {
        return datagrams::run(socket, site, &DatagramOptions::default());
    }
    let listener = socket.listener()?;
    let target = backend(listener.local_addr()?);
    let config = Config { reactors: site.reactors, pin: false, ..Config::default() };
    let mut server = Server::new(config)?;
    let listener = if site.reactors > 1 {
        let addr = listener.local_addr()?;
        drop(listener);
        server.listen(&addr.to_string())?
    } else {
        server.adopt_listener(listener, &ListenOptions::default())?
    };
    let handle = server.handle();
    let served = Arc::clone(site);
    thread::scope(|scope| {
        let jobs = (site.protocol == Protocol::Offload).then(|| offload::worker(scope, site));
        scope.spawn(|| {
            let stopped = site.wait_for_stop();
            handle.stop();
            stopped
        });
        server.run(move |reactor| {
            served.enter()?;
            match served.protocol {
                Protocol::Http => {
                    let http = Http1::new(Options::default());
                    reactor.accept(listener, move |_| http.connection(Plaintext))
                }
                Protocol::WebSocket => {
                    let http = Http1::new(Options::default());
                    let sockets = WebSockets::new(reev::websocket::Options::default());
                    reactor
                        .accept(listener, move |_| http.connection(sockets.path("/", || Messages)))
                }
                Protocol::Offload => {
                    let jobs = jobs.clone().ok_or(io::ErrorKind::NotFound)?;
                    reactor.accept(listener, move |_| offload::Offload::new(jobs.clone()))
                }
                Protocol::Relay => reactor.accept(listener, move |_| relay::Client::new(target)),
                Protocol::Broadcast => reactor.accept(listener, |_| fan::Member),
                _ => reactor.accept(listener, |_| Echo),
            }
        })
    })
}

/// Datagrams, a system call for each.
pub fn run_single(socket: Socket, site: &Arc<Site>) -> io::Result<()> {
    let options = DatagramOptions { batches: false, gso: false, ..DatagramOptions::default() };
    datagrams::run(socket, site, &options)
}
