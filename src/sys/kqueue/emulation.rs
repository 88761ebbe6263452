//! kqueue(2) on Linux, for tests alone: `--cfg reev_kqueue_emulation`.
//!
//! It does what the manuals of the five systems have in common, over epoll, and is as hostile as
//! they may be: it tells of writing without a reason, tells the events of one descriptor in any
//! order, tells EV_EOF with data still to read, puts into `fflags` an error that is not the
//! socket's, tells fewer events than there is room for, and is interrupted. A seed decides; it is
//! printed with a panic, and taken from REEV_KQUEUE_SEED.
//!
//! A queue is an epoll descriptor, which watches one of its own for reading, one for writing, and
//! an eventfd that stands for what happens without a descriptor. It is not told when a descriptor
//! is closed, so it compares what a descriptor is with what it was.

#![allow(non_camel_case_types, reason = "the names are the system's")]

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use libc::{c_int, c_void, timespec};

mod knotes;

use knotes::Knotes;

/// As on FreeBSD.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct kevent {
    pub(super) ident: usize,
    pub(super) filter: i16,
    pub(super) flags: u16,
    pub(super) fflags: u32,
    pub(super) data: i64,
    pub(super) udata: *mut c_void,
    pub(super) ext: [u64; 4],
}

// SAFETY: its pointer is a number, which nobody follows.
unsafe impl Send for kevent {}

pub(super) const EVFILT_READ: i16 = -1;
pub(super) const EVFILT_WRITE: i16 = -2;
pub(super) const EVFILT_TIMER: i16 = -7;
pub(super) const EVFILT_USER: i16 = -11;
pub(super) const EV_ADD: u16 = 0x1;
pub(super) const EV_DELETE: u16 = 0x2;
pub(super) const EV_ENABLE: u16 = 0x4;
pub(super) const EV_DISABLE: u16 = 0x8;
pub(super) const EV_ONESHOT: u16 = 0x10;
pub(super) const EV_CLEAR: u16 = 0x20;
pub(super) const EV_RECEIPT: u16 = 0x40;
pub(super) const EV_DISPATCH: u16 = 0x80;
pub(super) const EV_ERROR: u16 = 0x4000;
pub(super) const EV_EOF: u16 = 0x8000;
pub(super) const NOTE_LOWAT: u32 = 0x1;
pub(super) const NOTE_TRIGGER: u32 = 0x0100_0000;

/// What a call fails with.
type Errno = c_int;

struct Emulated {
    /// The epoll descriptor that is the queue's number.
    number: RawFd,
    /// Readable when something happened without a descriptor.
    stir: OwnedFd,
    knotes: Mutex<Knotes>,
}

/// The queues there are, by their numbers.
static QUEUES: LazyLock<Mutex<BTreeMap<RawFd, Arc<Emulated>>>> = LazyLock::new(Mutex::default);

static MADE: AtomicU64 = AtomicU64::new(0);

/// The seed of this process; from here on each panic tells it.
static SEED: LazyLock<u64> = LazyLock::new(|| {
    let given = std::env::var("REEV_KQUEUE_SEED").ok();
    let seed = given.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        eprintln!("kqueue emulation: REEV_KQUEUE_SEED={seed}");
        before(info);
    }));
    seed
});

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn last_errno() -> Errno {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

/// Leaves `errno` for the caller, as a system call does.
fn fail(errno: Errno) -> c_int {
    // SAFETY: the pointer is to this thread's own errno.
    unsafe { *libc::__errno_location() = errno };
    -1
}

/// A descriptor that the system just made.
fn owned(fd: c_int) -> Result<OwnedFd, Errno> {
    if fd < 0 {
        return Err(last_errno());
    }
    // SAFETY: the kernel just made this descriptor for us, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn epoll() -> Result<OwnedFd, Errno> {
    // SAFETY: the call has no pointers.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })
}

/// epoll_ctl(2).
fn control(epoll: RawFd, operation: c_int, fd: RawFd, events: u32, key: u64) -> Result<(), Errno> {
    let mut event = libc::epoll_event { events, u64: key };
    // SAFETY: the event lives through the call, which only reads it.
    match unsafe { libc::epoll_ctl(epoll, operation, fd, &mut event) } {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// kqueue(2); its number is given back to [`close`].
pub(super) unsafe fn kqueue() -> c_int {
    let made = || {
        let outer = epoll()?;
        // SAFETY: the call has no pointers.
        let stir = owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        control(outer.as_raw_fd(), libc::EPOLL_CTL_ADD, stir.as_raw_fd(), READABLE, 0)?;
        let seed = SEED.wrapping_add(MADE.fetch_add(1, Ordering::Relaxed));
        let knotes = Knotes::new(outer.as_raw_fd(), seed)?;
        let number = std::os::fd::IntoRawFd::into_raw_fd(outer);
        let queue = Emulated { number, stir, knotes: Mutex::new(knotes) };
        lock(&QUEUES).insert(number, Arc::new(queue));
        Ok(number)
    };
    made().unwrap_or_else(fail)
}

const READABLE: u32 = libc::EPOLLIN as u32;

/// close(2), of a queue.
pub(super) unsafe fn close(number: c_int) -> c_int {
    lock(&QUEUES).remove(&number);
    // SAFETY: the queue is gone, and with it all that knew the number.
    unsafe { libc::close(number) }
}

/// kevent(2).
///
/// # Safety
/// Changes and events are as many as is said, and the timeout is null or valid.
pub(super) unsafe fn kevent(
    number: c_int,
    changes: *const kevent,
    changes_len: c_int,
    events: *mut kevent,
    events_len: c_int,
    timeout: *const timespec,
) -> c_int {
    let queue = lock(&QUEUES).get(&number).cloned();
    let Some(queue) = queue else {
        return fail(libc::EBADF);
    };
    // SAFETY: by the caller's word the pointers are good for these lengths; a length of 0 comes
    // with the pointer of an empty slice.
    let (changes, events, timeout) = unsafe {
        (
            std::slice::from_raw_parts(changes, changes_len as usize),
            std::slice::from_raw_parts_mut(events, events_len as usize),
            timeout.as_ref(),
        )
    };
    let timeout =
        timeout.map(|timeout| Duration::new(timeout.tv_sec as u64, timeout.tv_nsec as u32));
    match queue.call(changes, events, timeout) {
        Ok(told) => told as c_int,
        Err(errno) => fail(errno),
    }
}

impl Emulated {
    fn call(
        &self,
        changes: &[kevent],
        events: &mut [kevent],
        timeout: Option<Duration>,
    ) -> Result<usize, Errno> {
        let mut answered = 0;
        for change in changes {
            let made = lock(&self.knotes).change(change);
            if made == Err(STIRS) {
                self.stir();
            }
            let errno = match made {
                Ok(()) | Err(STIRS) => 0,
                Err(errno) => errno,
            };
            if errno == 0 && change.flags & EV_RECEIPT == 0 {
                continue;
            }
            match events.get_mut(answered) {
                Some(answer) => {
                    *answer = kevent { flags: EV_ERROR, data: errno.into(), ..*change };
                    answered += 1;
                }
                None if errno != 0 => return Err(errno),
                None => {}
            }
        }
        if answered > 0 || events.is_empty() {
            return Ok(answered);
        }
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let next = {
                let mut knotes = lock(&self.knotes);
                self.calm();
                let told = knotes.collect(events)?;
                if told > 0 {
                    return Ok(told);
                }
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    return Ok(0);
                }
                if knotes.is_interrupted() {
                    return Err(libc::EINTR);
                }
                knotes.next_timer()
            };
            self.sleep(deadline.into_iter().chain(next).min())?;
        }
    }

    /// Something happened without a descriptor.
    fn stir(&self) {
        let one = 1u64;
        // SAFETY: the number lives through the call, which reads its eight bytes.
        unsafe { libc::write(self.stir.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    fn calm(&self) {
        let mut count = 0u64;
        // SAFETY: the number lives through the call, which writes its eight bytes.
        unsafe { libc::read(self.stir.as_raw_fd(), (&raw mut count).cast(), 8) };
    }

    /// Until something may be ready.
    fn sleep(&self, until: Option<Instant>) -> Result<(), Errno> {
        let mut poll = libc::pollfd { fd: self.number, events: libc::POLLIN, revents: 0 };
        let timeout = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|timeout| timespec {
            tv_sec: timeout.as_secs() as libc::time_t,
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), |timeout| &raw const *timeout);
        // SAFETY: one descriptor is said and given, the timeout is null or lives through the
        // call, and there is no signal mask.
        match unsafe { libc::ppoll(&mut poll, 1, timeout, std::ptr::null()) } {
            -1 => Err(last_errno()),
            _ => Ok(()),
        }
    }
}

/// No error: a change that has to end a sleep.
const STIRS: Errno = -1;
