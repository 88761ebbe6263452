//! The state of one connection: what it is, what it waits for, what it still owes.

use std::io;
use std::sync::Arc;

use crate::addr::Addr;
use crate::buf::{Gauge, OutQueue, Tail};
use crate::config::SPLICE_MIN;
use crate::datagram_queue::Datagrams;
use crate::handler::ConnId;
use crate::remote::RemoteState;
use crate::sys::Interest;
use crate::timer;

/// What a slot of a reactor holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// A stream socket: TCP or Unix.
    Stream,
    /// A listening socket.
    Listener,
    /// A handler without a socket.
    Detached,
    /// A stream that is not connected yet.
    Connecting,
    /// The socket of one attempt to connect.
    Attempt,
    /// A descriptor of the user's.
    Source,
    /// A datagram socket: UDP or Unix.
    Datagram,
}

impl Kind {
    /// Whether it has a handler that counts as open.
    pub(crate) fn has_handler(self) -> bool {
        !matches!(self, Kind::Listener | Kind::Attempt)
    }

    /// Whether it takes bytes to send.
    pub(crate) fn has_output(self) -> bool {
        matches!(self, Kind::Stream | Kind::Connecting)
    }
}

/// A set of the facts below.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags(u32);

impl Flags {
    /// `on_open` was called, so `on_close` will be.
    pub(crate) const OPENED: Flags = Flags(1 << 0);
    /// In the reactor's list of connections to settle.
    pub(crate) const DIRTY: Flags = Flags(1 << 1);
    /// In the reactor's list of deferred work.
    pub(crate) const DEFERRED: Flags = Flags(1 << 2);
    /// The handler paused reading.
    pub(crate) const PAUSED: Flags = Flags(1 << 3);
    /// Output rose above its high mark and is not yet below the low one; reading rests.
    pub(crate) const ABOVE_HIGH: Flags = Flags(1 << 4);
    /// Output fell below its low mark and `on_drain` is due.
    pub(crate) const DRAIN_DUE: Flags = Flags(1 << 5);
    /// The tail is to be offered again without new input.
    pub(crate) const OFFER_DUE: Flags = Flags(1 << 6);
    /// The peer's FIN was read, so there is nothing more to read.
    pub(crate) const PEER_EOF: Flags = Flags(1 << 7);
    /// The poller told of a FIN while reading rested, with data before it.
    pub(crate) const SAW_FIN: Flags = Flags(1 << 8);
    /// The poller told of a hang-up, which cannot be masked, while reading rested.
    pub(crate) const SAW_HUP: Flags = Flags(1 << 9);
    /// A send failed: output is dropped, what has arrived is still delivered.
    pub(crate) const OUT_FAILED: Flags = Flags(1 << 10);
    /// `close()` was called: flush, then close.
    pub(crate) const CLOSING: Flags = Flags(1 << 11);
    /// In the list of connections to end at once.
    pub(crate) const DOOMED: Flags = Flags(1 << 12);
    /// The handler is gone; the FIN was sent and the peer's is awaited.
    pub(crate) const LINGERING: Flags = Flags(1 << 13);
    /// Only reads renew the idle timeout.
    pub(crate) const IDLE_READS: Flags = Flags(1 << 14);
    /// Only writes renew the idle timeout.
    pub(crate) const IDLE_WRITES: Flags = Flags(1 << 15);
    /// The kernel took less than it was offered, and has not told since that there is room.
    pub(crate) const BLOCKED: Flags = Flags(1 << 16);
    /// `on_open` is due.
    pub(crate) const OPEN_DUE: Flags = Flags(1 << 17);
    /// The peer's FIN was told to the handler before this one, and is to be told again.
    pub(crate) const EOF_DUE: Flags = Flags(1 << 18);
    /// Errors of datagrams are to be told.
    pub(crate) const ERRORS_DUE: Flags = Flags(1 << 19);
    /// Datagrams wait to be sent.
    pub(crate) const DATAGRAMS_WAIT: Flags = Flags(1 << 20);
    /// Reading goes on though output is above its high mark.
    pub(crate) const READS_BLOCKED: Flags = Flags(1 << 21);

    /// What is read goes to `Extra::partner`.
    pub(crate) const PAIRED: Flags = Flags(1 << 22);
    /// Output rose above its high mark, and the partner is not read.
    pub(crate) const PAIR_FULL: Flags = Flags(1 << 23);
    /// The partner's output is above its high mark; reading rests.
    pub(crate) const PAIR_PAUSED: Flags = Flags(1 << 24);
    /// The partner's peer sent its FIN: it is passed on behind the output.
    pub(crate) const FIN_DUE: Flags = Flags(1 << 25);
    /// The partner goes on only when all that waits is gone: it passes on through a pipe.
    pub(crate) const PAIR_SPLICED: Flags = Flags(1 << 27);
    /// That FIN was sent.
    pub(crate) const FIN_SENT: Flags = Flags(1 << 26);

    /// No more output is accepted.
    pub(crate) const OUTPUT_SHUT: Flags = Flags(
        Self::OUT_FAILED.0 | Self::CLOSING.0 | Self::DOOMED.0 | Self::LINGERING.0 | Self::FIN_DUE.0,
    );
    /// The handler gets nothing more; but while only CLOSING, its timers.
    pub(crate) const ENDING: Flags = Flags(Self::CLOSING.0 | Self::DOOMED.0 | Self::LINGERING.0);
    /// Reading rests until something is done about it.
    pub(crate) const RESTS: Flags =
        Flags(Self::PAUSED.0 | Self::ABOVE_HIGH.0 | Self::PAIR_PAUSED.0);
    /// No input is read, where blocked output does not matter.
    const READ_RESTS_BUT_FOR_OUTPUT: Flags =
        Flags(Self::PAUSED.0 | Self::PAIR_PAUSED.0 | Self::PEER_EOF.0 | Self::ENDING.0);
    /// No input is read.
    pub(crate) const READ_RESTS: Flags = Flags(Self::RESTS.0 | Self::PEER_EOF.0 | Self::ENDING.0);

    pub(crate) const fn any(self, of: Flags) -> bool {
        self.0 & of.0 != 0
    }

    pub(crate) fn insert(&mut self, flags: Flags) {
        self.0 |= flags.0;
    }

    pub(crate) fn remove(&mut self, flags: Flags) {
        *self = self.without(flags);
    }

    pub(crate) const fn without(self, flags: Flags) -> Flags {
        Flags(self.0 & !flags.0)
    }

    pub(crate) fn set(&mut self, flags: Flags, on: bool) {
        if on { self.insert(flags) } else { self.remove(flags) }
    }

    /// Removes `flags` and says whether any of them was there.
    pub(crate) fn take(&mut self, flags: Flags) -> bool {
        let was = self.any(flags);
        self.remove(flags);
        was
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

/// What few connections have, and most only for moments.
#[derive(Default)]
pub(crate) struct Extra {
    pub(crate) tail: Tail,
    pub(crate) remote: Option<Arc<RemoteState>>,
    /// The first error of a failed send.
    pub(crate) send_error: Option<io::Error>,
    /// Input discarded while lingering.
    pub(crate) discarded: usize,
    /// What a datagram socket has beside.
    pub(crate) datagrams: Option<Box<Datagrams>>,
    /// The other side of a paired connection; it counts while that flag is set.
    pub(crate) partner: ConnId,
    /// Reads of a paired connection that were large, since one that was not.
    pub(crate) large_reads: u8,
}

impl Extra {
    fn is_bare(&self) -> bool {
        self.tail.is_empty()
            && self.remote.is_none()
            && self.send_error.is_none()
            && self.datagrams.is_none()
            && self.partner == ConnId::NONE
    }
}

pub(crate) struct Conn {
    pub(crate) peer: Addr,
    pub(crate) out: Option<Box<OutQueue>>,
    extra: Option<Box<Extra>>,
    /// Head of the list of this connection's timers.
    pub(crate) timers: u32,
    /// Milliseconds since the reactor started, modulo 2^32, of the last traffic that counts.
    pub(crate) last_active: u32,
    /// The listener it came from or is; `NO_LISTENER` for the rest.
    pub(crate) listener: u16,
    pub(crate) flags: Flags,
    pub(crate) kind: Kind,
    /// What the poller is told to watch.
    pub(crate) interest: Interest,
}

/// The listener of a connection that was not accepted.
pub(crate) const NO_LISTENER: u16 = u16::MAX;

const _: () = assert!(size_of::<Option<Conn>>() <= 56, "an idle connection has to stay small");

impl Conn {
    pub(crate) fn new(kind: Kind, peer: Addr, listener: u16) -> Conn {
        Conn {
            peer,
            out: None,
            extra: None,
            timers: timer::NIL,
            last_active: 0,
            listener,
            flags: Flags::default(),
            kind,
            interest: Interest::UNREGISTERED,
        }
    }

    /// Open, reading, nothing queued and nothing else to see to.
    #[inline]
    pub(crate) fn is_ordinary(&self) -> bool {
        self.flags.without(Flags::IDLE_READS | Flags::IDLE_WRITES) == Flags::OPENED
            && self.out.is_none()
            && self.interest == Interest::READ
    }

    /// What the poller should watch, from the state alone.
    pub(crate) fn wanted_interest(&self) -> Interest {
        let flags = self.flags;
        if self.kind == Kind::Detached || flags.any(Flags::DOOMED | Flags::OPEN_DUE) {
            return Interest::UNREGISTERED;
        }
        if flags.any(Flags::LINGERING) {
            return Interest::READ;
        }
        let mut wanted = Interest::NONE;
        if self.kind == Kind::Datagram {
            for (flags_on, interest) in [
                (flags.any(Flags::DATAGRAMS_WAIT), Interest::WRITE),
                (!flags.any(Flags::PAUSED | Flags::CLOSING), Interest::READ),
            ] {
                if flags_on {
                    wanted |= interest;
                }
            }
            return wanted;
        }
        if self.out.is_some() {
            wanted |= Interest::WRITE;
        }
        if !self.reading_rests() {
            wanted |= Interest::READ;
        } else if flags.any(Flags::SAW_HUP) {
            return Interest::UNREGISTERED;
        } else if !flags.any(Flags::PEER_EOF | Flags::SAW_FIN) {
            wanted |= Interest::FIN;
        }
        wanted
    }

    /// Notes that the kernel took `n` bytes.
    #[inline]
    pub(crate) fn sent(&mut self, n: usize, now_ms: u32) {
        if n > 0 && !self.flags.any(Flags::IDLE_READS) {
            self.last_active = now_ms;
        }
    }

    /// Notes that bytes have come.
    #[inline]
    pub(crate) fn received(&mut self, now_ms: u32) {
        if !self.flags.any(Flags::IDLE_WRITES) {
            self.last_active = now_ms;
        }
    }

    /// Notes the length of a read of a paired connection.
    pub(crate) fn count_large(&mut self, n: usize) {
        let extra = self.extra_mut();
        extra.large_reads = if n >= SPLICE_MIN { extra.large_reads.saturating_add(1) } else { 0 };
    }

    /// Whether nothing is read for now.
    #[inline]
    pub(crate) fn reading_rests(&self) -> bool {
        let rests = match self.flags.any(Flags::READS_BLOCKED) {
            true => Flags::READ_RESTS_BUT_FOR_OUTPUT,
            false => Flags::READ_RESTS,
        };
        self.flags.any(rests)
    }

    /// Whether so little is queued that the partner may be read again.
    pub(crate) fn pair_drained(&self, output_low: usize) -> bool {
        match self.flags.any(Flags::PAIR_SPLICED) {
            true => self.out.is_none(),
            false => self.queued() <= output_low,
        }
    }

    /// Bytes queued because the kernel did not take them.
    pub(crate) fn queued(&self) -> usize {
        self.out.as_ref().map_or(0, |out| out.len())
    }

    pub(crate) fn queue(&mut self, total: &Gauge) -> &mut OutQueue {
        self.out.get_or_insert_with(|| Box::new(OutQueue::new(total)))
    }

    pub(crate) fn tail_len(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.tail.len())
    }

    pub(crate) fn extra(&self) -> Option<&Extra> {
        self.extra.as_deref()
    }

    pub(crate) fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub(crate) fn datagrams(&mut self) -> Option<&mut Datagrams> {
        self.extra.as_mut()?.datagrams.as_deref_mut()
    }

    pub(crate) fn take_tail(&mut self) -> Tail {
        self.extra.as_mut().map_or_else(Tail::default, |extra| std::mem::take(&mut extra.tail))
    }

    /// Keeps what was not taken; with nothing to keep, gives the memory back.
    pub(crate) fn put_tail(&mut self, tail: Tail) {
        if !tail.is_empty() {
            self.extra_mut().tail = tail;
        } else if let Some(extra) = &mut self.extra {
            extra.tail = tail;
            if extra.is_bare() {
                self.extra = None;
            }
        }
    }

    /// Output is dropped from now on; the first error is kept for the end.
    pub(crate) fn fail_output(&mut self, error: io::Error) {
        self.out = None;
        self.flags.remove(Flags::BLOCKED);
        self.flags.insert(Flags::OUT_FAILED);
        self.extra_mut().send_error.get_or_insert(error);
    }

    pub(crate) fn take_remote(&mut self) -> Option<Arc<RemoteState>> {
        self.extra.as_mut()?.remote.take()
    }

    /// The error of a failed send, unless it is of this kind.
    pub(crate) fn take_send_error_but(&mut self, kind: io::ErrorKind) -> Option<io::Error> {
        self.extra.as_mut()?.send_error.take_if(|error| error.kind() != kind)
    }

    pub(crate) fn take_send_error(&mut self) -> Option<io::Error> {
        self.extra.as_mut()?.send_error.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn(flags: Flags) -> Conn {
        let mut conn = Conn::new(Kind::Stream, Addr::NONE, NO_LISTENER);
        conn.flags = flags;
        conn
    }

    #[test]
    fn hard_cases_18_and_19_interest_is_a_function_of_state() {
        let idle = conn(Flags::default());
        assert!(idle.wanted_interest() == Interest::READ);
        let mut blocked = conn(Flags::default());
        blocked.queue(&Gauge::default()).push(b"x");
        assert!(blocked.wanted_interest() == Interest::READ | Interest::WRITE);
        blocked.out = None;
        assert!(blocked.wanted_interest() == Interest::READ);
        assert!(conn(Flags::PAUSED).wanted_interest() == Interest::FIN);
        assert!(conn(Flags::PAUSED | Flags::SAW_FIN).wanted_interest() == Interest::NONE);
        assert!(conn(Flags::PAUSED | Flags::SAW_HUP).wanted_interest() == Interest::UNREGISTERED);
        assert!(conn(Flags::PEER_EOF).wanted_interest() == Interest::NONE);
        assert!(conn(Flags::LINGERING | Flags::CLOSING).wanted_interest() == Interest::READ);
    }

    #[test]
    fn hard_case_22_what_is_emptied_is_freed() {
        let mut conn = conn(Flags::default());
        let mut tail = Tail::default();
        tail.replace(b"partial");
        conn.put_tail(tail);
        assert_eq!(conn.tail_len(), 7);
        let mut tail = conn.take_tail();
        tail.consume(7);
        conn.put_tail(tail);
        assert!(conn.extra.is_none());
    }
}
