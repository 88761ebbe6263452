//! The careful reading of a request line and of a header section: it finds out what is wrong with
//! them. Only heads that are incomplete or refused come here.

use super::chars::{is_token, is_value};
use super::limits::Limits;
use super::reject::Reject;
use super::target;

/// No registered method is longer than 17 bytes.
pub(super) const METHOD_BYTES_MAX: usize = 32;

/// The longest request line that can be accepted, with its CRLF.
pub(super) fn bytes_max(limits: &Limits) -> usize {
    (METHOD_BYTES_MAX + limits.target_bytes_max + " ".len() + " HTTP/1.1\r\n".len())
        .min(limits.head_bytes_max)
}

/// Checks a request line, given up to and with its LF (RFC 9112 section 3).
#[cold]
pub(super) fn check(line: &[u8], limits: &Limits) -> Result<(), Reject> {
    let line = strip_line_end(line)?;
    let (method, rest) = split_at_space(line).ok_or(Reject::RequestLine)?;
    if method.is_empty() || !method.iter().all(|&b| is_token(b)) {
        return Err(Reject::Method);
    }
    if method.len() > METHOD_BYTES_MAX {
        return Err(Reject::MethodTooLong);
    }
    let (uri, version) = split_at_space(rest).ok_or(Reject::RequestLine)?;
    if uri.is_empty() || version.contains(&b' ') {
        return Err(Reject::RequestLine);
    }
    if uri.len() > limits.target_bytes_max {
        return Err(Reject::TargetTooLong);
    }
    if !uri.iter().all(|b| (0x21..=0x7e).contains(b)) {
        return Err(Reject::Target);
    }
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" => {}
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Reject::VersionUnsupported);
        }
        _ => return Err(Reject::Version),
    }
    let text = |bytes| str::from_utf8(bytes).unwrap_or_default();
    target::check(text(method), text(uri))
}

/// What is wrong with a request line whose first [`bytes_max`] bytes have no LF.
#[cold]
pub(super) fn too_long(line: &[u8]) -> Reject {
    match split_at_space(&line[..line.len().min(METHOD_BYTES_MAX + 1)]) {
        None => Reject::MethodTooLong,
        Some(_) => Reject::TargetTooLong,
    }
}

/// Finds what is wrong with the field lines of a header section that ends with an empty line.
#[cold]
pub(super) fn check_fields(mut lines: &[u8]) -> Result<(), Reject> {
    while let Some(lf) = memchr::memchr(b'\n', lines) {
        check_field(strip_line_end(&lines[..=lf])?)?;
        lines = &lines[lf + 1..];
    }
    Ok(())
}

fn check_field(line: &[u8]) -> Result<(), Reject> {
    let name_end = line.iter().position(|&b| !is_token(b)).unwrap_or(line.len());
    match line.get(name_end) {
        None if line.is_empty() => return Ok(()),
        Some(b' ' | b'\t') if name_end == 0 => return Err(Reject::ObsFold),
        Some(b' ' | b'\t') if line[name_end..].contains(&b':') => {
            return Err(Reject::SpaceBeforeColon);
        }
        Some(b':') if name_end > 0 => {}
        _ => return Err(Reject::FieldName),
    }
    if line[name_end..].iter().all(|&b| is_value(b)) { Ok(()) } else { Err(Reject::FieldValue) }
}

fn strip_line_end(line: &[u8]) -> Result<&[u8], Reject> {
    let line = line.strip_suffix(b"\r\n").ok_or(Reject::BareLf)?;
    if line.contains(&b'\r') { Err(Reject::BareCr) } else { Ok(line) }
}

fn split_at_space(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|&b| b == b' ')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}
