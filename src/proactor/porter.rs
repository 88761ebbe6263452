//! The watcher's thread minds the poller while the caller is busy.
//!
//! That the caller comes and goes costs it no system call: every [`ABSENCE`] the porter looks
//! whether it has been back since, and takes over if not. When the caller sleeps in its wait, the
//! porter sleeps too.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::shared::Shared;
use crate::config::ABSENCE;
use crate::ctx::Ctx;
use crate::handler::EvHandler;
use crate::source::Readiness;
use crate::timer::TimerId;

/// Whether the caller is there, for the porter to see.
pub(crate) struct Presence {
    /// The caller is not waiting.
    away: AtomicBool,
    /// How often it has left.
    visits: AtomicU32,
    /// The porter looks after the poller, or soon will.
    minded: AtomicBool,
}

impl Presence {
    /// The caller has yet to come; the porter minds from the start.
    pub(crate) fn new() -> Presence {
        Presence {
            away: AtomicBool::new(true),
            visits: AtomicU32::new(0),
            minded: AtomicBool::new(true),
        }
    }

    pub(crate) fn enter(&self) {
        self.away.store(false, Ordering::SeqCst);
    }

    /// The caller leaves; true if the porter has to be told.
    pub(crate) fn leave(&self) -> bool {
        self.visits.fetch_add(1, Ordering::Relaxed);
        // Before the look at `minded`, as the porter ends minding before it looks at `away`: one
        // of both sees the other.
        self.away.store(true, Ordering::SeqCst);
        !self.minded.load(Ordering::SeqCst) && !self.minded.swap(true, Ordering::SeqCst)
    }

    /// The porter wants to rest; false if the caller has left meanwhile.
    fn rest(&self) -> bool {
        self.minded.store(false, Ordering::SeqCst);
        !self.away.load(Ordering::SeqCst) || self.minded.swap(true, Ordering::SeqCst)
    }
}

enum Mode {
    /// The caller sleeps where it polls.
    Resting,
    /// The caller comes and goes.
    Looking(TimerId),
    /// The caller is busy, and the porter polls.
    Minding,
}

pub(crate) struct Porter<T> {
    shared: Arc<Shared<T>>,
    mode: Mode,
    visits: u32,
}

impl<T> Porter<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>) -> Porter<T> {
        Porter { shared, mode: Mode::Resting, visits: 0 }
    }

    fn begin_looking(&mut self, cx: &mut Ctx<'_>) {
        self.visits = self.shared.presence.visits.load(Ordering::Relaxed);
        self.mode = Mode::Looking(cx.set_periodic(ABSENCE));
    }
}

impl<T: Send + 'static> EvHandler for Porter<T> {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.shared.set_porter(cx.remote());
        self.mode = Mode::Minding;
        cx.watch(Readiness::READ)
    }

    /// The caller has left while the porter rested.
    fn on_notify(&mut self, cx: &mut Ctx<'_>, _: u64) -> io::Result<()> {
        if matches!(self.mode, Mode::Resting) {
            self.begin_looking(cx);
        }
        Ok(())
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, _: TimerId) -> io::Result<()> {
        let Mode::Looking(timer) = self.mode else {
            return Ok(());
        };
        let presence = &self.shared.presence;
        let visits = presence.visits.load(Ordering::Relaxed);
        if std::mem::replace(&mut self.visits, visits) != visits {
            return Ok(()); // it has been here since
        }
        if presence.away.load(Ordering::SeqCst) {
            cx.cancel_timer(timer);
            self.mode = Mode::Minding;
            return cx.watch(Readiness::READ);
        }
        if presence.rest() {
            cx.cancel_timer(timer);
            self.mode = Mode::Resting;
        }
        Ok(())
    }

    fn on_ready(&mut self, cx: &mut Ctx<'_>, _: Readiness) -> io::Result<()> {
        let away = self.shared.presence.away.load(Ordering::SeqCst);
        if !away || !self.shared.poll_in_absence()? {
            cx.watch(Readiness::NONE)?;
            self.begin_looking(cx);
        }
        Ok(())
    }
}
