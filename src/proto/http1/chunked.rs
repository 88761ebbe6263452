use super::body::Step;
use super::chars::{is_space, is_token, is_value, trim};
use super::framing::is_forbidden_trailer;
use super::limits::Limits;
use super::reject::Reject;

/// Hexadecimal digits of a chunk size, leading zeros included: as many as 64 bits have.
const SIZE_DIGITS_MAX: usize = 16;

/// The chunked transfer coding (RFC 9112 section 7.1). Lines are read from left to right and
/// refused at their first wrong byte, so that a refusal does not depend on how the input was cut.
#[derive(Clone, Debug)]
pub(super) struct Chunked {
    state: State,
    body_bytes_left: u64,
    extension_bytes_left: u32,
    trailer_bytes_left: u32,
    trailers_left: u16,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Size,
    /// Bytes to come of this chunk, at least one.
    Data(u64),
    DataEnd,
    Trailers,
    End,
    Refused(Reject),
}

/// One line's reading: none while it is incomplete.
type Line<T> = Result<Option<T>, Reject>;

impl Chunked {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            state: State::Size,
            body_bytes_left: limits.body_bytes_max,
            extension_bytes_left: limits.chunk_extension_bytes_max,
            trailer_bytes_left: limits.trailer_bytes_max,
            trailers_left: limits.trailers_max,
        }
    }

    pub(super) fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Reject> {
        let step = self.step(input);
        if let Err(reject) = step {
            self.state = State::Refused(reject);
        }
        step
    }

    fn step<'a>(&mut self, input: &'a [u8]) -> Result<Step<'a>, Reject> {
        let mut used = 0;
        // Each turn consumes a line or returns.
        loop {
            let rest = &input[used..];
            match self.state {
                State::Size => {
                    let Some(line) =
                        size_line(rest, self.body_bytes_left, self.extension_bytes_left)?
                    else {
                        return Ok(Step::More { used });
                    };
                    used += line.used;
                    self.body_bytes_left -= line.size;
                    self.extension_bytes_left -= line.extension_bytes;
                    self.state =
                        if line.size == 0 { State::Trailers } else { State::Data(line.size) };
                }
                State::Data(_) if rest.is_empty() => return Ok(Step::More { used }),
                State::Data(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let left = left - taken as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data { data: &rest[..taken], used: used + taken });
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        used += 2;
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More { used }),
                    _ => return Err(Reject::ChunkEnd),
                },
                State::Trailers => return self.trailer(rest, used),
                State::End => return Ok(Step::End { used }),
                State::Refused(reject) => return Err(reject),
            }
        }
    }

    fn trailer<'a>(&mut self, rest: &'a [u8], used: usize) -> Result<Step<'a>, Reject> {
        let Some(line) = trailer_line(rest, self.trailer_bytes_left)? else {
            return Ok(Step::More { used });
        };
        let Some((name, value)) = line.field else {
            self.state = State::End;
            return Ok(Step::End { used: used + line.used });
        };
        self.trailer_bytes_left -= line.used as u32;
        self.trailers_left = self.trailers_left.checked_sub(1).ok_or(Reject::TrailersTooLarge)?;
        let name = str::from_utf8(name).map_err(|_| Reject::FieldName)?;
        Ok(Step::Trailer { name, value, used: used + line.used })
    }
}

struct SizeLine {
    size: u64,
    extension_bytes: u32,
    used: usize,
}

/// `chunk-size [ chunk-ext ] CRLF`.
fn size_line(input: &[u8], body_bytes_left: u64, extension_bytes_left: u32) -> Line<SizeLine> {
    let mut size: u64 = 0;
    let mut digits = 0;
    while let Some(digit) = input.get(digits).and_then(|&b| char::from(b).to_digit(16)) {
        if digits == SIZE_DIGITS_MAX {
            return Err(Reject::ChunkSize);
        }
        size = size << 4 | u64::from(digit);
        digits += 1;
    }
    let rest = &input[digits..];
    if rest.is_empty() {
        return Ok(None);
    }
    if digits == 0 {
        return Err(Reject::ChunkSize);
    }
    if size > body_bytes_left {
        return Err(Reject::BodyTooLarge);
    }
    let extension = match rest[0] {
        b'\r' => 0,
        b';' | b' ' | b'\t' => match extension_len(rest, extension_bytes_left as usize)? {
            Some(len) => len,
            None => return Ok(None),
        },
        _ => return Err(Reject::ChunkSize),
    };
    Ok(line_end(&rest[extension..])?.map(|end| SizeLine {
        size,
        extension_bytes: extension as u32,
        used: digits + extension + end,
    }))
}

/// How far the chunk extensions at the start of `input` go, checked against their grammar (RFC 9112
/// section 7.1.1): `*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )`.
fn extension_len(input: &[u8], bytes_max: usize) -> Line<usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum At {
        /// Before `;`, where the line may not end if spaces came first.
        Separator,
        NameStart,
        Name,
        /// Behind a name and white space.
        NameEnd,
        ValueStart,
        Value,
        Quoted,
        Escaped,
        /// Behind a value.
        End,
    }
    let mut at = At::Separator;
    for (len, &b) in input.iter().enumerate() {
        if b == b'\r' && matches!(at, At::Name | At::Value | At::End) {
            return Ok(Some(len));
        }
        if len >= bytes_max {
            return Err(Reject::ChunkExtensionTooLarge);
        }
        at = match (at, b) {
            (At::Separator | At::NameStart | At::NameEnd | At::ValueStart, b' ' | b'\t') => at,
            (At::Name, b' ' | b'\t') => At::NameEnd,
            (At::Value | At::End, b' ' | b'\t') => At::Separator,
            (At::Separator | At::Name | At::NameEnd | At::Value | At::End, b';') => At::NameStart,
            (At::Name | At::NameEnd, b'=') => At::ValueStart,
            (At::NameStart | At::Name, _) if is_token(b) => At::Name,
            (At::ValueStart, b'"') => At::Quoted,
            (At::ValueStart | At::Value, _) if is_token(b) => At::Value,
            (At::Quoted, b'"') => At::End,
            (At::Quoted, b'\\') => At::Escaped,
            (At::Quoted | At::Escaped, _) if is_value(b) => At::Quoted,
            _ => return Err(Reject::ChunkExtension),
        };
    }
    Ok(None)
}

struct TrailerLine<'a> {
    /// None for the empty line that ends the section.
    field: Option<(&'a [u8], &'a [u8])>,
    used: usize,
}

/// `field-line CRLF` or the `CRLF` that ends the trailer section.
fn trailer_line(input: &[u8], bytes_max: u32) -> Line<TrailerLine<'_>> {
    let bytes_max = bytes_max as usize;
    let mut colon = None;
    for (at, &b) in input.iter().enumerate() {
        if b == b'\r' && (at == 0 || colon.is_some()) {
            let Some(end) = line_end(&input[at..])? else { return Ok(None) };
            if at > 0 && at + end > bytes_max {
                return Err(Reject::TrailersTooLarge);
            }
            let field = colon.map(|colon| (&input[..colon], trim(&input[colon + 1..at])));
            return Ok(Some(TrailerLine { field, used: at + end }));
        }
        if at >= bytes_max {
            return Err(Reject::TrailersTooLarge);
        }
        match colon {
            Some(_) if is_value(b) => {}
            Some(_) if b == b'\n' => return Err(Reject::BareLf),
            Some(_) => return Err(Reject::FieldValue),
            None if is_token(b) => {}
            None if b == b':' && at > 0 => {
                if is_forbidden_trailer(&input[..at]) {
                    return Err(Reject::TrailerForbidden);
                }
                colon = Some(at);
            }
            None if b == b'\n' => return Err(Reject::BareLf),
            None if is_space(b) => {
                return Err(if at == 0 { Reject::ObsFold } else { Reject::SpaceBeforeColon });
            }
            None => return Err(Reject::FieldName),
        }
    }
    Ok(None)
}

/// The CRLF at the start of `input`, whose first byte is CR.
fn line_end(input: &[u8]) -> Line<usize> {
    match input.get(1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some(2)),
        Some(_) => Err(Reject::BareCr),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(input: &str, limits: &Limits) -> Result<(String, usize), Reject> {
        let mut chunked = Chunked::new(limits);
        let (mut at, mut out) = (0, String::new());
        loop {
            let step = chunked.decode(&input.as_bytes()[at..])?;
            at += step.used();
            match step {
                Step::Data { data, .. } => out += str::from_utf8(data).unwrap(),
                Step::Trailer { name, value, .. } => {
                    out += &format!("[{name}={}]", str::from_utf8(value).unwrap())
                }
                Step::More { .. } => return Ok((out + "...", at)),
                Step::End { .. } => return Ok((out, at)),
            }
        }
    }

    #[test]
    fn accepted() {
        for (input, output) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("05\r\nhello\r\n00\r\n\r\n", "hello"),
            ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
            ("1;a\r\nx\r\n0\r\n\r\n", "x"),
            ("1 ; a = b ;c=\"d;\\\"\"\r\nx\r\n0;e=f\r\n\r\n", "x"),
            ("1;a=b ;c\r\nx\r\n0\r\n\r\n", "x"),
            ("0\r\nA: b\r\nC:\t d e \r\n\r\n", "[A=b][C=d e]"),
            ("5\r\nhel", "hel..."),
            ("5", "..."),
            ("0\r\nA: b\r\n", "[A=b]..."),
        ] {
            assert_eq!(
                decode(input, &Limits::default()).map(|(decoded, _)| decoded).as_deref(),
                Ok(output),
                "{input:?}"
            );
        }
    }

    /// RFC 9112 sections 7.1 (size, data), 7.1.1 (extensions), 7.1.2 (trailers) and 2.2 (line
    /// ends).
    #[test]
    fn refused() {
        for (input, reject) in [
            ("\r\n", Reject::ChunkSize),
            ("x\r\n", Reject::ChunkSize),
            ("+5\r\n", Reject::ChunkSize),
            ("-5\r\n", Reject::ChunkSize),
            ("0x5\r\n", Reject::ChunkSize),
            (" 5\r\n", Reject::ChunkSize),
            ("5_0\r\n", Reject::ChunkSize),
            ("5\n", Reject::ChunkSize),
            ("5,5\r\n", Reject::ChunkSize),
            ("00000000000000005\r\n", Reject::ChunkSize),
            ("10000000000000000\r\n", Reject::ChunkSize),
            ("ffffffffffffffff\r\n", Reject::BodyTooLarge),
            ("5\rx", Reject::BareCr),
            ("5 \r\n", Reject::ChunkExtension),
            ("5;\r\n", Reject::ChunkExtension),
            ("5;a=\r\n", Reject::ChunkExtension),
            ("5;a b\r\n", Reject::ChunkExtension),
            ("5;a\n", Reject::ChunkExtension),
            ("5;a=\"b\n", Reject::ChunkExtension),
            ("5;a=\"b\"c\r\n", Reject::ChunkExtension),
            ("5;a=\0\r\n", Reject::ChunkExtension),
            ("5;a \r\n", Reject::ChunkExtension),
            ("1\r\nxx", Reject::ChunkEnd),
            ("1\r\nx\n", Reject::ChunkEnd),
            ("1\r\nx\rx", Reject::ChunkEnd),
            ("0\r\n\n", Reject::BareLf),
            ("0\r\nA: b\n", Reject::BareLf),
            ("0\r\nA\r\n", Reject::FieldName),
            ("0\r\n: b\r\n", Reject::FieldName),
            ("0\r\nA : b\r\n", Reject::SpaceBeforeColon),
            ("0\r\nA: b\r\n c\r\n", Reject::ObsFold),
            ("0\r\nA: \0\r\n", Reject::FieldValue),
            ("0\r\nA: b\rc", Reject::BareCr),
            ("0\r\nContent-length: 5\r\n\r\n", Reject::TrailerForbidden),
            ("0\r\nTransfer-Encoding: chunked\r\n\r\n", Reject::TrailerForbidden),
        ] {
            assert_eq!(decode(input, &Limits::default()), Err(reject), "{input:?}");
        }
    }

    #[test]
    fn bounds() {
        let limits = Limits {
            body_bytes_max: 8,
            chunk_extension_bytes_max: 4,
            trailer_bytes_max: 12,
            trailers_max: 2,
            ..Limits::default()
        };
        for (input, expected) in [
            ("8\r\n01234567\r\n0\r\n\r\n", Ok(())),
            ("9\r\n", Err(Reject::BodyTooLarge)),
            ("5\r\n01234\r\n4\r\n", Err(Reject::BodyTooLarge)),
            ("1;a\r\nx\r\n0;b\r\n\r\n", Ok(())),
            ("1;abc\r\nx\r\n1;\r\n", Err(Reject::ChunkExtensionTooLarge)),
            ("1;abcd\r\n", Err(Reject::ChunkExtensionTooLarge)),
            ("0\r\nA: 1\r\nB: 2\r\n\r\n", Ok(())),
            ("0\r\nA: 1\r\nB: 23\r\n", Err(Reject::TrailersTooLarge)),
            ("0\r\nA: 1234567890123", Err(Reject::TrailersTooLarge)),
            ("0\r\nA:\r\nB:\r\nC:\r\n", Err(Reject::TrailersTooLarge)),
        ] {
            assert_eq!(decode(input, &limits).map(drop), expected, "{input:?}");
        }
    }

    #[test]
    fn a_refusal_is_kept() {
        let mut chunked = Chunked::new(&Limits::default());
        assert_eq!(chunked.decode(b"x"), Err(Reject::ChunkSize));
        assert_eq!(chunked.decode(b"0\r\n\r\n"), Err(Reject::ChunkSize));
    }
}
