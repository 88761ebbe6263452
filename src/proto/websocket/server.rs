//! The server's side of the opening handshake (RFC 6455 section 4.2).

use super::extension::{self, Agreed, DeflateConfig, DeflateParams};
use super::handshake::{ACCEPT_LEN, Headers, Once, VERSION, accept_value, is_key};
use super::tokens::elements;

/// What a server has to offer.
#[derive(Clone, Debug, Default)]
pub struct Options<'o> {
    /// The subprotocols it speaks. Of those that the client asks for, the first in the client's order is chosen.
    pub protocols: &'o [&'o str],
    /// permessage-deflate; `None` declines it.
    pub deflate: Option<&'o DeflateConfig>,
}

/// A request that can be accepted. The connection is a WebSocket once the response has been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accept<'h> {
    /// The subprotocol chosen.
    pub protocol: Option<&'h str>,
    /// What was agreed on compression.
    pub deflate: Option<DeflateParams>,
    /// The page that asks, if a browser does: the caller may refuse it with [`Reject::Forbidden`], and should where
    /// cookies grant rights (RFC 6455 section 10.2).
    pub origin: Option<&'h [u8]>,
    /// The request's `Host`.
    pub host: &'h [u8],
    accept: [u8; ACCEPT_LEN],
    extensions: Option<String>,
}

/// Why a request is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reject {
    /// 400: it does not follow RFC 6455 section 4.2.1; the reason in words.
    BadRequest(&'static str),
    /// 403: the caller does not accept this origin or client.
    Forbidden,
    /// 405: the method is not GET.
    Method,
    /// 426: no WebSocket handshake at all.
    NotUpgrade,
    /// 426: a version other than 13.
    Version,
}

/// Looks at a request. `http_1_minor` is the y of `HTTP/1.y`; the headers are in order, undecoded.
///
/// # Errors
/// The response to send instead.
///
/// ```
/// use reev::websocket::server::{Options, Reject, accept};
///
/// let headers: [(&[u8], &[u8]); 5] = [
///     (b"Host", b"example.org"),
///     (b"Upgrade", b"websocket"),
///     (b"Connection", b"Upgrade"),
///     (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
///     (b"Sec-WebSocket-Version", b"13"),
/// ];
/// let accepted = accept(b"GET", 1, headers, &Options::default()).expect("a handshake");
/// let mut response = Vec::new();
/// accepted.write(&[("Set-Cookie", "a=b")], &mut response);
/// assert!(response.starts_with(b"HTTP/1.1 101 Switching Protocols\r\n"));
///
/// assert_eq!(accept(b"POST", 1, headers, &Options::default()), Err(Reject::Method));
/// ```
pub fn accept<'h>(
    method: &[u8],
    http_1_minor: u8,
    headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
    options: &Options<'_>,
) -> Result<Accept<'h>, Reject> {
    if method != b"GET" {
        return Err(Reject::Method);
    }
    if http_1_minor < 1 {
        return Err(Reject::BadRequest("HTTP/1.1 is needed"));
    }
    let headers = Headers::read(headers);
    if !headers.upgrade {
        return Err(Reject::NotUpgrade);
    }
    if !headers.connection {
        return Err(Reject::BadRequest("Connection does not list upgrade"));
    }
    let Once::Is(host) = headers.host else { return Err(Reject::BadRequest("one Host is needed")) };
    match headers.version {
        Once::Is(VERSION) => {}
        Once::Is(_) => return Err(Reject::Version),
        _ => return Err(Reject::BadRequest("one Sec-WebSocket-Version is needed")),
    }
    let key = match headers.key {
        Once::Is(key) if is_key(key) => key,
        _ => {
            return Err(Reject::BadRequest(
                "one Sec-WebSocket-Key of 16 bytes in base64 is needed",
            ));
        }
    };
    let origin = match headers.origin {
        Once::Is(origin) => Some(origin),
        Once::Missing => None,
        Once::Repeated => return Err(Reject::BadRequest("more than one Origin")),
    };
    let agreed = match options.deflate {
        None => extension::answer(headers.extensions.iter().copied(), &DeflateConfig::default())
            .map(|_| None),
        Some(wish) => extension::answer(headers.extensions.iter().copied(), wish),
    };
    let agreed = agreed.map_err(|_| Reject::BadRequest("malformed Sec-WebSocket-Extensions"))?;
    let (deflate, extensions) = agreed.map(|Agreed { params, header }| (params, header)).unzip();
    Ok(Accept {
        protocol: choose(&headers.protocols, options.protocols),
        deflate,
        origin,
        host,
        accept: accept_value(key),
        extensions,
    })
}

impl Accept<'_> {
    /// Appends the whole 101 response. `extra` are headers of the caller's, such as cookies; their validity is the
    /// caller's affair.
    pub fn write(&self, extra: &[(&str, &str)], out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
        self.headers().for_each(|(name, value)| put_header(name, value, out));
        extra.iter().for_each(|(name, value)| put_header(name, value.as_bytes(), out));
        out.extend_from_slice(b"\r\n");
    }

    /// The headers of the 101 response, for a caller who writes it.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        [
            ("Upgrade", &b"websocket"[..]),
            ("Connection", b"Upgrade"),
            ("Sec-WebSocket-Accept", &self.accept[..]),
        ]
        .into_iter()
        .chain(self.protocol.map(|protocol| ("Sec-WebSocket-Protocol", protocol.as_bytes())))
        .chain(self.extensions.as_ref().map(|value| ("Sec-WebSocket-Extensions", value.as_bytes())))
    }
}

impl Reject {
    /// The status of the response.
    pub fn status(self) -> u16 {
        match self {
            Reject::BadRequest(_) => 400,
            Reject::Forbidden => 403,
            Reject::Method => 405,
            Reject::NotUpgrade | Reject::Version => 426,
        }
    }

    /// What the body of the response says.
    pub fn message(self) -> &'static str {
        match self {
            Reject::BadRequest(why) => why,
            Reject::Forbidden => "not allowed",
            Reject::Method => "GET is needed",
            Reject::NotUpgrade => "a WebSocket handshake is needed",
            Reject::Version => "WebSocket version 13 is needed",
        }
    }

    /// The headers that the status asks for (RFC 9110 sections 15.5.6 and 15.5.22, RFC 6455 section 4.4).
    pub fn headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Reject::BadRequest(_) | Reject::Forbidden => &[],
            Reject::Method => &[("Allow", "GET")],
            Reject::NotUpgrade | Reject::Version => {
                &[("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
            }
        }
    }

    /// Appends the whole response, after which the connection is to be closed.
    pub fn write(self, out: &mut Vec<u8>) {
        let phrase = match self {
            Reject::BadRequest(_) => "Bad Request",
            Reject::Forbidden => "Forbidden",
            Reject::Method => "Method Not Allowed",
            Reject::NotUpgrade | Reject::Version => "Upgrade Required",
        };
        out.extend_from_slice(format!("HTTP/1.1 {} {phrase}\r\n", self.status()).as_bytes());
        self.headers().iter().for_each(|(name, value)| put_header(name, value.as_bytes(), out));
        let message = self.message();
        // An upgrade that is asked for must be named in Connection (RFC 9110 section 7.8).
        let connection = if self.status() == 426 { "close, Upgrade" } else { "close" };
        put_header("Connection", connection.as_bytes(), out);
        put_header("Content-Type", b"text/plain", out);
        put_header("Content-Length", message.len().to_string().as_bytes(), out);
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(message.as_bytes());
    }
}

/// The client's first wish that this side can meet.
fn choose<'h>(asked: &[&'h [u8]], spoken: &[&str]) -> Option<&'h str> {
    let found = asked
        .iter()
        .flat_map(|value| elements(value))
        .find(|wish| spoken.iter().any(|s| s.as_bytes() == *wish));
    found.and_then(|protocol| std::str::from_utf8(protocol).ok())
}

fn put_header(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
