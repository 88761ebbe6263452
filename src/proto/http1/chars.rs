//! Classes of bytes, and comparison without case.

/// `tchar` of RFC 9110 section 5.6.2.
pub(super) const fn is_token(b: u8) -> bool {
    CLASS[b as usize] & TOKEN != 0
}

/// What a field value may have: HTAB, SP, VCHAR and obs-text (RFC 9110 section 5.5).
pub(super) const fn is_value(b: u8) -> bool {
    (b >= b' ' && b != 0x7f) || b == b'\t'
}

/// `unreserved` and `sub-delims` of RFC 3986 section 2, which is `reg-name` without `pct-encoded`.
#[inline]
pub(super) const fn is_reg_name(b: u8) -> bool {
    CLASS[b as usize] & REG_NAME != 0
}

/// SP and HTAB.
pub(super) const fn is_space(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

/// Whether a byte is `#` or above 0x7f.
#[inline]
pub(super) fn has_hash_or_non_ascii(bytes: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The high bit of a byte that is `#` or not ASCII; exact for the lowest such byte, which is
    // enough.
    let flags = |word: [u8; 8]| {
        let word = u64::from_le_bytes(word);
        let hash = word ^ (ONES * b'#' as u64);
        (word | (hash.wrapping_sub(ONES) & !hash)) & HIGH
    };
    let (words, _) = bytes.as_chunks::<8>();
    match bytes.last_chunk::<8>() {
        Some(&last) => words.iter().fold(flags(last), |found, &word| found | flags(word)) != 0,
        None => bytes.iter().any(|&b| b == b'#' || !b.is_ascii()),
    }
}

/// `bytes` without spaces and tabs at either end.
pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&b| !is_space(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|&b| !is_space(b)).map_or(start, |at| at + 1);
    &bytes[start..end]
}

/// Whether field name `name` is `lower`, of 4 to 24 bytes and in lower case.
///
/// Setting bit 5 folds only letters here: besides, only CR maps to the hyphen, and no name or value
/// has one.
#[inline(always)]
pub(super) fn name_is<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    let Ok(name) = <&[u8; N]>::try_from(name) else { return false };
    if N >= 8 {
        fold8(name, 0) == fold8(lower, 0)
            && fold8(name, N - 8) == fold8(lower, N - 8)
            && (N <= 16 || fold8(name, N / 2 - 4) == fold8(lower, N / 2 - 4))
    } else {
        fold4(name, 0) == fold4(lower, 0) && fold4(name, N - 4) == fold4(lower, N - 4)
    }
}

const TOKEN: u8 = 1;
const REG_NAME: u8 = 2;

static CLASS: [u8; 256] = {
    let mut class = [0; 256];
    let mut b = 0;
    while b < 256 {
        let byte = b as u8;
        if byte.is_ascii_alphanumeric() {
            class[b] = TOKEN | REG_NAME;
        }
        if matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        ) {
            class[b] |= TOKEN;
        }
        if matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        ) {
            class[b] |= REG_NAME;
        }
        b += 1;
    }
    class
};

#[inline(always)]
fn fold8<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(word) | 0x2020_2020_2020_2020
}

#[inline(always)]
fn fold4<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(word) | 0x2020_2020
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folding_equals_the_plain_comparison_for_every_token_byte() {
        let lower = b"transfer-encoding";
        for at in 0..lower.len() {
            for b in (0..=255).filter(|&b| is_token(b)) {
                let mut name = *lower;
                name[at] = b;
                assert_eq!(
                    name_is(&name, lower),
                    name.eq_ignore_ascii_case(lower),
                    "{b:#x} at {at}"
                );
            }
        }
        assert!(name_is(b"HoST", b"host") && name_is(b"ExPect", b"expect"));
        assert!(!name_is(b"hos", b"host") && !name_is(b"expecu", b"expect"));
    }

    #[test]
    fn words_find_what_bytes_find() {
        for len in 0..20 {
            for at in 0..len {
                for b in 0..=255 {
                    for fill in [b'"', b'$', 0x7f, 0] {
                        let mut bytes = vec![fill; len];
                        bytes[at] = b;
                        assert_eq!(
                            has_hash_or_non_ascii(&bytes),
                            b == b'#' || b >= 0x80,
                            "{bytes:x?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn trim_takes_spaces_and_tabs_only() {
        assert_eq!(trim(b" \ta b\t "), b"a b");
        assert_eq!(trim(b" \t "), b"");
        assert_eq!(trim(b"\x0ba"), b"\x0ba");
    }
}
