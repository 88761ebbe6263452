//! The [`EvHandler`] of a WebSocket, of both roles: bytes in, callbacks of its handler, frames out.

use std::io;
use std::rc::Rc;

use super::close::{CloseCode, CloseFrame};
use super::connection::Connection;
use super::error::ProtocolError;
use super::frame::Role;
use super::handler::{Closed, Handler};
use super::rare::Rare;
use super::receiver::Event;
use super::remote::{Command, RING};
use super::sender::{Sender, State};
use super::shared::Shared;
use super::socket::{CONTROL_ROOM, WebSocket};
use crate::{Close, Ctx, EvHandler, TimerId};

/// Messages of a [`Remote`](super::Remote) that are sent in one turn, so that a busy thread does
/// not starve the other connections.
const COMMANDS_PER_TURN: usize = 1024;

pub(super) struct Endpoint<H> {
    handler: H,
    codec: Connection,
    shared: Rc<Shared>,
    rare: Option<Box<Rare>>,
    /// When bytes came last, in the reactor's milliseconds.
    seen_ms: u32,
    /// The subprotocol's place in the options, from 1.
    protocol: u8,
    role: Role,
}

const _: () = assert!(size_of::<Endpoint<()>>() <= 72, "an idle connection has to stay small");

/// A handler's view, of disjoint parts of the endpoint.
macro_rules! view {
    ($self:ident, $cx:expr, $sender:expr) => {
        WebSocket {
            cx: Ctx { core: $cx.core, net: $cx.net, id: $cx.id },
            sender: $sender,
            shared: &$self.shared,
            rare: &mut $self.rare,
            protocol: $self.protocol,
        }
    };
}

impl<H: Handler> Endpoint<H> {
    /// `place` is the subprotocol's in the options.
    pub(super) fn new(
        shared: Rc<Shared>,
        codec: Connection,
        handler: H,
        place: Option<usize>,
    ) -> Endpoint<H> {
        let protocol = place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or(0);
        let role = codec.role();
        Endpoint { handler, codec, shared, rare: None, seen_ms: 0, protocol, role }
    }

    fn call(&mut self, cx: &mut Ctx<'_>, run: impl FnOnce(&mut H, &mut WebSocket<'_>)) {
        run(&mut self.handler, &mut view!(self, cx, self.codec.sender()));
        self.after(cx);
    }

    /// What follows from the state after a callback.
    #[inline]
    fn after(&mut self, cx: &mut Ctx<'_>) {
        if self.codec.state() != State::Open || self.rare.is_some() {
            self.after_rare(cx);
        }
    }

    #[cold]
    fn after_rare(&mut self, cx: &mut Ctx<'_>) {
        let state = self.codec.state();
        if state == State::Open {
            return;
        }
        if matches!(state, State::CloseSent | State::Done) {
            self.shared.closing(cx.id());
        }
        let rare = self.rare.get_or_insert_default();
        if state == State::Done && (self.role == Role::Server || rare.error.is_some()) {
            return cx.close();
        }
        // A client waits for the server's FIN (RFC 6455 section 7.1.1).
        if rare.close_timer == TimerId::NONE
            && let Some(within) = self.shared.options.keep_alive.close_within
        {
            rare.close_timer = cx.set_timer(within);
        }
    }

    /// The peer broke the protocol: the close frame that says so is written.
    #[cold]
    fn failed(&mut self, cx: &mut Ctx<'_>, error: ProtocolError) {
        self.rare.get_or_insert_default().error = Some(error);
        self.after_rare(cx);
    }

    #[cold]
    fn peer_closes(handler: &mut H, ws: &mut WebSocket<'_>, frame: CloseFrame<'_>) {
        if !ws.is_open() {
            ws.shared.closing(ws.cx.id); // answered already: its peers send nothing behind that
        }
        ws.rare.get_or_insert_default().reason = frame.reason.to_owned();
        handler.on_close_frame(ws, frame.code.unwrap_or(CloseCode::NO_STATUS), frame.reason);
    }

    /// Any traffic is as good as a pong.
    #[cold]
    fn alive(&mut self, cx: &mut Ctx<'_>) {
        if let Some(rare) = &mut self.rare
            && rare.pong_timer != TimerId::NONE
        {
            cx.cancel_timer(rare.pong_timer);
            rare.pong_timer = TimerId::NONE;
            if rare.is_bare() {
                self.rare = None;
            }
        }
    }

    /// Pings if the peer was silent for long enough; else it is looked at again when that may be.
    fn look(&mut self, cx: &mut Ctx<'_>) {
        let idle_ms = self.shared.wheel.idle_ms;
        let silent_ms = cx.core.now_ms.wrapping_sub(self.seen_ms);
        let mut wait_ms = idle_ms.saturating_sub(silent_ms);
        if rests(cx) {
            wait_ms = idle_ms; // nothing of what the peer says is read
        } else if wait_ms == 0 {
            wait_ms = idle_ms;
            let rare = self.rare.get_or_insert_default();
            if rare.pong_timer == TimerId::NONE && self.codec.state() == State::Open {
                rare.pong_timer = cx.set_timer(self.shared.options.keep_alive.pong_within);
                let mut ws = view!(self, cx, self.codec.sender());
                let _ = ws.ping(b""); // it is open
            }
        }
        let shared = self.shared.clone();
        shared.watch(cx, wait_ms);
    }

    /// Sends what other threads have asked for, as long as the peer takes it.
    fn run_commands(&mut self, cx: &mut Ctx<'_>) {
        let Some(queue) = self.rare.as_ref().and_then(|rare| rare.remote.clone()) else {
            return;
        };
        for _ in 0..COMMANDS_PER_TURN {
            if cx.core.output_rests(cx.id()) {
                return self.shared.note_marks(cx); // goes on in `on_drain`
            }
            let Some(command) = queue.pop() else {
                return;
            };
            let mut ws = view!(self, cx, self.codec.sender());
            let sent = match &command {
                Command::Text(text) => ws.text(text),
                Command::Binary(data) => ws.binary(data),
                Command::Prepared(message) => ws.prepared(message),
                Command::Close(code, reason) => {
                    ws.close(*code, reason);
                    Ok(())
                }
            };
            if let Err(error) = sent {
                log::debug!("{:?}: a message of another thread is dropped: {error}", cx.id());
            }
        }
        let _ = cx.remote().notify_urgent(RING); // gone is as good
    }
}

/// Steps with the core's scratch buffer as the sink of what the codec answers.
macro_rules! step {
    ($self:ident, $cx:ident, $data:expr) => {
        match $cx.core.scratch_room($cx.id, CONTROL_ROOM) {
            Some(scratch) => $self.codec.step($data, scratch),
            None => {
                let mut out = Vec::new();
                let stepped = $self.codec.step($data, &mut out);
                if !out.is_empty() {
                    $cx.write(&out);
                    $self.shared.note_marks($cx);
                }
                stepped
            }
        }
    };
}

impl<H: Handler> EvHandler for Endpoint<H> {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.seen_ms = cx.core.now_ms;
        let shared = self.shared.clone();
        shared.watch(cx, shared.wheel.idle_ms);
        self.call(cx, |handler, ws| handler.on_open(ws));
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        self.seen_ms = cx.core.now_ms;
        if self.rare.is_some() {
            self.alive(cx);
        }
        let len = data.len();
        let mut used = 0;
        loop {
            let step = match step!(self, cx, &mut data[used..]) {
                Ok(step) => step,
                Err(error) => {
                    self.failed(cx, error);
                    return Ok(len);
                }
            };
            used += step.used;
            let Some(event) = step.event else {
                break;
            };
            let sender: &mut Sender = step.sender;
            let mut ws = view!(self, cx, sender);
            match event {
                Event::Text(text) => self.handler.on_text(&mut ws, text),
                Event::Binary(data) => self.handler.on_binary(&mut ws, data),
                Event::Ping(payload) => self.handler.on_ping(&mut ws, payload),
                Event::Pong(payload) => self.handler.on_pong(&mut ws, payload),
                Event::Close(frame) => Self::peer_closes(&mut self.handler, &mut ws, frame),
            }
            if used < len && rests(cx) {
                break; // what is left is offered again when it goes on
            }
        }
        self.after(cx);
        Ok(used)
    }

    /// Without the close handshake this is an abnormal end.
    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.close();
        Ok(())
    }

    /// The peer has read, or the wheel asks how long it was silent.
    fn on_drain(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        if self.shared.wheel.asks(cx.id()) {
            self.look(cx);
        }
        if self.shared.has_drained(cx) {
            self.run_commands(cx);
            self.call(cx, |handler, ws| handler.on_drain(ws));
        }
        Ok(())
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, timer: TimerId) -> io::Result<()> {
        let pong = self.rare.as_deref_mut().filter(|rare| timer == rare.pong_timer);
        if let Some(rare) = pong
            && rests(cx)
        {
            rare.pong_timer = TimerId::NONE; // the pong may be there unread: the wheel goes on
            return Ok(());
        }
        let rare = self.rare.as_deref();
        if rare.is_some_and(|rare| timer == rare.pong_timer || timer == rare.close_timer) {
            // A peer that takes nothing would not take the rest either.
            if cx.pending_output() > 0 {
                cx.abort()
            } else {
                cx.close()
            }
            return Ok(());
        }
        self.call(cx, |handler, ws| handler.on_timeout(ws, timer));
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Ctx<'_>, value: u64) -> io::Result<()> {
        if value == RING {
            self.run_commands(cx);
            self.after(cx);
        } else {
            self.call(cx, |handler, ws| handler.on_notify(ws, value));
        }
        Ok(())
    }

    fn on_shutdown(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.call(cx, |handler, ws| handler.on_shutdown(ws));
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, cause: &Close) {
        self.shared.forget(cx, matches!(cause, Close::Replaced));
        let rare = self.rare.take().unwrap_or_default();
        if let Some(queue) = &rare.remote {
            queue.close();
        }
        let closed = Closed {
            code: self.codec.sender().close_code().unwrap_or(CloseCode::ABNORMAL),
            reason: &rare.reason,
            clean: self.codec.state() == State::Done && rare.error.is_none(),
            error: rare.error,
            cause,
        };
        self.handler.on_close(cx, &closed);
    }

    fn name(&self) -> &'static str {
        self.handler.name()
    }
}

/// Whether reading rests, by the output's marks, by the handler's wish or for good.
fn rests(cx: &Ctx<'_>) -> bool {
    let conn = cx.core.conns.get(cx.id.0);
    conn.is_none_or(|conn| conn.reading_rests())
}
