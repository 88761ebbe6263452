//! The queues that are compared, behind one trait. They have no clock of their own: time passes in steps of 1 ms, when
//! they are told.

use crate::firing::{Firing, STEP, steps};
use reev::TimerId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::future::poll_fn;
use std::task::Poll;
use tokio::runtime::{Builder, Runtime};
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

pub trait Timers {
    /// Arms a timer for each of these numbers of steps, and remembers it.
    fn schedule(&mut self, after: &[u32]);
    /// Cancels the remembered ones, in this order.
    fn cancel(&mut self, order: &[u32]);
    /// Lets time pass until so many have fired, each of which is armed again, and returns how many did.
    fn fire(&mut self, count: u64) -> u64;
}

pub struct Kind {
    pub name: &'static str,
    pub filled: fn(usize) -> Box<dyn Timers>,
}

pub const ALL: &[Kind] = &[
    Kind { name: "reev", filled: |pending| Box::new(Reev::filled(pending)) },
    Kind { name: "BTreeMap", filled: |pending| Box::new(Stepped::<Tree>::filled(pending)) },
    Kind { name: "BinaryHeap", filled: |pending| Box::new(Stepped::<Heap>::filled(pending)) },
    Kind { name: "DelayQueue", filled: |pending| Box::new(Delays::filled(pending)) },
];

const SEED: u64 = 7;

/// Those of a reactor, through its public interface, on the simulated kernel.
struct Reev {
    firing: Firing,
    ids: Vec<TimerId>,
}

impl Reev {
    fn filled(pending: usize) -> Reev {
        Reev { firing: Firing::new(pending), ids: Vec::new() }
    }
}

impl Timers for Reev {
    fn schedule(&mut self, after: &[u32]) {
        let mut cx = self.firing.cx();
        self.ids.extend(after.iter().map(|&after| cx.set_timer(STEP * after)));
    }

    fn cancel(&mut self, order: &[u32]) {
        let mut cx = self.firing.cx();
        for &index in order {
            cx.cancel_timer(self.ids[index as usize]);
        }
        self.ids.clear();
    }

    fn fire(&mut self, count: u64) -> u64 {
        self.firing.fire(count)
    }
}

/// A queue of `std`, as one uses it for timers.
trait Queue: Default {
    fn schedule(&mut self, at: u64) -> u64;
    fn cancel(&mut self, at: u64, id: u64);
    /// Takes the timer that is due next, if it is due at `now`.
    fn due(&mut self, now: u64) -> bool;
}

/// With the clock that the queues of `std` do not have.
struct Stepped<Q> {
    queue: Q,
    now: u64,
    keys: Vec<(u64, u64)>,
    rng: fastrand::Rng,
    steps: u32,
}

impl<Q: Queue> Stepped<Q> {
    fn filled(pending: usize) -> Self {
        let (mut queue, steps) = (Q::default(), steps(pending));
        let mut rng = fastrand::Rng::with_seed(SEED);
        for _ in 0..pending {
            queue.schedule(rng.u32(1..=steps).into());
        }
        Stepped { queue, now: 0, keys: Vec::new(), rng, steps }
    }
}

impl<Q: Queue> Timers for Stepped<Q> {
    fn schedule(&mut self, after: &[u32]) {
        for &after in after {
            let at = self.now + u64::from(after);
            let id = self.queue.schedule(at);
            self.keys.push((at, id));
        }
    }

    fn cancel(&mut self, order: &[u32]) {
        for &index in order {
            let (at, id) = self.keys[index as usize];
            self.queue.cancel(at, id);
        }
        self.keys.clear();
    }

    fn fire(&mut self, count: u64) -> u64 {
        let mut fired = 0;
        while fired < count {
            self.now += 1;
            while self.queue.due(self.now) {
                self.queue.schedule(self.now + u64::from(self.rng.u32(1..=self.steps)));
                fired += 1;
            }
        }
        fired
    }
}

#[derive(Default)]
struct Tree {
    timers: BTreeMap<(u64, u64), u64>,
    next: u64,
}

impl Queue for Tree {
    fn schedule(&mut self, at: u64) -> u64 {
        self.next += 1;
        self.timers.insert((at, self.next), self.next);
        self.next
    }

    fn cancel(&mut self, at: u64, id: u64) {
        self.timers.remove(&(at, id));
    }

    fn due(&mut self, now: u64) -> bool {
        self.timers.first_entry().filter(|first| first.key().0 <= now).map(|e| e.remove()).is_some()
    }
}

/// Cancelled timers stay until they are due, or until they are half of all.
#[derive(Default)]
struct Heap {
    timers: BinaryHeap<Reverse<(u64, u64)>>,
    cancelled: HashSet<u64>,
    next: u64,
}

impl Queue for Heap {
    fn schedule(&mut self, at: u64) -> u64 {
        self.next += 1;
        self.timers.push(Reverse((at, self.next)));
        self.next
    }

    fn cancel(&mut self, _: u64, id: u64) {
        self.cancelled.insert(id);
        if self.cancelled.len() > self.timers.len() / 2 {
            let Heap { timers, cancelled, .. } = self;
            timers.retain(|Reverse((_, id))| !cancelled.remove(id));
        }
    }

    fn due(&mut self, now: u64) -> bool {
        while let Some(&Reverse((at, id))) = self.timers.peek() {
            if at > now {
                return false;
            }
            self.timers.pop();
            if self.cancelled.is_empty() || !self.cancelled.remove(&id) {
                return true;
            }
        }
        false
    }
}

/// tokio-util's, on a runtime whose clock stands still until it is moved.
struct Delays {
    runtime: Runtime,
    queue: DelayQueue<()>,
    keys: Vec<Key>,
    rng: fastrand::Rng,
    steps: u32,
}

impl Delays {
    fn filled(pending: usize) -> Delays {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("it needs no driver");
        let entered = runtime.enter();
        let (mut queue, steps) = (DelayQueue::new(), steps(pending));
        let mut rng = fastrand::Rng::with_seed(SEED);
        for _ in 0..pending {
            queue.insert((), STEP * rng.u32(1..=steps));
        }
        drop(entered);
        Delays { runtime, queue, keys: Vec::new(), rng, steps }
    }
}

impl Timers for Delays {
    fn schedule(&mut self, after: &[u32]) {
        let _entered = self.runtime.enter();
        for &after in after {
            self.keys.push(self.queue.insert((), STEP * after));
        }
    }

    fn cancel(&mut self, order: &[u32]) {
        let _entered = self.runtime.enter();
        for &index in order {
            self.queue.remove(&self.keys[index as usize]);
        }
        self.keys.clear();
    }

    fn fire(&mut self, count: u64) -> u64 {
        let Delays { runtime, queue, rng, steps, .. } = self;
        runtime.block_on(async {
            let mut fired = 0;
            while fired < count {
                tokio::time::advance(STEP).await;
                poll_fn(|context| {
                    while let Poll::Ready(Some(_)) = queue.poll_expired(context) {
                        queue.insert((), STEP * rng.u32(1..=*steps));
                        fired += 1;
                    }
                    Poll::Ready(())
                })
                .await;
            }
            fired
        })
    }
}
