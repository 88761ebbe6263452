//! Tokens and lists of them in header values (RFC 9110 sections 5.6.1 and 5.6.2).

/// How many bytes at the begin are token characters.
pub(super) fn token_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| !is_token_byte(byte)).unwrap_or(bytes.len())
}

/// Is it one whole token?
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && token_len(bytes) == bytes.len()
}

/// The elements of a comma-separated list, trimmed, without the empty ones.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Does the list hold the token, in any case of letters?
pub(super) fn lists(value: &[u8], token: &str) -> bool {
    elements(value).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_compared_by_element() {
        assert!(lists(b"keep-alive, Upgrade", "upgrade"));
        assert!(lists(b",,\tUPGRADE ,", "upgrade"));
        assert!(!lists(b"upgraded", "upgrade"));
        assert!(!lists(b"up grade", "upgrade"));
        assert!(!lists(b"", "upgrade"));
    }

    #[test]
    fn tokens() {
        assert!(is_token(b"chat.v2+json"));
        assert!(!is_token(b""));
        assert!(!is_token(b"a b"));
        assert!(!is_token(b"a,b"));
    }
}
