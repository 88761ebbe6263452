//! What has completed and waits for the caller, and the swap buffer that is lent with it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};

use super::completion::Done;
use super::link::Link;
use crate::config::{BATCH_KEPT, SWAP_READ_MIN};
use crate::mailbox::Doorbell;
use crate::sync::lock_std;
use crate::sys::{Waker, net};

/// The way from those who complete operations, on any thread, to the one that waits.
pub(crate) struct Outbox<T> {
    batch: Mutex<Batch<T>>,
    /// The free part of the swap buffer. Whoever reads into it holds the lock.
    chunk: Mutex<BytesMut>,
    /// Bytes that may be lent from one `wait` to the next.
    swap_max: usize,
    /// Bytes of a chunk, and so of a read.
    chunk_len: usize,
    /// Wakes the caller where it polls.
    bell: Waker,
}

struct Batch<T> {
    done: Vec<Done<T>>,
    /// What is lent, by the index in a completion.
    lent: Vec<Bytes>,
    lent_bytes: usize,
    /// Connections whose read waits for room in the swap buffer, the longest waiting first.
    starved: VecDeque<Arc<Link<T>>>,
    /// The caller sleeps in the poller.
    waiting: bool,
    closed: bool,
}

impl<T> Batch<T> {
    /// Bytes that may still be lent; a rest that is not worth a read counts as none.
    fn room(&self, swap_max: usize) -> usize {
        match swap_max - self.lent_bytes {
            room if room < SWAP_READ_MIN => 0,
            room => room,
        }
    }
}

/// What the caller takes at once.
pub(crate) struct Taken<T> {
    pub(crate) done: Vec<Done<T>>,
    pub(crate) lent: Vec<Bytes>,
}

impl<T> Taken<T> {
    pub(crate) fn new() -> Taken<T> {
        Taken { done: Vec::new(), lent: Vec::new() }
    }

    /// What the caller has left goes, but for the room it took, if that is not of a burst.
    pub(crate) fn empty(&mut self) {
        self.done.clear();
        self.lent.clear();
        self.done.shrink_to(BATCH_KEPT);
        self.lent.shrink_to(BATCH_KEPT);
    }
}

/// What came of a read into the swap buffer.
pub(crate) enum Lent {
    /// Bytes were read, and their completion is on its way. `all`: nothing is left, but perhaps
    /// a FIN.
    Bytes {
        all: bool,
    },
    Eof,
    /// There is no room, and the connection stands in line for it.
    Full,
}

impl<T> Outbox<T> {
    pub(crate) fn new(swap_max: usize, chunk_len: usize, bell: Waker) -> Outbox<T> {
        let batch = Batch {
            done: Vec::new(),
            lent: Vec::new(),
            lent_bytes: 0,
            starved: VecDeque::new(),
            waiting: false,
            closed: false,
        };
        Outbox {
            batch: Mutex::new(batch),
            chunk: Mutex::new(BytesMut::new()),
            swap_max,
            chunk_len: chunk_len.min(swap_max),
            bell,
        }
    }

    /// Hands a completion over, or gives it back: the caller has gone.
    pub(crate) fn push(&self, done: Done<T>) -> Result<(), Done<T>> {
        self.add(lock_std(&self.batch), done)
    }

    fn add(&self, mut batch: MutexGuard<'_, Batch<T>>, done: Done<T>) -> Result<(), Done<T>> {
        if batch.closed {
            return Err(done);
        }
        batch.done.push(done);
        if std::mem::take(&mut batch.waiting) {
            drop(batch);
            self.bell.ring();
        }
        Ok(())
    }

    /// Reads once into the swap buffer, without a copy; what `complete` makes of the bytes goes
    /// with them, for the caller takes both together. `first_in_line`: it is `link`'s turn,
    /// though others wait as well.
    ///
    /// The inner error is a completion that nobody takes any more.
    pub(crate) fn lend(
        &self,
        link: &Arc<Link<T>>,
        socket: BorrowedFd<'_>,
        first_in_line: bool,
        complete: impl FnOnce(usize, usize) -> Done<T>,
    ) -> io::Result<Result<Lent, Done<T>>> {
        let mut chunk = lock_std(&self.chunk);
        let room = {
            let mut batch = lock_std(&self.batch);
            let room = batch.room(self.swap_max);
            if room == 0 || (!first_in_line && !batch.starved.is_empty()) {
                match first_in_line {
                    _ if batch.closed => {}
                    true => batch.starved.push_front(link.clone()),
                    false => batch.starved.push_back(link.clone()),
                }
                return Ok(Ok(Lent::Full));
            }
            room
        };
        if chunk.capacity() < (self.chunk_len / 4).max(SWAP_READ_MIN).min(room) {
            chunk.reserve(self.chunk_len);
        }
        let offered = room.min(chunk.capacity());
        let n = net::recv_chunk(socket, &mut chunk, offered)?;
        if n == 0 {
            return Ok(Ok(Lent::Eof));
        }
        let bytes = chunk.split().freeze();
        let mut batch = lock_std(&self.batch);
        let index = batch.lent.len();
        batch.lent_bytes += n;
        batch.lent.push(bytes);
        Ok(self.add(batch, complete(index, n)).map(|()| Lent::Bytes { all: n < offered }))
    }

    /// The first in line for the swap buffer, if there is room.
    pub(crate) fn next_starved(&self) -> Option<Arc<Link<T>>> {
        let mut batch = lock_std(&self.batch);
        if batch.room(self.swap_max) == 0 { None } else { batch.starved.pop_front() }
    }

    /// Whether there is something to take, or nothing to wait for any more.
    pub(crate) fn has_news(&self) -> bool {
        let batch = lock_std(&self.batch);
        !batch.done.is_empty() || batch.closed
    }

    /// Has the bell rung for the next completion; false if there is something already. The
    /// caller holds the poller, so that nobody else hears it.
    pub(crate) fn begin_wait(&self) -> bool {
        let mut batch = lock_std(&self.batch);
        batch.waiting = batch.done.is_empty() && !batch.closed;
        batch.waiting
    }

    pub(crate) fn end_wait(&self) {
        lock_std(&self.batch).waiting = false;
    }

    /// Gives what has completed in exchange for what the caller had. None at the end: all was
    /// taken and nothing more comes.
    pub(crate) fn take(&self, taken: &mut Taken<T>) -> Option<()> {
        let mut batch = lock_std(&self.batch);
        if batch.done.is_empty() && batch.closed {
            return None;
        }
        std::mem::swap(&mut batch.done, &mut taken.done);
        std::mem::swap(&mut batch.lent, &mut taken.lent);
        batch.lent_bytes = 0;
        Some(())
    }

    /// Nothing more is accepted, and nobody waits any longer. What has completed can still be
    /// taken.
    pub(crate) fn close(&self) {
        let mut batch = lock_std(&self.batch);
        batch.closed = true;
        let starved = std::mem::take(&mut batch.starved);
        drop(batch);
        drop(starved); // whose last owner may be this
        self.bell.ring();
    }

    /// Drops what has completed and will not be taken: it holds connections, which hold this.
    pub(crate) fn clear(&self) {
        let done = std::mem::take(&mut lock_std(&self.batch).done);
        drop(done); // when the batch is unlocked, for it runs the caller's code
    }
}
