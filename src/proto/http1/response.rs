use std::fmt;
use std::io::Write;

use arrayvec::ArrayVec;

use super::date::DateCache;
use super::field::{Fields, HeaderError, check_name, check_value};
use super::reject::Reject;
use super::request::{Reply, Version};
use super::status::Status;

/// Where answers are written to. Writing cannot fail; a bound on what is kept is the sink's own.
pub trait Sink {
    /// Appends `bytes`.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// An answer whose head is being written: header fields, then one of [`body`](Self::body),
/// [`length`](Self::length) and [`stream`](Self::stream). Dropped before that, it leaves an
/// incomplete answer: close the connection then.
///
/// ```
/// use reev::http1::{DateCache, Head, HeadDecoder, HeaderSlots, Limits, ResponseHead, Status};
///
/// let (mut decoder, mut slots) = (HeadDecoder::default(), HeaderSlots::new());
/// let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// let Head::Complete { request, .. } = decoder.decode(head, &mut slots, &Limits::default())? else {
///     panic!("it is all there");
/// };
/// let (mut out, date) = (Vec::new(), DateCache::new(0));
/// ResponseHead::start(&mut out, Status::NOT_FOUND, request.reply(), &date).body(b"no");
/// assert!(out.starts_with(b"HTTP/1.1 404 Not Found\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"));
/// assert!(out.ends_with(b"Content-Length: 2\r\n\r\nno"));
/// # Ok::<(), reev::http1::Reject>(())
/// ```
#[must_use = "the head is complete only with `body`, `length` or `stream`"]
pub struct ResponseHead<'s, S: Sink + ?Sized> {
    sink: &'s mut S,
    status: Status,
    reply: Reply,
    upgrade: bool,
}

impl<'s, S: Sink + ?Sized> ResponseHead<'s, S> {
    /// Writes the status line and, in a final answer, Date.
    #[inline]
    pub fn start(sink: &'s mut S, status: Status, reply: Reply, date: &DateCache) -> Self {
        if status == Status::OK {
            sink.put(date.ok_and_line());
        } else {
            put_status_line(sink, status);
            if !status.is_interim() {
                sink.put(date.line());
            }
        }
        Self { sink, status, reply, upgrade: false }
    }

    /// Writes a field, unless it is refused: then nothing of it is written, and the answer can go
    /// on.
    pub fn header(
        &mut self,
        name: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<&mut Self, HeaderError> {
        let value = value.as_ref();
        check_name(name.as_bytes())?;
        check_value(value)?;
        self.sink.put(name.as_bytes());
        self.sink.put(b": ");
        self.sink.put(value);
        self.sink.put(b"\r\n");
        Ok(self)
    }

    /// Writes fields that have been checked before.
    #[inline]
    pub fn fields(&mut self, fields: Fields<'_>) -> &mut Self {
        self.sink.put(fields.as_bytes());
        self
    }

    /// Writes field lines that were checked one by one.
    #[inline]
    pub(super) fn raw(&mut self, lines: &[u8]) -> &mut Self {
        if !lines.is_empty() {
            self.sink.put(lines);
        }
        self
    }

    /// Writes Upgrade, and `upgrade` in Connection: for 101 and 426 (RFC 9110 section 7.8).
    pub fn upgrade(&mut self, protocol: &str) -> Result<&mut Self, HeaderError> {
        self.header("Upgrade", protocol)?;
        self.upgrade = true;
        Ok(self)
    }

    /// Ends the head with Content-Length and writes the content, where there may be any: HEAD, 1xx,
    /// 204, 304 and a 2xx to CONNECT have none, and 205 has length 0 (RFC 9110 sections 9.3 and
    /// 15).
    #[inline]
    pub fn body(mut self, content: &[u8]) {
        let content = if self.status == Status::RESET_CONTENT { b"" } else { content };
        self.end_with_length(content.len() as u64);
        if self.has_content() && !content.is_empty() {
            self.sink.put(content);
        }
    }

    /// Ends the head with Content-Length; the content is to follow through the encoder, or beside
    /// it. 205 has length 0 here too, and no content.
    pub fn length(mut self, len: u64) -> BodyEncoder {
        let resets = self.status == Status::RESET_CONTENT;
        self.end_with_length(if resets { 0 } else { len });
        let framing = if self.has_content() && !resets {
            Framing::Length { left: len }
        } else {
            Framing::Absent
        };
        BodyEncoder { framing, keep_alive: self.reply.keep_alive }
    }

    /// Ends the head for content of unknown length: chunked, or to an HTTP/1.0 client until the
    /// connection's end. 205 has length 0 here too, and no content.
    pub fn stream(mut self) -> BodyEncoder {
        if self.status == Status::RESET_CONTENT {
            return self.length(0);
        }
        let chunked = self.reply.version == Version::Http11;
        self.reply.keep_alive &= chunked || self.is_unframed();
        self.put_connection();
        if chunked && !self.is_unframed() {
            self.sink.put(b"Transfer-Encoding: chunked\r\n\r\n");
        } else {
            self.sink.put(b"\r\n");
        }
        let framing = match (self.has_content(), chunked) {
            (false, _) => Framing::Absent,
            (true, true) => Framing::Chunked,
            (true, false) => Framing::UntilClose,
        };
        BodyEncoder { framing, keep_alive: self.reply.keep_alive }
    }

    #[inline]
    fn end_with_length(&mut self, len: u64) {
        self.put_connection();
        if self.is_unframed() {
            self.sink.put(b"\r\n");
            return;
        }
        // Digits are written from the last one, so that the line is one piece, ended by constants
        // on both sides.
        const NAME: &[u8; 16] = b"Content-Length: ";
        const END: &[u8; 4] = b"\r\n\r\n";
        const DIGITS_MAX: usize = 20;
        let mut line = [0; NAME.len() + DIGITS_MAX + END.len()];
        let mut at = NAME.len() + DIGITS_MAX;
        line[at..].copy_from_slice(END);
        let mut rest = len;
        loop {
            at -= 1;
            line[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        at -= NAME.len();
        line[at..at + NAME.len()].copy_from_slice(NAME);
        self.sink.put(&line[at..]);
    }

    /// Connection, where its default is not meant (RFC 9112 section 9.3).
    #[inline]
    fn put_connection(&mut self) {
        if self.reply.keep_alive && self.reply.version == Version::Http11 && !self.upgrade {
            return;
        }
        self.put_connection_options();
    }

    #[cold]
    fn put_connection_options(&mut self) {
        let line: &[u8] = match (self.status.is_interim(), self.upgrade, self.reply.keep_alive) {
            (true, false, _) => b"",
            (true, true, _) | (false, true, true) => b"Connection: upgrade\r\n",
            (false, true, false) => b"Connection: close, upgrade\r\n",
            (false, false, true) => b"Connection: keep-alive\r\n",
            (false, false, false) => b"Connection: close\r\n",
        };
        self.sink.put(line);
    }

    /// Neither Content-Length nor Transfer-Encoding may be sent, or it would mean nothing (RFC 9110
    /// section 8.6).
    #[inline]
    fn is_unframed(&self) -> bool {
        self.status.is_bodyless() || (self.reply.connect && self.status.code() / 100 == 2)
    }

    #[inline]
    fn has_content(&self) -> bool {
        !self.reply.head && !self.is_unframed()
    }
}

/// The content did not have the announced length: the client has lost the framing, so close the
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthMismatch;

impl fmt::Display for LengthMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the content does not have the length that Content-Length announced")
    }
}

impl std::error::Error for LengthMismatch {}

/// Frames the content of an answer, piece by piece.
///
/// ```
/// # use reev::http1::{DateCache, Reply, ResponseHead, Status};
/// fn two_chunks(reply: Reply, date: &DateCache) -> Vec<u8> {
///     let mut out = Vec::new();
///     let mut body = ResponseHead::start(&mut out, Status::OK, reply, date).stream();
///     for piece in [&b"one"[..], b"two"] {
///         body.put(&mut out, piece).expect("a stream has no announced length");
///     }
///     let keep_alive = body.end(&mut out).expect("nor can it be too short");
///     assert!(keep_alive || !reply.keep_alive());
///     out
/// }
/// # two_chunks(Reply::refused(), &DateCache::new(0));
/// ```
#[derive(Debug)]
#[must_use = "the content is complete only with `end`"]
pub struct BodyEncoder {
    framing: Framing,
    keep_alive: bool,
}

#[derive(Debug)]
enum Framing {
    /// There is no content: what is given is not written.
    Absent,
    Length {
        left: u64,
    },
    Chunked,
    UntilClose,
}

impl BodyEncoder {
    /// Whether content is written at all; not in the answer to HEAD, for one.
    pub fn has_content(&self) -> bool {
        !matches!(self.framing, Framing::Absent)
    }

    /// Writes a piece. One that goes beyond the announced length is refused, and nothing of it is
    /// written.
    pub fn put<S: Sink + ?Sized>(
        &mut self,
        sink: &mut S,
        data: &[u8],
    ) -> Result<(), LengthMismatch> {
        match self.framing {
            Framing::Absent => {}
            Framing::Length { .. } => {
                self.skip(data.len() as u64)?;
                sink.put(data);
            }
            // A chunk of no bytes would end the body.
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => {
                let mut size = ArrayVec::<u8, 18>::new();
                write!(size, "{:x}\r\n", data.len()).expect("a length has at most 16 digits");
                sink.put(&size);
                sink.put(data);
                sink.put(b"\r\n");
            }
            Framing::UntilClose => sink.put(data),
        }
        Ok(())
    }

    /// Counts `len` bytes that go out beside the sink, from a file say. Only for content of
    /// announced length.
    pub fn skip(&mut self, len: u64) -> Result<(), LengthMismatch> {
        match &mut self.framing {
            Framing::Length { left } => *left = left.checked_sub(len).ok_or(LengthMismatch)?,
            Framing::Absent | Framing::UntilClose => {}
            Framing::Chunked => return Err(LengthMismatch),
        }
        Ok(())
    }

    /// Ends the content. Says whether the connection goes on; if not, it is to be closed once all
    /// is sent.
    pub fn end<S: Sink + ?Sized>(self, sink: &mut S) -> Result<bool, LengthMismatch> {
        match self.framing {
            Framing::Length { left } if left > 0 => return Err(LengthMismatch),
            Framing::Chunked => sink.put(b"0\r\n\r\n"),
            Framing::Length { .. } | Framing::Absent | Framing::UntilClose => {}
        }
        Ok(self.keep_alive)
    }
}

/// Writes `100 Continue`, for which see
/// [`Request::wants_continue`](super::Request::wants_continue).
pub fn put_continue<S: Sink + ?Sized>(sink: &mut S) {
    sink.put(b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Writes the whole answer to what is refused; the connection is to be closed once it is sent.
///
/// ```
/// use reev::http1::{DateCache, Head, HeadDecoder, HeaderSlots, Limits, Reject, refuse};
///
/// let (mut decoder, mut slots) = (HeadDecoder::default(), HeaderSlots::new());
/// let head = b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n";
/// let Err(reject) = decoder.decode(head, &mut slots, &Limits::default()) else {
///     panic!("a target with a blank");
/// };
/// let mut out = Vec::new();
/// refuse(&mut out, reject, &DateCache::new(0));
/// assert!(out.starts_with(b"HTTP/1.1 400 Bad Request\r\n"));
/// ```
#[cold]
pub fn refuse<S: Sink + ?Sized>(sink: &mut S, reject: Reject, date: &DateCache) {
    const PLAIN: Fields<'static> = Fields::new("Content-Type: text/plain\r\n");
    let mut head = ResponseHead::start(sink, reject.status(), Reply::refused(), date);
    head.fields(PLAIN);
    head.body(reject.reason().as_bytes());
}

#[inline]
fn put_status_line<S: Sink + ?Sized>(sink: &mut S, status: Status) {
    match status.line() {
        Some(line) => sink.put(line),
        None => {
            sink.put(b"HTTP/1.1 ");
            sink.put(itoa::Buffer::new().format(status.code()).as_bytes());
            // The space is required, the phrase is not (RFC 9112 section 4).
            sink.put(b" \r\n");
        }
    }
}
