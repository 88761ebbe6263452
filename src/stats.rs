//! Counters that a reactor writes and any thread reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::close;

/// A number with one writer. A plain load and store, no locked instruction: to the reactor it
/// costs what an ordinary field costs.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        let value = self.0.load(Ordering::Relaxed);
        self.0.store(value.wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn subtract(&self, n: u64) {
        self.add(n.wrapping_neg());
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) accepted: Counter,
    pub(crate) accept_errors: Counter,
    pub(crate) turned_away: Counter,
    pub(crate) connected: Counter,
    pub(crate) connect_errors: Counter,
    pub(crate) open: Counter,
    pub(crate) closed: [Counter; close::KINDS],
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) bytes_spliced: Counter,
    pub(crate) datagrams_in: Counter,
    pub(crate) datagrams_out: Counter,
    pub(crate) datagrams_dropped: Counter,
    pub(crate) turns: Counter,
    pub(crate) events: Counter,
    pub(crate) mail: Counter,
    pub(crate) timers: Counter,
    pub(crate) paused: Counter,
    output_queued: Counter,
    turn_longest: Counter,
    turn_recent: Counter,
}

/// What one reactor has done, as of its latest turn.
///
/// ```
/// use reev::{Close, Stats};
///
/// fn report(stats: &[Stats]) -> String {
///     let total = Stats::total(stats);
///     let slow = Close::KIND_NAMES.iter().position(|&kind| kind == "slow_consumer");
///     let slow = slow.map_or(0, |kind| total.closed[kind]);
///     format!("{} open, {} bytes out, {slow} cut as too slow", total.open, total.bytes_out)
/// }
/// # assert!(report(&[]).starts_with("0 open"));
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Connections accepted.
    pub accepted: u64,
    /// Calls of `accept` that failed for want of a resource.
    pub accept_errors: u64,
    /// Clients turned away at once because there was no descriptor for them.
    pub turned_away: u64,
    /// Connections made.
    pub connected: u64,
    /// Connections that could not be made.
    pub connect_errors: u64,
    /// Connections and other handlers that are there now.
    pub open: u64,
    /// Connections ended, by kind, in the order of [`Close::KIND_NAMES`].
    ///
    /// [`Close::KIND_NAMES`]: crate::Close::KIND_NAMES
    pub closed: [u64; close::KINDS],
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes the system took for sending.
    pub bytes_out: u64,
    /// Of these, bytes of paired connections that went from socket to socket without a copy.
    pub bytes_spliced: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Datagrams the system took for sending.
    pub datagrams_out: u64,
    /// Datagrams to send that were dropped: the socket's queue was full, or the system refused.
    pub datagrams_dropped: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// Events from the poller.
    pub events: u64,
    /// Messages from other threads.
    pub mail: u64,
    /// Timers pending now.
    pub timers: u64,
    /// Connections that are not read from now, because their handler paused them, or their
    /// output or their pair's is above its mark.
    pub paused: u64,
    /// Bytes of output that wait for peers now.
    pub output_queued: u64,
    /// The longest turn, without the wait in the poller.
    pub turn_longest: Duration,
    /// The turns of late: a moving average over about sixteen.
    pub turn_recent: Duration,
}

impl Counters {
    /// A turn is over that took so many nanoseconds.
    pub(crate) fn end_turn(&self, took: u64, events: usize, timers: usize, queued: usize) {
        self.turns.add(1);
        self.events.add(events as u64);
        self.timers.set(timers as u64);
        self.output_queued.set(queued as u64);
        if took > self.turn_longest.value() {
            self.turn_longest.set(took);
        }
        let recent = self.turn_recent.value();
        self.turn_recent.set(recent - recent / 16 + took / 16);
    }

    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            accepted: self.accepted.value(),
            accept_errors: self.accept_errors.value(),
            turned_away: self.turned_away.value(),
            connected: self.connected.value(),
            connect_errors: self.connect_errors.value(),
            open: self.open.value(),
            closed: std::array::from_fn(|kind| self.closed[kind].value()),
            bytes_in: self.bytes_in.value(),
            bytes_out: self.bytes_out.value(),
            bytes_spliced: self.bytes_spliced.value(),
            datagrams_in: self.datagrams_in.value(),
            datagrams_out: self.datagrams_out.value(),
            datagrams_dropped: self.datagrams_dropped.value(),
            turns: self.turns.value(),
            events: self.events.value(),
            mail: self.mail.value(),
            timers: self.timers.value(),
            paused: self.paused.value(),
            output_queued: self.output_queued.value(),
            turn_longest: Duration::from_nanos(self.turn_longest.value()),
            turn_recent: Duration::from_nanos(self.turn_recent.value()),
        }
    }
}

impl Stats {
    /// The sum over several reactors; of turn times, the longest.
    pub fn total<'a>(all: impl IntoIterator<Item = &'a Stats>) -> Stats {
        all.into_iter().fold(Stats::default(), |sum, one| Stats {
            accepted: sum.accepted + one.accepted,
            accept_errors: sum.accept_errors + one.accept_errors,
            turned_away: sum.turned_away + one.turned_away,
            connected: sum.connected + one.connected,
            connect_errors: sum.connect_errors + one.connect_errors,
            open: sum.open + one.open,
            closed: std::array::from_fn(|kind| sum.closed[kind] + one.closed[kind]),
            bytes_in: sum.bytes_in + one.bytes_in,
            bytes_out: sum.bytes_out + one.bytes_out,
            bytes_spliced: sum.bytes_spliced + one.bytes_spliced,
            datagrams_in: sum.datagrams_in + one.datagrams_in,
            datagrams_out: sum.datagrams_out + one.datagrams_out,
            datagrams_dropped: sum.datagrams_dropped + one.datagrams_dropped,
            turns: sum.turns + one.turns,
            events: sum.events + one.events,
            mail: sum.mail + one.mail,
            timers: sum.timers + one.timers,
            paused: sum.paused + one.paused,
            output_queued: sum.output_queued + one.output_queued,
            turn_longest: sum.turn_longest.max(one.turn_longest),
            turn_recent: sum.turn_recent.max(one.turn_recent),
        })
    }
}
