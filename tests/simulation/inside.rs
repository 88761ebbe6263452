//! The handlers' part of a run: whatever they may do, by chance.

use std::io;
use std::time::Duration;

use reev::{Close, Ctx, EvHandler, TimerId, Traffic};

use super::world::{Line, Shared, new_dial, stamp};

pub(super) struct Chaos {
    me: usize,
    world: Shared,
    opened: bool,
    closed: bool,
    /// The peer's FIN was told: to each handler of a connection at most once.
    eof: bool,
    /// Of a connection, not a handler without a socket.
    socket: bool,
}

impl Chaos {
    pub(super) fn new(me: usize, world: &Shared, socket: bool) -> Chaos {
        Chaos { me, world: world.clone(), opened: false, closed: false, eof: false, socket }
    }

    /// Checks what holds in each callback; the result leaves it.
    fn enter(&mut self, what: &str) -> Inside {
        let mut world = self.world.borrow_mut();
        if let Some(other) = world.inside {
            world.wrong.push(format!("{what} of {} inside a callback of {other}", self.me));
        }
        world.inside = Some(self.me);
        let first = what == "on_open" || what == "on_connect_fail";
        if first == self.opened {
            world.wrong.push(format!("{what} of {}, opened: {}", self.me, self.opened));
        }
        if self.closed {
            world.wrong.push(format!("{what} of {} after its on_close", self.me));
        }
        Inside(self.world.clone())
    }

    fn roll(&self, sides: u32) -> u32 {
        self.world.borrow_mut().rng.u32(0..sides)
    }

    pub(super) fn write(&self, cx: &mut Ctx<'_>, target: usize) {
        let (data, kind) = {
            let world = &mut *self.world.borrow_mut();
            let n = match world.rng.u32(0..20) {
                0 => world.rng.usize(0..20_000),
                1..5 => world.rng.usize(0..2000),
                _ => world.rng.usize(0..50),
            };
            let line = &mut world.lines[target];
            let start = line.written.len();
            let data: Vec<u8> = (start..start + n).map(|i| stamp(target, i)).collect();
            if line.closing || line.ended.is_some() {
                // Written to nobody.
            } else {
                line.written.extend(&data);
            }
            (data, world.rng.u32(0..3))
        };
        match kind {
            0 => cx.write_owned(data),
            1 => io::Write::write_all(&mut cx.out(), &data).unwrap(),
            _ => cx.write(&data),
        }
    }

    fn act(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        for _ in 0..self.roll(4) {
            match self.roll(40) {
                0..12 => self.write(cx, self.me),
                12..15 => self.reach_other(cx),
                15 | 16 => cx.pause_reads(),
                17..20 => cx.resume_reads(),
                20..23 => {
                    let after = Duration::from_micros(self.roll(3000).into());
                    let timer = match self.roll(8) {
                        0 => cx.set_periodic(after.max(Duration::from_micros(200))),
                        _ => cx.set_timer(after),
                    };
                    self.world.borrow_mut().lines[self.me].timers.push(timer);
                }
                23..26 => {
                    let timer = {
                        let world = &mut *self.world.borrow_mut();
                        let line = world.rng.usize(..world.lines.len());
                        let timers = &world.lines[line].timers;
                        if timers.is_empty() {
                            continue;
                        }
                        timers[world.rng.usize(..timers.len())]
                    };
                    match self.roll(2) {
                        0 => drop(cx.cancel_timer(timer)),
                        _ => drop(cx.reset_timer(timer, Duration::from_millis(1))),
                    }
                }
                26 => {
                    let traffic = match self.roll(3) {
                        0 => Traffic::Both,
                        1 => Traffic::Reads,
                        _ => Traffic::Writes,
                    };
                    let after = Duration::from_millis(self.roll(40).into());
                    cx.idle_timeout_by((after > Duration::ZERO).then_some(after), traffic);
                }
                27 if self.socket => {
                    cx.replace(Chaos::new(self.me, &self.world, true));
                }
                28 => {
                    let me = {
                        let mut world = self.world.borrow_mut();
                        if world.lines.len() > 40 {
                            continue;
                        }
                        world.lines.push(Line::default());
                        world.lines.len() - 1
                    };
                    let id = cx.add(Chaos::new(me, &self.world, false));
                    let early = self.roll(3);
                    let remote = cx.conn(id).map(|mut cx| {
                        if early == 0 {
                            cx.set_timer(Duration::ZERO);
                        }
                        cx.remote()
                    });
                    if let (1, Some(remote)) = (early, &remote) {
                        let _ = remote.notify(1);
                    }
                    let line = &mut self.world.borrow_mut().lines[me];
                    (line.id, line.remote) = (Some(id), remote);
                }
                29 => {
                    cx.close();
                    self.world.borrow_mut().lines[self.me].closing = true;
                }
                30 if self.roll(2) == 0 => {
                    cx.abort();
                    self.world.borrow_mut().lines[self.me].closing = true;
                }
                31 if self.roll(3) == 0 => return Err(io::Error::other("by chance")),
                32 if self.roll(6) == 0 => std::panic::panic_any("by chance"),
                33 => {
                    let remote = cx.remote();
                    self.world.borrow_mut().lines[self.me].remote = Some(remote);
                }
                34 | 35 => self.dial(cx),
                _ => {}
            }
        }
        Ok(())
    }

    fn dial(&mut self, cx: &mut Ctx<'_>) {
        let Some((me, to, options)) = new_dial(&self.world) else {
            return;
        };
        {
            let lines = &mut self.world.borrow_mut().lines;
            lines[me].again = if self.closed { lines[self.me].again + 1 } else { 0 };
        }
        let id = cx.connect(to, &options, Chaos::new(me, &self.world, true));
        let early = self.roll(3);
        if let Some(mut other) = cx.conn(id) {
            let remote = other.remote();
            {
                let line = &mut self.world.borrow_mut().lines[me];
                (line.id, line.remote) = (Some(id), Some(remote));
            }
            if early == 0 {
                self.write(&mut other, me);
            }
        }
    }

    fn reach_other(&mut self, cx: &mut Ctx<'_>) {
        let (target, id) = {
            let world = &mut *self.world.borrow_mut();
            let target = world.rng.usize(..world.lines.len());
            (target, world.lines[target].id)
        };
        let Some(mut other) = id.and_then(|id| cx.conn(id)) else {
            return;
        };
        match self.roll(8) {
            0 => {
                other.close();
                self.world.borrow_mut().lines[target].closing = true;
            }
            1 => {
                other.abort();
                self.world.borrow_mut().lines[target].closing = true;
            }
            2 => other.pause_reads(),
            3 => other.resume_reads(),
            4 => drop(other.set_timer(Duration::from_micros(100))),
            _ => self.write(&mut other, target),
        }
    }
}

/// Leaves the callback, also by way of a panic.
struct Inside(Shared);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.borrow_mut().inside = None;
    }
}

impl EvHandler for Chaos {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        let _inside = self.enter("on_open");
        self.opened = true;
        {
            let line = &mut self.world.borrow_mut().lines[self.me];
            line.opened += 1;
            line.id = Some(cx.id());
        }
        if self.socket {
            let remote = cx.remote();
            self.world.borrow_mut().lines[self.me].remote = Some(remote);
        }
        self.act(cx)
    }

    fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, _: io::Error) {
        let _inside = self.enter("on_connect_fail");
        self.closed = true;
        {
            let line = &mut self.world.borrow_mut().lines[self.me];
            line.failed += 1;
            line.ended = Some("failed");
        }
        cx.set_timer(Duration::ZERO);
        cx.write(b"to nobody");
        match self.roll(6) {
            0 => self.reach_other(cx),
            // A reactor that stops tells only a few of those who go on asking for more.
            1 if self.world.borrow().lines[self.me].again < 2 => self.dial(cx),
            _ => {}
        }
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let _inside = self.enter("on_read");
        let take = {
            let world = &mut *self.world.borrow_mut();
            let line = &mut world.lines[self.me];
            let same = line.sent.iter().zip(data.iter()).all(|(sent, got)| sent == got);
            if !same || data.len() > line.sent.len() || data.is_empty() {
                world.wrong.push(format!("{} read {} wrong bytes", self.me, data.len()));
            }
            if line.closing {
                world.wrong.push(format!("on_read of {} after its close()", self.me));
            }
            match world.rng.u32(0..4) {
                0 => 0,
                1 => world.rng.usize(0..=data.len()),
                _ => data.len(),
            }
        };
        self.act(cx)?;
        data[..take].fill(0xcc); // what is left is offered again, as it is left
        self.world.borrow_mut().lines[self.me].sent.drain(..take);
        Ok(take)
    }

    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        let _inside = self.enter("on_eof");
        {
            let world = &mut *self.world.borrow_mut();
            let line = &mut world.lines[self.me];
            let left = cx.unread();
            let again = std::mem::replace(&mut self.eof, true);
            if !line.peer_finished || again || left != line.sent.len() {
                let (me, sent) = (self.me, line.sent.len());
                let text = format!("on_eof of {me}, again: {again}, {left} of {sent} unread");
                world.wrong.push(text);
            }
            world.lines[self.me].sent.clear(); // what is left now is dropped
        }
        match self.roll(3) {
            0 => self.act(cx),
            _ => {
                cx.close();
                self.world.borrow_mut().lines[self.me].closing = true;
                Ok(())
            }
        }
    }

    fn on_drain(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        let _inside = self.enter("on_drain");
        self.act(cx)
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, _timer: TimerId) -> io::Result<()> {
        let _inside = self.enter("on_timeout");
        self.act(cx)
    }

    fn on_notify(&mut self, cx: &mut Ctx<'_>, _value: u64) -> io::Result<()> {
        let _inside = self.enter("on_notify");
        self.act(cx)
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        let _inside = self.enter("on_close");
        self.closed = true;
        {
            let line = &mut self.world.borrow_mut().lines[self.me];
            line.closed += 1;
            if !matches!(why, Close::Replaced) {
                line.ended = Some(why.kind());
            }
        }
        // Nothing that is asked of the own connection counts any more.
        cx.set_timer(Duration::ZERO);
        cx.pause_reads();
        cx.write(b"too late");
        cx.close();
        if self.roll(4) == 0 {
            self.reach_other(cx);
        }
    }
}
