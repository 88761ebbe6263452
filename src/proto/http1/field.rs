use std::fmt;

use super::chars::{is_token, is_value};

/// Why a header field of an answer is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeaderError {
    /// The name is not a token (RFC 9110 section 5.1).
    Name,
    /// The value has CR, LF, NUL or another control: written, it could forge fields or a whole
    /// answer (RFC 9110 section
    /// 5.5).
    Value,
    /// Connection, Content-Length, Date, Keep-Alive, Transfer-Encoding: the encoder writes them
    /// itself.
    Reserved,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the name of a header field is not a token",
            Self::Value => "the value of a header field has a control character",
            Self::Reserved => "the encoder writes this header field itself",
        })
    }
}

impl std::error::Error for HeaderError {}

/// Field lines that were checked once, to be written in one piece: a constant is checked by the
/// compiler.
///
/// ```
/// use reev::proto::http1::Fields;
/// const PLAIN: Fields<'static> = Fields::new("Server: reev\r\nContent-Type: text/plain\r\n");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a> {
    lines: &'a str,
}

impl<'a> Fields<'a> {
    /// No fields.
    pub const NONE: Fields<'static> = Fields { lines: "" };

    /// Lines of the form `Name: value`, each with CRLF.
    ///
    /// # Panics
    ///
    /// If they are not, or name a reserved field: see [`Fields::check`].
    pub const fn new(lines: &'a str) -> Self {
        match Self::check(lines) {
            Ok(fields) => fields,
            Err(HeaderError::Name) => panic!("the name of a header field is not a token"),
            Err(HeaderError::Value) => panic!("a header field has a control character, or no CRLF"),
            Err(HeaderError::Reserved) => panic!("the encoder writes this header field itself"),
        }
    }

    /// As [`Fields::new`], for lines that are not known beforehand.
    pub const fn check(lines: &'a str) -> Result<Self, HeaderError> {
        let bytes = lines.as_bytes();
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut colon = 0;
            while colon < rest.len() && rest[colon] != b':' {
                colon += 1;
            }
            if colon == rest.len() {
                return Err(HeaderError::Name);
            }
            let (name, after) = rest.split_at(colon);
            if let Err(error) = check_name(name) {
                return Err(error);
            }
            let mut end = 0;
            while end < after.len() && is_value(after[end]) {
                end += 1;
            }
            if end + 1 >= after.len() || after[end] != b'\r' || after[end + 1] != b'\n' {
                return Err(HeaderError::Value);
            }
            (_, rest) = after.split_at(end + 2);
        }
        Ok(Self { lines })
    }

    /// The lines.
    #[inline]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.lines.as_bytes()
    }
}

/// Checks a name: a token, and none of the reserved ones.
pub(super) const fn check_name(name: &[u8]) -> Result<(), HeaderError> {
    let mut at = 0;
    while at < name.len() {
        if !is_token(name[at]) {
            return Err(HeaderError::Name);
        }
        at += 1;
    }
    let reserved = match name.len() {
        0 => return Err(HeaderError::Name),
        4 => is(name, b"date"),
        10 => is(name, b"connection") || is(name, b"keep-alive"),
        14 => is(name, b"content-length"),
        17 => is(name, b"transfer-encoding"),
        _ => false,
    };
    if reserved { Err(HeaderError::Reserved) } else { Ok(()) }
}

/// Whether `name` is `lower`, which is in lower case, without regard to case.
const fn is(name: &[u8], lower: &[u8]) -> bool {
    let mut at = 0;
    while at < lower.len() && at < name.len() && name[at].to_ascii_lowercase() == lower[at] {
        at += 1;
    }
    at == lower.len() && at == name.len()
}

/// Checks a value.
pub(super) fn check_value(value: &[u8]) -> Result<(), HeaderError> {
    // No early exit: the loop vectorizes, and a refusal is rare.
    let valid = value.iter().fold(true, |valid, &b| valid & is_value(b));
    if valid { Ok(()) } else { Err(HeaderError::Value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_checked_line_by_line() {
        assert_eq!(Fields::new("A: b\r\nC:\r\n").as_bytes(), b"A: b\r\nC:\r\n");
        for (lines, error) in [
            ("A: b", HeaderError::Value),
            ("A: b\n", HeaderError::Value),
            ("A: b\r", HeaderError::Value),
            ("A: b\r\n\r\n", HeaderError::Name),
            ("A b\r\n", HeaderError::Name),
            (": b\r\n", HeaderError::Name),
            ("A : b\r\n", HeaderError::Name),
            ("A: b\r\nconnection: close\r\n", HeaderError::Reserved),
            ("A: b\r\nDATE: x\r\n", HeaderError::Reserved),
        ] {
            assert_eq!(Fields::check(lines).map(|_| ()), Err(error), "{lines:?}");
        }
    }
}
