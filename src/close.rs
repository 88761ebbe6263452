//! Why a connection ended.

use std::{fmt, io};

/// Why a connection ended, as its handler is told once, in `on_close`.
///
/// ```
/// use reev::{Close, Ctx, EvHandler};
///
/// struct Session;
///
/// impl EvHandler for Session {
///     fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
///         match why {
///             why if why.is_clean() => {}
///             Close::SlowConsumer | Close::IdleTimeout => log::info!("{}: {why}", cx.peer()),
///             why => log::warn!("{} ({}): {why}", cx.peer(), why.kind()),
///         }
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Close {
    /// This side called `close()`, and all output was handed to the system.
    Local,
    /// This side called `abort()`: output was dropped and the connection reset.
    Aborted,
    /// The peer sent its FIN first; then this side closed, all its output handed to the system.
    Peer,
    /// The socket failed: reset by the peer, broken pipe, timed out in the kernel, ...
    Io(io::Error),
    /// A callback returned this error, or what it asked for could not be done (a file that ended
    /// early, say), and the connection was reset.
    Error(io::Error),
    /// A callback panicked, with this message. Other connections are not affected.
    Panic(String),
    /// More than `Config::output_max` bytes waited for a peer that does not read.
    SlowConsumer,
    /// The handler left more than `Config::input_max` bytes unread: a message over the bound.
    InputLimit,
    /// Nothing moved for as long as `Ctx::idle_timeout` allows.
    IdleTimeout,
    /// The peer took too long to read what was written before `close()`
    /// (`Config::close_timeout`); the rest is lost.
    CloseTimeout,
    /// The reactor was stopped.
    Stopped,
    /// `Ctx::detach` handed the connection out.
    Detached,
    /// `Ctx::replace` put another handler in this one's place; the connection lives on.
    Replaced,
}

/// The number of kinds of [`Close`], for counters by kind.
pub(crate) const KINDS: usize = 13;

impl Close {
    /// A short name that is stable across versions, for logs and metrics.
    pub fn kind(&self) -> &'static str {
        Close::KIND_NAMES[self.index()]
    }

    /// The names of all kinds, in the order of the counters in the statistics.
    pub const KIND_NAMES: [&'static str; KINDS] = [
        "local",
        "aborted",
        "peer",
        "io",
        "error",
        "panic",
        "slow_consumer",
        "input_limit",
        "idle_timeout",
        "close_timeout",
        "stopped",
        "replaced",
        "detached",
    ];

    pub(crate) fn index(&self) -> usize {
        match self {
            Close::Local => 0,
            Close::Aborted => 1,
            Close::Peer => 2,
            Close::Io(_) => 3,
            Close::Error(_) => 4,
            Close::Panic(_) => 5,
            Close::SlowConsumer => 6,
            Close::InputLimit => 7,
            Close::IdleTimeout => 8,
            Close::CloseTimeout => 9,
            Close::Stopped => 10,
            Close::Replaced => 11,
            Close::Detached => 12,
        }
    }

    /// Whether all output written before the end was handed to the system: true for `Local`
    /// and `Peer`.
    pub fn is_clean(&self) -> bool {
        matches!(self, Close::Local | Close::Peer)
    }

    /// Whether the end is told to the peer by a reset instead of a FIN, so that it does not
    /// mistake a torn stream for a whole one.
    pub(crate) fn resets(&self) -> bool {
        !self.is_clean() && !matches!(self, Close::IdleTimeout)
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Close::Local => f.write_str("closed by this side"),
            Close::Aborted => f.write_str("aborted by this side"),
            Close::Peer => f.write_str("closed by the peer"),
            Close::Io(error) => write!(f, "socket error: {error}"),
            Close::Error(error) => write!(f, "handler error: {error}"),
            Close::Panic(message) => write!(f, "handler panicked: {message}"),
            Close::SlowConsumer => f.write_str("the peer reads too slowly"),
            Close::InputLimit => f.write_str("a message over the input bound"),
            Close::IdleTimeout => f.write_str("idle for too long"),
            Close::CloseTimeout => f.write_str("the peer did not read the rest in time"),
            Close::Detached => f.write_str("handed out"),
            Close::Replaced => f.write_str("another handler took over"),
            Close::Stopped => f.write_str("the reactor was stopped"),
        }
    }
}
