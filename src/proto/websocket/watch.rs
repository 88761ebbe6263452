//! Idle WebSockets, without a timer for each: a wheel of spokes a reactor, and each connection in
//! the spoke in which it is to be looked at next.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::keepalive::KeepAlivePolicy;
use super::shared::Shared;
use crate::conn::Flags;
use crate::{Close, ConnId, Ctx, EvHandler, TimerId};

/// Steps in which an idle time is measured.
const STEPS: u32 = 8;
/// Ids of connections that are gone, up to which nothing is done about them.
const GONE_MAX: usize = 1024;

pub(super) struct Wheel {
    /// Idle time before a ping, in milliseconds; 0: nobody is watched.
    pub(super) idle_ms: u32,
    /// The longest that a peer may take nothing of the output that waits for it, in milliseconds.
    stuck_ms: u32,
    spokes: RefCell<Spokes>,
}

#[derive(Default)]
struct Spokes {
    /// More than an idle time takes, so that a spoke is never added to in its own turn.
    spokes: [Vec<ConnId>; STEPS as usize + 2],
    next: usize,
    len: usize,
    gone: usize,
    /// To be looked at in this turn of the reactor.
    looking: HashSet<ConnId>,
    /// On a spoke, with connections that live on under other handlers.
    replaced: HashSet<ConnId>,
    turning: bool,
}

impl Wheel {
    pub(super) fn new(policy: &KeepAlivePolicy) -> Wheel {
        let most = u32::MAX / 4;
        let ms = |time: Duration| u32::try_from(time.as_millis()).map_or(most, |ms| ms.min(most));
        let idle_ms = policy.ping_after.map_or(0, |after| ms(after).max(STEPS));
        let stuck_ms = idle_ms + ms(policy.pong_within);
        Wheel { idle_ms, stuck_ms, spokes: RefCell::default() }
    }

    fn step_ms(&self) -> u32 {
        self.idle_ms.div_ceil(STEPS)
    }

    /// Whether the wheel has asked `id` to look at its time.
    pub(super) fn asks(&self, id: ConnId) -> bool {
        self.idle_ms > 0 && self.spokes.borrow_mut().looking.remove(&id)
    }

    /// A connection has ended, or only its WebSocket: it was `replaced`.
    pub(super) fn left(&self, cx: &Ctx<'_>, replaced: bool) {
        if self.idle_ms == 0 {
            return;
        }
        let wheel = &mut *self.spokes.borrow_mut();
        if wheel.looking.remove(&cx.id()) {
            return; // it is on no spoke
        }
        if replaced {
            wheel.replaced.insert(cx.id());
        }
        wheel.gone += 1;
        if wheel.gone > GONE_MAX.max(wheel.len / 2) {
            for spoke in &mut wheel.spokes {
                spoke
                    .retain(|id| cx.core.conns.get(id.0).is_some() && !wheel.replaced.contains(id));
                spoke.shrink_to(spoke.len() * 2);
            }
            wheel.replaced = HashSet::new();
            wheel.len = wheel.spokes.iter().map(Vec::len).sum();
            wheel.gone = 0;
        }
    }
}

impl Spokes {
    /// Has `id` looked at in `steps` steps, or as many as there are.
    fn add(&mut self, id: ConnId, steps: u32) {
        let spoke = (self.next + steps.clamp(1, STEPS) as usize) % self.spokes.len();
        self.spokes[spoke].push(id);
        self.len += 1;
    }
}

impl Shared {
    /// Has the present connection looked at in `after_ms`, not before.
    pub(super) fn watch(self: &Rc<Shared>, cx: &mut Ctx<'_>, after_ms: u32) {
        if self.wheel.idle_ms == 0 {
            return;
        }
        let wheel = &mut *self.wheel.spokes.borrow_mut();
        wheel.add(cx.id(), after_ms.div_ceil(self.wheel.step_ms()));
        if !wheel.turning {
            wheel.turning = true;
            cx.add(Sweeper { shared: self.clone() });
        }
    }
}

/// Turns the wheel, as long as there is something on it.
struct Sweeper {
    shared: Rc<Shared>,
}

impl EvHandler for Sweeper {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.set_periodic(Duration::from_millis(self.shared.wheel.step_ms().into()));
        Ok(())
    }

    fn on_read(&mut self, _cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        Ok(data.len()) // it has no socket
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, _timer: TimerId) -> io::Result<()> {
        let Wheel { stuck_ms, ref spokes, .. } = self.shared.wheel;
        let step_ms = self.shared.wheel.step_ms();
        let wheel = &mut *spokes.borrow_mut();
        let mut due = std::mem::take(&mut wheel.spokes[wheel.next]);
        wheel.next = (wheel.next + 1) % wheel.spokes.len();
        wheel.len -= due.len();
        // Of these the output rose above its mark before they could look.
        due.extend(wheel.looking.drain());
        for id in due {
            let replaced = wheel.replaced.remove(&id);
            match cx.core.conns.get(id.0).filter(|_| !replaced) {
                // Nothing is read from it, so that what it takes is its sign of life.
                Some(conn)
                    if conn.flags.any(Flags::ABOVE_HIGH) && !conn.flags.any(Flags::ENDING) =>
                {
                    let stuck = cx.core.now_ms.wrapping_sub(conn.last_active);
                    if stuck < stuck_ms || conn.flags.any(Flags::IDLE_READS) {
                        wheel.add(id, stuck_ms.saturating_sub(stuck).div_ceil(step_ms));
                    } else {
                        cx.core.doom(id, Close::Aborted);
                    }
                }
                Some(conn) if !conn.flags.any(Flags::ENDING) => {
                    wheel.looking.insert(id);
                    cx.core.defer(id, Flags::DRAIN_DUE); // it knows how long it is idle
                }
                _ => wheel.gone = wheel.gone.saturating_sub(1),
            }
        }
        if wheel.len == 0 && wheel.looking.is_empty() {
            wheel.turning = false;
            cx.close();
        }
        Ok(())
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, _why: &Close) {
        self.shared.wheel.spokes.borrow_mut().turning = false;
    }
}
