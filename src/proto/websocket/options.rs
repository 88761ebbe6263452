//! The settings of the layer on top of the codec.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::config::Config;
use super::extension::DeflateConfig;
use super::keepalive::KeepAlivePolicy;

/// What happens to a message for a peer that reads more slowly than it is sent to. The mark is
/// the reactor's [`Config::output_high`](crate::Config::output_high); above
/// [`output_max`](crate::Config::output_max) a connection ends in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum SlowConsumer {
    /// Messages wait: above the mark nothing is read from the peer, and below the low mark
    /// `on_drain` is called.
    #[default]
    Wait,
    /// A message is left out, with [`SendError::SlowConsumer`](super::SendError::SlowConsumer),
    /// while the peer is above the mark. Control frames are sent.
    Drop,
    /// The connection is reset, with [`Close::SlowConsumer`](crate::Close::SlowConsumer).
    Close,
}

/// Which pages may connect, by the `Origin` that a browser tells (RFC 6455 section 10.2). A
/// client that tells none is no browser and is not asked.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Origins {
    /// Pages of the host that is asked, whatever the scheme.
    #[default]
    SameHost,
    /// Any page: for services that need no cookie.
    Any,
    /// Those of which the closure says true, given the origin and the request's host.
    Check(Arc<OriginFn>),
}

/// Judges an origin, given with the request's host.
pub type OriginFn = dyn Fn(&[u8], &[u8]) -> bool + Send + Sync;

impl Origins {
    pub(super) fn allows(&self, origin: Option<&[u8]>, host: &[u8]) -> bool {
        let Some(origin) = origin else {
            return true;
        };
        match self {
            Origins::Any => true,
            Origins::SameHost => {
                let authority = origin.windows(3).position(|part| part == b"://");
                authority.is_some_and(|at| origin[at + 3..].eq_ignore_ascii_case(host))
            }
            Origins::Check(check) => check(origin, host),
        }
    }
}

impl fmt::Debug for Origins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origins::SameHost => "SameHost",
            Origins::Any => "Any",
            Origins::Check(_) => "Check",
        })
    }
}

/// The settings of the connections of a [`WebSockets`](super::WebSockets). Start from the default
/// and change fields.
///
/// ```
/// use std::sync::Arc;
/// use reev::websocket::{Options, Origins, SlowConsumer};
///
/// let mut options = Options::with_deflate();
/// options.origins = Origins::Check(Arc::new(|origin, _host| origin == b"https://example.org"));
/// options.slow_consumer = SlowConsumer::Drop;
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// The codec's bounds, and permessage-deflate.
    pub codec: Config,
    /// The subprotocols that are spoken; see [`WebSocket::protocol`](super::WebSocket::protocol).
    pub protocols: Vec<String>,
    /// Which pages may connect. Default: those of the same host.
    pub origins: Origins,
    /// When to ping and when to give up. An idle connection is pinged up to an eighth later,
    /// because all connections of a reactor share one timer for this.
    pub keep_alive: KeepAlivePolicy,
    /// What to do about a peer that reads too slowly. Default: wait.
    pub slow_consumer: SlowConsumer,
    /// Bytes that may wait in the queue of one [`Remote`](super::Remote). Default 16 MiB.
    pub remote_bytes_max: usize,
    /// A client's handshake, from the connection on, takes no longer. Default 10 s.
    pub handshake_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            codec: Config::default(),
            protocols: Vec::new(),
            origins: Origins::default(),
            keep_alive: KeepAlivePolicy::default(),
            slow_consumer: SlowConsumer::default(),
            remote_bytes_max: 16 << 20,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl Options {
    /// The default with permessage-deflate.
    pub fn with_deflate() -> Options {
        let codec = Config { deflate: Some(DeflateConfig::default()), ..Config::default() };
        Options { codec, ..Options::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_of_the_same_host() {
        let same = Origins::SameHost;
        assert!(same.allows(None, b"a:80"));
        assert!(same.allows(Some(b"http://A:80"), b"a:80"));
        assert!(same.allows(Some(b"https://a"), b"a"));
        assert!(!same.allows(Some(b"http://a.evil"), b"a"));
        assert!(!same.allows(Some(b"null"), b"null"));
        let check = Origins::Check(Arc::new(|origin, _| origin == b"x"));
        assert!(check.allows(Some(b"x"), b"a") && !check.allows(Some(b"y"), b"a"));
        assert!(Origins::Any.allows(Some(b"null"), b"a"));
    }
}
