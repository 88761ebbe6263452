//! Close codes and the body of a close frame (RFC 6455 sections 5.5.1 and 7.4).

use super::config::CLOSE_REASON_LEN_MAX;
use super::error::ProtocolError;

/// A close code, any 16-bit number; [`is_on_wire`](Self::is_on_wire) says whether a frame may carry it.
///
/// ```
/// use reev::websocket::CloseCode;
///
/// assert!(CloseCode(4000).is_on_wire(), "for private use");
/// assert!(!CloseCode::ABNORMAL.is_on_wire());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// A server goes down or a browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// A kind of data that this endpoint cannot take.
    pub const UNSUPPORTED: Self = Self(1003);
    /// Never on the wire: the close frame had no code.
    pub const NO_STATUS: Self = Self(1005);
    /// Never on the wire: the connection ended without a close frame.
    pub const ABNORMAL: Self = Self(1006);
    /// Data that does not fit the type of its message, such as text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// A message against the endpoint's policy.
    pub const POLICY: Self = Self(1008);
    /// A message too big to process.
    pub const TOO_BIG: Self = Self(1009);
    /// The client needed an extension that the server did not negotiate.
    pub const EXTENSION_MISSING: Self = Self(1010);
    /// The server met a condition that it did not expect.
    pub const INTERNAL: Self = Self(1011);
    /// The service restarts.
    pub const RESTART: Self = Self(1012);
    /// Try again later.
    pub const TRY_LATER: Self = Self(1013);

    /// May a close frame carry this code? RFC 6455 section 7.4 and the IANA registry: 1000 to 1014 less the three
    /// reserved ones, and 3000 to 4999.
    pub fn is_on_wire(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// What a close frame said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// The code; `None` for a frame without a body, which counts as 1005.
    pub code: Option<CloseCode>,
    /// The reason, maybe empty.
    pub reason: &'a str,
}

impl<'a> CloseFrame<'a> {
    /// Checks the unmasked body of a close frame.
    ///
    /// # Errors
    /// A body of one byte, a code that may not be on the wire, a reason that is not UTF-8.
    pub fn parse(body: &'a [u8]) -> Result<Self, ProtocolError> {
        match body {
            [] => Ok(CloseFrame { code: None, reason: "" }),
            [_] => Err(ProtocolError::CloseBody),
            [high, low, reason @ ..] => {
                let code = CloseCode(u16::from_be_bytes([*high, *low]));
                if !code.is_on_wire() {
                    return Err(ProtocolError::CloseCode(code.0));
                }
                let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::CloseReason)?;
                Ok(CloseFrame { code: Some(code), reason })
            }
        }
    }
}

/// The body of a close frame, with the reason cut to what fits, at a character's edge.
pub(super) fn body(
    code: CloseCode,
    reason: &str,
    buf: &mut [u8; 2 + CLOSE_REASON_LEN_MAX],
) -> usize {
    let most = reason.len().min(CLOSE_REASON_LEN_MAX);
    let fits = (0..=most).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
    buf[..2].copy_from_slice(&code.0.to_be_bytes());
    buf[2..2 + fits].copy_from_slice(&reason.as_bytes()[..fits]);
    2 + fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_on_the_wire() {
        for code in 0..=u16::MAX {
            let invalid = matches!(code, 0..=999 | 1004 | 1005 | 1006 | 1015..=2999 | 5000..);
            assert_eq!(CloseCode(code).is_on_wire(), !invalid, "{code}");
        }
    }

    #[test]
    fn long_reasons_are_cut_at_a_character() {
        let mut buf = [0; 125];
        let reason = format!("{}€", "x".repeat(121));
        let len = body(CloseCode::NORMAL, &reason, &mut buf);
        assert_eq!(len, 2 + 121);
        assert_eq!(CloseFrame::parse(&buf[..len]).unwrap().reason, "x".repeat(121));
    }
}
