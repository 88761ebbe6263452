//! What has completed, on its way to the caller.

use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::conn::Conn;

/// Which operation has completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// [`Conn::read`] or [`Conn::read_full`].
    Read,
    /// [`Conn::write`] or [`Conn::write_vectored`].
    Write,
}

/// The buffers of an operation, as they come back.
pub(crate) enum Buffers {
    Owned(Vec<u8>),
    /// A range of the batch's swap buffer.
    Swap(Range<usize>),
    Written(Vec<Bytes>),
}

/// A completion before it is lent.
pub(crate) struct Done<T: Send + 'static> {
    pub(crate) conn: Conn<T>,
    pub(crate) kind: Kind,
    pub(crate) context: T,
    pub(crate) buffers: Buffers,
    pub(crate) bytes: usize,
    pub(crate) result: io::Result<()>,
}

/// One operation that has completed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Completion<'a, T: Send + 'static> {
    /// The connection it was submitted to.
    pub conn: Conn<T>,
    /// Which operation.
    pub kind: Kind,
    /// The caller's own value, as submitted.
    pub context: T,
    /// Bytes read or written. On an error, those before it: of a write that timed out, as many
    /// as the system took. A read that ends well with 0 has met the peer's FIN.
    pub bytes: usize,
    /// What went wrong: `TimedOut` at the deadline, `UnexpectedEof` for a `read_full` cut short
    /// by the peer's FIN, `ConnectionAborted` after `free`, or the socket's error.
    pub result: io::Result<()>,
    /// The buffers that were given, whatever the outcome: of a read, one or none; of a write,
    /// its pieces.
    pub buffers: Vec<Vec<u8>>,
    swap: &'a [u8],
}

impl<T: Send + 'static> Completion<'_, T> {
    /// The bytes that were read, in the caller's buffer or in the watcher's. Those in the
    /// watcher's are lent until the next `wait`, which the compiler checks.
    pub fn data(&self) -> &[u8] {
        match (self.kind, self.buffers.first()) {
            (Kind::Read, Some(buffer)) => &buffer[..self.bytes],
            (Kind::Read, None) => self.swap,
            (Kind::Write, _) => &[],
        }
    }
}

/// Completions in the order in which they happened; what is not taken is dropped with this.
#[derive(Debug)]
pub struct Completions<'a, T: Send + 'static> {
    done: std::vec::Drain<'a, Done<T>>,
    swap: &'a [u8],
}

impl<'a, T: Send + 'static> Completions<'a, T> {
    pub(crate) fn new(done: &'a mut Vec<Done<T>>, swap: &'a [u8]) -> Completions<'a, T> {
        Completions { done: done.drain(..), swap }
    }
}

impl<'a, T: Send + 'static> Iterator for Completions<'a, T> {
    type Item = Completion<'a, T>;

    fn next(&mut self) -> Option<Completion<'a, T>> {
        let Done { conn, kind, context, buffers, bytes, result } = self.done.next()?;
        let (buffers, swap) = match buffers {
            Buffers::Owned(buffer) => (vec![buffer], &[][..]),
            Buffers::Swap(range) => (Vec::new(), &self.swap[range]),
            // Not copied: the last reference to a buffer takes it over.
            Buffers::Written(pieces) => (pieces.into_iter().map(Vec::from).collect(), &[][..]),
        };
        Some(Completion { conn, kind, context, bytes, result, buffers, swap })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.done.size_hint()
    }
}

impl<T: Send + 'static> ExactSizeIterator for Completions<'_, T> {}

impl<T: Send + 'static> std::fmt::Debug for Done<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Done").field("kind", &self.kind).field("bytes", &self.bytes).finish()
    }
}
