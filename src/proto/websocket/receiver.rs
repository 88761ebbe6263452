//! The receiving half: bytes in, messages out.

use super::assembly::{Assembly, Limits};
use super::close::CloseFrame;
use super::config::Config;
use super::deflate::Inflater;
use super::error::ProtocolError;
use super::extension::DeflateParams;
use super::frame::{
    self, BINARY, CLOSE, CONTINUATION, FIN, Header, Kind, MASK, PING, PONG, RSV1, Role, TEXT,
};
use super::mask;

/// What has arrived. It borrows from the data given, or from the receiver. The list is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A ping, with its payload.
    Ping(&'a [u8]),
    /// A pong, with its payload.
    Pong(&'a [u8]),
    /// The peer's close frame.
    Close(CloseFrame<'a>),
}

/// What one call took, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// How many bytes at the begin of the data are done with.
    pub used: usize,
    /// The next event; `None`: the rest of the data, at most a partial header or control frame, is to be offered again
    /// in front of what arrives next.
    pub event: Option<Event<'a>>,
}

/// The decoder of one connection. It checks all that RFC 6455 and RFC 7692 ask of frames and messages; the close
/// handshake is the [`Connection`](super::Connection)'s.
///
/// A message that lies whole in the data is unmasked in place and handed out as a slice of it. Of any other, the bytes
/// are taken as they arrive: unmasked, checked and moved to one buffer, which is freed when the message was delivered.
///
/// ```
/// use reev::websocket::{Config, Event, Receiver, Role};
///
/// let mut receiver = Receiver::new(Role::Client, &Config::default(), None);
/// let mut data = *b"\x81\x05Hello\x81";
/// let decoded = receiver.decode(&mut data)?;
/// assert_eq!((decoded.used, decoded.event), (7, Some(Event::Text("Hello"))));
/// assert_eq!(receiver.decode(&mut data[7..])?.event, None);
/// # Ok::<(), reev::websocket::ProtocolError>(())
/// ```
pub struct Receiver {
    message: Option<Box<Assembly>>,
    inflater: Option<Box<Inflater>>,
    message_max: usize,
    fragments_max: u32,
    /// What the second byte's highest bit must be: set in frames for a server.
    mask_bit: u8,
}

impl Receiver {
    /// A decoder for one end of a connection, with what the handshake agreed on.
    pub fn new(role: Role, config: &Config, deflate: Option<&DeflateParams>) -> Self {
        let (mask_bit, inflater) = match role {
            Role::Server => {
                (MASK, deflate.map(|agreed| Inflater::new(!agreed.client_no_context_takeover)))
            }
            Role::Client => {
                (0, deflate.map(|agreed| Inflater::new(!agreed.server_no_context_takeover)))
            }
        };
        Receiver {
            message: None,
            inflater: inflater.map(Box::new),
            message_max: config.message_max,
            fragments_max: config.fragments_max,
            mask_bit,
        }
    }

    /// Decodes the next event. Call it again with the rest of the data until it gives none.
    ///
    /// # Errors
    /// The peer broke the protocol; the receiver is of no more use.
    #[inline]
    pub fn decode<'a>(&'a mut self, data: &'a mut [u8]) -> Result<Decoded<'a>, ProtocolError> {
        if data.is_empty() && self.message.is_none() {
            return Ok(Decoded { used: 0, event: None });
        }
        // The common case, decided by few branches: a whole short data frame that is a whole message.
        if self.message.is_none()
            && let [first @ (0x81 | 0x82), second, a, b, ..] = *data
        {
            let second = second ^ self.mask_bit;
            let (len_bytes, len) = match second {
                0..=125 => (0, usize::from(second)),
                126 => (2, usize::from(u16::from_be_bytes([a, b]))),
                _ => return self.decode_any(data),
            };
            let header = 2 + len_bytes + usize::from(self.mask_bit >> 5);
            let used = header + len;
            if data.len() >= used && (len_bytes == 0 || len >= 126) && len <= self.message_max {
                let (head, payload) = data[..used].split_at_mut(header);
                if let (false, Some(&key)) = (self.mask_bit == 0, head.last_chunk::<4>()) {
                    mask::apply(payload, key);
                }
                let event =
                    if first == FIN | TEXT { text(payload)? } else { Event::Binary(payload) };
                return Ok(Decoded { used, event: Some(event) });
            }
        }
        self.decode_any(data)
    }

    fn decode_any<'a>(&'a mut self, data: &'a mut [u8]) -> Result<Decoded<'a>, ProtocolError> {
        if self.message.as_ref().is_some_and(|message| message.is_delivered()) {
            self.message = None;
        }
        let limits = self.limits();
        let mut used = 0;
        loop {
            if let Some(message) = &mut self.message
                && message.is_mid_frame()
            {
                used += message.take(&mut data[used..], self.inflater.as_deref_mut(), &limits)?;
                if message.is_mid_frame() {
                    return Ok(Decoded { used, event: None });
                }
            }
            if self.message.as_ref().is_some_and(|message| message.is_complete()) {
                return self.deliver(used);
            }
            let Some((header, header_len)) = self.header(&data[used..])? else {
                return Ok(Decoded { used, event: None });
            };
            if header.opcode() >= CLOSE {
                return control(header, header_len, used, data);
            }
            let begin = used + header_len;
            if header.opcode() != CONTINUATION {
                if header.first & (FIN | RSV1) == FIN && (data.len() - begin) as u64 >= header.len {
                    return whole(header, begin, data);
                }
                let kind = if header.opcode() == TEXT { Kind::Text } else { Kind::Binary };
                self.message = Some(Box::new(Assembly::new(kind, header.first & RSV1 != 0)));
            }
            if let Some(message) = &mut self.message {
                message.start_frame(&header, &limits)?;
            }
            used = begin;
        }
    }

    /// The next header, if it has arrived, with all checks that can be made before the payload.
    fn header(&self, data: &[u8]) -> Result<Option<(Header, usize)>, ProtocolError> {
        let [first, second, ..] = *data else { return Ok(None) };
        frame::check(first, second)?;
        let opcode = first & 0xf;
        if first & RSV1 != 0 && (self.inflater.is_none() || !matches!(opcode, TEXT | BINARY)) {
            return Err(ProtocolError::ReservedBits);
        }
        match (opcode, &self.message) {
            (TEXT | BINARY, Some(_)) => return Err(ProtocolError::ContinuationExpected),
            (CONTINUATION, None) => return Err(ProtocolError::ContinuationUnexpected),
            _ => {}
        }
        match (second & MASK, self.mask_bit) {
            (0, MASK) => return Err(ProtocolError::NotMasked),
            (MASK, 0) => return Err(ProtocolError::Masked),
            _ => {}
        }
        let Some((header, len)) = Header::parse(data)? else { return Ok(None) };
        if opcode < CLOSE
            && first & RSV1 == 0
            && self.message.is_none()
            && header.len > self.message_max as u64
        {
            return Err(ProtocolError::MessageTooBig);
        }
        Ok(Some((header, len)))
    }

    fn limits(&self) -> Limits {
        Limits { message_max: self.message_max, fragments_max: self.fragments_max }
    }

    fn deliver(&mut self, used: usize) -> Result<Decoded<'_>, ProtocolError> {
        let limits = self.limits();
        let Some(message) = &mut self.message else { return Ok(Decoded { used, event: None }) };
        let event = message.finish(self.inflater.as_deref_mut(), &limits)?;
        Ok(Decoded { used, event: Some(event) })
    }
}

#[inline]
fn text(payload: &[u8]) -> Result<Event<'_>, ProtocolError> {
    match simdutf8::basic::from_utf8(payload) {
        Ok(text) => Ok(Event::Text(text)),
        Err(_) => Err(ProtocolError::Utf8),
    }
}

fn unmask<'a>(header: &Header, payload: &'a mut [u8]) -> &'a [u8] {
    if let Some(key) = header.mask {
        mask::apply(payload, key);
    }
    payload
}

/// A message in one frame, all of which has arrived.
fn whole(header: Header, begin: usize, data: &mut [u8]) -> Result<Decoded<'_>, ProtocolError> {
    let used = begin + header.len as usize;
    let payload = unmask(&header, &mut data[begin..used]);
    let event = if header.opcode() == TEXT { text(payload)? } else { Event::Binary(payload) };
    Ok(Decoded { used, event: Some(event) })
}

/// A control frame. A partial one is left where it is: it is short.
fn control(
    header: Header,
    header_len: usize,
    begin: usize,
    data: &mut [u8],
) -> Result<Decoded<'_>, ProtocolError> {
    let payload_begin = begin + header_len;
    let used = payload_begin + header.len as usize;
    if data.len() < used {
        return Ok(Decoded { used: begin, event: None });
    }
    let payload = unmask(&header, &mut data[payload_begin..used]);
    let event = match header.opcode() {
        PING => Event::Ping(payload),
        PONG => Event::Pong(payload),
        _ => Event::Close(CloseFrame::parse(payload)?),
    };
    Ok(Decoded { used, event: Some(event) })
}
