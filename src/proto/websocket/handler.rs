//! The trait that users implement.

use std::any::type_name;
use std::io;

use super::close::CloseCode;
use super::error::ProtocolError;
use super::socket::WebSocket;
use crate::{Close, Ctx, TimerId};

/// What happens on a WebSocket, as callbacks. Every method has a default.
///
/// A handler lives on one reactor's thread, as an [`EvHandler`](crate::EvHandler) does: it needs
/// neither `Send` nor locks, and what it sends through [`WebSocket`] leaves when the callback has
/// returned. A panic resets the connection; the others are not affected.
///
/// ```
/// use reev::Ctx;
/// use reev::websocket::{CloseCode, Closed, Handler, WebSocket};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
///         match text {
///             "bye" => ws.close(CloseCode::NORMAL, ""),
///             text => _ = ws.text(text), // refused only after the close frame
///         }
///     }
///
///     fn on_close(&mut self, _cx: &mut Ctx<'_>, closed: &Closed<'_>) {
///         if !closed.clean {
///             log::info!("ended with {:?}: {}", closed.code, closed.cause);
///         }
///     }
/// }
/// ```
pub trait Handler: 'static {
    /// The handshake is done: called once, before anything else.
    fn on_open(&mut self, ws: &mut WebSocket<'_>) {
        let _ = ws;
    }

    /// A text message. The default refuses it with 1003.
    fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
        let _ = text;
        ws.close(CloseCode::UNSUPPORTED, "no text is taken here");
    }

    /// A binary message. The default refuses it with 1003.
    fn on_binary(&mut self, ws: &mut WebSocket<'_>, data: &[u8]) {
        let _ = data;
        ws.close(CloseCode::UNSUPPORTED, "no binary is taken here");
    }

    /// A ping, which is answered already unless `Config::answer_pings` is off.
    fn on_ping(&mut self, ws: &mut WebSocket<'_>, payload: &[u8]) {
        let _ = (ws, payload);
    }

    /// A pong, of a ping of the handler's own or of the keep-alive, whose payload is empty.
    fn on_pong(&mut self, ws: &mut WebSocket<'_>, payload: &[u8]) {
        let _ = (ws, payload);
    }

    /// The peer's close frame, which is answered already unless `Config::answer_close` is off;
    /// `code` is 1005 if it had none. `on_close` follows.
    fn on_close_frame(&mut self, ws: &mut WebSocket<'_>, code: CloseCode, reason: &str) {
        let _ = (ws, code, reason);
    }

    /// Output was above its high mark and is below the low one again: time to send more.
    fn on_drain(&mut self, ws: &mut WebSocket<'_>) {
        let _ = ws;
    }

    /// A timer of the handler's own; see [`WebSocket::set_timer`].
    fn on_timeout(&mut self, ws: &mut WebSocket<'_>, timer: TimerId) {
        let _ = (ws, timer);
    }

    /// A [`Remote`](crate::Remote) sent `value`; `u64::MAX` is taken by the layer.
    fn on_notify(&mut self, ws: &mut WebSocket<'_>, value: u64) {
        let _ = (ws, value);
    }

    /// The server shuts down gracefully. The default starts the close handshake with 1001.
    fn on_shutdown(&mut self, ws: &mut WebSocket<'_>) {
        ws.close(CloseCode::GOING_AWAY, "");
    }

    /// A client's connection or its handshake failed: called instead of `on_open`, and the last
    /// call.
    fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, error: io::Error) {
        let _ = (cx, error);
    }

    /// The end: called exactly once for each `on_open`, as the last call.
    fn on_close(&mut self, cx: &mut Ctx<'_>, closed: &Closed<'_>) {
        let _ = (cx, closed);
    }

    /// The handler's name in logs; by default its type's.
    fn name(&self) -> &'static str {
        type_name::<Self>()
    }
}

/// How a WebSocket ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Closed<'a> {
    /// The code of the close frame that came first, of the peer or of this side: 1005 for one
    /// without a code, 1006 if there was none.
    pub code: CloseCode,
    /// The peer's reason, if it gave one.
    pub reason: &'a str,
    /// Whether both sides have sent a close frame (RFC 6455 section 7.1.4).
    pub clean: bool,
    /// How the peer broke the protocol, if it did.
    pub error: Option<ProtocolError>,
    /// The end of the connection under the WebSocket.
    pub cause: &'a Close,
}
