//! An event-driven network framework: pinned reactors that dispatch to event handlers.

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
mod handler;
mod mail;
mod mailbox;
mod pin;
mod reactor;
mod remote;
mod server;
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
pub use handler::{ConnId, EvHandler};
pub use mailbox::SendError;
pub use reactor::Reactor;
pub use remote::Remote;
pub use server::{Handle, Running, Server, serve};
pub use signal::stop_on_signals;
pub use stats::Stats;
pub use timer::TimerId;
