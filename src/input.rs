//! What arrives on a stream: bytes, the peer's FIN, and ends noticed while nothing is read.

use std::io;

use crate::buf::Tail;
use crate::close::Close;
use crate::config::TAIL_COPY_MAX;
use crate::conn::Flags;
use crate::core::Core;
use crate::handler::ConnId;
use crate::reactor::Reactor;
use crate::sys::Event;

impl Reactor {
    pub(crate) fn stream_ready(&mut self, event: Event) {
        let id = event.id;
        let Some(conn) = self.dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        if conn.flags.any(Flags::LINGERING) {
            return self.discard(id);
        }
        if conn.out.is_some() && (event.writable || event.hup || event.error) {
            conn.flags.remove(Flags::BLOCKED);
            self.dispatcher.core.touch(id);
            self.dispatcher.settle();
        }
        let Some(conn) = self.dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        if !conn.reading_rests() {
            if event.error
                && !event.readable
                && let Some(error) = self.dispatcher.backend.take_error(id.index())
            {
                self.dispatcher.core.doom(id, Close::Io(error));
                self.dispatcher.settle();
            } else if event.readable || event.fin || event.hup || event.error {
                self.read(id);
            }
        } else if event.fin || event.hup || event.error {
            self.ended_while_resting(event);
        }
    }

    /// One `recv`, into the shared buffer behind what was left untaken, and `on_read`.
    fn read(&mut self, id: ConnId) {
        let dispatcher = &mut self.dispatcher;
        let Some(conn) = dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        if conn.flags.any(Flags::PAIRED) {
            return self.relay(id);
        }
        let mut tail = conn.take_tail();
        let kept = tail.len();
        // Half of the buffer stays free: a read of nothing would look like the peer's FIN.
        let copied = kept <= TAIL_COPY_MAX.min(self.read_buffer.len() / 2);
        let received = if copied {
            self.read_buffer[..kept].copy_from_slice(tail.bytes());
            dispatcher.backend.recv(id.index(), &mut self.read_buffer[kept..])
        } else {
            dispatcher.backend.recv_spare(id.index(), tail.reserve(kept))
        };
        let received = match received {
            Ok(0) => {
                conn.put_tail(tail);
                if conn.flags.any(Flags::OFFER_DUE) {
                    return; // what was left untaken comes first; the FIN is told again
                }
                return self.peer_finished(id);
            }
            Ok(n) => n,
            Err(error) => {
                conn.put_tail(tail);
                if error.kind() != io::ErrorKind::WouldBlock {
                    dispatcher.core.doom(id, Close::Io(error));
                    dispatcher.settle();
                }
                return;
            }
        };
        conn.received(dispatcher.core.now_ms);
        dispatcher.core.shared.counters.bytes_in.add(received as u64);
        let offered = kept + received;
        let data = if copied { &mut self.read_buffer[..offered] } else { tail.bytes_mut() };
        let Some(taken) = dispatcher.call(id, |handler, cx| handler.on_read(cx, data)) else {
            return dispatcher.settle();
        };
        if taken == offered && kept == 0 {
            return dispatcher.settle();
        }
        if taken <= offered && copied {
            tail.replace(&self.read_buffer[taken..offered]);
        } else if taken <= offered {
            tail.consume(taken);
        }
        keep_tail(&mut dispatcher.core, id, tail, taken, offered);
        dispatcher.settle();
    }

    /// Offers what was left untaken once more, nothing new having arrived.
    pub(crate) fn offer_tail(&mut self, id: ConnId) {
        if self.dispatcher.core.partner(id).is_some() {
            return self.relay_tail(id);
        }
        let dispatcher = &mut self.dispatcher;
        let Some(conn) = dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        let mut tail = conn.take_tail();
        if tail.is_empty() {
            return conn.put_tail(tail);
        }
        let offered = tail.len();
        let data = tail.bytes_mut();
        let taken = dispatcher.call(id, |handler, cx| handler.on_read(cx, data));
        if let Some(taken) = taken {
            tail.consume(taken.min(offered));
            keep_tail(&mut dispatcher.core, id, tail, taken, offered);
        }
        dispatcher.settle();
    }

    pub(crate) fn peer_finished(&mut self, id: ConnId) {
        let dispatcher = &mut self.dispatcher;
        if let Some(conn) = dispatcher.core.conns.get_mut(id.0) {
            // A send that meets a reset takes the error with it, and what is left looks like a
            // FIN. A broken pipe is another matter: the FIN came first.
            if let Some(error) = conn.take_send_error_but(io::ErrorKind::BrokenPipe) {
                dispatcher.core.doom(id, Close::Io(error));
                return dispatcher.settle();
            }
            conn.flags.insert(Flags::PEER_EOF);
            match dispatcher.core.partner(id) {
                Some(partner) => {
                    dispatcher.core.touch(id);
                    dispatcher.core.finish_output(partner);
                }
                None => drop(dispatcher.call(id, |handler, cx| handler.on_eof(cx))),
            }
            let core = &mut dispatcher.core;
            let leaves = core.detaching.iter().any(|(leaver, _)| *leaver == id);
            if let Some(conn) = core.conns.get_mut(id.0).filter(|_| !leaves) {
                conn.put_tail(Tail::default());
            }
        }
        dispatcher.settle();
    }

    /// The poller tells of an end while nothing is read: it is noticed, without a spin.
    fn ended_while_resting(&mut self, event: Event) {
        let dispatcher = &mut self.dispatcher;
        let id = event.id;
        if event.error
            && let Some(error) = dispatcher.backend.take_error(id.index())
        {
            dispatcher.core.doom(id, Close::Io(error));
            return dispatcher.settle();
        }
        let Some(conn) = dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        if conn.flags.any(Flags::PEER_EOF) && conn.flags.any(Flags::FIN_SENT) {
            // Both of its directions are over; the other side of the pair is not done yet.
            conn.flags.insert(Flags::SAW_HUP);
            dispatcher.core.touch(id);
            return dispatcher.settle();
        }
        if (event.hup || event.error) && conn.flags.any(Flags::PEER_EOF) {
            // Nobody is there to read an answer.
            dispatcher.core.doom(id, Close::Io(io::ErrorKind::BrokenPipe.into()));
            return dispatcher.settle();
        }
        if !conn.flags.any(Flags::ENDING)
            && conn.tail_len() == 0
            && dispatcher.backend.at_eof(id.index())
        {
            return self.peer_finished(id);
        }
        conn.flags.insert(Flags::SAW_FIN);
        conn.flags.set(Flags::SAW_HUP, event.hup || event.error);
        dispatcher.update_interest(id);
        dispatcher.settle();
    }

    /// Input of a connection that lingers: thrown away until the peer's FIN.
    fn discard(&mut self, id: ConnId) {
        let limit = self.dispatcher.core.config.linger_bytes_max;
        let received = self.dispatcher.backend.recv(id.index(), &mut self.read_buffer);
        let Some(conn) = self.dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        match received {
            Ok(n) if n > 0 => {
                let discarded = &mut conn.extra_mut().discarded;
                *discarded += n;
                if *discarded > limit {
                    self.dispatcher.release(id, false);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => self.dispatcher.release(id, false),
        }
    }
}

/// Keeps the tail that `on_read` left when it took `taken` of the bytes `offered`.
fn keep_tail(core: &mut Core, id: ConnId, tail: Tail, taken: usize, offered: usize) {
    let over = tail.len() > core.config.input_max;
    let Some(conn) = core.conns.get_mut(id.0) else {
        return;
    };
    if taken > offered {
        let message = format!("on_read claims {taken} of {offered} bytes");
        core.doom(id, Close::Error(io::Error::other(message)));
    } else if over {
        core.doom(id, Close::InputLimit);
    } else if !conn.flags.any(Flags::ENDING) {
        conn.put_tail(tail);
    }
}
