//! What each call of kqueue(2) does, as a table: the same over the emulation and over a real
//! kernel, so that the one can be compared with the other.
//!
//! A row is a name, what is done, and what is then told. Calls are repeated where they are
//! interrupted, or tell less than there is.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Type};

use super::super::net;
use super::abi::{
    EV_ADD, EV_CLEAR, EV_DELETE, EV_DISABLE, EV_DISPATCH, EV_ENABLE, EV_EOF, EV_ERROR, EV_ONESHOT,
    EV_RECEIPT, EVFILT_READ, EVFILT_TIMER, EVFILT_USER, EVFILT_WRITE, Kevent, NOTE_LOWAT,
    NOTE_TRIGGER, Queue,
};

/// A queue under test, and a pair of connected sockets.
struct Probe {
    queue: Queue,
    near: UnixStream,
    far: UnixStream,
}

const NEAR: u64 = 7;

/// Numbers that no other descriptor of the process has.
const HIGH: RawFd = 210;

impl Probe {
    fn new() -> Probe {
        let (near, far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        Probe { queue: Queue::new().unwrap(), near, far }
    }

    fn change(&self, change: Kevent) -> io::Result<()> {
        self.queue.call(&[change], &mut [], None).map(drop)
    }

    /// A change of the near socket.
    fn near(&self, filter: i64, flags: u32) {
        self.change(of(&self.near, filter, flags)).unwrap();
    }

    /// The next event of `filter`; none if there is none for a while. Writability may be told
    /// without a reason, so its absence cannot be asked for.
    fn next(&self, filter: i64) -> Option<Kevent> {
        self.within(filter, Duration::from_millis(50))
    }

    fn within(&self, filter: i64, patience: Duration) -> Option<Kevent> {
        let deadline = Instant::now() + patience;
        let mut room = [Kevent::empty(); 4];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.queue.call(&[], &mut room, Some(left)) {
                Ok(told) => {
                    let found = room[..told].iter().find(|told| told.filter() == filter);
                    if let Some(&found) = found {
                        assert!(!found.has(EV_ERROR));
                        return Some(found);
                    }
                }
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::Interrupted),
            }
            if left.is_zero() {
                return None;
            }
        }
    }

    /// The event that must come.
    #[track_caller]
    fn sure(&self, filter: i64) -> Kevent {
        self.within(filter, Duration::from_secs(20)).expect("an event")
    }

    fn is_told(&self, filter: i64) -> bool {
        self.next(filter).is_some()
    }

    fn send(&mut self) {
        self.far.write_all(b"x").unwrap();
    }

    fn take(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.near.read(&mut bytes), Ok(n) if n > 0) {}
    }
}

fn of(fd: &impl AsFd, filter: i64, flags: u32) -> Kevent {
    Kevent::new(fd.as_fd().as_raw_fd() as usize, filter, flags, NEAR)
}

fn user(flags: u32, fflags: u32, udata: u64) -> Kevent {
    Kevent::new(1, EVFILT_USER, flags, udata).with(fflags, 0)
}

fn errno(done: io::Result<()>) -> Option<i32> {
    done.err().and_then(|error| error.raw_os_error())
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

/// A row: what is probed, and the probe, which asserts.
type Row = (&'static str, fn(&mut Probe));

const ROWS: &[Row] = &[
    ("level: told as long as it holds", |probe| {
        probe.near(EVFILT_READ, EV_ADD);
        assert!(!probe.is_told(EVFILT_READ));
        probe.send();
        let told = probe.sure(EVFILT_READ);
        assert_eq!((told.udata(), told.ident()), (NEAR, probe.near.as_raw_fd() as usize));
        probe.sure(EVFILT_READ);
        probe.sure(EVFILT_READ);
        probe.take();
        assert!(!probe.is_told(EVFILT_READ));
    }),
    ("level: what holds already is told", |probe| {
        probe.send();
        probe.near(EVFILT_READ, EV_ADD);
        probe.sure(EVFILT_READ);
    }),
    ("EV_CLEAR: told once, and again with what is new", |probe| {
        probe.near(EVFILT_READ, EV_ADD | EV_CLEAR);
        probe.send();
        probe.sure(EVFILT_READ);
        assert!(!probe.is_told(EVFILT_READ));
        probe.send();
        probe.sure(EVFILT_READ);
    }),
    ("EV_ONESHOT: told once, and gone", |probe| {
        probe.near(EVFILT_READ, EV_ADD | EV_ONESHOT);
        probe.send();
        probe.sure(EVFILT_READ);
        assert!(!probe.is_told(EVFILT_READ));
        let gone = errno(probe.change(of(&probe.near, EVFILT_READ, EV_DELETE)));
        assert_eq!(gone, Some(libc::ENOENT));
    }),
    ("EV_DISPATCH: told once, and off until it is enabled", |probe| {
        probe.near(EVFILT_READ, EV_ADD | EV_DISPATCH);
        probe.send();
        probe.sure(EVFILT_READ);
        assert!(!probe.is_told(EVFILT_READ));
        probe.near(EVFILT_READ, EV_ADD | EV_ENABLE);
        probe.sure(EVFILT_READ);
        assert!(!probe.is_told(EVFILT_READ), "it is EV_DISPATCH still");
    }),
    ("EV_DISABLE and EV_ENABLE", |probe| {
        probe.near(EVFILT_READ, EV_ADD);
        probe.near(EVFILT_READ, EV_DISABLE);
        probe.send();
        assert!(!probe.is_told(EVFILT_READ));
        probe.near(EVFILT_READ, EV_ENABLE);
        probe.sure(EVFILT_READ);
    }),
    ("adding again: the id changes, EV_CLEAR does not", |probe| {
        probe.near(EVFILT_READ, EV_ADD);
        let again = Kevent::new(probe.near.as_raw_fd() as usize, EVFILT_READ, EV_ADD | EV_CLEAR, 8);
        probe.change(again).unwrap();
        probe.send();
        assert_eq!(probe.sure(EVFILT_READ).udata(), 8);
        assert_eq!(probe.sure(EVFILT_READ).udata(), 8, "by level, and not twice");
    }),
    ("adding again what is EV_CLEAR: what holds is told once more", |probe| {
        probe.near(EVFILT_READ, EV_ADD | EV_CLEAR);
        probe.send();
        probe.sure(EVFILT_READ);
        assert!(!probe.is_told(EVFILT_READ));
        probe.near(EVFILT_READ, EV_ADD | EV_CLEAR);
        probe.sure(EVFILT_READ);
        assert!(!probe.is_told(EVFILT_READ), "it is EV_CLEAR still");
    }),
    ("deleting and adding in one call: another mode", |probe| {
        probe.near(EVFILT_READ, EV_ADD);
        let changes =
            [EV_DELETE, EV_ADD | EV_CLEAR].map(|flags| of(&probe.near, EVFILT_READ, flags));
        probe.queue.call(&changes, &mut [], None).unwrap();
        probe.send();
        probe.sure(EVFILT_READ);
        assert!(!probe.is_told(EVFILT_READ));
    }),
    ("deleting: nothing is told, and there is nothing to delete twice", |probe| {
        probe.near(EVFILT_READ, EV_ADD);
        probe.send();
        probe.near(EVFILT_READ, EV_DELETE);
        assert!(!probe.is_told(EVFILT_READ));
        let twice = errno(probe.change(of(&probe.near, EVFILT_READ, EV_DELETE)));
        assert_eq!(twice, Some(libc::ENOENT));
    }),
    ("NOTE_LOWAT of more than there is: the end alone is told", |probe| {
        let ends = of(&probe.near, EVFILT_READ, EV_ADD | EV_CLEAR);
        probe.change(ends.with(NOTE_LOWAT, i32::MAX.into())).unwrap();
        probe.send();
        assert!(probe.next(EVFILT_READ).is_none_or(|told| !told.has(EV_EOF)));
        probe.far.shutdown(Shutdown::Both).unwrap();
        while !probe.sure(EVFILT_READ).has(EV_EOF) {}
    }),
    ("NOTE_LOWAT and EV_CLEAR: an end that is there already is told", |probe| {
        probe.send();
        probe.far.shutdown(Shutdown::Both).unwrap();
        let ends = of(&probe.near, EVFILT_READ, EV_ADD | EV_CLEAR);
        probe.change(ends.with(NOTE_LOWAT, i32::MAX.into())).unwrap();
        while !probe.sure(EVFILT_READ).has(EV_EOF) {}
    }),
    ("EV_RECEIPT: each change is answered, and no event is told", |probe| {
        probe.send();
        probe.near(EVFILT_READ, EV_ADD);
        let add = of(&probe.near, EVFILT_WRITE, EV_ADD | EV_RECEIPT);
        let bad = Kevent::new(1_000_000, EVFILT_READ, EV_ADD | EV_RECEIPT, 9);
        let mut answers = [Kevent::empty(); 2];
        let told = probe.queue.call(&[add, bad], &mut answers, Some(Duration::ZERO)).unwrap();
        assert_eq!(told, 2);
        assert!(answers.iter().all(|answer| answer.has(EV_ERROR)));
        assert_eq!(answers.map(|answer| answer.data()), [0, i64::from(libc::EBADF)]);
        assert_eq!(answers.map(|answer| answer.udata()), [NEAR, 9]);
    }),
    ("an error with room for it is an event, and what is behind it is made", |probe| {
        let bad = Kevent::new(1_000_000, EVFILT_READ, EV_ADD, 9);
        let good = of(&probe.near, EVFILT_READ, EV_ADD);
        let mut room = [Kevent::empty(); 2];
        let told = probe.queue.call(&[bad, good], &mut room, Some(Duration::from_secs(20)));
        assert_eq!(told.unwrap(), 1);
        assert!(room[0].has(EV_ERROR) && room[0].udata() == 9);
        assert_eq!(room[0].data(), i64::from(libc::EBADF));
        probe.send();
        probe.sure(EVFILT_READ);
    }),
    ("an error without room is the call's, and what is behind it is not made", |probe| {
        let bad = Kevent::new(1_000_000, EVFILT_READ, EV_ADD, 9);
        let good = of(&probe.near, EVFILT_READ, EV_ADD);
        let done = probe.queue.call(&[bad, good], &mut [], None).map(drop);
        assert_eq!(errno(done), Some(libc::EBADF));
        probe.send();
        assert!(!probe.is_told(EVFILT_READ));
    }),
    ("EVFILT_USER: a trigger is told once, with its own udata", |probe| {
        probe.change(user(EV_ADD | EV_CLEAR, 0, 5)).unwrap();
        assert!(!probe.is_told(EVFILT_USER));
        for _ in 0..2 {
            probe.change(user(0, NOTE_TRIGGER, 5)).unwrap();
            probe.change(user(0, NOTE_TRIGGER, 5)).unwrap();
            assert_eq!(probe.sure(EVFILT_USER).udata(), 5);
            assert!(!probe.is_told(EVFILT_USER));
        }
        probe.change(user(EV_DELETE, 0, 5)).unwrap();
        assert_eq!(errno(probe.change(user(0, NOTE_TRIGGER, 5))), Some(libc::ENOENT));
    }),
    ("EVFILT_USER: the udata of a trigger is the event's from then on", |probe| {
        probe.change(user(EV_ADD | EV_CLEAR, 0, 5)).unwrap();
        probe.change(user(0, NOTE_TRIGGER, 6)).unwrap();
        assert_eq!(probe.sure(EVFILT_USER).udata(), 6);
    }),
    ("EVFILT_USER: a trigger ends another thread's wait", |probe| {
        probe.change(user(EV_ADD | EV_CLEAR, 0, 5)).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| probe.sure(EVFILT_USER).udata());
            std::thread::sleep(Duration::from_millis(20));
            probe.change(user(0, NOTE_TRIGGER, 5)).unwrap();
            assert_eq!(waits.join().unwrap(), 5);
        });
    }),
    ("EVFILT_TIMER: once and again", |probe| {
        let once = Kevent::new(1, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 5).with(0, 5);
        probe.change(once).unwrap();
        let told = probe.sure(EVFILT_TIMER);
        assert!(told.udata() == 5 && told.data() >= 1);
        assert!(!probe.is_told(EVFILT_TIMER));
        probe.change(Kevent::new(1, EVFILT_TIMER, EV_ADD, 6).with(0, 5)).unwrap();
        for _ in 0..3 {
            assert_eq!(probe.sure(EVFILT_TIMER).udata(), 6);
        }
        probe.change(Kevent::new(1, EVFILT_TIMER, EV_DELETE, 6)).unwrap();
        assert!(!probe.is_told(EVFILT_TIMER));
    }),
    ("close: the registration goes, though a copy of the descriptor lives", |probe| {
        let copy = numbered(&probe.near, HIGH);
        probe.change(of(&copy, EVFILT_READ, EV_ADD)).unwrap();
        drop(copy);
        probe.send();
        assert!(!probe.is_told(EVFILT_READ));
    }),
    ("reuse of a descriptor: its successor is not watched until it is added", |probe| {
        let copy = numbered(&probe.near, HIGH + 1);
        probe.change(of(&copy, EVFILT_READ, EV_ADD)).unwrap();
        drop(copy);
        let (near, mut far) = UnixStream::pair().unwrap();
        let successor = numbered(&near, HIGH + 1);
        far.write_all(b"x").unwrap();
        probe.send();
        assert!(!probe.is_told(EVFILT_READ));
        let add = Kevent::new(successor.as_raw_fd() as usize, EVFILT_READ, EV_ADD, 8);
        probe.change(add).unwrap();
        assert_eq!(probe.sure(EVFILT_READ).udata(), 8);
    }),
    ("half-close: EV_EOF of reading, with what is to be read before it", |probe| {
        probe.near(EVFILT_READ, EV_ADD);
        probe.near(EVFILT_WRITE, EV_ADD);
        probe.send();
        probe.far.shutdown(Shutdown::Write).unwrap();
        while !probe.sure(EVFILT_READ).has(EV_EOF) {}
        assert!(!probe.sure(EVFILT_WRITE).has(EV_EOF), "the other direction is open");
        assert_eq!(probe.near.read(&mut [0; 8]).unwrap(), 1);
        assert!(probe.sure(EVFILT_READ).has(EV_EOF), "by level");
        assert_eq!(probe.near.read(&mut [0; 8]).unwrap(), 0);
    }),
    ("own half-close: EV_EOF of writing", |probe| {
        probe.near.shutdown(Shutdown::Write).unwrap();
        probe.near(EVFILT_WRITE, EV_ADD);
        while !probe.sure(EVFILT_WRITE).has(EV_EOF) {}
    }),
    ("writing: not told when there is no room, and told when there is", |probe| {
        while probe.near.write(&[0; 4096]).is_ok() {}
        probe.near(EVFILT_WRITE, EV_ADD);
        probe.far.set_nonblocking(true).unwrap();
        while matches!(probe.far.read(&mut [0; 4096]), Ok(n) if n > 0) {}
        probe.sure(EVFILT_WRITE);
        assert!(probe.near.write(&[0; 1]).is_ok());
    }),
    ("reset: EV_EOF with an error in fflags, and the socket's own error", |probe| {
        let (near, far) = tcp();
        probe.change(of(&near, EVFILT_READ, EV_ADD)).unwrap();
        SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        let told = probe.sure(EVFILT_READ);
        assert!(told.has(EV_EOF) && told.fflags() != 0);
        let error = near.take_error().unwrap().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }),
    ("refused connect: EV_EOF of writing, and the socket's own error", |probe| {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let socket = net::socket(Domain::IPV4, Type::STREAM, None).unwrap();
        let _ = socket.connect(&nobody.into()); // under way, or refused at once
        probe.change(of(&socket, EVFILT_WRITE, EV_ADD)).unwrap();
        while !probe.sure(EVFILT_WRITE).has(EV_EOF) {}
        let error = socket.take_error().unwrap();
        assert!(error.is_none_or(|error| error.kind() == io::ErrorKind::ConnectionRefused));
        assert!(socket.peer_addr().is_err());
    }),
    ("a listener is readable while somebody waits", |probe| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        probe.change(of(&listener, EVFILT_READ, EV_ADD)).unwrap();
        assert!(!probe.is_told(EVFILT_READ));
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        probe.sure(EVFILT_READ);
        listener.accept().unwrap();
        assert!(!probe.is_told(EVFILT_READ));
    }),
];

/// A copy of a descriptor, with this number.
pub(super) fn numbered(fd: &impl AsFd, number: RawFd) -> OwnedFd {
    // SAFETY: the call has no pointers.
    let copy = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, number) };
    assert_eq!(copy, number, "the number is free");
    // SAFETY: the kernel just made this descriptor for us, so nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(copy) }
}

/// Every row that failed is named, so that one run on a new system tells all that differs.
#[test]
fn hard_case_39_each_call_does_what_the_table_says() {
    let has_user_events = Queue::new().unwrap().call(&[user(EV_ADD, 0, 0)], &mut [], None).is_ok();
    let mut failed = Vec::new();
    for (name, row) in ROWS {
        if name.starts_with("EVFILT_USER") && !has_user_events {
            continue; // the doorbell is a pipe there
        }
        let mut probe = Probe::new();
        let run = std::panic::AssertUnwindSafe(|| row(&mut probe));
        if std::panic::catch_unwind(run).is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "of {} rows: {failed:#?}", ROWS.len());
}
