//! `Sec-WebSocket-Extensions` and the negotiation of permessage-deflate (RFC 6455 section 9.1, RFC 7692 section 7.1).

use super::config::EXTENSIONS_MAX;
use super::tokens::token_len;
use std::borrow::Cow;

const NAME: &[u8] = b"permessage-deflate";
const SERVER_NO_TAKEOVER: &[u8] = b"server_no_context_takeover";
const CLIENT_NO_TAKEOVER: &[u8] = b"client_no_context_takeover";
const SERVER_BITS: &[u8] = b"server_max_window_bits";
const CLIENT_BITS: &[u8] = b"client_max_window_bits";

/// What this side wishes of permessage-deflate, and how it compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateConfig {
    /// The server forgets its context after each message: no memory kept, weaker compression.
    pub server_no_context_takeover: bool,
    /// The client forgets its context after each message.
    pub client_no_context_takeover: bool,
    /// The server's window is at most 2 to this power of bytes. 8 ..= 15.
    pub server_max_window_bits: u8,
    /// The client's window is at most 2 to this power of bytes. 8 ..= 15. A server can ask for it only of a client
    /// that says it knows the parameter.
    pub client_max_window_bits: u8,
    /// 0 (stored only) to 9 (smallest); 1 is fastest.
    pub level: u8,
    /// Messages of fewer bytes are sent as they are, unless [`Compress::Always`](super::Compress::Always) says so.
    pub threshold: usize,
}

impl Default for DeflateConfig {
    /// Context takeover, windows of 32 KiB, level 1, from 64 bytes.
    fn default() -> Self {
        DeflateConfig {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
            level: 1,
            threshold: 64,
        }
    }
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeflateParams {
    /// The server forgets its context after each message.
    pub server_no_context_takeover: bool,
    /// The client forgets its context after each message.
    pub client_no_context_takeover: bool,
    /// 8 ..= 15.
    pub server_max_window_bits: u8,
    /// 8 ..= 15.
    pub client_max_window_bits: u8,
}

/// The header does not follow the grammar, or lists more than [`EXTENSIONS_MAX`] things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A server's answer to an offer: what is agreed, and the header value that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// For the connection.
    pub params: DeflateParams,
    /// For the response's `Sec-WebSocket-Extensions`.
    pub header: String,
}

/// Answers the first offer that can be met; one with an unknown, repeated or invalid parameter is passed over. `None`:
/// no extension.
///
/// # Errors
/// A malformed header, upon which the handshake must fail (RFC 6455 section 9.1).
pub fn answer<'a>(
    offers: impl IntoIterator<Item = &'a [u8]>,
    wish: &DeflateConfig,
) -> Result<Option<Agreed>, Malformed> {
    let mut list = Vec::new();
    for value in offers {
        parse(value, &mut list)?;
    }
    Ok(list.iter().filter_map(Parameters::read).next().map(|offer| meet(offer, wish)))
}

/// The header value with which a client offers.
///
/// ```
/// use reev::websocket::DeflateConfig;
/// use reev::websocket::extension::{answer, check, offer};
///
/// let client = DeflateConfig::default();
/// let offered = offer(&client);
/// let agreed = answer([offered.as_bytes()], &DeflateConfig::default())?.expect("it can be met");
/// assert_eq!(check([agreed.header.as_bytes()], Some(&client))?, Some(agreed.params));
/// # Ok::<(), reev::websocket::extension::Malformed>(())
/// ```
pub fn offer(wish: &DeflateConfig) -> String {
    let mut header = String::from("permessage-deflate");
    put_flag(&mut header, SERVER_NO_TAKEOVER, wish.server_no_context_takeover);
    put_flag(&mut header, CLIENT_NO_TAKEOVER, wish.client_no_context_takeover);
    if wish.server_max_window_bits < 15 {
        put_bits(&mut header, SERVER_BITS, wish.server_max_window_bits);
    }
    if wish.client_max_window_bits < 15 {
        put_bits(&mut header, CLIENT_BITS, wish.client_max_window_bits);
    } else {
        put_flag(&mut header, CLIENT_BITS, true);
    }
    header
}

/// Checks a server's response to [`offer`]. `None`: the server declined.
///
/// # Errors
/// Anything that was not offered, or does not honour the offer, upon which the client must fail the connection.
pub fn check<'a>(
    response: impl IntoIterator<Item = &'a [u8]>,
    wish: Option<&DeflateConfig>,
) -> Result<Option<DeflateParams>, Malformed> {
    let mut list = Vec::new();
    for value in response {
        parse(value, &mut list)?;
    }
    let (extension, wish) = match (list.as_slice(), wish) {
        ([], _) => return Ok(None),
        ([one], Some(wish)) => (one, wish),
        _ => return Err(Malformed),
    };
    let got = Parameters::read(extension).ok_or(Malformed)?;
    let server_bits = match (got.server_bits, wish.server_max_window_bits.clamp(8, 15)) {
        (None, 15) => 15,
        (Some(bits), most) if bits <= most => bits,
        _ => return Err(Malformed),
    };
    let client_bits = match (got.client_bits, wish.client_max_window_bits.clamp(8, 15)) {
        (None, most) => most,
        (Some(Some(bits)), most) if bits <= most => bits,
        _ => return Err(Malformed),
    };
    if wish.server_no_context_takeover && !got.server_no_takeover {
        return Err(Malformed);
    }
    Ok(Some(DeflateParams {
        server_no_context_takeover: got.server_no_takeover,
        client_no_context_takeover: got.client_no_takeover || wish.client_no_context_takeover,
        server_max_window_bits: server_bits,
        client_max_window_bits: client_bits,
    }))
}

fn meet(offer: Parameters, wish: &DeflateConfig) -> Agreed {
    let most = |bits: u8| bits.clamp(8, 15);
    let params = DeflateParams {
        server_no_context_takeover: offer.server_no_takeover || wish.server_no_context_takeover,
        client_no_context_takeover: offer.client_no_takeover || wish.client_no_context_takeover,
        server_max_window_bits: most(wish.server_max_window_bits)
            .min(offer.server_bits.unwrap_or(15)),
        client_max_window_bits: match offer.client_bits {
            None => 15,
            Some(hint) => most(wish.client_max_window_bits).min(hint.unwrap_or(15)),
        },
    };
    let mut header = String::from("permessage-deflate");
    put_flag(&mut header, SERVER_NO_TAKEOVER, params.server_no_context_takeover);
    put_flag(&mut header, CLIENT_NO_TAKEOVER, params.client_no_context_takeover);
    if offer.server_bits.is_some() || params.server_max_window_bits < 15 {
        put_bits(&mut header, SERVER_BITS, params.server_max_window_bits);
    }
    if params.client_max_window_bits < 15 {
        put_bits(&mut header, CLIENT_BITS, params.client_max_window_bits);
    }
    Agreed { params, header }
}

fn put_flag(header: &mut String, name: &[u8], set: bool) {
    if set {
        header.push_str("; ");
        header.extend(name.iter().map(|&byte| char::from(byte)));
    }
}

fn put_bits(header: &mut String, name: &[u8], bits: u8) {
    put_flag(header, name, true);
    header.push('=');
    header.push_str(&bits.clamp(8, 15).to_string());
}

/// The four parameters of RFC 7692 section 7.1, as written in an offer or a response.
#[derive(Clone, Copy, Default)]
struct Parameters {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_bits: Option<u8>,
    client_bits: Option<Option<u8>>,
}

impl Parameters {
    /// `None`: another extension, or a parameter that is unknown, repeated or has a wrong value.
    fn read(extension: &Extension<'_>) -> Option<Self> {
        if !extension.name.eq_ignore_ascii_case(NAME) {
            return None;
        }
        let mut read = Parameters::default();
        for (name, value) in &extension.params {
            let value = value.as_deref();
            let fresh = if name.eq_ignore_ascii_case(SERVER_NO_TAKEOVER) && value.is_none() {
                !std::mem::replace(&mut read.server_no_takeover, true)
            } else if name.eq_ignore_ascii_case(CLIENT_NO_TAKEOVER) && value.is_none() {
                !std::mem::replace(&mut read.client_no_takeover, true)
            } else if name.eq_ignore_ascii_case(SERVER_BITS) {
                read.server_bits.replace(window_bits(value?)?).is_none()
            } else if name.eq_ignore_ascii_case(CLIENT_BITS) {
                let bits = match value {
                    None => None,
                    Some(value) => Some(window_bits(value)?),
                };
                read.client_bits.replace(bits).is_none()
            } else {
                false
            };
            if !fresh {
                return None;
            }
        }
        Some(read)
    }
}

/// 8 to 15, decimal, without leading zeros (RFC 7692 section 7.1.2.1).
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// One element of the header's list.
#[derive(Debug, PartialEq, Eq)]
struct Extension<'a> {
    name: &'a [u8],
    params: Vec<Param<'a>>,
}

/// A parameter's name, and its value if it has one.
type Param<'a> = (&'a [u8], Option<Cow<'a, [u8]>>);

/// Appends the elements of one header value.
fn parse<'a>(value: &'a [u8], list: &mut Vec<Extension<'a>>) -> Result<(), Malformed> {
    let mut cursor = Cursor { rest: value };
    loop {
        cursor.skip_space();
        while cursor.eat(b',') {
            cursor.skip_space();
        }
        if cursor.rest.is_empty() {
            return Ok(());
        }
        let mut extension = Extension { name: cursor.token()?, params: Vec::new() };
        cursor.skip_space();
        while cursor.eat(b';') {
            cursor.skip_space();
            let name = cursor.token()?;
            cursor.skip_space();
            let value = if cursor.eat(b'=') { Some(cursor.value()?) } else { None };
            cursor.skip_space();
            extension.params.push((name, value));
            if extension.params.len() > EXTENSIONS_MAX {
                return Err(Malformed);
            }
        }
        if !cursor.rest.is_empty() && !cursor.eat(b',') {
            return Err(Malformed);
        }
        list.push(extension);
        if list.len() > EXTENSIONS_MAX {
            return Err(Malformed);
        }
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn eat(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        self.rest = &self.rest[usize::from(found)..];
        found
    }

    fn skip_space(&mut self) {
        while self.eat(b' ') || self.eat(b'\t') {}
    }

    fn token(&mut self) -> Result<&'a [u8], Malformed> {
        let (token, rest) = self.rest.split_at(token_len(self.rest));
        self.rest = rest;
        if token.is_empty() { Err(Malformed) } else { Ok(token) }
    }

    /// A token, or a quoted string that is a token once unquoted (RFC 6455 section 9.1).
    fn value(&mut self) -> Result<Cow<'a, [u8]>, Malformed> {
        self.skip_space();
        if !self.eat(b'"') {
            return self.token().map(Cow::Borrowed);
        }
        let mut value = Vec::new();
        loop {
            let (&byte, rest) = self.rest.split_first().ok_or(Malformed)?;
            self.rest = rest;
            match byte {
                b'"' => break,
                b'\\' => {
                    let (&escaped, rest) = self.rest.split_first().ok_or(Malformed)?;
                    self.rest = rest;
                    value.push(escaped);
                }
                _ => value.push(byte),
            }
        }
        if value.is_empty() || token_len(&value) < value.len() {
            Err(Malformed)
        } else {
            Ok(Cow::Owned(value))
        }
    }
}
