use bytes::Bytes;

use super::field::{Fields, HeaderError, check_name, check_value};
use super::status::Status;

/// A whole answer that owns its parts: what a [`Responder`](super::Responder) sends.
///
/// ```
/// use reev::http1::{Answer, Status};
///
/// let answer = Answer::new(Status::CREATED).header("Location", "/items/7")?.body("made\n");
/// # let _ = answer;
/// # Ok::<(), reev::http1::HeaderError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) status: Status,
    pub(super) lines: Vec<u8>,
    pub(super) body: Bytes,
}

impl Answer {
    /// An answer without header fields of its own and without content. An interim status, which
    /// is no answer, is sent as 500.
    pub fn new(status: Status) -> Answer {
        Answer { status, lines: Vec::new(), body: Bytes::new() }
    }

    /// A 200 with text.
    pub fn text(text: impl Into<Bytes>) -> Answer {
        const PLAIN: Fields<'static> = Fields::new("Content-Type: text/plain; charset=utf-8\r\n");
        Answer::new(Status::OK).fields(PLAIN).body(text)
    }

    /// Adds a header field.
    ///
    /// # Errors
    /// A name or a value that could break the answer's framing, or a field that is the layer's.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Answer, HeaderError> {
        put_line(&mut self.lines, name, value.as_ref())?;
        Ok(self)
    }

    /// Adds fields that were checked before.
    #[must_use]
    pub fn fields(mut self, fields: Fields<'_>) -> Answer {
        self.lines.extend_from_slice(fields.as_bytes());
        self
    }

    /// Sets the content. A large buffer is sent without a copy.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Answer {
        self.body = body.into();
        self
    }
}

/// Appends a field line, unless it is refused.
pub(super) fn put_line(lines: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), HeaderError> {
    check_name(name.as_bytes())?;
    check_value(value)?;
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        lines.extend_from_slice(part);
    }
    Ok(())
}
