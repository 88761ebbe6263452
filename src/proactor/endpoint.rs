//! The watcher's side of a connection: an event handler on its reactor, which keeps deadlines,
//! goes on with what others have left over, and closes.

use std::io;
use std::sync::Arc;

use super::link::{Link, Wake};
use super::operation::Fault;
use crate::close::Close;
use crate::ctx::Ctx;
use crate::handler::EvHandler;
use crate::timer::TimerId;

pub(crate) struct Endpoint<T> {
    link: Arc<Link<T>>,
    /// For the earliest deadline, or an earlier one that was met.
    timer: TimerId,
}

impl<T> Endpoint<T> {
    pub(crate) fn new(link: Arc<Link<T>>) -> Endpoint<T> {
        Endpoint { link, timer: TimerId::NONE }
    }

    fn look(&mut self, cx: &mut Ctx<'_>) {
        self.link.begin_look();
        let mut wake = Wake::new();
        let mut state = self.link.lock();
        if self.link.is_freed() {
            self.link.fail(&mut state, io::ErrorKind::ConnectionAborted, &mut wake);
            let eof = state.eof;
            if let Some(socket) = self.link.unwatch(&mut state) {
                cx.close_own(socket, eof);
            }
            drop(state);
            return self.link.settle(wake);
        }
        let now = cx.now();
        let due = state.armed.is_some_and(|at| at <= now);
        if due {
            state.forget_refusals(); // what has arrived still counts, told of or not
        }
        self.link.attempt(&mut state, due, &mut wake);
        if due {
            self.link.time_out(&mut state, now, &mut wake);
            state.arm_next();
        }
        if state.closed {
            drop(self.link.unwatch(&mut state));
            cx.close();
        } else if std::mem::take(&mut state.rearm) {
            cx.cancel_timer(self.timer);
            let left = state.armed.map(|at| at.saturating_duration_since(now));
            self.timer = left.map_or(TimerId::NONE, |left| cx.set_timer(left));
        }
        drop(state);
        self.link.settle(wake);
    }

    fn end(&mut self, why: impl Into<Fault>) {
        let mut wake = Wake::new();
        let mut state = self.link.lock();
        self.link.fail(&mut state, why, &mut wake);
        let socket = self.link.unwatch(&mut state);
        drop(state);
        drop(socket);
        self.link.settle(wake);
    }
}

impl<T: Send + 'static> EvHandler for Endpoint<T> {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.link.taken_in(cx.remote());
        self.look(cx);
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Ctx<'_>, _: u64) -> io::Result<()> {
        self.look(cx);
        Ok(())
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, _: TimerId) -> io::Result<()> {
        self.link.lock().rearm = true;
        self.look(cx);
        Ok(())
    }

    fn on_close(&mut self, _: &mut Ctx<'_>, why: &Close) {
        self.end(match why {
            Close::Io(error) | Close::Error(error) => Fault::from(error),
            _ => io::ErrorKind::ConnectionAborted.into(),
        });
    }
}

/// One that was never taken in, because its watcher had ended, has no `on_close`.
impl<T> Drop for Endpoint<T> {
    fn drop(&mut self) {
        self.end(io::ErrorKind::ConnectionAborted);
    }
}

/// Lives as long as the watcher's reactor: what completes as that ends is still handed over.
pub(crate) struct CloseAtEnd<T>(pub(crate) Arc<super::shared::Shared<T>>);

impl<T> Drop for CloseAtEnd<T> {
    fn drop(&mut self) {
        self.0.outbox.close();
    }
}
