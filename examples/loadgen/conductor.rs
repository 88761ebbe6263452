//! What leads a thread through the run: connect, load, drain, end.

use std::io;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::time::ClockId;
use reev::{Close, Ctx, EvHandler, TimerId};

use crate::load::{Load, Report, Stage};
use crate::progress;
use crate::schedule::Window;
use crate::tally::Tally;

/// By notice: the load begins, at the time that all threads know.
pub(crate) const START: u64 = 1;
/// By notice: there is no load, only what was counted so far.
pub(crate) const GIVE_UP: u64 = 2;

/// How often lost connections are made again.
const AGAIN: Duration = Duration::from_millis(100);
/// How often a drain is looked at.
const DRAIN_STEP: Duration = Duration::from_millis(5);

/// A thread's bytes and processor time, to be subtracted.
#[derive(Clone, Copy, Default)]
struct Spent {
    bytes_in: u64,
    bytes_out: u64,
    cpu: Duration,
}

pub(crate) struct Conductor {
    load: Rc<Load>,
    /// When the load begins, set once for all threads.
    start: Arc<OnceLock<Instant>>,
    from: TimerId,
    end: TimerId,
    last_look: TimerId,
    interval: TimerId,
    drain: TimerId,
    drained_by: Option<Instant>,
    interrupted: bool,
    at_begin: Spent,
}

impl Conductor {
    pub(crate) fn new(load: Rc<Load>, start: Arc<OnceLock<Instant>>) -> Conductor {
        Conductor {
            load,
            start,
            from: TimerId::NONE,
            end: TimerId::NONE,
            last_look: TimerId::NONE,
            interval: TimerId::NONE,
            drain: TimerId::NONE,
            drained_by: None,
            interrupted: false,
            at_begin: Spent::default(),
        }
    }

    fn begin(&mut self, cx: &mut Ctx<'_>) {
        let Some(&start) = self.start.get() else {
            return;
        };
        if self.load.stage.get() != Stage::Connecting {
            return; // stopped before it began
        }
        let plan = self.load.plan.clone();
        let window = Window::new(start, plan.warmup, plan.duration, plan.schedule);
        self.load.window.set(Some(window));
        self.load.stage.set(Stage::Running);
        self.from = cx.set_timer(window.from.saturating_duration_since(cx.now()));
        self.end = cx.set_timer(window.end.saturating_duration_since(cx.now()));
        cx.set_periodic(AGAIN);
        if plan.progress {
            self.interval = cx.set_periodic(progress::EVERY);
        }
        self.load.wake_all(cx);
    }

    /// Nothing more is due. Each connection looks once more at what was due by now, or by the end:
    /// timers fire in the order of their times, so the drain begins after that.
    fn finish(&mut self, cx: &mut Ctx<'_>) {
        let now = Instant::now();
        self.load.window.set(self.load.window.get().map(|window| window.cut(now)));
        self.load.wake_all(cx);
        self.last_look = cx.set_timer(Duration::ZERO);
    }

    /// Nothing more is sent; what was counted is what was due by now, or by the end.
    fn drain(&mut self, cx: &mut Ctx<'_>) {
        if self.load.stage.get() > Stage::Running {
            return;
        }
        let now = Instant::now();
        let window = self.load.window.get().map(|window| window.cut(now));
        self.load.window.set(window);
        self.load.stage.set(Stage::Draining);
        let spent = Spent::now(cx);
        let scheduled = self.load.scheduled();
        let tally = &mut *self.load.tally.borrow_mut();
        tally.interrupted = self.interrupted;
        tally.open_at_end = self.load.open() as u64;
        tally.requests.scheduled = scheduled;
        if let Some(window) = window.filter(|window| window.from < window.end) {
            tally.measured = window.end - window.from;
            tally.bytes_in = spent.bytes_in - self.at_begin.bytes_in;
            tally.bytes_out = spent.bytes_out - self.at_begin.bytes_out;
            tally.cpu = spent.cpu.saturating_sub(self.at_begin.cpu);
        }
        self.drained_by = Some(now + self.load.plan.drain);
        self.drain = cx.set_periodic(DRAIN_STEP);
    }

    fn end(&mut self, cx: &mut Ctx<'_>) {
        self.report();
        self.load.wake_all(cx); // they see that it is over, and close
        cx.close();
    }

    fn report(&mut self) {
        self.load.stage.set(Stage::Over);
        let mut tally: Tally = self.load.tally.take();
        tally.requests.unanswered = self.load.under_way.get();
        let _ = self.load.reports.send(Report::Done(Box::new(tally))); // nobody may be waiting
    }
}

impl Spent {
    fn now(cx: &Ctx<'_>) -> Spent {
        let stats = cx.handle().stats().swap_remove(cx.reactor_index());
        let cpu = ClockId::CLOCK_THREAD_CPUTIME_ID.now().map_or(Duration::ZERO, Duration::from);
        Spent { bytes_in: stats.bytes_in, bytes_out: stats.bytes_out, cpu }
    }
}

impl EvHandler for Conductor {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.load.conductor.set(cx.id());
        self.load.begin(cx);
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Ctx<'_>, value: u64) -> io::Result<()> {
        match value {
            START => self.begin(cx),
            _ => self.drain(cx),
        }
        Ok(())
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, timer: TimerId) -> io::Result<()> {
        if timer == self.from {
            self.at_begin = Spent::now(cx);
        } else if timer == self.end {
            self.finish(cx);
        } else if timer == self.last_look {
            self.drain(cx);
        } else if timer == self.interval {
            let interval = self.load.interval.take();
            let _ = self.load.reports.send(Report::Interval(Box::new(interval)));
        } else if timer == self.drain {
            let late = self.drained_by.is_some_and(|by| Instant::now() >= by);
            if late || self.load.under_way.get() == 0 {
                self.end(cx);
            }
        } else if self.load.stage.get() == Stage::Running {
            self.load.connect_again(cx);
        }
        Ok(())
    }

    /// The first Ctrl-C: the results so far, after the drain.
    fn on_shutdown(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.interrupted = self.load.stage.get() <= Stage::Running;
        self.finish(cx);
        Ok(())
    }

    /// The second Ctrl-C does not wait for the drain.
    fn on_close(&mut self, cx: &mut Ctx<'_>, _: &Close) {
        if self.load.stage.get() != Stage::Over {
            self.interrupted = true;
            self.drain(cx);
            self.report();
        }
    }
}
