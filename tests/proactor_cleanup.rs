//! The proactor gives everything back: descriptors, threads, contexts. Alone in its process, so
//! that nobody else opens files meanwhile.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use reev::proactor::{Deadline, Watcher};

fn count(of: &str) -> usize {
    fs::read_dir(format!("/proc/self/{of}")).unwrap().count()
}

fn wait_for(what: &str, wanted: usize, of: &str) {
    // Descriptors are closed by a thread that was told to.
    for _ in 0..6000 {
        if count(of) == wanted {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: {} {of}, not {wanted}", count(of));
}

/// Planted: completions that nobody takes stay.
#[test]
fn a_watcher_leaves_nothing_behind() {
    let context: Arc<()> = Arc::new(());
    let (fds, threads) = (count("fd"), count("task"));
    for round in 0..5 {
        let mut watcher = Watcher::new().unwrap();
        let with_watcher = count("fd");
        let (mut conns, mut peers) = (Vec::new(), Vec::new());
        for i in 0..100 {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let conn = watcher.delegate(ours).unwrap();
            let soon = Deadline::After(Duration::from_secs(3600));
            conn.write(context.clone(), b"hello".to_vec()).unwrap();
            conn.read_by(context.clone(), None, soon).unwrap();
            if i % 2 == 0 {
                theirs.write_all(b"answer").unwrap();
            }
            if i % 5 == 0 {
                conn.write(context.clone(), vec![0; 8 << 20]).unwrap();
            }
            conns.push(conn);
            peers.push(theirs);
        }
        drop(watcher.try_wait().unwrap());
        assert_eq!(count("fd"), with_watcher + 200);
        match round % 3 {
            // The caller frees all, and the peers notice.
            0 => {
                conns.iter().for_each(|conn| conn.free());
                for peer in &mut peers {
                    peer.read_to_end(&mut Vec::new()).unwrap();
                }
                drop(peers);
                wait_for("freed", with_watcher, "fd");
                drop(watcher);
                drop(conns);
            }
            // The watcher goes first, with all that is pending.
            1 => {
                drop(watcher);
                assert!(conns[0].read(context.clone(), None).is_err());
                drop(conns);
                drop(peers);
            }
            // Handles in completions that nobody has taken go with the watcher.
            _ => {
                drop(conns);
                drop(watcher);
                drop(peers);
            }
        }
        wait_for("dropped", fds, "fd");
        wait_for("dropped", threads, "task");
        assert_eq!(Arc::strong_count(&context), 1, "a context was kept in round {round}");
    }
}
