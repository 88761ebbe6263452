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
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId(pub(crate) Key);

impl TimerId {
    /// The id of a timer that was refused, as on a connection that is already closed.
    pub const NONE: TimerId = TimerId(Key::NONE);
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
