//! A message that did not arrive whole: fragments, partial frames, compressed ones.

use super::config::{RESERVE_AT_ONCE, compressed_max};
use super::deflate::Inflater;
use super::error::ProtocolError;
use super::frame::{Header, Kind};
use super::mask;
use super::receiver::Event;
use super::utf8::TextBuffer;

/// The bounds of one message.
pub(super) struct Limits {
    pub(super) message_max: usize,
    pub(super) fragments_max: u32,
}

/// One message in the making, and its frame in progress.
pub(super) struct Assembly {
    content: Content,
    compressed: bool,
    delivered: bool,
    fin: bool,
    fragments: u32,
    /// Payload bytes of all frames begun, as on the wire.
    wire: u64,
    /// Payload bytes of the present frame that have not arrived.
    left: u64,
    /// For the next byte of the present frame.
    key: Option<[u8; 4]>,
}

enum Content {
    Text(TextBuffer),
    Binary(Vec<u8>),
}

impl Assembly {
    pub(super) fn new(kind: Kind, compressed: bool) -> Self {
        let content = match kind {
            Kind::Text => Content::Text(TextBuffer::default()),
            Kind::Binary => Content::Binary(Vec::new()),
        };
        Assembly {
            content,
            compressed,
            delivered: false,
            fin: false,
            fragments: 0,
            wire: 0,
            left: 0,
            key: None,
        }
    }

    pub(super) fn is_mid_frame(&self) -> bool {
        self.left > 0
    }

    pub(super) fn is_complete(&self) -> bool {
        self.fin && self.left == 0
    }

    pub(super) fn is_delivered(&self) -> bool {
        self.delivered
    }

    /// Goes on with the next frame of the message.
    pub(super) fn start_frame(
        &mut self,
        header: &Header,
        limits: &Limits,
    ) -> Result<(), ProtocolError> {
        let wire_max = if self.compressed {
            compressed_max(limits.message_max)
        } else {
            limits.message_max as u64
        };
        if header.len > wire_max.saturating_sub(self.wire) {
            return Err(ProtocolError::MessageTooBig);
        }
        if self.fragments >= limits.fragments_max {
            return Err(ProtocolError::TooManyFragments);
        }
        self.fragments += 1;
        self.wire += header.len;
        self.left = header.len;
        self.key = header.mask;
        self.fin = header.is_fin();
        Ok(())
    }

    /// Takes what `data` has of the present frame, and says how much that was.
    pub(super) fn take(
        &mut self,
        data: &mut [u8],
        inflater: Option<&mut Inflater>,
        limits: &Limits,
    ) -> Result<usize, ProtocolError> {
        let count = usize::try_from(self.left).map_or(data.len(), |left| left.min(data.len()));
        if count == 0 {
            return Ok(0);
        }
        let piece = &mut data[..count];
        if let Some(key) = &mut self.key {
            mask::apply(piece, *key);
            *key = mask::advance(*key, count);
        }
        self.left -= count as u64;
        match inflater {
            Some(inflater) if self.compressed => {
                inflater.inflate(piece, |made| self.content.append(made, limits))?
            }
            _ => {
                self.content.make_room(count, self.left);
                self.content.append(piece, limits)?;
            }
        }
        Ok(count)
    }

    /// Hands out the complete message.
    pub(super) fn finish(
        &mut self,
        inflater: Option<&mut Inflater>,
        limits: &Limits,
    ) -> Result<Event<'_>, ProtocolError> {
        // A compressed message of no bytes at all is taken for an empty one; its tail would leave the stream askew.
        if let Some(inflater) = inflater
            && self.compressed
            && self.wire > 0
        {
            inflater.finish(|made| self.content.append(made, limits))?;
        }
        self.delivered = true;
        match &self.content {
            Content::Text(text) => text.finish().map(Event::Text).map_err(|_| ProtocolError::Utf8),
            Content::Binary(bytes) => Ok(Event::Binary(bytes)),
        }
    }
}

impl Content {
    fn len(&self) -> usize {
        match self {
            Content::Text(text) => text.len(),
            Content::Binary(bytes) => bytes.len(),
        }
    }

    /// A short first frame gets its whole room at once, and so does one of which at least half is here. Anything longer
    /// grows with what arrives, so that a length declared costs the peer as much as it costs this side.
    fn make_room(&mut self, arrived: usize, left: u64) {
        if self.len() == 0 && left <= arrived.max(RESERVE_AT_ONCE) as u64 {
            let room = arrived + left as usize;
            match self {
                Content::Text(text) => text.reserve_exact(room),
                Content::Binary(bytes) => bytes.reserve_exact(room),
            }
        }
    }

    fn append(&mut self, piece: &[u8], limits: &Limits) -> Result<(), ProtocolError> {
        let fits = piece.len().min(limits.message_max.saturating_sub(self.len()));
        match self {
            Content::Text(text) => text.push(&piece[..fits]).map_err(|_| ProtocolError::Utf8)?,
            Content::Binary(bytes) => bytes.extend_from_slice(&piece[..fits]),
        }
        if fits < piece.len() { Err(ProtocolError::MessageTooBig) } else { Ok(()) }
    }
}
