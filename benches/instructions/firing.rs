//! Timers of a simulated reactor that fire and are armed again, with a fixed number pending.

use reev::sim::Simulation;
use reev::{ConnId, Ctx, EvHandler, TimerId};
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// Timers that are due in one step of the clock, on average.
const DUE: usize = 64;
pub const STEP: Duration = Duration::from_millis(1);

struct Rearm {
    fired: Rc<Cell<u64>>,
    rng: fastrand::Rng,
    steps: u32,
}

impl EvHandler for Rearm {
    fn on_read(&mut self, _: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        Ok(data.len())
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, _: TimerId) -> io::Result<()> {
        self.fired.set(self.fired.get() + 1);
        cx.set_timer(STEP * self.rng.u32(1..=self.steps));
        Ok(())
    }
}

/// A reactor with one handler, whose timers these are.
pub struct Firing {
    sim: Simulation,
    owner: ConnId,
    fired: Rc<Cell<u64>>,
}

impl Firing {
    pub fn new(pending: usize) -> Firing {
        let mut sim = Simulation::new(1);
        let fired = Rc::new(Cell::new(0));
        let steps = steps(pending);
        let mut rng = fastrand::Rng::with_seed(7);
        let rearm = Rearm { fired: fired.clone(), rng: rng.fork(), steps };
        let owner = sim.reactor().add(rearm);
        sim.settle();
        let mut firing = Firing { sim, owner, fired };
        let mut cx = firing.cx();
        for _ in 0..pending {
            cx.set_timer(STEP * rng.u32(1..=steps));
        }
        firing
    }

    /// What arms and cancels timers of the handler.
    pub fn cx(&mut self) -> Ctx<'_> {
        self.sim.reactor().conn(self.owner).expect("it is open")
    }

    /// Lets time pass until so many have fired, and returns how many did.
    pub fn fire(&mut self, count: u64) -> u64 {
        let before = self.fired.get();
        while self.fired.get() - before < count {
            self.sim.advance(STEP);
        }
        self.fired.get() - before
    }
}

/// A timer is armed for 1 to so many steps.
pub fn steps(pending: usize) -> u32 {
    u32::try_from(2 * pending / DUE).unwrap_or(u32::MAX).max(2)
}
