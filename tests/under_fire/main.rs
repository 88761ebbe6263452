//! The framework under fire, on real sockets: ends with data pending, floods, storms of signals,
//! want of descriptors, listeners that come and go, panics, shutdown with data in flight.
//!
//! Each test is named after its number in the list of hard cases, and says which fault was
//! planted in the library to see it fail.

#[path = "../common/origin.rs"]
mod origin;

mod accept;
mod bounds;
mod bytes;
mod descriptors;
#[cfg(target_os = "linux")] // it is about steering, which no other system has
mod leaving;
mod names;
mod panics;
mod shutdown;
mod signals;
mod support;
mod threads;
