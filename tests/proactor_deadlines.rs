//! Deadlines of the proactor: neither early nor late, and what they leave behind.

#[path = "support/proactor.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use reev::proactor::{Deadline, Kind, Watcher};

use support::{collect, pattern};

const MS: Duration = Duration::from_millis(1);

/// `n` completions: context, bytes and outcome.
fn take<T: Send + 'static>(
    watcher: &mut Watcher<T>,
    n: usize,
) -> Vec<(T, usize, Result<(), ErrorKind>)> {
    collect(watcher, n, |done| {
        (done.context, done.bytes, done.result.map_err(|error| error.kind()))
    })
}

/// A busy machine makes any of them late, and rounding all: in some twenty in a row, nearly all are
/// in time.
/// Planted: deadlines are rounded up to two milliseconds.
#[test]
fn deadlines_are_met_within_a_millisecond() {
    const IN_A_ROW: u32 = 20;
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(ours).unwrap();
    for _ in 0..1000 {
        let mut in_time = 0;
        for i in 0..IN_A_ROW {
            let at = Instant::now() + Duration::from_micros(300 + 317 * u64::from(i));
            conn.read_by((), None, Deadline::At(at)).unwrap();
            assert_eq!(take(&mut watcher, 1)[0].2, Err(ErrorKind::TimedOut));
            let late = Instant::now().checked_duration_since(at).expect("never early");
            in_time += u32::from(late < MS);
        }
        if in_time >= IN_A_ROW - 2 {
            return;
        }
    }
    panic!("none were in time");
}

/// The poller has not told of it when the deadline comes: the caller does something else.
/// Planted: what times out is not attempted once more; of many, as many as have their turn else.
#[test]
fn what_has_arrived_by_the_deadline_counts() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (other, mut others_peer) = UnixStream::pair().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(ours).unwrap();
    let other = watcher.delegate(other).unwrap();
    let (ask, asked) = mpsc::channel::<()>();
    let answering = thread::spawn(move || {
        asked.iter().for_each(|()| others_peer.write_all(b"y").unwrap());
    });
    for round in 0..300 {
        let reads = [1, 100][round % 2];
        // Something comes while the caller waits: the watcher's thread leaves the poller to it.
        other.read((), None).unwrap();
        ask.send(()).unwrap();
        assert_eq!(take(&mut watcher, 1)[0].1, 1);
        let at = Instant::now() + MS;
        for _ in 0..reads {
            conn.read_by((), Some(vec![0; 1]), Deadline::At(at)).unwrap();
        }
        theirs.write_all(&vec![b'x'; reads]).unwrap();
        let in_time = Instant::now() < at;
        while Instant::now() < at + MS / 2 {}
        let late = take(&mut watcher, reads).iter().filter(|(_, bytes, _)| *bytes == 0).count();
        assert!(!in_time || late == 0, "{late} of {reads} timed out, and all was there");
        if late > 0 {
            conn.read_full((), vec![0; late], Deadline::None).unwrap();
            assert_eq!(take(&mut watcher, 1)[0].1, late);
        }
    }
    drop(ask);
    answering.join().unwrap();
}

/// What has arrived is read though the deadline has passed before the submission.
#[test]
fn a_deadline_that_has_passed_allows_what_needs_no_waiting() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(ours).unwrap();
    let passed = || [Deadline::At(Instant::now() - MS), Deadline::After(Duration::ZERO)];
    for deadline in passed() {
        conn.read_by("nothing", None, deadline).unwrap();
        assert_eq!(take(&mut watcher, 1), [("nothing", 0, Err(ErrorKind::TimedOut))]);
        theirs.write_all(b"abc").unwrap();
        conn.read_by("there", None, deadline).unwrap();
        assert_eq!(take(&mut watcher, 1), [("there", 3, Ok(()))]);
        conn.write_by("write", vec![1; 10], deadline).unwrap();
        assert_eq!(take(&mut watcher, 1), [("write", 10, Ok(()))]);
    }
}

/// Times that no clock reaches are no deadlines.
#[test]
fn deadlines_may_be_as_far_as_there_are_numbers() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(ours).unwrap();
    let years = |n: u64| Duration::from_secs(n * 365 * 24 * 3600);
    let far = [
        Deadline::After(Duration::MAX),
        Deadline::After(years(1000)),
        Deadline::At(Instant::now() + years(100_000)),
        Deadline::After(Duration::from_secs(u64::MAX >> 1)),
    ];
    for (i, deadline) in far.into_iter().enumerate() {
        conn.read_by(i, None, deadline).unwrap();
        for timeout in [Duration::ZERO, MS] {
            assert_eq!(watcher.wait_timeout(timeout).unwrap().len(), 0);
        }
        theirs.write_all(b"x").unwrap();
        let timeout = [Duration::MAX, years(1000), Duration::from_secs(u64::MAX >> 1)][i % 3];
        let done: Vec<usize> =
            watcher.wait_timeout(timeout).unwrap().map(|done| done.context).collect();
        assert_eq!(done, [i]);
    }
    // They keep no nearer one from being met.
    conn.read_by(10, None, far[0]).unwrap();
    conn.read_by(11, None, far[2]).unwrap();
    conn.read_by(12, None, Deadline::After(MS)).unwrap();
    assert_eq!(take(&mut watcher, 1), [(12, 0, Err(ErrorKind::TimedOut))]);
}

/// Writes that time out say what went, whatever they were made of; what waits behind one that is
/// stuck times out by itself, and before it unless the machine was too busy to look in between.
#[test]
fn what_went_of_each_write_is_said() {
    const SIZE: usize = 1 << 20;
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(ours).unwrap();
    let data = pattern(SIZE);
    let pieces: Vec<Vec<u8>> = data.chunks(999).flat_map(|c| [c.to_vec(), Vec::new()]).collect();
    let mut behind_is_first = |kind| {
        match kind {
            0 => conn.write_by("first", data.clone(), Deadline::After(20 * MS)),
            1 => conn.write_part("first", data.clone(), 0..SIZE, Deadline::After(20 * MS)),
            _ => conn.write_vectored("first", pieces.clone(), Deadline::After(20 * MS)),
        }
        .unwrap();
        conn.write_by("behind", data.clone(), Deadline::After(5 * MS)).unwrap();
        conn.write("last", b"last".to_vec()).unwrap();
        let got = take(&mut watcher, 2);
        let late = Err(ErrorKind::TimedOut);
        assert!(got.contains(&("behind", 0, late)), "{got:?}");
        let first = got.iter().find(|(context, ..)| *context == "first");
        let &(_, went, result) = first.expect("both are late");
        assert_eq!(result, late);
        assert!(went < SIZE);
        // The peer makes room for the last one.
        let mut all = vec![0; went + 4];
        theirs.read_exact(&mut all).unwrap();
        assert!(all[..went] == data[..went] && all[went..] == *b"last", "of kind {kind}, {went}");
        assert_eq!(take(&mut watcher, 1), [("last", 4, Ok(()))]);
        got[0].0 == "behind"
    };
    for kind in 0..3 {
        assert!((0..100).any(|_| behind_is_first(kind)), "of kind {kind}: always behind it");
    }
}

/// Many on one connection, in disorder, end in order.
#[test]
fn thousands_of_deadlines_of_one_connection() {
    const COUNT: usize = 5000;
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(ours).unwrap();
    let begin = Instant::now() + 100 * MS;
    for i in 0..COUNT {
        let nth = i * 1999 % COUNT; // each once
        let at = begin + Duration::from_micros(20 * nth as u64);
        conn.read_by(Some(at), Some(vec![0; 16]), Deadline::At(at)).unwrap();
    }
    conn.read(None, None).unwrap();
    let mut ended = 0;
    while ended < COUNT {
        for done in watcher.wait().unwrap() {
            assert_eq!(done.result.unwrap_err().kind(), ErrorKind::TimedOut);
            assert!(Instant::now() >= done.context.unwrap());
            ended += 1;
        }
    }
    theirs.write_all(b"x").unwrap();
    assert_eq!(take(&mut watcher, 1), [(None, 1, Ok(()))]);
}

/// A deadline that is moved on with each message, as servers have it, ends nobody who talks.
#[test]
fn deadlines_that_are_moved_on_do_not_strike() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(ours).unwrap();
    let talker = thread::spawn(move || {
        let mut echo = [0; 4];
        for i in 0..2000u32 {
            theirs.write_all(&i.to_be_bytes()).unwrap();
            theirs.read_exact(&mut echo).unwrap();
            assert_eq!(u32::from_be_bytes(echo), i);
        }
        theirs
    });
    let in_time = Deadline::After(Duration::from_secs(60));
    conn.read_full((), vec![0; 4], in_time).unwrap();
    for _ in 0..4000 {
        let mut completions = watcher.wait().unwrap();
        let done = completions.next().unwrap();
        assert!(done.result.is_ok());
        match done.kind {
            Kind::Read => conn.write_by((), done.buffer.unwrap(), in_time).unwrap(),
            _ => conn.read_full((), done.buffer.unwrap(), in_time).unwrap(),
        }
    }
    drop(talker.join().unwrap());
    assert_eq!(take(&mut watcher, 1)[0].2, Err(ErrorKind::UnexpectedEof));
}
