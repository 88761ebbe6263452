//! The buffers of a connection, which exist only while they hold something.
//!
//! [`OutQueue`] is output that the kernel did not take; [`Tail`] is input that the handler did
//! not take.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSlice;
use std::ops::Range;
use std::rc::Rc;

use arrayvec::ArrayVec;
use bytes::{Buf, Bytes};

use crate::config::{CHUNK_FIRST, CHUNK_MAX, CHUNK_MIN, FILE_WEIGHT, IOVECS_MAX};

enum Chunk {
    /// Small writes, gathered; `start` bytes have been sent.
    Copied { bytes: Vec<u8>, start: usize },
    /// A buffer that the user shares with us, sent without a copy.
    Shared(Bytes),
    /// A part of a file, which the kernel sends from its cache.
    File { file: File, part: Range<u64> },
}

impl Chunk {
    fn unsent(&self) -> &[u8] {
        match self {
            Chunk::Copied { bytes, start } => &bytes[*start..],
            Chunk::Shared(bytes) => bytes,
            Chunk::File { .. } => &[],
        }
    }

    fn is_file(&self) -> bool {
        matches!(self, Chunk::File { .. })
    }

    fn advance(&mut self, n: usize) {
        match self {
            Chunk::Copied { start, .. } => *start += n,
            Chunk::Shared(bytes) => bytes.advance(n),
            Chunk::File { .. } => {}
        }
    }
}

/// A number that all queues of a reactor count into.
#[derive(Clone, Default)]
pub(crate) struct Gauge(Rc<Cell<usize>>);

impl Gauge {
    pub(crate) fn get(&self) -> usize {
        self.0.get()
    }
}

/// Ordered output that waits for the peer.
pub(crate) struct OutQueue {
    chunks: VecDeque<Chunk>,
    /// Bytes of memory that wait, and for each file at most `FILE_WEIGHT`.
    len: usize,
    /// Bytes in all queues of the reactor.
    total: Gauge,
}

impl OutQueue {
    pub(crate) fn new(total: &Gauge) -> OutQueue {
        OutQueue { chunks: VecDeque::new(), len: 0, total: total.clone() }
    }

    fn grow(&mut self, n: usize) {
        self.len += n;
        self.total.0.set(self.total.0.get() + n);
    }

    fn shrink(&mut self, n: usize) {
        self.len -= n;
        self.total.0.set(self.total.0.get() - n);
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Copies `data` to the end.
    pub(crate) fn push(&mut self, mut data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.grow(data.len());
        if let Some(Chunk::Copied { bytes, .. }) = self.chunks.back_mut() {
            let room = CHUNK_MAX.saturating_sub(bytes.len()).min(data.len());
            bytes.extend_from_slice(&data[..room]);
            data = &data[room..];
        }
        for piece in data.chunks(CHUNK_MAX) {
            let least = if self.chunks.is_empty() { CHUNK_FIRST } else { CHUNK_MIN };
            let mut bytes = Vec::with_capacity(piece.len().max(least));
            bytes.extend_from_slice(piece);
            self.chunks.push_back(Chunk::Copied { bytes, start: 0 });
        }
    }

    /// Appends a shared buffer; behind others a small one is copied, which costs less than a slice
    /// of its own.
    pub(crate) fn push_shared(&mut self, bytes: Bytes) {
        if bytes.is_empty() || (bytes.len() < CHUNK_MIN && !self.chunks.is_empty()) {
            return self.push(&bytes);
        }
        self.grow(bytes.len());
        self.chunks.push_back(Chunk::Shared(bytes));
    }

    /// Appends a part of a file.
    pub(crate) fn push_file(&mut self, file: File, part: Range<u64>) {
        if !part.is_empty() {
            self.grow(weight(&part));
            self.chunks.push_back(Chunk::File { file, part });
        }
    }

    /// Whether a part of a file waits.
    pub(crate) fn has_file(&self) -> bool {
        self.chunks.iter().any(Chunk::is_file)
    }

    /// Whether a file comes behind the first `n` slices.
    pub(crate) fn file_follows(&self, n: usize) -> bool {
        self.chunks.get(n).is_some_and(Chunk::is_file)
    }

    /// All that waits, as one piece; no file is among it.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.chunks.iter().flat_map(|chunk| chunk.unsent()).copied().collect()
    }

    /// The first slices, as many as go into one system call; none if a file is next.
    pub(crate) fn slices(&self) -> ArrayVec<IoSlice<'_>, IOVECS_MAX> {
        let unsent = self.chunks.iter().take_while(|chunk| !chunk.is_file());
        unsent.map(|chunk| IoSlice::new(chunk.unsent())).take(IOVECS_MAX).collect()
    }

    /// The file that is next, if one is, and which part of it is unsent.
    pub(crate) fn file(&self) -> Option<(&File, Range<u64>)> {
        match self.chunks.front()? {
            Chunk::File { file, part } => Some((file, part.clone())),
            Chunk::Copied { .. } | Chunk::Shared(_) => None,
        }
    }

    /// Drops the first `n` bytes of the file in front, which were sent.
    pub(crate) fn advance_file(&mut self, n: u64) {
        let Some(Chunk::File { part, .. }) = self.chunks.front_mut() else {
            return;
        };
        let before = weight(part);
        part.start += n.min(part.end - part.start);
        let (after, done) = (weight(part), part.is_empty());
        self.shrink(before - after);
        if done {
            self.chunks.pop_front();
        }
    }

    /// Drops the first `n` bytes, which were sent. No file is among them.
    pub(crate) fn advance(&mut self, mut n: usize) {
        assert!(n <= self.len, "more was sent than was queued");
        self.shrink(n);
        while let Some(front) = self.chunks.front_mut().filter(|front| !front.is_file()) {
            let held = front.unsent().len();
            if n < held {
                return front.advance(n);
            }
            n -= held;
            self.chunks.pop_front();
        }
    }
}

/// What a part of a file counts against the marks: its descriptor is what it costs.
fn weight(part: &Range<u64>) -> usize {
    (part.end - part.start).min(FILE_WEIGHT as u64) as usize
}

impl Drop for OutQueue {
    fn drop(&mut self) {
        self.shrink(self.len);
    }
}

/// Input that was offered and not taken.
#[derive(Default)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
    start: usize,
}

impl Tail {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// Makes `rest` the whole tail; an empty one gives its memory back.
    pub(crate) fn replace(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            *self = Tail::default();
            return;
        }
        self.start = 0;
        self.bytes.clear();
        if self.bytes.capacity() > rest.len().saturating_mul(4).max(CHUNK_MIN) {
            self.bytes = Vec::new();
        }
        self.bytes.extend_from_slice(rest);
    }

    /// Drops the first `n` bytes, which were taken.
    pub(crate) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.is_empty() {
            *self = Tail::default();
        } else if self.start > self.bytes.len() / 2 {
            // Each byte is moved at most once for each halving, so a long tail taken in small
            // messages costs linear work.
            self.bytes.drain(..self.start);
            self.start = 0;
            if self.bytes.capacity() > self.bytes.len().saturating_mul(4).max(CHUNK_MIN) {
                self.bytes.shrink_to(self.bytes.len() * 2);
            }
        }
    }

    /// The buffer to read `room` more bytes into, behind what is there.
    pub(crate) fn reserve(&mut self, room: usize) -> &mut Vec<u8> {
        self.bytes.reserve(room);
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Op {
        Push(usize),
        Shared(usize),
        Advance(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        let size = prop_oneof![0..200usize, 3000..5000usize, 65_000..67_000usize];
        prop_oneof![
            size.clone().prop_map(Op::Push),
            size.clone().prop_map(Op::Shared),
            size.prop_map(Op::Advance),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_queue_is_the_concatenation_of_what_was_pushed(ops in prop::collection::vec(op(), 1..24)) {
            let total = Gauge::default();
            let mut queue = OutQueue::new(&total);
            let mut model = VecDeque::new();
            let mut next = 0u8;
            for op in ops {
                let mut fill = |n: usize| -> Vec<u8> {
                    (0..n).map(|_| { next = next.wrapping_add(41); next }).collect()
                };
                match op {
                    Op::Push(n) => { let data = fill(n); queue.push(&data); model.extend(data); }
                    Op::Shared(n) => {
                        let data = fill(n);
                        model.extend(&data);
                        queue.push_shared(Bytes::from(data));
                    }
                    Op::Advance(n) => {
                        let n = n.min(model.len());
                        queue.advance(n);
                        model.drain(..n);
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(total.get(), model.len());
                let front: Vec<u8> = queue.slices().iter().flat_map(|s| s.to_vec()).collect();
                prop_assert!(model.iter().copied().take(front.len()).eq(front.iter().copied()));
                prop_assert_eq!(front.is_empty(), model.is_empty());
            }
        }

        #[test]
        fn the_tail_is_what_was_not_consumed(
            data in prop::collection::vec(any::<u8>(), 1..500),
            steps in prop::collection::vec(0..60usize, 0..40),
        ) {
            let mut tail = Tail::default();
            tail.replace(&data);
            let mut rest = data.as_slice();
            for step in steps {
                let n = step.min(rest.len());
                tail.consume(n);
                rest = &rest[n..];
                prop_assert_eq!(tail.bytes(), rest);
            }
        }
    }

    #[test]
    fn an_emptied_tail_owns_nothing() {
        let mut tail = Tail::default();
        tail.replace(&[1; 100_000]);
        tail.consume(100_000);
        assert_eq!(tail.bytes.capacity(), 0);
        tail.replace(&[1; 100_000]);
        tail.replace(&[2; 10]);
        assert!(tail.bytes.capacity() <= CHUNK_MIN);
    }
}
