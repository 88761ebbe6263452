//! What a watcher's threads have in common: the poller, and the outbox that it fills.
//!
//! There are two ways to poll. While the caller waits, it polls by itself: what arrives is read
//! on its own thread, without a switch to another. While it is busy with something else, the
//! watcher's thread polls for it, so that nothing that was submitted stands still.
//!
//! Locks are taken in this order: the poller, a link's state, then the list of links, or the swap
//! buffer and the batch.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, OnceLock, TryLockError};
use std::time::{Duration, Instant};

use super::link::{Link, Wake};
use super::outbox::{Outbox, Taken};
use super::porter::Presence;
use crate::config::{ATTEMPTS_MAX, HARVEST_MAX, UNPOLLED_MAX};
use crate::handler::ConnId;
use crate::remote::Remote;
use crate::slab::{Key, Slab};
use crate::sync::lock_std;
use crate::sys::{DOORBELL, Event, Interest, Native, Registrar, Wait};

pub(crate) struct Shared<T> {
    pub(crate) outbox: Outbox<T>,
    pub(crate) presence: Presence,
    /// Whoever polls has it.
    poller: Mutex<Polling<T>>,
    registrar: Registrar,
    links: Mutex<Slab<Arc<Link<T>>>>,
    /// The watcher's thread, where it minds the poller.
    porter: OnceLock<Remote>,
}

struct Polling<T> {
    native: Native,
    /// Kept for its memory.
    ready: Vec<(Arc<Link<T>>, Event)>,
    /// Batches taken since the caller has looked at the poller.
    unpolled: u32,
}

impl<T> Shared<T> {
    pub(crate) fn new(swap_max: usize, chunk_len: usize) -> io::Result<Shared<T>> {
        let (native, bell) = Native::new(HARVEST_MAX)?;
        let registrar = native.registrar()?;
        Ok(Shared {
            outbox: Outbox::new(swap_max, chunk_len, bell),
            presence: Presence::new(),
            poller: Mutex::new(Polling { native, ready: Vec::new(), unpolled: 0 }),
            registrar,
            links: Mutex::new(Slab::new()),
            porter: OnceLock::new(),
        })
    }

    /// The watcher's thread is ready to mind the poller.
    pub(crate) fn set_porter(&self, porter: Remote) {
        let _ = self.porter.set(porter); // happens once
    }

    pub(crate) fn registrar(&self) -> &Registrar {
        &self.registrar
    }

    /// A name for the poller, under which it finds `link`.
    pub(crate) fn enter(&self, link: Arc<Link<T>>) -> ConnId {
        ConnId(lock_std(&self.links).insert(link))
    }

    pub(crate) fn leave(&self, id: ConnId) {
        let link = lock_std(&self.links).remove(id.0);
        drop(link); // when the list is unlocked
    }

    pub(crate) fn watch(
        &self,
        socket: BorrowedFd<'_>,
        id: ConnId,
        old: Interest,
        new: Interest,
    ) -> io::Result<()> {
        self.registrar.watch(socket, id, old, new)
    }

    /// Waits until something has completed, and gives it in exchange for what the caller had.
    /// None at the end: all was taken and nothing more comes.
    pub(crate) fn take(
        self: &Arc<Self>,
        timeout: Option<Duration>,
        taken: &mut Taken<T>,
    ) -> io::Result<Option<()>> {
        self.presence.enter();
        let waited = self.wait(timeout);
        let took = self.outbox.take(taken);
        self.serve_starved();
        if self.presence.leave()
            && let Some(porter) = self.porter.get()
        {
            let _ = porter.notify_urgent(0); // refused only if the watcher has ended
        }
        waited.map(|()| took)
    }

    #[expect(clippy::disallowed_methods, reason = "the caller's own wait, on the caller's thread")]
    fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        let until = timeout.and_then(|timeout| match timeout {
            Duration::ZERO => None,
            timeout => Instant::now().checked_add(timeout),
        });
        let mut polling = lock_std(&self.poller);
        if self.outbox.has_news() {
            // What completes without the poller must not keep from the rest.
            polling.unpolled += 1;
            if polling.unpolled < UNPOLLED_MAX {
                return Ok(());
            }
            return self.poll(&mut polling, Wait::No);
        }
        loop {
            let wait = match (timeout, until) {
                (Some(Duration::ZERO), _) => Wait::No,
                (_, None) => Wait::Forever,
                (_, Some(until)) => match until.saturating_duration_since(Instant::now()) {
                    Duration::ZERO => Wait::No,
                    left => Wait::AtMost(left),
                },
            };
            if !self.outbox.begin_wait() {
                return Ok(());
            }
            let polled = self.poll(&mut polling, wait);
            if polled.is_err() || wait == Wait::No {
                self.outbox.end_wait();
                return polled;
            }
        }
    }

    /// Polls once, and goes on with what has become possible.
    fn poll(&self, polling: &mut Polling<T>, wait: Wait) -> io::Result<()> {
        polling.unpolled = 0;
        let ready = polling.native.wait(wait)?;
        self.outbox.end_wait();
        let links = lock_std(&self.links);
        for event in (0..ready).map(|i| polling.native.event(i)) {
            if event.id != DOORBELL
                && let Some(link) = links.get(Key::from_bits(event.id.as_u64()))
            {
                polling.ready.push((link.clone(), event));
            }
        }
        drop(links);
        for (link, event) in polling.ready.drain(..) {
            link.told(event);
        }
        Ok(())
    }

    /// Polls for a caller that is busy; false if it is not.
    pub(crate) fn poll_in_absence(&self) -> io::Result<bool> {
        match self.poller.try_lock() {
            Ok(mut polling) => self.poll(&mut polling, Wait::No).map(|()| true),
            Err(TryLockError::Poisoned(poisoned)) => {
                self.poll(&mut poisoned.into_inner(), Wait::No).map(|()| true)
            }
            Err(TryLockError::WouldBlock) => Ok(false),
        }
    }

    /// Serves the line of those who wait for the swap buffer, in order, as many as there is room
    /// for. Nobody else is woken.
    pub(crate) fn serve_starved(&self) {
        while let Some(link) = self.outbox.next_starved() {
            let mut wake = Wake::new();
            link.attempt_reads(&mut link.lock(), true, ATTEMPTS_MAX, &mut wake);
            link.settle(wake);
        }
    }
}
