//! Frame headers: how they are read, checked and written (RFC 6455 section 5.2).

use super::config::HEADER_LEN_MAX;
use super::error::ProtocolError;

/// Which end of the connection this is. The list is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes masked frames, sends unmasked ones.
    Server,
    /// Takes unmasked frames, masks its own.
    Client,
}

/// The type of a message. The list is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

pub(super) const FIN: u8 = 0x80;
pub(super) const RSV1: u8 = 0x40;
const RSV2_RSV3: u8 = 0x30;
pub(super) const MASK: u8 = 0x80;

pub(super) const CONTINUATION: u8 = 0x0;
pub(super) const TEXT: u8 = 0x1;
pub(super) const BINARY: u8 = 0x2;
pub(super) const CLOSE: u8 = 0x8;
pub(super) const PING: u8 = 0x9;
pub(super) const PONG: u8 = 0xa;

impl Kind {
    pub(super) fn opcode(self) -> u8 {
        match self {
            Kind::Text => TEXT,
            Kind::Binary => BINARY,
        }
    }
}

/// The header of one frame.
///
/// ```
/// use reev::websocket::Header;
///
/// let header = Header { first: 0x81, len: 300, mask: None };
/// let bytes = header.encode();
/// assert_eq!(&bytes[..], b"\x81\x7e\x01\x2c");
/// assert_eq!(Header::parse(&bytes), Ok(Some((header, 4))));
/// assert_eq!(Header::parse(&bytes[..3]), Ok(None));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// FIN, the reserved bits and the opcode, as on the wire.
    pub first: u8,
    /// The bytes of the payload.
    pub len: u64,
    /// The mask; `None`: not masked.
    pub mask: Option<[u8; 4]>,
}

impl Header {
    /// Reads a header, and says how many bytes it has. `None`: it has not all arrived.
    ///
    /// What the first two bytes say is checked as soon as they are there. RSV1 is left to the caller, who knows what
    /// was negotiated, and so is what depends on the frames before.
    ///
    /// # Errors
    /// The header breaks RFC 6455 section 5.2 or 5.5 by itself.
    pub fn parse(data: &[u8]) -> Result<Option<(Header, usize)>, ProtocolError> {
        let [first, second, rest @ ..] = data else { return Ok(None) };
        check(*first, *second)?;
        let (len, rest) = match (second & !MASK, rest) {
            (126, [a, b, rest @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), rest),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), rest)
            }
            (126.., _) => return Ok(None),
            (len, rest) => (u64::from(len), rest),
        };
        match second & !MASK {
            126 if len < 126 => return Err(ProtocolError::LengthNotMinimal),
            127 if len <= u64::from(u16::MAX) => return Err(ProtocolError::LengthNotMinimal),
            127 if len > i64::MAX as u64 => return Err(ProtocolError::LengthHighBit),
            _ => {}
        }
        let (mask, rest) = match (second & MASK, rest) {
            (0, rest) => (None, rest),
            (_, [a, b, c, d, rest @ ..]) => (Some([*a, *b, *c, *d]), rest),
            _ => return Ok(None),
        };
        Ok(Some((Header { first: *first, len, mask }, data.len() - rest.len())))
    }

    /// The header as on the wire.
    pub fn encode(self) -> HeaderBytes {
        let mut header = HeaderBytes { bytes: [0; HEADER_LEN_MAX], len: 0 };
        let masked = if self.mask.is_some() { MASK } else { 0 };
        match self.len {
            0..=125 => header.push(&[self.first, masked | self.len as u8]),
            126..=0xffff => {
                header.push(&[self.first, masked | 126]);
                header.push(&(self.len as u16).to_be_bytes());
            }
            _ => {
                header.push(&[self.first, masked | 127]);
                header.push(&self.len.to_be_bytes());
            }
        }
        if let Some(mask) = self.mask {
            header.push(&mask);
        }
        header
    }

    pub(super) fn opcode(self) -> u8 {
        self.first & 0xf
    }

    pub(super) fn is_fin(self) -> bool {
        self.first & FIN != 0
    }
}

/// An encoded header: 2 to 14 bytes.
#[derive(Clone, Copy, Debug)]
pub struct HeaderBytes {
    bytes: [u8; HEADER_LEN_MAX],
    len: usize,
}

impl HeaderBytes {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

impl std::ops::Deref for HeaderBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Appends an unmasked frame.
#[inline]
pub(super) fn put_plain(first: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.reserve(payload.len() + HEADER_LEN_MAX);
    if payload.len() < 126 {
        out.extend_from_slice(&[first, payload.len() as u8]);
    } else if let Ok(len) = u16::try_from(payload.len()) {
        let [high, low] = len.to_be_bytes();
        out.extend_from_slice(&[first, 126, high, low]);
    } else {
        out.extend_from_slice(&Header { first, len: payload.len() as u64, mask: None }.encode());
    }
    out.extend_from_slice(payload);
}

/// What the first two bytes say by themselves.
pub(super) fn check(first: u8, second: u8) -> Result<(), ProtocolError> {
    let opcode = first & 0xf;
    if first & RSV2_RSV3 != 0 {
        return Err(ProtocolError::ReservedBits);
    }
    match opcode {
        CONTINUATION | TEXT | BINARY => Ok(()),
        CLOSE | PING | PONG if first & FIN == 0 => Err(ProtocolError::ControlFragmented),
        CLOSE | PING | PONG if second & !MASK > 125 => Err(ProtocolError::ControlTooLong),
        CLOSE | PING | PONG => Ok(()),
        _ => Err(ProtocolError::ReservedOpcode(opcode)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_parsed_and_shorter_is_not_enough() {
        for len in [0, 1, 125, 126, 127, 0xffff, 0x10000, i64::MAX as u64] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let header = Header { first: FIN | BINARY, len, mask };
                let bytes = header.encode();
                assert_eq!(Header::parse(&bytes), Ok(Some((header, bytes.len()))));
                for short in 0..bytes.len() {
                    assert_eq!(Header::parse(&bytes[..short]), Ok(None));
                }
            }
        }
    }
}
