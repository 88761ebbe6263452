//! The sending half: messages in, frames out, and the state of the close handshake.

use super::close::{self, CloseCode, CloseFrame};
use super::config::{CLOSE_REASON_LEN_MAX, CONTROL_LEN_MAX, Config, HEADER_LEN_MAX};
use super::deflate::Deflater;
use super::error::{ProtocolError, SendError};
use super::extension::{DeflateConfig, DeflateParams};
use super::frame::{
    CLOSE, CONTINUATION, FIN, Header, HeaderBytes, Kind, PING, PONG, RSV1, Role, put_plain,
};
use super::mask::{self, Masks};
use super::prepared::Prepared;
use bytes::Bytes;

/// How far the close handshake has come (RFC 6455 section 7.1). The list is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Neither side has sent a close frame.
    Open,
    /// This side has; messages may still arrive until the peer's close frame does.
    CloseSent,
    /// The peer has; messages may still be sent until this side's close frame is.
    CloseReceived,
    /// Both have, or this side failed the connection. The server closes the socket once its output is flushed; the
    /// client waits for that, with a time limit (RFC 6455 section 7.1.1).
    Done,
}

/// Whether one message is compressed. Without permessage-deflate none is. The list is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compress {
    /// From the configured threshold on.
    #[default]
    Auto,
    /// Whatever its length. An empty message has nothing to compress, and is not.
    Always,
    /// Not, for what is compressed already or secret (RFC 7692 section 8).
    Never,
}

/// The encoder of one connection. Frames are appended to a sink, a `Vec<u8>`; what that costs in allocations is the
/// sink's affair.
///
/// ```
/// use reev::websocket::{CloseCode, Config, Role, Sender, State};
///
/// let (mut sender, mut out) = (Sender::new(Role::Server, &Config::default(), None), Vec::new());
/// sender.text("Hello", &mut out)?;
/// sender.close(CloseCode::NORMAL, "", &mut out)?;
/// assert_eq!(out, b"\x81\x05Hello\x88\x02\x03\xe8");
/// assert_eq!(sender.state(), State::CloseSent);
/// assert!(sender.text("too late", &mut out).is_err());
/// # Ok::<(), reev::websocket::SendError>(())
/// ```
pub struct Sender {
    /// `None`: payloads leave as they are, as those of most servers do.
    coding: Option<Box<Coding>>,
    /// [`UNCUT`]: messages are not cut.
    fragment_size: u32,
    /// 1006 while there was no close frame.
    close_code: CloseCode,
    state: State,
    /// What is answered without the user: a set of the two below.
    answers: u8,
}

const ANSWER_PINGS: u8 = 1;
const ANSWER_CLOSE: u8 = 2;

const _: () = assert!(size_of::<Sender>() <= 16, "an idle connection has to stay small");

/// What is done to payloads.
struct Coding {
    /// A client's.
    masks: Option<Masks>,
    deflater: Option<Deflater>,
}

/// A fragment size that no message reaches.
const UNCUT: u32 = u32::MAX;

impl Sender {
    /// An encoder for one end of a connection, with what the handshake agreed on. A client's masks are the system's.
    pub fn new(role: Role, config: &Config, deflate: Option<&DeflateParams>) -> Self {
        let DeflateConfig { level, threshold, .. } = config.deflate.unwrap_or_default();
        let own = deflate.map(|agreed| match role {
            Role::Server => (agreed.server_max_window_bits, !agreed.server_no_context_takeover),
            Role::Client => (agreed.client_max_window_bits, !agreed.client_no_context_takeover),
        });
        let deflater = own.map(|(bits, takeover)| Deflater::new(level, bits, takeover, threshold));
        let masks = (role == Role::Client).then(Masks::system);
        let is_coded = masks.is_some() || deflater.is_some();
        let fragment_size = config.fragment_size.map(|size| u32::try_from(size.max(1)));
        Sender {
            coding: is_coded.then(|| Box::new(Coding { masks, deflater })),
            fragment_size: fragment_size.and_then(Result::ok).unwrap_or(UNCUT),
            close_code: CloseCode::ABNORMAL,
            state: State::Open,
            answers: (u8::from(config.answer_pings) * ANSWER_PINGS)
                | (u8::from(config.answer_close) * ANSWER_CLOSE),
        }
    }

    /// Replaces a client's masks, for a simulation that must repeat. A server has none to replace.
    pub fn set_masks(&mut self, masks: Masks) {
        if let Some(own) = self.masks_mut() {
            *own = masks;
        }
    }

    /// Which end this is.
    pub(super) fn role(&self) -> Role {
        if self.is_masking() { Role::Client } else { Role::Server }
    }

    fn is_masking(&self) -> bool {
        self.coding.as_ref().is_some_and(|coding| coding.masks.is_some())
    }

    fn masks_mut(&mut self) -> Option<&mut Masks> {
        self.coding.as_mut()?.masks.as_mut()
    }

    fn deflater(&self) -> Option<&Deflater> {
        self.coding.as_ref()?.deflater.as_ref()
    }

    fn deflater_mut(&mut self) -> Option<&mut Deflater> {
        self.coding.as_mut()?.deflater.as_mut()
    }

    #[inline]
    fn is_one_frame(&self, len: usize) -> bool {
        len <= self.fragment_size as usize || self.fragment_size == UNCUT
    }

    /// Whether a message of `len` bytes leaves in one frame and uncompressed.
    #[inline]
    pub(super) fn is_uncut(&self, len: usize) -> bool {
        self.deflater().is_none() && self.is_one_frame(len)
    }

    /// Whether permessage-deflate was agreed on.
    pub(super) fn is_deflated(&self) -> bool {
        self.deflater().is_some()
    }

    /// The window, in bytes, of a connection whose compressed messages have no history: one that others compressed
    /// may stand between them without the sender's knowledge. 0 for all other connections.
    pub(super) fn free_window(&self) -> usize {
        let deflater = self.deflater().filter(|deflater| !deflater.has_takeover());
        deflater.map_or(0, |deflater| deflater.reach())
    }

    /// Where the close handshake stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The code of the close frame that came first, the peer's or this side's, with 1005 for one without a code; `None`
    /// while there was none: a connection that ends so ended with 1006.
    pub fn close_code(&self) -> Option<CloseCode> {
        (self.close_code != CloseCode::ABNORMAL).then_some(self.close_code)
    }

    fn note_close_code(&mut self, code: Option<CloseCode>) {
        if self.close_code == CloseCode::ABNORMAL {
            self.close_code = code.unwrap_or(CloseCode::NO_STATUS);
        }
    }

    /// Sends a text message, compressed from the threshold on.
    ///
    /// # Errors
    /// [`SendError::Closed`] after the close frame.
    #[inline]
    pub fn text(&mut self, text: &str, out: &mut Vec<u8>) -> Result<(), SendError> {
        self.message(Kind::Text, text.as_bytes(), Compress::Auto, out)
    }

    /// Sends a binary message, compressed from the threshold on.
    ///
    /// # Errors
    /// [`SendError::Closed`] after the close frame.
    #[inline]
    pub fn binary(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), SendError> {
        self.message(Kind::Binary, bytes, Compress::Auto, out)
    }

    /// Sends a message. That one of [`Kind::Text`] is UTF-8 is the caller's affair: the peer checks it.
    ///
    /// # Errors
    /// [`SendError::Closed`] after the close frame.
    #[inline]
    pub fn message(
        &mut self,
        kind: Kind,
        payload: &[u8],
        compress: Compress,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.check_open()?;
        if self.coding.is_none() && self.is_one_frame(payload.len()) {
            put_plain(FIN | kind.opcode(), payload, out);
        } else {
            self.message_any(kind, payload, compress, out);
        }
        Ok(())
    }

    /// The header of a message that is sent as it is, for a caller who sends the payload right after it without a copy.
    /// `None`: the connection masks, and so it must copy.
    ///
    /// # Errors
    /// [`SendError::Closed`] after the close frame.
    pub fn plain_header(&self, kind: Kind, len: usize) -> Result<Option<HeaderBytes>, SendError> {
        self.check_open()?;
        let header = Header { first: FIN | kind.opcode(), len: len as u64, mask: None };
        Ok((!self.is_masking()).then(|| header.encode()))
    }

    /// The bytes of a prepared message for this connection, compressed where the connection allows. They must be sent
    /// next, before anything else of this sender.
    ///
    /// # Errors
    /// [`SendError::ClientRole`] on a client, [`SendError::Closed`] after the close frame.
    pub fn prepared<'p>(&mut self, message: &'p Prepared) -> Result<&'p Bytes, SendError> {
        self.check_open()?;
        if self.is_masking() {
            return Err(SendError::ClientRole);
        }
        if let Some(deflater) = self.deflater_mut()
            && let Some(frame) = message.compressed(deflater.reach())
        {
            // The peer's window takes the message in, this side's does not: they no longer agree on the past.
            deflater.forget();
            return Ok(frame);
        }
        Ok(message.plain())
    }

    /// Sends a ping with at most 125 bytes.
    ///
    /// # Errors
    /// A longer payload; [`SendError::Closed`] after the close frame.
    pub fn ping(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), SendError> {
        self.control(PING, payload, out)
    }

    /// Sends a pong with at most 125 bytes: the answer to a ping, or unasked (RFC 6455 section 5.5.3).
    ///
    /// # Errors
    /// A longer payload; [`SendError::Closed`] after the close frame.
    pub fn pong(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), SendError> {
        self.control(PONG, payload, out)
    }

    /// Starts the close handshake, or answers the peer's start. A reason above 123 bytes is cut at a character.
    ///
    /// # Errors
    /// A code that may not be on the wire; [`SendError::Closed`] if the close frame was sent already.
    pub fn close(
        &mut self,
        code: CloseCode,
        reason: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.check_open()?;
        if !code.is_on_wire() {
            return Err(SendError::CloseCode(code.0));
        }
        let mut buf = [0; 2 + CLOSE_REASON_LEN_MAX];
        let len = close::body(code, reason, &mut buf);
        self.close_body(Some(code), &buf[..len], out);
        Ok(())
    }

    /// Fails the connection: sends the error's close code if that can still be done, and ends in [`State::Done`].
    pub fn fail(&mut self, error: ProtocolError, out: &mut Vec<u8>) {
        if self.check_open().is_ok() {
            let mut buf = [0; 2 + CLOSE_REASON_LEN_MAX];
            let len = close::body(error.close_code(), error.reason(), &mut buf);
            self.close_body(Some(error.close_code()), &buf[..len], out);
        }
        self.state = State::Done;
    }

    /// Answers the peer's ping, if that is not the user's affair. After the close frame the peer needs no pong.
    pub(super) fn ping_received(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if self.answers & ANSWER_PINGS != 0 {
            _ = self.pong(payload, out);
        }
    }

    /// Takes note of the peer's close frame, and answers it with the same code, if that is not the user's affair and
    /// not yet done.
    pub(super) fn close_received(&mut self, frame: &CloseFrame<'_>, out: &mut Vec<u8>) {
        self.note_close_code(frame.code);
        self.state = match self.state {
            State::Open => State::CloseReceived,
            State::CloseReceived => State::CloseReceived,
            State::CloseSent | State::Done => State::Done,
        };
        if self.answers & ANSWER_CLOSE != 0 && self.state == State::CloseReceived {
            let body = frame.code.map(|code| code.0.to_be_bytes());
            self.close_body(frame.code, body.as_ref().map_or(&[], |code| &code[..]), out);
        }
    }

    fn close_body(&mut self, code: Option<CloseCode>, body: &[u8], out: &mut Vec<u8>) {
        self.frame(FIN | CLOSE, body, out);
        self.note_close_code(code);
        self.state = if self.state == State::Open { State::CloseSent } else { State::Done };
    }

    #[inline]
    fn check_open(&self) -> Result<(), SendError> {
        match self.state {
            State::Open | State::CloseReceived => Ok(()),
            State::CloseSent | State::Done => Err(SendError::Closed),
        }
    }

    fn control(&mut self, opcode: u8, payload: &[u8], out: &mut Vec<u8>) -> Result<(), SendError> {
        self.check_open()?;
        if payload.len() > CONTROL_LEN_MAX {
            return Err(SendError::ControlTooLong);
        }
        self.frame(FIN | opcode, payload, out);
        Ok(())
    }

    fn message_any(&mut self, kind: Kind, payload: &[u8], compress: Compress, out: &mut Vec<u8>) {
        if let Some(deflater) = self.deflater_mut() {
            let wanted = match compress {
                Compress::Auto => payload.len() >= deflater.threshold(),
                Compress::Always => true,
                Compress::Never => false,
            };
            if wanted && !payload.is_empty() {
                let mut compressed = Vec::new();
                deflater.compress(payload, &mut compressed);
                if deflater.has_takeover() || compressed.len() < payload.len() {
                    return self.frames(kind.opcode() | RSV1, &compressed, out);
                }
            }
        }
        self.frames(kind.opcode(), payload, out);
    }

    /// One frame, or as many as the fragment size asks for.
    fn frames(&mut self, first: u8, payload: &[u8], out: &mut Vec<u8>) {
        let mut first = first;
        let mut rest = payload;
        while !self.is_one_frame(rest.len()) {
            let (piece, after) = rest.split_at(self.fragment_size as usize);
            self.frame(first, piece, out);
            first = CONTINUATION;
            rest = after;
        }
        self.frame(first | FIN, rest, out);
    }

    fn frame(&mut self, first: u8, payload: &[u8], out: &mut Vec<u8>) {
        let Some(masks) = self.masks_mut() else { return put_plain(first, payload, out) };
        let key = masks.next_key();
        out.reserve(payload.len() + HEADER_LEN_MAX);
        out.extend_from_slice(
            &Header { first, len: payload.len() as u64, mask: Some(key) }.encode(),
        );
        let begin = out.len();
        out.extend_from_slice(payload);
        mask::apply(&mut out[begin..], key);
    }
}
