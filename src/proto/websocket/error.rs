//! Why a connection failed, and the close code that says so.

use super::close::CloseCode;
use std::{error::Error, fmt, io};

/// A violation by the peer. The connection is over: send a close frame with [`close_code`](Self::close_code), read
/// no more, close the socket (RFC 6455 section 7.1.7). [`Connection::step`](super::Connection::step) has sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A reserved bit without the extension that gives it a meaning (RFC 6455 section 5.2, RFC 7692 section 6).
    ReservedBits,
    /// An opcode that RFC 6455 section 5.2 reserves: 3 to 7 or 11 to 15.
    ReservedOpcode(u8),
    /// A control frame without FIN (RFC 6455 section 5.5).
    ControlFragmented,
    /// A control frame with more than 125 bytes of payload (RFC 6455 section 5.5).
    ControlTooLong,
    /// A length in a longer form than it needs (RFC 6455 section 5.2).
    LengthNotMinimal,
    /// A 64-bit length with its highest bit set (RFC 6455 section 5.2).
    LengthHighBit,
    /// A server got a frame without a mask (RFC 6455 section 5.1).
    NotMasked,
    /// A client got a frame with a mask (RFC 6455 section 5.1).
    Masked,
    /// A continuation frame without a message to continue (RFC 6455 section 5.4).
    ContinuationUnexpected,
    /// A new data frame inside a fragmented message (RFC 6455 section 5.4).
    ContinuationExpected,
    /// A close frame with a body of one byte (RFC 6455 section 5.5.1).
    CloseBody,
    /// A close code that may not be on the wire (RFC 6455 section 7.4).
    CloseCode(u16),
    /// A close reason that is not UTF-8 (RFC 6455 section 5.5.1).
    CloseReason,
    /// A text message that is not UTF-8 (RFC 6455 section 8.1).
    Utf8,
    /// A message above `message_max`, declared, received or inflated.
    MessageTooBig,
    /// A message in more than `fragments_max` frames.
    TooManyFragments,
    /// A compressed message that is no DEFLATE stream (RFC 7692 section 7.2.2).
    Inflate,
}

impl ProtocolError {
    /// The code of the close frame that answers this error (RFC 6455 section 7.4.1).
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::Utf8 | Self::CloseReason | Self::Inflate => CloseCode::INVALID_DATA,
            Self::MessageTooBig | Self::TooManyFragments => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }

    /// A short reason in words, fit for a close frame.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bit set",
            Self::ReservedOpcode(_) => "reserved opcode",
            Self::ControlFragmented => "fragmented control frame",
            Self::ControlTooLong => "control frame too long",
            Self::LengthNotMinimal => "length not minimal",
            Self::LengthHighBit => "length out of range",
            Self::NotMasked => "frame not masked",
            Self::Masked => "frame masked",
            Self::ContinuationUnexpected => "nothing to continue",
            Self::ContinuationExpected => "continuation expected",
            Self::CloseBody => "close body of one byte",
            Self::CloseCode(_) => "invalid close code",
            Self::CloseReason => "close reason not UTF-8",
            Self::Utf8 => "text not UTF-8",
            Self::MessageTooBig => "message too big",
            Self::TooManyFragments => "too many fragments",
            Self::Inflate => "invalid deflate data",
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "websocket: the peer broke the protocol: {}", self.reason())?;
        match self {
            Self::ReservedOpcode(opcode) => write!(f, " {opcode:#x}"),
            Self::CloseCode(code) => write!(f, " {code}"),
            _ => Ok(()),
        }
    }
}

impl Error for ProtocolError {}

impl From<ProtocolError> for io::Error {
    fn from(error: ProtocolError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// Why something could not be sent. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// This side has sent its close frame, after which nothing may follow (RFC 6455 section 5.5.1).
    Closed,
    /// A ping or pong payload above 125 bytes.
    ControlTooLong,
    /// A close code that may not be on the wire (RFC 6455 section 7.4).
    CloseCode(u16),
    /// A [`Prepared`](super::Prepared) frame is unmasked, and so is for servers only.
    ClientRole,
    /// The peer reads too slowly, and the policy is to drop or to close: see
    /// [`SlowConsumer`](super::SlowConsumer).
    SlowConsumer,
    /// The queue of a [`Remote`](super::Remote) is full.
    Full,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("websocket: cannot send after the close frame"),
            Self::ControlTooLong => {
                f.write_str("websocket: a ping or pong carries at most 125 bytes")
            }
            Self::CloseCode(code) => write!(f, "websocket: close code {code} may not be sent"),
            Self::SlowConsumer => f.write_str("websocket: the peer reads too slowly"),
            Self::Full => f.write_str("websocket: too much waits for the reactor"),
            Self::ClientRole => {
                f.write_str("websocket: a client cannot send a prepared (unmasked) frame")
            }
        }
    }
}

impl Error for SendError {}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> Self {
        let kind = match error {
            SendError::Closed => io::ErrorKind::BrokenPipe,
            SendError::SlowConsumer | SendError::Full => io::ErrorKind::WouldBlock,
            _ => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error)
    }
}
