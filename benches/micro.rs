//! The parts of a reactor by themselves: its slots, timers and buffers, reached through the public interface on a
//! simulated kernel, so that no system call is in the figures. Timers and slots stand beside what `std` offers for the
//! same work.
//!
//! What the simulator itself costs is in the figures of `buf` and in `timer/fire`: those tell one commit from
//! another; what the real kernel adds is in the bench called loopback.

#[path = "instructions/timers.rs"]
mod timers;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use reev::sim::{Faults, Simulation};
use reev::{Config, ConnId, Ctx, EvHandler};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet};
use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};
use timers::{Firing, steps};

const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
const SEED: u64 = 7;
/// Handlers added and closed in one go.
const CHURN: usize = 1000;
/// The lookups' order is made beforehand, and repeats after so many.
const ORDER: usize = 1 << 16;

struct Idle;

impl EvHandler for Idle {
    fn on_read(&mut self, _: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        Ok(data.len())
    }
}

fn slab(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slab");
    for size in SIZES {
        let mut rng = fastrand::Rng::with_seed(SEED);
        let order: Vec<usize> = (0..ORDER).map(|_| rng.usize(..size)).collect();
        let mut sim = Simulation::new(SEED);
        let ids: Vec<ConnId> = (0..size).map(|_| sim.reactor().add(Idle)).collect();
        sim.settle();
        let sought: Vec<ConnId> = order.iter().map(|&index| ids[index]).collect();
        let mut turn = sought.iter().cycle();
        group.bench_function(BenchmarkId::new("lookup/reev", size), |bencher| {
            let reactor = sim.reactor();
            bencher.iter(|| turn.next().and_then(|&id| reactor.conn(id)).is_some());
        });
        let map: HashMap<ConnId, u64> = ids.iter().map(|&id| (id, id.as_u64())).collect();
        let mut turn = sought.iter().cycle();
        group.bench_function(BenchmarkId::new("lookup/HashMap", size), |bencher| {
            bencher.iter(|| turn.next().and_then(|id| map.get(id)).is_some());
        });
    }
    let mut sim = Simulation::new(SEED);
    group.throughput(Throughput::Elements(CHURN as u64));
    group.bench_function("add and close 1000", |bencher| {
        bencher.iter(|| {
            for _ in 0..CHURN {
                let id = sim.reactor().add(Idle);
                sim.reactor().conn(id).expect("it was added").close();
            }
            sim.settle();
        });
    });
    group.finish();
}

/// What a timer queue does, on a clock of whole steps.
trait Queue {
    fn schedule(&mut self, at: u64) -> u64;
    fn cancel(&mut self, at: u64, id: u64);
    /// Takes the timer that is due next, if it is due at `now`.
    fn due(&mut self, now: u64) -> bool;
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

fn filled<Q: Queue + Default>(pending: usize, rng: &mut fastrand::Rng) -> Q {
    let mut queue = Q::default();
    for _ in 0..pending {
        queue.schedule(rng.u64(1..=steps(pending).into()));
    }
    queue
}

/// A timer that is armed and cancelled before it is due: the fate of most.
fn cancel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timer/schedule and cancel");
    for pending in SIZES {
        let mut rng = fastrand::Rng::with_seed(SEED);
        let steps = steps(pending);
        let mut sim = Simulation::new(SEED);
        let id = sim.reactor().add(Idle);
        sim.settle();
        let mut cx = sim.reactor().conn(id).expect("it was added");
        let after = |rng: &mut fastrand::Rng| Duration::from_millis(rng.u32(1..=steps).into());
        for _ in 0..pending {
            cx.set_timer(after(&mut rng));
        }
        group.bench_function(BenchmarkId::new("reev", pending), |bencher| {
            bencher.iter(|| {
                let timer = cx.set_timer(after(&mut rng));
                cx.cancel_timer(timer)
            });
        });
        fn run<Q: Queue>(queue: &mut Q, rng: &mut fastrand::Rng, steps: u32) {
            let at = rng.u64(1..=steps.into());
            let id = queue.schedule(at);
            queue.cancel(at, black_box(id));
        }
        let mut tree: Tree = filled(pending, &mut rng);
        group.bench_function(BenchmarkId::new("BTreeMap", pending), |bencher| {
            bencher.iter(|| run(&mut tree, &mut rng, steps));
        });
        let mut heap: Heap = filled(pending, &mut rng);
        group.bench_function(BenchmarkId::new("BinaryHeap", pending), |bencher| {
            bencher.iter(|| run(&mut heap, &mut rng, steps));
        });
    }
    group.finish();
}

/// The timer that is due next fires and is armed again. For reev that includes the call of the handler.
fn fire(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("timer/fire and rearm");
    for pending in SIZES {
        let mut firing = Firing::new(pending);
        group.bench_function(BenchmarkId::new("reev", pending), |bencher| {
            bencher.iter_custom(|count| {
                let begin = Instant::now();
                let fired = firing.fire(count);
                begin.elapsed().mul_f64(count as f64 / fired as f64)
            });
        });
        fn run<Q: Queue>(queue: &mut Q, count: u64, now: &mut u64, pending: usize) -> Duration {
            let mut rng = fastrand::Rng::with_seed(*now);
            let mut fired = 0;
            let begin = Instant::now();
            while fired < count {
                *now += 1;
                while queue.due(*now) {
                    queue.schedule(*now + rng.u64(1..=steps(pending).into()));
                    fired += 1;
                }
            }
            begin.elapsed().mul_f64(count as f64 / fired as f64)
        }
        let mut rng = fastrand::Rng::with_seed(SEED);
        let (mut tree, mut now): (Tree, _) = (filled(pending, &mut rng), 0);
        group.bench_function(BenchmarkId::new("BTreeMap", pending), |bencher| {
            bencher.iter_custom(|count| run(&mut tree, count, &mut now, pending));
        });
        let (mut heap, mut now): (Heap, _) = (filled(pending, &mut rng), 0);
        group.bench_function(BenchmarkId::new("BinaryHeap", pending), |bencher| {
            bencher.iter_custom(|count| run(&mut heap, count, &mut now, pending));
        });
    }
    group.finish();
}

/// Answers each message of [`MESSAGE`] bytes with `pieces` of `size`.
struct Answer {
    pieces: usize,
    size: usize,
}

const MESSAGE: usize = 1024;

impl EvHandler for Answer {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        if data.len() < MESSAGE {
            return Ok(0);
        }
        for _ in 0..self.pieces {
            cx.write(&[b'x'; 4096][..self.size]);
        }
        Ok(MESSAGE)
    }
}

fn buf(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("buf");
    let message = [b'm'; MESSAGE];
    let mut sim = Simulation::new(SEED);
    let listener = sim.listen(|_| Answer { pieces: 16, size: 64 });
    let peer = sim.connect(listener);
    group.bench_function("16 writes of 64 B leave as one", |bencher| {
        bencher.iter(|| {
            peer.send(&message);
            sim.settle();
            peer.receive()
        });
    });
    let mut sim = Simulation::new(SEED);
    let listener = sim.listen(|_| Answer { pieces: 1, size: 64 });
    let peer = sim.connect(listener);
    group.bench_function("a message of 1 KiB comes in 16 pieces", |bencher| {
        bencher.iter(|| {
            for piece in message.chunks(MESSAGE / 16) {
                peer.send(piece);
                sim.settle();
            }
            peer.receive()
        });
    });
    let faults = Faults { send_buffer_max: 8 << 10, ..Faults::default() };
    let mut sim = Simulation::with(SEED, faults, Config::default());
    let listener = sim.listen(|_| Answer { pieces: 64, size: 1024 });
    let peer = sim.connect(listener);
    group.bench_function("64 KiB are queued and drained", |bencher| {
        bencher.iter(|| {
            peer.send(&message);
            let mut received = 0;
            while received < 64 << 10 {
                sim.settle();
                received += peer.receive().len();
            }
        });
    });
    group.finish();
}

/// Short, since what is compared differs by more than a few percent.
fn quick() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
}

criterion_group!(name = benches; config = quick(); targets = slab, cancel, fire, buf);
criterion_main!(benches);
