//! The watcher's side of a connection: an event handler that does what was submitted.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::completion::{Buffers, Done, Kind};
use super::conn::{Conn, ConnShared, WeakConn};
use super::operation::{Destination, Operation, Pending, Read, Write};
use super::watcher::Outbox;
use crate::close::Close;
use crate::ctx::Ctx;
use crate::handler::EvHandler;
use crate::timer::TimerId;

pub(crate) struct Endpoint<T: Send + 'static> {
    conn: WeakConn<T>,
    shared: Arc<ConnShared<T>>,
    outbox: Arc<Outbox<T>>,
    pending: Pending<T>,
    /// The first of the writes has been handed to the system as far as it goes.
    writing: bool,
    eof: bool,
}

fn error(kind: io::ErrorKind) -> io::Result<()> {
    Err(kind.into())
}

impl<T: Send + 'static> Endpoint<T> {
    pub(crate) fn new(
        conn: WeakConn<T>,
        shared: Arc<ConnShared<T>>,
        outbox: Arc<Outbox<T>>,
    ) -> Endpoint<T> {
        let pending = Pending::new();
        Endpoint { conn, shared, outbox, pending, writing: false, eof: false }
    }

    /// Takes in what was submitted, and starts what can be started.
    fn look(&mut self, cx: &mut Ctx<'_>) {
        let news = self.shared.news();
        for operation in news.operations {
            match operation {
                Operation::Read(mut read) => {
                    read.timer = arm(cx, read.deadline);
                    self.pending.reads.push_back(read);
                }
                Operation::Write(mut write) => {
                    write.timer = arm(cx, write.deadline);
                    self.pending.writes.push_back(write);
                }
            }
        }
        if news.free {
            cx.discard_output();
            return cx.close();
        }
        self.write_next(cx);
        self.settle_reads(cx);
    }

    /// Reads only while a read waits.
    fn settle_reads(&mut self, cx: &mut Ctx<'_>) {
        if self.eof {
            while let Some(read) = self.pending.reads.pop_front() {
                let full = read.full;
                self.read_done(
                    cx,
                    read,
                    if full { error(io::ErrorKind::UnexpectedEof) } else { Ok(()) },
                );
            }
        }
        match self.pending.reads.is_empty() {
            true => cx.pause_reads(),
            false => cx.resume_reads(),
        }
    }

    fn write_next(&mut self, cx: &mut Ctx<'_>) {
        loop {
            if let Some(kind) = cx.output_error() {
                while let Some(write) = self.pending.writes.pop_front() {
                    self.write_done(cx, write, 0, error(kind));
                }
                return;
            }
            if self.writing {
                if cx.pending_output() > 0 {
                    return; // on_drain comes when it is gone
                }
                self.writing = false;
                if let Some(write) = self.pending.writes.pop_front() {
                    let len = write.len;
                    self.write_done(cx, write, len, Ok(()));
                }
            }
            let Some(write) = self.pending.writes.front() else {
                return;
            };
            self.writing = true;
            for piece in &write.pieces {
                cx.write_owned(piece.clone());
            }
        }
    }

    fn read_done(&mut self, cx: &mut Ctx<'_>, read: Read<T>, result: io::Result<()>) {
        cx.cancel_timer(read.timer);
        self.complete(Kind::Read, read.context, read.into.back(), read.done, result);
    }

    fn write_done(
        &mut self,
        cx: &mut Ctx<'_>,
        write: Write<T>,
        bytes: usize,
        result: io::Result<()>,
    ) {
        cx.cancel_timer(write.timer);
        self.complete(Kind::Write, write.context, Buffers::Written(write.pieces), bytes, result);
    }

    /// The end: what is pending completes with an error, and nothing more is accepted.
    fn fail_all(&mut self, kind: io::ErrorKind) {
        let unlooked = self.shared.close();
        let reads = std::mem::take(&mut self.pending.reads).into_iter().map(Operation::Read);
        let writes = std::mem::take(&mut self.pending.writes).into_iter().map(Operation::Write);
        for operation in reads.chain(writes).chain(unlooked) {
            match operation {
                Operation::Read(read) => {
                    let buffers = read.into.back();
                    self.complete(Kind::Read, read.context, buffers, read.done, error(kind));
                }
                Operation::Write(write) => {
                    let buffers = Buffers::Written(write.pieces);
                    self.complete(Kind::Write, write.context, buffers, 0, error(kind));
                }
            }
        }
    }

    fn complete(
        &self,
        kind: Kind,
        context: T,
        buffers: Buffers,
        bytes: usize,
        result: io::Result<()>,
    ) {
        let conn = self.handle();
        self.outbox.push(Done { conn, kind, context, buffers, bytes, result });
    }

    fn handle(&self) -> Conn<T> {
        self.conn.upgrade().unwrap_or_else(|| Conn::late(self.shared.clone()))
    }

    /// One read's share of what has arrived; `None` if the swap buffer has no room just now.
    fn fill(&mut self, cx: &mut Ctx<'_>, data: &[u8]) -> Option<usize> {
        let read = self.pending.reads.front_mut()?;
        match &mut read.into {
            Destination::Owned(buffer) => {
                let n = (buffer.len() - read.done).min(data.len());
                buffer[read.done..read.done + n].copy_from_slice(&data[..n]);
                read.done += n;
                if read.done == buffer.len() || !read.full {
                    let read = self.pending.reads.pop_front()?;
                    self.read_done(cx, read, Ok(()));
                }
                Some(n)
            }
            Destination::Swap => {
                if !self.outbox.has_room(|| cx.remote()) {
                    return None;
                }
                let read = self.pending.reads.pop_front()?;
                cx.cancel_timer(read.timer);
                let conn = self.handle();
                Some(self.outbox.lend(data, |range| {
                    let bytes = range.len();
                    let buffers = Buffers::Swap(range);
                    let (kind, context, result) = (Kind::Read, read.context, Ok(()));
                    Done { conn, kind, context, buffers, bytes, result }
                }))
            }
        }
    }
}

/// A timer for a deadline, at once if it has passed.
fn arm(cx: &mut Ctx<'_>, deadline: Option<Instant>) -> TimerId {
    match deadline {
        None => TimerId::NONE,
        Some(at) => cx.set_timer(at.saturating_duration_since(cx.now())),
    }
}

impl<T: Send + 'static> EvHandler for Endpoint<T> {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.read_while_blocked(true);
        self.shared.taken_in(cx.remote());
        self.look(cx);
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let mut used = 0;
        while used < data.len() && !self.pending.reads.is_empty() {
            match self.fill(cx, &data[used..]) {
                Some(n) => used += n,
                None => {
                    // The caller's next wait empties the buffer and tells us.
                    cx.pause_reads();
                    return Ok(used);
                }
            }
        }
        if self.pending.reads.is_empty() {
            cx.pause_reads();
        }
        Ok(used)
    }

    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.eof = true;
        self.settle_reads(cx);
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.write_next(cx);
        Ok(())
    }

    fn on_notify(&mut self, cx: &mut Ctx<'_>, _: u64) -> io::Result<()> {
        self.look(cx);
        Ok(())
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, timer: TimerId) -> io::Result<()> {
        if let Some(at) = self.pending.reads.iter().position(|read| read.timer == timer) {
            if let Some(read) = self.pending.reads.remove(at) {
                self.read_done(cx, read, error(io::ErrorKind::TimedOut));
            }
            self.settle_reads(cx);
        } else if let Some(at) = self.pending.writes.iter().position(|write| write.timer == timer) {
            let mut bytes = 0;
            if at == 0 && self.writing {
                self.writing = false;
                let unsent = cx.discard_output();
                bytes = self.pending.writes[0].len - unsent;
            }
            if let Some(write) = self.pending.writes.remove(at) {
                self.write_done(cx, write, bytes, error(io::ErrorKind::TimedOut));
            }
            self.write_next(cx);
        }
        Ok(())
    }

    fn on_close(&mut self, _: &mut Ctx<'_>, why: &Close) {
        self.fail_all(match why {
            Close::Io(error) => error.kind(),
            _ => io::ErrorKind::ConnectionAborted,
        });
    }
}

/// One that was never taken in, because its watcher had ended, has no `on_close`.
impl<T: Send + 'static> Drop for Endpoint<T> {
    fn drop(&mut self) {
        self.fail_all(io::ErrorKind::ConnectionAborted);
    }
}
