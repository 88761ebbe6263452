//! A bounded queue into a reactor from any thread, with a doorbell.
//!
//! Senders push, and then ring if the reactor sleeps: one that is awake looks here in every turn,
//! and again before it sleeps. That there is mail and that the reactor sleeps are said in one
//! word, so that whoever comes second sees the other. The reactor takes the word of mail back
//! *before* it takes the queue: a message pushed after the take says so again, and none is left
//! lying while the reactor sleeps.

use std::collections::VecDeque;
use std::fmt;

use crate::sync::{AtomicUsize, Mutex, Ordering, lock};

/// Why a message from another thread was not accepted.
///
/// ```
/// use reev::{Remote, SendError};
///
/// fn tell(remote: &Remote, news: &'static [u8]) {
///     match remote.write(news) {
///         Ok(()) => {}
///         Err(SendError::Full) => log::warn!("the reactor is behind: the news is dropped"),
///         Err(_) => {} // the connection is gone
///     }
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SendError {
    /// The reactor's mailbox is full; try again later, or shed load.
    Full,
    /// The connection or its reactor is gone.
    Closed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendError::Full => "the reactor's mailbox is full",
            SendError::Closed => "the connection or its reactor is gone",
        })
    }
}

impl std::error::Error for SendError {}

/// Wakes a reactor that sleeps in its poller.
pub(crate) trait Doorbell: Send + Sync {
    fn ring(&self);
}

/// What a message counts against the mailbox's bound of bytes.
pub(crate) trait Weight {
    fn weight(&self) -> usize;
}

/// The bits of [`Mailbox::state`]: something was pushed that the reactor has not looked at; the
/// reactor sleeps, or is about to.
const MAIL: usize = 1;
const ASLEEP: usize = 2;

struct Queue<M> {
    mail: VecDeque<M>,
    bytes: usize,
    closed: bool,
}

pub(crate) struct Mailbox<M, D> {
    queue: Mutex<Queue<M>>,
    state: AtomicUsize,
    doorbell: D,
    messages_max: usize,
    bytes_max: usize,
}

impl<M: Weight, D: Doorbell> Mailbox<M, D> {
    pub(crate) fn new(doorbell: D, messages_max: usize, bytes_max: usize) -> Mailbox<M, D> {
        Mailbox {
            queue: Mutex::new(Queue { mail: VecDeque::new(), bytes: 0, closed: false }),
            state: AtomicUsize::new(0),
            doorbell,
            messages_max,
            bytes_max,
        }
    }

    /// Queues a message within the bounds, and wakes the reactor if need be.
    pub(crate) fn send(&self, message: M) -> Result<(), SendError> {
        self.hand_over(message).map_err(|(error, _)| error)
    }

    /// [`Mailbox::send`], which gives back what it refuses.
    pub(crate) fn hand_over(&self, message: M) -> Result<(), (SendError, M)> {
        self.push(message, true)
    }

    /// Queues a message that must not be lost, such as the order to stop, whatever is there.
    pub(crate) fn send_urgent(&self, message: M) -> Result<(), SendError> {
        self.push(message, false).map_err(|(error, _)| error)
    }

    fn push(&self, message: M, bounded: bool) -> Result<(), (SendError, M)> {
        let weight = message.weight();
        {
            let mut queue = lock(&self.queue);
            if queue.closed {
                return Err((SendError::Closed, message));
            }
            // One message over the bound of bytes may pass when nothing waits before it.
            let over = queue.mail.len() >= self.messages_max
                || (queue.bytes > 0 && queue.bytes.saturating_add(weight) > self.bytes_max);
            if bounded && over {
                return Err((SendError::Full, message));
            }
            queue.bytes += weight;
            queue.mail.push_back(message);
        }
        // Of those who find it asleep, the first wakes it.
        if self.state.fetch_or(MAIL, Ordering::AcqRel) == ASLEEP {
            self.doorbell.ring();
        }
        Ok(())
    }

    /// The reactor is going to sleep, and what comes from now on rings; false, and nothing will,
    /// if there is something to take.
    #[inline]
    pub(crate) fn begin_sleep(&self) -> bool {
        self.state.compare_exchange(0, ASLEEP, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// The reactor is awake again.
    #[inline]
    pub(crate) fn end_sleep(&self) {
        self.state.fetch_and(!ASLEEP, Ordering::AcqRel);
    }

    /// Whether there may be something to take.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.state.load(Ordering::Relaxed) & MAIL != 0
    }

    /// Moves up to `most` messages to `into`, in order; true if some are left. Only the reactor
    /// calls this.
    pub(crate) fn take(&self, most: usize, into: &mut VecDeque<M>) -> bool {
        if !self.has_mail() {
            return false;
        }
        if into.is_empty() && into.capacity() > most.saturating_mul(4) {
            *into = VecDeque::new(); // of a burst
        }
        self.state.fetch_and(!MAIL, Ordering::AcqRel);
        let mut queue = lock(&self.queue);
        if queue.mail.len() <= most && into.is_empty() {
            std::mem::swap(&mut queue.mail, into);
            queue.bytes = 0;
            return false;
        }
        let n = queue.mail.len().min(most);
        for _ in 0..n {
            let Some(message) = queue.mail.pop_front() else {
                break;
            };
            queue.bytes -= message.weight();
            into.push_back(message);
        }
        let left = !queue.mail.is_empty();
        if left {
            self.state.fetch_or(MAIL, Ordering::Release);
        }
        left
    }

    /// Refuses all that comes from now on, unless something waits; then false.
    pub(crate) fn close_if_empty(&self) -> bool {
        let mut queue = lock(&self.queue);
        queue.closed |= queue.mail.is_empty();
        queue.closed
    }

    /// Refuses all that comes from now on and gives what waits.
    pub(crate) fn close(&self) -> VecDeque<M> {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        queue.bytes = 0;
        std::mem::take(&mut queue.mail)
    }
}

#[cfg(all(test, not(reev_loom)))]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Doorbell for Counter {
        fn ring(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Weight for u64 {
        fn weight(&self) -> usize {
            1
        }
    }

    /// A ring is a system call: only the first message to a reactor that sleeps has one.
    #[test]
    fn who_is_awake_is_not_rung_for() {
        let mailbox = Mailbox::new(Counter::default(), usize::MAX, usize::MAX);
        let rings = || mailbox.doorbell.0.load(Ordering::Relaxed);
        let mut inbox = VecDeque::new();
        for slept in 0..3 {
            mailbox.send(1).unwrap();
            mailbox.send(2).unwrap();
            assert_eq!((rings(), mailbox.begin_sleep()), (slept, false), "awake, with mail");
            mailbox.take(usize::MAX, &mut inbox);
            assert!(mailbox.begin_sleep());
            mailbox.send(3).unwrap();
            mailbox.send(4).unwrap();
            mailbox.end_sleep();
            mailbox.send(5).unwrap();
            assert_eq!((rings(), mailbox.begin_sleep()), (slept + 1, false), "awake again");
            inbox.clear();
            mailbox.take(usize::MAX, &mut inbox);
            assert_eq!(inbox.make_contiguous(), [3, 4, 5]);
            inbox.clear();
        }
    }

    #[test]
    fn the_queue_shrinks_after_a_burst() {
        let mailbox = Mailbox::new(Counter::default(), usize::MAX, usize::MAX);
        let mut inbox = VecDeque::new();
        (0..100_000u64).for_each(|n| mailbox.send(n).unwrap());
        for _ in 0..120 {
            mailbox.take(1000, &mut inbox);
            inbox.clear();
        }
        for n in 0..4u64 {
            mailbox.send(n).unwrap();
            mailbox.take(1000, &mut inbox);
            inbox.clear();
        }
        assert!(inbox.capacity() + lock(&mailbox.queue).mail.capacity() <= 8000);
    }
}

/// Every order in which producers and the reactor can meet. Run with
/// `RUSTFLAGS="--cfg reev_loom" cargo test --release --lib loom`.
#[cfg(all(test, reev_loom))]
mod loom_tests {
    use loom::sync::{Arc, Notify};
    use loom::thread;

    use super::*;

    impl Weight for u32 {
        fn weight(&self) -> usize {
            1
        }
    }

    struct Bell(Notify);

    impl Doorbell for Bell {
        fn ring(&self) {
            self.0.notify();
        }
    }

    type Numbers = Mailbox<u32, Bell>;

    fn mailbox(messages_max: usize) -> Arc<Numbers> {
        Arc::new(Mailbox::new(Bell(Notify::new()), messages_max, usize::MAX))
    }

    /// The reactor: takes, and sleeps when there was nothing. A lost wake-up leaves it asleep
    /// with nobody to wake it, which loom reports.
    fn receive(mailbox: &Numbers, count: usize, most: usize) -> Vec<u32> {
        let mut received = Vec::new();
        let mut inbox = VecDeque::new();
        while received.len() < count {
            let left = mailbox.take(most, &mut inbox);
            let some = left || !inbox.is_empty();
            received.extend(inbox.drain(..));
            if !some && received.len() < count && mailbox.begin_sleep() {
                mailbox.doorbell.0.wait();
                mailbox.end_sleep();
            }
        }
        received
    }

    /// Planted: that there is mail is taken back after the queue was taken; it is said before the
    /// message is queued; the reactor sleeps though it was said; it is rung for only if it slept
    /// when the push began.
    #[test]
    fn hard_case_32_no_wake_up_is_lost() {
        loom::model(|| {
            let mailbox = mailbox(10);
            let producers: Vec<_> = (0..2)
                .map(|n| {
                    let mailbox = mailbox.clone();
                    thread::spawn(move || mailbox.send(n).unwrap())
                })
                .collect();
            let mut received = receive(&mailbox, 2, 10);
            received.sort_unstable();
            assert_eq!(received, [0, 1]);
            for producer in producers {
                producer.join().unwrap();
            }
        });
    }

    /// Planted: a take that leaves some forgets that there are some.
    #[test]
    fn hard_case_32_what_a_turn_leaves_is_taken_in_the_next() {
        loom::model(|| {
            let mailbox = mailbox(10);
            let producer = {
                let mailbox = mailbox.clone();
                thread::spawn(move || (0..2).for_each(|n| mailbox.send(n).unwrap()))
            };
            assert_eq!(receive(&mailbox, 2, 1), [0, 1]);
            producer.join().unwrap();
        });
    }

    /// Planted: the bound is looked at outside the lock.
    #[test]
    fn hard_case_21_the_bound_holds() {
        loom::model(|| {
            let mailbox = mailbox(1);
            let producers: Vec<_> = (0..2)
                .map(|n| {
                    let mailbox = mailbox.clone();
                    thread::spawn(move || mailbox.send(n).is_ok())
                })
                .collect();
            let accepted = producers.into_iter().map(|producer| producer.join().unwrap());
            assert_eq!(accepted.filter(|&accepted| accepted).count(), 1);
            assert_eq!(receive(&mailbox, 1, 10).len(), 1);
        });
    }

    /// A message is received, refused, or dropped with the mailbox; never left behind.
    #[test]
    fn a_close_lets_nothing_in() {
        loom::model(|| {
            let mailbox = mailbox(10);
            let producer = {
                let mailbox = mailbox.clone();
                thread::spawn(move || mailbox.send(1))
            };
            mailbox.close();
            let sent = producer.join().unwrap();
            assert!(matches!(sent, Ok(()) | Err(SendError::Closed)));
            let mut inbox = VecDeque::new();
            assert!(!mailbox.take(10, &mut inbox) && inbox.is_empty());
            assert_eq!(mailbox.send(2), Err(SendError::Closed));
        });
    }
}
