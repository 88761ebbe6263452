//! The parts of a reactor by themselves: its slots and buffers, reached through the public interface on a simulated
//! kernel, so that no system call is in the figures. Slots stand beside what `std` offers for the same work; timers are
//! in the bench called loopback.
//!
//! What the simulator itself costs is in the figures of `buf`: those tell one commit from another; what the real kernel
//! adds is in loopback.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use reev::sim::{Faults, Simulation};
use reev::{Config, ConnId, Ctx, EvHandler};
use std::collections::HashMap;
use std::io;
use std::time::Duration;

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

criterion_group!(name = benches; config = quick(); targets = slab, buf);
criterion_main!(benches);
