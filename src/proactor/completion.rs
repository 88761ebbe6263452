//! What has completed, on its way to the caller.

use std::io;

use bytes::Bytes;

use super::conn::Conn;

/// Which operation has completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// [`Conn::read`] or [`Conn::read_full`].
    Read,
    /// [`Conn::write`], [`Conn::write_part`] or [`Conn::write_vectored`].
    Write,
}

/// The buffers of an operation, as they come back.
pub(crate) enum Buffers {
    None,
    One(Vec<u8>),
    Pieces(Vec<Vec<u8>>),
    /// One of the batch's pieces of the swap buffer.
    Swap(usize),
}

/// A completion before it is lent.
pub(crate) struct Done<T> {
    pub(crate) conn: Conn<T>,
    pub(crate) kind: Kind,
    pub(crate) context: T,
    pub(crate) buffers: Buffers,
    pub(crate) bytes: usize,
    pub(crate) result: io::Result<()>,
}

/// One operation that has completed.
///
/// What was given comes back, whatever the outcome: the context in `context`, the buffer in
/// `buffer`, those of a vectored write in `pieces`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Completion<'a, T> {
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
    /// by the peer's FIN, `ConnectionAborted` after `free` or the watcher's end, `InvalidInput`
    /// for a read into a buffer of no bytes, or the socket's error, which has the system's number
    /// (`raw_os_error`), as `ETIMEDOUT` has and a deadline has not.
    pub result: io::Result<()>,
    /// The buffer that was given to `read`, `read_full` or `write`, its length unchanged.
    pub buffer: Option<Vec<u8>>,
    /// The buffers that were given to `write_vectored`.
    pub pieces: Vec<Vec<u8>>,
    swap: &'a [u8],
}

impl<T> Completion<'_, T> {
    /// The bytes that were read, in the caller's buffer or in the watcher's; empty for a write.
    ///
    /// Those in the watcher's are lent until the next `wait`. The compiler checks it:
    ///
    /// ```compile_fail,E0499
    /// # fn keep(watcher: &mut reev::proactor::Watcher<()>) -> std::io::Result<()> {
    /// let done = watcher.wait()?.next().expect("wait gives at least one");
    /// watcher.wait()?;
    /// println!("{:?}", done.data()); // the bytes are gone
    /// # Ok(())
    /// # }
    /// ```
    pub fn data(&self) -> &[u8] {
        match (self.kind, &self.buffer) {
            (Kind::Read, Some(buffer)) => &buffer[..self.bytes],
            (Kind::Read, None) => self.swap,
            (Kind::Write, _) => &[],
        }
    }
}

/// Completions in the order in which they happened; what is not taken is dropped with this.
#[derive(Debug)]
pub struct Completions<'a, T> {
    done: std::vec::Drain<'a, Done<T>>,
    swap: &'a [Bytes],
}

impl<'a, T> Completions<'a, T> {
    pub(crate) fn new(done: &'a mut Vec<Done<T>>, swap: &'a [Bytes]) -> Completions<'a, T> {
        Completions { done: done.drain(..), swap }
    }
}

impl<'a, T> Iterator for Completions<'a, T> {
    type Item = Completion<'a, T>;

    fn next(&mut self) -> Option<Completion<'a, T>> {
        let Done { conn, kind, context, buffers, bytes, result } = self.done.next()?;
        let (mut buffer, mut pieces, mut swap) = (None, Vec::new(), &[][..]);
        match buffers {
            Buffers::None => {}
            Buffers::One(one) => buffer = Some(one),
            Buffers::Pieces(all) => pieces = all,
            Buffers::Swap(lent) => swap = &self.swap[lent],
        }
        Some(Completion { conn, kind, context, bytes, result, buffer, pieces, swap })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.done.size_hint()
    }
}

impl<T> ExactSizeIterator for Completions<'_, T> {}

impl<T> std::fmt::Debug for Done<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Done").field("kind", &self.kind).field("bytes", &self.bytes).finish()
    }
}
