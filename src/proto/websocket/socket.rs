//! A WebSocket as a callback sees it.

use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::close::CloseCode;
use super::config::{CONTROL_LEN_MAX, HEADER_LEN_MAX};
use super::error::SendError;
use super::frame::Kind;
use super::options::SlowConsumer;
use super::prepared::Prepared;
use super::rare::Rare;
use super::remote::{Queue, Remote};
use super::sender::{Compress, Sender, State};
use super::shared::{Peer, Shared};
use crate::{Close, ConnId, Ctx, TimerId};

/// What the longest control frame takes.
pub(super) const CONTROL_ROOM: usize = HEADER_LEN_MAX + CONTROL_LEN_MAX;

/// A WebSocket and its connection inside a callback.
///
/// Nothing here blocks: what is sent goes to the reactor's output, and leaves when the callback
/// has returned. An error says that nothing was written.
///
/// ```
/// use std::time::Duration;
/// use reev::TimerId;
/// use reev::websocket::{Handler, WebSocket};
///
/// /// Ticks every second, unless the peer is behind.
/// struct Clock;
///
/// impl Handler for Clock {
///     fn on_open(&mut self, ws: &mut WebSocket<'_>) {
///         ws.ctx().set_periodic(Duration::from_secs(1));
///     }
///
///     fn on_timeout(&mut self, ws: &mut WebSocket<'_>, _timer: TimerId) {
///         if ws.pending_output() < 64 << 10 {
///             let _ = ws.text("tick");
///         }
///     }
/// }
/// ```
pub struct WebSocket<'a> {
    pub(super) cx: Ctx<'a>,
    pub(super) sender: &'a mut Sender,
    pub(super) shared: &'a Rc<Shared>,
    pub(super) rare: &'a mut Option<Box<Rare>>,
    /// The subprotocol's place in the options, from 1; 0 is none.
    pub(super) protocol: u8,
}

impl WebSocket<'_> {
    /// Sends a text message.
    ///
    /// # Errors
    /// [`SendError::Closed`] after the close frame or the end of the connection,
    /// [`SendError::SlowConsumer`] by the policy.
    #[inline]
    pub fn text(&mut self, text: &str) -> Result<(), SendError> {
        self.message(Kind::Text, text.as_bytes(), Compress::Auto)
    }

    /// Sends a binary message. One of at least `Config::direct_write_min` bytes goes to the
    /// system at once and without a copy, if it is neither masked nor compressed.
    ///
    /// # Errors
    /// As of [`WebSocket::text`].
    #[inline]
    pub fn binary(&mut self, data: &[u8]) -> Result<(), SendError> {
        self.message(Kind::Binary, data, Compress::Auto)
    }

    /// Sends a message, with a word on its compression. That one of [`Kind::Text`] is UTF-8 is
    /// the caller's affair: the peer checks it.
    ///
    /// # Errors
    /// As of [`WebSocket::text`].
    #[inline]
    pub fn message(
        &mut self,
        kind: Kind,
        payload: &[u8],
        compress: Compress,
    ) -> Result<(), SendError> {
        if self.sender.is_uncut(payload.len())
            && payload.len() < self.cx.core.config.direct_write_min
        {
            let room = payload.len() + HEADER_LEN_MAX;
            if let Some(scratch) = self.cx.core.scratch_room(self.cx.id, room) {
                return self.sender.message(kind, payload, compress, scratch);
            }
        }
        self.message_examined(kind, payload, compress)
    }

    /// A message that is large, compressed or in fragments, or one near a mark.
    fn message_examined(
        &mut self,
        kind: Kind,
        payload: &[u8],
        compress: Compress,
    ) -> Result<(), SendError> {
        let plain = self.sender.plain_header(kind, payload.len())?;
        self.shared.check_accepts(&self.cx)?;
        self.shared.check_pace(&mut self.cx)?;
        match plain {
            Some(header) if self.sender.is_uncut(payload.len()) => {
                self.cx.write(&header);
                self.cx.write(payload);
            }
            _ => {
                let mut out = Vec::new();
                self.sender.message(kind, payload, compress, &mut out)?;
                self.cx.write_owned(out);
            }
        }
        self.shared.note_marks(&self.cx);
        Ok(())
    }

    /// Sends a message that was encoded before, by reference where it is long.
    ///
    /// # Errors
    /// As of [`WebSocket::text`]; [`SendError::ClientRole`] on a client.
    pub fn prepared(&mut self, message: &Prepared) -> Result<(), SendError> {
        self.shared.check_accepts(&self.cx)?;
        self.shared.check_pace(&mut self.cx)?;
        let bytes = self.sender.prepared(message)?;
        self.cx.write_owned(bytes.clone());
        self.shared.note_marks(&self.cx);
        Ok(())
    }

    /// Sends a ping of at most 125 bytes.
    ///
    /// # Errors
    /// A longer payload; [`SendError::Closed`] after the close frame.
    pub fn ping(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.control(|sender, out| sender.ping(payload, out))
    }

    /// Sends a pong of at most 125 bytes.
    ///
    /// # Errors
    /// As of [`WebSocket::ping`].
    pub fn pong(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.control(|sender, out| sender.pong(payload, out))
    }

    /// Starts the close handshake, or answers the peer's start; nothing can be sent after it. A
    /// reason above 123 bytes is cut at a character. A peer that does not answer within
    /// `KeepAlivePolicy::close_within` is cut. Harmless when repeated; a code that may not be on
    /// the wire is sent as 1011, and logged.
    pub fn close(&mut self, code: CloseCode, reason: &str) {
        let mut code = code;
        if !code.is_on_wire() {
            log::error!("close code {} may not be on the wire", code.0);
            code = CloseCode::INTERNAL;
        }
        if self.control(|sender, out| sender.close(code, reason, out)).is_ok() {
            self.shared.closing(self.cx.id);
        }
    }

    fn control(
        &mut self,
        encode: impl FnOnce(&mut Sender, &mut Vec<u8>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        match self.cx.core.scratch_room(self.cx.id, CONTROL_ROOM) {
            Some(scratch) => encode(self.sender, scratch),
            None => {
                self.shared.check_accepts(&self.cx)?;
                let mut out = Vec::new();
                encode(self.sender, &mut out)?;
                self.cx.write(&out);
                self.shared.note_marks(&self.cx);
                Ok(())
            }
        }
    }

    /// Whether messages can be sent.
    pub fn is_open(&self) -> bool {
        matches!(self.sender.state(), State::Open | State::CloseReceived)
            && self.shared.check_accepts(&self.cx).is_ok()
    }

    /// The subprotocol that the handshake chose.
    pub fn protocol(&self) -> Option<&str> {
        let place = usize::from(self.protocol).checked_sub(1)?;
        self.shared.options.protocols.get(place).map(String::as_str)
    }

    /// Whether permessage-deflate was agreed on.
    pub fn is_deflated(&self) -> bool {
        self.sender.is_deflated()
    }

    /// Bytes sent and not yet taken by the system.
    pub fn pending_output(&self) -> usize {
        self.cx.pending_output()
    }

    /// The connection's name.
    pub fn id(&self) -> ConnId {
        self.cx.id()
    }

    /// The time of this turn.
    pub fn now(&self) -> Instant {
        self.cx.now()
    }

    /// Calls `on_timeout` once; see [`Ctx::set_timer`].
    pub fn set_timer(&mut self, after: Duration) -> TimerId {
        self.cx.set_timer(after)
    }

    /// This WebSocket, for the other handlers of its reactor: to send them what is prepared.
    pub fn peer(&self) -> Peer {
        let (role, free_window) = (self.sender.role(), self.sender.free_window());
        Peer::new(self.shared.clone(), self.cx.id, role, free_window)
    }

    /// This WebSocket, for any thread.
    pub fn remote(&mut self) -> Remote {
        let max = self.shared.options.remote_bytes_max;
        let rare = self.rare.get_or_insert_default();
        let queue = rare.remote.get_or_insert_with(|| Queue::new(max)).clone();
        Remote::new(self.cx.remote(), queue)
    }

    /// The connection itself, for its timers, its addresses and its reactor. What is written to
    /// it stands between the frames, so nothing should be; `close` and `abort` end it without the
    /// close handshake.
    pub fn ctx(&mut self) -> Ctx<'_> {
        Ctx { core: self.cx.core, net: self.cx.net, id: self.cx.id }
    }
}

impl Shared {
    /// Whether what is sent to `cx` goes anywhere: not after `Ctx::close` and `Ctx::abort`, nor in `on_close`.
    pub(super) fn check_accepts(&self, cx: &Ctx<'_>) -> Result<(), SendError> {
        if cx.core.accepts_output(cx.id) { Ok(()) } else { Err(SendError::Closed) }
    }

    /// Applies the policy for slow consumers to a message for `cx`.
    pub(super) fn check_pace(&self, cx: &mut Ctx<'_>) -> Result<(), SendError> {
        let policy = self.options.slow_consumer;
        if policy == SlowConsumer::Wait || cx.pending_output() <= cx.core.config.output_high {
            return Ok(());
        }
        if policy == SlowConsumer::Close {
            cx.core.doom(cx.id, Close::SlowConsumer);
        }
        Err(SendError::SlowConsumer)
    }
}

impl fmt::Debug for WebSocket<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("id", &self.id()).finish_non_exhaustive()
    }
}
