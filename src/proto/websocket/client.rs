//! The client's side of the opening handshake (RFC 6455 section 4.1).

use super::extension::{self, DeflateConfig, DeflateParams};
use super::handshake::{Headers, KEY_LEN, Once, accept_value, encode};
use super::tokens::{elements, is_token};
use std::{error::Error, fmt, io};

/// The nonce of a handshake, in base64: a new one for every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; KEY_LEN]);

impl Key {
    /// From the operating system's random numbers.
    ///
    /// # Errors
    /// The operating system has none.
    pub fn random() -> io::Result<Self> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        Ok(Self::from_nonce(nonce))
    }

    /// From a given nonce.
    pub fn from_nonce(nonce: [u8; 16]) -> Self {
        Key(encode(&nonce))
    }
}

/// A client's request, and what its response is checked against.
///
/// ```
/// use reev::websocket::client::{HandshakeError, Key, Request};
///
/// let request = Request { protocols: &["chat"], ..Request::new("example.org", "/ws") };
/// let key = Key::random()?;
/// let mut head = Vec::new();
/// request.write(&key, &mut head)?;
/// assert!(head.starts_with(b"GET /ws HTTP/1.1\r\nHost: example.org\r\n"));
///
/// // What the server answered, parsed by an HTTP parser:
/// let headers: [(&[u8], &[u8]); 1] = [(b"Content-Length", b"0")];
/// assert_eq!(request.check(&key, 404, headers), Err(HandshakeError::Status(404)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Request<'o> {
    /// The `Host` header: the name, and the port unless it is the scheme's own.
    pub host: &'o str,
    /// The path and query, from `/` on.
    pub target: &'o str,
    /// The subprotocols asked for, the best first.
    pub protocols: &'o [&'o str],
    /// permessage-deflate; `None` does not offer it.
    pub deflate: Option<&'o DeflateConfig>,
    /// More headers, such as `Origin` or `Authorization`.
    pub headers: &'o [(&'o str, &'o str)],
}

/// A handshake that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established<'h> {
    /// The subprotocol that the server chose.
    pub protocol: Option<&'h str>,
    /// What was agreed on compression.
    pub deflate: Option<DeflateParams>,
}

/// Why a handshake failed; the socket is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A host, target, protocol or header that does not fit in a request. Nothing was written.
    Request,
    /// A status other than 101: a refusal, a redirection or a demand for authentication.
    Status(u16),
    /// The response does not upgrade to `websocket`.
    Upgrade,
    /// `Sec-WebSocket-Accept` does not answer the key.
    Accept,
    /// A subprotocol that was not asked for.
    Protocol,
    /// Extensions that were not offered, or parameters that do not honour the offer.
    Extensions,
}

impl<'o> Request<'o> {
    /// A plain request.
    pub fn new(host: &'o str, target: &'o str) -> Self {
        Request { host, target, protocols: &[], deflate: None, headers: &[] }
    }

    /// Appends the whole request head.
    ///
    /// # Errors
    /// [`HandshakeError::Request`] for a part that would break the head.
    pub fn write(&self, key: &Key, out: &mut Vec<u8>) -> Result<(), HandshakeError> {
        let visible =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let is_value =
            |text: &str| text.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
        let valid = visible(self.host)
            && visible(self.target)
            && self.target.starts_with('/')
            && self.protocols.iter().all(|protocol| is_token(protocol.as_bytes()))
            && self
                .headers
                .iter()
                .all(|(name, value)| is_token(name.as_bytes()) && is_value(value));
        if !valid {
            return Err(HandshakeError::Request);
        }
        let mut put = |parts: &[&[u8]]| {
            parts.iter().for_each(|part| out.extend_from_slice(part));
            out.extend_from_slice(b"\r\n");
        };
        put(&[b"GET ", self.target.as_bytes(), b" HTTP/1.1"]);
        put(&[b"Host: ", self.host.as_bytes()]);
        put(&[b"Upgrade: websocket"]);
        put(&[b"Connection: Upgrade"]);
        put(&[b"Sec-WebSocket-Key: ", &key.0]);
        put(&[b"Sec-WebSocket-Version: 13"]);
        if !self.protocols.is_empty() {
            put(&[b"Sec-WebSocket-Protocol: ", self.protocols.join(", ").as_bytes()]);
        }
        if let Some(deflate) = self.deflate {
            put(&[b"Sec-WebSocket-Extensions: ", extension::offer(deflate).as_bytes()]);
        }
        for (name, value) in self.headers {
            put(&[name.as_bytes(), b": ", value.as_bytes()]);
        }
        put(&[]);
        Ok(())
    }

    /// Checks the response to this request with this key.
    ///
    /// # Errors
    /// The response does not establish the connection that was asked for.
    pub fn check<'h>(
        &self,
        key: &Key,
        status: u16,
        headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>,
    ) -> Result<Established<'h>, HandshakeError> {
        if status != 101 {
            return Err(HandshakeError::Status(status));
        }
        let headers = Headers::read(headers);
        if !headers.upgrade || !headers.connection {
            return Err(HandshakeError::Upgrade);
        }
        if headers.accept != Once::Is(&accept_value(&key.0)) {
            return Err(HandshakeError::Accept);
        }
        let mut chosen = headers.protocols.iter().flat_map(|value| elements(value));
        let protocol = match (chosen.next(), chosen.next()) {
            (None, _) => None,
            (Some(one), None) if self.protocols.iter().any(|asked| asked.as_bytes() == one) => {
                std::str::from_utf8(one).ok()
            }
            _ => return Err(HandshakeError::Protocol),
        };
        let deflate = extension::check(headers.extensions.iter().copied(), self.deflate)
            .map_err(|_| HandshakeError::Extensions)?;
        Ok(Established { protocol, deflate })
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request => {
                f.write_str("websocket: host, target, protocols or headers do not fit in a request")
            }
            Self::Status(status) => {
                write!(f, "websocket: the server answered {status} instead of 101")
            }
            Self::Upgrade => f.write_str("websocket: the response does not upgrade to websocket"),
            Self::Accept => f.write_str("websocket: Sec-WebSocket-Accept does not answer the key"),
            Self::Protocol => {
                f.write_str("websocket: the server chose a subprotocol that was not asked for")
            }
            Self::Extensions => {
                f.write_str("websocket: the server's extensions do not honour the offer")
            }
        }
    }
}

impl Error for HandshakeError {}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}
