//! The servers that are compared. To add one: a file with
//! `pub fn run(socket: Socket, site: &Arc<Site>) -> io::Result<()>`, a `mod` line and an entry in [`ALL`].
//!
//! `run` calls `site.enter()` on each thread that serves, speaks `site.protocol`, one of [`Server::speaks`] (HTTP: the
//! response of [`http::Response`] for `/plaintext`; WebSocket: an echo, without compression), sets TCP_NODELAY, takes partial reads and writes, flushes and
//! closes after the peer's FIN, survives resets, and returns when `site` becomes readable. Once a thread has entered,
//! clients may connect.

mod bare;
mod fastwebsockets;
mod http;
mod hyper;
mod may_minihttp;
mod mio;
#[cfg(target_os = "linux")]
mod monoio;
mod reev;
mod runtime;
mod tokio;
mod tungstenite;
mod worker;

use crate::site::Site;
use crate::sys;
use crate::workload::{Protocol, Workload};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread;

/// What a server is to serve.
pub enum Socket {
    Listener(TcpListener),
    Datagrams(UdpSocket),
}

impl Socket {
    pub fn bind(workload: &Workload) -> io::Result<Socket> {
        let addr = (Ipv4Addr::LOCALHOST, 0);
        Ok(match workload.protocol {
            Protocol::Datagram => {
                let socket = UdpSocket::bind(addr)?;
                sys::set_receive_buffer(&socket, DATAGRAM_BUFFER)?;
                Socket::Datagrams(socket)
            }
            _ if workload.reactors > 1 => Socket::Listener(listen(addr.into())?),
            _ => {
                let listener = TcpListener::bind(addr)?;
                sys::set_backlog(&listener, BACKLOG)?;
                Socket::Listener(listener)
            }
        })
    }

    pub fn addr(&self) -> io::Result<SocketAddr> {
        match self {
            Socket::Listener(listener) => listener.local_addr(),
            Socket::Datagrams(socket) => socket.local_addr(),
        }
    }

    fn listener(self) -> io::Result<TcpListener> {
        match self {
            Socket::Listener(listener) => Ok(listener),
            Socket::Datagrams(_) => Err(ErrorKind::InvalidInput.into()),
        }
    }

    fn datagrams(self) -> io::Result<UdpSocket> {
        match self {
            Socket::Datagrams(socket) => Ok(socket),
            Socket::Listener(_) => Err(ErrorKind::InvalidInput.into()),
        }
    }
}

/// A listener that may share its address with others of this process (SO_REUSEPORT).
fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Runs `serve` on as many threads as the site asks for, each of which enters and has a listener of its own.
fn spread(
    listener: TcpListener,
    site: &Site,
    serve: impl Fn(TcpListener, &Site) -> io::Result<()> + Sync,
) -> io::Result<()> {
    let addr = listener.local_addr()?;
    thread::scope(|scope| {
        let more = (1..site.reactors).map(|_| {
            let listener = listen(addr)?;
            let serve = &serve;
            Ok(scope.spawn(move || {
                site.enter()?;
                serve(listener, site)
            }))
        });
        let more = more.collect::<io::Result<Vec<_>>>()?;
        site.enter()?;
        serve(listener, site)?;
        let panicked = |_| Err(io::Error::other("a thread of the server panicked"));
        more.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(panicked))
    })
}

const BACKLOG: i32 = 4096;
/// For all datagrams that are under way at a time, as the kernel counts them.
const DATAGRAM_BUFFER: usize = 1 << 20;
/// Datagrams in one call.
const DATAGRAMS: usize = 32;
const DATAGRAM_SIZE: usize = 2048;

pub struct Server {
    pub name: &'static str,
    pub what: &'static str,
    pub speaks: &'static [Protocol],
    /// What it speaks with several threads too.
    pub many: &'static [Protocol],
    pub run: fn(Socket, &Arc<Site>) -> io::Result<()>,
    /// The same code as another entry: only for the noise of time measurements.
    pub again: bool,
    /// What it does wrong, of what [`crate::verify::thorough`] asks: the failure is shown, and it is measured all the
    /// same.
    pub flaw: Option<&'static str>,
    /// Whether this system can run it, or why not.
    pub available: fn() -> Result<(), &'static str>,
}

const BARE: &[Protocol] = &[
    Protocol::Echo,
    Protocol::Http,
    Protocol::FrameEcho,
    Protocol::Offload,
    Protocol::Broadcast,
    Protocol::Relay,
    Protocol::Datagram,
];
const REEV: &[Protocol] = &[
    Protocol::Echo,
    Protocol::Http,
    Protocol::WebSocket,
    Protocol::Offload,
    Protocol::Broadcast,
    Protocol::Relay,
    Protocol::Datagram,
];
const MIO: &[Protocol] = &[Protocol::Echo, Protocol::Http, Protocol::Offload];
const TOKIO: &[Protocol] = &[
    Protocol::Echo,
    Protocol::Http,
    Protocol::Offload,
    Protocol::Broadcast,
    Protocol::Relay,
    Protocol::Datagram,
];
const BOTH: &[Protocol] = &[Protocol::Echo, Protocol::Http];
const BARE_MANY: &[Protocol] = &[Protocol::Echo, Protocol::Http, Protocol::FrameEcho];
const REEV_MANY: &[Protocol] = &[Protocol::Echo, Protocol::Http, Protocol::WebSocket];
const ECHO: &[Protocol] = &[Protocol::Echo];
const DATAGRAM: &[Protocol] = &[Protocol::Datagram];
const RELAY: &[Protocol] = &[Protocol::Relay];
const HTTP: &[Protocol] = &[Protocol::Http];
const WEBSOCKET: &[Protocol] = &[Protocol::WebSocket];

/// The first is the one the others are compared with.
pub const ALL: &[Server] = &[
    Server::new("bare", "level-triggered epoll loop of the bench: the limit", BARE, bare::run)
        .many(BARE_MANY),
    Server {
        again: true,
        ..Server::new("bare2", "the same loop again: the run's noise", BARE, bare::run)
            .many(BARE_MANY)
    },
    Server::new(
        "bare-bytes",
        "the same loop, blank lines counted byte by byte instead of by SIMD",
        HTTP,
        bare::run_bytes,
    ),
    Server::new(
        "bare-splice",
        "a bare proxy that moves bytes with splice(2) instead of copying them",
        RELAY,
        bare::run_splice,
    ),
    Server::new(
        "bare-mmsg",
        "a bare echo of datagrams with recvmmsg and sendmmsg, 32 at a time",
        DATAGRAM,
        bare::run_batches,
    ),
    Server::new("reev", "reev, one reactor", REEV, reev::run).many(REEV_MANY),
    Server::new("reev-single", "reev without batches of datagrams", DATAGRAM, reev::run_single),
    Server::new("mio", "mio 1, edge-triggered; HTTP parsed with httparse", MIO, mio::run)
        .many(BOTH),
    Server::new(
        "tokio",
        "tokio 1, current_thread, a task per connection; HTTP parsed with httparse",
        TOKIO,
        tokio::run,
    )
    .many(ECHO),
    #[cfg(target_os = "linux")]
    Server {
        available: monoio::available,
        ..Server::new("monoio", "monoio 0.2 on io_uring, a task per connection", ECHO, monoio::run)
            .many(ECHO)
    },
    Server::new("hyper", "hyper 1 on tokio 1, current_thread", HTTP, hyper::run).many(HTTP),
    Server {
        flaw: Some("what was asked before a FIN may stay unanswered"),
        ..Server::new("may_minihttp", "may_minihttp 0.1, one worker", HTTP, may_minihttp::run)
    },
    Server::new(
        "fastwebsockets",
        "fastwebsockets 0.10 behind hyper 1 on tokio 1, current_thread",
        WEBSOCKET,
        fastwebsockets::run,
    )
    .many(WEBSOCKET),
    Server {
        flaw: Some("what was sent before a close frame may stay unanswered"),
        ..Server::new(
            "tungstenite",
            "tokio-tungstenite 0.30 on tokio 1, current_thread",
            WEBSOCKET,
            tungstenite::run,
        )
        .many(WEBSOCKET)
    },
];

impl Server {
    const fn new(
        name: &'static str,
        what: &'static str,
        speaks: &'static [Protocol],
        run: fn(Socket, &Arc<Site>) -> io::Result<()>,
    ) -> Server {
        Server {
            name,
            what,
            speaks,
            many: &[],
            run,
            again: false,
            flaw: None,
            available: || Ok(()),
        }
    }

    pub fn find(name: &str) -> Option<&'static Server> {
        ALL.iter().find(|server| server.name == name)
    }

    const fn many(self, many: &'static [Protocol]) -> Server {
        Server { many, ..self }
    }

    pub fn speaks(&self, protocol: Protocol) -> bool {
        self.speaks.contains(&protocol)
    }

    /// How this server is asked: the workload itself or, of the bare loop, its bytes without their meaning.
    pub fn asked(&self, workload: &Workload) -> Option<Workload> {
        let plain = match workload.protocol {
            Protocol::WebSocket => Protocol::FrameEcho,
            protocol => protocol,
        };
        let speaks = if workload.reactors > 1 { self.many } else { self.speaks };
        let spoken = [workload.protocol, plain].into_iter().find(|p| speaks.contains(p))?;
        Some(Workload { protocol: spoken, ..*workload })
    }
}
