//! A connection that was given to a watcher, as the caller has it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::link::Link;
use super::operation::{Deadline, Destination, Read, Source, Write};
use crate::addr::Addr;
use crate::sys::net;

/// A connection in a watcher's care: `Send`, `Sync`, cheap to clone.
///
/// When the last clone is dropped (those in completions count), or at [`Conn::free`], the
/// connection is closed, and what is pending completes with `ConnectionAborted`.
///
/// Submitting never blocks, from any thread, and nothing bounds how much is submitted: what is
/// pending, and what has completed and was not taken, is kept. What the system allows at once is
/// done at once, on the thread that submits; the completion comes from
/// [`Watcher::wait`](super::Watcher::wait) in any case.
///
/// ```
/// use std::io::Write;
/// use std::net::{TcpListener, TcpStream};
/// use std::time::Duration;
/// use reev::proactor::{Deadline, Kind, Watcher};
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let mut client = TcpStream::connect(listener.local_addr()?)?;
/// let mut watcher = Watcher::new()?;
/// let conn = watcher.delegate(listener.accept()?.0)?;
///
/// conn.read_full("a header", vec![0; 4], Deadline::After(Duration::from_secs(10)))?;
/// client.write_all(b"GET ")?;
/// let header = watcher.wait()?.next().expect("at least one");
/// assert_eq!((header.kind, header.bytes), (Kind::Read, 4));
///
/// header.conn.write("the answer", b"hello".to_vec())?;
/// let sent = watcher.wait()?.next().expect("at least one");
/// assert_eq!((sent.context, sent.bytes), ("the answer", 5));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Conn<T>(pub(crate) Arc<Link<T>>);

/// A submission that came too late: the connection or its watcher is closed. What was given
/// comes back, unless `?` makes an [`io::Error`] of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refused<T> {
    /// The caller's value.
    pub context: T,
    /// The buffer that was given to `read`, `read_full` or `write`.
    pub buffer: Option<Vec<u8>>,
    /// The buffers that were given to `write_vectored`.
    pub pieces: Vec<Vec<u8>>,
}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection or its watcher is closed")
    }
}

impl<T: fmt::Debug> std::error::Error for Refused<T> {}

impl<T> From<Refused<T>> for io::Error {
    fn from(refused: Refused<T>) -> io::Error {
        io::Error::new(io::ErrorKind::NotConnected, refused.to_string())
    }
}

impl<T> Conn<T> {
    /// Reads what arrives next: at least one byte, or none at the peer's FIN. `buffer` is
    /// filled up to its length, by the system itself, and comes back in the completion; `None`
    /// uses the watcher's own buffer, whose bytes are lent until the next `wait`.
    ///
    /// A buffer of no bytes completes with `InvalidInput`: nothing would look like the FIN.
    ///
    /// # Errors
    /// [`Refused`] if the connection is closed.
    pub fn read(&self, context: T, buffer: Option<Vec<u8>>) -> Result<(), Refused<T>> {
        self.read_by(context, buffer, Deadline::None)
    }

    /// [`Conn::read`] with a deadline.
    ///
    /// # Errors
    /// As of [`Conn::read`].
    pub fn read_by(
        &self,
        context: T,
        buffer: Option<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<(), Refused<T>> {
        let into = buffer.map_or(Destination::Swap, Destination::Owned);
        self.submit_read(context, into, false, deadline)
    }

    /// Reads until `buffer` is full. Cut short by the deadline or the peer's FIN, it completes
    /// with what has come until then.
    ///
    /// # Errors
    /// As of [`Conn::read`].
    pub fn read_full(
        &self,
        context: T,
        buffer: Vec<u8>,
        deadline: Deadline,
    ) -> Result<(), Refused<T>> {
        self.submit_read(context, Destination::Owned(buffer), true, deadline)
    }

    /// Writes all of `buffer`; complete when the system has taken the last byte.
    ///
    /// # Errors
    /// As of [`Conn::read`].
    pub fn write(&self, context: T, buffer: Vec<u8>) -> Result<(), Refused<T>> {
        self.write_by(context, buffer, Deadline::None)
    }

    /// [`Conn::write`] with a deadline. At the deadline the rest is dropped, and
    /// `Completion::bytes` says how many bytes went; the stream is torn there, and what to do
    /// about it is the caller's.
    ///
    /// # Errors
    /// As of [`Conn::read`].
    pub fn write_by(
        &self,
        context: T,
        buffer: Vec<u8>,
        deadline: Deadline,
    ) -> Result<(), Refused<T>> {
        let all = 0..buffer.len();
        self.submit_write(context, Source::One(buffer, all), deadline)
    }

    /// Writes a part of `buffer`, such as the bytes that a read has filled. The buffer comes back
    /// whole, to be read into again.
    ///
    /// # Errors
    /// As of [`Conn::read`].
    ///
    /// # Panics
    /// If `part` is not within `buffer`.
    pub fn write_part(
        &self,
        context: T,
        buffer: Vec<u8>,
        part: Range<usize>,
        deadline: Deadline,
    ) -> Result<(), Refused<T>> {
        let within = part.start <= part.end && part.end <= buffer.len();
        assert!(within, "{part:?} is not within a buffer of {} bytes", buffer.len());
        self.submit_write(context, Source::One(buffer, part), deadline)
    }

    /// Writes several buffers as if they were one, without joining them (sendmsg(2)).
    ///
    /// # Errors
    /// As of [`Conn::read`].
    pub fn write_vectored(
        &self,
        context: T,
        pieces: Vec<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<(), Refused<T>> {
        self.submit_write(context, Source::Pieces(pieces), deadline)
    }

    fn submit_read(
        &self,
        context: T,
        into: Destination,
        full: bool,
        deadline: Deadline,
    ) -> Result<(), Refused<T>> {
        let read = Read { context, into, full, done: 0, deadline: deadline.instant(now) };
        self.0.submit_read(read).map_err(|Read { context, into, .. }| match into {
            Destination::Owned(buffer) => {
                Refused { context, buffer: Some(buffer), pieces: Vec::new() }
            }
            Destination::Swap => Refused { context, buffer: None, pieces: Vec::new() },
        })
    }

    fn submit_write(&self, context: T, from: Source, deadline: Deadline) -> Result<(), Refused<T>> {
        let write = Write::new(context, from, deadline.instant(now));
        self.0.submit_write(write).map_err(|Write { context, from, .. }| match from {
            Source::One(buffer, _) => Refused { context, buffer: Some(buffer), pieces: Vec::new() },
            Source::Pieces(pieces) => Refused { context, buffer: None, pieces },
        })
    }

    /// Closes the connection: what the system has taken is still delivered, operations that are
    /// not complete come back with `ConnectionAborted`, and later submissions are refused. From
    /// any thread; harmless when repeated.
    pub fn free(&self) {
        self.0.free();
    }

    /// Tells the peer that nothing more is coming (a FIN), behind all that was written; reading
    /// goes on. Later writes complete with an error.
    ///
    /// ```
    /// use reev::proactor::{Kind, Watcher};
    /// use std::io::Read;
    /// use std::os::unix::net::UnixStream;
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let (ours, mut theirs) = UnixStream::pair()?;
    /// let mut watcher = Watcher::new()?;
    /// let conn = watcher.delegate(ours)?;
    /// conn.write((), b"all of it".to_vec())?;
    /// assert_eq!(watcher.wait()?.next().map(|done| done.kind), Some(Kind::Write));
    /// conn.shutdown_write()?;
    /// let mut all = String::new();
    /// theirs.read_to_string(&mut all)?; // to the FIN
    /// assert_eq!(all, "all of it");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `WouldBlock` while a write is not complete, `NotConnected` if the connection is closed, by
    /// either side.
    pub fn shutdown_write(&self) -> io::Result<()> {
        let state = self.0.lock();
        if !state.writes.is_empty() {
            let message = "a write is not complete yet, and would be cut";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
        }
        net::shutdown_write(state.socket()?);
        Ok(())
    }

    /// The other end's address, as of when the connection was delegated.
    pub fn peer(&self) -> &Addr {
        &self.0.peer
    }

    /// This end's address. Asks the system.
    ///
    /// # Errors
    /// What `getsockname` says; `NotConnected` if the connection is closed.
    pub fn local_addr(&self) -> io::Result<Addr> {
        net::local_addr(self.0.lock().socket()?)
    }

    /// Whether submissions are still accepted.
    pub fn is_open(&self) -> bool {
        !self.0.lock().closed
    }
}

#[expect(clippy::disallowed_methods, reason = "the one clock reading of a submission")]
fn now() -> Instant {
    Instant::now()
}

impl<T> Drop for Conn<T> {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

impl<T> Clone for Conn<T> {
    fn clone(&self) -> Conn<T> {
        self.0.handle()
    }
}

impl<T> PartialEq for Conn<T> {
    fn eq(&self, other: &Conn<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Conn<T> {}

impl<T> Hash for Conn<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl<T> fmt::Debug for Conn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("peer", self.peer()).finish_non_exhaustive()
    }
}
