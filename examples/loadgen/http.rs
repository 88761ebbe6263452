//! HTTP/1.1 requests, and the answers to them.

use std::fs;
use std::io::{self, Write};
use std::sync::Arc;

use reev::http1::{BodyDecoder, BodyKind, Limits, Step};

use crate::client::{Answer, Protocol, Wrong};
use crate::options;
use crate::target::{Url, invalid};

/// Header fields of an answer; more is refused.
const FIELDS_MAX: usize = 128;
/// Bytes of an answer's head; more is refused.
const HEAD_MAX: usize = 64 << 10;

const KIND: &str = "not an HTTP answer";

/// The request of all connections.
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    /// The answer to HEAD has no body, whatever its fields say.
    pub(crate) is_head: bool,
}

impl Request {
    pub(crate) fn new(options: &options::Http, url: &Url) -> io::Result<Request> {
        let body = match (&options.body, &options.body_file) {
            (Some(text), _) => text.clone().into_bytes(),
            (None, Some(path)) => fs::read(path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?,
            (None, None) => Vec::new(),
        };
        let has_body = options.body.is_some() || options.body_file.is_some();
        if !is_token(&options.method) {
            return Err(invalid(format!("--method {:?} is not a token", options.method)));
        }
        let given =
            options.headers.iter().map(|field| field_of(field)).collect::<Result<_, _>>()?;
        let mut fields: Vec<(&str, &str)> = given;
        let length = body.len().to_string();
        let agent = concat!("reev-loadgen/", env!("CARGO_PKG_VERSION"));
        let lengthy = has_body.then_some(("Content-Length", length.as_str()));
        for own in [Some(("Host", url.host.as_str())), Some(("User-Agent", agent)), lengthy] {
            if let Some(own) = own
                && !fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(own.0))
            {
                fields.push(own);
            }
        }
        let mut bytes = format!("{} {} HTTP/1.1\r\n", options.method, url.path).into_bytes();
        for (name, value) in fields {
            write!(bytes, "{name}: {value}\r\n")?;
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&body);
        Ok(Request { bytes, is_head: options.method == "HEAD" })
    }
}

/// The name and the value of a field as it is given on the command line.
pub(crate) fn field_of(field: &str) -> io::Result<(&str, &str)> {
    let parts = field.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
    let is_value = |text: &str| !text.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t');
    match parts {
        Some((name, value)) if is_token(name) && is_value(value) => Ok((name, value)),
        _ => Err(invalid(format!("--header {field:?}: write 'Name: value'"))),
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(part)
}

pub(crate) struct Http {
    request: Arc<Request>,
    reading: Reading,
    /// Of the answer that is being read.
    answer: Answer,
}

enum Reading {
    Head,
    Body(BodyDecoder),
    /// A body that the server's end completes.
    UntilEnd,
}

impl Http {
    pub(crate) fn new(request: Arc<Request>) -> Http {
        let answer = Answer { status: None, last: false };
        Http { request, reading: Reading::Head, answer }
    }

    /// Reads a head; the bytes that it took, or none if it is not whole.
    fn head(&mut self, data: &[u8]) -> Result<Option<usize>, Wrong> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let used = match response.parse(data) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) if data.len() < HEAD_MAX => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(wrong("its head is too long")),
            Err(error) => return Err(wrong(&error.to_string())),
        };
        let status = response.code.unwrap_or_default();
        if (100..200).contains(&status) {
            return match status {
                101 => Err(wrong("it switches to another protocol")),
                _ => Ok(Some(used)), // an interim answer: the real one follows
            };
        }
        let http11 = response.version == Some(1);
        let framing = Framing::read(response.headers)?;
        let empty = self.request.is_head || matches!(status, 204 | 304);
        let mut last = framing.close || !http11 && !framing.keep_alive;
        self.reading = match framing.body {
            _ if empty => Reading::Body(decoder(BodyKind::Empty)),
            Some(kind) => Reading::Body(decoder(kind)),
            None => {
                last = true;
                Reading::UntilEnd
            }
        };
        self.answer = Answer { status: Some(status), last };
        Ok(Some(used))
    }
}

/// What the fields of an answer say about its body and the connection.
struct Framing {
    /// None: it ends with the connection.
    body: Option<BodyKind>,
    close: bool,
    keep_alive: bool,
}

impl Framing {
    fn read(fields: &[httparse::Header<'_>]) -> Result<Framing, Wrong> {
        let (mut length, mut coding) = (None, None);
        let (mut close, mut keep_alive) = (false, false);
        for field in fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let text = std::str::from_utf8(field.value).unwrap_or_default();
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                match text.parse::<u64>() {
                    Ok(told) if digits && length.is_none_or(|before| before == told) => {
                        length = Some(told);
                    }
                    _ => return Err(wrong("its Content-Length makes no sense")),
                }
            } else if is("transfer-encoding") {
                coding = Some(field.value);
            } else if is("connection") {
                for option in field.value.split(|&byte| byte == b',') {
                    close |= option.trim_ascii().eq_ignore_ascii_case(b"close");
                    keep_alive |= option.trim_ascii().eq_ignore_ascii_case(b"keep-alive");
                }
            }
        }
        let last_coding = coding.and_then(|value| value.rsplit(|&byte| byte == b',').next());
        let body = match (last_coding, length) {
            (Some(coding), _) if coding.trim_ascii().eq_ignore_ascii_case(b"chunked") => {
                Some(BodyKind::Chunked)
            }
            (Some(_), _) | (None, None) => None,
            (None, Some(0)) => Some(BodyKind::Empty),
            (None, Some(length)) => Some(BodyKind::Length(length)),
        };
        Ok(Framing { body, close, keep_alive })
    }
}

/// Bodies are dropped as they come, so they may be of any length.
fn decoder(kind: BodyKind) -> BodyDecoder {
    let mut limits = Limits::default();
    limits.body_bytes_max = u64::MAX;
    limits.chunk_extension_bytes_max = u32::MAX;
    BodyDecoder::new(kind, &limits)
}

fn wrong(what: &str) -> Wrong {
    Wrong(KIND, what.to_owned())
}

impl Protocol for Http {
    fn request(&self) -> &[u8] {
        &self.request.bytes
    }

    fn parse(&mut self, data: &[u8], found: &mut dyn FnMut(Answer)) -> Result<usize, Wrong> {
        let mut used = 0;
        loop {
            let rest = &data[used..];
            match &mut self.reading {
                Reading::Head if rest.is_empty() => return Ok(used),
                Reading::Head => match self.head(rest)? {
                    Some(head) => used += head,
                    None => return Ok(used),
                },
                Reading::UntilEnd => return Ok(data.len()),
                Reading::Body(decoder) => {
                    let step = decoder.decode(rest).map_err(|reject| {
                        Wrong(KIND, format!("its chunks are broken: {reject}"))
                    })?;
                    used += step.used();
                    match step {
                        Step::Data { .. } | Step::Trailer { .. } => {}
                        Step::More { .. } => return Ok(used),
                        Step::End { .. } => {
                            self.reading = Reading::Head;
                            found(self.answer);
                            if self.answer.last {
                                return Ok(data.len()); // the server has said that it is done
                            }
                        }
                    }
                }
            }
        }
    }

    fn eof(&mut self) -> Option<Answer> {
        let complete = matches!(self.reading, Reading::UntilEnd);
        self.reading = Reading::Head;
        complete.then_some(self.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statuses found in `stream`, cut into pieces of `cut` bytes and kept as the framework
    /// keeps what is not used.
    fn statuses(stream: &[u8], cut: usize, is_head: bool) -> Result<Vec<Answer>, Wrong> {
        let mut http = Http::new(Arc::new(Request { bytes: Vec::new(), is_head }));
        let (mut found, mut kept) = (Vec::new(), Vec::new());
        for piece in stream.chunks(cut) {
            kept.extend_from_slice(piece);
            let used = http.parse(&kept, &mut |answer| found.push(answer))?;
            kept.drain(..used);
        }
        found.extend(http.eof());
        Ok(found)
    }

    fn of(status: u16, last: bool) -> Answer {
        Answer { status: Some(status), last }
    }

    #[test]
    fn answers_are_found_however_they_are_framed_and_cut() {
        let stream = concat!(
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "5;x=y\r\nhello\r\n0\r\nSum: t\r\n\r\n",
            "HTTP/1.1 204 Nothing\r\n\r\nHTTP/1.1 304 Same\r\nContent-Length: 9\r\n\r\n",
            "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx",
            "HTTP/1.1 500 Oh\r\nConnection: foo, Close\r\nContent-Length: 1\r\n\r\nx",
        )
        .as_bytes();
        let expected = [
            of(200, false),
            of(404, false),
            of(200, false),
            of(204, false),
            of(304, false),
            of(200, false),
            of(500, true),
        ];
        for cut in 1..=stream.len() {
            assert_eq!(statuses(stream, cut, false).as_deref(), Ok(&expected[..]), "cut at {cut}");
        }
    }

    #[test]
    fn a_body_may_end_with_the_connection_and_one_to_head_is_never_there() {
        let stream = b"HTTP/1.1 200 OK\r\n\r\nno end in sight";
        assert_eq!(statuses(stream, 7, false), Ok(vec![of(200, true)]));
        let stream = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".repeat(2);
        assert_eq!(statuses(&stream, 7, true), Ok(vec![of(200, false); 2]));
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(HEAD_MAX));
        for (stream, says) in [
            ("SSH-2.0\r\n\r\n", "HTTP version"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "Content-Length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "Content-Length"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "chunks"),
            ("HTTP/1.1 101 Other\r\n\r\n", "another protocol"),
            (&long, "too long"),
        ] {
            let Wrong(kind, what) = statuses(stream.as_bytes(), usize::MAX, false).unwrap_err();
            assert_eq!(kind, KIND);
            assert!(what.contains(says), "{what}");
        }
    }

    #[test]
    fn fields_have_a_name_and_a_value() {
        assert_eq!(field_of("X-A:  b: c ").unwrap(), ("X-A", "b: c"));
        for wrong in ["X-A", ": b", "X A: b", "X: a\r\nY: b"] {
            assert!(field_of(wrong).is_err(), "{wrong}");
        }
    }
}
