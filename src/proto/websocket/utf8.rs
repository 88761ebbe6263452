//! Text that grows as it arrives, checked once and at once.

/// A `String` fed with pieces cut anywhere, also within a character. An invalid byte is refused by the push that
/// brings it, as RFC 6455 section 8.1 asks of those who fail fast.
///
/// ```
/// # use reev::websocket::{InvalidUtf8, TextBuffer};
/// let mut text = TextBuffer::default();
/// text.push(b"caf\xc3")?; // cut within a character
/// assert_eq!(text.finish(), Err(InvalidUtf8));
/// text.push(b"\xa9")?;
/// assert_eq!(text.finish(), Ok("café"));
/// # Ok::<(), InvalidUtf8>(())
/// ```
#[derive(Debug, Default)]
pub struct TextBuffer {
    valid: String,
    /// The begin of a character whose end has not arrived: `partial[..partial_len]`, at most 3 bytes.
    partial: [u8; 4],
    partial_len: u8,
}

/// The bytes are not, and cannot become, UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

impl TextBuffer {
    /// Appends a piece. After an error the buffer is of no more use.
    ///
    /// # Errors
    /// The piece holds a byte that no continuation could make valid.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), InvalidUtf8> {
        let rest = self.complete_partial(piece)?;
        let cut = rest.len() - unfinished(rest);
        self.valid.push_str(simdutf8::basic::from_utf8(&rest[..cut]).map_err(|_| InvalidUtf8)?);
        let tail = &rest[cut..];
        if !tail.is_empty() {
            self.partial[..tail.len()].copy_from_slice(tail);
            self.partial_len = tail.len() as u8;
            self.check_partial()?;
        }
        Ok(())
    }

    /// The bytes taken so far.
    pub fn len(&self) -> usize {
        self.valid.len() + usize::from(self.partial_len)
    }

    /// Has nothing been taken?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for `additional` bytes.
    pub fn reserve_exact(&mut self, additional: usize) {
        self.valid.reserve_exact(additional);
    }

    /// The whole text, when nothing more comes.
    ///
    /// # Errors
    /// The last character is unfinished.
    pub fn finish(&self) -> Result<&str, InvalidUtf8> {
        if self.partial_len == 0 { Ok(&self.valid) } else { Err(InvalidUtf8) }
    }

    /// Takes the bytes that the partial character lacks, and returns the rest.
    fn complete_partial<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], InvalidUtf8> {
        let mut rest = piece;
        while self.partial_len > 0
            && let Some((&byte, after)) = rest.split_first()
        {
            rest = after;
            self.partial[usize::from(self.partial_len)] = byte;
            self.partial_len += 1;
            self.check_partial()?;
        }
        Ok(rest)
    }

    /// Refuses a partial character that cannot be finished; moves a finished one over.
    fn check_partial(&mut self) -> Result<(), InvalidUtf8> {
        match std::str::from_utf8(&self.partial[..usize::from(self.partial_len)]) {
            Ok(character) => {
                self.valid.push_str(character);
                self.partial_len = 0;
                Ok(())
            }
            Err(error) if error.error_len().is_none() => Ok(()),
            Err(_) => Err(InvalidUtf8),
        }
    }
}

/// How many bytes at the end begin a character that is not complete: 0 to 3. Only lengths are looked at.
fn unfinished(bytes: &[u8]) -> usize {
    for (back, &byte) in bytes.iter().rev().take(3).enumerate() {
        let needs = match byte {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            _ => 1,
        };
        return if needs > back + 1 { back + 1 } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All at once, the answer of the standard library; by pieces, the same, and refused at the same byte.
    #[test]
    fn every_split_agrees_with_the_whole() {
        let samples: &[&[u8]] = &[
            b"",
            b"plain",
            "κόσμε".as_bytes(),
            "€😀é".as_bytes(),
            b"\xed\xa0\x80",
            b"\xf4\x8f\xbf\xbf",
            b"\xf4\x90\x80\x80",
            b"\xc0\xaf",
            b"ab\xe2\x82",
            b"\xf0\x9f\x98",
            b"\x80",
            b"a\xff",
        ];
        for sample in samples {
            let whole = std::str::from_utf8(sample);
            let mut bytewise = TextBuffer::default();
            let refused = sample.iter().position(|&byte| bytewise.push(&[byte]).is_err());
            let earliest = (0..sample.len())
                .find(|&i| matches!(std::str::from_utf8(&sample[..=i]), Err(e) if e.error_len().is_some()));
            assert_eq!(refused, earliest, "{sample:x?}");
            for cut in 0..=sample.len() {
                let mut buffer = TextBuffer::default();
                let fed = buffer.push(&sample[..cut]).and_then(|()| buffer.push(&sample[cut..]));
                let ended = fed.and_then(|()| buffer.finish().map(str::to_owned));
                assert_eq!(ended.ok().as_deref(), whole.ok(), "{sample:x?} at {cut}");
            }
        }
    }
}
