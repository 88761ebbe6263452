//! The two directions of permessage-deflate (RFC 7692 section 7.2) over raw DEFLATE.

use super::config::INFLATE_STEP;
use super::error::ProtocolError;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::cell::Cell;

/// What a sync flush ends with, which does not travel (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The narrowest window that the compressor knows. For 8 bits it works with 9, as browsers do: it never refers back
/// farther than its window less 262 bytes, here 250, which a window of 256 bytes holds.
const COMPRESS_BITS_MIN: u8 = 9;

thread_local! {
    /// Idle contexts for connections without context takeover, so that such a connection owns none between messages.
    static SPARE_COMPRESS: Cell<Option<(Setting, Compress)>> = const { Cell::new(None) };
    static SPARE_INFLATE: Cell<Option<Decompress>> = const { Cell::new(None) };
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Setting {
    level: u8,
    bits: u8,
}

/// Compresses the messages of one direction.
pub(super) struct Deflater {
    context: Option<Compress>,
    setting: Setting,
    /// The peer's window: 2 to this power of bytes.
    window_bits: u8,
    takeover: bool,
    threshold: usize,
}

impl Deflater {
    /// `bits` 8 to 15, `level` 0 to 9; messages shorter than `threshold` are not worth it.
    pub(super) fn new(level: u8, bits: u8, takeover: bool, threshold: usize) -> Self {
        let window_bits = bits.clamp(8, 15);
        let setting = Setting { level: level.min(9), bits: window_bits.max(COMPRESS_BITS_MIN) };
        Deflater { context: None, setting, window_bits, takeover, threshold }
    }

    pub(super) fn threshold(&self) -> usize {
        self.threshold
    }

    /// Must every compressed message be sent, because the peer's window follows along?
    pub(super) fn has_takeover(&self) -> bool {
        self.takeover
    }

    /// The farthest that a sent message may refer back.
    pub(super) fn reach(&self) -> usize {
        1 << self.window_bits
    }

    /// Forgets the history: the next message refers to itself only.
    pub(super) fn forget(&mut self) {
        self.context = None;
    }

    /// Appends the compressed message, which must not be empty, to `out`.
    pub(super) fn compress(&mut self, message: &[u8], out: &mut Vec<u8>) {
        let mut context = self.context.take().unwrap_or_else(|| self.setting.context());
        compress(&mut context, message, out);
        if self.takeover {
            self.context = Some(context);
        } else {
            context.reset();
            SPARE_COMPRESS.set(Some((self.setting, context)));
        }
    }
}

impl Setting {
    fn context(self) -> Compress {
        match SPARE_COMPRESS.take() {
            Some((setting, context)) if setting == self => context,
            _ => Compress::new_with_window_bits(
                Compression::new(self.level.into()),
                false,
                self.bits,
            ),
        }
    }
}

fn compress(context: &mut Compress, message: &[u8], out: &mut Vec<u8>) {
    let begin = context.total_in();
    out.reserve(message.len() / 2 + 64);
    loop {
        let done = (context.total_in() - begin) as usize;
        let status = context.compress_vec(&message[done..], out, FlushCompress::Sync);
        let status = status.expect("a live deflate stream takes any input");
        let done = (context.total_in() - begin) as usize;
        // The flush is complete once there was room to spare; without progress there was nothing left to flush.
        if done == message.len() && (out.len() < out.capacity() || status == Status::BufError) {
            break;
        }
        out.reserve(message.len() - done + 64);
    }
    debug_assert!(out.ends_with(&TAIL));
    out.truncate(out.len() - TAIL.len());
}

/// Inflates the messages of one direction. Its window is always the widest: the crate reserves that much anyway, and a
/// wide window inflates what a narrow one made.
pub(super) struct Inflater {
    context: Option<Decompress>,
    takeover: bool,
}

impl Inflater {
    /// `takeover`: the peer's messages may refer to the ones before.
    pub(super) fn new(takeover: bool) -> Self {
        Inflater { context: None, takeover }
    }

    /// Inflates a piece of a message, and hands the output on in short steps.
    ///
    /// # Errors
    /// Invalid data, after the output before it was handed on; or the first error of `each`.
    pub(super) fn inflate(
        &mut self,
        piece: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        let fresh = || SPARE_INFLATE.take().unwrap_or_else(|| Decompress::new(false));
        let context = self.context.get_or_insert_with(fresh);
        let mut step = [0; INFLATE_STEP];
        let mut rest = piece;
        loop {
            let (taken, made) = (context.total_in(), context.total_out());
            let status = context.decompress(rest, &mut step, FlushDecompress::Sync);
            let taken = (context.total_in() - taken) as usize;
            let made = (context.total_out() - made) as usize;
            each(&step[..made])?;
            rest = &rest[taken..];
            match status.map_err(|_| ProtocolError::Inflate)? {
                // A final block ends a stream, not the message (RFC 7692 section 7.2.3.4). A compressor that writes one
                // starts afresh, so the window may go.
                Status::StreamEnd => context.reset(false),
                _ if taken == 0 && made == 0 => break,
                _ => {}
            }
            if rest.is_empty() && made < INFLATE_STEP {
                break;
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(ProtocolError::Inflate) }
    }

    /// Ends a message of which anything arrived: the four bytes that did not travel, then what the context is due.
    ///
    /// # Errors
    /// As [`inflate`](Self::inflate).
    pub(super) fn finish(
        &mut self,
        each: impl FnMut(&[u8]) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        self.inflate(&TAIL, each)?;
        if !self.takeover
            && let Some(mut context) = self.context.take()
        {
            context.reset(false);
            SPARE_INFLATE.set(Some(context));
        }
        Ok(())
    }
}
