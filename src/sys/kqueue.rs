//! macOS and the BSDs: kqueue, level-triggered.
//!
//! Reading and writing are two registrations, and two events, of one descriptor. Changes are put
//! off until the next wait, which makes them with the call that waits anyway. Closing a
//! descriptor ends its registrations in the kernel; changes that are put off name it by its
//! number, so they have to go before that number is used again.
//!
//! What is known of real kernels, and built on:
//! - A second EV_ADD changes a registration's id and its low-water mark, but not whether it is
//!   EV_CLEAR: so another mode is a deletion and an addition.
//! - EV_EOF may come with data to read, and `fflags` with an error: both are hints, and the truth
//!   is what recv(2) and SO_ERROR say. Events of writing come on acknowledgements too, whether or
//!   not the buffer was full.
//! - Where room for events is left, a refused change is an event with EV_ERROR; without, it fails
//!   the call, and the changes behind it are not made. So there is always as much room.
//! - A call that is interrupted has made its changes.

#![allow(unsafe_code)]

use std::io::{self, Read, Write};
#[cfg(feature = "proactor")]
use std::os::fd::OwnedFd;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::{DOORBELL, Event, Interest};
use crate::handler::ConnId;
use crate::slab::Key;

mod abi;
#[cfg(reev_kqueue_emulation)]
mod emulation;
#[cfg(test)]
mod probe;

use abi::{Kevent, Queue};

/// The one user event of a queue.
const BELL_IDENT: usize = 0;

/// More than any socket buffer holds: a low-water mark that is never reached, so that only the
/// end of the stream counts. macOS cuts it to the size of the buffer; EV_CLEAR keeps a full one
/// from being told for ever.
const ENDS_ALONE: i64 = i32::MAX as i64;

/// How one filter watches a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Off,
    /// Ready, told as long as it holds.
    Level,
    /// The end of that direction alone, told once.
    Ends,
}

/// How the read and the write filter watch for `interest`.
fn modes(interest: Interest) -> [Mode; 2] {
    if interest == Interest::UNREGISTERED {
        return [Mode::Off; 2];
    }
    let read = if interest.has(Interest::READ) {
        Mode::Level
    } else if interest.has(Interest::FIN) {
        Mode::Ends
    } else {
        Mode::Off
    };
    let write = if interest.has(Interest::WRITE) {
        Mode::Level
    } else if interest == Interest::NONE {
        Mode::Ends // of a connection whose FIN was read: that nobody reads it any more
    } else {
        Mode::Off
    };
    [read, write]
}

struct Refused {
    id: ConnId,
    error: io::Error,
    /// An event has told of it.
    told: bool,
}

pub(crate) struct Poller {
    queue: Arc<Queue>,
    /// Changes for the next call, in their order.
    changes: Vec<Kevent>,
    /// Room for what a call tells.
    told: Vec<Kevent>,
    /// What the last wait found.
    ready: Vec<Event>,
    /// Registrations that the kernel refused, until somebody takes the error or they end.
    refused: Vec<Refused>,
    /// Where there are no user events.
    pipe: Option<io::PipeReader>,
}

/// Wakes the poller: a user event, which needs no answer, or where the system has none, a pipe,
/// which the poller empties.
pub(crate) enum Bell {
    User(Arc<Queue>),
    Pipe(io::PipeWriter),
}

impl Bell {
    pub(crate) fn ring(&self) {
        match self {
            Bell::User(queue) => {
                // Adding and triggering are two changes. A trigger's udata becomes the event's.
                let ring = Kevent::new(BELL_IDENT, abi::EVFILT_USER, 0, DOORBELL.as_u64());
                // Cannot fail: the event is there as long as the queue.
                let _ = queue.call(&[ring.with(abi::NOTE_TRIGGER, 0)], &mut [], None);
            }
            // Fails only if the pipe is full, and then the bell has rung already.
            Bell::Pipe(writer) => drop((&mut &*writer).write(&[0])),
        }
    }
}

impl Poller {
    /// A poller for up to `events` events a turn, and the bell that wakes it.
    pub(crate) fn new(events: usize) -> io::Result<(Poller, Bell)> {
        let mut poller = Poller {
            queue: Arc::new(Queue::new()?),
            changes: Vec::new(),
            told: vec![Kevent::empty(); events],
            ready: Vec::with_capacity(events),
            refused: Vec::new(),
            pipe: None,
        };
        let add = abi::EV_ADD | abi::EV_CLEAR;
        let user = Kevent::new(BELL_IDENT, abi::EVFILT_USER, add, DOORBELL.as_u64());
        let bell = match poller.queue.call(&[user], &mut [], None) {
            Ok(_) => Bell::User(poller.queue.clone()),
            Err(_) => Bell::Pipe(poller.ring_by_pipe()?),
        };
        Ok((poller, bell))
    }

    fn ring_by_pipe(&mut self) -> io::Result<io::PipeWriter> {
        let (reader, writer) = io::pipe()?;
        super::net::set_nonblocking(&reader)?;
        super::net::set_nonblocking(&writer)?;
        let ident = reader.as_raw_fd() as usize;
        let watch = Kevent::new(ident, abi::EVFILT_READ, abi::EV_ADD, DOORBELL.as_u64());
        self.queue.call(&[watch], &mut [], None)?;
        self.pipe = Some(reader);
        Ok(writer)
    }

    /// Waits, without a timeout for ever.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        if self.changes.len() > self.told.len() {
            self.make_changes()?;
        }
        self.ready.clear();
        self.tell_refusals(); // and at once
        let timeout = if self.ready.is_empty() { timeout } else { Some(Duration::ZERO) };
        let told = self.queue.call(&self.changes, &mut self.told, timeout);
        self.changes.clear();
        let told = match told {
            Ok(told) => told,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for i in 0..told {
            let told = self.told[i];
            if told.has(abi::EV_ERROR) {
                self.note_refusal(told);
                continue;
            }
            let event = event(told);
            if event.id == DOORBELL {
                self.empty_pipe();
            }
            self.ready.push(event);
        }
        self.tell_refusals();
        Ok(self.ready.len())
    }

    /// Before the mail is taken, so that what is written later is told again.
    fn empty_pipe(&mut self) {
        if let Some(pipe) = &mut self.pipe {
            while matches!(pipe.read(&mut [0; 512]), Ok(512)) {}
        }
    }

    /// A change that failed, which is an error of its socket.
    fn note_refusal(&mut self, told: Kevent) {
        let errno = told.data() as i32;
        // Not there any more is what a deletion wants.
        if errno == 0 || errno == libc::ENOENT {
            return;
        }
        let id = id_of(told);
        log::warn!("the poller refuses to watch {id:?}: error {errno}");
        let error = io::Error::from_raw_os_error(errno);
        self.refused.push(Refused { id, error, told: false });
    }

    fn tell_refusals(&mut self) {
        for refused in self.refused.iter_mut().filter(|refused| !refused.told) {
            refused.told = true;
            self.ready.push(Event { error: true, ..nothing(refused.id) });
        }
    }

    #[inline]
    pub(crate) fn event(&self, i: usize) -> Event {
        self.ready[i]
    }

    pub(crate) fn watch(
        &mut self,
        fd: BorrowedFd<'_>,
        id: ConnId,
        old: Interest,
        new: Interest,
    ) -> io::Result<()> {
        let filters = [abi::EVFILT_READ, abi::EVFILT_WRITE];
        let changes = modes(old).into_iter().zip(modes(new)).zip(filters);
        for ((old, new), filter) in changes {
            let change = |flags| Kevent::new(fd.as_raw_fd() as usize, filter, flags, id.as_u64());
            if old != Mode::Off && old != new {
                self.changes.push(change(abi::EV_DELETE));
            }
            match new {
                Mode::Off => {}
                // Again if it is there already: the id may be another.
                Mode::Level => self.changes.push(change(abi::EV_ADD)),
                Mode::Ends => {
                    let ends = change(abi::EV_ADD | abi::EV_CLEAR);
                    self.changes.push(ends.with(abi::NOTE_LOWAT, ENDS_ALONE));
                }
            }
        }
        if new == Interest::UNREGISTERED || self.changes.len() > self.told.len() {
            // The descriptor may leave this reactor, where its number can be used again.
            self.make_changes()?;
        }
        Ok(())
    }

    /// Makes the changes that were put off, and tells what became of the last one of `id`.
    pub(crate) fn confirm(&mut self, id: ConnId) -> io::Result<()> {
        self.make_changes()?;
        match self.take_refusal(id.index()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// With EV_RECEIPT each change is answered, and no event is told in a call that has room for
    /// the answers alone.
    fn make_changes(&mut self) -> io::Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        for change in &mut self.changes {
            *change = change.with_receipt();
        }
        let mut answers = vec![Kevent::empty(); self.changes.len()];
        let answered = loop {
            match self.queue.call(&self.changes, &mut answers, Some(Duration::ZERO)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answered => break answered,
            }
        };
        self.changes.clear();
        for answer in answers.into_iter().take(answered?) {
            self.note_refusal(answer);
        }
        Ok(())
    }

    pub(crate) fn take_refusal(&mut self, index: usize) -> Option<io::Error> {
        let found = self.refused.iter().position(|refused| refused.id.index() == index)?;
        Some(self.refused.swap_remove(found).error)
    }

    /// For other threads.
    #[cfg(feature = "proactor")]
    pub(crate) fn registrar(&self) -> io::Result<Registrar> {
        Ok(Registrar(self.queue.clone()))
    }

    /// The descriptor is about to be closed, which ends its registrations.
    pub(crate) fn forget(&mut self, fd: BorrowedFd<'_>, id: ConnId) {
        let ident = fd.as_raw_fd() as usize;
        self.changes.retain(|change| change.ident() != ident);
        self.refused.retain(|refused| refused.id != id);
    }
}

/// Tells a poller what to watch by edge, from any thread, also while another polls. The sockets
/// are the caller's, who ends this before closing one.
#[cfg(feature = "proactor")]
pub(crate) struct Registrar(Arc<Queue>);

#[cfg(feature = "proactor")]
impl Registrar {
    pub(crate) fn watch(
        &self,
        fd: BorrowedFd<'_>,
        id: ConnId,
        old: Interest,
        new: Interest,
    ) -> io::Result<()> {
        debug_assert!(new == Interest::UNREGISTERED || new.has(Interest::EDGE));
        let mut answer = [Kevent::empty()];
        for (interest, filter) in
            [(Interest::READ, abi::EVFILT_READ), (Interest::WRITE, abi::EVFILT_WRITE)]
        {
            let flags = match (old.has(interest), new.has(interest)) {
                (_, true) => abi::EV_ADD | abi::EV_CLEAR, // once more tells what holds already
                (true, false) => abi::EV_DELETE,
                (false, false) => continue,
            };
            let change = Kevent::new(fd.as_raw_fd() as usize, filter, flags, id.as_u64());
            let timeout = Some(Duration::ZERO);
            self.0.call(&[change.with_receipt()], &mut answer, timeout)?;
            match answer[0].data() as i32 {
                0 => {}
                libc::ENOENT if flags == abi::EV_DELETE => {} // what a deletion wants
                errno => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Ok(())
    }

    /// Readable while the poller has something to tell, so that another can watch it.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        super::net::duplicate(&self.0)
    }
}

fn id_of(told: Kevent) -> ConnId {
    ConnId(Key::from_bits(told.udata()))
}

fn nothing(id: ConnId) -> Event {
    let (readable, writable, fin) = (false, false, false);
    Event { id, readable, writable, fin, hup: false, error: false, urgent: false }
}

fn event(told: Kevent) -> Event {
    let event = nothing(id_of(told));
    let eof = told.has(abi::EV_EOF);
    let error = eof && told.fflags() != 0;
    if told.filter() == abi::EVFILT_WRITE {
        // Nobody reads what would be written.
        Event { writable: true, hup: eof, error, ..event }
    } else {
        // It does not say whether some of it is urgent.
        Event { readable: true, fin: eof, error, urgent: true, ..event }
    }
}

#[cfg(test)]
mod tests {
    use super::probe::numbered;
    use super::*;
    use std::os::fd::{AsFd, RawFd};
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    const HIGH: RawFd = 200;

    fn id(n: u64) -> ConnId {
        ConnId(Key::from_bits(n << 32 | n))
    }

    /// What is told until `done`; a call may be interrupted, and tell less than there is.
    #[track_caller]
    fn until(poller: &mut Poller, done: impl Fn(&Event) -> bool) -> Event {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            assert!(Instant::now() < deadline, "waited in vain");
            let n = poller.wait(Some(Duration::from_secs(1))).unwrap();
            if let Some(event) = (0..n).map(|i| poller.event(i)).find(&done) {
                return event;
            }
        }
    }

    /// No end is told; readiness may be, without a reason.
    #[track_caller]
    fn no_end(poller: &mut Poller) {
        for _ in 0..20 {
            for i in 0..poller.wait(Some(Duration::ZERO)).unwrap() {
                let Event { fin, hup, error, .. } = poller.event(i);
                assert!(!(fin || hup || error));
            }
        }
    }

    #[track_caller]
    fn quiet(poller: &mut Poller) {
        for _ in 0..20 {
            assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), 0);
        }
    }

    /// Planted: the pipe is not emptied; the user event is not EV_CLEAR.
    #[test]
    fn the_doorbell_wakes_once_for_each_ring() {
        for by_pipe in [false, true] {
            let (mut poller, mut bell) = Poller::new(8).unwrap();
            if by_pipe {
                bell = Bell::Pipe(poller.ring_by_pipe().unwrap());
            }
            for _ in 0..3 {
                bell.ring();
                bell.ring();
                until(&mut poller, |event| event.id == DOORBELL);
                quiet(&mut poller); // a ring needs no answer
            }
        }
    }

    #[test]
    fn hard_case_39_a_refused_change_is_an_error_of_its_socket() {
        let (mut poller, _bell) = Poller::new(8).unwrap();
        let closed = 1_000_000; // no descriptor has that number
        let change = Kevent::new(closed, abi::EVFILT_READ, abi::EV_ADD, id(7).as_u64());
        poller.changes.push(change);
        let told = until(&mut poller, |event| event.id == id(7));
        assert!(told.error && !told.readable);
        assert_eq!(poller.take_refusal(7).unwrap().raw_os_error(), Some(libc::EBADF));
        poller.changes.push(change);
        assert_eq!(poller.confirm(id(7)).unwrap_err().raw_os_error(), Some(libc::EBADF));
        poller.changes.push(change);
        poller.confirm(id(8)).unwrap();
        let begun = Instant::now();
        poller.wait(Some(Duration::from_secs(60))).unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30), "the other's is told without a wait");
        assert!(poller.event(0).error && poller.event(0).id == id(7));
    }

    /// Planted: what a deletion does not find is refused.
    #[test]
    fn hard_case_39_a_deletion_of_what_is_gone_is_made() {
        let (mut poller, _bell) = Poller::new(8).unwrap();
        let (near, _far) = UnixStream::pair().unwrap();
        let ident = near.as_raw_fd() as usize;
        let delete = Kevent::new(ident, abi::EVFILT_READ, abi::EV_DELETE, id(1).as_u64());
        poller.changes.push(delete);
        poller.confirm(id(1)).unwrap();
        poller.changes.push(delete);
        quiet(&mut poller);
    }

    /// Planted: the filter for ends alone is not EV_CLEAR.
    #[test]
    fn hard_case_39_an_end_that_is_awaited_alone_is_told_once() {
        let (mut poller, _bell) = Poller::new(8).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        poller.watch(near.as_fd(), id(1), Interest::UNREGISTERED, Interest::FIN).unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        until(&mut poller, |event| event.fin);
        no_end(&mut poller);
    }

    /// Planted: `forget` leaves the changes of the closed descriptor.
    #[test]
    fn hard_case_01_changes_of_a_closed_descriptor_do_not_reach_its_successor() {
        let (mut poller, _bell) = Poller::new(8).unwrap();
        let (first, _far) = UnixStream::pair().unwrap();
        let near = numbered(&first, HIGH);
        poller.watch(near.as_fd(), id(1), Interest::UNREGISTERED, Interest::READ).unwrap();
        poller.forget(near.as_fd(), id(1));
        drop(near);
        let (second, mut far) = UnixStream::pair().unwrap();
        let near = numbered(&second, HIGH);
        far.write_all(b"x").unwrap();
        quiet(&mut poller);
        poller.watch(near.as_fd(), id(2), Interest::UNREGISTERED, Interest::READ).unwrap();
        assert!(until(&mut poller, |event| event.readable).id == id(2));
    }

    /// Planted: a level that stays is not added again; a FIN is a hang-up; a peer that is gone is
    /// none; leaving the poller is put off; a closed socket's refusal stays for its slot.
    #[test]
    fn hard_case_39_what_is_told_is_of_the_last_watch() {
        let (mut poller, _bell) = Poller::new(8).unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        poller.watch(near.as_fd(), id(1), Interest::UNREGISTERED, Interest::READ).unwrap();
        poller.confirm(id(1)).unwrap();
        poller.watch(near.as_fd(), id(2), Interest::READ, Interest::READ).unwrap();
        far.shutdown(std::net::Shutdown::Write).unwrap();
        let told = until(&mut poller, |event| event.fin);
        assert!(told.id == id(2) && told.readable && !told.hup);
        drop(far);
        poller.watch(near.as_fd(), id(2), Interest::READ, Interest::WRITE).unwrap();
        until(&mut poller, |event| event.writable && event.hup);
        poller.watch(near.as_fd(), id(2), Interest::WRITE, Interest::UNREGISTERED).unwrap();
        assert!(poller.changes.is_empty());
        let error = io::Error::from_raw_os_error(libc::EBADF);
        poller.refused.push(Refused { id: id(2), error, told: false });
        poller.forget(near.as_fd(), id(2));
        assert!(poller.take_refusal(2).is_none());
    }

    /// From another thread, by edge. Planted: an interest that is asked for again is not added
    /// again; one that goes is not deleted; the id is another's; the write filter is left out.
    #[test]
    #[cfg(feature = "proactor")]
    fn hard_case_39_a_registrar_tells_what_holds_as_often_as_it_is_asked() {
        let (mut poller, _bell) = Poller::new(8).unwrap();
        let registrar = poller.registrar().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let read = Interest::READ | Interest::EDGE;
        let both = read | Interest::WRITE;
        far.write_all(b"x").unwrap();
        let watch = |old, new| {
            std::thread::scope(|scope| {
                let made = scope.spawn(|| registrar.watch(near.as_fd(), id(3), old, new));
                made.join().unwrap().unwrap();
            });
        };
        watch(Interest::UNREGISTERED, read);
        for _ in 0..2 {
            assert_eq!(until(&mut poller, |event| event.readable).id, id(3));
            quiet(&mut poller); // by edge
            watch(read, read); // what was not read is told again
        }
        until(&mut poller, |event| event.readable);
        watch(read, both);
        // In one wait or in two, each of them once.
        let told = std::cell::Cell::new((false, false));
        until(&mut poller, |event| {
            let (readable, writable) = told.get();
            told.set((readable | event.readable, writable | event.writable));
            told.get() == (true, true)
        });
        watch(both, Interest::UNREGISTERED);
        far.write_all(b"x").unwrap();
        quiet(&mut poller);
        watch(both, Interest::UNREGISTERED); // what is not there is no error
    }

    /// Planted: the answer to a change is not looked at. Real kernels watch files too.
    #[test]
    #[cfg(all(feature = "proactor", reev_kqueue_emulation))]
    fn hard_case_39_a_registrar_says_what_is_refused() {
        let (poller, _bell) = Poller::new(8).unwrap();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let read = Interest::READ | Interest::EDGE;
        let watched =
            poller.registrar().unwrap().watch(file.as_fd(), id(1), Interest::UNREGISTERED, read);
        assert_eq!(watched.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn hard_case_39_reading_and_writing_are_watched_apart() {
        let (mut poller, _bell) = Poller::new(8).unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let both = Interest::READ | Interest::WRITE;
        far.write_all(b"x").unwrap();
        poller.watch(near.as_fd(), id(1), Interest::UNREGISTERED, both).unwrap();
        until(&mut poller, |event| event.writable && !event.readable);
        until(&mut poller, |event| event.readable && !event.writable);
        poller.watch(near.as_fd(), id(1), both, Interest::FIN).unwrap();
        no_end(&mut poller);
        drop(far);
        assert!(until(&mut poller, |event| event.readable).fin, "with data to read");
        // As a connection takes over the socket of an attempt.
        poller.watch(near.as_fd(), id(1), Interest::FIN, Interest::WRITE).unwrap();
        until(&mut poller, |event| event.writable && event.id == id(1));
        poller.watch(near.as_fd(), id(2), Interest::WRITE, Interest::READ).unwrap();
        assert!(until(&mut poller, |event| event.readable).id == id(2));
        poller.watch(near.as_fd(), id(2), Interest::READ, Interest::UNREGISTERED).unwrap();
        quiet(&mut poller);
    }
}
