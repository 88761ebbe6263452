//! The proactor with thousands of connections. The tests take turns, for each needs most of the
//! descriptors that a process may have.

use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::{LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use reev::proactor::{Conn, Deadline, Kind, Watcher};
use socket2::SockRef;

static TURN: Mutex<()> = Mutex::new(());

/// Raises the limit as far as it goes; false, and said aloud, if that is not enough.
fn can_open(files: rlim_t, what: &str) -> bool {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    if hard < files + 100 {
        eprintln!("SKIPPED: {what} needs {files} open files, and this process may have {hard}");
    }
    hard >= files + 100
}

fn deadlines(count: usize) {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !can_open(2 * count as rlim_t, &format!("{count} connections")) {
        return;
    }
    let mut watcher = Watcher::new().unwrap();
    let mut kept = Vec::new();
    for i in 0..count {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let conn: Conn<(usize, Instant)> = watcher.delegate(ours).unwrap();
        let at = Instant::now() + Duration::from_millis(50 + (i % 7) as u64);
        conn.read_by((i, at), None, Deadline::At(at)).unwrap();
        kept.push((conn, theirs));
    }
    let mut timed_out = vec![false; count];
    let mut left = count;
    while left > 0 {
        for done in watcher.wait().unwrap() {
            let (i, at) = done.context;
            assert!(Instant::now() >= at, "{i} ended early");
            assert_eq!(done.result.unwrap_err().kind(), ErrorKind::TimedOut);
            assert!(!std::mem::replace(&mut timed_out[i], true), "{i} ended twice");
            left -= 1;
        }
    }
    // All of them go on.
    for (i, (conn, theirs)) in kept.iter_mut().enumerate() {
        conn.read_by((i, Instant::now()), None, Deadline::After(Duration::from_secs(600))).unwrap();
        theirs.write_all(b"x").unwrap();
    }
    left = count;
    while left > 0 {
        left -= watcher.wait().unwrap().filter(|done| done.data() == b"x").count();
    }
}

#[test]
fn deadlines_of_1_000_connections() {
    deadlines(1000);
}

#[test]
fn deadlines_of_2_000_connections() {
    deadlines(2000);
}

#[test]
fn deadlines_of_4_000_connections() {
    deadlines(4000);
}

#[test]
fn deadlines_of_8_000_connections() {
    deadlines(8000);
}

/// What a client sends: a piece of one long pattern, from a place of its own.
fn message(client: usize, size: usize) -> Vec<u8> {
    static PATTERN: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..256 << 10).map(|i| (i * 31 + i / 251) as u8).collect());
    let start = client * 7 % 100_000;
    PATTERN[start..start + size].to_vec()
}

const CLIENTS: &str = "REEV_TEST_CROWD";

/// The clients, in a process of their own: they have a watcher too.
#[test]
#[ignore = "the other half of the echoes, which start it"]
fn clients() {
    let Ok(wanted) = std::env::var(CLIENTS) else {
        return;
    };
    let wanted: Vec<&str> = wanted.split(' ').collect();
    let addr: SocketAddr = wanted[0].parse().unwrap();
    let (count, size): (usize, usize) = (wanted[1].parse().unwrap(), wanted[2].parse().unwrap());
    assert!(can_open(count as rlim_t, "the clients"));
    let mut watcher = Watcher::new().unwrap();
    let mut conns = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(addr).unwrap();
        // A reset at the end, so that the ports are free again at once.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        conns.push(watcher.delegate(stream).unwrap());
    }
    let in_time = Deadline::After(Duration::from_secs(300));
    for (i, conn) in conns.iter().enumerate() {
        conn.read_full(i, vec![0; size], in_time).unwrap();
        conn.write_by(i, message(i, size), in_time).unwrap();
    }
    let mut left = 2 * count;
    while left > 0 {
        for done in watcher.wait().unwrap() {
            assert_eq!((done.result.map_err(|e| e.kind()), done.bytes), (Ok(()), size));
            if done.kind == Kind::Read {
                let same = done.buffer.as_ref() == Some(&message(done.context, size));
                assert!(same, "client {} got something else", done.context);
            }
            left -= 1;
        }
    }
}

/// Echoes `bytes` in all, into buffers of its own or through the swap buffer.
fn echo(mut watcher: Watcher<()>, owned: Option<usize>, mut bytes: usize) {
    let buffer = || owned.map(|size| vec![0; size]);
    while bytes > 0 {
        for mut done in watcher.wait().unwrap() {
            if done.kind == Kind::Write {
                bytes -= done.bytes;
            } else if done.bytes > 0 {
                let n = done.bytes;
                done.conn.read((), buffer()).unwrap();
                match done.buffer.take() {
                    Some(buffer) => done.conn.write_part((), buffer, 0..n, Deadline::None),
                    None => done.conn.write((), done.data().to_vec()),
                }
                .unwrap();
            }
        }
    }
}

fn echoes(count: usize, size: usize, owned: Option<usize>) {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !can_open(count as rlim_t, &format!("{count} clients")) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let wanted = format!("{} {count} {size}", listener.local_addr().unwrap());
    let mut clients = Command::new(std::env::current_exe().unwrap())
        .args(["clients", "--exact", "--ignored", "--nocapture"])
        .env(CLIENTS, wanted)
        .spawn()
        .unwrap();
    let watcher = Watcher::new().unwrap();
    let delegator = watcher.delegator();
    let echo = thread::spawn(move || echo(watcher, owned, count * size));
    let mut conns = HashMap::new();
    for i in 0..count {
        let conn = delegator.delegate(listener.accept().unwrap().0).unwrap();
        conn.read((), owned.map(|size| vec![0; size])).unwrap();
        conns.insert(i, conn);
    }
    echo.join().unwrap();
    assert!(clients.wait().unwrap().success());
}

#[test]
fn echoes_of_1_000_clients() {
    echoes(1000, 128, None);
    echoes(1000, 64 << 10, Some(64 << 10));
    echoes(1000, 128 << 10, None);
}

#[test]
fn echoes_of_2_000_clients() {
    echoes(2000, 1024, Some(1000));
    echoes(2000, 64 << 10, None);
}

#[test]
fn echoes_of_4_000_clients() {
    echoes(4000, 1024, None);
    echoes(4000, 16 << 10, Some(4 << 10));
}

#[test]
fn echoes_of_8_000_clients() {
    echoes(8000, 1024, Some(1024));
}

#[test]
fn echoes_of_12_000_clients() {
    echoes(12_000, 1024, None);
    echoes(12_000, 4 << 10, Some(4 << 10));
}
