use arrayvec::ArrayVec;

use super::chars::trim;

/// Which part of a representation a Range field asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// All of it, with 200: there is no range, or one that is ignored (RFC 9110 section 14.2).
    Whole,
    /// `start..end`, not empty and within the length, with 206.
    Part {
        /// The first byte.
        start: u64,
        /// The byte behind the last one.
        end: u64,
    },
    /// None of it: 416 with [`ContentRange::unsatisfiable`] (RFC 9110 section 15.5.17).
    Unsatisfiable,
}

/// Reads the value of a Range field of a GET for a representation of `len` bytes (RFC 9110 section
/// 14.1.2). Another unit, a malformed value and more than one range ask for the whole.
///
/// ```
/// use reev::http1::{ByteRange, ContentRange, byte_range};
///
/// assert_eq!(byte_range(b"bytes=0-99", 1000), ByteRange::Part { start: 0, end: 100 });
/// assert_eq!(byte_range(b"bytes=2000-", 1000), ByteRange::Unsatisfiable);
/// assert_eq!(ContentRange::part(0, 100, 1000).as_bytes(), b"bytes 0-99/1000");
/// ```
pub fn byte_range(value: &[u8], len: u64) -> ByteRange {
    read(value, len).unwrap_or(ByteRange::Whole)
}

/// The value of a Content-Range field (RFC 9110 section 14.4).
#[derive(Clone, Debug)]
pub struct ContentRange {
    value: ArrayVec<u8, 72>,
}

impl ContentRange {
    /// `bytes start-last/len` for the range `start..end`, which must not be empty.
    pub fn part(start: u64, end: u64, len: u64) -> Self {
        let mut number = itoa::Buffer::new();
        let mut value = ArrayVec::new();
        value.extend(*b"bytes ");
        value.extend(number.format(start).bytes());
        value.push(b'-');
        value.extend(number.format(end.saturating_sub(1)).bytes());
        value.push(b'/');
        value.extend(number.format(len).bytes());
        Self { value }
    }

    /// `bytes */len`.
    pub fn unsatisfiable(len: u64) -> Self {
        let mut value = ArrayVec::new();
        value.extend(*b"bytes */");
        value.extend(itoa::Buffer::new().format(len).bytes());
        Self { value }
    }

    /// The value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.value
    }
}

/// None if the value is to be ignored.
fn read(value: &[u8], len: u64) -> Option<ByteRange> {
    let at = value.iter().position(|&b| b == b'=')?;
    let (unit, range) = (&value[..at], trim(&value[at + 1..]));
    if !unit.eq_ignore_ascii_case(b"bytes") || range.contains(&b',') {
        return None;
    }
    let dash = range.iter().position(|&b| b == b'-')?;
    let (first, last) = (&range[..dash], &range[dash + 1..]);
    if first.is_empty() {
        let suffix = number(last)?.min(len);
        return Some(part(len - suffix, len));
    }
    let first = number(first)?;
    let last = if last.is_empty() { u64::MAX } else { number(last)? };
    if last < first {
        return None;
    }
    Some(part(first, last.saturating_add(1).min(len)))
}

fn part(start: u64, end: u64) -> ByteRange {
    if start < end { ByteRange::Part { start, end } } else { ByteRange::Unsatisfiable }
}

/// Digits only; a number that does not fit counts as the largest that does.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        digits.iter().fold(0, |n: u64, b| n.saturating_mul(10).saturating_add(u64::from(b - b'0'))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 sections 14.1.2 and 14.2.
    #[test]
    fn ranges_of_ten_bytes() {
        let part = |start, end| ByteRange::Part { start, end };
        for (value, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-5", part(2, 6)),
            ("Bytes= 2-5 ", part(2, 6)),
            ("bytes=0-9", part(0, 10)),
            ("bytes=5-999999999999999999999999", part(5, 10)),
            ("bytes=5-", part(5, 10)),
            ("bytes=-3", part(7, 10)),
            ("bytes=-30", part(0, 10)),
            ("bytes=-0", ByteRange::Unsatisfiable),
            ("bytes=10-", ByteRange::Unsatisfiable),
            ("bytes=10-20", ByteRange::Unsatisfiable),
            ("bytes=99999999999999999999999-", ByteRange::Unsatisfiable),
            ("bytes=5-2", ByteRange::Whole),
            ("bytes=0-1,3-4", ByteRange::Whole),
            ("bytes=-", ByteRange::Whole),
            ("bytes=+1-2", ByteRange::Whole),
            ("bytes=1 -2", ByteRange::Whole),
            ("bytes=a-b", ByteRange::Whole),
            ("bytes", ByteRange::Whole),
            ("lines=0-1", ByteRange::Whole),
            ("", ByteRange::Whole),
        ] {
            assert_eq!(byte_range(value.as_bytes(), 10), expected, "{value}");
        }
        assert_eq!(byte_range(b"bytes=-5", 0), ByteRange::Unsatisfiable);
    }

    /// RFC 9110 section 14.4.
    #[test]
    fn content_range() {
        assert_eq!(ContentRange::part(2, 6, 10).as_bytes(), b"bytes 2-5/10");
        assert_eq!(ContentRange::unsatisfiable(10).as_bytes(), b"bytes */10");
        let longest = ContentRange::part(u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(longest.as_bytes().len(), 68);
    }
}
