use super::chunked::Chunked;
use super::limits::Limits;
use super::reject::Reject;

/// How the body of a request is framed (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// There is none.
    Empty,
    /// This many bytes, at least one and at most `body_bytes_max`.
    Length(u64),
    /// Chunks, up to the last one and its trailers.
    Chunked,
}

/// What [`BodyDecoder::decode`] found at the start of its input. `used` bytes of the input are done
/// with; the rest is to be offered again, with more behind it if the step is [`Step::More`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// The rest of the input is incomplete.
    More {
        /// Bytes to consume.
        used: usize,
    },
    /// Content, never empty, in place.
    Data {
        /// The content.
        data: &'a [u8],
        /// Bytes to consume.
        used: usize,
    },
    /// A trailer field, after all data (RFC 9112 section 7.1.2).
    Trailer {
        /// The name, a token.
        name: &'a str,
        /// The value, without white space around it.
        value: &'a [u8],
        /// Bytes to consume.
        used: usize,
    },
    /// The end of the body: behind `used` bytes a new request may start.
    End {
        /// Bytes to consume.
        used: usize,
    },
}

impl Step<'_> {
    /// Bytes of the input that are done with.
    #[inline]
    pub fn used(&self) -> usize {
        match *self {
            Self::More { used }
            | Self::Data { used, .. }
            | Self::Trailer { used, .. }
            | Self::End { used } => used,
        }
    }
}

/// Takes one body out of the input, in place.
///
/// ```
/// use reev::http1::{BodyDecoder, BodyKind, Limits, Step};
///
/// let mut decoder = BodyDecoder::new(BodyKind::Chunked, &Limits::default());
/// let (mut input, mut body) = (&b"5\r\nhello\r\n0\r\n\r\nthe next"[..], Vec::new());
/// loop {
///     let step = decoder.decode(input)?;
///     input = &input[step.used()..];
///     match step {
///         Step::Data { data, .. } => body.extend_from_slice(data),
///         Step::Trailer { .. } => {}
///         Step::End { .. } => break,
///         Step::More { .. } => panic!("it is all there"),
///     }
/// }
/// assert_eq!((body.as_slice(), input), (&b"hello"[..], &b"the next"[..]));
/// # Ok::<(), reev::http1::Reject>(())
/// ```
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Length { left: u64 },
    Chunked(Chunked),
}

impl BodyDecoder {
    /// A decoder for a body that is framed so, within the bounds.
    pub fn new(kind: BodyKind, limits: &Limits) -> Self {
        let kind = match kind {
            BodyKind::Empty => Kind::Length { left: 0 },
            BodyKind::Length(left) => Kind::Length { left },
            BodyKind::Chunked => Kind::Chunked(Chunked::new(limits)),
        };
        Self { kind }
    }

    /// One step into `input`. After [`Step::End`] every call answers an end with no bytes used,
    /// after an error the same error. The connection's end before [`Step::End`] means that the body
    /// is incomplete.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Reject> {
        match &mut self.kind {
            Kind::Length { left: 0 } => Ok(Step::End { used: 0 }),
            Kind::Length { .. } if input.is_empty() => Ok(Step::More { used: 0 }),
            Kind::Length { left } => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= used as u64;
                Ok(Step::Data { data: &input[..used], used })
            }
            Kind::Chunked(chunked) => chunked.decode(input),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9112 section 6.2: exactly as many bytes as Content-Length says.
    #[test]
    fn length_takes_its_bytes_and_no_more() {
        let mut body = BodyDecoder::new(BodyKind::Length(5), &Limits::default());
        assert_eq!(body.decode(b""), Ok(Step::More { used: 0 }));
        assert_eq!(body.decode(b"ab"), Ok(Step::Data { data: b"ab", used: 2 }));
        assert_eq!(body.decode(b"cdeGET"), Ok(Step::Data { data: b"cde", used: 3 }));
        assert_eq!(body.decode(b"GET"), Ok(Step::End { used: 0 }));
    }

    #[test]
    fn empty_ends_at_once() {
        let mut body = BodyDecoder::new(BodyKind::Empty, &Limits::default());
        assert_eq!(body.decode(b"GET"), Ok(Step::End { used: 0 }));
    }
}
