//! What is asked of a server: the protocol, the size of a message, how many connections.

use crate::websocket::{self, BINARY};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Echo,
    Http,
    WebSocket,
    /// What the bare loop is asked in place of [`Protocol::WebSocket`]: the client's frames, byte for byte, without a
    /// handshake, and back come the same bytes, still masked. So an answer is 4 bytes longer than a WebSocket's.
    FrameEcho,
    /// Echo again, but another thread of the server answers: it gets the message through `std::sync::mpsc`.
    Offload,
    /// What comes on one connection goes to all, this one too.
    Broadcast,
    /// What comes is passed on to the [`backend`], and what comes from there is passed back.
    Relay,
    /// Datagrams go back to where they came from.
    Datagram,
}

/// How the client asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Connections ask again when they are answered.
    Closed,
    /// Every message has a connection of its own.
    Churn,
    /// One message to all connections; the next when all have it.
    Fan,
    /// Sockets with several datagrams under way.
    Datagrams,
}

#[derive(Clone, Copy)]
pub struct Workload {
    pub name: &'static str,
    pub title: &'static str,
    pub protocol: Protocol,
    pub pattern: Pattern,
    pub connections: usize,
    /// Connections that ask at a time.
    pub active: usize,
    /// Bytes of a message of echo or WebSocket, without its frame; unused by HTTP.
    pub message: usize,
    /// Requests in one HTTP message; datagrams that a socket has under way; else 1.
    pub depth: usize,
    /// Threads of the server.
    pub reactors: usize,
}

pub const ALL: &[Workload] = &[
    Workload::new("echo-128", "echo of 128 B, 64 connections", Protocol::Echo, 64, 128),
    Workload::new("echo-1k", "echo of 1 KiB, 64 connections", Protocol::Echo, 64, KIB),
    Workload::new("echo-16k", "echo of 16 KiB, 64 connections", Protocol::Echo, 64, 16 * KIB),
    Workload::new("echo-64k", "echo of 64 KiB, 16 connections", Protocol::Echo, 16, 64 * KIB),
    Workload {
        depth: 16,
        ..Workload::new(
            "http-16",
            "HTTP/1.1 plaintext, pipelined 16 deep, 64 connections",
            Protocol::Http,
            64,
            0,
        )
    },
    Workload::new(
        "http-1",
        "HTTP/1.1 plaintext, one request at a time, 64 connections",
        Protocol::Http,
        64,
        0,
    ),
    Workload::new(
        "ws-128",
        "WebSocket echo of 128 B, 64 connections",
        Protocol::WebSocket,
        64,
        128,
    ),
    Workload::new("ws-1k", "WebSocket echo of 1 KiB, 64 connections", Protocol::WebSocket, 64, KIB),
    Workload::new(
        "ws-64k",
        "WebSocket echo of 64 KiB, 64 connections",
        Protocol::WebSocket,
        64,
        64 * KIB,
    ),
    Workload {
        pattern: Pattern::Churn,
        ..Workload::new(
            "churn",
            "connect, echo of 128 B, close; 64 at a time",
            Protocol::Echo,
            64,
            128,
        )
    },
    Workload {
        active: 100,
        ..Workload::new(
            "idle-10k",
            "echo of 128 B, 10,000 connections of which 1 % is active",
            Protocol::Echo,
            10_000,
            128,
        )
    },
    Workload::new(
        "offload",
        "echo of 128 B by another thread, 64 connections",
        Protocol::Offload,
        64,
        128,
    ),
    Workload {
        pattern: Pattern::Fan,
        ..Workload::new(
            "broadcast",
            "a message of 128 B to each of 10,000 connections",
            Protocol::Broadcast,
            10_000,
            128,
        )
    },
    Workload {
        pattern: Pattern::Datagrams,
        depth: 16,
        ..Workload::new(
            "udp",
            "UDP echo of 128 B, 16 sockets with 16 under way each",
            Protocol::Datagram,
            16,
            128,
        )
    },
    Workload::new(
        "proxy",
        "256 KiB through a proxy, 16 connections",
        Protocol::Relay,
        16,
        256 * KIB,
    ),
];

const KIB: usize = 1024;
const LARGE: usize = 4096;

/// The request of TechEmpower's plaintext test, as its load generator sends it.
pub const REQUEST: &[u8] = b"GET /plaintext HTTP/1.1\r\n\
    Host: tfb-server:8080\r\n\
    Accept: text/plain,text/html;q=0.9,application/xhtml+xml;q=0.9,application/xml;q=0.8,*/*;q=0.7\r\n\
    Connection: keep-alive\r\n\r\n";

impl Workload {
    const fn new(
        name: &'static str,
        title: &'static str,
        protocol: Protocol,
        connections: usize,
        message: usize,
    ) -> Workload {
        Workload {
            name,
            title,
            protocol,
            pattern: Pattern::Closed,
            connections,
            active: connections,
            message,
            depth: 1,
            reactors: 1,
        }
    }

    pub fn find(name: &str) -> Option<&'static Workload> {
        ALL.iter().find(|workload| workload.name == name)
    }

    /// Too many connections for several servers and their clients in one process.
    pub fn is_large(&self) -> bool {
        self.connections > LARGE
    }

    /// What a client sends before it waits for the whole answer. `salt` tells one connection's echo from another's.
    pub fn request(&self, salt: usize) -> Vec<u8> {
        match self.protocol {
            Protocol::Http => REQUEST.repeat(self.depth),
            Protocol::WebSocket | Protocol::FrameEcho => {
                websocket::masked(BINARY, &pattern(self.message, salt))
            }
            _ => pattern(self.message, salt),
        }
    }

    /// The answer to [`Workload::request`], to the byte; `None` for HTTP, whose answers have a date in them.
    pub fn answer(&self, salt: usize) -> Option<Vec<u8>> {
        match self.protocol {
            Protocol::Http => None,
            Protocol::WebSocket => Some(websocket::unmasked(BINARY, &pattern(self.message, salt))),
            _ => Some(self.request(salt)),
        }
    }

    /// What comes before the first request on a fresh connection.
    pub fn open(&self, stream: &mut TcpStream) -> io::Result<()> {
        match self.protocol {
            Protocol::WebSocket => websocket::open(stream),
            _ => Ok(()),
        }
    }
}

/// Where a proxy on this address connects to.
pub fn backend(proxy: SocketAddr) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 2], proxy.port()))
}

/// Both ends of a connection through a proxy; `backend` listens on its [`backend`].
pub fn tunnel(proxy: SocketAddr, backend: &TcpListener) -> io::Result<(TcpStream, TcpStream)> {
    let near = TcpStream::connect(proxy)?;
    let (far, _) = backend.accept()?;
    Ok((near, far))
}

/// Bytes without a short period, so that a lost, doubled or moved piece shows.
pub fn pattern(length: usize, salt: usize) -> Vec<u8> {
    let mut state = (salt as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}
