//! What is asked of a server: the protocol, the size of a message, how many connections.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Echo,
    Http,
}

pub struct Workload {
    pub name: &'static str,
    pub title: &'static str,
    pub protocol: Protocol,
    pub connections: usize,
    /// Bytes of an echo message; unused by HTTP.
    pub message: usize,
    /// Requests in one HTTP message; 1 for echo.
    pub depth: usize,
}

pub const ALL: &[Workload] = &[
    Workload {
        name: "echo-128",
        title: "echo of 128 B, 64 connections",
        protocol: Protocol::Echo,
        connections: 64,
        message: 128,
        depth: 1,
    },
    Workload {
        name: "echo-64k",
        title: "echo of 64 KiB, 16 connections",
        protocol: Protocol::Echo,
        connections: 16,
        message: 64 * 1024,
        depth: 1,
    },
    Workload {
        name: "http-16",
        title: "HTTP/1.1 plaintext, pipelined 16 deep, 64 connections",
        protocol: Protocol::Http,
        connections: 64,
        message: 0,
        depth: 16,
    },
    Workload {
        name: "http-1",
        title: "HTTP/1.1 plaintext, one request at a time, 64 connections",
        protocol: Protocol::Http,
        connections: 64,
        message: 0,
        depth: 1,
    },
];

/// The request of TechEmpower's plaintext test, as its load generator sends it.
pub const REQUEST: &[u8] = b"GET /plaintext HTTP/1.1\r\n\
    Host: tfb-server:8080\r\n\
    Accept: text/plain,text/html;q=0.9,application/xhtml+xml;q=0.9,application/xml;q=0.8,*/*;q=0.7\r\n\
    Connection: keep-alive\r\n\r\n";

impl Workload {
    pub fn find(name: &str) -> Option<&'static Workload> {
        ALL.iter().find(|workload| workload.name == name)
    }

    /// What a client sends before it waits for the whole answer. `salt` tells one connection's echo from another's.
    pub fn request(&self, salt: usize) -> Vec<u8> {
        match self.protocol {
            Protocol::Echo => pattern(self.message, salt),
            Protocol::Http => REQUEST.repeat(self.depth),
        }
    }
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
