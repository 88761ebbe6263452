//! Timers without sockets: to schedule, to cancel and to fire one, with so many pending, in reev and in what else one
//! would use. The queues take turns.
//!
//! In reev's figures the call of the handler and the turn of the simulator are in "fire"; in those of `DelayQueue`, the
//! runtime's clock that is moved by a step. About 64 timers are due in a step.

mod queues;

use crate::figures::Spread;
use crate::firing::steps;
use crate::interrupt;
use crate::progress::Progress;
use queues::{Kind, Timers};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

pub const OPERATIONS: [&str; 3] = ["schedule", "cancel", "fire"];
/// Fired between two looks at the clock.
const FIRED: u64 = 2048;
const SEED: u64 = 7;

pub struct Plan {
    pub sizes: &'static [usize],
    pub rounds: usize,
    /// How long each operation is repeated in a round.
    pub interval: Duration,
}

impl Plan {
    /// How long it takes, about: the largest size takes longer, by as much as its queues are large.
    pub fn duration(&self) -> Duration {
        let measured = 3 * self.interval * (self.rounds * self.sizes.len()) as u32;
        let largest = self.sizes.iter().max().map_or(0, |&most| most as u64);
        (measured + Duration::from_micros(largest * self.rounds as u64)) * queues::ALL.len() as u32
    }
}

pub struct Outcome {
    pub rounds: usize,
    pub queues: Vec<Queue>,
}

pub struct Queue {
    pub name: &'static str,
    pub sizes: Vec<Size>,
}

pub struct Size {
    pub pending: usize,
    /// In the order of [`OPERATIONS`].
    pub taken: [Taken; 3],
}

#[derive(Default)]
pub struct Taken {
    time: Duration,
    count: u64,
    rounds: Vec<f64>,
}

impl Taken {
    /// Nanoseconds for one operation, over all rounds: work that is put off, as cleaning up in a heap, is in it.
    pub fn mean(&self) -> f64 {
        self.time.as_nanos() as f64 / self.count as f64
    }

    fn add(&mut self, time: Duration, count: u64) {
        self.time += time;
        self.count += count;
        self.rounds.push(time.as_nanos() as f64 / count as f64);
    }
}

pub fn run(plan: &Plan, progress: &mut Progress) -> Outcome {
    let queue = |kind: &Kind| Queue { name: kind.name, sizes: Vec::new() };
    let mut outcome =
        Outcome { rounds: plan.rounds, queues: queues::ALL.iter().map(queue).collect() };
    for &pending in plan.sizes {
        if interrupt::asked() {
            break;
        }
        progress.show(&format!("timers: {pending} pending"));
        let mut filled: Vec<_> = queues::ALL.iter().map(|kind| (kind.filled)(pending)).collect();
        let mut taken: Vec<[Taken; 3]> = filled.iter().map(|_| Default::default()).collect();
        let mut batch = Batch::new(pending);
        for round in 0..plan.rounds {
            for place in 0..filled.len() {
                let index = (place + round) % filled.len();
                batch.measure(plan.interval, filled[index].as_mut(), &mut taken[index]);
            }
        }
        for (queue, taken) in outcome.queues.iter_mut().zip(taken) {
            queue.sizes.push(Size { pending, taken });
        }
    }
    outcome
}

/// Timers that are armed together, half as many as are pending, and cancelled in another order.
struct Batch {
    after: Vec<u32>,
    order: Vec<u32>,
    rng: fastrand::Rng,
}

impl Batch {
    fn new(pending: usize) -> Batch {
        let mut rng = fastrand::Rng::with_seed(SEED);
        let count = pending / 2;
        let after = (0..count).map(|_| rng.u32(1..=steps(pending))).collect();
        Batch { after, order: (0..count as u32).collect(), rng }
    }

    fn measure(&mut self, interval: Duration, timers: &mut dyn Timers, taken: &mut [Taken; 3]) {
        let [schedule, cancel, fire] = taken;
        let (mut scheduling, mut cancelling, mut count) = (Duration::ZERO, Duration::ZERO, 0);
        while scheduling + cancelling < 2 * interval {
            self.rng.shuffle(&mut self.order);
            let begin = Instant::now();
            timers.schedule(&self.after);
            let scheduled = Instant::now();
            timers.cancel(&self.order);
            cancelling += scheduled.elapsed();
            scheduling += scheduled - begin;
            count += self.order.len() as u64;
        }
        schedule.add(scheduling, count);
        cancel.add(cancelling, count);
        let (begin, mut fired) = (Instant::now(), 0);
        while begin.elapsed() < interval {
            fired += timers.fire(FIRED);
        }
        fire.add(begin.elapsed(), fired);
    }
}

pub fn table(outcome: &Outcome) -> String {
    let mut text = format!("\ntimers: nanoseconds for each, mean of {} rounds\n", outcome.rounds);
    for (index, operation) in OPERATIONS.iter().enumerate() {
        let _ = write!(text, "  {operation:<13}");
        for size in &outcome.queues[0].sizes {
            let _ = write!(text, "{:>12}", size.pending);
        }
        let _ = writeln!(text, " pending");
        for queue in &outcome.queues {
            let _ = write!(text, "    {:<11}", queue.name);
            for size in &queue.sizes {
                let _ = write!(text, "{:>12.1}", size.taken[index].mean());
            }
            text.push('\n');
        }
    }
    text
}

pub fn json(outcome: &Outcome) -> Value {
    let figure = |taken: &Taken| {
        let spread = Spread::of(taken.rounds.iter().copied());
        json!({ "mean_ns": taken.mean(), "rounds_ns": spread.json() })
    };
    let size = |size: &Size| {
        let [schedule, cancel, fire] = &size.taken;
        json!({
            "pending": size.pending,
            "schedule": figure(schedule),
            "cancel": figure(cancel),
            "fire_and_rearm": figure(fire),
        })
    };
    let queue = |queue: &Queue| {
        let sizes: Vec<_> = queue.sizes.iter().map(size).collect();
        json!({ "queue": queue.name, "sizes": sizes })
    };
    json!({
        "rounds": outcome.rounds,
        "queues": outcome.queues.iter().map(queue).collect::<Vec<_>>(),
    })
}
