//! The proactor's swap buffer: what is lent is right, it is used to its end, and who waits for it
//! has a turn.

#[path = "support/proactor.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod support;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use proptest::prelude::*;
use reev::proactor::{Conn, Deadline, Kind, Watcher, WatcherConfig};

use support::pattern;

fn watcher<T: Send + 'static>(swap_buffer: usize) -> Watcher<T> {
    Watcher::with_config(&WatcherConfig { swap_buffer, ..WatcherConfig::default() }).unwrap()
}

/// One step of a peer that sends and a caller that reads.
#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Swap,
    Owned(usize),
    Full(usize),
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..6000usize).prop_map(Step::Send),
        3 => Just(Step::Swap),
        2 => (1..3000usize).prop_map(Step::Owned),
        1 => (1..3000usize).prop_map(Step::Full),
        2 => Just(Step::Wait),
    ]
}

/// Connections share the buffer; each byte arrives once and in order, whichever way it is read.
fn run(steps: &[(usize, Step)], swap_buffer: usize) {
    const CONNS: usize = 3;
    let mut watcher: Watcher<(usize, usize)> = watcher(swap_buffer);
    let (mut conns, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..CONNS {
        let (ours, theirs) = UnixStream::pair().unwrap();
        conns.push(watcher.delegate(ours).unwrap());
        peers.push(theirs);
    }
    let all = pattern(400_000);
    let (mut sent, mut got) = ([0; CONNS], [0; CONNS]);
    let mut pending: [VecDeque<usize>; CONNS] = Default::default();
    let mut serial = 0;
    let mut check =
        |watcher: &mut Watcher<(usize, usize)>, pending: &mut [VecDeque<usize>; CONNS], end| {
            let completions = if end { watcher.wait() } else { watcher.try_wait() };
            let mut lent = 0;
            for done in completions.unwrap() {
                let (conn, nth) = done.context;
                assert_eq!(pending[conn].pop_front(), Some(nth), "out of order");
                assert_eq!(done.data().len(), done.bytes);
                assert_eq!(done.data(), &all[got[conn]..][..done.bytes]);
                got[conn] += done.bytes;
                lent += if done.buffer.is_none() { done.bytes } else { 0 };
            }
            assert!(lent <= swap_buffer, "{lent} bytes lent of {swap_buffer}");
            got
        };
    for (at, step) in steps {
        let (conn, context) = (&conns[*at], (*at, serial));
        match step {
            Step::Send(n) if sent[*at] - check(&mut watcher, &mut pending, false)[*at] < 50_000 => {
                let n = (*n).min(all.len() - sent[*at]);
                peers[*at].write_all(&all[sent[*at]..][..n]).unwrap();
                sent[*at] += n;
            }
            Step::Send(_) => {}
            Step::Swap => conn.read(context, None).unwrap(),
            Step::Owned(n) => conn.read(context, Some(vec![0; *n])).unwrap(),
            Step::Full(n) => conn.read_full(context, vec![0; *n], Deadline::None).unwrap(),
            Step::Wait => drop(check(&mut watcher, &mut pending, false)),
        }
        if matches!(step, Step::Swap | Step::Owned(_) | Step::Full(_)) {
            pending[*at].push_back(serial);
            serial += 1;
        }
    }
    // The rest: all that was sent is read.
    peers.into_iter().for_each(drop);
    while pending.iter().any(|pending| !pending.is_empty()) {
        check(&mut watcher, &mut pending, true);
    }
    for (at, conn) in conns.iter().enumerate() {
        while check(&mut watcher, &mut pending, false)[at] < sent[at] {
            conn.read((at, serial), None).unwrap();
            pending[at].push_back(serial);
            serial += 1;
            check(&mut watcher, &mut pending, true);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn swap_and_owned_reads_share_a_stream_without_a_loss(
        steps in prop::collection::vec((0..3usize, step()), 1..120),
        swap_buffer in prop_oneof![Just(4096usize), Just(5000), Just(65_536)],
    ) {
        run(&steps, swap_buffer);
    }
}

#[test]
fn the_whole_buffer_is_lent_before_anybody_waits() {
    const SIZE: usize = 64 << 10;
    let mut watcher = watcher(SIZE);
    let data = pattern(1024);
    let mut kept = Vec::new();
    // One more than there is room for.
    for i in 0..SIZE / data.len() + 1 {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let conn = watcher.delegate(ours).unwrap();
        theirs.write_all(&data).unwrap();
        conn.read(i, None).unwrap();
        kept.push((conn, theirs));
    }
    let first: Vec<usize> = watcher
        .wait()
        .unwrap()
        .map(|done| {
            assert!(done.data() == data);
            done.context
        })
        .collect();
    assert_eq!(first, (0..SIZE / data.len()).collect::<Vec<_>>());
    let mut last = watcher.wait().unwrap();
    assert_eq!(last.next().map(|done| done.data() == data), Some(true));
    assert_eq!(last.len(), 0);
}

#[test]
fn one_read_can_fill_the_whole_buffer() {
    let mut watcher = watcher(4096);
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let conn = watcher.delegate(ours).unwrap();
    let data = pattern(10_000);
    theirs.write_all(&data).unwrap();
    let mut all = Vec::new();
    let mut sizes = Vec::new();
    while all.len() < data.len() {
        conn.read((), None).unwrap();
        for done in watcher.wait().unwrap() {
            sizes.push(done.bytes);
            all.extend_from_slice(done.data());
        }
    }
    assert_eq!(all, data);
    assert_eq!(sizes, [4096, 4096, 1808]);
}

/// 1,024 connections always have data, and the buffer has room for one at a time: each wait
/// serves the one that waits longest, and the watcher is not told of the others.
#[test]
fn those_who_wait_for_the_buffer_are_served_in_turn_and_nobody_else_is_woken() {
    const CONNS: usize = 1024;
    const ROUNDS: usize = 3;
    let mut watcher = watcher(4096);
    let data = vec![1; 4096 * (ROUNDS + 2)];
    let mut kept = Vec::new();
    for i in 0..CONNS {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let conn = watcher.delegate(ours).unwrap();
        theirs.write_all(&data).unwrap();
        conn.read(i, None).unwrap();
        kept.push((conn, theirs));
    }
    let mut served = [0; CONNS];
    // Until the watcher's thread has taken all of them in.
    let mut line = 0;
    while watcher.stats().open < 1 + CONNS as u64 {
        std::thread::yield_now();
    }
    let mail = watcher.stats().mail;
    for _ in 0..CONNS * ROUNDS {
        let mut completions = watcher.wait().unwrap();
        let done = completions.next().unwrap();
        assert_eq!((done.kind, done.bytes, completions.len()), (Kind::Read, 4096, 0));
        let (i, conn): (usize, &Conn<usize>) = (done.context, &kept[done.context].0);
        assert_eq!(i, line % CONNS, "not the one that waits longest");
        line += 1;
        served[i] += 1;
        conn.read(i, None).unwrap();
    }
    assert!(served.iter().all(|&n| n == ROUNDS));
    let told = watcher.stats().mail - mail;
    assert!(told <= (CONNS * ROUNDS) as u64, "{told} messages for {} reads", CONNS * ROUNDS);
}

#[test]
fn those_who_leave_the_line_do_not_hold_it_up() {
    let mut watcher = watcher(4096);
    let mut kept = Vec::new();
    for i in 0..10 {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let conn = watcher.delegate(ours).unwrap();
        theirs.write_all(&[7; 4096]).unwrap();
        conn.read(i, None).unwrap();
        kept.push((conn, theirs));
    }
    kept[1].0.free();
    kept[2].0.free();
    let mut served = Vec::new();
    while served.len() < 10 {
        for done in watcher.wait().unwrap() {
            served.push((done.context, done.result.is_ok()));
        }
    }
    served.sort_unstable();
    let expected: Vec<_> = (0..10).map(|i| (i, i != 1 && i != 2)).collect();
    assert_eq!(served, expected);
    let mut rest = Vec::new();
    let (conn, mut theirs) = kept.pop().unwrap();
    drop(conn);
    theirs.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}
