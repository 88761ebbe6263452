//! What the header fields say about the message: how long its body is, whether the connection
//! stays, for whom it is.

use super::body::BodyKind;
use super::chars::name_is;
use super::limits::Limits;
use super::list;
use super::reject::Reject;

/// The framing of a request whose fields have been read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing<'a> {
    pub(super) host: Option<&'a [u8]>,
    pub(super) body: BodyKind,
    pub(super) keep_alive: bool,
    pub(super) expects_continue: bool,
    /// `upgrade` is a connection option, so that an Upgrade field counts.
    pub(super) upgrade: bool,
}

/// Reads the framing fields in one pass. `head` is the buffer of which `headers` are slices; a
/// field line that does not end in CRLF is refused here, because httparse accepts LF.
#[inline(always)]
pub(super) fn read<'a>(
    head: &[u8],
    headers: &[httparse::Header<'a>],
    http11: bool,
    limits: &Limits,
) -> Result<Framing<'a>, Reject> {
    let mut found = Found::default();
    for header in headers {
        let value = header.value;
        let end = (value.as_ptr() as usize - head.as_ptr() as usize) + value.len();
        if head.get(end) != Some(&b'\r') {
            check_padded_line_end(&head[end..])?;
        }
        let name = header.name.as_bytes();
        match name.len() {
            4 if name_is(name, b"host") => found.host(value)?,
            6 if name_is(name, b"expect") => found.expect(value, http11)?,
            10 if name_is(name, b"connection") => found.connection(value),
            14 if name_is(name, b"content-length") => found.content_length(value)?,
            17 if name_is(name, b"transfer-encoding") => found.transfer_encoding(value, http11)?,
            _ => {}
        }
    }
    found.decide(http11, limits)
}

/// Whether a trailer field of this name could change how a message is framed, routed or read (RFC
/// 9110 section 6.5.1).
pub(super) fn is_forbidden_trailer(name: &[u8]) -> bool {
    const FORBIDDEN: [&[u8]; 12] = [
        b"authorization",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"expect",
        b"host",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ];
    FORBIDDEN.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

#[derive(Default)]
struct Found<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    expects_continue: bool,
}

impl<'a> Found<'a> {
    #[inline]
    fn host(&mut self, value: &'a [u8]) -> Result<(), Reject> {
        match self.host.replace(value) {
            None => Ok(()),
            Some(_) => Err(Reject::HostRepeated),
        }
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Reject> {
        match self.length.replace(content_length(value)?) {
            None => Ok(()),
            Some(_) => Err(Reject::LengthRepeated),
        }
    }

    #[inline]
    fn connection(&mut self, value: &[u8]) {
        // A value has no controls, so `name_is` compares it as well as a name.
        if name_is(value, b"keep-alive") {
            self.keep_alive = true;
        } else {
            self.connection_options(value);
        }
    }

    fn connection_options(&mut self, value: &[u8]) {
        for option in list::elements(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }

    fn expect(&mut self, value: &[u8], http11: bool) -> Result<(), Reject> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Reject::Expectation);
        }
        // RFC 9110 section 10.1.1: ignored in HTTP/1.0, whose clients cannot read an interim
        // response.
        self.expects_continue = http11;
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8], http11: bool) -> Result<(), Reject> {
        if !http11 {
            return Err(Reject::EncodingOnHttp10);
        }
        if self.chunked {
            // A second line continues the list of the first.
            return Err(after_chunked(value));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(bad_transfer_encoding(value));
        }
        self.chunked = true;
        Ok(())
    }

    #[inline(always)]
    fn decide(self, http11: bool, limits: &Limits) -> Result<Framing<'a>, Reject> {
        match self.host {
            None if http11 => return Err(Reject::HostMissing),
            Some(host) if !super::target::is_authority(host) => return Err(Reject::HostInvalid),
            _ => {}
        }
        let body = match (self.length, self.chunked) {
            (None, false) => BodyKind::Empty,
            (Some(_), true) => return Err(Reject::LengthWithEncoding),
            (None, true) if limits.length_required => return Err(Reject::LengthRequired),
            (None, true) => BodyKind::Chunked,
            (Some(0), false) => BodyKind::Empty,
            (Some(length), false) if length > limits.body_bytes_max => {
                return Err(Reject::BodyTooLarge);
            }
            (Some(length), false) => BodyKind::Length(length),
        };
        Ok(Framing {
            host: self.host,
            body,
            keep_alive: !self.close && (http11 || self.keep_alive),
            expects_continue: self.expects_continue && body != BodyKind::Empty,
            upgrade: self.upgrade && http11,
        })
    }
}

/// Digits only: no sign, no space inside, no list (RFC 9110 section 8.6).
fn content_length(value: &[u8]) -> Result<u64, Reject> {
    let mut length: u64 = 0;
    for &b in value {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Reject::LengthInvalid);
        }
        length = length
            .checked_mul(10)
            .and_then(|l| l.checked_add(digit.into()))
            .ok_or(Reject::LengthInvalid)?;
    }
    if value.is_empty() { Err(Reject::LengthInvalid) } else { Ok(length) }
}

/// Optional white space, then CR: the LF behind it httparse has seen.
#[cold]
fn check_padded_line_end(rest: &[u8]) -> Result<(), Reject> {
    match rest.iter().find(|&&b| !super::chars::is_space(b)) {
        Some(b'\r') => Ok(()),
        _ => Err(Reject::BareLf),
    }
}

#[cold]
fn after_chunked(value: &[u8]) -> Reject {
    if list::contains(value, "chunked") {
        Reject::EncodingRepeated
    } else {
        Reject::EncodingNotLast
    }
}

/// Why a value other than `chunked` is refused. Empty elements are too: nobody sends them in good
/// faith.
#[cold]
fn bad_transfer_encoding(value: &[u8]) -> Reject {
    let mut chunked = false;
    let mut reject = Reject::EncodingInvalid;
    for element in value.split(|&b| b == b',').map(super::chars::trim) {
        let coding =
            element.split(|&b| b == b';').next().map(super::chars::trim).unwrap_or_default();
        if coding.is_empty() || !coding.iter().all(|&b| super::chars::is_token(b)) {
            return Reject::EncodingInvalid;
        }
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
        if chunked {
            return if is_chunked { Reject::EncodingRepeated } else { Reject::EncodingNotLast };
        }
        if !is_chunked {
            reject = Reject::EncodingUnsupported;
        }
        chunked = is_chunked;
    }
    reject
}
