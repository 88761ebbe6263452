//! When to ping, and when to give up: pure logic over the time that the caller gives.

use std::time::{Duration, Instant};

/// The time limits of a connection. `None` turns one off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlivePolicy {
    /// Ping after this long without traffic from the peer. While nothing is read from it, nothing counts as silence;
    /// but one that for this long and [`pong_within`](Self::pong_within) takes nothing of an output above its mark is
    /// given up.
    pub ping_after: Option<Duration>,
    /// Give up if nothing at all arrives for this long after a ping.
    pub pong_within: Duration,
    /// Give up if the peer does not finish the close handshake, or the client's server the connection, for this long
    /// after this side's close frame.
    pub close_within: Option<Duration>,
}

impl Default for KeepAlivePolicy {
    /// Ping after 30 s, 10 s for the pong, 5 s for the close.
    fn default() -> Self {
        KeepAlivePolicy {
            ping_after: Some(Duration::from_secs(30)),
            pong_within: Duration::from_secs(10),
            close_within: Some(Duration::from_secs(5)),
        }
    }
}

/// What to do now. The list is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing before this time: call [`KeepAlive::poll`] again then.
    At(Instant),
    /// Nothing, ever, as things stand.
    Never,
    /// Send a ping with this payload, and poll again.
    Ping([u8; 8]),
    /// No pong came: the peer is gone. Close the socket.
    PongMissed,
    /// The close handshake took too long. Close the socket.
    CloseTimeout,
}

/// The clockwork of one connection. Traffic costs one store.
///
/// ```
/// use std::time::{Duration, Instant};
/// use reev::websocket::{Due, KeepAlive, KeepAlivePolicy};
///
/// let (policy, start) = (KeepAlivePolicy::default(), Instant::now());
/// let mut alive = KeepAlive::new(start);
/// let later = start + Duration::from_secs(30);
/// let Due::Ping(payload) = alive.poll(&policy, later) else { panic!("30 s without traffic") };
/// let round_trip = alive.pong(&payload, later + Duration::from_millis(5));
/// assert_eq!(round_trip, Some(Duration::from_millis(5)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    seen: Instant,
    pinged: Option<Instant>,
    closing: Option<Instant>,
    pings: u64,
}

impl KeepAlive {
    /// A connection that opens now.
    pub fn new(now: Instant) -> Self {
        KeepAlive { seen: now, pinged: None, closing: None, pings: 0 }
    }

    /// Bytes arrived, whatever they are: the peer lives.
    #[inline]
    pub fn traffic(&mut self, now: Instant) {
        self.seen = now;
    }

    /// This side's close frame was sent. The first call counts.
    pub fn closing(&mut self, now: Instant) {
        self.closing.get_or_insert(now);
    }

    /// A pong arrived: the round trip, if it answers the last ping of [`poll`](Self::poll).
    pub fn pong(&mut self, payload: &[u8], now: Instant) -> Option<Duration> {
        self.traffic(now);
        if payload != self.pings.to_be_bytes() {
            return None;
        }
        self.pinged.take().map(|at| now.saturating_duration_since(at))
    }

    /// What is due. After [`Due::Ping`] the ping counts as sent.
    pub fn poll(&mut self, policy: &KeepAlivePolicy, now: Instant) -> Due {
        if let Some(since) = self.closing {
            return match policy.close_within {
                None => Due::Never,
                Some(limit) => due(since, limit, now, Due::CloseTimeout),
            };
        }
        let Some(ping_after) = policy.ping_after else { return Due::Never };
        if let Some(pinged) = self.pinged
            && self.seen <= pinged
        {
            return due(pinged, policy.pong_within, now, Due::PongMissed);
        }
        if self.seen.checked_add(ping_after).is_none_or(|at| now < at) {
            return due(self.seen, ping_after, now, Due::Never);
        }
        self.pings += 1;
        self.pinged = Some(now);
        Due::Ping(self.pings.to_be_bytes())
    }
}

/// `what` is due `after` a time; nothing, if no clock reaches it.
fn due(since: Instant, after: Duration, now: Instant, what: Due) -> Due {
    match since.checked_add(after) {
        None => Due::Never,
        Some(at) if now >= at => what,
        Some(at) => Due::At(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: KeepAlivePolicy = KeepAlivePolicy {
        ping_after: Some(Duration::from_secs(30)),
        pong_within: Duration::from_secs(10),
        close_within: Some(Duration::from_secs(5)),
    };

    fn start() -> (KeepAlive, impl Fn(u64) -> Instant) {
        let base = Instant::now();
        (KeepAlive::new(base), move |seconds| base + Duration::from_secs(seconds))
    }

    /// Planted: a time is added to the clock's as it is, which overflows.
    #[test]
    fn times_that_no_clock_reaches_are_never_due() {
        let ever = Duration::MAX;
        let policy =
            KeepAlivePolicy { ping_after: Some(ever), pong_within: ever, close_within: Some(ever) };
        let (mut peer, at) = start();
        assert_eq!(peer.poll(&policy, at(1000)), Due::Never);
        let soon = KeepAlivePolicy { ping_after: Some(Duration::ZERO), ..policy };
        assert!(matches!(peer.poll(&soon, at(1001)), Due::Ping(_)));
        assert_eq!(peer.poll(&soon, at(1002)), Due::Never);
    }

    #[test]
    fn ping_after_idle_and_give_up_without_pong() {
        let (mut clock, at) = start();
        assert_eq!(clock.poll(&POLICY, at(0)), Due::At(at(30)));
        assert_eq!(clock.poll(&POLICY, at(30)), Due::Ping(1u64.to_be_bytes()));
        assert_eq!(clock.poll(&POLICY, at(30)), Due::At(at(40)));
        assert_eq!(clock.poll(&POLICY, at(39)), Due::At(at(40)));
        assert_eq!(clock.poll(&POLICY, at(40)), Due::PongMissed);
    }

    #[test]
    fn any_traffic_renews() {
        let (mut clock, at) = start();
        clock.traffic(at(20));
        assert_eq!(clock.poll(&POLICY, at(30)), Due::At(at(50)));
        assert_eq!(clock.poll(&POLICY, at(50)), Due::Ping(1u64.to_be_bytes()));
        clock.traffic(at(55));
        assert_eq!(clock.poll(&POLICY, at(60)), Due::At(at(85)));
        assert_eq!(clock.poll(&POLICY, at(85)), Due::Ping(2u64.to_be_bytes()));
    }

    #[test]
    fn only_the_answer_to_the_last_ping_has_a_round_trip() {
        let (mut clock, at) = start();
        assert_eq!(clock.pong(b"", at(1)), None);
        let Due::Ping(payload) = clock.poll(&POLICY, at(31)) else { panic!("a ping is due") };
        assert_eq!(clock.pong(b"other", at(32)), None);
        assert_eq!(clock.pong(&payload, at(33)), Some(Duration::from_secs(2)));
        assert_eq!(clock.pong(&payload, at(34)), None);
    }

    #[test]
    fn the_close_handshake_has_its_limit() {
        let (mut clock, at) = start();
        clock.closing(at(3));
        clock.closing(at(7));
        clock.traffic(at(7));
        assert_eq!(clock.poll(&POLICY, at(7)), Due::At(at(8)));
        assert_eq!(clock.poll(&POLICY, at(8)), Due::CloseTimeout);
    }

    #[test]
    fn what_is_off_never_comes() {
        let (mut clock, at) = start();
        let off = KeepAlivePolicy { ping_after: None, close_within: None, ..POLICY };
        assert_eq!(clock.poll(&off, at(1_000)), Due::Never);
        clock.closing(at(1_000));
        assert_eq!(clock.poll(&off, at(9_000)), Due::Never);
    }
}
