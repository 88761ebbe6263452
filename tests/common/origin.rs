//! Which side begins a connection. What a test asks of a connection holds whoever began it, so
//! such a test is a function of the [`Origin`], and [`both_ways`] makes two tests of it.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses a part of this")]
#![allow(unused_imports, unused_macros, reason = "each test crate uses a part of this")]

use std::ffi::OsStr;
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reev::{Addr, ConnectOptions, Endpoint, EvHandler, Handle, ListenOptions, Target};
use socket2::{Domain, SockAddr, Socket, Type};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The test connects, and the reactor accepts.
    Accepted,
    /// The reactor connects, to a listener that the test holds.
    ConnectedOut,
}

/// The module of the tests of this origin, as [`both_ways`] names it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Accepted => "accepted",
            Origin::ConnectedOut => "connected_out",
        })
    }
}

/// Makes of each `fn case(origin: Origin)` the tests `accepted::case` and `connected_out::case`.
macro_rules! both_ways {
    ($($(#[$attribute:meta])* $case:ident),+ $(,)?) => {
        mod accepted {
            $($(#[$attribute])* #[test] fn $case() { super::$case(super::Origin::Accepted) })+
        }
        mod connected_out {
            $($(#[$attribute])* #[test] fn $case() { super::$case(super::Origin::ConnectedOut) })+
        }
    };
}

pub(crate) use both_ways;

const PATIENCE: Duration = Duration::from_secs(60);

/// Connections to a reactor that runs, on real sockets.
pub struct Meeting {
    /// Where the reactor listens.
    at: Addr,
    dial: Box<dyn Fn(Target) + Send + Sync>,
}

impl Meeting {
    /// `factory` is the acceptor's, and `options` are too.
    pub fn new<H: EvHandler>(
        handle: &Handle,
        at: &Addr,
        options: &ListenOptions,
        factory: impl Fn(&Addr) -> H + Send + Sync + 'static,
    ) -> Meeting {
        let (handle, factory) = (handle.clone(), Arc::new(factory));
        let options = ConnectOptions {
            nodelay: options.nodelay,
            keepalive: options.keepalive,
            recv_buffer: options.recv_buffer,
            send_buffer: options.send_buffer,
            linger: options.linger,
            timeout: PATIENCE,
            ..ConnectOptions::default()
        };
        let peer = at.clone();
        let dial = move |target| {
            let (factory, peer) = (factory.clone(), peer.clone());
            handle.connect(target, &options, move || factory(&peer)).unwrap();
        };
        Meeting { at: at.clone(), dial: Box::new(dial) }
    }

    /// The test's end of a new connection, a blocking socket with a long timeout.
    pub fn peer(&self, origin: Origin) -> Socket {
        self.begin(origin).complete()
    }

    /// As [`Meeting::peer`], without waiting for a reactor that connects.
    pub fn begin(&self, origin: Origin) -> Coming {
        let domain = match self.at.socket_addr() {
            Some(SocketAddr::V4(_)) => Domain::IPV4,
            Some(SocketAddr::V6(_)) => Domain::IPV6,
            None => Domain::UNIX,
        };
        let socket = Socket::new(domain, Type::STREAM, None).unwrap();
        // Before it connects or listens, so that a call that waits in vain ends.
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        match (origin, self.at.socket_addr()) {
            (Origin::Accepted, Some(addr)) => socket.connect(&addr.into()).unwrap(),
            (Origin::Accepted, None) => socket.connect(&unix(&self.at)).unwrap(),
            (Origin::ConnectedOut, Some(addr)) => {
                socket.bind(&SocketAddr::new(addr.ip(), 0).into()).unwrap();
                socket.listen(1).unwrap();
                (self.dial)(socket.local_addr().unwrap().as_socket().unwrap().into());
            }
            (Origin::ConnectedOut, None) => {
                static NEXT: AtomicUsize = AtomicUsize::new(0);
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let name = format!("reev-meeting-{}-{number}", std::process::id());
                let path = std::env::temp_dir().join(name);
                socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
                socket.listen(1).unwrap();
                (self.dial)(Endpoint::Unix(path).into());
            }
        }
        Coming { socket, origin }
    }
}

fn unix(at: &Addr) -> SockAddr {
    SockAddr::unix(OsStr::from_bytes(at.unix_name().unwrap())).unwrap()
}

/// A connection under way: of two that connect out, the first to be begun is the first to come.
pub struct Coming {
    socket: Socket,
    origin: Origin,
}

impl Coming {
    pub fn complete(self) -> Socket {
        if self.origin == Origin::Accepted {
            return self.socket;
        }
        let (peer, _) = self.socket.accept().unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.set_write_timeout(Some(PATIENCE)).unwrap();
        if let Some(path) = self.socket.local_addr().unwrap().as_pathname() {
            std::fs::remove_file(path).unwrap();
        }
        peer
    }
}
