//! Bodies of the HTTP/1.1 fuzz targets, as plain functions: cargo-fuzz, the seed corpus and
//! proptest call the same code.

use reev::proto::http1::{
    BodyDecoder, BodyKind, Head, HeadDecoder, HeaderSlots, Limits, Reject, Step, Version,
};

/// What a connection tells its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Request {
        method: String,
        target: String,
        version: Version,
        headers: Vec<(String, Vec<u8>)>,
        keep_alive: bool,
    },
    Data(Vec<u8>),
    Trailer(String, Vec<u8>),
    End,
    Reject(Reject),
}

/// Small bounds, so that short inputs reach them.
pub(crate) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.head_bytes_max = 512;
    limits.target_bytes_max = 64;
    limits.headers_max = 12;
    limits.body_bytes_max = 256;
    limits.chunk_extension_bytes_max = 16;
    limits.trailer_bytes_max = 48;
    limits.trailers_max = 3;
    limits
}

/// Takes `data` as a connection's bytes, once whole and once cut where its own bytes say.
pub(crate) fn fuzz_request(data: &[u8]) {
    let limits = limits();
    let whole = connection([data], &limits);
    let every_byte = connection(data.chunks(1), &limits);
    assert_eq!(whole, every_byte, "cut at every byte");
    let step = data.first().map_or(1, |&b| usize::from(b % 29) + 2);
    assert_eq!(whole, connection(data.chunks(step), &limits), "cut every {step} bytes");
}

/// Takes `data` as a chunked body: against the oracle, whole and cut.
pub(crate) fn fuzz_chunked(data: &[u8]) {
    let limits = limits();
    let expected = oracle_chunked(data, &limits);
    for step in [data.len().max(1), 1, 3] {
        assert_eq!(chunked(data.chunks(step), &limits), expected, "cut every {step} bytes");
    }
}

/// Runs a connection: what it reads comes in `pieces`; it stops at a refusal.
pub(crate) fn connection<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut unread = Vec::new();
    let mut heads = HeadDecoder::default();
    let mut body: Option<BodyDecoder> = None;
    for piece in pieces {
        unread.extend_from_slice(piece);
        let mut used = 0;
        let refused = loop {
            let rest = &unread[used..];
            let step = match &mut body {
                Some(decoder) => read_body(decoder, rest, &mut events).map(|(step, ended)| {
                    if ended {
                        body = None;
                    }
                    (step, step > 0 || ended)
                }),
                None => read_head(&mut heads, rest, limits, &mut events).map(|(step, kind)| {
                    body = kind.map(|kind| BodyDecoder::new(kind, limits));
                    (step, body.is_some())
                }),
            };
            match step {
                Ok((step, true)) => used += step,
                Ok((_, false)) => break false,
                Err(reject) => {
                    events.push(Event::Reject(reject));
                    break true;
                }
            }
        };
        unread.drain(..used);
        let bound = limits.head_bytes_max + 2;
        assert!(
            refused || unread.len() < bound,
            "{} unread bytes are above the bound",
            unread.len()
        );
        if refused {
            break;
        }
    }
    events
}

/// A connection's worth of one chunked body.
pub(crate) fn chunked<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    limits: &Limits,
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut unread = Vec::new();
    let mut decoder = BodyDecoder::new(BodyKind::Chunked, limits);
    for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            match read_body(&mut decoder, &unread, &mut events) {
                Ok((_, true)) => return events,
                Ok((0, false)) => break,
                Ok((used, false)) => drop(unread.drain(..used)),
                Err(reject) => {
                    events.push(Event::Reject(reject));
                    return events;
                }
            }
        }
        let bound = limits.chunk_extension_bytes_max.max(limits.trailer_bytes_max) as usize + 18;
        assert!(unread.len() < bound, "{} unread bytes are above the bound", unread.len());
    }
    events
}

fn read_head(
    heads: &mut HeadDecoder,
    input: &[u8],
    limits: &Limits,
    events: &mut Vec<Event>,
) -> Result<(usize, Option<BodyKind>), Reject> {
    let mut slots = HeaderSlots::new();
    let (request, used) = match heads.decode(input, &mut slots, limits) {
        Ok(Head::Complete { request, used }) => (request, used),
        Ok(Head::Partial) => return Ok((0, None)),
        Err(reject) => {
            assert_eq!(
                heads.decode(b"GET / HTTP/1.0\r\n\r\n", &mut slots, limits).unwrap_err(),
                reject
            );
            return Err(reject);
        }
    };
    check_strictness(&input[..used], limits);
    let headers =
        request.headers().iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
    events.push(Event::Request {
        method: request.method().to_owned(),
        target: request.target().to_owned(),
        version: request.version(),
        headers,
        keep_alive: request.keep_alive(),
    });
    assert!(request.authority().is_some() || request.version() == Version::Http10);
    assert!(request.target().starts_with(request.path()) || request.target().contains("://"));
    Ok((used, Some(request.body_kind())))
}

fn read_body(
    decoder: &mut BodyDecoder,
    input: &[u8],
    events: &mut Vec<Event>,
) -> Result<(usize, bool), Reject> {
    let step = decoder.decode(input)?;
    assert!(step.used() <= input.len());
    match step {
        Step::More { .. } => {}
        Step::Data { data, .. } => {
            assert!(!data.is_empty());
            // Data is the same however it was cut.
            match events.last_mut() {
                Some(Event::Data(before)) => before.extend_from_slice(data),
                _ => events.push(Event::Data(data.to_vec())),
            }
        }
        Step::Trailer { name, value, .. } => {
            events.push(Event::Trailer(name.to_owned(), value.to_vec()))
        }
        Step::End { .. } => events.push(Event::End),
    }
    Ok((step.used(), matches!(step, Step::End { .. })))
}

/// What holds of every accepted head, said once more and naively.
fn check_strictness(head: &[u8], limits: &Limits) {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    assert!(head.len() <= limits.head_bytes_max);
    let text: String = head.iter().map(|&b| char::from(b)).collect();
    let mut lines: Vec<&str> =
        text.strip_suffix("\r\n\r\n").expect("ends with an empty line").split("\r\n").collect();
    let control = |c: char| (c < ' ' && c != '\t') || c == '\x7f';
    assert!(!lines.iter().any(|line| line.contains(control)), "a control in {text:?}");
    let request_line = lines.remove(0);
    assert_eq!(request_line.split(' ').count(), 3);
    assert!(request_line.is_ascii() && !request_line.contains('\t'));
    assert!(lines.len() <= limits.headers_max);
    let mut names = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a colon");
        assert!(
            !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        );
        names.push(name.to_ascii_lowercase());
        if names.last().unwrap() == "content-length" {
            let value = value.trim_matches([' ', '\t']);
            assert!(!value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()));
        }
    }
    let count = |name: &str| names.iter().filter(|known| *known == name).count();
    assert!(count("host") == 1 || (count("host") == 0 && request_line.ends_with("1.0")));
    assert!(count("content-length") + count("transfer-encoding") <= 1);
}

/// The chunked coding by the letter of RFC 9112 section 7.1, slowly: one byte at a time, from the
/// whole input.
pub(crate) fn oracle_chunked(data: &[u8], limits: &Limits) -> Vec<Event> {
    let mut oracle = Oracle { data, at: 0, events: Vec::new(), total: 0, extensions: 0 };
    match oracle.body(limits) {
        Some(Ok(())) => oracle.events.push(Event::End),
        Some(Err(reject)) => oracle.events.push(Event::Reject(reject)),
        None => {}
    }
    oracle.events
}

struct Oracle<'a> {
    data: &'a [u8],
    at: usize,
    events: Vec<Event>,
    total: u64,
    extensions: u32,
}

/// None where the input ends too early.
type Outcome<T> = Option<Result<T, Reject>>;

macro_rules! check {
    ($outcome:expr) => {
        match $outcome? {
            Ok(value) => value,
            Err(reject) => return Some(Err(reject)),
        }
    };
}

impl Oracle<'_> {
    fn next(&mut self) -> Option<u8> {
        self.at += 1;
        self.data.get(self.at - 1).copied()
    }

    fn lf(&mut self) -> Outcome<()> {
        Some(if self.next()? == b'\n' { Ok(()) } else { Err(Reject::BareCr) })
    }

    fn body(&mut self, limits: &Limits) -> Outcome<()> {
        loop {
            let size = check!(self.size(limits));
            if size == 0 {
                return self.trailers(limits);
            }
            self.total += size;
            for _ in 0..size {
                let b = self.next()?;
                match self.events.last_mut() {
                    Some(Event::Data(data)) => data.push(b),
                    _ => self.events.push(Event::Data(vec![b])),
                }
            }
            for expected in *b"\r\n" {
                if self.next()? != expected {
                    return Some(Err(Reject::ChunkEnd));
                }
            }
        }
    }

    fn size(&mut self, limits: &Limits) -> Outcome<u64> {
        let mut digits = String::new();
        let end = loop {
            match self.next()? {
                b if b.is_ascii_hexdigit() => digits.push(b.into()),
                b => break b,
            }
            if digits.len() > 16 {
                return Some(Err(Reject::ChunkSize));
            }
        };
        let Ok(size) = u64::from_str_radix(&digits, 16) else {
            return Some(Err(Reject::ChunkSize));
        };
        if size.saturating_add(self.total) > limits.body_bytes_max {
            return Some(Err(Reject::BodyTooLarge));
        }
        match end {
            b'\r' => {}
            b';' | b' ' | b'\t' => check!(self.extension(limits)),
            _ => return Some(Err(Reject::ChunkSize)),
        }
        check!(self.lf());
        Some(Ok(size))
    }

    /// Grows the extension byte by byte and asks each time whether it could still be one.
    fn extension(&mut self, limits: &Limits) -> Outcome<()> {
        self.at -= 1;
        let mut text = Vec::new();
        loop {
            let b = self.next()?;
            if b == b'\r' && extension_state(&text) == Some(true) {
                return Some(Ok(()));
            }
            self.extensions += 1;
            if self.extensions > limits.chunk_extension_bytes_max {
                return Some(Err(Reject::ChunkExtensionTooLarge));
            }
            text.push(b);
            if extension_state(&text).is_none() {
                return Some(Err(Reject::ChunkExtension));
            }
        }
    }

    fn trailers(&mut self, limits: &Limits) -> Outcome<()> {
        let (mut bytes, mut count) = (0, 0);
        loop {
            let mut line: Vec<u8> = Vec::new();
            loop {
                let b = self.next()?;
                let named = line.contains(&b':');
                if b == b'\r' && (line.is_empty() || named) {
                    break;
                }
                bytes += 1;
                if bytes > limits.trailer_bytes_max {
                    return Some(Err(Reject::TrailersTooLarge));
                }
                let token = b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
                match b {
                    b'\n' => return Some(Err(Reject::BareLf)),
                    b'\t' | b' '..=0x7e | 0x80.. if named => {}
                    _ if named => return Some(Err(Reject::FieldValue)),
                    _ if token => {}
                    b':' if !line.is_empty() => {
                        let name = String::from_utf8_lossy(&line).to_ascii_lowercase();
                        if FORBIDDEN_TRAILERS.contains(&name.as_str()) {
                            return Some(Err(Reject::TrailerForbidden));
                        }
                    }
                    b' ' | b'\t' if line.is_empty() => return Some(Err(Reject::ObsFold)),
                    b' ' | b'\t' => return Some(Err(Reject::SpaceBeforeColon)),
                    _ => return Some(Err(Reject::FieldName)),
                }
                line.push(b);
            }
            check!(self.lf());
            if line.is_empty() {
                return Some(Ok(()));
            }
            bytes += 2;
            count += 1;
            if bytes > limits.trailer_bytes_max || count > limits.trailers_max {
                return Some(Err(Reject::TrailersTooLarge));
            }
            let text: String = line.iter().map(|&b| char::from(b)).collect();
            let (name, value) = text.split_once(':').unwrap();
            let value = value.trim_matches([' ', '\t']).chars().map(|c| c as u8).collect();
            self.events.push(Event::Trailer(name.to_owned(), value));
        }
    }
}

const FORBIDDEN_TRAILERS: [&str; 12] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether `text` is a run of chunk extensions: some if it can become one, true if it is one.
fn extension_state(text: &[u8]) -> Option<bool> {
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let skip = |at: &mut usize, accept: &dyn Fn(&u8) -> bool| {
        let start = *at;
        while text.get(*at).is_some_and(accept) {
            *at += 1;
        }
        *at > start
    };
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let mut at = 0;
    loop {
        if at == text.len() {
            return Some(at > 0);
        }
        skip(&mut at, &blank);
        match text.get(at) {
            None => return Some(false),
            Some(b';') => at += 1,
            Some(_) => return None,
        }
        skip(&mut at, &blank);
        if !skip(&mut at, &token) {
            return if at == text.len() { Some(false) } else { None };
        }
        let behind_name = at;
        skip(&mut at, &blank);
        if text.get(at) != Some(&b'=') {
            at = behind_name;
            continue;
        }
        at += 1;
        skip(&mut at, &blank);
        match text.get(at) {
            None => return Some(false),
            Some(b'"') => {
                at += 1;
                loop {
                    let Some(&(mut b)) = text.get(at) else { return Some(false) };
                    if b == b'"' {
                        break;
                    }
                    if b == b'\\' {
                        at += 1;
                        b = match text.get(at) {
                            None => return Some(false),
                            Some(&b) => b,
                        };
                    }
                    if !matches!(b, b'\t' | b' '..=0x7e | 0x80..) {
                        return None;
                    }
                    at += 1;
                }
                at += 1;
            }
            Some(_) if skip(&mut at, &token) => {}
            Some(_) => return None,
        }
    }
}
