//! One connection: bytes in, callbacks of its service, answers out, in order.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use super::body::BodyKind;
use super::exchange::Exchange;
use super::field::Fields;
use super::head::{Head, HeadDecoder, HeaderSlots};
use super::options::{Begun, Shared};
use super::reject::Reject;
use super::request::{Reply, Request};
use super::respond::{Progress, Response};
use super::responder::RESPONDED;
use super::response::refuse;
use super::service::Service;
use super::status::Status;
use crate::conn::Flags;
use crate::core::IDLE_MAX;
use crate::{Close, Ctx, EvHandler, TimerId};

/// Calls of `on_drain` in one turn; a peer as fast as we are must not starve the others.
const DRAINS_PER_TURN: usize = 64;

/// The [`EvHandler`] of an HTTP/1.1 connection; made by
/// [`Http1::connection`](super::Http1::connection).
pub struct Connection<S> {
    pub(super) service: S,
    pub(super) shared: Rc<Shared>,
    /// A request whose body or answer is under way. An idle connection has none.
    pub(super) exchange: Option<Box<Exchange>>,
    decoder: HeadDecoder,
    /// The end of what is awaited from the peer or from a responder. An idle connection has
    /// none: the reactor's wheel watches it.
    timer: TimerId,
    /// When the present request's first byte came, in the reactor's milliseconds; if `timer`.
    since_ms: u32,
    /// No further request is taken: the server shuts down, or the peer has sent its FIN.
    pub(super) last: bool,
}

const _: () = assert!(size_of::<Connection<()>>() <= 40, "an idle connection has to stay small");

/// A pass over what has arrived.
pub(super) struct Pass<'d> {
    pub(super) data: &'d [u8],
    pub(super) used: usize,
    /// Of the request that is being answered, for the case of a panic.
    pub(super) reply: Reply,
}

impl<'d> Pass<'d> {
    pub(super) fn rest(&self) -> &'d [u8] {
        &self.data[self.used..]
    }
}

impl<S: Service> Connection<S> {
    pub(super) fn new(service: S, shared: Rc<Shared>) -> Connection<S> {
        Connection {
            service,
            shared,
            exchange: None,
            decoder: HeadDecoder::default(),
            timer: TimerId::NONE,
            since_ms: 0,
            last: false,
        }
    }

    /// Answers what is complete, until something is to be waited for.
    fn take(&mut self, cx: &mut Ctx<'_>, pass: &mut Pass<'_>) {
        if self.exchange.is_some() && !self.receive(cx, pass) {
            return;
        }
        let mut slots = HeaderSlots::new();
        while pass.used < pass.data.len() {
            let rest = pass.rest();
            match self.decoder.decode(rest, &mut slots, &self.shared.options.limits) {
                Ok(Head::Complete { mut request, mut used }) => {
                    let mut head = rest;
                    loop {
                        pass.used += used;
                        if !self.answer(cx, pass, request, &head[..used]) {
                            return;
                        }
                        let last = &head[..used];
                        head = pass.rest();
                        let limits = &self.shared.options.limits;
                        match self.decoder.again(head, last, &request, limits) {
                            Some(next) => (request, used) = next,
                            None => break,
                        }
                    }
                }
                Ok(Head::Partial) => return self.await_head(cx),
                Err(reject) => {
                    refuse(cx, reject, &self.shared.date.borrow());
                    return cx.close();
                }
            }
        }
    }

    /// Answers one request, of which `head` are the bytes. True if the next can be looked at.
    #[inline]
    fn answer(
        &mut self,
        cx: &mut Ctx<'_>,
        pass: &mut Pass<'_>,
        request: Request<'_>,
        head: &[u8],
    ) -> bool {
        pass.reply = request.reply();
        if self.last {
            pass.reply.close();
        }
        let goes_on = if request.body_kind() == BodyKind::Empty {
            let mut res = Response::new(cx, &self.shared, pass.reply, Progress::Due, false);
            self.service.on_request(&request, &mut res);
            let (progress, reply) = res.into_parts();
            self.settle(cx, progress, reply)
        } else {
            self.with_body(cx, pass, request, head)
        };
        if self.timer != TimerId::NONE && self.exchange.is_none() {
            self.disarm(cx); // it was for this head
        }
        goes_on
    }

    /// What the callback of a request has left. True if the next request can be looked at.
    #[inline]
    pub(super) fn settle(&mut self, cx: &mut Ctx<'_>, progress: Progress, reply: Reply) -> bool {
        self.shared.begun.set(Begun::No);
        if matches!(progress, Progress::Done) && reply.keep_alive() {
            return !cx.core.output_rests(cx.id);
        }
        self.settle_rare(cx, progress, reply)
    }

    #[cold]
    fn settle_rare(&mut self, cx: &mut Ctx<'_>, progress: Progress, mut reply: Reply) -> bool {
        match progress {
            Progress::Done => {
                cx.close();
                false
            }
            Progress::Upgraded => false,
            Progress::Due => {
                log::error!("{} left a request unanswered", self.service.name());
                self.fail(cx, Status::INTERNAL_SERVER_ERROR, reply)
            }
            Progress::Awaited(_) => {
                self.put_exchange(cx, Exchange { reply, incoming: None, progress });
                self.arm(cx, self.request_left(cx));
                cx.pause_reads();
                false
            }
            Progress::Streaming(encoder) if !encoder.has_content() => {
                // Its head was all of it; what the service wrote on would never be sent.
                if encoder.end(cx) != Ok(true) {
                    reply.close();
                }
                self.settle(cx, Progress::Done, reply)
            }
            Progress::Streaming(_) => {
                self.put_exchange(cx, Exchange { reply, incoming: None, progress });
                self.drive(cx);
                if self.exchange.is_some() {
                    cx.pause_reads();
                }
                self.exchange.is_none() && !cx.core.output_rests(cx.id)
            }
        }
    }

    pub(super) fn put_exchange(&mut self, cx: &mut Ctx<'_>, exchange: Exchange) {
        if self.timer == TimerId::NONE {
            self.since_ms = cx.core.now_ms;
        }
        self.exchange = Some(Box::new(exchange));
    }

    /// Answers for the service. True if the next request can be looked at.
    pub(super) fn fail(&mut self, cx: &mut Ctx<'_>, status: Status, reply: Reply) -> bool {
        let mut res = Response::new(cx, &self.shared, reply, Progress::Due, false);
        res.send(status, Fields::NONE, b"");
        let (progress, reply) = res.into_parts();
        self.settle(cx, progress, reply)
    }

    /// Answers for the service, and closes; resets if an answer has begun.
    fn fail_and_close(&mut self, cx: &mut Ctx<'_>, status: Status, mut reply: Reply) {
        let progress = self.exchange.take().map_or(Progress::Due, |exchange| exchange.progress);
        match progress {
            Progress::Due | Progress::Awaited(_) => {
                reply.close();
                self.fail(cx, status, reply);
            }
            _ => cx.abort(),
        }
    }

    /// Runs a callback of the service with the answer under way, if there is one, and does what
    /// follows from it.
    pub(super) fn call(
        &mut self,
        cx: &mut Ctx<'_>,
        callback: impl FnOnce(&mut S, &mut Response<'_>),
    ) -> bool {
        let Some(exchange) = &mut self.exchange else {
            let mut res = Response::new(cx, &self.shared, Reply::refused(), Progress::Done, false);
            callback(&mut self.service, &mut res);
            return false;
        };
        let progress = std::mem::replace(&mut exchange.progress, Progress::Done);
        self.shared.begun.set(match progress {
            Progress::Streaming(_) => Begun::Partly,
            _ => Begun::No,
        });
        let closes = self.last || exchange.incoming.is_some();
        let mut res = Response::new(cx, &self.shared, exchange.reply, progress, closes);
        callback(&mut self.service, &mut res);
        let wrote = res.wrote;
        let (progress, reply) = res.into_parts();
        self.shared.begun.set(Begun::No);
        // The closing that follows from an unread body is no matter while no answer has begun.
        if !matches!(progress, Progress::Due | Progress::Awaited(_)) {
            exchange.reply = reply;
        }
        exchange.progress = progress;
        wrote
    }

    /// Ends the exchange if its answer is complete. True if it has.
    pub(super) fn end_if_done(&mut self, cx: &mut Ctx<'_>) -> bool {
        let Some(Exchange { progress: Progress::Done | Progress::Upgraded, reply, .. }) =
            self.exchange.as_deref()
        else {
            return false;
        };
        let keep_alive = reply.keep_alive() && !self.last;
        let upgraded = matches!(
            self.exchange.take().map(|exchange| exchange.progress),
            Some(Progress::Upgraded)
        );
        self.disarm(cx);
        if keep_alive || upgraded {
            cx.resume_reads();
        } else {
            cx.close();
        }
        true
    }

    /// Has the service write on, while it does and the peer takes it.
    fn drive(&mut self, cx: &mut Ctx<'_>) {
        for _ in 0..DRAINS_PER_TURN {
            if self.end_if_done(cx) || cx.core.output_rests(cx.id) {
                return;
            }
            if !self.call(cx, |service, res| service.on_drain(res)) {
                self.end_if_done(cx);
                return;
            }
        }
        cx.core.defer(cx.id, Flags::DRAIN_DUE);
    }

    /// Whether an answer is under way that the service can write on.
    fn is_streaming(&self) -> bool {
        match self.exchange.as_deref() {
            Some(Exchange { progress: Progress::Streaming(encoder), .. }) => encoder.has_content(),
            _ => false,
        }
    }

    /// The answer of a responder has come.
    fn responded(&mut self, cx: &mut Ctx<'_>) {
        let answer = match self.exchange.as_deref() {
            Some(Exchange { progress: Progress::Awaited(awaited), .. }) => awaited.take(),
            _ => None,
        };
        let Some(answer) = answer else {
            return; // of a request that was answered otherwise
        };
        self.call(cx, |_, res| {
            res.progress = Progress::Due;
            res.answer(answer);
        });
        self.end_if_done(cx);
    }

    /// Whether nothing has moved for so long that the connection is to end.
    fn is_stale(&self, cx: &Ctx<'_>) -> bool {
        let active = cx.core.conns.get(cx.id.0).map_or(0, |conn| conn.last_active);
        cx.core.now_ms.wrapping_sub(active) >= self.shared.idle_ms()
    }

    /// Runs what may call the service. A panic is answered.
    fn guard(
        &mut self,
        cx: &mut Ctx<'_>,
        pass: &mut Pass<'_>,
        run: impl FnOnce(&mut Self, &mut Ctx<'_>, &mut Pass<'_>),
    ) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| run(self, cx, pass))) {
            self.panicked(cx, pass.reply, &*payload);
        }
    }

    #[cold]
    fn panicked(&mut self, cx: &mut Ctx<'_>, reply: Reply, payload: &(dyn Any + Send)) {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("(no message)");
        log::error!("{} panicked on {:?}: {text}", self.service.name(), cx.id());
        match self.shared.begun.replace(Begun::No) {
            Begun::No => {
                let reply = self.exchange.take().map_or(reply, |exchange| exchange.reply);
                self.fail_and_close(cx, Status::INTERNAL_SERVER_ERROR, reply);
            }
            Begun::Partly => cx.abort(),
            Begun::Whole => cx.close(),
        }
    }

    fn guard_call(&mut self, cx: &mut Ctx<'_>, run: impl FnOnce(&mut Self, &mut Ctx<'_>)) {
        self.shared.refresh_date(cx);
        let mut pass = Pass { data: &[], used: 0, reply: Reply::refused() };
        self.guard(cx, &mut pass, |connection, cx, _| run(connection, cx));
    }
}

/// The times of a connection.
impl<S: Service> Connection<S> {
    #[cold]
    fn await_head(&mut self, cx: &mut Ctx<'_>) {
        if self.timer == TimerId::NONE {
            self.since_ms = cx.core.now_ms;
            self.arm(cx, self.shared.options.head_timeout);
        }
    }

    pub(super) fn arm(&mut self, cx: &mut Ctx<'_>, after: Duration) {
        if !cx.reset_timer(self.timer, after.min(IDLE_MAX)) {
            self.timer = cx.set_timer(after.min(IDLE_MAX));
        }
    }

    pub(super) fn disarm(&mut self, cx: &mut Ctx<'_>) {
        if self.timer != TimerId::NONE {
            cx.cancel_timer(self.timer);
            self.timer = TimerId::NONE;
        }
    }

    /// What is left of the time in which a request is to be answered.
    pub(super) fn request_left(&self, cx: &Ctx<'_>) -> Duration {
        let passed = cx.core.now_ms.wrapping_sub(self.since_ms);
        self.shared.options.request_timeout.saturating_sub(Duration::from_millis(passed.into()))
    }

    /// What is left of the time in which more of a body is to come.
    fn body_left(&self, cx: &Ctx<'_>) -> Duration {
        let active = cx.core.conns.get(cx.id.0).map_or(0, |conn| conn.last_active);
        let passed = cx.core.now_ms.wrapping_sub(active);
        let left = Duration::from_millis(passed.into());
        self.shared.options.body_timeout.saturating_sub(left).min(self.request_left(cx))
    }

    fn timed_out(&mut self, cx: &mut Ctx<'_>) {
        self.timer = TimerId::NONE;
        let Some(exchange) = self.exchange.as_deref() else {
            if self.decoder.is_partial() {
                self.fail_and_close(cx, Status::REQUEST_TIMEOUT, Reply::refused());
            }
            return;
        };
        let reply = exchange.reply;
        if exchange.incoming.is_none() {
            // A stream takes the time it takes; what is left is a responder.
            if matches!(exchange.progress, Progress::Awaited(_)) {
                self.fail_and_close(cx, Status::SERVICE_UNAVAILABLE, reply);
            }
            return;
        }
        match self.body_left(cx) {
            Duration::ZERO => self.fail_and_close(cx, Status::REQUEST_TIMEOUT, reply),
            left => self.arm(cx, left),
        }
    }

    pub(super) fn await_body(&mut self, cx: &mut Ctx<'_>) {
        self.arm(cx, self.body_left(cx));
    }
}

impl<S: Service> EvHandler for Connection<S> {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.shared.watch(cx);
        self.guard_call(cx, |connection, cx| connection.service.on_open(cx));
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        self.shared.refresh_date(cx);
        let mut pass = Pass { data, used: 0, reply: Reply::refused() };
        self.guard(cx, &mut pass, |connection, cx, pass| connection.take(cx, pass));
        Ok(pass.used)
    }

    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.last = true;
        match self.exchange.as_deref() {
            // It may still read: what was asked for is answered first.
            Some(Exchange { incoming: None, .. }) => {}
            _ => cx.close(),
        }
        Ok(())
    }

    /// The peer has read, or the wheel asks whether the connection is idle.
    fn on_drain(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        if self.is_stale(cx) {
            if cx.pending_output() > 0 {
                cx.abort(); // its peer reads nothing
            } else if self.exchange.is_none() && !self.decoder.is_partial() {
                cx.close();
            }
        } else if self.is_streaming() {
            self.guard_call(cx, Self::drive);
        }
        Ok(())
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, timer: TimerId) -> io::Result<()> {
        self.guard_call(cx, |connection, cx| {
            if timer == connection.timer {
                return connection.timed_out(cx);
            }
            connection.call(cx, |service, res| service.on_timeout(timer, res));
            connection.after_call(cx);
        });
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Ctx<'_>, value: u64) -> io::Result<()> {
        self.guard_call(cx, |connection, cx| {
            if value == RESPONDED {
                return connection.responded(cx);
            }
            connection.call(cx, |service, res| service.on_notify(value, res));
            connection.after_call(cx);
        });
        Ok(())
    }

    fn on_shutdown(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.last = true;
        if self.exchange.is_none() && !self.decoder.is_partial() {
            cx.close();
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        self.shared.unwatch(cx, matches!(why, Close::Replaced));
        self.exchange = None;
        self.service.on_close(cx, why);
    }

    fn name(&self) -> &'static str {
        self.service.name()
    }
}

impl<S: Service> Connection<S> {
    /// A callback of another source may have written on, or ended the answer.
    fn after_call(&mut self, cx: &mut Ctx<'_>) {
        if self.is_streaming() {
            self.drive(cx);
        } else {
            self.end_if_done(cx);
        }
    }

    /// Answers what cannot be read on; nothing behind it is parsed.
    pub(super) fn reject(&mut self, cx: &mut Ctx<'_>, reject: Reject) {
        match self.exchange.take().map(|exchange| exchange.progress) {
            None | Some(Progress::Due | Progress::Awaited(_)) => {
                refuse(cx, reject, &self.shared.date.borrow());
                cx.close();
            }
            Some(_) => cx.abort(), // an answer has begun
        }
    }
}
