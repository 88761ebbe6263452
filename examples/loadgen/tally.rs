//! What one thread has counted; the threads' are added up at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time that is told apart from a longer one.
const TIME_NS_MAX: u64 = 3_600_000_000_000;

/// Times in nanoseconds, to three digits.
pub(crate) type Times = Histogram<u64>;

pub(crate) fn times() -> Times {
    Histogram::new_with_bounds(1, TIME_NS_MAX, 3).expect("the bounds are in order")
}

pub(crate) fn record(times: &mut Times, time: Duration) {
    times.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
}

/// Requests that were due (open loop) or sent (closed loop) in the window:
/// `scheduled = sent + unsent`, `sent = answered + failed + unanswered`.
#[derive(Default, Clone, Copy, Debug)]
pub(crate) struct Requests {
    /// Of an open loop.
    pub(crate) scheduled: u64,
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    /// Lost with their connections.
    pub(crate) failed: u64,
    /// Under way when it was over.
    pub(crate) unanswered: u64,
}

/// A kind of error: how often, and the first one's words.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Failure {
    pub(crate) count: u64,
    pub(crate) example: String,
}

pub(crate) struct Tally {
    pub(crate) requests: Requests,
    /// Answers that came in the window, whenever they were asked for.
    pub(crate) answers: u64,
    /// From the time a request was due (open loop) or sent (closed loop) to its answer.
    pub(crate) latency: Times,
    /// Of an open loop: from the time it was sent.
    pub(crate) from_send: Times,
    /// Of an open loop: from the time it was due to when it was sent.
    pub(crate) late: Times,
    pub(crate) connect: Times,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) failures: BTreeMap<String, Failure>,
    pub(crate) open_at_end: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) measured: Duration,
    /// Processor time of the thread while it measured.
    pub(crate) cpu: Duration,
    pub(crate) interrupted: bool,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally {
            requests: Requests::default(),
            answers: 0,
            latency: times(),
            from_send: times(),
            late: times(),
            connect: times(),
            statuses: BTreeMap::new(),
            failures: BTreeMap::new(),
            open_at_end: 0,
            bytes_in: 0,
            bytes_out: 0,
            measured: Duration::ZERO,
            cpu: Duration::ZERO,
            interrupted: false,
        }
    }
}

impl Tally {
    pub(crate) fn fail(&mut self, kind: &str, example: impl FnOnce() -> String) {
        match self.failures.get_mut(kind) {
            Some(failure) => failure.count += 1,
            None => {
                let failure = Failure { count: 1, example: example() };
                self.failures.insert(kind.to_owned(), failure);
            }
        }
    }

    pub(crate) fn add(&mut self, other: Tally) {
        let (mine, others) = (&mut self.requests, other.requests);
        mine.scheduled += others.scheduled;
        mine.sent += others.sent;
        mine.answered += others.answered;
        mine.failed += others.failed;
        mine.unanswered += others.unanswered;
        self.answers += other.answers;
        for (mine, others) in [
            (&mut self.latency, other.latency),
            (&mut self.from_send, other.from_send),
            (&mut self.late, other.late),
            (&mut self.connect, other.connect),
        ] {
            mine.add(others).expect("the bounds are the same");
        }
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (kind, failure) in other.failures {
            let mine = self.failures.entry(kind);
            mine.and_modify(|mine| mine.count += failure.count).or_insert(failure);
        }
        self.open_at_end += other.open_at_end;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        self.measured = self.measured.max(other.measured);
        self.cpu += other.cpu;
        self.interrupted |= other.interrupted;
    }
}

/// What the progress line shows of a second.
pub(crate) struct Interval {
    pub(crate) answers: u64,
    pub(crate) failures: u64,
    pub(crate) latency: Times,
}

impl Default for Interval {
    fn default() -> Interval {
        Interval { answers: 0, failures: 0, latency: times() }
    }
}

impl Interval {
    pub(crate) fn add(&mut self, other: &Interval) {
        self.answers += other.answers;
        self.failures += other.failures;
        self.latency.add(&other.latency).expect("the bounds are the same");
    }
}
