use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::chars::trim;
use super::request::Headers;

/// What identifies the version of a representation that the server would send (RFC 9110 section
/// 8.8).
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    /// The ETag with its quotes, and with `W/` if it is weak.
    pub etag: Option<&'a str>,
    /// The time of Last-Modified, in seconds since the epoch.
    pub modified_unix_seconds: Option<u64>,
}

/// Whether a request is to be answered with 412 (RFC 9110 section 13.2.2): an If-Match does not
/// name the ETag, both being strong, or, only without such a field, the representation is newer
/// than If-Unmodified-Since. To be asked before [`not_modified`] and [`if_range`]: so a download
/// that goes on later does not become a mixture of two files. An invalid date is ignored.
///
/// ```
/// use reev::http1::{Fields, Request, Response, Status, Validators, precondition_failed};
///
/// fn on_put(req: &Request<'_>, res: &mut Response<'_>, etag: &str) {
///     let current = Validators { etag: Some(etag), modified_unix_seconds: None };
///     if precondition_failed(req.headers(), current) {
///         return res.send(Status::PRECONDITION_FAILED, Fields::NONE, b"it has changed\n");
///     }
///     // ...
/// }
/// ```
pub fn precondition_failed(headers: Headers<'_>, current: Validators<'_>) -> bool {
    let mut matches = headers.all("if-match").peekable();
    if matches.peek().is_some() {
        return !matches.any(|value| names(value, current.etag, Comparison::Strong));
    }
    let since = headers.find("if-unmodified-since").and_then(unix_seconds);
    matches!((current.modified_unix_seconds, since), (Some(modified), Some(since)) if modified > since)
}

/// Whether a GET or HEAD is to be answered with 304 (RFC 9110 section 13.2.2): an If-None-Match
/// names the ETag, or, only without such a field, the representation is not newer than
/// If-Modified-Since. An invalid date is ignored.
///
/// ```
/// use reev::http1::{Request, Validators, not_modified};
///
/// /// Whether the client has this version already.
/// fn has_it(req: &Request<'_>, etag: &str) -> bool {
///     not_modified(req.headers(), Validators { etag: Some(etag), modified_unix_seconds: None })
/// }
/// ```
pub fn not_modified(headers: Headers<'_>, current: Validators<'_>) -> bool {
    let mut none_match = headers.all("if-none-match").peekable();
    if none_match.peek().is_some() {
        return none_match.any(|value| names(value, current.etag, Comparison::Weak));
    }
    let since = headers.find("if-modified-since").and_then(unix_seconds);
    matches!((current.modified_unix_seconds, since), (Some(modified), Some(since)) if modified <= since)
}

/// Whether a Range field counts: there is no If-Range, or it names this very representation, by a
/// strong ETag or by its exact date (RFC 9110 section 13.1.5).
pub fn if_range(headers: Headers<'_>, current: Validators<'_>) -> bool {
    match headers.find("if-range") {
        None => true,
        Some(value) if value.starts_with(b"\"") => {
            current.etag.is_some_and(|etag| etag.as_bytes() == value)
        }
        Some(value) if value.starts_with(b"W/") => false,
        Some(value) => {
            unix_seconds(value).is_some_and(|date| current.modified_unix_seconds == Some(date))
        }
    }
}

/// How entity tags are compared (RFC 9110 section 8.8.3.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    /// Both have to be strong.
    Strong,
    Weak,
}

/// Whether `*` or a list of entity tags names `etag`.
fn names(list: &[u8], etag: Option<&str>, by: Comparison) -> bool {
    if list == b"*" {
        return true;
    }
    let may_match = |tag: &[u8]| by == Comparison::Weak || !tag.starts_with(b"W/");
    let Some(etag) = etag.filter(|etag| may_match(etag.as_bytes())) else { return false };
    let wanted = opaque(etag.as_bytes());
    let mut rest = list;
    // Commas may stand inside the quotes, so the list is read tag by tag.
    loop {
        while let [b',' | b' ' | b'\t', tail @ ..] = rest {
            rest = tail;
        }
        let tag = opaque(rest);
        let [b'"', inner @ ..] = tag else { return false };
        let Some(end) = inner.iter().position(|&b| b == b'"') else { return false };
        if &tag[..end + 2] == wanted && may_match(rest) {
            return true;
        }
        rest = &tag[end + 2..];
    }
}

/// An entity tag without its weakness mark.
fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn unix_seconds(value: &[u8]) -> Option<u64> {
    let time: SystemTime = httpdate::parse_http_date(str::from_utf8(trim(value)).ok()?).ok()?;
    time.duration_since(UNIX_EPOCH).ok().as_ref().map(Duration::as_secs)
}
