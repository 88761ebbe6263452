//! How much of everything: for results, for a look, or only to see that it runs.

use crate::{crowd, latency, measure, timers};
use std::time::Duration;

pub struct Scale {
    pub name: &'static str,
    /// With as many slices as fit into the time, and at most so many.
    pub throughput: Size,
    pub throughput_time: Duration,
    /// With a thread of each server on every core.
    pub spread: Size,
    /// Latency, system calls and several cores: the first so many of their workloads.
    pub some: usize,
    pub latency: Size,
    pub growth: Size,
    pub crowd: crowd::Plan,
    pub timers: timers::Plan,
    pub memory: Memory,
    /// Messages on each connection while system calls are counted.
    pub waves: u64,
}

/// Rounds, and in each so many slices of this length for every server.
#[derive(Clone, Copy)]
pub struct Size {
    pub rounds: usize,
    pub slices: usize,
    pub interval: Duration,
    pub warm_up: Duration,
}

#[derive(Clone, Copy)]
pub struct Memory {
    pub connections: usize,
    /// Processes for each server; with none, the bench called memory is not run.
    pub rounds: usize,
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn size(rounds: usize, slices: usize, interval: Duration) -> Size {
    Size { rounds, slices, interval, warm_up: ms(15) }
}

pub static FULL: Scale = Scale {
    name: "full",
    throughput: size(7, 8, ms(60)),
    throughput_time: Duration::from_secs(300),
    spread: size(5, 5, ms(60)),
    some: usize::MAX,
    latency: size(5, 4, ms(100)),
    growth: size(5, 3, ms(60)),
    crowd: crowd::Plan { rounds: 3, waves: 3, step: 1_000 },
    timers: timers::Plan {
        sizes: &[1_000, 10_000, 100_000, 1_000_000],
        rounds: 6,
        interval: ms(20),
    },
    memory: Memory { connections: 8_000, rounds: 1 },
    waves: 60,
};

pub static QUICK: Scale = Scale {
    name: "quick",
    throughput: size(2, 2, ms(60)),
    throughput_time: Duration::from_secs(20),
    spread: size(1, 2, ms(60)),
    some: 2,
    latency: size(1, 2, ms(100)),
    growth: size(1, 2, ms(60)),
    crowd: crowd::Plan { rounds: 1, waves: 1, step: 1_000 },
    timers: timers::Plan { sizes: &[1_000, 10_000, 100_000], rounds: 3, interval: ms(10) },
    memory: Memory { connections: 1_000, rounds: 1 },
    waves: 20,
};

/// Nothing of what it shows means anything.
pub static TINY: Scale = Scale {
    name: "tiny",
    throughput: size(1, 1, ms(5)),
    throughput_time: Duration::ZERO,
    spread: size(1, 1, ms(5)),
    some: usize::MAX,
    latency: size(1, 1, ms(5)),
    growth: size(1, 1, ms(5)),
    crowd: crowd::Plan { rounds: 1, waves: 1, step: 4 },
    timers: timers::Plan { sizes: &[100, 1_000], rounds: 1, interval: ms(1) },
    memory: Memory { connections: 0, rounds: 0 },
    waves: 2,
};

impl Size {
    /// With fewer slices, if so many series would take longer than this.
    pub fn within(self, time: Duration, series: usize) -> Size {
        let each = (self.warm_up + self.interval) * (self.rounds * series.max(1)) as u32;
        let fitting = (time.as_nanos() / each.as_nanos()) as usize;
        Size { slices: fitting.clamp(1, self.slices), ..self }
    }

    pub fn closed_loop(self, server_core: Option<usize>) -> measure::Plan {
        let Size { rounds, slices, interval, warm_up } = self;
        measure::Plan { rounds, slices, warm_up, interval, server_core }
    }

    pub fn open_loop(self, server_core: Option<usize>) -> latency::Plan {
        let Size { rounds, slices, interval, warm_up } = self;
        latency::Plan { rounds, slices, warm_up, interval, server_core }
    }
}
