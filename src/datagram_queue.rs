//! Datagrams on their way: what waits to be sent, what has come, what went wrong.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::addr::Addr;
use crate::close::Close;
use crate::config::{
    CHUNK_MAX, DATAGRAM_BATCH_MAX, DATAGRAM_ERRORS_MAX, FLUSHES_PER_TURN, SEGMENTS_MAX, UDP_MAX,
};
use crate::conn::{Conn, Flags, Kind};
use crate::core::Core;
use crate::datagram::{DatagramOptions, SLOT_MAX};
use crate::dispatch::Dispatcher;
use crate::handler::ConnId;
use crate::reactor::Reactor;
use crate::sys::Event;
use crate::sys::datagram::{self, Sending};
use crate::sys::listen::UnixPath;
use crate::timer::Purpose;

/// What a datagram socket has beside what every connection has.
pub(crate) struct Datagrams {
    options: DatagramOptions,
    /// Datagrams that wait, one behind the other; `start` bytes of them are sent.
    bytes: Vec<u8>,
    start: usize,
    waiting: VecDeque<(Addr, usize)>,
    errors: Vec<(io::Error, Addr)>,
    pub(crate) dropped: u64,
    /// The socket is one of IPv6.
    v6: bool,
    gso: bool,
    /// A Unix socket without a peer of its own: the poller says nothing of a full receiver.
    blind: bool,
    _path: Option<Arc<UnixPath>>,
}

impl Datagrams {
    pub(crate) fn new(
        options: DatagramOptions,
        v6: bool,
        unix: bool,
        peer: &Addr,
        path: Option<Arc<UnixPath>>,
    ) -> Datagrams {
        Datagrams {
            bytes: Vec::new(),
            start: 0,
            waiting: VecDeque::new(),
            errors: Vec::new(),
            dropped: 0,
            v6,
            gso: options.gso && !unix && datagram::CUTS_UP,
            blind: unix && *peer == Addr::NONE,
            options,
            _path: path,
        }
    }

    fn push(&mut self, to: &Addr, data: &[u8]) -> bool {
        if self.bytes.len() - self.start + data.len() > self.options.output_max
            || self.waiting.len() >= self.options.output_max
        {
            return false;
        }
        self.bytes.extend_from_slice(data);
        self.waiting.push_back((to.clone(), data.len()));
        true
    }

    /// The messages to send next: each a datagram, or several for one peer of one size.
    fn messages(&self) -> impl Iterator<Item = (Sending<'_>, usize)> {
        let (mut at, mut next) = (self.start, 0);
        std::iter::from_fn(move || {
            let (to, len) = self.waiting.get(next)?;
            let (from, mut count) = (at, 1);
            at += len;
            next += 1;
            while self.gso && *len > 0 && count < SEGMENTS_MAX {
                match self.waiting.get(next) {
                    Some((same, last))
                        if same == to
                            && *last > 0
                            && last <= len
                            && at + last - from <= UDP_MAX =>
                    {
                        at += last;
                        next += 1;
                        count += 1;
                        if last < len {
                            break;
                        }
                    }
                    _ => break,
                }
            }
            let segment = if count > 1 { *len as u16 } else { 0 };
            Some((Sending { to, data: &self.bytes[from..at], segment }, count))
        })
    }

    /// The first `n` datagrams are dealt with.
    fn advance(&mut self, n: usize) -> usize {
        let bytes: usize = self.waiting.drain(..n).map(|(_, len)| len).sum();
        self.start += bytes;
        if self.waiting.is_empty() {
            self.start = 0;
            self.bytes.clear();
            if self.bytes.capacity() > CHUNK_MAX {
                self.bytes = Vec::new();
            }
        } else if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        bytes
    }

    fn note(&mut self, error: io::Error, to: Addr) {
        if self.errors.len() < DATAGRAM_ERRORS_MAX {
            self.errors.push((error, to));
        }
    }
}

impl Core {
    pub(crate) fn is_datagram(&self, id: ConnId) -> bool {
        self.conns.get(id.0).is_some_and(|conn| conn.kind == Kind::Datagram)
    }

    /// Queues a datagram; it leaves when the present callbacks are over.
    pub(crate) fn send_to(&mut self, id: ConnId, to: &Addr, data: &[u8]) -> bool {
        let Some(conn) = self.conns.get_mut(id.0) else {
            return false;
        };
        if conn.flags.any(Flags::ENDING) {
            return false;
        }
        let Some(datagrams) = conn.datagrams() else {
            return false;
        };
        if !datagrams.push(to, data) {
            datagrams.dropped += 1;
            self.shared.counters.datagrams_dropped.add(1);
            return false;
        }
        conn.flags.insert(Flags::DATAGRAMS_WAIT);
        self.touch(id);
        true
    }
}

impl Dispatcher {
    /// Sends what waits, and computes what follows from the state.
    pub(crate) fn settle_datagrams(&mut self, id: ConnId) {
        self.flush_datagrams(id);
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return;
        };
        if conn.flags.any(Flags::DOOMED) {
            return;
        }
        if conn.flags.any(Flags::CLOSING) {
            if !conn.flags.any(Flags::DATAGRAMS_WAIT) {
                return self.core.doom(id, Close::Local);
            }
            let timeout = self.core.config.close_timeout;
            if self.core.timers.find(conn.timers, Purpose::Flush).is_none() {
                self.core.set_internal(id, Purpose::Flush, timeout, 0);
            }
        }
        self.update_interest(id);
    }

    /// Sends until nothing waits, the system takes no more, or the turn's share is used up.
    fn flush_datagrams(&mut self, id: ConnId) {
        for _ in 0..FLUSHES_PER_TURN {
            let Some(conn) = self.core.conns.get_mut(id.0) else {
                return;
            };
            if conn.flags.any(Flags::BLOCKED) || !conn.flags.any(Flags::DATAGRAMS_WAIT) {
                return;
            }
            let Some(datagrams) = conn.datagrams() else {
                return;
            };
            let Ok(fd) = self.backend.descriptor(id.index()) else {
                return;
            };
            let mut counts = [0; DATAGRAM_BATCH_MAX];
            let messages = datagrams.messages().zip(&mut counts).map(|((message, n), count)| {
                *count = n;
                message
            });
            let batches = datagrams.options.batches;
            match self.batch.send(fd, datagrams.v6, messages, batches) {
                Ok(sent) => {
                    let count = counts.iter().take(sent).sum();
                    let bytes = datagrams.advance(count);
                    let empty = datagrams.waiting.is_empty();
                    self.core.shared.counters.datagrams_out.add(count as u64);
                    self.core.shared.counters.bytes_out.add(bytes as u64);
                    conn.sent(bytes.max(1), self.core.now_ms);
                    conn.flags.set(Flags::DATAGRAMS_WAIT, !empty);
                }
                Err(error) => self.send_failed(id, error, counts[0]),
            }
        }
    }

    /// The first message was not taken, which may have another's error: those of earlier
    /// datagrams come first, and once (ip(7)).
    fn send_failed(&mut self, id: ConnId, error: io::Error, first: usize) {
        if let Some(conn) = self.core.conns.get_mut(id.0)
            && let Some(datagrams) = conn.datagrams()
            && error.kind() == io::ErrorKind::WouldBlock
            && !datagrams.blind
        {
            return conn.flags.insert(Flags::BLOCKED);
        }
        if error.kind() != io::ErrorKind::WouldBlock && self.note_errors(id) {
            return; // an earlier one's: try again
        }
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return;
        };
        let peer = conn.peer.clone();
        let Some(datagrams) = conn.datagrams() else {
            return;
        };
        if first > 1 {
            if is_earlier(&error) {
                datagrams.note(error, peer); // of a connected socket: try again
                return self.core.defer(id, Flags::ERRORS_DUE);
            }
            datagrams.gso = false; // not here, or not with this size: each on its own then
            return;
        }
        let to = datagrams.waiting.front().map_or(Addr::NONE, |(to, _)| to.clone());
        datagrams.advance(1);
        datagrams.dropped += 1;
        datagrams.note(error, if to == Addr::NONE { peer } else { to });
        let empty = datagrams.waiting.is_empty();
        conn.flags.set(Flags::DATAGRAMS_WAIT, !empty);
        self.core.shared.counters.datagrams_dropped.add(1);
        self.core.defer(id, Flags::ERRORS_DUE);
    }

    /// Takes the errors that wait in the system, to be told; whether there were any.
    fn note_errors(&mut self, id: ConnId) -> bool {
        let mut any = false;
        if let Some(conn) = self.core.conns.get_mut(id.0)
            && let Some(datagrams) = conn.datagrams()
            && let Ok(fd) = self.backend.descriptor(id.index())
        {
            datagram::take_errors(fd, |error, to| {
                any = true;
                datagrams.note(error, to);
            });
        }
        if any {
            self.core.defer(id, Flags::ERRORS_DUE);
        }
        any
    }

    /// Tells the handler of what went wrong with single datagrams.
    pub(crate) fn tell_errors(&mut self, id: ConnId) {
        let errors = match self.core.conns.get_mut(id.0).and_then(Conn::datagrams) {
            Some(datagrams) => std::mem::take(&mut datagrams.errors),
            None => return,
        };
        for (error, to) in errors {
            let conn = self.core.conns.get(id.0);
            if conn.is_none_or(|conn| conn.flags.any(Flags::ENDING)) {
                return;
            }
            self.call(id, |handler, cx| handler.on_datagram_error(cx, error, &to));
            self.settle();
        }
    }
}

/// Whether it is of a datagram that was sent before (ICMP), not of the one that is refused.
fn is_earlier(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}

impl Reactor {
    pub(crate) fn datagrams_ready(&mut self, event: Event) {
        let id = event.id;
        let dispatcher = &mut self.dispatcher;
        dispatcher.open_first(id);
        if event.error {
            if !dispatcher.note_errors(id)
                && let Some(error) = dispatcher.backend.take_error(id.index())
                && let Some(conn) = dispatcher.core.conns.get_mut(id.0)
            {
                let peer = conn.peer.clone();
                if let Some(datagrams) = conn.datagrams() {
                    datagrams.note(error, peer);
                }
            }
            dispatcher.tell_errors(id);
        }
        let Some(conn) = dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        if event.writable {
            conn.flags.remove(Flags::BLOCKED);
            dispatcher.core.touch(id);
            dispatcher.settle();
        }
        if event.readable {
            self.receive_datagrams(id);
        }
    }

    /// One batch of datagrams.
    fn receive_datagrams(&mut self, id: ConnId) {
        let dispatcher = &mut self.dispatcher;
        let Some(conn) = dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        if conn.flags.any(Flags::PAUSED | Flags::ENDING) {
            return;
        }
        let Some(datagrams) = conn.datagrams() else {
            return;
        };
        let options = &datagrams.options;
        let slot = if options.gro { SLOT_MAX } else { options.datagram_max };
        let slot = slot.min(self.read_buffer.len());
        let (batches, batch) = (options.batches, &mut dispatcher.batch);
        let received = dispatcher
            .backend
            .descriptor(id.index())
            .and_then(|fd| batch.receive(fd, &mut self.read_buffer, slot, batches));
        match received {
            Ok(()) => self.deliver_datagrams(id, slot),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                if !dispatcher.note_errors(id)
                    && let Some(conn) = dispatcher.core.conns.get_mut(id.0)
                {
                    let peer = conn.peer.clone();
                    if let Some(datagrams) = conn.datagrams() {
                        datagrams.note(error, peer);
                    }
                }
                dispatcher.tell_errors(id);
            }
        }
    }

    fn deliver_datagrams(&mut self, id: ConnId, slot: usize) {
        let dispatcher = &mut self.dispatcher;
        let received = std::mem::take(&mut dispatcher.batch.received);
        let mut parts = self.read_buffer.chunks_mut(slot);
        'all: for one in &received {
            let Some(data) = parts.next().and_then(|part| part.get_mut(..one.len)) else {
                break;
            };
            let joined = one.segment > 0 && one.segment < one.len;
            let size = if joined { one.segment } else { one.len.max(1) };
            let empty: &mut [u8] = &mut [];
            let single = if data.is_empty() { Some(empty) } else { None };
            for data in single.into_iter().chain(data.chunks_mut(size)) {
                let Some(conn) = dispatcher.core.conns.get_mut(id.0) else {
                    break 'all;
                };
                if conn.flags.any(Flags::ENDING) {
                    break 'all;
                }
                conn.received(dispatcher.core.now_ms);
                dispatcher.core.shared.counters.datagrams_in.add(1);
                dispatcher.core.shared.counters.bytes_in.add(data.len() as u64);
                dispatcher.call(id, |handler, cx| match one.truncated {
                    true => handler.on_datagram_truncated(cx, data, &one.from),
                    false => handler.on_datagram(cx, data, &one.from),
                });
                if dispatcher.core.has_work() {
                    dispatcher.settle();
                }
            }
        }
        dispatcher.batch.received = received;
        dispatcher.core.touch(id);
        dispatcher.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(gso: bool, sizes: &[(u16, usize)]) -> Datagrams {
        let options = DatagramOptions { gso, ..DatagramOptions::default() };
        let mut queue = Datagrams::new(options, false, false, &Addr::NONE, None);
        for &(port, len) in sizes {
            assert!(
                queue.push(
                    &std::net::SocketAddr::from(([127, 0, 0, 1], port)).into(),
                    &vec![7; len]
                )
            );
        }
        queue
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn shape(queue: &Datagrams) -> Vec<(usize, u16, usize)> {
        queue.messages().map(|(message, n)| (message.data.len(), message.segment, n)).collect()
    }

    #[test]
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn datagrams_of_one_size_for_one_peer_are_one_message() {
        let sizes = [(1, 100), (1, 100), (1, 60), (1, 100), (2, 100), (2, 0), (2, 5), (2, 6)];
        let joined = queue(true, &sizes);
        let expected = [(260, 100, 3), (100, 0, 1), (100, 0, 1), (0, 0, 1), (5, 0, 1), (6, 0, 1)];
        assert_eq!(shape(&joined), expected);
        assert_eq!(shape(&queue(false, &sizes)).len(), sizes.len());
        let many = queue(true, &[(1, 10); 100]);
        assert_eq!(shape(&many), [(640, 10, 64), (360, 10, 36)]);
        let large = queue(true, &[(1, 30_000); 3]);
        assert_eq!(shape(&large), [(60_000, 30_000, 2), (30_000, 0, 1)]);
    }

    #[test]
    fn the_queue_is_bounded_and_gives_its_memory_back() {
        let mut queue = queue(false, &[(1, 60_000); 17]);
        assert!(!queue.push(&Addr::NONE, &[0; 60_000]));
        assert!(queue.push(&Addr::NONE, &[]));
        assert_eq!(queue.advance(10), 600_000);
        assert!(queue.bytes.len() - queue.start == 7 * 60_000);
        queue.advance(8);
        assert_eq!((queue.bytes.capacity(), queue.start), (0, 0));
    }
}
