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
//! # Features
//!
//! - `http1` (default): `reev::http1`, HTTP/1.1 for servers: a codec without I/O, and the handler on it.
//! - `websocket` (default): `reev::websocket`, RFC 6455 and RFC 7692: a codec without I/O, and the
//!   handlers of both roles on it.
//! - `proactor` (default): `reev::proactor`: submit reads and writes, wait for completions.
//! - `sim` (default): `reev::sim`, which runs handlers on a simulated kernel, without sockets or clocks.
//!
//! # Platforms
//!
//! Linux, with epoll.

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
#[cfg(all(doctest, feature = "http1", feature = "sim", feature = "websocket"))]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
}
