//! The proactor, with real sockets, as a user has it.

#[path = "support/proactor.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod support;

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use reev::proactor::{Deadline, Kind, Watcher, WatcherConfig};

use support::{collect, pair, pattern};

/// One completion, its bytes copied.
struct Got<T> {
    context: T,
    kind: Kind,
    bytes: usize,
    result: Result<(), ErrorKind>,
    data: Vec<u8>,
    buffer: Option<Vec<u8>>,
    pieces: Vec<Vec<u8>>,
}

fn take<T: Send + 'static>(watcher: &mut Watcher<T>, n: usize) -> Vec<Got<T>> {
    collect(watcher, n, |done| Got {
        data: done.data().to_vec(),
        context: done.context,
        kind: done.kind,
        bytes: done.bytes,
        result: done.result.map_err(|error| error.kind()),
        buffer: done.buffer,
        pieces: done.pieces,
    })
}

#[test]
fn contexts_and_buffers_come_back() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    conn.read("owned", Some(vec![0; 16])).unwrap();
    client.write_all(b"hello").unwrap();
    let read = take(&mut watcher, 1).remove(0);
    assert_eq!((read.context, read.kind, read.bytes), ("owned", Kind::Read, 5));
    assert_eq!(read.result, Ok(()));
    assert_eq!(read.data, b"hello");
    assert_eq!(read.buffer.map(|buffer| buffer.len()), Some(16));

    conn.write("out", b"answer".to_vec()).unwrap();
    let write = take(&mut watcher, 1).remove(0);
    assert_eq!((write.context, write.kind, write.bytes), ("out", Kind::Write, 6));
    assert_eq!(write.buffer, Some(b"answer".to_vec()));
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

#[test]
fn nothing_is_read_before_a_read_is_submitted() {
    let (mut client, served) = UnixStream::pair().unwrap();
    let mut watcher: Watcher<()> = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    client.set_nonblocking(true).unwrap();
    let chunk = [7; 65_536];
    let mut sent = 0;
    // The socket's buffers fill up, and stay full.
    loop {
        match client.write(&chunk) {
            Ok(n) => sent += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    conn.read_full((), vec![0; sent], Deadline::None).unwrap();
    let read = take(&mut watcher, 1).remove(0);
    assert_eq!(read.bytes, sent);
    assert!(read.data.iter().all(|&byte| byte == 7));
}

#[test]
fn read_full_waits_for_all_and_tells_of_an_early_end() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    conn.read_full(1, vec![0; 100_000], Deadline::None).unwrap();
    conn.read_full(2, vec![0; 10], Deadline::None).unwrap();
    conn.read(3, None).unwrap();
    let data = pattern(100_000);
    let writer = thread::spawn({
        let data = data.clone();
        move || {
            data.chunks(999).for_each(|piece| client.write_all(piece).unwrap());
            client.write_all(b"short").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            client
        }
    });
    let got = take(&mut watcher, 3);
    assert_eq!(got.iter().map(|got| got.context).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(got[0].data, data);
    assert_eq!((got[1].bytes, got[1].result), (5, Err(ErrorKind::UnexpectedEof)));
    assert_eq!(got[1].data, b"short");
    assert_eq!((got[2].bytes, got[2].result), (0, Ok(())));
    // The other direction is still there.
    conn.write(4, b"bye".to_vec()).unwrap();
    assert_eq!(take(&mut watcher, 1)[0].result, Ok(()));
    let mut client = writer.join().unwrap();
    drop(conn);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye");
}

#[test]
fn a_huge_write_and_a_huge_read_at_once_do_not_wait_for_each_other() {
    const SIZE: usize = 16 << 20;
    let (client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let near = watcher.delegate(client).unwrap();
    let far = watcher.delegate(served).unwrap();
    let data = pattern(SIZE);
    for (conn, name) in [(&near, "near"), (&far, "far")] {
        conn.write(name, data.clone()).unwrap();
        conn.read_full(name, vec![0; SIZE], Deadline::None).unwrap();
    }
    for got in take(&mut watcher, 4) {
        assert_eq!((got.bytes, got.result), (SIZE, Ok(())), "{} {:?}", got.context, got.kind);
        assert!(got.kind == Kind::Write || got.data == data);
    }
}

#[test]
fn vectored_writes_are_one_stream_and_come_back_in_pieces() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    let pieces = vec![b"a".to_vec(), Vec::new(), pattern(200_000), b"z".to_vec()];
    conn.write_vectored((), pieces.clone(), Deadline::None).unwrap();
    conn.write((), Vec::new()).unwrap();
    let reader = thread::spawn(move || {
        let mut all = vec![0; 200_002];
        client.read_exact(&mut all).map(|()| all)
    });
    let got = take(&mut watcher, 2);
    assert_eq!(got[0].bytes, 200_002);
    assert_eq!(got[0].pieces, pieces);
    assert_eq!((got[1].bytes, got[1].result), (0, Ok(())));
    assert_eq!(reader.join().unwrap().unwrap(), pieces.concat());
}

#[test]
fn a_read_times_out_and_the_next_one_goes_on() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    let began = Instant::now();
    let soon = Duration::from_millis(30);
    conn.read_by("late", None, Deadline::After(soon)).unwrap();
    let got = take(&mut watcher, 1).remove(0);
    assert_eq!((got.context, got.result), ("late", Err(ErrorKind::TimedOut)));
    assert!(began.elapsed() >= soon);
    conn.read_by("passed", None, Deadline::At(began)).unwrap();
    assert_eq!(take(&mut watcher, 1)[0].result, Err(ErrorKind::TimedOut));
    conn.read_by("good", None, Deadline::After(Duration::from_secs(60))).unwrap();
    client.write_all(b"here").unwrap();
    let got = take(&mut watcher, 1).remove(0);
    assert_eq!((got.context, got.data.as_slice()), ("good", &b"here"[..]));
}

#[test]
fn a_write_that_times_out_says_how_much_went() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    let data = pattern(32 << 20);
    conn.write_by("big", data.clone(), Deadline::After(Duration::from_millis(50))).unwrap();
    let got = take(&mut watcher, 1).remove(0);
    assert_eq!(got.result, Err(ErrorKind::TimedOut));
    assert!(got.bytes > 0 && got.bytes < data.len());
    assert!(got.buffer.as_ref() == Some(&data));
    // Just that much arrives, then what is written next.
    conn.write("next", b"next".to_vec()).unwrap();
    conn.free();
    let mut all = Vec::new();
    let reader = thread::spawn(move || client.read_to_end(&mut all).map(|_| all));
    let next = take(&mut watcher, 1).remove(0);
    let all = reader.join().unwrap().unwrap();
    assert!(all[..got.bytes] == data[..got.bytes]);
    let went = if next.result.is_ok() { &b"next"[..] } else { b"" };
    assert_eq!(&all[got.bytes..], went);
}

#[test]
fn a_freed_connection_completes_what_was_pending_and_refuses_the_rest() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    conn.read("read", Some(vec![9; 3])).unwrap();
    conn.free();
    conn.free();
    let got = take(&mut watcher, 1).remove(0);
    assert_eq!((got.context, got.result), ("read", Err(ErrorKind::ConnectionAborted)));
    assert_eq!(got.buffer, Some(vec![9; 3]));
    let refused = conn.write("late", vec![1, 2]).unwrap_err();
    assert_eq!((refused.context, refused.buffer), ("late", Some(vec![1, 2])));
    assert!(!conn.is_open());
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn dropping_the_last_handle_closes() {
    let (mut client, served) = pair();
    let watcher: Watcher<()> = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    let other = conn.clone();
    drop(conn);
    other.write((), b"still".to_vec()).unwrap();
    let mut still = [0; 5];
    client.read_exact(&mut still).unwrap();
    drop(other);
    // The completion of the write holds a handle, until it is taken or dropped.
    let mut watcher = watcher;
    drop(watcher.wait().unwrap());
    assert_eq!(client.read(&mut still).unwrap(), 0);
}

#[test]
fn a_peer_that_is_gone_fails_reads_and_writes() {
    let (client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    conn.read(0, None).unwrap();
    drop(client);
    assert_eq!(take(&mut watcher, 1)[0].bytes, 0);
    // The first write is answered by a reset, which a later one meets.
    let mut failed = false;
    for i in 1..100 {
        if conn.write(i, vec![0; 1000]).is_err() {
            failed = true;
            break;
        }
        failed |= take(&mut watcher, 1)[0].result.is_err();
    }
    assert!(failed);
}

#[test]
fn a_dropped_watcher_closes_everything_and_waits_for_nobody() {
    let (mut client, served) = pair();
    let watcher: Watcher<()> = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    conn.read((), None).unwrap();
    drop(watcher);
    assert!(conn.read((), None).is_err());
    match client.read(&mut [0]) {
        Ok(n) => assert_eq!(n, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn waiting_after_close_ends() {
    let (_client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let delegator = watcher.delegator();
    let conn = watcher.delegate(served).unwrap();
    conn.read("pending", None).unwrap();
    let closer = thread::spawn(move || delegator.close());
    let got = take(&mut watcher, 1).remove(0);
    assert_eq!(got.result, Err(ErrorKind::ConnectionAborted));
    assert_eq!(watcher.wait().unwrap_err().kind(), ErrorKind::NotConnected);
    closer.join().unwrap();
    let (_client, served) = pair();
    assert!(watcher.delegate(served).is_err());
}

#[test]
fn waits_that_do_not_wait() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    assert_eq!(watcher.try_wait().unwrap().len(), 0);
    assert_eq!(watcher.wait_timeout(Duration::from_millis(5)).unwrap().len(), 0);
    let conn = watcher.delegate(served).unwrap();
    conn.read((), None).unwrap();
    client.write_all(b"x").unwrap();
    assert_eq!(watcher.wait_timeout(Duration::from_secs(60)).unwrap().len(), 1);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |config: WatcherConfig| {
        let error = Watcher::<()>::with_config(&config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    };
    refused(WatcherConfig { core: Some(100_000), ..WatcherConfig::default() });
    refused(WatcherConfig { swap_buffer: 0, ..WatcherConfig::default() });
    refused(WatcherConfig { read_buffer: 1, ..WatcherConfig::default() });
}

/// Planted: a buffer of no bytes is read into.
#[test]
fn a_buffer_of_no_bytes_is_no_end_of_the_stream() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    client.write_all(b"xy").unwrap();
    conn.read(1, Some(Vec::new())).unwrap();
    conn.read_full(2, Vec::new(), Deadline::None).unwrap();
    conn.read_full(3, vec![0; 2], Deadline::None).unwrap();
    let got = take(&mut watcher, 3);
    assert_eq!((got[0].context, got[0].result), (1, Err(ErrorKind::InvalidInput)));
    assert_eq!((got[1].context, got[1].result), (2, Err(ErrorKind::InvalidInput)));
    assert_eq!((got[2].context, got[2].data.as_slice()), (3, &b"xy"[..]));
}

/// Planted: a part is written from the buffer's start.
#[test]
fn a_part_is_written_and_the_buffer_comes_back_whole() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    let buffer = pattern(10);
    conn.write_part((), buffer.clone(), 3..7, Deadline::None).unwrap();
    let got = take(&mut watcher, 1).remove(0);
    assert_eq!((got.bytes, got.buffer.as_ref()), (4, Some(&buffer)));
    let mut part = [0; 4];
    client.read_exact(&mut part).unwrap();
    assert_eq!(part, buffer[3..7]);
}

#[test]
#[should_panic(expected = "is not within a buffer of 3 bytes")]
fn a_part_outside_of_its_buffer_is_a_mistake() {
    let (_client, served) = pair();
    let watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    let _ = conn.write_part((), vec![0; 3], 2..4, Deadline::None);
}

/// Whatever the outcome, it is the caller's own value that comes back, not a copy.
/// Planted: `fail` forgets the writes.
#[test]
fn every_outcome_gives_the_context_back() {
    let (client, served) = UnixStream::pair().unwrap();
    let mut watcher: Watcher<Arc<str>> = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    let names: Vec<Arc<str>> = ["done", "late", "blocked", "aborted"].map(Arc::from).into();
    conn.write(names[0].clone(), b"x".to_vec()).unwrap();
    let soon = Deadline::After(Duration::from_millis(1));
    conn.read_by(names[1].clone(), None, soon).unwrap();
    let mut got = take(&mut watcher, 2);
    conn.write(names[2].clone(), vec![0; 16 << 20]).unwrap();
    conn.read(names[3].clone(), None).unwrap();
    conn.free();
    got.extend(take(&mut watcher, 2));
    for name in &names {
        assert!(got.iter().any(|got| Arc::ptr_eq(&got.context, name)), "{name} did not come back");
    }
    let refused = conn.read(names[0].clone(), None).unwrap_err();
    assert!(Arc::ptr_eq(&refused.context, &names[0]));
    let refused = conn.write_vectored(names[1].clone(), vec![vec![1]], soon).unwrap_err();
    assert!(Arc::ptr_eq(&refused.context, &names[1]));
    assert_eq!(refused.pieces, [[1]]);
    drop((got, refused, client));
    drop(watcher);
    assert!(names.iter().all(|name| Arc::strong_count(name) <= 2), "a context leaked");
}

/// By the watcher's own clock no operation ends before its deadline, and of many the earlier
/// ends first, to a millisecond, in whatever order they were submitted.
/// Planted: deadlines are met a millisecond early.
#[test]
fn deadlines_are_kept_to_a_millisecond() {
    let mut slack = Duration::from_millis(200);
    let order = loop {
        let mut watcher = Watcher::new().unwrap();
        let mut kept = Vec::new();
        let first = Instant::now() + slack;
        for i in 0..100u32 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let conn = watcher.delegate(ours).unwrap();
            let nth = i * 37 % 100; // each once, in disorder
            let at = first + Duration::from_millis(nth.into());
            conn.read_by((nth, at), Some(vec![0; 8]), Deadline::At(at)).unwrap();
            kept.push((conn, theirs));
        }
        // When this one is late, the watcher has looked at all of those before it.
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let last = watcher.delegate(ours).unwrap();
        let soon = Deadline::After(Duration::from_millis(1));
        last.read_by((1000, Instant::now()), None, soon).unwrap();
        let mut order = Vec::new();
        let mut in_time = false;
        while order.len() < 101 {
            for done in watcher.wait().unwrap() {
                let (nth, at) = done.context;
                assert_eq!(done.result.unwrap_err().kind(), ErrorKind::TimedOut);
                assert!(Instant::now() >= at, "{nth} ended early");
                in_time |= nth == 1000 && Instant::now() < first;
                order.push(nth);
            }
        }
        if in_time {
            break order;
        }
        slack *= 2; // a machine that held us up has shown nothing
    };
    let expected: Vec<u32> = std::iter::once(1000).chain(0..100).collect();
    assert_eq!(order, expected);
}

/// Planted: the watcher looks only at the first deadline of a connection.
#[test]
fn deadlines_of_one_connection_end_in_their_own_order() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    let after = |ms| Deadline::After(Duration::from_millis(ms));
    conn.read_full("half", vec![0; 4], after(60)).unwrap();
    conn.read_by("soon", None, after(5)).unwrap();
    conn.read_by("middle", None, after(30)).unwrap();
    conn.read("never", None).unwrap();
    client.write_all(b"ab").unwrap();
    let got = take(&mut watcher, 3);
    let order: Vec<_> = got.iter().map(|got| (got.context, got.result, got.bytes)).collect();
    let late = Err(ErrorKind::TimedOut);
    assert_eq!(order, [("soon", late, 0), ("middle", late, 0), ("half", late, 2)]);
    assert_eq!(got[2].data, b"ab");
    client.write_all(b"cd").unwrap();
    assert_eq!(take(&mut watcher, 1)[0].context, "never");
}

/// Planted: the porter does not mind when the caller stays away.
#[test]
fn what_was_submitted_goes_on_while_the_caller_is_busy() {
    const SIZE: usize = 8 << 20;
    let (client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    let data = pattern(SIZE);
    for round in 0..5 {
        conn.write(round, data.clone()).unwrap();
        conn.read_full(round, vec![0; SIZE], Deadline::None).unwrap();
        // Nobody waits until the peer has had and given all.
        let mut all = vec![0; SIZE];
        thread::scope(|scope| {
            scope.spawn(|| (&client).read_exact(&mut all).unwrap());
            scope.spawn(|| (&client).write_all(&data).unwrap());
        });
        assert!(all == data);
        for got in take(&mut watcher, 2) {
            assert_eq!((got.context, got.bytes, got.result), (round, SIZE, Ok(())));
        }
        // The next time the caller comes from a wait in which the porter may have gone to rest.
        let rests = Duration::from_millis(10 * (round % 2));
        assert_eq!(watcher.wait_timeout(rests).unwrap().len(), 0);
    }
}

/// Planted: a wait looks at the poller only when nothing has completed.
#[test]
fn what_always_completes_does_not_keep_from_the_rest() {
    let (mut client, served) = UnixStream::pair().unwrap();
    let (sink, writer) = UnixStream::pair().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let (reader, writer) = (watcher.delegate(served).unwrap(), watcher.delegate(writer).unwrap());
    reader.read("read", None).unwrap();
    client.write_all(b"x").unwrap();
    for _ in 0..100 {
        writer.write("write", Vec::new()).unwrap();
        if watcher.wait().unwrap().any(|done| done.context == "read") {
            drop(sink);
            return;
        }
    }
    panic!("the read did not get its turn");
}

/// Planted: a completion does not ring for a caller that polls.
#[test]
fn a_submission_of_another_thread_wakes_the_caller() {
    let (_client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    for i in 0..200 {
        let other = conn.clone();
        let submitter = thread::spawn(move || other.write(i, b"x".to_vec()).unwrap());
        assert_eq!(take(&mut watcher, 1)[0].context, i);
        submitter.join().unwrap();
    }
}

#[test]
fn a_half_close_is_behind_what_was_written() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    assert_eq!(conn.peer().socket_addr(), client.local_addr().ok());
    assert_eq!(conn.local_addr().unwrap().socket_addr(), client.peer_addr().ok());
    conn.write("big", pattern(16 << 20)).unwrap();
    assert_eq!(conn.shutdown_write().unwrap_err().kind(), ErrorKind::WouldBlock);
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        client.read_to_end(&mut all).unwrap();
        client.write_all(b"all of it").unwrap();
        all.len()
    });
    assert_eq!(take(&mut watcher, 1)[0].result, Ok(()));
    conn.shutdown_write().unwrap();
    assert_eq!(reader.join().unwrap(), 16 << 20);
    conn.read("answer", None).unwrap();
    assert_eq!(take(&mut watcher, 1)[0].data, b"all of it");
    conn.write("more", b"x".to_vec()).unwrap();
    assert_eq!(take(&mut watcher, 1)[0].result, Err(ErrorKind::BrokenPipe));
    conn.free();
    assert_eq!(conn.shutdown_write().unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(conn.local_addr().unwrap_err().kind(), ErrorKind::NotConnected);
}

#[test]
fn a_core_that_is_not_there_is_refused() {
    let mut watcher: Watcher<()> = Watcher::new().unwrap();
    assert_eq!(watcher.pin(100_000).unwrap_err().kind(), ErrorKind::InvalidInput);
    let core = core_affinity::get_core_ids().unwrap()[0].id;
    watcher.pin(core).unwrap();
    watcher.delegator().close();
    assert_eq!(watcher.wait().unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(watcher.pin(core).unwrap_err().kind(), ErrorKind::NotConnected);
    let pinned = WatcherConfig { core: Some(core), ..WatcherConfig::default() };
    assert_eq!(Watcher::<()>::with_config(&pinned).unwrap().try_wait().unwrap().len(), 0);
}

/// Echoes whatever comes through the swap buffer, however small that is.
fn echo_until_closed(mut watcher: Watcher<()>) {
    while let Ok(completions) = watcher.wait() {
        for done in completions {
            if done.kind == Kind::Read && done.result.is_ok() && done.bytes > 0 {
                let _ = done.conn.write((), done.data().to_vec());
                let _ = done.conn.read((), None);
            }
        }
    }
}

fn echoes(clients: usize, size: usize, swap_buffer: usize) {
    let config = WatcherConfig { swap_buffer, ..WatcherConfig::default() };
    let server = Watcher::with_config(&config).unwrap();
    let delegator = server.delegator();
    let (closed, wait_closed) =
        (server.delegator(), thread::spawn(move || echo_until_closed(server)));
    let mut near: Watcher<usize> = Watcher::new().unwrap();
    let data = pattern(size);
    let mut conns = HashMap::new();
    for i in 0..clients {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let served = delegator.delegate(theirs).unwrap();
        served.read((), None).unwrap();
        let conn = near.delegate(ours).unwrap();
        conn.read_full(i, vec![0; size], Deadline::After(Duration::from_secs(120))).unwrap();
        conn.write(i, data.clone()).unwrap();
        conns.insert(i, (conn, served));
    }
    for got in take(&mut near, 2 * clients) {
        assert_eq!((got.result, got.bytes), (Ok(()), size));
        assert!(got.kind == Kind::Write || got.data == data);
    }
    drop(conns);
    closed.close();
    wait_closed.join().unwrap();
}

#[test]
fn parallel_echoes_with_large_and_small_buffers() {
    echoes(1, 1, 4096);
    echoes(1000, 1024, 256 << 10);
    echoes(20, 50_000, 4096);
    echoes(4, 2 << 20, 256 << 10);
}

#[test]
fn many_threads_submit_to_one_watcher() {
    let mut watcher = Watcher::new().unwrap();
    let (tell, told) = mpsc::channel();
    let threads: Vec<_> = (0..4)
        .map(|t| {
            let (delegator, tell) = (watcher.delegator(), tell.clone());
            thread::spawn(move || -> io::Result<()> {
                let (ours, mut theirs) = UnixStream::pair()?;
                let conn = delegator.delegate(ours)?;
                for i in 0..500 {
                    conn.write(t * 1000 + i, vec![i as u8; 10])?;
                }
                let mut all = vec![0; 5000];
                theirs.read_exact(&mut all)?;
                tell.send(all).unwrap();
                Ok(())
            })
        })
        .collect();
    let got = take(&mut watcher, 2000);
    for t in 0..4 {
        let order: Vec<usize> =
            got.iter().map(|got| got.context).filter(|c| c / 1000 == t).collect();
        assert!(order.is_sorted() && order.len() == 500);
        let all = told.recv().unwrap();
        assert!(all.chunks(10).enumerate().all(|(i, c)| c.iter().all(|&b| b == i as u8)));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
}
