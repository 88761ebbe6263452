//! Reaching a connection from any thread.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::handler::ConnId;
use crate::mail::{Mail, ReactorShared};
use crate::mailbox::SendError;
use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// A connection as other threads reach it: `Send`, `Sync` and cheap to clone.
///
/// Each call says whether the reactor's mailbox accepted the message. A `Remote` that outlives
/// its connection is harmless: its calls return [`SendError::Closed`], and a message that was
/// under way when the connection ended reaches nobody, least of all the next connection in the
/// same slot.
///
/// Calls of one thread take effect in their order. Between threads, and against what the
/// handler itself writes, the order is that of arrival at the reactor.
///
/// ```
/// # use reev::{Ctx, EvHandler};
/// use std::sync::mpsc::Sender;
/// use reev::Remote;
///
/// /// Registers each connection with another thread, which writes to it when it likes.
/// struct Subscriber {
///     to: Sender<Remote>,
/// }
///
/// impl EvHandler for Subscriber {
///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> std::io::Result<()> {
///         let _ = self.to.send(cx.remote()); // nobody may be publishing any more
///         Ok(())
///     }
/// }
///
/// /// In the other thread: those that are gone are forgotten, those that are behind are left out.
/// fn publish(to: &mut Vec<Remote>, news: &reev::Bytes) {
///     to.retain(Remote::is_open);
///     for remote in to.iter().filter(|remote| remote.pending_output() < 1 << 20) {
///         let _ = remote.write(news.clone());
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Remote {
    pub(crate) state: Arc<RemoteState>,
}

pub(crate) struct RemoteState {
    pub(crate) id: ConnId,
    pub(crate) shared: Arc<ReactorShared>,
    /// False from the connection's end on.
    pub(crate) open: AtomicBool,
    /// The order to close was sent, and the order to abort: both once, for they pass the
    /// mailbox's bounds.
    closing: AtomicBool,
    aborting: AtomicBool,
    /// Bytes in the mailbox, not yet at the connection.
    pub(crate) mailed: AtomicUsize,
    /// Bytes queued at the connection, as of its last settling.
    pub(crate) queued: AtomicUsize,
}

impl RemoteState {
    pub(crate) fn new(id: ConnId, shared: Arc<ReactorShared>, open: bool) -> RemoteState {
        RemoteState {
            id,
            shared,
            open: AtomicBool::new(open),
            closing: AtomicBool::new(false),
            aborting: AtomicBool::new(false),
            mailed: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
        }
    }
}

impl Remote {
    /// The connection's name on its reactor.
    pub fn id(&self) -> ConnId {
        self.state.id
    }

    /// The index of the connection's reactor, from 0.
    pub fn reactor_index(&self) -> usize {
        self.state.shared.index
    }

    /// Sends `bytes` to the peer, after all that this thread sent before. The buffer is shared,
    /// not copied, unless it is small and others wait before it.
    ///
    /// # Errors
    /// [`SendError::Full`] if the mailbox holds `Config::mailbox_max` messages or
    /// `Config::mailbox_bytes_max` bytes, [`SendError::Closed`] if the connection is gone.
    /// `Ok` means accepted by the reactor, not received by the peer.
    pub fn write(&self, bytes: impl Into<Bytes>) -> Result<(), SendError> {
        let bytes = bytes.into();
        let len = bytes.len();
        self.state.mailed.fetch_add(len, Ordering::Relaxed);
        let sent = self.send(Mail::Write(self.state.clone(), bytes));
        if sent.is_err() {
            self.state.mailed.fetch_sub(len, Ordering::Relaxed);
        }
        sent
    }

    /// Calls the handler's `on_notify` with `value`.
    ///
    /// # Errors
    /// As of [`Remote::write`].
    ///
    /// ```
    /// # use reev::{Ctx, EvHandler};
    /// use std::sync::mpsc::{Receiver, channel};
    ///
    /// /// Is told that something waits in a queue of its own.
    /// struct Worker(Receiver<String>);
    ///
    /// impl EvHandler for Worker {
    ///     fn on_notify(&mut self, cx: &mut Ctx<'_>, _value: u64) -> std::io::Result<()> {
    ///         for line in self.0.try_iter() {
    ///             cx.write(line.as_bytes());
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// # let mut sim = reev::sim::Simulation::new(1);
    /// # let (queue, waiting) = channel();
    /// # let worker = sim.reactor().add(Worker(waiting));
    /// # let remote = sim.reactor().conn(worker).expect("it was just added").remote();
    /// queue.send("news\n".to_owned())?;
    /// remote.notify(0)?;
    /// # sim.settle();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn notify(&self, value: u64) -> Result<(), SendError> {
        self.send(Mail::Notify(self.state.id, value))
    }

    /// [`Remote::notify`] that even a full mailbox accepts; for what is bounded otherwise.
    #[cfg(any(feature = "http1", feature = "proactor"))]
    pub(crate) fn notify_urgent(&self, value: u64) -> Result<(), SendError> {
        self.send_urgent(Mail::Notify(self.state.id, value))
    }

    /// Closes the connection when all that was written before is flushed, like `Ctx::close`.
    /// Accepted even by a full mailbox.
    ///
    /// # Errors
    /// [`SendError::Closed`] if the connection is gone.
    pub fn close(&self) -> Result<(), SendError> {
        self.send_once(&self.state.closing, Mail::Close(self.state.id))
    }

    /// Resets the connection, like `Ctx::abort`. Accepted even by a full mailbox.
    ///
    /// # Errors
    /// [`SendError::Closed`] if the connection is gone.
    pub fn abort(&self) -> Result<(), SendError> {
        self.send_once(&self.state.aborting, Mail::Abort(self.state.id))
    }

    /// Bytes written and not yet taken by the system: those on the way to the reactor, and
    /// those that wait for the peer. 0 when the connection is gone.
    pub fn pending_output(&self) -> usize {
        if !self.is_open() {
            return 0;
        }
        let mailed = self.state.mailed.load(Ordering::Relaxed);
        mailed + self.state.queued.load(Ordering::Relaxed)
    }

    /// Whether the connection was still there a moment ago.
    pub fn is_open(&self) -> bool {
        self.state.open.load(Ordering::Acquire)
    }

    fn send(&self, mail: Mail) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::Closed);
        }
        self.state.shared.mailbox.send(mail)
    }

    fn send_once(&self, sent: &AtomicBool, mail: Mail) -> Result<(), SendError> {
        if self.is_open() && sent.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.send_urgent(mail)
    }

    fn send_urgent(&self, mail: Mail) -> Result<(), SendError> {
        if !self.is_open() {
            return Err(SendError::Closed);
        }
        self.state.shared.mailbox.send_urgent(mail)
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("reactor", &self.reactor_index())
            .field("id", &self.id())
            .field("open", &self.is_open())
            .finish()
    }
}
