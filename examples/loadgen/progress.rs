//! A line on standard error that tells how it goes.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::report::{ns, thousands, time};
use crate::tally::Interval;

/// How often it is drawn.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

pub(crate) struct Progress {
    shown: bool,
    /// One line that is drawn again and again; else a line each time.
    in_place: bool,
    begun: Instant,
    duration: Duration,
    last: Instant,
    sum: Interval,
}

impl Progress {
    /// `duration`: of the load as a whole.
    pub(crate) fn new(shown: bool, duration: Duration) -> Progress {
        let now = Instant::now();
        let in_place = io::stderr().is_terminal();
        Progress { shown, in_place, begun: now, duration, last: now, sum: Interval::default() }
    }

    /// Connections are being made.
    pub(crate) fn connecting(&mut self, open: u64, of: usize) {
        let of = thousands(of as u64);
        self.say(&format!("connecting: {} of {of} are open", thousands(open)));
    }

    /// The load begins.
    pub(crate) fn begin(&mut self, now: Instant) {
        (self.begun, self.last) = (now, now);
    }

    pub(crate) fn add(&mut self, interval: &Interval) {
        self.sum.add(interval);
    }

    /// What has come since it was last told.
    pub(crate) fn loading(&mut self, open: u64) {
        let now = Instant::now();
        let sum = std::mem::take(&mut self.sum);
        let seconds = (now - self.last).as_secs_f64();
        self.last = now;
        let done = (now - self.begun).min(self.duration);
        let mut line = format!(
            "{:>3.0} s of {}: {} connections",
            done.as_secs_f64(),
            time(self.duration),
            thousands(open)
        );
        if !sum.latency.is_empty() {
            let rate = thousands((sum.answers as f64 / seconds).round() as u64);
            let quantile = |q| ns(sum.latency.value_at_quantile(q));
            line.push_str(&format!(
                ", {rate} answers a second, {} (p50), {} (p99)",
                quantile(0.5),
                quantile(0.99)
            ));
        }
        if sum.failures > 0 {
            line.push_str(&format!(", {} errors", thousands(sum.failures)));
        }
        self.say(&line);
    }

    /// Nobody may be reading, which is no reason to stop.
    fn say(&self, line: &str) {
        if self.shown {
            let mut err = io::stderr().lock();
            let _ = match self.in_place {
                true => write!(err, "\r\x1b[2K{line}").and_then(|()| err.flush()),
                false => writeln!(err, "{line}"),
            };
        }
    }

    /// Makes room for what is said next.
    pub(crate) fn clear(&self) {
        if self.shown && self.in_place {
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }
}
