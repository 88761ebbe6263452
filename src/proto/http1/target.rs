use std::net::Ipv6Addr;

use super::chars::{has_hash_or_non_ascii, is_reg_name};
use super::reject::Reject;

/// Checks the form of a target (RFC 9112 section 3.2), of which httparse has seen that it has
/// neither controls nor spaces.
#[inline(always)]
pub(super) fn check(method: &str, target: &str) -> Result<(), Reject> {
    let invalid = has_hash_or_non_ascii(target.as_bytes());
    if !invalid && target.as_bytes().first() == Some(&b'/') && method != "CONNECT" {
        return Ok(());
    }
    if invalid { Err(Reject::Target) } else { other_form(method, target) }
}

/// Scheme, authority and the rest of a target in absolute form (RFC 9112 section 3.2.2).
pub(super) fn split_absolute(target: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = target.split_once("://")?;
    let mut bytes = scheme.bytes();
    let well_formed = bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let end = rest.bytes().position(|b| b == b'/' || b == b'?').unwrap_or(rest.len());
    well_formed.then(|| (scheme, &rest[..end], &rest[end..]))
}

/// Whether `value` is `uri-host [ ":" port ]` (RFC 9112 section 3.2), which may be empty.
#[inline(always)]
pub(super) fn is_authority(value: &[u8]) -> bool {
    let end = value.iter().position(|&b| !is_reg_name(b)).unwrap_or(value.len());
    match value.get(end) {
        None => true,
        Some(b':') => is_port(&value[end + 1..]),
        Some(_) => is_rare_authority(value),
    }
}

#[cold]
fn other_form(method: &str, target: &str) -> Result<(), Reject> {
    let fits = if method == "CONNECT" {
        // The port is required, and there is no default for it (RFC 9110 section 9.3.6).
        let (host, port) = target.rsplit_once(':').unwrap_or((target, ""));
        !host.is_empty() && !port.is_empty() && is_authority(target.as_bytes())
    } else if target == "*" {
        method == "OPTIONS"
    } else {
        // An empty host is invalid, and user information is refused (RFC 9110 sections 4.2.1 and
        // 4.2.4).
        split_absolute(target).is_some_and(|(_, authority, _)| {
            !authority.is_empty()
                && !authority.starts_with(':')
                && is_authority(authority.as_bytes())
        })
    };
    if fits { Ok(()) } else { Err(Reject::TargetForm) }
}

#[inline]
fn is_port(port: &[u8]) -> bool {
    port.len() <= 5 && port.iter().all(u8::is_ascii_digit)
}

/// The forms with an IP literal in brackets or with percent-encoding (RFC 3986 section 3.2.2).
#[cold]
fn is_rare_authority(value: &[u8]) -> bool {
    let (host_is_valid, rest) = if value.first() == Some(&b'[') {
        let Some(end) = value.iter().position(|&b| b == b']') else { return false };
        let literal = str::from_utf8(&value[1..end]).unwrap_or_default();
        (literal.parse::<Ipv6Addr>().is_ok(), &value[end + 1..])
    } else {
        let end = value.iter().position(|&b| b == b':').unwrap_or(value.len());
        (is_encoded_reg_name(&value[..end]), &value[end..])
    };
    host_is_valid
        && match rest {
            [] => true,
            [b':', port @ ..] => is_port(port),
            _ => false,
        }
}

fn is_encoded_reg_name(mut name: &[u8]) -> bool {
    loop {
        name = match name {
            [] => return true,
            [b'%', a, b, rest @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => rest,
            [b, rest @ ..] if is_reg_name(*b) => rest,
            _ => return false,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9112 sections 3.2.1 to 3.2.4.
    #[test]
    fn target_forms() {
        for (method, target, expected) in [
            ("GET", "/", Ok(())),
            ("GET", "/a?b=c%20d", Ok(())),
            ("POST", "/a|b{c}", Ok(())),
            ("GET", "http://example.com/x", Ok(())),
            ("GET", "http://example.com", Ok(())),
            ("GET", "http://example.com?q", Ok(())),
            ("GET", "HTTP://[::1]:80/", Ok(())),
            ("OPTIONS", "*", Ok(())),
            ("OPTIONS", "http://example.com", Ok(())),
            ("CONNECT", "example.com:443", Ok(())),
            ("CONNECT", "[::1]:443", Ok(())),
            ("GET", "*", Err(Reject::TargetForm)),
            ("OPTIONS", "*a", Err(Reject::TargetForm)),
            ("GET", "example.com:80", Err(Reject::TargetForm)),
            ("GET", "a/b", Err(Reject::TargetForm)),
            ("GET", "?a", Err(Reject::TargetForm)),
            ("GET", "http:///x", Err(Reject::TargetForm)),
            ("GET", "http://:80/x", Err(Reject::TargetForm)),
            ("GET", "http://user@example.com/", Err(Reject::TargetForm)),
            ("GET", "1http://example.com/", Err(Reject::TargetForm)),
            ("GET", "://example.com/", Err(Reject::TargetForm)),
            ("CONNECT", "/", Err(Reject::TargetForm)),
            ("CONNECT", "example.com", Err(Reject::TargetForm)),
            ("CONNECT", "example.com:", Err(Reject::TargetForm)),
            ("CONNECT", ":443", Err(Reject::TargetForm)),
            ("CONNECT", "http://example.com:443", Err(Reject::TargetForm)),
            ("GET", "/a#b", Err(Reject::Target)),
            ("GET", "/\u{e9}", Err(Reject::Target)),
            ("GET", "", Err(Reject::TargetForm)),
        ] {
            assert_eq!(check(method, target), expected, "{method} {target}");
        }
    }

    /// RFC 9112 section 3.2 and RFC 3986 section 3.2.2.
    #[test]
    fn authorities() {
        for good in [
            "",
            "a",
            "example.com",
            "example.com:8080",
            "127.0.0.1:1",
            "a:",
            "[::1]",
            "[2001:db8::1]:443",
            "a%2Fb",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            "a b", "a:b", "a:-1", "a:123456", "a/b", "a@b", "[::1", "[]", "[::1]x", "[zz]", "::1",
            "a%2", "a%zz", "a\"", "a:1:2", "h\u{e9}", "a\\b", "a?b",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }
}
