//! The load of one thread: what its connections share.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use reev::{ConnId, ConnectOptions, Ctx, Remote};

use crate::line::Line;
use crate::schedule::{Schedule, Window};
use crate::tally::{Interval, Tally};
use crate::target::Place;

/// Connections of a thread that are being made at first, so that the server's backlog does not
/// overflow: what does not fit in it waits a second or more.
const FIRST_CONNECTS_MAX: usize = 64;

/// What is to be done, the same for all threads.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) place: Place,
    pub(crate) connections: usize,
    pub(crate) threads: usize,
    pub(crate) schedule: Option<Schedule>,
    /// Requests under way on a connection; 0 if it never asks.
    pub(crate) depth: usize,
    pub(crate) warmup: Duration,
    pub(crate) duration: Duration,
    pub(crate) drain: Duration,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) requests_per_connection: Option<u64>,
    pub(crate) sources: Vec<std::net::IpAddr>,
    pub(crate) progress: bool,
}

/// What a thread tells the one that waits for the results.
pub(crate) enum Report {
    /// All its connections have been tried; so many are open.
    Settled(Remote, usize),
    Interval(Box<Interval>),
    Done(Box<Tally>),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Stage {
    Connecting,
    Running,
    /// Nothing is sent any more, answers are waited for.
    Draining,
    Over,
}

/// A place for a connection, which outlives it: what is lost is made again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat {
    /// Among the thread's.
    pub(crate) index: usize,
    /// Among all; it asks the requests `number`, `number + connections`, ….
    pub(crate) number: u64,
    /// Its next request.
    pub(crate) next: u64,
    /// Whether the outcome of its first connect is told.
    pub(crate) settled: bool,
}

/// The connection on a seat.
#[derive(Clone, Copy, Default)]
struct Occupant {
    id: ConnId,
    open: bool,
}

/// Connects for a seat, with a mode's own handler.
pub(crate) type Dial = Box<dyn Fn(&mut Ctx<'_>, Line, &ConnectOptions) -> io::Result<ConnId>>;

pub(crate) struct Load {
    pub(crate) plan: Arc<Plan>,
    pub(crate) tally: RefCell<Tally>,
    pub(crate) interval: RefCell<Interval>,
    pub(crate) reports: Sender<Report>,
    pub(crate) stage: Cell<Stage>,
    pub(crate) window: Cell<Option<Window>>,
    /// Requests that count and have no answer yet.
    pub(crate) under_way: Cell<u64>,
    pub(crate) conductor: Cell<ConnId>,
    dial: Dial,
    seats: RefCell<Vec<Occupant>>,
    /// Seats to be connected again, a little later.
    resting: RefCell<Vec<Seat>>,
    /// The next seat to be connected for the first time.
    fresh: Cell<usize>,
    settled: Cell<usize>,
    thread: usize,
}

impl Load {
    pub(crate) fn new(
        plan: Arc<Plan>,
        thread: usize,
        reports: Sender<Report>,
        dial: Dial,
    ) -> Rc<Load> {
        let seats = (plan.connections - thread).div_ceil(plan.threads);
        Rc::new(Load {
            tally: RefCell::default(),
            interval: RefCell::default(),
            reports,
            stage: Cell::new(Stage::Connecting),
            window: Cell::new(None),
            under_way: Cell::new(0),
            conductor: Cell::new(ConnId::NONE),
            dial,
            seats: RefCell::new(vec![Occupant::default(); seats]),
            resting: RefCell::default(),
            fresh: Cell::new(0),
            settled: Cell::new(0),
            thread,
            plan,
        })
    }

    fn number(&self, seat: usize) -> u64 {
        (self.thread + seat * self.plan.threads) as u64
    }

    /// Connects the first seats; each that is settled is followed by the next.
    pub(crate) fn begin(self: &Rc<Self>, cx: &mut Ctx<'_>) {
        for _ in 0..FIRST_CONNECTS_MAX {
            self.connect_next(cx);
        }
    }

    fn connect_next(self: &Rc<Self>, cx: &mut Ctx<'_>) {
        let index = self.fresh.get();
        if index < self.seats.borrow().len() && self.stage.get() != Stage::Over {
            self.fresh.set(index + 1);
            let number = self.number(index);
            self.connect(cx, Seat { index, number, next: number, settled: false });
        }
    }

    pub(crate) fn connect(self: &Rc<Self>, cx: &mut Ctx<'_>, seat: Seat) {
        let plan = &self.plan;
        let sources = &plan.sources;
        let bind = match sources.len() {
            0 => None,
            count => Some((sources[seat.number as usize % count], 0).into()),
        };
        let options =
            ConnectOptions { timeout: plan.connect_timeout, bind, ..ConnectOptions::default() };
        match (self.dial)(cx, Line::new(self.clone(), seat), &options) {
            Ok(id) => self.seats.borrow_mut()[seat.index].id = id,
            Err(error) => {
                self.fail("connect", || error.to_string());
                self.leave(cx, seat, false);
            }
        }
    }

    /// The connection on `seat` is open.
    pub(crate) fn opened(self: &Rc<Self>, cx: &mut Ctx<'_>, seat: &mut Seat) {
        self.seats.borrow_mut()[seat.index] = Occupant { id: cx.id(), open: true };
        self.settle(cx, seat);
    }

    /// The connection on `seat` has ended, or was never made. It is made again, while there is
    /// load: at once or, if that would be in vain, a little later.
    pub(crate) fn leave(self: &Rc<Self>, cx: &mut Ctx<'_>, mut seat: Seat, again_at_once: bool) {
        self.seats.borrow_mut()[seat.index] = Occupant::default();
        self.settle(cx, &mut seat);
        if self.plan.depth == 0 || self.stage.get() > Stage::Running {
            return;
        }
        match again_at_once {
            true => self.connect(cx, seat),
            false => self.resting.borrow_mut().push(seat),
        }
    }

    fn settle(self: &Rc<Self>, cx: &mut Ctx<'_>, seat: &mut Seat) {
        if std::mem::replace(&mut seat.settled, true) {
            return;
        }
        self.settled.set(self.settled.get() + 1);
        self.connect_next(cx);
        self.tell_settled(cx);
    }

    fn tell_settled(&self, cx: &mut Ctx<'_>) {
        let all = self.seats.borrow().len();
        if self.settled.get() == all
            && let Some(mut conductor) = cx.conn(self.conductor.get())
        {
            let _ = self.reports.send(Report::Settled(conductor.remote(), self.open()));
        }
    }

    pub(crate) fn open(&self) -> usize {
        self.seats.borrow().iter().filter(|seat| seat.open).count()
    }

    /// Connects what has rested.
    pub(crate) fn connect_again(self: &Rc<Self>, cx: &mut Ctx<'_>) {
        for seat in self.resting.take() {
            self.connect(cx, seat);
        }
    }

    /// Has every open connection look at what there is to do.
    pub(crate) fn wake_all(&self, cx: &mut Ctx<'_>) {
        for seat in self.seats.borrow().iter().filter(|seat| seat.open) {
            if let Some(mut cx) = cx.conn(seat.id) {
                cx.set_timer(Duration::ZERO);
            }
        }
    }

    /// How many requests of the thread were due in the window.
    pub(crate) fn scheduled(&self) -> u64 {
        let Some(open) = self.window.get().and_then(|window| window.open) else {
            return 0;
        };
        let numbers = (0..self.seats.borrow().len()).map(|seat| self.number(seat));
        numbers.map(|number| open.share(number, self.plan.connections as u64)).sum()
    }

    pub(crate) fn fail(&self, kind: &str, example: impl FnOnce() -> String) {
        if self.stage.get() == Stage::Over {
            return;
        }
        self.tally.borrow_mut().fail(kind, example);
        self.interval.borrow_mut().failures += 1;
    }

    /// Whether a time lies in the window.
    pub(crate) fn counts(&self, time: Instant) -> bool {
        self.window.get().is_some_and(|window| window.contains(time))
    }
}
