//! One connection as the load sees it: what it may send, what it is owed, how it ended.

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Instant;

use reev::{Close, Ctx, TimerId};

use crate::load::{Load, Seat, Stage};
use crate::tally::record;

/// A request under way.
struct Request {
    due: Instant,
    sent: Instant,
    /// Whether it was due in the window.
    counts: bool,
}

/// What a timer of the connection asks for.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Wake {
    /// To send what is due.
    Send,
    /// To end well: it is over.
    Close,
    /// To give up: an answer has not come in time. It is told already.
    GiveUp,
}

pub(crate) struct Line {
    load: Rc<Load>,
    seat: Seat,
    begun: Instant,
    under_way: VecDeque<Request>,
    sent: u64,
    answered: u64,
    /// Wakes when the next request is due.
    pace: TimerId,
    /// Wakes when the oldest request may be overdue.
    guard: TimerId,
    /// Its failure is told.
    failed: bool,
}

impl Line {
    pub(crate) fn new(load: Rc<Load>, seat: Seat) -> Line {
        Line {
            load,
            seat,
            begun: Instant::now(),
            under_way: VecDeque::new(),
            sent: 0,
            answered: 0,
            pace: TimerId::NONE,
            guard: TimerId::NONE,
            failed: false,
        }
    }

    /// The connection is open, with its handshake if it has one.
    pub(crate) fn opened(&mut self, cx: &mut Ctx<'_>) {
        // A message may be longer than the output's mark, and its answer may come meanwhile.
        cx.read_while_blocked(true);
        record(&mut self.load.tally.borrow_mut().connect, self.begun.elapsed());
        self.load.opened(cx, &mut self.seat);
    }

    /// How many requests are to be sent now; they are taken for sent.
    pub(crate) fn take_due(&mut self, cx: &mut Ctx<'_>) -> usize {
        let Some(window) = self.load.window.get() else {
            return 0;
        };
        let now = Instant::now();
        // In an open loop the last request decides: its timer may fire after the end.
        let over = window.open.is_none() && now >= window.end;
        if over || self.load.stage.get() != Stage::Running {
            return 0;
        }
        let before = self.under_way.len();
        while self.under_way.len() < self.load.plan.depth && !self.has_sent_all() {
            let (due, counts) = match window.open {
                None => (now, window.from <= now),
                Some(open) => {
                    let due = window.start + open.schedule.due(self.seat.next);
                    if due > now || self.seat.next >= open.last {
                        break;
                    }
                    let counts = self.seat.next >= open.first;
                    self.seat.next += self.load.plan.connections as u64;
                    (due, counts)
                }
            };
            self.sent += 1;
            self.load.under_way.set(self.load.under_way.get() + u64::from(counts));
            self.load.tally.borrow_mut().requests.sent += u64::from(counts);
            self.under_way.push_back(Request { due, sent: now, counts });
        }
        self.arm(cx);
        self.under_way.len() - before
    }

    fn has_sent_all(&self) -> bool {
        self.load.plan.requests_per_connection.is_some_and(|max| self.sent >= max)
    }

    fn arm(&mut self, cx: &mut Ctx<'_>) {
        if self.pace == TimerId::NONE
            && self.under_way.len() < self.load.plan.depth
            && !self.has_sent_all()
            && let Some(window) = self.load.window.get()
            && let Some(open) = window.open
            && self.seat.next < open.last
        {
            let due = window.start + open.schedule.due(self.seat.next);
            self.pace = cx.set_timer(due.saturating_duration_since(cx.now()));
        }
        if self.guard == TimerId::NONE
            && let Some(oldest) = self.under_way.front()
        {
            let overdue = oldest.sent + self.load.plan.timeout;
            self.guard = cx.set_timer(overdue.saturating_duration_since(cx.now()));
        }
    }

    /// The answer to the oldest request has come. False if there is none, which is told.
    pub(crate) fn answered(&mut self, now: Instant, status: Option<u16>) -> bool {
        let Some(request) = self.under_way.pop_front() else {
            self.fail("an answer to no request", String::new);
            return false;
        };
        self.answered += 1;
        let load = &self.load;
        let latency = now.saturating_duration_since(request.due);
        let tally = &mut *load.tally.borrow_mut();
        if request.counts {
            load.under_way.set(load.under_way.get() - 1);
            tally.requests.answered += 1;
            record(&mut tally.latency, latency);
            if load.plan.schedule.is_some() {
                record(&mut tally.from_send, now.saturating_duration_since(request.sent));
                record(&mut tally.late, request.sent - request.due);
            }
            if let Some(status) = status {
                *tally.statuses.entry(status).or_default() += 1;
            }
        }
        tally.answers += u64::from(load.counts(now));
        if load.plan.progress {
            let interval = &mut *load.interval.borrow_mut();
            interval.answers += 1;
            record(&mut interval.latency, latency);
        }
        true
    }

    /// Whether all requests that this connection is for are answered.
    pub(crate) fn is_spent(&self) -> bool {
        self.has_sent_all() && self.under_way.is_empty()
    }

    /// Whether nothing is owed.
    pub(crate) fn is_even(&self) -> bool {
        self.under_way.is_empty()
    }

    pub(crate) fn woken(&mut self, cx: &mut Ctx<'_>, timer: TimerId) -> Wake {
        if timer == self.pace {
            self.pace = TimerId::NONE;
        }
        if timer == self.guard {
            self.guard = TimerId::NONE;
            let timeout = self.load.plan.timeout;
            if self.under_way.front().is_some_and(|oldest| oldest.sent + timeout <= cx.now()) {
                self.fail("no answer in time", || format!("none within {timeout:?}"));
                return Wake::GiveUp;
            }
            self.arm(cx);
        }
        match self.load.stage.get() {
            Stage::Over => Wake::Close,
            _ => Wake::Send,
        }
    }

    /// Whether the load is over, so that a shutdown may close.
    pub(crate) fn is_over(&self) -> bool {
        self.load.stage.get() == Stage::Over
    }

    /// The connection fails; its owner ends it. Told once.
    pub(crate) fn fail(&mut self, kind: &str, example: impl FnOnce() -> String) {
        if !std::mem::replace(&mut self.failed, true) {
            self.load.fail(kind, example);
        }
    }

    /// The connection could not be made.
    pub(crate) fn refused(&mut self, cx: &mut Ctx<'_>, error: &io::Error) {
        // A shutdown ends what is under way, which is nobody's fault.
        if self.load.stage.get() <= Stage::Running
            && error.kind() != io::ErrorKind::ConnectionAborted
        {
            self.fail(&format!("connect: {}", error.kind()), || error.to_string());
        }
        self.load.leave(cx, self.seat, false);
    }

    /// The connection has ended. `expected`: as its protocol, or this side, wanted it.
    pub(crate) fn closed(&mut self, cx: &mut Ctx<'_>, why: &Close, expected: bool) {
        if self.load.stage.get() == Stage::Over || matches!(why, Close::Stopped) {
            return; // what was under way is counted as unanswered
        }
        match why {
            Close::Local | Close::Peer if !self.under_way.is_empty() => {
                self.fail("closed by the server before it answered", String::new);
            }
            Close::Local => {}
            Close::Peer if expected || self.answered > 0 => {}
            Close::Peer => self.fail("closed by the server", String::new),
            Close::Io(error) => {
                self.fail(&format!("connection: {}", error.kind()), || error.to_string());
            }
            _ => self.fail(why.kind(), || why.to_string()),
        }
        let lost = self.under_way.drain(..).filter(|request| request.counts).count() as u64;
        self.load.tally.borrow_mut().requests.failed += lost;
        self.load.under_way.set(self.load.under_way.get() - lost);
        self.load.leave(cx, self.seat, self.answered > 0);
    }
}
