//! A WebSocket as other threads reach it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::close::CloseCode;
use super::error::SendError;
use super::prepared::Prepared;

/// The value with which a remote rings at its connection.
pub(super) const RING: u64 = u64::MAX;

/// What other threads ask for.
#[derive(Debug)]
pub(super) enum Command {
    Text(String),
    Binary(Bytes),
    Prepared(Prepared),
    Close(CloseCode, String),
}

impl Command {
    /// What it counts in a queue: its bytes, and its own size.
    fn weight(&self) -> usize {
        let bytes = match self {
            Command::Text(text) => text.len(),
            Command::Binary(data) => data.len(),
            Command::Prepared(message) => message.plain().len(),
            Command::Close(_, reason) => reason.len(),
        };
        bytes + size_of::<Command>()
    }
}

/// A WebSocket for any thread: `Send`, `Sync` and cheap to clone; made by
/// [`WebSocket::remote`](super::WebSocket::remote).
///
/// What one thread sends arrives in its order. Messages wait in a queue of their own, bounded by
/// [`Options::remote_bytes_max`](super::Options::remote_bytes_max), while the peer reads slowly.
/// A `Remote` that outlives its WebSocket is harmless.
///
/// ```
/// use reev::websocket::{Handler, WebSocket};
///
/// /// Works out the answer elsewhere.
/// struct Slow;
///
/// impl Handler for Slow {
///     fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
///         let (remote, question) = (ws.remote(), text.to_owned());
///         std::thread::spawn(move || {
///             let _ = remote.text(question.to_uppercase()); // the client may have gone
///         });
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Remote {
    remote: crate::Remote,
    queue: Arc<Queue>,
}

impl Remote {
    pub(super) fn new(remote: crate::Remote, queue: Arc<Queue>) -> Remote {
        Remote { remote, queue }
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// [`SendError::Closed`] if the connection is gone, [`SendError::Full`] if too much waits.
    /// `Ok` means accepted: what stands behind a close frame is dropped.
    pub fn text(&self, text: impl Into<String>) -> Result<(), SendError> {
        self.send(Command::Text(text.into()))
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// As of [`Remote::text`].
    pub fn binary(&self, data: impl Into<Bytes>) -> Result<(), SendError> {
        self.send(Command::Binary(data.into()))
    }

    /// Sends what was encoded before. A client's WebSocket drops it: its frames are masked.
    ///
    /// # Errors
    /// As of [`Remote::text`].
    pub fn prepared(&self, message: &Prepared) -> Result<(), SendError> {
        self.send(Command::Prepared(message.clone()))
    }

    /// Starts the close handshake behind what was sent before.
    ///
    /// # Errors
    /// As of [`Remote::text`]; [`SendError::CloseCode`] for one that may not be on the wire.
    pub fn close(&self, code: CloseCode, reason: impl Into<String>) -> Result<(), SendError> {
        if !code.is_on_wire() {
            return Err(SendError::CloseCode(code.0));
        }
        self.send(Command::Close(code, reason.into()))
    }

    /// Calls the handler's `on_notify` with `value`, which is not `u64::MAX`.
    ///
    /// # Errors
    /// As of [`Remote::text`].
    pub fn notify(&self, value: u64) -> Result<(), SendError> {
        self.remote.notify(value).map_err(|error| match error {
            crate::SendError::Full => SendError::Full,
            _ => SendError::Closed,
        })
    }

    /// Whether the connection was still there a moment ago.
    pub fn is_open(&self) -> bool {
        self.remote.is_open()
    }

    fn send(&self, command: Command) -> Result<(), SendError> {
        if !self.remote.is_open() {
            return Err(SendError::Closed);
        }
        if self.queue.push(command)? {
            self.remote.notify_urgent(RING).map_err(|_| SendError::Closed)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// What waits for the reactor's thread.
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    max: usize,
}

#[derive(Default)]
struct Waiting {
    commands: VecDeque<Command>,
    weight: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(max: usize) -> Arc<Queue> {
        Arc::new(Queue { waiting: Mutex::default(), max })
    }

    /// True if nothing waited before, so that the reactor is to be told.
    fn push(&self, command: Command) -> Result<bool, SendError> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(SendError::Closed);
        }
        let weight = waiting.weight + command.weight();
        if weight > self.max {
            return Err(SendError::Full);
        }
        waiting.weight = weight;
        waiting.commands.push_back(command);
        Ok(waiting.commands.len() == 1)
    }

    pub(super) fn pop(&self) -> Option<Command> {
        let mut waiting = self.lock();
        let command = waiting.commands.pop_front()?;
        waiting.weight -= command.weight();
        Some(command)
    }

    /// The connection has ended: what waits is given back, and nothing is taken any more.
    pub(super) fn close(&self) {
        *self.lock() = Waiting { closed: true, ..Waiting::default() };
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code of others runs under the lock, so a poisoned one is still whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
