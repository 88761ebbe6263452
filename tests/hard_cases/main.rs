//! The hard cases of event loops, each named after its number. Each test was seen to fail on a
//! build with the fault planted that its comment names.

#[path = "../common/mod.rs"]
mod common;

mod bounds;
mod bytes;
mod callbacks;
mod identity;
mod memory;
mod threads;
mod time;
