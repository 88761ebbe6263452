//! What a watcher is given: sockets of every kind, in every state, with whatever was set on them.

#[path = "support/proactor.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod support;

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use reev::proactor::{Conn, Deadline, Kind, Watcher};
use socket2::{Domain, SockRef, Socket, Type};

use support::{pair, wait_until};

/// Long enough for a busy machine; only a test that fails waits for it.
const PATIENCE: Deadline = Deadline::After(Duration::from_secs(5));

/// The next completion: its kind, its outcome, its bytes.
#[track_caller]
fn next<T: Send + 'static>(watcher: &mut Watcher<T>) -> (Kind, Result<(), ErrorKind>, Vec<u8>) {
    let mut completions = watcher.wait().unwrap();
    let done = completions.next().unwrap();
    assert_eq!(completions.len(), 0, "one was submitted");
    let data = done.data().to_vec();
    (done.kind, done.result.map_err(|error| error.kind()), data)
}

#[test]
fn only_a_connected_stream_socket_is_taken() {
    let watcher: Watcher<()> = Watcher::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.connect(udp.local_addr().unwrap()).unwrap();
    let folder = std::env::temp_dir().join(format!("reev-delegate-{}", std::process::id()));
    let unix = UnixListener::bind(&folder).unwrap();
    std::fs::remove_file(&folder).unwrap();
    let packets = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    let unconnected = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let not_stream: Vec<OwnedFd> =
        vec![udp.into(), UnixDatagram::pair().unwrap().0.into(), packets.0.into()];
    for socket in not_stream {
        let error = watcher.delegate(socket).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    let not_connected: Vec<OwnedFd> = vec![listener.into(), unix.into(), unconnected.into()];
    for socket in not_connected {
        let error = watcher.delegate(socket).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
    }
    let (pipe, _writer) = std::io::pipe().unwrap();
    let no_sockets: Vec<OwnedFd> = vec![pipe.into(), File::open("/dev/null").unwrap().into()];
    for fd in no_sockets {
        assert!(watcher.delegate(fd).is_err());
    }
}

/// What the caller has done before, in blocking calls, has no influence.
#[test]
fn a_connection_may_come_at_any_moment() {
    let (mut client, mut served) = pair();
    served.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    // A handshake, and bytes behind it.
    client.write_all(b"hello, and the rest").unwrap();
    served.set_read_timeout(None).unwrap();
    served.read_exact(&mut [0; 5]).unwrap();
    served.write_all(b"welcome").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    conn.read((), None).unwrap();
    assert_eq!(next(&mut watcher), (Kind::Read, Ok(()), b", and the rest".to_vec()));
    conn.read((), None).unwrap();
    assert_eq!(next(&mut watcher), (Kind::Read, Ok(()), Vec::new()));
    conn.write((), b", bye".to_vec()).unwrap();
    assert_eq!(next(&mut watcher).1, Ok(()));
    conn.free();
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    assert_eq!(all, "welcome, bye");
}

#[test]
fn options_stay_as_they_were_set() {
    let (_client, served) = pair();
    let copy = served.try_clone().unwrap();
    let options = SockRef::from(&copy);
    options.set_tcp_nodelay(true).unwrap();
    options.set_keepalive(true).unwrap();
    options.set_recv_buffer_size(50_000).unwrap();
    options.set_send_buffer_size(60_000).unwrap();
    options.set_linger(Some(Duration::ZERO)).unwrap();
    options.set_cloexec(false).unwrap();
    let state = || {
        (
            options.tcp_nodelay().unwrap(),
            options.keepalive().unwrap(),
            options.recv_buffer_size().unwrap(),
            options.send_buffer_size().unwrap(),
            options.linger().unwrap(),
        )
    };
    let before = state();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    conn.write((), b"x".to_vec()).unwrap();
    assert_eq!(next(&mut watcher).1, Ok(()));
    assert_eq!(state(), before);
    assert!(copy.as_raw_fd() > 0 && options.nonblocking().unwrap());
}

/// All has arrived and was told of before anything is read, so that nothing tells of it again.
#[track_caller]
fn read_all_of(watcher: &mut Watcher<()>, conn: &Conn<()>, expected: &[u8]) {
    assert_eq!(watcher.try_wait().unwrap().len(), 0);
    conn.read_full((), vec![0; expected.len()], PATIENCE).unwrap();
    assert_eq!(next(watcher), (Kind::Read, Ok(()), expected.to_vec()));
}

/// A read ends at the mark of urgent data, though more is there.
/// Planted: what falls short is taken for all.
#[test]
fn urgent_data_does_not_hide_what_is_behind_it() {
    let (mut client, served) = pair();
    let seen = served.try_clone().unwrap();
    client.set_nodelay(true).unwrap();
    client.write_all(b"abc").unwrap();
    SockRef::from(&client).send_out_of_band(b"!").unwrap();
    client.write_all(b"def").unwrap();
    while SockRef::from(&seen).peek(&mut [std::mem::MaybeUninit::uninit(); 10]).unwrap() < 3 {}
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    read_all_of(&mut watcher, &conn, b"abcdef");
}

/// A read ends behind a message that carries descriptors, though more is there.
/// Planted: what falls short is taken for all.
#[test]
fn a_message_with_descriptors_does_not_hide_what_is_behind_it() {
    let (mut client, served) = UnixStream::pair().unwrap();
    let carried = [client.as_raw_fd()];
    let sent = sendmsg::<()>(
        client.as_raw_fd(),
        &[IoSlice::new(b"abc")],
        &[ControlMessage::ScmRights(&carried)],
        MsgFlags::empty(),
        None,
    );
    assert_eq!(sent, Ok(3));
    client.write_all(b"def").unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    read_all_of(&mut watcher, &conn, b"abcdef");
}

/// Two connections of one socket: one reads, the other writes.
#[test]
fn copies_of_a_socket_are_connections_of_their_own() {
    let (mut client, served) = pair();
    let mut watcher = Watcher::new().unwrap();
    let reader = watcher.delegate(served.try_clone().unwrap()).unwrap();
    let writer = watcher.delegate(served).unwrap();
    assert!(reader != writer);
    for _ in 0..10 {
        reader.read((), None).unwrap();
        client.write_all(b"ping").unwrap();
        assert_eq!(next(&mut watcher), (Kind::Read, Ok(()), b"ping".to_vec()));
        writer.write((), b"pong".to_vec()).unwrap();
        assert_eq!(next(&mut watcher).1, Ok(()));
        client.read_exact(&mut [0; 4]).unwrap();
    }
}

/// A number that is used again belongs to the new connection alone.
#[test]
fn numbers_of_descriptors_are_used_again() {
    let mut watcher: Watcher<u32> = Watcher::new().unwrap();
    for round in 0..500 {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let conn = watcher.delegate(ours).unwrap();
        let of_round = u32::to_be_bytes(round);
        conn.read(round, None).unwrap();
        if round % 3 == 0 {
            conn.free();
            conn.free();
        }
        let _ = theirs.write_all(&of_round); // it may be closed
        let mut completions = watcher.wait().unwrap();
        let done = completions.next().unwrap();
        assert_eq!((done.context, completions.len()), (round, 0));
        assert!(done.result.is_err() || done.data() == of_round);
        assert!(round % 3 == 0 || done.result.is_ok());
    }
}

/// What arrived before a reset is still there.
#[test]
fn a_reset_does_not_take_what_arrived_before_it() {
    let (client, served) = pair();
    let seen = served.try_clone().unwrap();
    let addr: SocketAddr = client.local_addr().unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    (&client).write_all(&[5; 1000]).unwrap();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    wait_until(&seen, PollFlags::POLLERR);
    conn.read_full((), vec![0; 1000], PATIENCE).unwrap();
    assert_eq!(next(&mut watcher), (Kind::Read, Ok(()), vec![5; 1000]));
    conn.read((), None).unwrap();
    assert_eq!(next(&mut watcher), (Kind::Read, Err(ErrorKind::ConnectionReset), Vec::new()));
    assert!(!conn.is_open());
    assert_eq!(conn.peer().socket_addr(), Some(addr));
}

/// One whose peer is gone already cannot be taken in: the system has no name of it.
#[test]
fn a_connection_that_was_reset_is_refused() {
    let (client, served) = pair();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    wait_until(&served, PollFlags::POLLERR);
    let watcher: Watcher<()> = Watcher::new().unwrap();
    assert_eq!(watcher.delegate(served).unwrap_err().kind(), ErrorKind::NotConnected);
}

/// close(2) on Linux waits that long, though the socket does not block.
/// Planted: the option stays.
#[test]
fn a_time_to_linger_holds_nobody_up() {
    let (client, served) = pair();
    SockRef::from(&served).set_linger(Some(Duration::from_secs(30))).unwrap();
    SockRef::from(&served).set_send_buffer_size(1 << 20).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut watcher = Watcher::new().unwrap();
    let conn = watcher.delegate(served).unwrap();
    conn.read((), None).unwrap();
    assert_eq!(next(&mut watcher), (Kind::Read, Ok(()), Vec::new()));
    // As much as the system takes of it; the client reads nothing.
    conn.write_by((), vec![7; 16 << 20], Deadline::After(Duration::from_millis(20))).unwrap();
    assert_eq!(next(&mut watcher).1, Err(ErrorKind::TimedOut));
    let began = Instant::now();
    conn.free();
    let (other, _peer) = UnixStream::pair().unwrap();
    let other = watcher.delegate(other).unwrap();
    other.read_by((), None, Deadline::After(Duration::from_millis(1))).unwrap();
    assert_eq!(next(&mut watcher).1, Err(ErrorKind::TimedOut));
    drop(watcher);
    assert!(began.elapsed() < Duration::from_secs(15), "the watcher's thread waited");
    drop(client);
}
