//! Both halves of a connection and the conversation between them.

use super::config::Config;
use super::error::ProtocolError;
use super::extension::DeflateParams;
use super::frame::Role;
use super::receiver::{Decoded, Event, Receiver};
use super::sender::{Sender, State};

/// A WebSocket connection after its handshake.
///
/// Give [`step`](Self::step) the bytes that arrived until it has no more events, and hand back what it left. The pongs
/// and the close frames that the protocol asks for are appended to the sink before the event is handed out. When
/// [`state`](Self::state) is [`State::Done`], flush; then a server closes the socket and a client waits for that.
pub struct Connection {
    receiver: Receiver,
    sender: Sender,
}

const _: () = assert!(size_of::<Connection>() <= 48, "an idle connection has to stay small");

/// What one step took, what came of it, and the half to answer with.
pub struct Step<'a> {
    /// How many bytes at the begin of the data are done with.
    pub used: usize,
    /// The next event; `None`: the rest is to be offered again in front of what arrives next.
    pub event: Option<Event<'a>>,
    /// For answers while the event is borrowed.
    pub sender: &'a mut Sender,
}

impl Connection {
    /// One end of a connection, with what the handshake agreed on.
    pub fn new(role: Role, config: &Config, deflate: Option<&DeflateParams>) -> Self {
        Connection {
            receiver: Receiver::new(role, config, deflate),
            sender: Sender::new(role, config, deflate),
        }
    }

    /// The half that sends.
    pub fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// Which end this is.
    pub(super) fn role(&self) -> Role {
        self.sender.role()
    }

    /// Where the close handshake stands.
    pub fn state(&self) -> State {
        self.sender.state()
    }

    /// Decodes the next event, and answers it as configured. After the peer's close frame, and after an error, all data
    /// is taken and dropped (RFC 6455 section 5.5.1).
    ///
    /// # Errors
    /// The peer broke the protocol. The close frame that says so is in `out` unless one was sent before, and the state
    /// is [`State::Done`].
    #[inline]
    pub fn step<'a>(
        &'a mut self,
        data: &'a mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Step<'a>, ProtocolError> {
        let Connection { receiver, sender } = self;
        if matches!(sender.state(), State::CloseReceived | State::Done) {
            return Ok(Step { used: data.len(), event: None, sender });
        }
        match receiver.decode(data) {
            Ok(Decoded { used, event }) => {
                match &event {
                    None | Some(Event::Text(_) | Event::Binary(_) | Event::Pong(_)) => {}
                    Some(Event::Ping(payload)) => sender.ping_received(payload, out),
                    Some(Event::Close(frame)) => sender.close_received(frame, out),
                }
                Ok(Step { used, event, sender })
            }
            Err(error) => {
                sender.fail(error, out);
                Err(error)
            }
        }
    }
}
