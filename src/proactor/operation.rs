//! What was submitted and is not complete yet.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;

use super::completion::{Buffers, Done, Kind};
use super::conn::Conn;
use crate::config::{IOVECS_MAX, LANE_KEPT};

/// When an operation gives up.
///
/// It is kept to the watcher's clock, in nanoseconds: an operation never times out early, and as
/// late as the watcher's thread is held up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Deadline {
    /// Never.
    #[default]
    None,
    /// At this time; one that has passed times out at once, unless the operation can complete
    /// without waiting. What has arrived by then counts, read or not.
    At(Instant),
    /// After this long, counted from the submission; never, if no clock goes so far.
    After(Duration),
}

impl Deadline {
    /// The time meant, if there is one; `now` is asked only where it matters.
    pub(crate) fn instant(self, now: impl FnOnce() -> Instant) -> Option<Instant> {
        match self {
            Deadline::None => None,
            Deadline::At(at) => Some(at),
            Deadline::After(after) => now().checked_add(after),
        }
    }
}

/// Why a socket failed: for each operation that it concerns, and so to be copied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The system's number for it.
    Os(i32),
    Kind(io::ErrorKind),
}

impl Fault {
    pub(crate) fn error(self) -> io::Error {
        match self {
            Fault::Os(number) => io::Error::from_raw_os_error(number),
            Fault::Kind(kind) => kind.into(),
        }
    }
}

impl From<&io::Error> for Fault {
    fn from(error: &io::Error) -> Fault {
        error.raw_os_error().map_or(Fault::Kind(error.kind()), Fault::Os)
    }
}

impl From<io::ErrorKind> for Fault {
    fn from(kind: io::ErrorKind) -> Fault {
        Fault::Kind(kind)
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
            Destination::Owned(buffer) => Buffers::One(buffer),
            Destination::Swap => Buffers::None,
        }
    }
}

/// The bytes of a write.
pub(crate) enum Source {
    /// A part of a buffer.
    One(Vec<u8>, Range<usize>),
    Pieces(Vec<Vec<u8>>),
}

impl Source {
    fn len(&self) -> usize {
        match self {
            Source::One(_, part) => part.len(),
            Source::Pieces(pieces) => pieces.iter().map(Vec::len).sum(),
        }
    }

    /// The buffers, as they go back.
    pub(crate) fn back(self) -> Buffers {
        match self {
            Source::One(buffer, _) => Buffers::One(buffer),
            Source::Pieces(pieces) => Buffers::Pieces(pieces),
        }
    }
}

/// What reads and writes have in common.
pub(crate) trait Operation<T> {
    const KIND: Kind;
    fn deadline(&self) -> Option<Instant>;
    /// What the caller gets.
    fn into_done(self, conn: Conn<T>, result: io::Result<()>) -> Done<T>;
}

pub(crate) struct Read<T> {
    pub(crate) context: T,
    pub(crate) into: Destination,
    /// Complete only when the buffer is full.
    pub(crate) full: bool,
    pub(crate) done: usize,
    pub(crate) deadline: Option<Instant>,
}

impl<T> Operation<T> for Read<T> {
    const KIND: Kind = Kind::Read;

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn into_done(self, conn: Conn<T>, result: io::Result<()>) -> Done<T> {
        let (kind, bytes) = (Self::KIND, self.done);
        Done { conn, kind, context: self.context, buffers: self.into.back(), bytes, result }
    }
}

pub(crate) struct Write<T> {
    pub(crate) context: T,
    pub(crate) from: Source,
    /// Bytes in all pieces.
    pub(crate) len: usize,
    /// Bytes that the system has taken.
    pub(crate) done: usize,
    /// Where the rest of several pieces begins: a piece, and how much of it went.
    piece: usize,
    offset: usize,
    pub(crate) deadline: Option<Instant>,
}

impl<T> Write<T> {
    pub(crate) fn new(context: T, from: Source, deadline: Option<Instant>) -> Write<T> {
        let len = from.len();
        Write { context, from, len, done: 0, piece: 0, offset: 0, deadline }
    }

    /// What is to be sent next: all that is left, or as much as one call takes.
    pub(crate) fn slices(&self) -> ArrayVec<IoSlice<'_>, IOVECS_MAX> {
        let mut slices = ArrayVec::new();
        match &self.from {
            Source::One(buffer, part) => {
                slices.push(IoSlice::new(&buffer[part.start + self.done..part.end]));
            }
            Source::Pieces(pieces) => {
                let mut offset = self.offset;
                for piece in &pieces[self.piece..] {
                    if slices.is_full() {
                        break;
                    }
                    if piece.len() > offset {
                        slices.push(IoSlice::new(&piece[offset..]));
                    }
                    offset = 0;
                }
            }
        }
        slices
    }

    /// Notes that the system took `n` bytes more.
    pub(crate) fn advance(&mut self, mut n: usize) {
        self.done += n;
        let Source::Pieces(pieces) = &self.from else {
            return;
        };
        while let Some(current) = pieces.get(self.piece) {
            let left = current.len() - self.offset;
            if n < left {
                self.offset += n;
                return;
            }
            n -= left;
            self.piece += 1;
            self.offset = 0;
        }
    }
}

impl<T> Operation<T> for Write<T> {
    const KIND: Kind = Kind::Write;

    fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn into_done(self, conn: Conn<T>, result: io::Result<()>) -> Done<T> {
        let (kind, bytes) = (Self::KIND, self.done);
        Done { conn, kind, context: self.context, buffers: self.from.back(), bytes, result }
    }
}

/// The operations of one direction, oldest first.
pub(crate) struct Lane<O>(VecDeque<O>);

impl<O> Lane<O> {
    pub(crate) fn new() -> Lane<O> {
        Lane(VecDeque::new())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn push(&mut self, operation: O) {
        self.0.push_back(operation);
    }

    pub(crate) fn front(&mut self) -> Option<&mut O> {
        self.0.front_mut()
    }

    pub(crate) fn pop(&mut self) -> Option<O> {
        let oldest = self.0.pop_front();
        if self.0.is_empty() && self.0.capacity() > LANE_KEPT {
            self.0 = VecDeque::new(); // of a burst
        }
        oldest
    }

    pub(crate) fn earliest<T>(&self) -> Option<Instant>
    where
        O: Operation<T>,
    {
        self.0.iter().filter_map(O::deadline).min()
    }

    /// Takes out those whose deadline has come, in order.
    pub(crate) fn take_due<T>(&mut self, now: Instant) -> VecDeque<O>
    where
        O: Operation<T>,
    {
        let due = |operation: &O| operation.deadline().is_some_and(|at| at <= now);
        let mut over = VecDeque::new();
        // Mostly it is the oldest that wait longest.
        while self.0.front().is_some_and(due) {
            over.extend(self.pop());
        }
        if self.0.iter().any(due) {
            let (others, left) = std::mem::take(&mut self.0).into_iter().partition(due);
            let others: VecDeque<O> = others;
            over.extend(others);
            self.0 = left;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Planted: what is left of a piece is counted from its start.
    #[test]
    fn a_write_goes_on_where_the_system_stopped() {
        let pieces: Vec<Vec<u8>> = [&b"abc"[..], b"", b"defgh", b"i", b""].map(Vec::from).into();
        let all = pieces.concat();
        for step in 1..=all.len() {
            let mut write = Write::new((), Source::Pieces(pieces.clone()), None);
            let mut went = Vec::new();
            while write.done < write.len {
                let offered: Vec<u8> =
                    write.slices().iter().flat_map(|slice| slice.to_vec()).collect();
                assert_eq!(offered, all[write.done..]);
                let n = step.min(offered.len());
                went.extend_from_slice(&offered[..n]);
                write.advance(n);
            }
            assert_eq!(went, all);
            assert!(write.slices().is_empty());
        }
    }

    /// Planted: the room of a burst is kept.
    #[test]
    fn a_lane_shrinks_after_a_burst() {
        let mut lane = Lane::new();
        (0..1000).for_each(|n| lane.push(n));
        assert!((0..1000).all(|n| lane.pop() == Some(n)));
        assert_eq!(lane.0.capacity(), 0);
    }

    /// Planted: those behind one that has time are forgotten; they come in another order.
    #[test]
    fn all_that_is_due_is_taken_in_order() {
        let now = Instant::now();
        let read = |(context, due)| {
            let deadline = if due { Some(now) } else { None };
            Read { context, into: Destination::Swap, full: false, done: 0, deadline }
        };
        let mut lane = Lane::new();
        let due = [true, true, false, true, false, true, false];
        due.into_iter().enumerate().map(read).for_each(|read| lane.push(read));
        let over: Vec<usize> = lane.take_due(now).into_iter().map(|read| read.context).collect();
        assert_eq!(over, [0, 1, 3, 5]);
        let left: Vec<usize> = lane.0.into_iter().map(|read| read.context).collect();
        assert_eq!(left, [2, 4, 6]);
    }

    #[test]
    fn more_pieces_than_a_call_takes_are_sent_by_several() {
        let pieces: Vec<Vec<u8>> = (0..100).map(|i| vec![i; 3]).collect();
        let mut write = Write::new((), Source::Pieces(pieces.clone()), None);
        let mut went = Vec::new();
        while write.done < write.len {
            let offered: Vec<u8> = write.slices().iter().flat_map(|slice| slice.to_vec()).collect();
            write.advance(offered.len());
            went.extend(offered);
        }
        assert_eq!(went, pieces.concat());
    }
}
