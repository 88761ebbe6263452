//! When requests are due, and which of them count.

use std::time::{Duration, Instant};

/// Requests at fixed times: number `m` is due `m / rate` after the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    /// Requests in a thousand seconds.
    rate_milli: u64,
}

/// Nanoseconds in a thousand seconds.
const THOUSAND_S: u128 = 1_000_000_000_000;

impl Schedule {
    /// `rate` is in requests a second, at least 0.001.
    pub(crate) fn new(rate: f64) -> Schedule {
        Schedule { rate_milli: ((rate * 1000.0).round() as u64).max(1) }
    }

    /// When request `m` is due, from the start.
    pub(crate) fn due(self, m: u64) -> Duration {
        let nanos = u128::from(m) * THOUSAND_S / u128::from(self.rate_milli);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The first request that is due at `time` or later.
    pub(crate) fn first_from(self, time: Duration) -> u64 {
        // `due` rounds down, so what is due at `time` is the smallest m with m / rate >= time.
        let m = (time.as_nanos() * u128::from(self.rate_milli)).div_ceil(THOUSAND_S);
        u64::try_from(m).unwrap_or(u64::MAX)
    }
}

/// The time that is measured, and the requests due in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// When the load begins: the warm-up.
    pub(crate) start: Instant,
    pub(crate) from: Instant,
    pub(crate) end: Instant,
    /// Of an open loop.
    pub(crate) open: Option<Open>,
}

/// The requests that are due in the window: from `first` to before `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    pub(crate) schedule: Schedule,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Window {
    pub(crate) fn new(
        start: Instant,
        warmup: Duration,
        duration: Duration,
        schedule: Option<Schedule>,
    ) -> Window {
        let open = schedule.map(|schedule| Open {
            schedule,
            first: schedule.first_from(warmup),
            last: schedule.first_from(warmup + duration),
        });
        Window { start, from: start + warmup, end: start + warmup + duration, open }
    }

    /// Ended before its time.
    pub(crate) fn cut(self, now: Instant) -> Window {
        if now >= self.end {
            return self;
        }
        let behind = now.saturating_duration_since(self.start) + Duration::from_nanos(1);
        let open = self.open.map(|open| {
            let last = open.schedule.first_from(behind).min(open.last);
            Open { last: last.max(open.first), ..open }
        });
        Window { end: now.max(self.from), open, ..self }
    }

    pub(crate) fn contains(&self, time: Instant) -> bool {
        self.from <= time && time < self.end
    }
}

impl Open {
    /// How many of the requests `number`, `number + step`, … are due in the window.
    pub(crate) fn share(&self, number: u64, step: u64) -> u64 {
        let below = |m: u64| m.saturating_sub(number).div_ceil(step);
        below(self.last) - below(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_at_their_rate() {
        let schedule = Schedule::new(3.0);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(1), Duration::from_nanos(333_333_333));
        assert_eq!(schedule.due(3), Duration::from_secs(1));
        assert_eq!(Schedule::new(0.5).due(1), Duration::from_secs(2));
    }

    /// For many rates and times: `first_from` agrees with asking each request.
    #[test]
    fn the_first_from_a_time_is_not_due_before_it() {
        for rate in [0.5, 1.0, 3.0, 7.0, 999.0, 1000.0, 123_456.0] {
            let schedule = Schedule::new(rate);
            for time_ms in [0, 1, 10, 999, 1000, 1001, 2500] {
                let time = Duration::from_millis(time_ms);
                let m = schedule.first_from(time);
                assert!(schedule.due(m) >= time, "{rate} {time_ms}: {m}");
                assert!(m == 0 || schedule.due(m - 1) < time, "{rate} {time_ms}: {m}");
            }
        }
    }

    #[test]
    fn a_window_has_as_many_requests_as_rate_and_time_say() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        for (rate, requests) in [(1.0, 2), (1000.0, 2000), (7.0, 14), (0.5, 1)] {
            let window = Window::new(start, 2 * second, 2 * second, Some(Schedule::new(rate)));
            let open = window.open.unwrap();
            assert_eq!(open.last - open.first, requests, "{rate}");
            for connections in [1, 2, 3, 10] {
                let shares = (0..connections).map(|number| open.share(number, connections));
                assert_eq!(shares.sum::<u64>(), requests, "{rate}, {connections} connections");
            }
        }
    }

    #[test]
    fn a_window_that_is_cut_has_what_was_due_until_then() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        let window = Window::new(start, ms(100), ms(1000), Some(Schedule::new(100.0)));
        let cut = window.cut(start + ms(300));
        assert_eq!(cut.open.map(|open| (open.first, open.last)), Some((10, 31)));
        assert_eq!(cut.end, start + ms(300));
        let in_the_warmup = window.cut(start + ms(50));
        assert_eq!(in_the_warmup.open.map(|open| (open.first, open.last)), Some((10, 10)));
        assert!(!in_the_warmup.contains(start + ms(50)));
        assert_eq!(window.cut(start + ms(2000)).end, window.end);
    }
}
