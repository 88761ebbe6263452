//! The watcher's side of its connections: event handlers on its reactor, which go on with
//! operations that had to wait, keep their deadlines, and close.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::link::{Link, State, Wake};
use super::outbox::Outbox;
use crate::close::Close;
use crate::ctx::Ctx;
use crate::handler::EvHandler;
use crate::source::Readiness;
use crate::sys::Interest;
use crate::timer::TimerId;

/// One connection.
pub(crate) struct Endpoint<T> {
    link: Arc<Link<T>>,
}

impl<T> Endpoint<T> {
    pub(crate) fn new(link: Arc<Link<T>>) -> Endpoint<T> {
        Endpoint { link }
    }

    /// Goes on with what can go on, after `change`.
    fn go_on(
        &self,
        cx: &mut Ctx<'_>,
        change: impl FnOnce(&mut State<T>, &mut Wake<T>),
    ) -> io::Result<()> {
        self.link.look();
        let mut wake = Wake::new();
        let mut state = self.link.lock();
        change(&mut state, &mut wake);
        if self.link.is_freed() {
            self.link.fail(&mut state, io::ErrorKind::ConnectionAborted, &mut wake);
            let eof = state.eof;
            if let Some(socket) = state.socket.take() {
                drop(state);
                cx.close_lent(socket, eof);
            }
            return Ok(());
        }
        self.link.attempt_writes(&mut state, &mut wake);
        self.link.attempt_reads(&mut state, false, &mut wake);
        wake.cancel_timers(cx);
        if state.closed {
            self.unwatch(cx, &mut state);
            cx.close();
            return Ok(());
        }
        let now = cx.now();
        let State { reads, writes, .. } = &mut *state;
        reads.arm(|at| cx.set_timer(at.saturating_duration_since(now)));
        writes.arm(|at| cx.set_timer(at.saturating_duration_since(now)));
        let interest = state.interest();
        let watched = match &state.socket {
            Some(socket) => cx.watch_lent(socket.as_fd(), interest),
            None => Ok(()),
        };
        drop(state);
        if wake.more {
            self.link.tell(); // to go on in the next turn, when others have had theirs
        }
        watched
    }

    /// Takes the socket out of the poller, for a copy of it may live on elsewhere, and closes
    /// it.
    fn unwatch(&self, cx: &mut Ctx<'_>, state: &mut State<T>) {
        if let Some(socket) = state.socket.take() {
            // It is going to be closed in any case.
            let _ = cx.watch_lent(socket.as_fd(), Interest::UNREGISTERED);
        }
    }
}

impl<T: Send + 'static> EvHandler for Endpoint<T> {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.link.taken_in(cx.remote());
        self.go_on(cx, |_, _| {})
    }

    fn on_ready(&mut self, cx: &mut Ctx<'_>, ready: Readiness) -> io::Result<()> {
        self.go_on(cx, |state, _| self.link.ready(state, ready))
    }

    fn on_notify(&mut self, cx: &mut Ctx<'_>, _: u64) -> io::Result<()> {
        self.go_on(cx, |_, _| {})
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, timer: TimerId) -> io::Result<()> {
        self.go_on(cx, |state, wake| self.link.time_out(state, timer, wake))
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        let mut wake = Wake::new();
        let mut state = self.link.lock();
        let kind = match why {
            Close::Io(error) | Close::Error(error) => error.kind(),
            _ => io::ErrorKind::ConnectionAborted,
        };
        self.link.fail(&mut state, kind, &mut wake);
        self.unwatch(cx, &mut state);
    }
}

/// One that was never taken in, because its watcher had ended, has no `on_close`.
impl<T> Drop for Endpoint<T> {
    fn drop(&mut self) {
        let mut wake = Wake::new();
        let mut state = self.link.lock();
        self.link.fail(&mut state, io::ErrorKind::ConnectionAborted, &mut wake);
        state.socket = None;
    }
}

/// Serves the line of those who wait for the swap buffer: in order, as many as there is room
/// for, and nobody else is woken.
pub(crate) struct Porter<T> {
    outbox: Arc<Outbox<T>>,
}

impl<T> Porter<T> {
    pub(crate) fn new(outbox: Arc<Outbox<T>>) -> Porter<T> {
        Porter { outbox }
    }

    fn serve(&self, cx: &mut Ctx<'_>) {
        while let Some(link) = self.outbox.next_starved() {
            let mut wake = Wake::new();
            let mut state = link.lock();
            link.attempt_reads(&mut state, true, &mut wake);
            drop(state);
            wake.cancel_timers(cx);
            if wake.more {
                link.tell();
            }
        }
    }
}

impl<T: Send + 'static> EvHandler for Porter<T> {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.outbox.set_porter(cx.remote());
        self.serve(cx); // those who could not tell before
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Ctx<'_>, _: u64) -> io::Result<()> {
        self.serve(cx);
        Ok(())
    }
}

/// Lives as long as the watcher's reactor: what completes as that ends is still handed over.
pub(crate) struct CloseAtEnd<T>(pub(crate) Arc<Outbox<T>>);

impl<T> Drop for CloseAtEnd<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}
