//! Idle connections, without a timer for each: a wheel of eight spokes a reactor, and each
//! connection in the spoke in which it is to be looked at next.

use std::collections::HashSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::options::Shared;
use crate::conn::Flags;
use crate::{ConnId, Ctx, EvHandler, TimerId};

const SPOKES: u32 = 8;
/// Ids of connections that are gone, up to which nothing is done about them.
const GONE_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Wheel {
    /// Between two spokes' turns, in milliseconds.
    pub(super) step_ms: u32,
    /// One more than an idle timeout takes, so that a spoke is never added to in its own turn.
    spokes: [Vec<ConnId>; SPOKES as usize + 2],
    next: usize,
    len: usize,
    /// Ids on the wheel whose connections have ended.
    gone: usize,
    /// Ids on the wheel whose connections live on under another handler.
    upgraded: HashSet<ConnId>,
    turning: bool,
}

impl Wheel {
    pub(super) fn new(idle_timeout: Duration) -> Wheel {
        let idle_ms = u32::try_from(idle_timeout.as_millis()).unwrap_or(u32::MAX);
        Wheel {
            step_ms: idle_ms.div_ceil(SPOKES).clamp(1, u32::MAX / 2 / SPOKES),
            spokes: Default::default(),
            next: 0,
            len: 0,
            gone: 0,
            upgraded: HashSet::new(),
            turning: false,
        }
    }

    /// Has `id` looked at in `steps` steps, not before.
    fn add(&mut self, id: ConnId, steps: u32) {
        let spoke = (self.next + steps.min(SPOKES) as usize) % self.spokes.len();
        self.spokes[spoke].push(id);
        self.len += 1;
    }

    /// Forgets what is gone. Runs when that is half of all, so it costs a connection little.
    fn sweep(&mut self, cx: &Ctx<'_>) {
        let Wheel { spokes, upgraded, .. } = self;
        for spoke in spokes.iter_mut() {
            spoke.retain(|id| {
                let conn = cx.core.conns.get(id.0);
                conn.is_some_and(|conn| conn.flags.any(Flags::OPENED)) && !upgraded.remove(id)
            });
            spoke.shrink_to(spoke.len() * 2);
        }
        self.upgraded = HashSet::new();
        self.len = self.spokes.iter().map(Vec::len).sum();
        self.gone = 0;
    }

    fn turn(&mut self) -> Vec<ConnId> {
        let due = std::mem::take(&mut self.spokes[self.next]);
        self.next = (self.next + 1) % self.spokes.len();
        self.len -= due.len();
        due
    }
}

impl Shared {
    /// The longest a connection may be idle, in milliseconds.
    pub(super) fn idle_ms(&self) -> u32 {
        self.wheel.borrow().step_ms * SPOKES
    }

    /// Watches a new connection.
    pub(super) fn watch(self: &Rc<Shared>, cx: &mut Ctx<'_>) {
        let mut wheel = self.wheel.borrow_mut();
        wheel.add(cx.id(), SPOKES);
        if !wheel.turning {
            wheel.turning = true;
            cx.add(Sweeper { shared: self.clone() });
        }
    }

    /// A connection is no longer HTTP's: it ended, or was `upgraded`.
    pub(super) fn unwatch(&self, cx: &Ctx<'_>, upgraded: bool) {
        let wheel = &mut *self.wheel.borrow_mut();
        if upgraded {
            wheel.upgraded.insert(cx.id());
        }
        wheel.gone += 1;
        if wheel.gone > GONE_MAX.max(wheel.len / 2) {
            wheel.sweep(cx);
        }
    }
}

/// Turns the wheel, as long as there is something on it.
struct Sweeper {
    shared: Rc<Shared>,
}

impl EvHandler for Sweeper {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        let step = Duration::from_millis(self.shared.wheel.borrow().step_ms.into());
        cx.set_periodic(step);
        Ok(())
    }

    fn on_read(&mut self, _cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        Ok(data.len()) // it has no socket
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, _timer: TimerId) -> io::Result<()> {
        let mut wheel = self.shared.wheel.borrow_mut();
        let (now_ms, step_ms) = (cx.core.now_ms, wheel.step_ms);
        for id in wheel.turn() {
            let upgraded = wheel.upgraded.remove(&id); // also of one that has ended since
            let Some(conn) = cx.core.conns.get(id.0).filter(|_| !upgraded) else {
                wheel.gone = wheel.gone.saturating_sub(1);
                continue;
            };
            let left_ms = (step_ms * SPOKES).saturating_sub(now_ms.wrapping_sub(conn.last_active));
            if left_ms == 0 {
                cx.core.defer(id, Flags::DRAIN_DUE); // it knows whether it is idle
                wheel.add(id, SPOKES);
            } else {
                wheel.add(id, left_ms.div_ceil(step_ms));
            }
        }
        if wheel.len == 0 {
            wheel.upgraded = HashSet::new(); // which frees it
            wheel.turning = false;
            cx.close();
        }
        Ok(())
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, _why: &crate::Close) {
        self.shared.wheel.borrow_mut().turning = false;
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use std::io;
    use std::time::Duration;

    use crate::http1::{Fields, Http1, Options, Request, Response, Service, Status};
    use crate::sim::Simulation;
    use crate::{Ctx, EvHandler};

    struct Switch;

    impl Service for Switch {
        fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
            if !req.wants_upgrade("brief") || !res.upgrade("brief", Brief) {
                res.send(Status::OK, Fields::NONE, b"");
            }
        }
    }

    /// The protocol behind the upgrade: one word, and the end.
    struct Brief;

    impl EvHandler for Brief {
        fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
            cx.close();
            Ok(data.len())
        }
    }

    /// Fault: the id of an upgraded connection that had ended when its spoke turned was kept for
    /// good.
    #[test]
    fn upgraded_connections_that_end_are_forgotten() {
        let mut sim = Simulation::new(1);
        let http = Http1::new(Options::default());
        let shared = http.shared.clone();
        let listener = sim.listen(move |_peer| http.connection(Switch));
        let stays = sim.connect(listener); // the wheel never gets empty
        for _ in 0..30 {
            for _ in 0..20 {
                let peer = sim.connect(listener);
                peer.send(
                    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: brief\r\n\r\nbye",
                );
                sim.settle();
                peer.close();
            }
            stays.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            sim.advance(Duration::from_secs(10));
            let wheel = shared.wheel.borrow();
            let (upgraded, len) = (wheel.upgraded.len(), wheel.len);
            assert!(upgraded < len, "{upgraded} upgraded ids, {len} connections on the wheel");
        }
        stays.close();
        sim.advance(Duration::from_secs(200));
        let wheel = shared.wheel.borrow();
        assert_eq!((wheel.len, wheel.gone, wheel.turning), (0, 0, false));
        assert_eq!(wheel.upgraded.capacity(), 0, "what a crowd needed is freed");
    }
}
