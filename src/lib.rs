//! An event-driven network framework: pinned reactors that dispatch to event handlers.
//!
//! A server is several [`Reactor`]s, each a thread pinned to a core, with a poller, a read buffer
//! and a heap of timers of its own. An [`EvHandler`] is made for each connection, lives and dies
//! on its reactor, and is told what happens there. The shortest server:
//!
//! ```no_run
//! use reev::{Ctx, EvHandler};
//!
//! struct Echo;
//!
//! impl EvHandler for Echo {
//!     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
//!         cx.write(data);
//!         Ok(data.len())
//!     }
//! }
//!
//! fn main() -> std::io::Result<()> {
//!     reev::serve("127.0.0.1:7000", |_peer| Echo) // one pinned reactor a core, until Ctrl-C
//! }
//! ```
//!
//! # Callbacks are completions, commands are data
//!
//! `on_read` gets bytes that have arrived, and returns how many of them it took; the rest is
//! offered again, with what arrives next. What a handler asks for (`write`, `close`, timers,
//! another handler in its place) goes through [`Ctx`], which only records it; the reactor settles
//! it when the callback has returned. So no callback runs inside another, there is nothing to
//! lock, and sixteen small writes leave as one `send`.
//!
//! # Bounded by configuration
//!
//! Output that the peer does not read is queued. Above [`Config::output_high`] the connection is
//! read no more, below [`Config::output_low`] it goes on and the handler's `on_drain` is called,
//! above [`Config::output_max`] it ends with [`Close::SlowConsumer`]. Input left untaken is
//! bounded by [`Config::input_max`], messages from other threads by [`Config::mailbox_max`]. An
//! idle connection owns no buffer.
//!
//! # How the parts relate
//!
//! - [`serve`] is a server in a line. [`Server`] is the same in pieces: it binds on the caller's
//!   thread, so that errors surface and port 0 resolves, and calls a setup closure once on each
//!   reactor's thread. What setup builds stays on that thread, so handlers may share it by `Rc`.
//! - [`Endpoint`] is an address as text, of TCP or a Unix socket; [`Addr`] one as the system
//!   tells it. [`ListenOptions`] are a listener's options, its [`Placement`] among them.
//! - [`Ctx`] is a connection and its reactor inside a callback: output, timers, other
//!   connections by [`ConnId`], new ones ([`Ctx::connect`]), other descriptors
//!   ([`Ctx::add_source`]), state that a thread's handlers share ([`Ctx::local`]).
//! - [`Remote`] is a connection as other threads see it, [`Handle`] the server: to stop it, to
//!   shut it down in good order, to run a closure on each reactor, to read its [`Stats`].
//! - [`Close`] is why a connection ended, told once, in `on_close`.
//! - `reev::http1` has an [`EvHandler`] that speaks HTTP/1.1 and calls a service of yours.
//! - `reev::sim` is one reactor on a simulated kernel, for tests: a seed decides its faults.
//!
//! ```no_run
//! use std::io;
//! use std::time::Duration;
//! use reev::{Config, Ctx, EvHandler, Server};
//!
//! /// Says how many lines it has got, and closes a connection that is silent for a minute.
//! #[derive(Default)]
//! struct Count(usize);
//!
//! impl EvHandler for Count {
//!     fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
//!         cx.idle_timeout(Duration::from_secs(60));
//!         Ok(())
//!     }
//!
//!     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
//!         use std::io::Write;
//!         let Some(end) = data.iter().rposition(|&byte| byte == b'\n') else {
//!             return Ok(0); // not a whole line yet
//!         };
//!         self.0 += data.iter().filter(|&&byte| byte == b'\n').count();
//!         writeln!(cx.out(), "{}", self.0)?;
//!         Ok(end + 1)
//!     }
//! }
//!
//! let mut server = Server::new(Config { reactors: 2, ..Config::default() })?;
//! let tcp = server.listen("tcp://127.0.0.1:7001")?;
//! let unix = server.listen("unix:///tmp/count.sock")?;
//! reev::stop_on_signals(&server.handle())?;
//! server.run(move |reactor| {
//!     reactor.accept(tcp, |_peer| Count::default())?;
//!     reactor.accept(unix, |_peer| Count::default())
//! })?;
//! # Ok::<(), io::Error>(())
//! ```
//!
//! # The other half: connecting out, and what is no stream
//!
//! A handler connects by [`Ctx::connect`], [`Reactor::connect`] or [`Handle::connect`]; what it
//! writes meanwhile waits. [`Ctx::pair`] joins two connections of a reactor, so that each passes
//! on what the other reads, with back-pressure, half-closes and ends: a proxy needs no more.
//!
//! ```no_run
//! use std::io;
//! use reev::{ConnId, ConnectOptions, Ctx, EvHandler};
//!
//! /// A client of a proxy, not read until there is somebody to read for.
//! struct Client;
//!
//! impl EvHandler for Client {
//!     fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
//!         cx.pause_reads();
//!         cx.connect("tcp://backend.example:80", &ConnectOptions::default(), Backend(cx.id()));
//!         Ok(())
//!     }
//! }
//!
//! struct Backend(ConnId);
//!
//! impl EvHandler for Backend {
//!     fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
//!         if !cx.pair(self.0) {
//!             cx.abort(); // the client has left
//!         }
//!         Ok(())
//!     }
//!
//!     fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, error: io::Error) {
//!         log::warn!("{error}");
//!         if let Some(mut client) = cx.conn(self.0) {
//!             client.abort();
//!         }
//!     }
//! }
//! # reev::serve("127.0.0.1:8000", |_peer| Client)?;
//! # Ok::<(), io::Error>(())
//! ```
//!
//! A [`Pool`] keeps connections to several backends and lends them to handlers, which wait in
//! order where there are too few:
//!
//! ```no_run
//! # use std::io;
//! # use reev::{Config, Ctx, EvHandler, Pool, PoolOptions, Server};
//! struct Question(Pool);
//!
//! impl EvHandler for Question {
//!     fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
//!         cx.write(b"PING\r\n"); // lent a connection
//!         Ok(())
//!     }
//!
//!     fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
//!         self.0.release(cx); // and back it goes
//!         Ok(data.len())
//!     }
//! }
//!
//! # struct Ticker(Pool);
//! # impl EvHandler for Ticker {
//! #     fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
//! self.0.acquire(cx, Question(self.0.clone()));
//! # Ok(()) } }
//! # Server::new(Config::default())?.run(|reactor| {
//! let pool = reactor.pool(&["10.0.0.1:6379", "10.0.0.2:6379"], PoolOptions::default())?;
//! # reactor.add(Ticker(pool)); Ok(()) })?;
//! # Ok::<(), io::Error>(())
//! ```
//!
//! Datagrams, of UDP and Unix sockets, come to one handler for all peers. What arrives together
//! is taken with one system call, and what is answered leaves with one:
//!
//! ```no_run
//! # use std::io;
//! # use reev::{Addr, Config, Ctx, DatagramOptions, EvHandler, Server};
//! struct Echo;
//!
//! impl EvHandler for Echo {
//!     fn on_datagram(&mut self, cx: &mut Ctx<'_>, data: &mut [u8], from: &Addr) -> io::Result<()> {
//!         cx.send_to(from, data);
//!         Ok(())
//!     }
//! }
//!
//! let mut server = Server::new(Config::default())?;
//! let socket = server.bind_datagrams("udp://127.0.0.1:7007", &DatagramOptions::default())?;
//! server.run(move |reactor| reactor.serve_datagrams(socket, Echo).map(drop))?;
//! # Ok::<(), io::Error>(())
//! ```
//!
//! Any other descriptor that the poller takes is a *source*: [`Ctx::add_source`] watches it, and
//! its handler's `on_ready` is told a [`Readiness`]. [`Ctx::adopt`] takes a stream made elsewhere
//! into the reactor, [`Ctx::detach`] lets one go, with what it has not read and not sent:
//!
//! ```no_run
//! # use std::io;
//! # use std::net::TcpStream;
//! # use reev::{Ctx, EvHandler, Readiness};
//! struct Bell;
//!
//! impl EvHandler for Bell {
//!     fn on_ready(&mut self, cx: &mut Ctx<'_>, ready: Readiness) -> io::Result<()> {
//!         if ready.error {
//!             cx.close();
//!         }
//!         Ok(())
//!     }
//! }
//! # struct Echo;
//! # impl EvHandler for Echo {}
//! # struct Owner;
//! # impl EvHandler for Owner {
//! #     fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
//!
//! let (reader, writer) = io::pipe()?;
//! cx.add_source(reader, Readiness::READ, Bell)?;
//! let id = cx.adopt(TcpStream::connect("127.0.0.1:7000")?, Echo)?;
//! if let Some(mut conn) = cx.conn(id) {
//!     conn.detach(|left| println!("{:?}: {} bytes to send", left.socket, left.unsent.len()));
//! }
//! # drop(writer); Ok(()) } }
//! ```
//!
//! # Features
//!
//! - `http1` (default): `reev::http1`, HTTP/1.1 for servers: a codec without I/O, and the handler on it.
//! - `websocket` (default): `reev::websocket`, RFC 6455 and RFC 7692: a codec without I/O, and the
//!   handlers of both roles on it.
//! - `proactor` (default): `reev::proactor`: submit reads and writes, wait for completions.
//! - `sim` (default): `reev::sim`, which runs handlers on a simulated kernel, without sockets or clocks.
//!
//! # Logging
//!
//! Through the crate `log`, as in the examples here: nothing is seen until the program installs a
//! logger, such as `env_logger`. Panics of handlers are errors; what rests or is slow are warnings.
//! How a connection ended is not logged: `on_close` is told.
//!
//! # Platforms
//!
//! Linux, with epoll. For macOS, FreeBSD, NetBSD, OpenBSD and DragonFly there is a kqueue backend,
//! which is type-checked for them and tested over an emulation, and has not been run there.

// The loop has one clock, and nothing may block it: see clippy.toml.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]
#![warn(missing_docs, unreachable_pub)]

mod acceptor;
mod addr;
mod buf;
mod close;
mod closing;
mod config;
mod conn;
mod connector;
mod core;
mod ctx;
mod datagram;
mod datagram_queue;
mod dispatch;
mod endpoint;
mod group;
mod handle;
mod handler;
mod inherited;
mod input;
mod isolate;
mod mail;
mod mailbox;
mod output;
mod pair;
mod pin;
mod placement;
mod pool;
#[cfg(feature = "proactor")]
pub mod proactor;
mod prometheus;
pub mod proto;
mod reactor;
mod remote;
mod resolver;
mod server;
mod setup;
mod shutdown;
mod signal;
#[cfg(feature = "sim")]
pub mod sim;
mod slab;
mod source;
mod stats;
mod sync;
mod sys;
mod timer;
mod timing;

pub use acceptor::ListenerId;
pub use addr::Addr;
/// A buffer that is shared and not copied, of the crate `bytes`: what [`Ctx::write_owned`] and [`Remote::write`] take.
pub use bytes::Bytes;
pub use close::Close;
pub use closing::Detached;
pub use config::{Config, ListenOptions};
pub use connector::{ConnectOptions, Retry, Target};
pub use ctx::{Ctx, Out};
pub use datagram::{DatagramId, DatagramOptions, interface_index};
pub use endpoint::{Endpoint, IpVersion};
pub use handle::{Handle, Shutdown};
pub use handler::{ConnId, EvHandler};
pub use inherited::{Inherited, inherited_sockets};
pub use mailbox::SendError;
pub use placement::{PlaceFn, Placement};
pub use pool::{Pool, PoolOptions, PoolRemote, PoolStats};
#[cfg(feature = "http1")]
pub use proto::http1;
#[cfg(feature = "websocket")]
pub use proto::websocket;
pub use reactor::Reactor;
pub use remote::Remote;
pub use server::{Running, Server, serve};
pub use signal::stop_on_signals;
pub use source::Readiness;
pub use stats::Stats;
pub use timer::TimerId;
pub use timing::Traffic;

/// The pages whose examples are tested with the crate's.
#[cfg(all(doctest, feature = "proactor", feature = "sim", feature = "websocket"))]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/deployment.md")]
    struct Deployment;
    #[doc = include_str!("../docs/http1.md")]
    struct Http1;
    #[doc = include_str!("../docs/limits.md")]
    struct Limits;
    #[doc = include_str!("../docs/outbound.md")]
    struct Outbound;
    #[doc = include_str!("../docs/proactor.md")]
    struct Proactor;
    #[doc = include_str!("../docs/shutdown.md")]
    struct Shutdown;
    #[doc = include_str!("../docs/threads.md")]
    struct Threads;
    #[doc = include_str!("../docs/timers.md")]
    struct Timers;
    #[doc = include_str!("../docs/turn.md")]
    struct Turn;
    #[doc = include_str!("../docs/websocket.md")]
    struct WebSocket;
}
