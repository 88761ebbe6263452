use super::chars::trim;

/// The elements of a comma-separated list, trimmed, empty ones left out (RFC 9110 section 5.6.1.2).
///
/// Only for lists whose elements are tokens: a comma inside a quoted string would split it.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|element| !element.is_empty())
}

/// Whether the list has `token`, without regard to case.
pub(super) fn contains(value: &[u8], token: &str) -> bool {
    elements(value).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 section 5.6.1.2: empty elements are ignored; elements are whole, not substrings.
    #[test]
    fn list_is_compared_by_element() {
        assert!(contains(b" , Keep-Alive ,\tUPGRADE,, ", "upgrade"));
        assert!(!contains(b"upgraded, not-upgrade", "upgrade"));
        assert!(!contains(b"", "upgrade"));
    }
}
