//! What both sides of the opening handshake share (RFC 6455 section 4).

use super::tokens::lists;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

pub(super) const VERSION: &[u8] = b"13";
/// A nonce of 16 bytes in base64.
pub(super) const KEY_LEN: usize = 24;
/// A SHA-1 in base64.
pub(super) const ACCEPT_LEN: usize = 28;

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The `Sec-WebSocket-Accept` that answers a key (RFC 6455 section 4.2.2).
pub(super) fn accept_value(key: &[u8]) -> [u8; ACCEPT_LEN] {
    let digest: [u8; 20] = Sha1::new().chain_update(key).chain_update(GUID).finalize().into();
    encode(&digest)
}

/// Base64 of as many bytes as fill `N`.
pub(super) fn encode<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut encoded = [0; N];
    let len = STANDARD.encode_slice(bytes, &mut encoded);
    debug_assert_eq!(len.ok(), Some(N));
    encoded
}

/// Is it the base64 of 16 bytes (RFC 6455 section 4.2.1)?
pub(super) fn is_key(key: &[u8]) -> bool {
    key.len() == KEY_LEN && matches!(STANDARD.decode_slice(key, &mut [0; 18]), Ok(16))
}

/// The headers that both sides look at; of lists, whether they hold the token.
#[derive(Default)]
pub(super) struct Headers<'h> {
    pub(super) upgrade: bool,
    pub(super) connection: bool,
    pub(super) host: Once<'h>,
    pub(super) origin: Once<'h>,
    pub(super) key: Once<'h>,
    pub(super) accept: Once<'h>,
    pub(super) version: Once<'h>,
    pub(super) protocols: Vec<&'h [u8]>,
    pub(super) extensions: Vec<&'h [u8]>,
}

/// A header that may come once only.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Once<'h> {
    #[default]
    Missing,
    Is(&'h [u8]),
    Repeated,
}

impl<'h> Once<'h> {
    fn put(&mut self, value: &'h [u8]) {
        *self = if *self == Once::Missing { Once::Is(value.trim_ascii()) } else { Once::Repeated };
    }
}

impl<'h> Headers<'h> {
    pub(super) fn read(headers: impl IntoIterator<Item = (&'h [u8], &'h [u8])>) -> Self {
        let mut read = Headers::default();
        for (name, value) in headers {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            if is("upgrade") {
                read.upgrade |= lists(value, "websocket");
            } else if is("connection") {
                read.connection |= lists(value, "upgrade");
            } else if is("host") {
                read.host.put(value);
            } else if is("origin") {
                read.origin.put(value);
            } else if is("sec-websocket-key") {
                read.key.put(value);
            } else if is("sec-websocket-accept") {
                read.accept.put(value);
            } else if is("sec-websocket-version") {
                read.version.put(value);
            } else if is("sec-websocket-protocol") {
                read.protocols.push(value);
            } else if is("sec-websocket-extensions") {
                read.extensions.push(value);
            }
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_6455_section_1_3() {
        assert_eq!(&accept_value(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_sixteen_bytes() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for wrong in [
            &b""[..],
            b"dGhlIHNhbXBsZSBub25jZQ",
            b"dGhlIHNhbXBsZSBub25jZTE=",
            b"dGhlIHNhbXBsZSBub25j*Q==",
        ] {
            assert!(!is_key(wrong), "{wrong:?}");
        }
    }
}
