//! Cases 21, 32 and 34: messages from other threads.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reev::{Config, ListenOptions, Remote, SendError};

use crate::common::origin::{Origin, both_ways};
use crate::common::{Serving, What, config, each, read_all, until, usual};

/// A server whose connections hand their remotes out and tell what they are notified of.
fn notified(config: Config) -> (Serving, mpsc::Receiver<Remote>, mpsc::Receiver<u64>) {
    let (opened, remotes) = mpsc::channel();
    let (told, values) = mpsc::channel();
    let serving = Serving::start(config, "127.0.0.1:0", &ListenOptions::default(), move |_| {
        let (opened, told) = (opened.clone(), told.clone());
        each(move |cx, what| {
            match what {
                What::Open => opened.send(cx.remote()).unwrap(),
                What::Notify(value) => told.send(value).unwrap(),
                other => return usual(cx, other),
            }
            Ok(0)
        })
    });
    (serving, remotes, values)
}

/// In each round two producers send at once and wait for their answers, so that the reactor
/// falls asleep after each: one lost wake-up, and a round hangs. This shows that the eventfd does
/// what the loom test beside the mailbox assumes of a doorbell. Planted: the bell is rung only
/// for every second message; that there is mail is taken back after the queue was taken, with a
/// pause between the two (without it, only loom sees that fault).
#[test]
fn hard_case_32_lost_wake_up() {
    const ROUNDS: u64 = 4000;
    const PRODUCERS: u64 = 2;
    let (serving, remotes, values) = notified(config());
    let _client = serving.connect();
    let remote = remotes.recv().unwrap();
    let answers: Arc<Vec<AtomicU64>> =
        Arc::new((0..PRODUCERS).map(|_| AtomicU64::new(0)).collect());
    let collector = {
        let answers = answers.clone();
        thread::spawn(move || {
            for value in values {
                let me = (value % PRODUCERS) as usize;
                answers[me].store(value / PRODUCERS, Ordering::Release);
            }
        })
    };
    let together = Barrier::new(PRODUCERS as usize);
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        for me in 0..PRODUCERS {
            let (remote, answers, together, failed) = (&remote, &answers, &together, &failed);
            scope.spawn(move || {
                for round in 1..=ROUNDS {
                    together.wait();
                    if failed.load(Ordering::Acquire) {
                        return;
                    }
                    remote.notify(round * PRODUCERS + me).unwrap();
                    let deadline = Instant::now() + Duration::from_secs(10);
                    while answers[me as usize].load(Ordering::Acquire) != round {
                        if Instant::now() > deadline {
                            failed.store(true, Ordering::Release);
                            break;
                        }
                        thread::yield_now();
                    }
                }
            });
        }
    });
    assert!(!failed.load(Ordering::Acquire), "a message waits, and the reactor sleeps");
    assert!(serving.handle.stats()[0].mail >= PRODUCERS * ROUNDS);
    drop((serving, remote));
    collector.join().unwrap();
}

/// Planted: a full mailbox takes more; close() is refused by a full mailbox; what was accepted
/// is lost when more than a turn's share waits.
#[test]
fn hard_case_21_full_mailbox() {
    let config = Config { mailbox_max: 10, mailbox_bytes_max: 1000, mail_per_turn: 3, ..config() };
    let (serving, remotes, values) = notified(config);
    let mut client = serving.connect();
    let remote = remotes.recv().unwrap();
    let stalled = serving.stall();
    for value in 0..10 {
        assert_eq!(remote.notify(value), Ok(()));
    }
    assert_eq!(remote.notify(10), Err(SendError::Full));
    assert_eq!(remote.write("x"), Err(SendError::Full));
    assert_eq!(remote.pending_output(), 0, "what was refused does not count");
    assert_eq!(serving.handle.run_on(0, |_| ()), Err(SendError::Full));
    assert_eq!(serving.handle.broadcast(|_| ()), Err(SendError::Full));
    drop(stalled);
    for value in 0..10 {
        assert_eq!(values.recv_timeout(Duration::from_secs(30)), Ok(value));
    }
    // The bound of bytes; one message alone may be over it.
    let stalled = serving.stall();
    assert_eq!(remote.write(vec![1; 5000]), Ok(()));
    assert_eq!(remote.write("x"), Err(SendError::Full));
    assert_eq!(remote.notify(11), Err(SendError::Full));
    assert_eq!(remote.pending_output(), 5000);
    drop(stalled);
    let mut got = vec![0; 5000];
    client.read_exact(&mut got).unwrap();
    until("nothing is pending", || remote.pending_output() == 0);
    // Room for what must not be lost is always there.
    let stalled = serving.stall();
    while remote.notify(12).is_ok() {}
    assert_eq!(remote.close(), Ok(()));
    drop(stalled);
    assert_eq!(read_all(&mut client), (Vec::new(), None));
    until("it is closed", || remote.write("x") == Err(SendError::Closed));
    assert_eq!(values.try_iter().filter(|&value| value == 12).count(), 10);
}

/// Several threads write numbered lines, short and long, to one connection through a mailbox
/// that is mostly full: the peer gets each thread's lines, all of them, in their order.
/// Planted: the mailbox is a stack; a long buffer is queued before what waits.
fn hard_case_34_order_of_writes_from_one_thread(origin: Origin) {
    const THREADS: usize = 3;
    const LINES: usize = 1500;
    let config = Config { mailbox_max: 64, mail_per_turn: 7, ..config() };
    let options = ListenOptions { send_buffer: Some(1), ..ListenOptions::default() };
    let (opened, remotes) = mpsc::channel();
    let serving = Serving::start(config, "127.0.0.1:0", &options, move |_| {
        let opened = opened.clone();
        each(move |cx, what| {
            if let What::Open = what {
                opened.send(cx.remote()).unwrap();
            }
            usual(cx, what)
        })
    });
    let mut client = serving.peer(origin);
    let remote = remotes.recv().unwrap();
    let refused = Arc::new(Mutex::new(0));
    let text = thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|me| {
                let (remote, refused) = (remote.clone(), refused.clone());
                scope.spawn(move || {
                    for n in 0..LINES {
                        let filler = if n % 50 == 0 { 6000 } else { n % 40 };
                        let line = Bytes::from(format!("{me} {n} {:.>filler$}\n", ""));
                        // Output is bounded by the producer, as it has to be.
                        while remote.pending_output() > 1 << 20 {
                            thread::yield_now();
                        }
                        while remote.write(line.clone()) == Err(SendError::Full) {
                            *refused.lock().unwrap() += 1;
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let closer = {
            let remote = remote.clone();
            scope.spawn(move || {
                for writer in writers {
                    writer.join().unwrap();
                }
                remote.close().unwrap(); // after all that was written
            })
        };
        let (text, error) = read_all(&mut client);
        assert_eq!(error, None);
        closer.join().unwrap();
        text
    });
    let text = String::from_utf8(text).unwrap();
    let mut next = [0; THREADS];
    for line in text.lines() {
        let mut words = line.split(' ');
        let me: usize = words.next().unwrap().parse().unwrap();
        let n: usize = words.next().unwrap().parse().unwrap();
        assert_eq!(n, next[me], "of thread {me}");
        next[me] += 1;
    }
    assert_eq!(next, [LINES; THREADS]);
}

/// A remote write is behind what the loop wrote before the message arrived, and before what it
/// writes later. Planted: a write from outside is sent before the queued output.
fn hard_case_34_order_between_the_loop_and_a_thread(origin: Origin) {
    let options = ListenOptions { send_buffer: Some(1), ..ListenOptions::default() };
    let (opened, remotes) = mpsc::channel();
    let serving = Serving::start(config(), "127.0.0.1:0", &options, move |_| {
        let opened = opened.clone();
        each(move |cx, what| {
            match what {
                What::Open => {
                    cx.write(&vec![b'a'; 500_000]);
                    opened.send(cx.remote()).unwrap();
                }
                What::Notify(_) => {
                    cx.write(&vec![b'c'; 100_000]);
                    cx.close();
                }
                other => return usual(cx, other),
            }
            Ok(0)
        })
    });
    let mut client = serving.peer(origin);
    client.write_all(b"x").unwrap();
    let remote = remotes.recv().unwrap();
    remote.write(vec![b'b'; 100_000]).unwrap();
    remote.write("bb").unwrap();
    remote.notify(1).unwrap();
    let (got, error) = read_all(client);
    assert_eq!((got.len(), error), (700_002, None));
    assert!(got.is_sorted());
}

both_ways!(
    hard_case_34_order_of_writes_from_one_thread,
    hard_case_34_order_between_the_loop_and_a_thread,
);
