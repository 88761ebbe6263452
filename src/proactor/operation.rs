//! What was submitted and is not complete yet.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::completion::Buffers;
use crate::timer::TimerId;

/// When an operation gives up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Deadline {
    /// Never.
    #[default]
    None,
    /// At this time; one that has passed times out at once, unless the operation can complete
    /// without waiting.
    At(Instant),
    /// After this long, counted from the submission.
    After(Duration),
}

impl Deadline {
    /// The time meant, if there is one.
    pub(crate) fn instant(self, now: Instant) -> Option<Instant> {
        match self {
            Deadline::None => None,
            Deadline::At(at) => Some(at),
            Deadline::After(after) => now.checked_add(after),
        }
    }
}

/// Where a read puts its bytes.
pub(crate) enum Destination {
    /// The caller's buffer; its length is what may be read.
    Owned(Vec<u8>),
    /// The watcher's own buffer.
    Swap,
}

impl Destination {
    /// The buffer, as it goes back.
    pub(crate) fn back(self) -> Buffers {
        match self {
            Destination::Owned(buffer) => Buffers::Owned(buffer),
            Destination::Swap => Buffers::Swap(0..0),
        }
    }
}

pub(crate) struct Read<T> {
    pub(crate) context: T,
    pub(crate) into: Destination,
    /// Complete only when the buffer is full.
    pub(crate) full: bool,
    pub(crate) done: usize,
    pub(crate) deadline: Option<Instant>,
    pub(crate) timer: TimerId,
}

pub(crate) struct Write<T> {
    pub(crate) context: T,
    /// The pieces in order; kept whole, to be given back.
    pub(crate) pieces: Vec<Bytes>,
    /// Bytes in all pieces.
    pub(crate) len: usize,
    pub(crate) deadline: Option<Instant>,
    pub(crate) timer: TimerId,
}

pub(crate) enum Operation<T> {
    Read(Read<T>),
    Write(Write<T>),
}

/// The operations of one connection, oldest first.
pub(crate) struct Pending<T> {
    pub(crate) reads: VecDeque<Read<T>>,
    pub(crate) writes: VecDeque<Write<T>>,
}

impl<T> Pending<T> {
    pub(crate) fn new() -> Pending<T> {
        Pending { reads: VecDeque::new(), writes: VecDeque::new() }
    }
}
