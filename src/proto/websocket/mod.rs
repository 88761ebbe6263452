//! WebSocket (RFC 6455) with permessage-deflate (RFC 7692): handlers of both roles, on a codec without I/O.
//!
//! A [`Handler`] is told what comes on one WebSocket, and answers through the [`WebSocket`] it is given. [`WebSockets`],
//! made once on each reactor, upgrades requests of [`http1`](crate::http1) and makes the handlers of clients. [`Peer`]
//! is a WebSocket for the other handlers of its reactor, [`Remote`] for other threads.
//!
//! ```no_run
//! use reev::http1::{self, Http1};
//! use reev::websocket::{self, Handler, WebSocket, WebSockets};
//! use reev::{Config, Server};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
//!         let _ = ws.text(text); // after the close frame nothing is sent
//!     }
//! }
//!
//! let mut server = Server::new(Config::default())?;
//! let listener = server.listen("127.0.0.1:8080")?;
//! reev::stop_on_signals(&server.handle())?;
//! server.run(move |reactor| {
//!     let http = Http1::new(http1::Options::default());
//!     let sockets = WebSockets::new(websocket::Options::default());
//!     reactor.accept(listener, move |_peer| http.connection(sockets.path("/", || Echo)))
//! })?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # The codec
//!
//! Beneath is a codec without I/O and without a clock. A [`Connection`] is given the bytes that arrived and a sink for
//! what is to be sent. The handshake before it is two pure functions: [`server::accept`] for a server;
//! [`client::Request`] for a client.
//!
//! ```
//! use reev::websocket::{Config, Connection, Event, ProtocolError, Role};
//!
//! /// Echoes all messages in `data`; returns how much of it was used.
//! fn echo(connection: &mut Connection, data: &mut [u8], out: &mut Vec<u8>) -> Result<usize, ProtocolError> {
//!     let mut used = 0;
//!     loop {
//!         let step = connection.step(&mut data[used..], out)?;
//!         used += step.used;
//!         match step.event {
//!             Some(Event::Text(text)) => _ = step.sender.text(text, out),
//!             Some(Event::Binary(bytes)) => _ = step.sender.binary(bytes, out),
//!             Some(_) => {}
//!             None => return Ok(used),
//!         }
//!     }
//! }
//!
//! let mut connection = Connection::new(Role::Server, &Config::default(), None);
//! let mut out = Vec::new();
//! let mut frame = *b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
//! assert_eq!(echo(&mut connection, &mut frame, &mut out), Ok(11));
//! assert_eq!(out, b"\x81\x05Hello");
//! ```

mod assembly;
pub mod client;
mod close;
pub mod config;
mod connection;
mod deflate;
mod dial;
mod endpoint;
mod error;
pub mod extension;
mod frame;
mod handler;
mod handshake;
mod keepalive;
pub mod mask;
mod options;
mod path;
mod prepared;
mod rare;
mod receiver;
mod remote;
mod sender;
pub mod server;
mod shared;
mod socket;
mod tokens;
mod utf8;
mod watch;

pub use close::{CloseCode, CloseFrame};
pub use config::Config;
pub use connection::{Connection, Step};
pub use dial::Dial;
pub use error::{ProtocolError, SendError};
pub use extension::{DeflateConfig, DeflateParams};
pub use frame::{Header, HeaderBytes, Kind, Role};
pub use handler::{Closed, Handler};
pub use keepalive::{Due, KeepAlive, KeepAlivePolicy};
pub use mask::Masks;
pub use options::{Options, OriginFn, Origins, SlowConsumer};
pub use path::Path;
pub use prepared::Prepared;
pub use receiver::{Decoded, Event, Receiver};
pub use remote::Remote;
pub use sender::{Compress, Sender, State};
pub use shared::{Peer, WebSockets};
pub use socket::WebSocket;
pub use utf8::{InvalidUtf8, TextBuffer};
