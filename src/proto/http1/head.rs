use std::mem::MaybeUninit;

use httparse::{Error, Header, Status};

use super::framing;
use super::limits::Limits;
use super::line;
use super::reject::Reject;
use super::request::{Request, Version};
use super::target;

/// Header fields of a request up to which nothing is allocated.
pub const HEADERS_INLINE: usize = 64;

/// Where the header fields of a request are kept while it is looked at: on the caller's stack, and
/// on the heap for a request with more than [`HEADERS_INLINE`] of them. One serves many requests,
/// one after the other.
pub struct HeaderSlots<'b> {
    inline: [MaybeUninit<Header<'b>>; HEADERS_INLINE],
    spill: Vec<MaybeUninit<Header<'b>>>,
}

/// What [`HeadDecoder::decode`] found.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it lives on the stack for one request")]
pub enum Head<'a> {
    /// The head is not complete: call again with the same bytes and more behind them.
    Partial,
    /// A request, and how many bytes its head takes, an empty line in front of it included.
    Complete {
        /// The request.
        request: Request<'a>,
        /// Bytes to consume.
        used: usize,
    },
}

/// Finds request heads at the start of a buffer (RFC 9112 sections 2 to 6).
///
/// A refusal depends on the bytes alone, not on how they were cut into reads. For this a request
/// line is judged when its LF is there, and the rest when the empty line is there or a bound is
/// passed; so a head that trickles in is not parsed again and again either.
///
/// ```
/// use reev::http1::{Head, HeadDecoder, HeaderSlots, Limits};
///
/// let (mut decoder, limits) = (HeadDecoder::default(), Limits::default());
/// let buf = b"GET /hello?x=1 HTTP/1.1\r\nHost: a\r\n\r\nthe next";
///
/// let mut slots = HeaderSlots::new();
/// assert!(matches!(decoder.decode(&buf[..20], &mut slots, &limits)?, Head::Partial));
///
/// let mut slots = HeaderSlots::new();
/// let Head::Complete { request, used } = decoder.decode(buf, &mut slots, &limits)? else {
///     panic!("it is all there");
/// };
/// assert_eq!((request.method(), request.path(), request.query()), ("GET", "/hello", Some("x=1")));
/// assert_eq!(&buf[used..], b"the next");
/// # Ok::<(), reev::http1::Reject>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct HeadDecoder {
    state: State,
}

#[derive(Clone, Debug, Default)]
enum State {
    #[default]
    Start,
    Partial {
        /// Bytes of the buffer that have been looked at.
        searched: u32,
        /// The request line is complete and valid.
        line_checked: bool,
    },
    Refused(Reject),
}

impl<'b> HeaderSlots<'b> {
    /// Empty slots; free of cost.
    #[inline]
    pub const fn new() -> Self {
        Self { inline: [const { MaybeUninit::uninit() }; HEADERS_INLINE], spill: Vec::new() }
    }
}

impl Default for HeaderSlots<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl HeadDecoder {
    /// Looks for one head at the start of `buf`, whose bytes must be those of the last call if that
    /// answered [`Head::Partial`], and more behind them. After an error every call answers the same
    /// error.
    #[inline]
    pub fn decode<'b: 's, 's>(
        &mut self,
        buf: &'b [u8],
        slots: &'s mut HeaderSlots<'b>,
        limits: &Limits,
    ) -> Result<Head<'s>, Reject> {
        if !matches!(self.state, State::Start) && !self.has_news(buf, limits)? {
            return Ok(Head::Partial);
        }
        let start = match buf.first() {
            Some(b'\r' | b'\n') | None => match after_empty_line(buf) {
                Ok(Some(start)) => start,
                Ok(None) => return Ok(Head::Partial),
                Err(reject) => return Err(self.refuse(reject)),
            },
            Some(_) => 0,
        };
        let message = &buf[start..];
        let refused = match parse(
            message,
            &mut slots.inline[..limits.headers_max.min(HEADERS_INLINE)],
            limits,
        ) {
            Parsed::Complete(request, used) => {
                self.state = State::Start;
                return Ok(Head::Complete { request, used: start + used });
            }
            Parsed::Partial => None,
            Parsed::Refused(reject) => Some(reject),
        };
        if refused == Some(Reject::TooManyHeaders) && limits.headers_max > HEADERS_INLINE {
            return self.decode_many(buf, start, &mut slots.spill, limits);
        }
        self.wait(buf, start, limits, refused)
    }

    /// Looks whether the head at the start of `buf` is like the one before it: the same but for
    /// its request line. Requests that follow each other on a connection mostly are, and then
    /// the header fields need not be read again.
    ///
    /// `last` are the bytes from which `request` was decoded, up to `used`. None says nothing:
    /// [`decode`](Self::decode) finds out then, with the same result for what this accepts.
    #[inline]
    pub fn again<'s>(
        &self,
        buf: &'s [u8],
        last: &[u8],
        request: &Request<'s>,
        limits: &Limits,
    ) -> Option<(Request<'s>, usize)> {
        if !matches!(self.state, State::Start) {
            return None;
        }
        if buf.starts_with(last) {
            return Some((*request, last.len()));
        }
        same_fields(buf, last, request, limits)
    }

    /// Whether a request has begun but its head is not complete: what a header timeout is for.
    pub fn is_partial(&self) -> bool {
        matches!(self.state, State::Partial { .. })
    }

    /// Whether the bytes behind those of the last call can change the answer.
    #[cold]
    fn has_news(&mut self, buf: &[u8], limits: &Limits) -> Result<bool, Reject> {
        let (searched, line_checked) = match self.state {
            State::Start => return Ok(true),
            State::Refused(reject) => return Err(reject),
            State::Partial { searched, line_checked } => {
                ((searched as usize).min(buf.len()), line_checked)
            }
        };
        let bound = if line_checked { limits.head_bytes_max } else { line::bytes_max(limits) };
        let news = searched < 2
            || buf.len() >= bound
            || memchr::memchr_iter(b'\n', &buf[searched..])
                .any(|at| !line_checked || ends_head(buf, searched + at));
        if !news {
            self.state = State::Partial { searched: count(buf), line_checked };
        }
        Ok(news)
    }

    /// Tries again on the heap, for a head with more fields than fit inline.
    #[cold]
    fn decode_many<'b: 's, 's>(
        &mut self,
        buf: &'b [u8],
        start: usize,
        spill: &'s mut Vec<MaybeUninit<Header<'b>>>,
        limits: &Limits,
    ) -> Result<Head<'s>, Reject> {
        spill.resize(limits.headers_max, MaybeUninit::uninit());
        match parse(&buf[start..], spill, limits) {
            Parsed::Complete(request, used) => {
                self.state = State::Start;
                Ok(Head::Complete { request, used: start + used })
            }
            Parsed::Partial => self.wait(buf, start, limits, None),
            Parsed::Refused(reject) => self.wait(buf, start, limits, Some(reject)),
        }
    }

    /// Decides about a head that could not be taken: refused now, or later.
    #[cold]
    fn wait<'s>(
        &mut self,
        buf: &[u8],
        start: usize,
        limits: &Limits,
        invalid: Option<Reject>,
    ) -> Result<Head<'s>, Reject> {
        let message = &buf[start..];
        let line_bytes_max = line::bytes_max(limits);
        let line_end = memchr::memchr(b'\n', &message[..message.len().min(line_bytes_max)]);
        if let Some(lf) = line_end {
            line::check(&message[..=lf], limits).map_err(|reject| self.refuse(reject))?;
            let section = &message[..message.len().min(limits.head_bytes_max)];
            let end = memchr::memchr_iter(b'\n', &section[lf + 1..])
                .map(|at| lf + 1 + at)
                .find(|&at| ends_head(section, at));
            match (end, invalid) {
                (None, _) if message.len() >= limits.head_bytes_max => {
                    return Err(self.refuse(Reject::HeadTooLarge));
                }
                (Some(_), Some(Reject::TooManyHeaders)) => {
                    return Err(self.refuse(Reject::TooManyHeaders));
                }
                (Some(end), Some(reject)) => {
                    let found = line::check_fields(&message[lf + 1..=end]).err();
                    return Err(self.refuse(found.unwrap_or(reject)));
                }
                _ => {}
            }
        } else if message.len() >= line_bytes_max {
            return Err(self.refuse(line::too_long(message)));
        }
        self.state = State::Partial { searched: count(buf), line_checked: line_end.is_some() };
        Ok(Head::Partial)
    }

    #[cold]
    fn refuse(&mut self, reject: Reject) -> Reject {
        self.state = State::Refused(reject);
        reject
    }
}

enum Parsed<'s> {
    Complete(Request<'s>, usize),
    Partial,
    /// To be answered with this, unless the careful reading knows better.
    Refused(Reject),
}

/// Inlined with all it calls: a request that is handed from function to function is copied each
/// time, which was a tenth of the time a head takes (`examples/http1_cost.rs`).
#[inline(always)]
fn parse<'b: 's, 's>(
    buf: &'b [u8],
    slots: &'s mut [MaybeUninit<Header<'b>>],
    limits: &Limits,
) -> Parsed<'s> {
    let mut head = httparse::Request::new(&mut []);
    let used = match head.parse_with_uninit_headers(buf, slots) {
        Ok(Status::Complete(used)) => used,
        Ok(Status::Partial) => return Parsed::Partial,
        Err(Error::TooManyHeaders) => return Parsed::Refused(Reject::TooManyHeaders),
        Err(Error::HeaderValue) => return Parsed::Refused(Reject::FieldValue),
        Err(Error::NewLine) => return Parsed::Refused(Reject::BareCr),
        Err(_) => return Parsed::Refused(Reject::FieldName),
    };
    let httparse::Request {
        method: Some(method),
        path: Some(target),
        version: Some(minor),
        headers,
    } = head
    else {
        return Parsed::Refused(Reject::RequestLine);
    };
    let headers: &'s [Header<'b>] = headers;
    // httparse ends lines at LF alone too. Field lines are looked at with the framing; here are the
    // first line and the empty one.
    let line_end = method.len() + target.len() + "  HTTP/1.1".len();
    if buf.get(line_end) != Some(&b'\r') || buf.get(used.wrapping_sub(2)) != Some(&b'\r') {
        return Parsed::Refused(Reject::BareLf);
    }
    if method.len() > line::METHOD_BYTES_MAX
        || target.len() > limits.target_bytes_max
        || used > limits.head_bytes_max
    {
        return Parsed::Refused(Reject::HeadTooLarge);
    }
    if let Err(reject) = target::check(method, target) {
        return Parsed::Refused(reject);
    }
    match framing::read(buf, headers, minor == 1, limits) {
        Ok(framing) => {
            let version = if minor == 1 { Version::Http11 } else { Version::Http10 };
            Parsed::Complete(
                Request {
                    method,
                    target,
                    version,
                    headers,
                    framing,
                    content: &[],
                    head_len: used as u32,
                },
                used,
            )
        }
        Err(reject) => Parsed::Refused(reject),
    }
}

/// The request at the start of `buf`, if only its request line differs from that of `last`.
#[inline]
fn same_fields<'s>(
    buf: &'s [u8],
    last: &[u8],
    request: &Request<'s>,
    limits: &Limits,
) -> Option<(Request<'s>, usize)> {
    let last_line = request.method.len() + request.target.len() + "  HTTP/1.1\r\n".len();
    // An empty line before the last request is not part of what has to be the same.
    let fields = last.get(last.len().checked_sub(request.head_len as usize)? + last_line..)?;
    let line_end = memchr::memchr(b'\n', &buf[..buf.len().min(line::bytes_max(limits))])? + 1;
    let (line, rest) = buf.split_at(line_end);
    let used = line_end + fields.len();
    if !rest.starts_with(fields) || used > limits.head_bytes_max {
        return None;
    }
    line::check(line, limits).ok()?;
    let mut parts = str::from_utf8(line).ok()?.split(' ');
    let (method, target) = (parts.next()?, parts.next()?);
    let minor = if request.version == Version::Http11 { "HTTP/1.1\r\n" } else { "HTTP/1.0\r\n" };
    let same = parts.next()? == minor;
    same.then_some((Request { method, target, head_len: used as u32, ..*request }, used))
}

/// Where the message starts behind one empty line (RFC 9112 section 2.2); none while that cannot be
/// said.
#[cold]
fn after_empty_line(buf: &[u8]) -> Result<Option<usize>, Reject> {
    match buf {
        [] | [b'\r'] | [b'\r', b'\n'] => Ok(None),
        [b'\r', b'\n', b'\r' | b'\n', ..] => Err(Reject::EmptyLines),
        [b'\r', b'\n', ..] => Ok(Some(2)),
        [b'\n', ..] => Err(Reject::BareLf),
        _ => Err(Reject::BareCr),
    }
}

/// How much was looked at; kept in 32 bits, because a decoder is part of every idle connection.
fn count(buf: &[u8]) -> u32 {
    u32::try_from(buf.len()).unwrap_or(u32::MAX)
}

/// Whether the LF at `lf` ends an empty line, with CR before it or without.
fn ends_head(buf: &[u8], lf: usize) -> bool {
    matches!(&buf[..lf], [.., b'\n'] | [.., b'\n', b'\r'])
}
