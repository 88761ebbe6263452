use super::body::BodyKind;
use super::framing::Framing;
use super::{list, target};

/// The version of a request. Answers are always of version 1.1 (RFC 9110 section 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0: closes by default, knows neither chunked nor interim answers.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A request head that has passed every check. It borrows the bytes it was read from.
///
/// ```
/// use reev::http1::{Fields, Request, Response, Service, Status};
///
/// struct Search;
///
/// impl Service for Search {
///     fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
///         let words = req.query().and_then(|query| query.strip_prefix("q="));
///         match (req.method(), words) {
///             ("GET" | "HEAD", Some(words)) => res.body(words.as_bytes()),
///             ("GET" | "HEAD", None) => res.send(Status::BAD_REQUEST, Fields::NONE, b"no q\n"),
///             _ => res.send(Status::METHOD_NOT_ALLOWED, Fields::new("Allow: GET, HEAD\r\n"), b""),
///         }
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) version: Version,
    pub(super) headers: &'a [httparse::Header<'a>],
    pub(super) framing: Framing<'a>,
    pub(super) content: &'a [u8],
    /// Bytes of the head, without an empty line before it.
    pub(super) head_len: u32,
}

impl<'a> Request<'a> {
    /// The method, a token; methods are case-sensitive.
    #[inline]
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The target as it was sent: origin form (`/a?b`), absolute form, `*` or, with CONNECT,
    /// `host:port`. ASCII, without controls, spaces and `#`; not percent-decoded.
    #[inline]
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The path of the target, not percent-decoded: `/` if an absolute form has none, `*` for
    /// `OPTIONS *`, and empty for CONNECT.
    pub fn path(&self) -> &'a str {
        let (path, _) = self.path_and_query();
        path
    }

    /// What follows the first `?` of the target.
    pub fn query(&self) -> Option<&'a str> {
        let (_, query) = self.path_and_query();
        query
    }

    /// The version.
    #[inline]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The header fields, in order.
    #[inline]
    pub fn headers(&self) -> Headers<'a> {
        Headers { fields: self.headers }
    }

    /// The value of the first field of this name, which is compared without case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find(name)
    }

    /// The authority that is asked for, `host[:port]`: that of the target if it has one, else that
    /// of Host (RFC 9112 section 3.3). None only in HTTP/1.0.
    pub fn authority(&self) -> Option<&'a [u8]> {
        if self.target.starts_with('/') || self.target == "*" {
            return self.framing.host;
        }
        let authority =
            target::split_absolute(self.target).map_or(self.target, |(_, authority, _)| authority);
        Some(authority.as_bytes())
    }

    /// How the body is framed.
    #[inline]
    pub fn body_kind(&self) -> BodyKind {
        self.framing.body
    }

    /// The content, if it was collected before the request was handed on; empty in what
    /// [`HeadDecoder`](super::HeadDecoder) gives, and for a body that is streamed.
    #[inline]
    pub fn body(&self) -> &'a [u8] {
        self.content
    }

    /// The same request with its content.
    pub(super) fn with_content(self, content: &'a [u8]) -> Self {
        Self { content, ..self }
    }

    /// Whether the connection may carry another request after this one (RFC 9112 section 9.3).
    #[inline]
    pub fn keep_alive(&self) -> bool {
        self.framing.keep_alive
    }

    /// Whether to send `100 Continue` before reading the body. `body_arrived`: some of it has been
    /// received already, so that the client is not waiting (RFC 9110 section 10.1.1).
    #[inline]
    pub fn wants_continue(&self, body_arrived: bool) -> bool {
        self.framing.expects_continue && !body_arrived
    }

    /// Whether the client offers to go on with `protocol`, say `websocket`: an Upgrade field names
    /// it, with any version, and Connection lists `upgrade` (RFC 9110 section 7.8). Never in
    /// HTTP/1.0.
    pub fn wants_upgrade(&self, protocol: &str) -> bool {
        self.framing.upgrade
            && self.headers().all("upgrade").flat_map(list::elements).any(|offer| {
                let name = offer.split(|&b| b == b'/').next().unwrap_or_default();
                name.eq_ignore_ascii_case(protocol.as_bytes())
            })
    }

    /// What this request lays down for its answer.
    #[inline]
    pub fn reply(&self) -> Reply {
        Reply {
            version: self.version,
            keep_alive: self.framing.keep_alive,
            head: self.method == "HEAD",
            connect: self.method == "CONNECT",
        }
    }

    fn path_and_query(&self) -> (&'a str, Option<&'a str>) {
        let relative = match self.target.as_bytes().first() {
            Some(b'/' | b'*') => self.target,
            _ => target::split_absolute(self.target).map_or("", |(_, _, rest)| rest),
        };
        match relative.split_once('?') {
            Some((path, query)) => (if path.is_empty() { "/" } else { path }, Some(query)),
            None if relative.is_empty() && self.method != "CONNECT" => ("/", None),
            None => (relative, None),
        }
    }
}

/// The header fields of a request, in the order in which they were sent.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    fields: &'a [httparse::Header<'a>],
}

impl<'a> Headers<'a> {
    /// How many field lines there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// All field lines: the name as it was sent, the value without white space around it.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.fields.iter().map(|field| (field.name, field.value))
    }

    /// The value of the first field of this name, which is compared without case.
    pub fn find(&self, name: &str) -> Option<&'a [u8]> {
        self.fields
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// The values of all fields of this name.
    pub fn all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.fields
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// Whether any field of this name, taken as a list of tokens, has `token`; neither is compared
    /// with case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).any(|value| list::contains(value, token))
    }
}

/// What a request lays down for its answer, to be kept until the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    pub(super) version: Version,
    pub(super) keep_alive: bool,
    /// The answer to HEAD: header fields as for GET, and no content.
    pub(super) head: bool,
    /// A 2xx answer to CONNECT has no framing fields and no content.
    pub(super) connect: bool,
}

impl Reply {
    /// The answer to what could not be read as a request: the connection closes after it.
    pub const fn refused() -> Self {
        Self { version: Version::Http11, keep_alive: false, head: false, connect: false }
    }

    /// What most requests lay down.
    #[inline]
    pub(super) fn is_usual(self) -> bool {
        self == Self { version: Version::Http11, keep_alive: true, head: false, connect: false }
    }

    /// The connection is one that another protocol can take over.
    pub(super) fn may_upgrade(self) -> bool {
        self.version == Version::Http11 && self.keep_alive
    }

    /// Makes this the connection's last answer.
    pub fn close(&mut self) {
        self.keep_alive = false;
    }

    /// Whether the connection goes on after the answer.
    #[inline]
    pub fn keep_alive(self) -> bool {
        self.keep_alive
    }
}
