//! Two connections joined: what is read on one is written to the other.
//!
//! Each side has a flag for what the other waits for. Output of one side above the high mark
//! rests the reading of the other (`PAIR_PAUSED`), not its own: a peer that reads nothing may
//! still have much to say.
//!
//! Bytes go through the read buffer, or, once reads are large, through a pipe of the kernel that
//! does not copy them. What does not go through is queued as ever, so the pipe is empty between
//! two passes, and all the rest (marks, FINs, ends) sees no difference.

use std::io;

use bytes::Bytes;

use crate::close::Close;
use crate::config::{SPLICE_AFTER, SPLICE_MAX};
use crate::conn::{Flags, Kind};
use crate::core::Core;
use crate::ctx::Ctx;
use crate::dispatch::Dispatcher;
use crate::handler::ConnId;
use crate::reactor::Reactor;
use crate::sys::Backend;
use crate::sys::splice::Passed;

impl Ctx<'_> {
    /// Joins this connection with `other` of the same reactor: what is read on either side is
    /// written to the other from now on, without a call of `on_read`, `on_eof` or `on_drain`.
    /// What is left untaken or was written before goes first. Both sides are read again if they
    /// were paused.
    ///
    /// Above `Config::output_high` unsent bytes of one side, the other is not read, until
    /// `Config::output_low`. A FIN is passed on when what was before it is sent, and both sides
    /// end with [`Close::Peer`] when both directions are over. If one side ends otherwise, the
    /// other does too: closed after a flush if the end was in good order (`close`, an idle
    /// timeout), else aborted. A side that is detached leaves the other to its handler.
    /// Timers, idle timeouts, notifications and `on_close` stay what they are.
    ///
    /// False, and nothing is done, if either side is not a connected stream, is ending, is
    /// paired already, or cannot be written to any more.
    ///
    /// ```
    /// use std::io;
    /// use reev::{ConnId, ConnectOptions, Ctx, EvHandler};
    ///
    /// /// A client of the proxy, which is not read until its backend is there.
    /// struct Client;
    ///
    /// struct Backend {
    ///     client: ConnId,
    /// }
    ///
    /// impl EvHandler for Client {
    ///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
    ///         cx.pause_reads();
    ///         let client = cx.id();
    ///         cx.connect("127.0.0.1:7001", &ConnectOptions::default(), Backend { client });
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl EvHandler for Backend {
    ///     fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
    ///         if !cx.pair(self.client) {
    ///             cx.close(); // the client has gone
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, _error: io::Error) {
    ///         if let Some(mut client) = cx.conn(self.client) {
    ///             client.abort();
    ///         }
    ///     }
    /// }
    /// # let mut sim = reev::sim::Simulation::new(1);
    /// # let listener = sim.listen(|_peer| Client);
    /// # let client = sim.connect(listener);
    /// # client.send(b"hello");
    /// # sim.settle();
    /// # let backend = sim.outgoing().expect("an attempt").accept();
    /// # sim.settle();
    /// # assert_eq!(backend.receive(), b"hello");
    /// ```
    pub fn pair(&mut self, other: ConnId) -> bool {
        self.core.pair(self.net, self.id, other)
    }
}

impl Core {
    fn can_pair(&self, id: ConnId) -> bool {
        let unfit = Flags::ENDING | Flags::OUT_FAILED | Flags::PAIRED;
        self.conns.get(id.0).is_some_and(|conn| {
            conn.kind == Kind::Stream && conn.flags.any(Flags::OPENED) && !conn.flags.any(unfit)
        })
    }

    fn pair(&mut self, net: &mut Backend, id: ConnId, other: ConnId) -> bool {
        if id == other || !self.can_pair(id) || !self.can_pair(other) {
            return false;
        }
        let sides = [(id, other), (other, id)];
        for (side, partner) in sides {
            if let Some(conn) = self.conns.get_mut(side.0) {
                conn.extra_mut().partner = partner;
                conn.flags.insert(Flags::PAIRED);
            }
        }
        for (side, _) in sides {
            self.resume_reads(side);
            let conn = self.conns.get_mut(side.0);
            if conn.is_some_and(|conn| conn.flags.take(Flags::ABOVE_HIGH)) {
                self.reading_resumed(side);
                self.pair_full(side);
            }
            self.defer(side, Flags::OFFER_DUE);
            self.touch(side);
        }
        for (side, partner) in sides {
            if let Some(conn) = self.conns.get_mut(side.0)
                && conn.flags.any(Flags::PEER_EOF)
            {
                let tail = conn.take_tail(); // within `on_eof`, or there is none
                self.write_owned(net, partner, Bytes::copy_from_slice(tail.bytes()));
                self.finish_output(partner);
            }
        }
        true
    }

    /// The other side of a paired connection.
    pub(crate) fn partner(&self, id: ConnId) -> Option<ConnId> {
        let conn = self.conns.get(id.0).filter(|conn| conn.flags.any(Flags::PAIRED))?;
        conn.extra().map(|extra| extra.partner)
    }

    /// `id` owes so much that its partner is to be read no more.
    pub(crate) fn pair_full(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.flags.insert(Flags::PAIR_FULL);
        }
        if let Some(partner) = self.partner(id)
            && let Some(conn) = self.conns.get_mut(partner.0)
            && !conn.flags.any(Flags::PAIR_PAUSED)
        {
            self.shared.counters.paused.add(u64::from(!conn.flags.any(Flags::RESTS)));
            conn.flags.insert(Flags::PAIR_PAUSED);
            self.touch(partner);
        }
    }

    /// `id` owes little again.
    pub(crate) fn pair_drained(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.flags.remove(Flags::PAIR_FULL | Flags::PAIR_SPLICED);
        }
        if let Some(partner) = self.partner(id) {
            self.pair_resume(partner);
        }
    }

    fn pair_resume(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id.0)
            && conn.flags.take(Flags::PAIR_PAUSED)
        {
            self.reading_resumed(id);
        }
    }

    /// Nothing more will be written to `id`: a FIN follows what is queued.
    pub(crate) fn finish_output(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.flags.insert(Flags::FIN_DUE);
        }
        self.touch(id);
    }

    /// `id` ends: its partner goes the same way.
    pub(crate) fn end_pair(&mut self, id: ConnId, why: &Close) {
        let Some(partner) = self.partner(id) else {
            return;
        };
        for side in [id, partner] {
            self.pair_resume(side);
            if let Some(conn) = self.conns.get_mut(side.0) {
                conn.flags.remove(Flags::PAIRED | Flags::PAIR_FULL | Flags::PAIR_SPLICED);
            }
        }
        match why {
            Close::Stopped | Close::Detached => {}
            Close::IdleTimeout => self.close(partner),
            why if why.is_clean() => self.close(partner),
            _ => self.doom(partner, Close::Aborted),
        }
    }
}

impl Dispatcher {
    /// Sends the FIN that is due, if all before it is sent; true if that ends the pair.
    pub(crate) fn settle_pair(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.core.conns.get_mut(id.0) else {
            return false;
        };
        let due = conn.flags.any(Flags::FIN_DUE) && !conn.flags.any(Flags::FIN_SENT);
        if !due || conn.out.is_some() || conn.flags.any(Flags::OUT_FAILED) {
            return false;
        }
        conn.flags.insert(Flags::FIN_SENT);
        self.backend.shutdown_write(id.index());
        let Some(partner) = self.core.partner(id) else {
            return false;
        };
        let over = [id, partner].iter().all(|side| {
            let conn = self.core.conns.get(side.0);
            conn.is_some_and(|conn| {
                conn.flags.any(Flags::FIN_SENT) && conn.flags.any(Flags::PEER_EOF)
            })
        });
        if over {
            self.core.doom(id, Close::Peer);
            self.core.doom(partner, Close::Peer);
        }
        over
    }

    /// Whether what comes on `id` is worth a pipe, and overtakes nothing there.
    fn splices(&self, id: ConnId, partner: ConnId) -> bool {
        let conn = self.core.conns.get(id.0).and_then(|conn| conn.extra());
        let other = self.core.conns.get(partner.0);
        conn.is_some_and(|extra| extra.large_reads >= SPLICE_AFTER)
            && other.is_some_and(|conn| conn.out.is_none() && !conn.flags.any(Flags::OUTPUT_SHUT))
    }

    /// Writes `data` to `partner` as if its handler did.
    fn pass_on(&mut self, partner: ConnId, data: &[u8]) {
        self.core.begin(partner);
        self.core.write(&mut self.backend, partner, data);
        self.settle();
    }
}

impl Reactor {
    /// One `recv` of a paired connection, straight to the other side.
    pub(crate) fn relay(&mut self, id: ConnId) {
        self.relay_tail(id);
        let dispatcher = &mut self.dispatcher;
        let Some(partner) = dispatcher.core.partner(id) else {
            return;
        };
        if dispatcher.splices(id, partner) && self.splice(id, partner) {
            return;
        }
        let dispatcher = &mut self.dispatcher; // or else by way of the read buffer
        let received = dispatcher.backend.recv(id.index(), &mut self.read_buffer);
        let Some(conn) = dispatcher.core.conns.get_mut(id.0) else {
            return;
        };
        match received {
            Ok(0) => self.peer_finished(id),
            Ok(n) => {
                conn.received(dispatcher.core.now_ms);
                conn.count_large(n);
                dispatcher.core.shared.counters.bytes_in.add(n as u64);
                dispatcher.pass_on(partner, &self.read_buffer[..n]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                dispatcher.core.doom(id, Close::Io(error));
                dispatcher.settle();
            }
        }
    }

    /// One pass through the pipe. False: it does not work here, and nothing is done.
    fn splice(&mut self, id: ConnId, partner: ConnId) -> bool {
        let Dispatcher { backend, core, .. } = &mut self.dispatcher;
        let Core { conns, queued, shared, now_ms, .. } = core;
        let Some(other) = conns.get_mut(partner.0) else {
            return false;
        };
        let passed = backend.descriptor(id.index()).and_then(|from| {
            let to = backend.descriptor(partner.index())?;
            self.splicer.pass(from, to, SPLICE_MAX, |piece| other.queue(queued).push(piece))
        });
        let Passed { taken, sent, error } = match passed {
            Ok(Passed { taken: 0, .. }) => {
                self.peer_finished(id);
                return true;
            }
            Ok(passed) => passed,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return true,
                io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput => return false,
                _ => {
                    core.doom(id, Close::Io(error));
                    self.dispatcher.settle();
                    return true;
                }
            },
        };
        shared.counters.bytes_in.add(taken as u64);
        shared.counters.bytes_out.add(sent as u64);
        shared.counters.bytes_spliced.add(sent as u64);
        other.sent(sent, *now_ms);
        let all = sent == taken;
        if let Some(error) = error {
            other.fail_output(error);
        } else if !all {
            other.flags.insert(Flags::BLOCKED | Flags::PAIR_SPLICED);
        }
        if let Some(conn) = conns.get_mut(id.0) {
            conn.received(*now_ms);
            conn.count_large(taken);
        }
        if !all {
            core.pair_full(partner);
            core.touch(partner);
            self.dispatcher.settle();
        }
        true
    }

    /// Passes on what a handler had left untaken.
    pub(crate) fn relay_tail(&mut self, id: ConnId) {
        let dispatcher = &mut self.dispatcher;
        if let Some(partner) = dispatcher.core.partner(id)
            && let Some(conn) = dispatcher.core.conns.get_mut(id.0)
            && conn.tail_len() > 0
        {
            let tail = conn.take_tail();
            dispatcher.pass_on(partner, tail.bytes());
        }
    }
}
