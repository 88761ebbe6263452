//! What a queue watches, and what is ready.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use super::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_DISABLE, EV_DISPATCH, EV_ENABLE, EV_EOF, EV_ONESHOT,
    EVFILT_READ, EVFILT_TIMER, EVFILT_USER, EVFILT_WRITE, Errno, NOTE_LOWAT, NOTE_TRIGGER,
    READABLE, STIRS, control, epoll, kevent, last_errno,
};

/// One call in so many is hostile, of each kind.
const INTERRUPTED: u32 = 12;
const SPURIOUS: u32 = 8;
const FEW: u32 = 3;

/// A low-water mark that no buffer reaches.
const NEVER: i64 = 1 << 30;

/// What a descriptor is: its device and inode.
type File = (u64, u64);

/// A filter and what it watches.
type Name = (i16, usize);

struct Knote {
    /// What epoll knows it by; a later one of the same name has another.
    key: u64,
    change: kevent,
    enabled: bool,
    file: Option<File>,
    /// A user event was triggered.
    triggered: bool,
    /// When a timer is due.
    due: Option<Instant>,
}

impl Knote {
    fn is(&self, flag: u16) -> bool {
        self.change.flags & flag != 0
    }

    /// Whether it tells the end of the stream alone.
    fn is_for_ends(&self) -> bool {
        self.change.fflags & NOTE_LOWAT != 0 && self.change.data >= NEVER
    }

    fn epoll_events(&self) -> u32 {
        let mut events = match (self.change.filter, self.is_for_ends()) {
            (EVFILT_READ, false) => libc::EPOLLIN | libc::EPOLLRDHUP,
            (EVFILT_READ, true) => libc::EPOLLRDHUP,
            (_, false) => libc::EPOLLOUT,
            (_, true) => 0, // hang-ups are always told
        };
        if self.is(EV_CLEAR) {
            events |= libc::EPOLLET;
        }
        events as u32
    }

    fn period(&self) -> Duration {
        Duration::from_millis(self.change.data.max(1) as u64)
    }
}

pub(super) struct Knotes {
    outer: RawFd,
    readers: OwnedFd,
    writers: OwnedFd,
    knotes: BTreeMap<Name, Knote>,
    names: BTreeMap<u64, Name>,
    last_key: u64,
    random: fastrand::Rng,
}

fn is_of_descriptor(filter: i16) -> bool {
    filter == EVFILT_READ || filter == EVFILT_WRITE
}

fn file_of(ident: usize) -> Result<File, Errno> {
    let fd = RawFd::try_from(ident).map_err(|_| libc::EBADF)?;
    // SAFETY: an all-zero stat is a valid one.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the stat lives through the call, which writes it.
    match unsafe { libc::fstat(fd, &mut stat) } {
        0 => Ok((stat.st_dev, stat.st_ino)),
        _ => Err(last_errno()),
    }
}

/// Bytes to read; of a listener, anything, for nobody is to look at it.
fn readable_bytes(fd: RawFd) -> i64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the number lives through the call, which writes it.
    match unsafe { libc::ioctl(fd, libc::FIONREAD, &mut bytes) } {
        0 => bytes.into(),
        _ => i64::MAX,
    }
}

fn is_socket(fd: RawFd) -> bool {
    socket_type(fd).is_some()
}

/// Whether this side has ended its writing, which epoll does not tell. Nothing is sent.
fn is_shut_for_writing(fd: RawFd) -> bool {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: nothing is read from an empty buffer.
    let send = || unsafe { libc::send(fd, std::ptr::null(), 0, flags) };
    socket_type(fd) == Some(libc::SOCK_STREAM) && send() < 0 && last_errno() == libc::EPIPE
}

fn socket_type(fd: RawFd) -> Option<libc::c_int> {
    let mut kind: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    let value = (&raw mut kind).cast();
    // SAFETY: the value is as large as is said, and lives through the call.
    let asked = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_TYPE, value, &mut len) };
    (asked == 0).then_some(kind)
}

impl Knotes {
    pub(super) fn new(outer: RawFd, seed: u64) -> Result<Knotes, Errno> {
        let (readers, writers) = (epoll()?, epoll()?);
        for inner in [&readers, &writers] {
            control(outer, libc::EPOLL_CTL_ADD, inner.as_raw_fd(), READABLE, 0)?;
        }
        Ok(Knotes {
            outer,
            readers,
            writers,
            knotes: BTreeMap::new(),
            names: BTreeMap::new(),
            last_key: 0,
            random: fastrand::Rng::with_seed(seed),
        })
    }

    fn one_in(&mut self, calls: u32) -> bool {
        self.random.u32(..calls) == 0
    }

    pub(super) fn is_interrupted(&mut self) -> bool {
        self.one_in(INTERRUPTED)
    }

    fn inner(&self, filter: i16) -> RawFd {
        if filter == EVFILT_READ { self.readers.as_raw_fd() } else { self.writers.as_raw_fd() }
    }

    /// Makes a change; `Err(STIRS)` is none.
    pub(super) fn change(&mut self, change: &kevent) -> Result<(), Errno> {
        let name = (change.filter, change.ident);
        let file = match is_of_descriptor(change.filter) {
            true => Some(file_of(change.ident)?),
            false if [EVFILT_USER, EVFILT_TIMER].contains(&change.filter) => None,
            false => return Err(libc::EINVAL),
        };
        // Closing a descriptor has ended what it was registered for.
        if self.knotes.get(&name).is_some_and(|knote| knote.file != file) {
            self.remove(name);
        }
        if change.flags & EV_DELETE != 0 {
            let known = self.knotes.contains_key(&name);
            self.unwatch(name);
            self.remove(name);
            return if known { Ok(()) } else { Err(libc::ENOENT) };
        }
        match self.knotes.get_mut(&name) {
            Some(knote) => {
                // Neither EV_CLEAR nor EV_ONESHOT nor EV_DISPATCH changes.
                let flags = knote.change.flags;
                knote.change = kevent { flags, ..*change };
            }
            None if change.flags & EV_ADD == 0 => return Err(libc::ENOENT),
            None => {
                self.last_key += 1;
                let knote = Knote {
                    key: self.last_key,
                    change: *change,
                    enabled: true,
                    file,
                    triggered: false,
                    due: None,
                };
                self.names.insert(knote.key, name);
                self.knotes.insert(name, knote);
            }
        }
        let armed = self.arm(name, change);
        if armed.is_err_and(|errno| errno != STIRS) {
            self.remove(name);
        }
        armed
    }

    fn arm(&mut self, name: Name, change: &kevent) -> Result<(), Errno> {
        let inner = self.inner(name.0);
        let Some(knote) = self.knotes.get_mut(&name) else {
            return Ok(());
        };
        if change.flags & EV_ENABLE != 0 {
            knote.enabled = true;
        }
        if change.flags & EV_DISABLE != 0 {
            knote.enabled = false;
        }
        if name.0 == EVFILT_USER {
            // A trigger that comes with the event's addition is lost.
            knote.triggered |= change.fflags & NOTE_TRIGGER != 0 && change.flags & EV_ADD == 0;
            return if knote.triggered && knote.enabled { Err(STIRS) } else { Ok(()) };
        }
        if name.0 == EVFILT_TIMER {
            knote.due = Some(Instant::now() + knote.period());
            return Err(STIRS);
        }
        if !knote.enabled {
            self.unwatch(name);
            return Ok(());
        }
        let (fd, events, key) = (name.1 as RawFd, knote.epoll_events(), knote.key);
        match control(inner, libc::EPOLL_CTL_MOD, fd, events, key) {
            Err(libc::ENOENT) => control(inner, libc::EPOLL_CTL_ADD, fd, events, key),
            other => other,
        }
    }

    fn unwatch(&mut self, name: Name) {
        if is_of_descriptor(name.0) {
            let _ = control(self.inner(name.0), libc::EPOLL_CTL_DEL, name.1 as RawFd, 0, 0);
        }
    }

    fn remove(&mut self, name: Name) {
        if let Some(knote) = self.knotes.remove(&name) {
            self.names.remove(&knote.key);
        }
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.knotes.values().filter(|knote| knote.enabled).filter_map(|knote| knote.due).min()
    }

    /// Writes what is ready into `events`; how many.
    pub(super) fn collect(&mut self, events: &mut [kevent]) -> Result<usize, Errno> {
        let few = self.one_in(FEW);
        let room = if few { self.random.usize(1..=events.len()) } else { events.len() };
        let mut found = self.without_descriptors(room);
        let mut filters = [EVFILT_READ, EVFILT_WRITE];
        self.random.shuffle(&mut filters);
        for filter in filters {
            let room = room - found.len();
            found.extend(self.of_descriptors(filter, room)?);
        }
        if found.len() < room && self.one_in(SPURIOUS) {
            found.extend(self.spurious(&found));
        }
        self.random.shuffle(&mut found);
        events[..found.len()].copy_from_slice(&found);
        Ok(found.len())
    }

    /// User events and timers.
    fn without_descriptors(&mut self, room: usize) -> Vec<kevent> {
        let now = Instant::now();
        let is_ready = |knote: &&mut Knote| {
            knote.enabled && (knote.triggered || knote.due.is_some_and(|due| due <= now))
        };
        let mut found = Vec::new();
        for knote in self.knotes.values_mut().filter(is_ready).take(room) {
            let mut data = 0;
            if let Some(due) = &mut knote.due {
                data = 1 + ((now - *due).as_millis() / knote.change.data.max(1) as u128) as i64;
                *due = now + Duration::from_millis(knote.change.data.max(1) as u64);
            } else if knote.is(EV_CLEAR) {
                knote.triggered = false;
            }
            found.push(kevent { fflags: 0, data, ..knote.change });
        }
        found.iter().for_each(|told| self.told((told.filter, told.ident)));
        found
    }

    fn of_descriptors(&mut self, filter: i16, room: usize) -> Result<Vec<kevent>, Errno> {
        let mut ready = vec![libc::epoll_event { events: 0, u64: 0 }; room];
        if room == 0 {
            return Ok(Vec::new());
        }
        let inner = self.inner(filter);
        // SAFETY: the events are as many as is said and exclusively borrowed.
        let n = unsafe { libc::epoll_wait(inner, ready.as_mut_ptr(), room as libc::c_int, 0) };
        let n = usize::try_from(n).map_err(|_| last_errno())?;
        let (mut found, mut stale) = (Vec::new(), false);
        for event in &ready[..n] {
            let (key, events) = (event.u64, event.events);
            let name = self.names.get(&key).copied();
            match name.filter(|&name| self.is_current(name)) {
                Some(name) => {
                    found.push(self.event(name, events));
                    self.told(name);
                }
                None => stale = true,
            }
        }
        if stale {
            self.rebuild(filter)?;
        }
        Ok(found)
    }

    /// Whether a descriptor is still what it was when it was registered.
    fn is_current(&mut self, name: Name) -> bool {
        let current =
            self.knotes.get(&name).is_some_and(|knote| file_of(name.1).ok() == knote.file);
        if !current {
            self.remove(name);
        }
        current
    }

    fn event(&mut self, name: Name, events: u32) -> kevent {
        let change = self.knotes[&name].change;
        let has = |flag: i32| events & flag as u32 != 0;
        let fd = name.1 as RawFd;
        let over = match name.0 {
            EVFILT_READ => has(libc::EPOLLRDHUP) || has(libc::EPOLLHUP),
            // A pipe without a reader is told as an error.
            _ if has(libc::EPOLLERR) => has(libc::EPOLLHUP) || !is_socket(fd),
            _ => has(libc::EPOLLHUP) || is_shut_for_writing(fd),
        };
        let flags = if over { change.flags | EV_EOF } else { change.flags };
        let fflags = if over && has(libc::EPOLLERR) { libc::EXDEV as u32 } else { 0 };
        let data = if name.0 == EVFILT_READ { readable_bytes(fd) } else { 0 };
        kevent { flags, fflags, data, ..change }
    }

    /// What happens to a registration when it was told of.
    fn told(&mut self, name: Name) {
        let Some(knote) = self.knotes.get_mut(&name) else {
            return;
        };
        if knote.is(EV_DISPATCH) {
            knote.enabled = false;
            self.unwatch(name);
        } else if knote.is(EV_ONESHOT) {
            self.unwatch(name);
            self.remove(name);
        }
    }

    /// Writability without a reason, or, of one who waits for the end alone, a full buffer, which
    /// macOS tells.
    fn spurious(&mut self, found: &[kevent]) -> Option<kevent> {
        let names: Vec<Name> = self
            .knotes
            .iter()
            .filter(|((filter, ident), knote)| {
                (*filter == EVFILT_WRITE || (*filter == EVFILT_READ && knote.is_for_ends()))
                    && knote.enabled
                    && !found.iter().any(|told| (told.filter, told.ident) == (*filter, *ident))
            })
            .map(|(name, _)| *name)
            .collect();
        let name = *names.get(self.random.usize(..names.len().max(1)))?;
        if !self.is_current(name) {
            return None;
        }
        let knote = self.knotes.get(&name)?;
        // These would be used up by it.
        let spared = knote.is(EV_ONESHOT) || knote.is(EV_DISPATCH);
        (!spared).then_some(kevent { fflags: 0, data: 0, ..knote.change })
    }

    /// Begins anew with what is there, for a copy of a closed descriptor keeps it in epoll, where
    /// nobody can take it out.
    fn rebuild(&mut self, filter: i16) -> Result<(), Errno> {
        let fresh = epoll()?;
        control(self.outer, libc::EPOLL_CTL_ADD, fresh.as_raw_fd(), READABLE, 0)?;
        let old = if filter == EVFILT_READ { &mut self.readers } else { &mut self.writers };
        *old = fresh;
        let names: Vec<Name> =
            self.knotes.keys().copied().filter(|name| name.0 == filter).collect();
        for name in names {
            if self.is_current(name)
                && let Some(knote) = self.knotes.get(&name).filter(|knote| knote.enabled)
            {
                let (events, key) = (knote.epoll_events(), knote.key);
                let inner = self.inner(filter);
                control(inner, libc::EPOLL_CTL_ADD, name.1 as RawFd, events, key)?;
            }
        }
        Ok(())
    }
}
