//! Protocols on top of the reactor, each behind a feature of its name.

#[cfg(feature = "http1")]
pub mod http1;
#[cfg(feature = "websocket")]
pub mod websocket;
