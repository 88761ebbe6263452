//! What many have of one watcher, and one of many.

#[cfg(target_os = "linux")]
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use reev::proactor::{Conn, Deadline, Delegator, Kind, Watcher, WatcherConfig};

/// The cell keeps contexts from being shared, which they need not be.
#[test]
fn what_other_threads_may_have() {
    fn shared<X: Send + Sync + Clone>() {}
    fn sent<X: Send>() {}
    shared::<Delegator<std::cell::Cell<u8>>>();
    shared::<Conn<std::cell::Cell<u8>>>();
    sent::<Watcher<std::cell::Cell<u8>>>();
}

/// A peer that sends without end, and a caller that always reads it, leave the others their turn.
/// Planted: the poller is looked at only when nothing has completed.
#[test]
fn a_busy_connection_leaves_others_their_turn() {
    const ROUNDS: usize = 200;
    const BUSY: usize = 4;
    // What four reads complete between two looks at the poller, and a half more. The emulation of
    // kqueue may leave out what is there, one look after another.
    const BEFORE_MAX: usize = if cfg!(reev_kqueue_emulation) { 2000 } else { 100 };
    let (busy, firehose) = UnixStream::pair().unwrap();
    let (polite, peer) = UnixStream::pair().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let (busy, polite) = (watcher.delegate(busy).unwrap(), watcher.delegate(polite).unwrap());
    // Something comes while the caller waits: the watcher's thread leaves the poller to it.
    for _ in 0..10 {
        polite.read("polite", None).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| (&peer).write_all(b"x").unwrap());
            assert_eq!(watcher.wait().unwrap().len(), 1);
        });
    }
    firehose.set_nonblocking(true).unwrap();
    let data = vec![1; 64 << 10];
    for round in 0..ROUNDS {
        while (&firehose).write(&data).is_ok() {}
        if round == 0 {
            // Less than there is, so that the next one always completes at once.
            (0..BUSY).for_each(|_| busy.read("busy", Some(vec![0; 100])).unwrap());
        }
        polite.read("polite", None).unwrap();
        (&peer).write_all(b"x").unwrap();
        let (mut served, mut others) = (false, 0);
        while !served {
            for done in watcher.wait().unwrap() {
                assert!(done.result.is_ok());
                served |= done.context == "polite";
                others += usize::from(done.context == "busy");
                if done.context == "busy" {
                    busy.read("busy", done.buffer).unwrap();
                }
            }
            assert!(others <= BEFORE_MAX, "round {round}: {others} before it");
        }
    }
}

/// Nothing but the caller bounds what has completed and is not taken.
#[test]
fn completions_wait_for_the_caller_in_order() {
    const COUNT: usize = 100_000;
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(ours).unwrap();
    let reader = thread::spawn(move || theirs.read_exact(&mut vec![0; COUNT]));
    for i in 0..COUNT {
        conn.write(i, vec![i as u8]).unwrap();
    }
    reader.join().unwrap().unwrap();
    let mut next = 0;
    while next < COUNT {
        for done in watcher.wait().unwrap() {
            assert_eq!((done.context, done.bytes, done.buffer), (next, 1, Some(vec![next as u8])));
            next += 1;
        }
    }
    assert_eq!(watcher.try_wait().unwrap().len(), 0);
}

/// Reads and writes that are submitted in turn: each direction keeps its order.
#[test]
fn each_direction_keeps_its_order() {
    const COUNT: usize = 3000;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(ours).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut all = vec![0; 100 * COUNT];
            (&theirs).read_exact(&mut all).unwrap();
            assert!(all.chunks(100).enumerate().all(|(i, c)| c.iter().all(|&b| b == i as u8)));
        });
        scope.spawn(|| {
            let bytes: Vec<u8> = (0..10 * COUNT).map(|i| (i / 10) as u8).collect();
            bytes.chunks(777).for_each(|chunk| (&theirs).write_all(chunk).unwrap());
        });
        for i in 0..COUNT {
            conn.read_full(i, vec![0; 10], Deadline::None).unwrap();
            match i % 3 {
                0 => conn.write(i, vec![i as u8; 100]).unwrap(),
                1 => conn.write_part(i, vec![i as u8; 120], 20..120, Deadline::None).unwrap(),
                _ => {
                    let pieces = vec![vec![], vec![i as u8; 99], vec![], vec![i as u8]];
                    conn.write_vectored(i, pieces, Deadline::None).unwrap();
                }
            }
        }
        let (mut reads, mut writes) = (0, 0);
        while reads + writes < 2 * COUNT {
            for done in watcher.wait().unwrap() {
                assert!(done.result.is_ok());
                let next = if done.kind == Kind::Read { &mut reads } else { &mut writes };
                assert_eq!(done.context, *next);
                assert!(done.kind == Kind::Write || done.data() == [*next as u8; 10]);
                *next += 1;
            }
        }
    });
}

/// The cores that the threads of this process may use, by thread.
#[cfg(target_os = "linux")]
fn cores_of_threads() -> Vec<(String, BTreeSet<usize>)> {
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let threads = tasks.map(|task| {
        let status = read(task.unwrap().path().join("status"));
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        let cores = field("Cpus_allowed_list:");
        let ranges = cores.split(',').filter(|range| !range.is_empty()).flat_map(|range| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            from.parse::<usize>().unwrap()..=to.parse().unwrap()
        });
        (field("Name:"), ranges.collect())
    });
    threads.collect()
}

/// Several watchers share a load, each on a core of its own.
/// Planted: the setting is not looked at.
#[cfg(target_os = "linux")]
#[test]
fn each_watcher_has_its_core() {
    let cores: Vec<usize> =
        core_affinity::get_core_ids().unwrap().into_iter().map(|core| core.id).collect();
    let mut watchers: Vec<Watcher<usize>> = Vec::new();
    for &core in &cores {
        let config = WatcherConfig { core: Some(core), ..WatcherConfig::default() };
        watchers.push(Watcher::with_config(&config).unwrap());
    }
    let pinned = |core: usize| {
        let alone = BTreeSet::from([core]);
        cores_of_threads().iter().filter(|(_, cores)| *cores == alone).count()
    };
    for &core in &cores {
        assert!(pinned(core) >= 1, "nobody is pinned to core {core}: {:?}", cores_of_threads());
    }
    // One moves to the last core, soon.
    let (first, last) = (cores[0], cores[cores.len() - 1]);
    let before = pinned(last);
    watchers[0].pin(last).unwrap();
    while first != last && pinned(last) == before {
        thread::yield_now();
    }
    for (i, watcher) in watchers.iter_mut().enumerate() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let conn = watcher.delegate(ours).unwrap();
        theirs.write_all(b"x").unwrap();
        conn.read(i, None).unwrap();
        assert_eq!(watcher.wait().unwrap().next().map(|done| done.context), Some(i));
    }
}

#[test]
fn buffers_may_be_as_small_and_as_large_as_is_said() {
    for (swap_buffer, read_buffer) in [(4 << 10, 16 << 20), (1 << 30, 4 << 10), (1 << 30, 16 << 20)]
    {
        let config = WatcherConfig { swap_buffer, read_buffer, ..WatcherConfig::default() };
        let mut watcher = Watcher::with_config(&config).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let conn = watcher.delegate(ours).unwrap();
        theirs.write_all(&[7; 10_000]).unwrap();
        drop(theirs);
        let mut all = 0;
        loop {
            conn.read((), None).unwrap();
            let done = watcher.wait().unwrap().next().unwrap();
            assert!(done.bytes <= swap_buffer.min(read_buffer));
            if done.bytes == 0 {
                break;
            }
            all += done.bytes;
        }
        assert_eq!(all, 10_000);
    }
    for (swap_buffer, read_buffer) in
        [((4 << 10) - 1, 4 << 10), ((1 << 30) + 1, 4 << 10), (4 << 10, (16 << 20) + 1)]
    {
        let config = WatcherConfig { swap_buffer, read_buffer, ..WatcherConfig::default() };
        let error = Watcher::<()>::with_config(&config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
