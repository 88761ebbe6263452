//! A message encoded once for many connections.

use super::deflate::Deflater;
use super::frame::{FIN, Kind, RSV1, put_plain};
use bytes::Bytes;

/// A message in one unmasked frame, for any number of a server's connections: encoded once, and compressed at most
/// once. Cloning copies two reference counts. It may be shared between threads.
///
/// ```
/// use reev::Reactor;
/// use reev::websocket::{Peer, Prepared};
///
/// /// Sends one message, which is encoded once, to all in the room.
/// fn tell(reactor: &mut Reactor, room: &[Peer], text: &str) {
///     let message = Prepared::text(text);
///     for peer in room {
///         if let Some(mut cx) = reactor.conn(peer.id()) {
///             let _ = peer.send(&mut cx, &message); // who reads too slowly misses it
///         }
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Prepared {
    plain: Bytes,
    compressed: Option<Bytes>,
    /// The farthest that the compressed form can refer back.
    reach: usize,
}

impl Prepared {
    /// A text message.
    pub fn text(text: &str) -> Self {
        Self::new(Kind::Text, text.as_bytes())
    }

    /// A binary message.
    pub fn binary(bytes: &[u8]) -> Self {
        Self::new(Kind::Binary, bytes)
    }

    /// A message of a kind. That one of [`Kind::Text`] is UTF-8 is the caller's affair.
    pub fn new(kind: Kind, payload: &[u8]) -> Self {
        Prepared { plain: frame(FIN | kind.opcode(), payload), compressed: None, reach: 0 }
    }

    /// The same with a compressed form, without context, for the connections that negotiated permessage-deflate and a
    /// window that the message fits. Kept only if it is shorter. `level` is 0 to 9.
    pub fn with_deflate(kind: Kind, payload: &[u8], level: u8) -> Self {
        let mut prepared = Self::new(kind, payload);
        if !payload.is_empty() {
            let mut compressed = Vec::new();
            Deflater::new(level, 15, false, 0).compress(payload, &mut compressed);
            if compressed.len() < payload.len() {
                prepared.compressed = Some(frame(FIN | RSV1 | kind.opcode(), &compressed));
                prepared.reach = payload.len().min(1 << 15);
            }
        }
        prepared
    }

    /// The frame as it is.
    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The compressed frame, if there is one that a window of `window` bytes can inflate.
    pub(super) fn compressed(&self, window: usize) -> Option<&Bytes> {
        self.compressed.as_ref().filter(|_| self.reach <= window)
    }
}

fn frame(first: u8, payload: &[u8]) -> Bytes {
    let mut out = Vec::new();
    put_plain(first, payload, &mut out);
    out.into()
}
