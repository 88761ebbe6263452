//! A connection that was given to a watcher.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use bytes::Bytes;

use super::operation::{Deadline, Destination, Operation, Read, Write};
use crate::remote::Remote;
use crate::sync::lock_std;
use crate::timer::TimerId;

/// A connection in a watcher's care: `Send`, `Sync`, cheap to clone.
///
/// When the last clone is dropped (those in completions count), or at [`Conn::free`], the
/// connection is closed, and what is pending completes with `ConnectionAborted`.
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
pub struct Conn<T: Send + 'static>(Arc<Inner<T>>);

struct Inner<T: Send + 'static> {
    shared: Arc<ConnShared<T>>,
}

/// What the caller's threads and the watcher's have in common.
pub(crate) struct ConnShared<T> {
    submitted: Mutex<Submitted<T>>,
    /// There once the watcher has taken the connection in.
    remote: OnceLock<Remote>,
}

struct Submitted<T> {
    operations: VecDeque<Operation<T>>,
    /// The watcher was told, and has not looked yet.
    told: bool,
    /// The connection is to be closed.
    free: bool,
    closed: bool,
}

/// What a watcher finds when it looks.
pub(crate) struct News<T> {
    pub(crate) operations: VecDeque<Operation<T>>,
    pub(crate) free: bool,
}

/// A submission that came too late: the connection or its watcher is closed. What was given
/// comes back.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refused<T> {
    /// The caller's value.
    pub context: T,
    /// The buffers.
    pub buffers: Vec<Vec<u8>>,
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

impl<T> ConnShared<T> {
    /// The watcher has taken the connection in.
    pub(crate) fn taken_in(&self, remote: Remote) {
        let _ = self.remote.set(remote); // happens once
    }

    pub(crate) fn news(&self) -> News<T> {
        let mut submitted = lock_std(&self.submitted);
        submitted.told = false;
        let operations = std::mem::take(&mut submitted.operations);
        News { operations, free: submitted.free }
    }

    /// Refuses submissions from now on; gives those that nobody has looked at.
    pub(crate) fn close(&self) -> VecDeque<Operation<T>> {
        let mut submitted = lock_std(&self.submitted);
        submitted.closed = true;
        std::mem::take(&mut submitted.operations)
    }

    fn tell(&self, mut submitted: std::sync::MutexGuard<'_, Submitted<T>>) {
        let tell = !std::mem::replace(&mut submitted.told, true);
        drop(submitted);
        // Without a remote the watcher has yet to take the connection in, and looks then.
        if let Some(remote) = self.remote.get().filter(|_| tell) {
            let _ = remote.notify_urgent(0); // refused only if it is closed
        }
    }
}

impl<T: Send + 'static> Conn<T> {
    pub(crate) fn new() -> Conn<T> {
        let submitted =
            Submitted { operations: VecDeque::new(), told: false, free: false, closed: false };
        let shared = ConnShared { submitted: Mutex::new(submitted), remote: OnceLock::new() };
        Conn(Arc::new(Inner { shared: Arc::new(shared) }))
    }

    pub(crate) fn shared(&self) -> Arc<ConnShared<T>> {
        self.0.shared.clone()
    }

    /// A handle for a completion that outlived all others: the connection is closing.
    pub(crate) fn late(shared: Arc<ConnShared<T>>) -> Conn<T> {
        Conn(Arc::new(Inner { shared }))
    }

    /// A handle that does not keep the connection open.
    pub(crate) fn downgrade(&self) -> WeakConn<T> {
        WeakConn(Arc::downgrade(&self.0))
    }

    /// Reads what arrives next: at least one byte, or none at the peer's FIN. `buffer` is
    /// filled up to its length and comes back in the completion; `None` uses the watcher's own
    /// buffer, whose bytes are lent until the next `wait`.
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

    /// Reads until `buffer` is full.
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
        self.write_vectored(context, vec![buffer], Deadline::None)
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
        self.write_vectored(context, vec![buffer], deadline)
    }

    /// Writes several buffers as if they were one, without joining them.
    ///
    /// # Errors
    /// As of [`Conn::read`].
    pub fn write_vectored(
        &self,
        context: T,
        buffers: Vec<Vec<u8>>,
        deadline: Deadline,
    ) -> Result<(), Refused<T>> {
        let len = buffers.iter().map(Vec::len).sum();
        let pieces = buffers.into_iter().map(Bytes::from).collect();
        let deadline = instant(deadline);
        let write = Write { context, pieces, len, deadline, timer: TimerId::NONE };
        self.submit(Operation::Write(write))
    }

    fn submit_read(
        &self,
        context: T,
        into: Destination,
        full: bool,
        deadline: Deadline,
    ) -> Result<(), Refused<T>> {
        let deadline = instant(deadline);
        self.submit(Operation::Read(Read {
            context,
            into,
            full,
            done: 0,
            deadline,
            timer: TimerId::NONE,
        }))
    }

    fn submit(&self, operation: Operation<T>) -> Result<(), Refused<T>> {
        let mut submitted = lock_std(&self.0.shared.submitted);
        if submitted.closed {
            drop(submitted);
            let (context, buffers) = match operation {
                Operation::Read(read) => match read.into {
                    Destination::Owned(buffer) => (read.context, vec![buffer]),
                    Destination::Swap => (read.context, Vec::new()),
                },
                Operation::Write(write) => {
                    (write.context, write.pieces.into_iter().map(Vec::from).collect())
                }
            };
            return Err(Refused { context, buffers });
        }
        submitted.operations.push_back(operation);
        self.0.shared.tell(submitted);
        Ok(())
    }

    /// Closes the connection: what was written is still delivered, operations that are not
    /// complete come back with `ConnectionAborted`, and later submissions are refused. Harmless
    /// when repeated.
    pub fn free(&self) {
        let mut submitted = lock_std(&self.0.shared.submitted);
        if !submitted.closed {
            submitted.free = true;
            self.0.shared.tell(submitted);
        }
    }

    /// Whether submissions are still accepted.
    pub fn is_open(&self) -> bool {
        !lock_std(&self.0.shared.submitted).closed
    }
}

#[expect(clippy::disallowed_methods, reason = "the one clock reading of a submission")]
fn instant(deadline: Deadline) -> Option<Instant> {
    match deadline {
        Deadline::None => None,
        Deadline::At(at) => Some(at),
        after => after.instant(Instant::now()),
    }
}

impl<T: Send + 'static> Drop for Inner<T> {
    fn drop(&mut self) {
        let mut submitted = lock_std(&self.shared.submitted);
        if !submitted.closed {
            submitted.free = true;
            self.shared.tell(submitted);
        }
    }
}

impl<T: Send + 'static> Clone for Conn<T> {
    fn clone(&self) -> Conn<T> {
        Conn(self.0.clone())
    }
}

impl<T: Send + 'static> PartialEq for Conn<T> {
    fn eq(&self, other: &Conn<T>) -> bool {
        Arc::ptr_eq(&self.0.shared, &other.0.shared)
    }
}

impl<T: Send + 'static> Eq for Conn<T> {}

impl<T: Send + 'static> Hash for Conn<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0.shared).hash(state);
    }
}

impl<T: Send + 'static> fmt::Debug for Conn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("open", &self.is_open()).finish_non_exhaustive()
    }
}

/// What the watcher holds of a caller's handle.
pub(crate) struct WeakConn<T: Send + 'static>(std::sync::Weak<Inner<T>>);

impl<T: Send + 'static> WeakConn<T> {
    pub(crate) fn upgrade(&self) -> Option<Conn<T>> {
        self.0.upgrade().map(Conn)
    }
}
