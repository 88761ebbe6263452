//! Every bound of the WebSocket codec, by name.

use super::extension::DeflateConfig;

/// The longest header of a frame: 2 bytes, a 64-bit length and a mask (RFC 6455 section 5.2).
pub const HEADER_LEN_MAX: usize = 14;
/// The longest payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_LEN_MAX: usize = 125;
/// The longest reason of a close frame: the control limit less the two bytes of the code.
pub const CLOSE_REASON_LEN_MAX: usize = CONTROL_LEN_MAX - 2;
/// Extensions, and parameters of one, that a handshake header may list; more is refused.
pub const EXTENSIONS_MAX: usize = 16;
/// Output of one call of the inflater: the step in which inflated size and UTF-8 are checked.
pub(super) const INFLATE_STEP: usize = 4096;
/// A partial payload up to this size gets its whole buffer at once; a longer one grows as it arrives.
pub(super) const RESERVE_AT_ONCE: usize = 4096;

const _: () = assert!(CONTROL_LEN_MAX < 126, "a control frame has the short form of the length");
const _: () = assert!(RESERVE_AT_ONCE >= CONTROL_LEN_MAX);

/// What one connection may use, and how it answers.
///
/// ```
/// use reev::websocket::{Config, DeflateConfig};
///
/// let config = Config {
///     message_max: 64 << 10,
///     deflate: Some(DeflateConfig { level: 6, ..DeflateConfig::default() }),
///     ..Config::default()
/// };
/// # let _ = config;
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// The longest message taken, in bytes, after inflation. A longer one fails the connection with 1009.
    /// 1 ..= `isize::MAX`.
    pub message_max: usize,
    /// The most frames one message may come in. More fail the connection with 1009.
    pub fragments_max: u32,
    /// Messages longer than this many bytes are sent in frames of this size; `None`: always in one frame.
    /// A size of 0 counts as 1, and one of 4 GiB or more as `None`.
    pub fragment_size: Option<usize>,
    /// Answer a ping with a pong of the same payload at once; otherwise the user answers.
    pub answer_pings: bool,
    /// Answer the peer's close frame at once; otherwise the user does, with [`Sender::close`](super::Sender::close).
    pub answer_close: bool,
    /// permessage-deflate: `None` neither offers nor accepts it.
    pub deflate: Option<DeflateConfig>,
}

impl Default for Config {
    /// Messages up to 16 MiB in up to 100,000 frames, sent unfragmented; pings and closes answered; no deflate.
    fn default() -> Self {
        Config {
            message_max: 16 << 20,
            fragments_max: 100_000,
            fragment_size: None,
            answer_pings: true,
            answer_close: true,
            deflate: None,
        }
    }
}

/// The most payload bytes that a compressed message may have on the wire. Sensible senders stay near the inflated
/// size; the factor leaves room for one that flushes after every few bytes, and bounds endless empty blocks.
pub(super) fn compressed_max(message_max: usize) -> u64 {
    2 * message_max as u64 + (64 << 10)
}
