//! How connections and watchers of the proactor end, from every side.

#[path = "support/proactor.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::poll::PollFlags;
use reev::proactor::{Conn, Deadline, Delegator, Kind, Watcher};
use socket2::SockRef;

use support::{collect, pair, wait_until};

/// `n` completions: context, kind, bytes and outcome.
type Outcome<T> = (T, Kind, usize, Result<(), ErrorKind>);

fn take<T: Send + 'static>(watcher: &mut Watcher<T>, n: usize) -> Vec<Outcome<T>> {
    collect(watcher, n, |done| {
        (done.context, done.kind, done.bytes, done.result.map_err(|error| error.kind()))
    })
}

/// Input that nobody has read would turn a plain close into a reset, which takes the answer with
/// it.
#[test]
fn unread_input_does_not_cut_what_was_written() {
    const SIZE: usize = 1 << 20;
    let (client, served) = pair();
    SockRef::from(&served).set_send_buffer_size(2 * SIZE).unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    (&client).write_all(&[1; 100_000]).unwrap();
    let answer: Vec<u8> = (0..SIZE).map(|i| (i / 251) as u8).collect();
    conn.write_by((), answer.clone(), Deadline::After(Duration::from_millis(50))).unwrap();
    let went = take(&mut watcher, 1)[0].2;
    assert!(went > 0);
    drop(conn);
    let mut all = Vec::new();
    (&client).read_to_end(&mut all).unwrap();
    assert!(all == answer[..went], "{} of {went} bytes", all.len());
}

/// The last handle and the watcher go at once; the system has the bytes.
#[test]
fn what_was_written_arrives_though_all_is_dropped_at_once() {
    for drop_conn_first in [true, false] {
        let (client, served) = pair();
        let mut watcher = Watcher::new().unwrap();
        let conn = watcher.delegate(served).unwrap();
        conn.write_by((), vec![3; 8 << 20], Deadline::After(Duration::from_millis(20))).unwrap();
        let went = take(&mut watcher, 1)[0].2;
        if drop_conn_first {
            drop(conn);
            drop(watcher);
        } else {
            drop(watcher);
            drop(conn);
        }
        let mut all = Vec::new();
        (&client).read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), went, "drop_conn_first: {drop_conn_first}");
    }
}

#[test]
fn a_watcher_that_is_closed_refuses_whatever_is_asked() {
    let (_client, served) = pair();
    let mut watcher: Watcher<&str> = Watcher::new().unwrap();
    let delegator = watcher.delegator();
    let conn = watcher.delegate(served).unwrap();
    delegator.close();
    delegator.close();
    assert_eq!(watcher.wait().unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(watcher.try_wait().unwrap_err().kind(), ErrorKind::NotConnected);
    let in_time = Duration::from_secs(1);
    assert_eq!(watcher.wait_timeout(in_time).unwrap_err().kind(), ErrorKind::NotConnected);
    let late = Deadline::After(in_time);
    assert_eq!(conn.read("read", None).unwrap_err().context, "read");
    assert_eq!(conn.read_by("by", Some(vec![1]), late).unwrap_err().buffer, Some(vec![1]));
    assert_eq!(conn.read_full("full", vec![2], late).unwrap_err().buffer, Some(vec![2]));
    assert_eq!(conn.write("write", vec![3]).unwrap_err().buffer, Some(vec![3]));
    let pieces = vec![vec![4], vec![5]];
    let refused = conn.write_vectored("pieces", pieces.clone(), late).unwrap_err();
    assert_eq!(refused.pieces, pieces);
    assert_eq!(std::io::Error::from(refused).kind(), ErrorKind::NotConnected);
    assert_eq!(conn.shutdown_write().unwrap_err().kind(), ErrorKind::NotConnected);
    assert!(!conn.is_open());
    let (_client, served) = pair();
    assert_eq!(delegator.delegate(served).unwrap_err().kind(), ErrorKind::NotConnected);
    delegator.close();
    drop(watcher);
    delegator.close();
    conn.free();
}

/// What is pending is cancelled in the order submitted, first the reads.
#[test]
fn what_is_cancelled_keeps_its_order() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(ours).unwrap();
    for i in 0..5 {
        conn.write(10 + i, vec![0; 8 << 20]).unwrap();
        conn.read(i, if i % 2 == 0 { None } else { Some(vec![0; 8]) }).unwrap();
    }
    conn.free();
    let order: Vec<i32> = take(&mut watcher, 10).into_iter().map(|got| got.0).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]);
}

/// Completions that the caller does not look at give back what they hold.
#[test]
fn completions_that_nobody_takes_are_dropped() {
    let context = Arc::new(());
    let mut watcher = Watcher::new().unwrap();
    let mut peers = Vec::new();
    for _ in 0..100 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let conn = watcher.delegate(ours).unwrap();
        conn.write(context.clone(), b"hello".to_vec()).unwrap();
        peers.push(theirs); // the completion has the last handle
    }
    drop(watcher.wait().unwrap());
    assert_eq!(Arc::strong_count(&context), 1);
    for mut peer in peers {
        let mut all = String::new();
        peer.read_to_string(&mut all).unwrap(); // to the FIN
        assert_eq!(all, "hello");
    }
}

/// A caller that panics among completions can go on waiting.
#[test]
fn a_panic_of_the_caller_harms_nobody() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    for i in 0..4 {
        conn.write(i, b"x".to_vec()).unwrap();
    }
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for done in watcher.wait().unwrap() {
            assert!(done.context < 2, "as it is meant to be");
        }
    }));
    assert!(panicked.is_err());
    conn.read(5, None).unwrap();
    client.write_all(b"y").unwrap();
    assert_eq!(take(&mut watcher, 1), [(5, Kind::Read, 1, Ok(()))]);
    let unwound = thread::spawn(move || {
        let _watcher = watcher;
        panic!("as it is meant to be");
    });
    assert!(unwound.join().is_err());
    assert!(conn.read(6, None).is_err());
}

/// Submits what it can until the connection is closed; how often it was accepted.
fn hammer(conn: &Conn<Arc<()>>, context: &Arc<()>, seed: usize) -> usize {
    let mut accepted = 0;
    for i in seed.. {
        let conn = conn.clone();
        let context = context.clone();
        let after = Deadline::After(Duration::from_micros((i % 5) as u64 * 100));
        let submitted = match i % 6 {
            0 => conn.read(context, None),
            1 => conn.read_by(context, Some(vec![0; 100]), after),
            2 => conn.read_full(context, vec![0; 300], after),
            3 => conn.write(context, vec![1; 2000]),
            4 => conn.write_by(context, vec![1; 100_000], after),
            _ => conn.write_vectored(context, vec![vec![1; 10]; 50], after),
        };
        match submitted {
            Ok(()) => accepted += 1,
            Err(_) => return accepted,
        }
    }
    accepted
}

/// Threads submit with clones of their own while the connection is freed or the watcher goes,
/// dropped by a thread that has not made it: all that was accepted comes back once, or is dropped
/// with the watcher.
#[test]
fn ends_from_other_threads_lose_nothing() {
    let context = Arc::new(());
    for round in 0..30 {
        let mut watcher: Watcher<Arc<()>> = Watcher::new().unwrap();
        let (client, served) = pair();
        let conn = watcher.delegate(served).unwrap();
        let ended = AtomicBool::new(false);
        let (began, all_began) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            let hammers: Vec<_> = (0..3)
                .map(|seed| {
                    let (conn, context, began) = (conn.clone(), &context, began.clone());
                    scope.spawn(move || {
                        began.send(()).unwrap();
                        hammer(&conn, context, seed)
                    })
                })
                .collect();
            // A peer that reads and writes, so that all goes on.
            scope.spawn(|| {
                client.set_nonblocking(true).unwrap();
                let mut buffer = [0; 50_000];
                while !ended.load(Ordering::Relaxed) {
                    let _ = (&client).read(&mut buffer);
                    let _ = (&client).write(&buffer[..3000]);
                }
            });
            (0..3).for_each(|_| all_began.recv().unwrap());
            match round % 3 {
                0 => {
                    let freeing = conn.clone();
                    scope.spawn(move || freeing.free());
                    let mut got = 0;
                    let mut accepted = None;
                    let mut hammers = Some(hammers);
                    while accepted.is_none_or(|accepted| got < accepted) {
                        got += watcher.wait_timeout(Duration::from_millis(1)).unwrap().count();
                        if !conn.is_open()
                            && let Some(hammers) = hammers.take()
                        {
                            accepted = Some(hammers.into_iter().map(|h| h.join().unwrap()).sum());
                        }
                    }
                    assert_eq!(Some(got), accepted);
                    assert_eq!(watcher.try_wait().unwrap().len(), 0);
                }
                1 => {
                    scope.spawn(move || drop(watcher)).join().unwrap();
                    assert!(hammers.into_iter().all(|hammer| hammer.join().is_ok()));
                }
                _ => {
                    let closing: Delegator<Arc<()>> = watcher.delegator();
                    scope.spawn(move || closing.close());
                    let mut got = 0;
                    while let Ok(completions) = watcher.wait() {
                        got += completions.count();
                    }
                    let accepted: usize = hammers.into_iter().map(|h| h.join().unwrap()).sum();
                    assert_eq!(got, accepted);
                }
            }
            ended.store(true, Ordering::Relaxed);
        });
        drop(conn);
        // The watcher's thread may be about to drop the last ones.
        while Arc::strong_count(&context) > 1 {
            thread::yield_now();
        }
    }
}

/// A peer that sends its FIN and waits gets all of the answer; our own FIN fails later writes, and
/// no reads.
#[test]
fn each_direction_ends_by_itself() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    conn.read("fin", None).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(take(&mut watcher, 1), [("fin", Kind::Read, 0, Ok(()))]);
    conn.write("answer", vec![9; 4 << 20]).unwrap();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).map(|_| (client, all.len()))
    });
    assert_eq!(take(&mut watcher, 1), [("answer", Kind::Write, 4 << 20, Ok(()))]);
    conn.shutdown_write().unwrap();
    assert_eq!(reader.join().unwrap().unwrap().1, 4 << 20);

    let (mut client, served) = pair();
    let conn = watcher.delegate(served).unwrap();
    conn.shutdown_write().unwrap();
    conn.write("after the fin", b"x".to_vec()).unwrap();
    let pipe = Err(ErrorKind::BrokenPipe);
    assert_eq!(take(&mut watcher, 1), [("after the fin", Kind::Write, 0, pipe)]);
    client.write_all(b"still").unwrap();
    drop(client);
    conn.read_full("still", vec![0; 5], Deadline::None).unwrap();
    conn.read("fin", None).unwrap();
    let got = take(&mut watcher, 2);
    assert_eq!(got, [("still", Kind::Read, 5, Ok(())), ("fin", Kind::Read, 0, Ok(()))]);
}

/// The first to meet a reset takes the socket's error; who comes later would see an end like any
/// other.
/// Planted: the end of a stream whose writes have failed is a FIN.
#[test]
fn a_reset_that_a_write_met_first_is_no_fin_for_the_reads() {
    for full in [false, true] {
        let (client, served) = pair();
        let seen = served.try_clone().unwrap();
        let mut watcher = Watcher::new().unwrap();
        let conn = watcher.delegate(served).unwrap();
        (&client).write_all(b"half of it").unwrap();
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        wait_until(&seen, PollFlags::POLLERR);
        conn.write("write", b"x".to_vec()).unwrap();
        let reset = Err(ErrorKind::ConnectionReset);
        assert_eq!(take(&mut watcher, 1), [("write", Kind::Write, 0, reset)]);
        conn.read("what arrived", Some(vec![0; 10])).unwrap();
        assert_eq!(take(&mut watcher, 1), [("what arrived", Kind::Read, 10, Ok(()))]);
        match full {
            true => conn.read_full("end", vec![0; 10], Deadline::None).unwrap(),
            false => conn.read("end", None).unwrap(),
        }
        let done = watcher.wait().unwrap().next().unwrap();
        let error = done.result.unwrap_err();
        assert_eq!((error.kind(), done.bytes), (ErrorKind::ConnectionReset, 0));
        assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ECONNRESET as i32));
        assert!(!conn.is_open());
    }
}
