//! Output: written to the scratch buffer or sent at once, queued when the kernel takes no more,
//! flushed, and held to its marks.

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::Range;

use bytes::Bytes;

use crate::addr::Addr;
use crate::buf::OutQueue;
use crate::close::Close;
use crate::config::{SCRATCH_MAX, SENDFILE_MAX, UNFLUSHED_MAX};
use crate::conn::Flags;
use crate::core::Core;
use crate::handler::ConnId;
use crate::sys::Backend;

impl Core {
    /// Recomputes how far small writes of the current connection may go unexamined: to the
    /// scratch buffer's bound or the high mark, whichever is nearer.
    pub(crate) fn limit_scratch(&mut self) {
        self.scratch_limit = match self.conns.get(self.current.0) {
            Some(conn) if conn.kind.has_output() && !conn.flags.any(Flags::OUTPUT_SHUT) => {
                self.config.output_high.saturating_sub(conn.queued()).min(SCRATCH_MAX)
            }
            _ => 0,
        };
    }

    #[inline]
    pub(crate) fn write(&mut self, net: &mut Backend, id: ConnId, data: &[u8]) {
        if id == self.current
            && self.scratch.len() + data.len() <= self.scratch_limit
            && data.len() < self.config.direct_write_min
        {
            self.scratch.extend_from_slice(data);
        } else {
            self.write_examined(net, id, data);
        }
    }

    /// The scratch buffer, if `len` more bytes for `id` may go there unexamined.
    #[cfg(feature = "http1")]
    #[inline]
    pub(crate) fn scratch_room(&mut self, id: ConnId, len: usize) -> Option<&mut Vec<u8>> {
        let fits = id == self.current && self.scratch.len() + len <= self.scratch_limit;
        fits.then_some(&mut self.scratch)
    }

    /// Whether `id` owes so much that nothing should be read for it, or accepts nothing more.
    #[cfg(feature = "http1")]
    #[inline]
    pub(crate) fn output_rests(&self, id: ConnId) -> bool {
        let rests = Flags::ABOVE_HIGH | Flags::OUTPUT_SHUT;
        self.scratch_limit == 0 && self.conns.get(id.0).is_none_or(|conn| conn.flags.any(rests))
    }

    /// A write that is large, crosses a mark, or is for another connection.
    fn write_examined(&mut self, net: &mut Backend, id: ConnId, data: &[u8]) {
        if self.is_datagram(id) {
            self.send_to(id, &Addr::NONE, data);
            return;
        }
        if data.is_empty() || !self.accepts_output(id) {
            return;
        }
        if id != self.current {
            self.queue_of(net, id, |queue| queue.push(data));
        } else if self.send_now(net, data) {
            // all of it was taken, or the output failed
        } else if data.len() < self.config.direct_write_min
            && self.scratch.len() + data.len() <= SCRATCH_MAX
        {
            self.scratch.extend_from_slice(data);
        } else {
            self.spill_scratch();
            self.queue_of(net, id, |queue| queue.push(data));
        }
        self.judge(net, id);
    }

    pub(crate) fn write_owned(&mut self, net: &mut Backend, id: ConnId, data: Bytes) {
        if data.len() < self.config.direct_write_min && id == self.current {
            return self.write(net, id, &data);
        }
        if self.is_datagram(id) {
            self.send_to(id, &Addr::NONE, &data);
            return;
        }
        if data.is_empty() || !self.accepts_output(id) {
            return;
        }
        if id == self.current {
            if let Some(sent) = self.send_direct(net, &data) {
                if sent < data.len() {
                    self.queue_of(net, id, |queue| queue.push_shared(data.slice(sent..)));
                }
                return self.judge(net, id);
            }
            self.spill_scratch();
        }
        self.queue_of(net, id, |queue| queue.push_shared(data));
        self.judge(net, id);
    }

    /// Queues a part of a file behind what was written before.
    pub(crate) fn send_file(
        &mut self,
        net: &mut Backend,
        id: ConnId,
        file: File,
        part: Range<u64>,
    ) {
        if part.is_empty() || !self.accepts_output(id) {
            return;
        }
        if id == self.current {
            self.spill_scratch();
        }
        self.queue_of(net, id, |queue| queue.push_file(file, part));
        self.judge(net, id);
    }

    /// Whether what is written for `id` goes anywhere.
    pub(crate) fn accepts_output(&self, id: ConnId) -> bool {
        self.conns
            .get(id.0)
            .is_some_and(|conn| conn.kind.has_output() && !conn.flags.any(Flags::OUTPUT_SHUT))
    }

    /// Queues output. That for another connection than the current is flushed when the callback is
    /// over, or when many more have been written to: so few queues are in use that they are in the
    /// cache.
    fn queue_of(&mut self, net: &mut Backend, id: ConnId, push: impl FnOnce(&mut OutQueue)) {
        let Some(conn) = self.conns.get_mut(id.0) else {
            return;
        };
        let first = conn.out.is_none();
        push(conn.queue(&self.queued));
        self.touch(id);
        if first && id != self.current {
            self.unflushed.push_back(id);
            if self.unflushed.len() > UNFLUSHED_MAX
                && let Some(longest) = self.unflushed.pop_front()
            {
                self.flush(net, longest);
            }
        }
    }

    /// Sends the scratch and `data` at once if nothing waits before them: `data` is large, the
    /// scratch is full, or a mark is near, which judges only what the system did not take. True
    /// if `data` is dealt with.
    fn send_now(&mut self, net: &mut Backend, data: &[u8]) -> bool {
        let Some(sent) = self.send_direct(net, data) else {
            return false;
        };
        if sent < data.len() {
            self.queue_of(net, self.current, |queue| queue.push(&data[sent..]));
        }
        true
    }

    /// One system call for the scratch and `data`, without a copy. Gives the bytes of `data`
    /// that are dealt with, the scratch being empty then; None if output waits already.
    fn send_direct(&mut self, net: &mut Backend, data: &[u8]) -> Option<usize> {
        let index = self.current.index();
        let conn = self.conns.get_mut(self.current.0)?;
        if conn.out.is_some() {
            return None;
        }
        let scratched = self.scratch.len();
        let sent = if scratched == 0 {
            net.send(index, data)
        } else {
            net.send_vectored(index, &[IoSlice::new(&self.scratch), IoSlice::new(data)])
        };
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => {
                conn.fail_output(error);
                self.scratch.clear();
                return Some(data.len());
            }
        };
        conn.sent(sent, self.now_ms);
        self.shared.counters.bytes_out.add(sent as u64);
        if sent < scratched + data.len() {
            conn.flags.insert(Flags::BLOCKED);
        }
        if sent < scratched {
            conn.queue(&self.queued).push(&self.scratch[sent..]);
        }
        self.scratch.clear();
        Some(sent.saturating_sub(scratched))
    }

    /// Moves the scratch behind what waits already.
    pub(crate) fn spill_scratch(&mut self) {
        if !self.scratch.is_empty()
            && let Some(conn) = self.conns.get_mut(self.current.0)
        {
            conn.queue(&self.queued).push(&self.scratch);
        }
        self.scratch.clear();
    }

    /// Applies the marks to what `id` owes after a write. What nobody has tried to send is no
    /// proof of a slow peer, so that comes first.
    fn judge(&mut self, net: &mut Backend, id: ConnId) {
        if self.conns.get(id.0).is_some_and(|conn| conn.queued() > self.config.output_high) {
            self.flush(net, id);
        }
        self.check_marks(id);
    }

    /// Applies the high mark and the maximum to what `id` owes now.
    pub(crate) fn check_marks(&mut self, id: ConnId) {
        let pending = self.pending_output(id);
        if pending > self.config.output_max {
            self.doom(id, Close::SlowConsumer);
        } else if pending > self.config.output_high && self.partner(id).is_some() {
            self.pair_full(id);
        } else if pending > self.config.output_high
            && let Some(conn) = self.conns.get_mut(id.0)
        {
            self.shared.counters.paused.add(u64::from(!conn.flags.any(Flags::RESTS)));
            conn.flags.insert(Flags::ABOVE_HIGH);
        }
        if id == self.current {
            self.limit_scratch();
        }
    }

    /// Sends queued output until the kernel takes no more, all is gone, or it has had its share
    /// of the turn.
    pub(crate) fn flush(&mut self, net: &mut Backend, id: ConnId) {
        for _ in 0..self.config.sends_per_turn {
            let Some(conn) = self.conns.get_mut(id.0) else {
                return;
            };
            if conn.flags.any(Flags::BLOCKED) {
                return;
            }
            let Some(out) = conn.out.as_deref_mut() else {
                return;
            };
            let slices = out.slices();
            if slices.is_empty() {
                drop(slices);
                if self.flush_file(net, id) {
                    continue;
                }
                return;
            }
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            let sent = match out.file_follows(slices.len()) {
                true => net.send_before_more(id.index(), &slices),
                false => net.send_vectored(id.index(), &slices),
            };
            match sent {
                Ok(sent) => {
                    drop(slices);
                    out.advance(sent);
                    self.shared.counters.bytes_out.add(sent as u64);
                    if out.is_empty() {
                        conn.out = None;
                    } else if sent < offered {
                        conn.flags.insert(Flags::BLOCKED);
                    }
                    conn.sent(sent, self.now_ms);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    drop(slices);
                    conn.flags.insert(Flags::BLOCKED);
                }
                Err(error) => {
                    drop(slices);
                    return conn.fail_output(error);
                }
            }
        }
    }

    /// Sends some of the file that is next. False if nothing more is to be sent now.
    fn flush_file(&mut self, net: &mut Backend, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id.0) else {
            return false;
        };
        let Some(out) = conn.out.as_deref_mut() else {
            return false;
        };
        let Some((file, Range { start, end })) = out.file() else {
            return true;
        };
        let left = end - start;
        let offered = left.min(SENDFILE_MAX);
        match net.send_file(id.index(), file, start, offered) {
            Ok(0) => {
                // Its length may be promised already, so the peer must not take this for the end.
                let message = format!("a file that is being sent ends {left} bytes too early");
                let error = io::Error::new(io::ErrorKind::UnexpectedEof, message);
                self.doom(id, Close::Error(error));
                false
            }
            Ok(sent) => {
                out.advance_file(sent as u64);
                self.shared.counters.bytes_out.add(sent as u64);
                if out.is_empty() {
                    conn.out = None;
                } else if (sent as u64) < offered {
                    conn.flags.insert(Flags::BLOCKED);
                }
                conn.sent(sent, self.now_ms);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                conn.flags.insert(Flags::BLOCKED);
                false
            }
            Err(error) => {
                match error.kind() {
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                        conn.fail_output(error);
                    }
                    // It may be the file's, and then nobody else would end the connection.
                    _ => self.doom(id, Close::Io(error)),
                }
                false
            }
        }
    }
}
