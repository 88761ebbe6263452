//! A 4-ary heap of timers, keyed by (deadline, sequence), with true removal.
//!
//! Four children to a node: half the depth of a binary heap and one cache line a level. Each
//! timer knows its place in the heap, so cancelling is O(log n) and leaves nothing behind; each
//! belongs to a connection and is linked into that owner's list, so that closing a connection
//! removes its timers. Time is nanoseconds since the reactor started, and always an argument.

use crate::handler::ConnId;
use crate::slab::{Key, Slab};

/// The end of an owner's list of timers, and the head of an empty one.
pub(crate) const NIL: u32 = u32::MAX;

/// The heap position of a timer that is collected to be fired.
const DUE: u32 = u32::MAX;

const ARITY: usize = 4;

/// Names a timer of one reactor. An id whose timer has fired or was cancelled is harmless: it
/// never names another timer.
///
/// ```
/// # use reev::{Ctx, EvHandler};
/// use std::time::Duration;
/// use reev::TimerId;
///
/// /// Has two timers, told apart by their ids.
/// #[derive(Default)]
/// struct Login {
///     hurry: TimerId,
///     end: TimerId,
/// }
///
/// impl EvHandler for Login {
///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> std::io::Result<()> {
///         self.hurry = cx.set_timer(Duration::from_secs(20));
///         self.end = cx.set_timer(Duration::from_secs(30));
///         Ok(())
///     }
///
///     fn on_timeout(&mut self, cx: &mut Ctx<'_>, timer: TimerId) -> std::io::Result<()> {
///         match timer {
///             timer if timer == self.hurry => cx.write(b"ten seconds left\n"),
///             timer if timer == self.end => cx.close(),
///             _ => {}
///         }
///         Ok(())
///     }
/// }
/// # let mut sim = reev::sim::Simulation::new(1);
/// # let listener = sim.listen(|_peer| Login::default());
/// # let peer = sim.connect(listener);
/// # sim.advance(Duration::from_secs(30));
/// # assert_eq!(peer.receive(), b"ten seconds left\n");
/// # assert!(peer.saw_fin());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId(pub(crate) Key);

impl TimerId {
    /// The id of a timer that was refused, as on a connection that is already closed.
    pub const NONE: TimerId = TimerId(Key::NONE);
}

impl Default for TimerId {
    /// [`TimerId::NONE`].
    fn default() -> TimerId {
        TimerId::NONE
    }
}

impl std::fmt::Debug for TimerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TimerId({}v{})", self.0.index(), self.0.generation())
    }
}

/// What a timer is for; only `User` reaches a handler as `on_timeout`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// The handler's own.
    User,
    /// The connection's idle timeout; `period` holds its length.
    Idle,
    /// The end of a lingering close.
    Linger,
    /// The end of the wait for a closing connection's output.
    Flush,
    /// A listener that backs off tries again.
    Accept,
    /// The next address is tried beside the one under way.
    Stagger,
    /// Connecting has taken too long.
    ConnectTimeout,
    /// Connecting is tried again.
    Retry,
    /// A listener that leaves its group has waited for what was under way.
    Leave,
}

/// A timer taken from the heap, about to be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fired {
    pub(crate) owner: ConnId,
    pub(crate) purpose: Purpose,
    /// Nanoseconds; 0 for a one-shot.
    pub(crate) period: u64,
}

#[derive(Clone, Copy)]
struct Node {
    deadline: u64,
    seq: u64,
    slot: u32,
}

impl Node {
    fn before(&self, other: &Node) -> bool {
        (self.deadline, self.seq) < (other.deadline, other.seq)
    }
}

struct Timer {
    owner: ConnId,
    period: u64,
    deadline: u64,
    position: u32,
    previous: u32,
    next: u32,
    purpose: Purpose,
}

pub(crate) struct Timers {
    slots: Slab<Timer>,
    heap: Vec<Node>,
    seq: u64,
}

impl Timers {
    pub(crate) fn new() -> Timers {
        Timers { slots: Slab::new(), heap: Vec::new(), seq: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Arms a timer and links it into its owner's list, whose head is `head`. `period` 0 makes
    /// it one-shot.
    pub(crate) fn schedule(
        &mut self,
        head: &mut u32,
        owner: ConnId,
        purpose: Purpose,
        deadline: u64,
        period: u64,
    ) -> TimerId {
        let key = self.slots.insert(Timer {
            owner,
            period,
            deadline,
            position: DUE,
            previous: NIL,
            next: *head,
            purpose,
        });
        if let Some(old) = self.slots.at_mut(*head) {
            old.previous = key.index();
        }
        *head = key.index();
        self.push(key.index(), deadline);
        TimerId(key)
    }

    /// Takes a timer out wherever it is, due or not; false if it is gone already.
    pub(crate) fn cancel(&mut self, head: &mut u32, id: TimerId) -> bool {
        let Some(timer) = self.slots.get(id.0) else {
            return false;
        };
        if timer.position != DUE {
            self.remove_at(timer.position as usize);
        }
        self.unlink(head, id.0);
        true
    }

    pub(crate) fn cancel_all(&mut self, head: &mut u32) {
        while let Some(key) = self.slots.key_at(*head) {
            self.cancel(head, TimerId(key));
        }
    }

    /// Moves a timer to a new deadline, its id and period kept; false if it is gone.
    pub(crate) fn reset(&mut self, id: TimerId, deadline: u64) -> bool {
        let Some(timer) = self.slots.get_mut(id.0) else {
            return false;
        };
        let position = timer.position;
        timer.deadline = deadline;
        if position != DUE {
            self.remove_at(position as usize);
        }
        self.push(id.0.index(), deadline);
        true
    }

    pub(crate) fn owner(&self, id: TimerId) -> Option<ConnId> {
        Some(self.slots.get(id.0)?.owner)
    }

    /// The first timer for `purpose` in the list that starts at `head`.
    pub(crate) fn find(&self, head: u32, purpose: Purpose) -> Option<TimerId> {
        let mut index = head;
        while let Some(timer) = self.slots.at(index) {
            if timer.purpose == purpose {
                return self.slots.key_at(index).map(TimerId);
            }
            index = timer.next;
        }
        None
    }

    pub(crate) fn set_period(&mut self, id: TimerId, period: u64) {
        if let Some(timer) = self.slots.get_mut(id.0) {
            timer.period = period;
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.heap.first().map(|node| node.deadline)
    }

    /// Moves every timer due at `now` to `due`, in order of deadline and then of arming. None is
    /// called yet, so a timer armed by one of them waits for the next turn, however short.
    pub(crate) fn collect_due(&mut self, now: u64, due: &mut Vec<TimerId>) {
        while let Some(&node) = self.heap.first() {
            if node.deadline > now {
                break;
            }
            self.remove_at(0);
            let key = self.slots.key_at(node.slot).expect("a heap node has a timer");
            due.push(TimerId(key));
        }
    }

    /// What to call for a collected timer, or None if it was cancelled or moved meanwhile. `head`
    /// finds the owner's list. A periodic timer is armed for its next multiple after `now`
    /// before it is called (so it can cancel itself), and the periods missed are skipped.
    pub(crate) fn fire<'a>(
        &mut self,
        id: TimerId,
        now: u64,
        head: impl FnOnce(ConnId) -> Option<&'a mut u32>,
    ) -> Option<Fired> {
        let timer = self.slots.get_mut(id.0)?;
        if timer.position != DUE {
            return None;
        }
        let fired = Fired { owner: timer.owner, purpose: timer.purpose, period: timer.period };
        match (timer.purpose, timer.period) {
            (Purpose::Idle, _) => {} // the caller resets or cancels it, by what it finds
            (_, 0) => self.unlink(head(fired.owner)?, id.0),
            (_, period) => {
                let late = now.saturating_sub(timer.deadline);
                let deadline =
                    timer.deadline.saturating_add((late / period + 1).saturating_mul(period));
                timer.deadline = deadline;
                self.push(id.0.index(), deadline);
            }
        }
        Some(fired)
    }

    fn unlink(&mut self, head: &mut u32, key: Key) {
        let Some(timer) = self.slots.remove(key) else {
            return;
        };
        match self.slots.at_mut(timer.previous) {
            Some(previous) => previous.next = timer.next,
            None => *head = timer.next,
        }
        if let Some(next) = self.slots.at_mut(timer.next) {
            next.previous = timer.previous;
        }
    }

    fn push(&mut self, slot: u32, deadline: u64) {
        let node = Node { deadline, seq: self.seq, slot };
        self.seq += 1;
        self.heap.push(node);
        self.sift_up(self.heap.len() - 1);
    }

    fn remove_at(&mut self, position: usize) {
        let removed = self.heap.swap_remove(position);
        self.place_of(removed.slot, DUE);
        if position < self.heap.len() {
            self.sift_down(position);
            self.sift_up(position);
        } else if self.heap.capacity() > 1024 && self.heap.len() < self.heap.capacity() / 4 {
            self.heap.shrink_to(self.heap.capacity() / 2);
        }
    }

    fn place_of(&mut self, slot: u32, position: u32) {
        if let Some(timer) = self.slots.at_mut(slot) {
            timer.position = position;
        }
    }

    fn sift_up(&mut self, mut position: usize) {
        let node = self.heap[position];
        while position > 0 {
            let parent = (position - 1) / ARITY;
            if !node.before(&self.heap[parent]) {
                break;
            }
            self.heap[position] = self.heap[parent];
            self.place_of(self.heap[position].slot, position as u32);
            position = parent;
        }
        self.heap[position] = node;
        self.place_of(node.slot, position as u32);
    }

    fn sift_down(&mut self, mut position: usize) {
        let node = self.heap[position];
        loop {
            let first = position * ARITY + 1;
            let last = (first + ARITY).min(self.heap.len());
            let Some(least) = (first..last).reduce(|least, child| {
                if self.heap[child].before(&self.heap[least]) { child } else { least }
            }) else {
                break;
            };
            if !self.heap[least].before(&node) {
                break;
            }
            self.heap[position] = self.heap[least];
            self.place_of(self.heap[position].slot, position as u32);
            position = least;
        }
        self.heap[position] = node;
        self.place_of(node.slot, position as u32);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;
    use proptest::prelude::*;

    fn owner(n: u64) -> ConnId {
        ConnId(Key::from_bits(1 << 32 | n))
    }

    fn due(timers: &mut Timers, now: u64) -> Vec<TimerId> {
        let mut due = Vec::new();
        timers.collect_due(now, &mut due);
        due
    }

    /// Planted: nodes are compared by deadline alone.
    #[test]
    fn hard_case_29_ties_fire_in_order_of_arming() {
        let (mut timers, mut head) = (Timers::new(), NIL);
        let armed: Vec<TimerId> =
            (0..100).map(|_| timers.schedule(&mut head, owner(0), Purpose::User, 5, 0)).collect();
        assert_eq!(due(&mut timers, 4), []);
        assert_eq!(due(&mut timers, 5), armed);
    }

    /// Planted: `fire` does not look whether the timer still waits to be called.
    #[test]
    fn hard_case_29_a_collected_timer_can_be_cancelled_or_moved() {
        let (mut timers, mut head) = (Timers::new(), NIL);
        let mut arm = |head: &mut u32| timers.schedule(head, owner(0), Purpose::User, 5, 0);
        let (cancelled, moved, fired) = (arm(&mut head), arm(&mut head), arm(&mut head));
        assert_eq!(due(&mut timers, 5), [cancelled, moved, fired]);
        assert!(timers.cancel(&mut head, cancelled));
        assert!(timers.reset(moved, 4));
        assert_eq!(timers.fire(cancelled, 5, |_| Some(&mut head)), None);
        assert_eq!(timers.fire(moved, 5, |_| Some(&mut head)), None);
        assert!(timers.fire(fired, 5, |_| Some(&mut head)).is_some());
        assert!(!timers.cancel(&mut head, fired) && !timers.reset(fired, 9));
        // The one that was moved waits for the next turn, though it is due.
        assert_eq!(due(&mut timers, 5), [moved]);
        assert!(timers.fire(moved, 5, |_| Some(&mut head)).is_some());
        assert_eq!((timers.len(), head), (0, NIL));
    }

    /// Planted: the next deadline is counted from the call.
    #[test]
    fn hard_case_29_missed_periods_are_skipped_without_drift() {
        let (mut timers, mut head) = (Timers::new(), NIL);
        let id = timers.schedule(&mut head, owner(0), Purpose::User, 10, 10);
        for (now, next) in [(10, 20), (25, 30), (30, 40), (99, 100), (1000, 1010)] {
            assert_eq!(due(&mut timers, now), [id], "at {now}");
            assert!(timers.fire(id, now, |_| Some(&mut head)).is_some());
            assert_eq!(timers.next_deadline(), Some(next), "at {now}");
            assert_eq!(due(&mut timers, now), [], "once, at {now}");
        }
        // The end of time is a deadline like another.
        let last = timers.schedule(&mut head, owner(0), Purpose::User, u64::MAX - 1, u64::MAX);
        timers.cancel(&mut head, id);
        assert_eq!(due(&mut timers, u64::MAX), [last]);
        assert!(timers.fire(last, u64::MAX, |_| Some(&mut head)).is_some());
        assert_eq!(timers.next_deadline(), Some(u64::MAX));
    }

    /// Planted: a freed slot keeps its generation.
    #[test]
    fn hard_case_30_ids_are_never_reused() {
        let (mut timers, mut head) = (Timers::new(), NIL);
        let mut seen = std::collections::HashSet::new();
        for n in 0..1000 {
            let id = timers.schedule(&mut head, owner(0), Purpose::User, n, 0);
            assert!(seen.insert(id) && id != TimerId::NONE);
            if n % 2 == 0 {
                timers.cancel(&mut head, id);
            } else {
                assert_eq!(due(&mut timers, n), [id]);
                timers.fire(id, n, |_| Some(&mut head));
            }
            assert_eq!(timers.owner(id), None);
            assert!(!timers.cancel(&mut head, id) && !timers.reset(id, 1));
        }
        assert_eq!(timers.len(), 0);
    }

    #[test]
    fn the_heap_shrinks_after_a_burst() {
        let (mut timers, mut head) = (Timers::new(), NIL);
        for n in 0..100_000 {
            timers.schedule(&mut head, owner(0), Purpose::User, n, 0);
        }
        timers.cancel_all(&mut head);
        assert_eq!((timers.len(), head), (0, NIL));
        assert!(timers.heap.capacity() < 10_000, "{}", timers.heap.capacity());
    }

    #[derive(Clone, Debug)]
    enum Op {
        Schedule {
            owner: usize,
            after: u64,
            period: u64,
        },
        Cancel(usize),
        Reset {
            which: usize,
            after: u64,
        },
        CancelAll(usize),
        /// Time passes; what is due is called, and `cancelled` of the others meanwhile.
        Advance {
            by: u64,
            cancelled: Option<usize>,
        },
    }

    fn op() -> impl Strategy<Value = Op> {
        let owner = 0..4usize;
        let after = prop_oneof![0..3u64, 0..50u64, 0..1000u64];
        let period = prop_oneof![3 => Just(0u64), 1 => 1..20u64];
        prop_oneof![
            4 => (owner.clone(), after.clone(), period)
                .prop_map(|(owner, after, period)| Op::Schedule { owner, after, period }),
            1 => any::<usize>().prop_map(Op::Cancel),
            1 => (any::<usize>(), after).prop_map(|(which, after)| Op::Reset { which, after }),
            1 => prop::bool::weighted(0.2)
                .prop_flat_map(move |all| if all { owner.clone() } else { 9..10usize })
                .prop_map(Op::CancelAll),
            3 => (prop_oneof![0..5u64, 0..100u64], prop::option::of(any::<usize>()))
                .prop_map(|(by, cancelled)| Op::Advance { by, cancelled }),
        ]
    }

    /// The obvious implementation: a sorted map, searched from end to end.
    #[derive(Default)]
    struct Model {
        sorted: BTreeMap<(u64, u64), (TimerId, usize, u64)>,
        seq: u64,
    }

    impl Model {
        fn push(&mut self, deadline: u64, id: TimerId, owner: usize, period: u64) {
            self.sorted.insert((deadline, self.seq), (id, owner, period));
            self.seq += 1;
        }

        fn remove(&mut self, id: TimerId) -> Option<(usize, u64)> {
            let key = self.sorted.iter().find(|(_, timer)| timer.0 == id).map(|(&key, _)| key)?;
            self.sorted.remove(&key).map(|(_, owner, period)| (owner, period))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 300, failure_persistence: None, ..Default::default()
        })]

        /// Planted: `remove_at` does not sift up; a reset keeps the old sequence number; unlink
        /// forgets the next one's link back.
        #[test]
        fn hard_case_29_timers_behave_as_a_sorted_map(ops in prop::collection::vec(op(), 1..120)) {
            let (mut timers, mut heads, mut model) = (Timers::new(), [NIL; 4], Model::default());
            let (mut now, mut all, mut owners) = (0u64, Vec::new(), HashMap::new());
            for op in ops {
                let pick = |which: usize| (!all.is_empty()).then(|| all[which % all.len()]);
                match op {
                    Op::Schedule { owner: o, after, period } => {
                        let id = timers.schedule(
                            &mut heads[o], owner(o as u64), Purpose::User, now + after, period,
                        );
                        prop_assert!(owners.insert(id, o).is_none(), "an id was used again");
                        all.push(id);
                        model.push(now + after, id, o, period);
                    }
                    Op::Cancel(which) => if let Some(id) = pick(which) {
                        let done = timers.cancel(&mut heads[owners[&id]], id);
                        prop_assert_eq!(done, model.remove(id).is_some());
                    },
                    Op::Reset { which, after } => if let Some(id) = pick(which) {
                        let done = timers.reset(id, now + after);
                        let was = model.remove(id);
                        prop_assert_eq!(done, was.is_some());
                        if let Some((owner, period)) = was {
                            model.push(now + after, id, owner, period);
                        }
                    },
                    Op::CancelAll(o) => if o < 4 {
                        timers.cancel_all(&mut heads[o]);
                        model.sorted.retain(|_, timer| timer.1 != o);
                    },
                    Op::Advance { by, cancelled } => {
                        now += by;
                        let due = due(&mut timers, now);
                        let expected: Vec<TimerId> =
                            model.sorted.range(..=(now, u64::MAX)).map(|(_, t)| t.0).collect();
                        prop_assert_eq!(&due, &expected);
                        let cancelled = cancelled.and_then(pick);
                        if let Some(id) = cancelled {
                            let done = timers.cancel(&mut heads[owners[&id]], id);
                            prop_assert_eq!(done, model.sorted.values().any(|t| t.0 == id));
                            if !due.contains(&id) {
                                model.remove(id);
                            }
                        }
                        for id in due {
                            let o = owners[&id];
                            let fired = timers.fire(id, now, |_| Some(&mut heads[o]));
                            let (&(deadline, seq), &(_, _, period)) =
                                model.sorted.iter().find(|(_, timer)| timer.0 == id).unwrap();
                            model.sorted.remove(&(deadline, seq));
                            if cancelled == Some(id) {
                                prop_assert_eq!(fired, None);
                                continue;
                            }
                            let expected = Fired {
                                owner: owner(o as u64), purpose: Purpose::User, period,
                            };
                            prop_assert_eq!(fired, Some(expected));
                            if period > 0 {
                                let next = (deadline..).step_by(period as usize)
                                    .find(|&at| at > now).unwrap();
                                model.push(next, id, o, period);
                            }
                        }
                    }
                }
                prop_assert_eq!(timers.len(), model.sorted.len());
                let first = model.sorted.keys().next().map(|&(deadline, _)| deadline);
                prop_assert_eq!(timers.next_deadline(), first);
                for (o, &head) in heads.iter().enumerate() {
                    let mine = model.sorted.values().filter(|timer| timer.1 == o).count();
                    let mut linked = 0;
                    let mut index = head;
                    while let Some(timer) = timers.slots.at(index) {
                        linked += 1;
                        prop_assert!(linked <= mine, "in the list of owner {}", o);
                        index = timer.next;
                    }
                    prop_assert_eq!(linked, mine, "in the list of owner {}", o);
                }
            }
        }
    }
}
