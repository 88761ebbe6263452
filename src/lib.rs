//! An event-driven network framework: pinned reactors that dispatch to event handlers.

#![warn(missing_docs, unreachable_pub)]

mod acceptor;
mod addr;
mod buf;
mod close;
mod config;
mod conn;
mod core;
mod ctx;
mod dispatch;
mod endpoint;
mod group;
mod handle;
mod handler;
mod input;
mod mail;
mod mailbox;
mod pin;
mod placement;
mod reactor;
mod remote;
mod server;
mod shutdown;
mod signal;
#[cfg(feature = "sim")]
pub mod sim;
mod slab;
mod stats;
mod sync;
mod sys;
mod timer;

pub use acceptor::ListenerId;
pub use addr::Addr;
pub use close::Close;
pub use config::{Config, ListenOptions};
pub use ctx::{Ctx, Out, Traffic};
pub use endpoint::{Endpoint, IpVersion};
pub use handle::{Handle, Shutdown};
pub use handler::{ConnId, EvHandler};
pub use mailbox::SendError;
pub use placement::{PlaceFn, Placement};
pub use reactor::Reactor;
pub use remote::Remote;
pub use server::{Running, Server, serve};
pub use signal::stop_on_signals;
pub use stats::Stats;
pub use timer::TimerId;
