//! The handlers that a pool has in the reactor: one for each connection, and one for its timer.

use std::io;

use super::{Pool, refuse, shutting_down};
use crate::close::Close;
use crate::ctx::Ctx;
use crate::handler::{ConnId, EvHandler};
use crate::timer::TimerId;

/// The handler of a pool's connection.
pub(super) struct Member {
    pub(super) pool: Pool,
    pub(super) inner: Option<Box<dyn EvHandler>>,
    pub(super) age: TimerId,
}

impl EvHandler for Member {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        if let Some(inner) = &mut self.inner {
            return inner.on_open(cx);
        }
        if let Some(left) = self.pool.ready(cx) {
            self.age = cx.set_timer(left);
        }
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Some(inner) => inner.on_read(cx, data),
            None => {
                // Nobody has asked for anything, so nobody knows what this answers.
                self.pool.evict(cx.id());
                cx.close();
                Ok(data.len())
            }
        }
    }

    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        match &mut self.inner {
            Some(inner) => inner.on_eof(cx),
            None => {
                self.pool.evict(cx.id());
                cx.close();
                Ok(())
            }
        }
    }

    fn on_drain(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.inner.as_mut().map_or(Ok(()), |inner| inner.on_drain(cx))
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, timer: TimerId) -> io::Result<()> {
        match &mut self.inner {
            Some(inner) => inner.on_timeout(cx, timer),
            None => {
                self.pool.evict(cx.id());
                cx.close();
                Ok(())
            }
        }
    }

    fn on_notify(&mut self, cx: &mut Ctx<'_>, value: u64) -> io::Result<()> {
        self.inner.as_mut().map_or(Ok(()), |inner| inner.on_notify(cx, value))
    }

    fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, error: io::Error) {
        self.pool.failed(cx.core, cx.id, error);
    }

    fn on_shutdown(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        match &mut self.inner {
            Some(inner) => inner.on_shutdown(cx),
            None => {
                self.pool.evict(cx.id());
                cx.close();
                Ok(())
            }
        }
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        cx.cancel_timer(self.age);
        let id = cx.id;
        let moved = matches!(why, Close::Replaced)
            && self
                .pool
                .0
                .borrow_mut()
                .connections
                .get_mut(&id)
                .is_some_and(|connection| std::mem::take(&mut connection.moving));
        if !moved {
            self.pool.ended(cx.core, id); // first: the handler's own code may panic
        }
        if let Some(inner) = &mut self.inner {
            inner.on_close(cx, why);
        }
    }

    fn name(&self) -> &'static str {
        self.inner.as_ref().map_or("an idle connection of a pool", |inner| inner.name())
    }
}

/// Has the pool's timer; it ends with the reactor.
pub(super) struct Keeper(pub(super) Pool);

impl EvHandler for Keeper {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.0.top_up(cx.core);
        Ok(())
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, _: TimerId) -> io::Result<()> {
        self.0.keep(cx.core);
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, _: &Close) {
        let state = &mut *self.0.0.borrow_mut();
        state.keeper = ConnId::NONE;
        for waiting in state.waiting.drain(..) {
            refuse(cx.core, waiting.handler, shutting_down());
        }
    }
}
