use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

/// A `200` status line and a Date field, made once a second (RFC 9110 sections 5.6.7 and 6.6.1).
#[derive(Clone, Debug)]
pub struct DateCache {
    unix_seconds: u64,
    block: [u8; BLOCK],
}

const STATUS_LINE: usize = b"HTTP/1.1 200 OK\r\n".len();
const NAME: usize = b"Date: ".len();
/// Bytes of an IMF-fixdate.
const DATE: usize = 29;
/// Bytes of a 200's status line and Date.
pub(super) const BLOCK: usize = STATUS_LINE + NAME + DATE + b"\r\n".len();
/// 9999-12-31, the last day an IMF-fixdate can tell.
const UNIX_SECONDS_MAX: u64 = 253_402_300_799;

impl DateCache {
    /// A cache that says this time, in seconds since the epoch. Times after the year 9999 count as
    /// its last second.
    pub fn new(unix_seconds: u64) -> Self {
        let mut cache = Self { unix_seconds, block: [0; BLOCK] };
        cache.write();
        cache
    }

    /// Makes it say this time: a comparison, unless the second is another one.
    #[inline]
    pub fn refresh(&mut self, unix_seconds: u64) {
        if self.unix_seconds != unix_seconds {
            self.unix_seconds = unix_seconds;
            self.write();
        }
    }

    /// The 29 bytes of the date.
    pub fn date(&self) -> &[u8] {
        &self.block[STATUS_LINE + NAME..][..DATE]
    }

    /// `Date: …` with its CRLF.
    #[inline]
    pub(super) fn line(&self) -> &[u8] {
        &self.block[STATUS_LINE..]
    }

    /// The status line of a 200 and `Date: …`, each with its CRLF.
    #[inline]
    pub(super) fn ok_and_line(&self) -> &[u8] {
        &self.block
    }

    #[cold]
    fn write(&mut self) {
        let time = UNIX_EPOCH + Duration::from_secs(self.unix_seconds.min(UNIX_SECONDS_MAX));
        let date = httpdate::HttpDate::from(time);
        write!(&mut self.block[..], "HTTP/1.1 200 OK\r\nDate: {date}\r\n")
            .expect("an IMF-fixdate always has 29 bytes, for which there is room");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9110 section 5.6.7, with its own example.
    #[test]
    fn date_is_imf_fixdate() {
        let mut cache = DateCache::new(784_111_777);
        assert_eq!(cache.date(), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(cache.line(), b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        cache.refresh(784_111_778);
        assert_eq!(
            cache.ok_and_line(),
            b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:38 GMT\r\n"
        );
        cache.refresh(u64::MAX);
        assert_eq!(cache.date(), b"Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
