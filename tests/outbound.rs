//! Connecting out, adopting, detaching and foreign descriptors, on real sockets.

mod common;
#[path = "support/refusing.rs"]
mod refusing;

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use common::{Serving, config, pattern, read_all, until};
use reev::{
    Close, ConnId, ConnectOptions, Ctx, Detached, EvHandler, ListenOptions, Readiness, SendError,
};
use refusing::Refusing;

const PATIENCE: Duration = Duration::from_secs(30);

/// Sends every callback to the test's thread; answers what it reads with what it was given.
struct Telling(Sender<String>);

impl Telling {
    fn tell(&self, what: impl Into<String>) {
        let _ = self.0.send(what.into());
    }
}

impl EvHandler for Telling {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.tell(format!("open {}", cx.peer()));
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        self.tell(format!("read {}", String::from_utf8_lossy(data)));
        cx.write(data);
        Ok(data.len())
    }

    fn on_connect_fail(&mut self, _: &mut Ctx<'_>, error: io::Error) {
        self.tell(format!("fail {:?}", error.kind()));
    }

    fn on_ready(&mut self, cx: &mut Ctx<'_>, ready: Readiness) -> io::Result<()> {
        self.tell(format!("ready {} {} {}", ready.readable, ready.writable, ready.error));
        if ready.error {
            cx.close()
        } else {
            cx.watch(Readiness::NONE)?
        }
        Ok(())
    }

    fn on_close(&mut self, _: &mut Ctx<'_>, why: &Close) {
        self.tell(format!("close {}", why.kind()));
    }
}

/// A reactor to connect from.
fn idle_server() -> Serving {
    Serving::tcp(|_| common::each(common::usual))
}

fn telling() -> (Sender<String>, Receiver<String>) {
    mpsc::channel()
}

fn next(told: &Receiver<String>) -> String {
    told.recv_timeout(PATIENCE).expect("something is told")
}

/// What is told up to the end of the handler, which drops its sender.
fn all(told: &Receiver<String>) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        match told.recv_timeout(PATIENCE) {
            Ok(line) => lines.push(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => return lines,
            Err(timeout) => panic!("{timeout} after {lines:?}"),
        }
    }
}

#[test]
fn any_thread_connects_and_is_told_what_came_of_it() {
    let serving = idle_server();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (tell, told) = telling();
    serving.handle.connect(addr, &ConnectOptions::default(), move || Telling(tell)).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(next(&told), format!("open {addr}"));
    stream.write_all(b"ping").unwrap();
    assert_eq!(next(&told), "read ping");
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ping");
    drop(stream);
    assert_eq!(all(&told), ["close peer"]);
    let handle = serving.handle.clone();
    drop(serving);
    let refused = handle.connect(addr, &ConnectOptions::default(), || Telling(telling().0));
    assert_eq!(refused, Err(SendError::Closed));
}

#[test]
fn hard_case_25_the_next_address_is_tried_at_once_when_the_first_refuses() {
    let serving = idle_server();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Were the stagger waited for, the try would time out first.
    let options = ConnectOptions {
        stagger: Duration::from_secs(3600),
        timeout: PATIENCE,
        ..ConnectOptions::default()
    };
    let (tell, told) = telling();
    let refusing = [Refusing::new(), Refusing::new()];
    let addrs = vec![refusing[0].addr(), refusing[1].addr(), addr];
    serving.handle.connect(addrs, &options, move || Telling(tell)).unwrap();
    assert_eq!(next(&told), format!("open {addr}"));
}

#[test]
fn hard_case_25_a_socket_that_meets_itself_is_refused() {
    let serving = idle_server();
    // Bound to the port it connects to, a client meets itself at once (RFC 9293 section 3.5).
    let addr = Refusing::new().addr(); // free again
    let options = ConnectOptions { bind: Some(addr), ..ConnectOptions::default() };
    let (tell, told) = telling();
    serving.handle.connect(addr, &options, move || Telling(tell)).unwrap();
    assert_eq!(all(&told), ["fail ConnectionRefused"]);
}

#[test]
fn hard_case_25_names_and_paths_that_lead_nowhere() {
    let serving = idle_server();
    let folder = std::env::temp_dir().join(format!("reev-outbound-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let missing = format!("unix://{}", folder.join("missing").display());
    let dead = folder.join("dead");
    drop(UnixListener::bind(&dead).unwrap());
    let dead = format!("unix://{}", dead.display());
    let options = ConnectOptions::default();
    for (target, expected) in [(missing, "fail NotFound"), (dead, "fail ConnectionRefused")] {
        let (tell, told) = telling();
        serving.handle.connect(&target, &options, move || Telling(tell)).unwrap();
        assert_eq!(all(&told), [expected], "{target}");
    }
    let (tell, told) = telling();
    // RFC 6761: never resolves.
    let name = "tcp://nobody.invalid:1";
    serving.handle.connect(name, &options, move || Telling(tell)).unwrap();
    let lines = all(&told);
    assert!(lines.len() == 1 && lines[0].starts_with("fail "), "{lines:?}");
    assert_eq!(serving.ask(|reactor| reactor.conn_ids().len()), 0);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn hard_case_25_a_full_unix_backlog_is_a_failure_and_retried() {
    let serving = idle_server();
    let name = format!("@reev-backlog-{}", std::process::id());
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    let addr = socket2::SockAddr::unix(format!("\0{}", &name[1..])).unwrap();
    socket.bind(&addr).unwrap();
    socket.listen(1).unwrap();
    let filling = || {
        let client = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        client.set_nonblocking(true)?;
        client.connect(&addr).map(|()| client)
    };
    let fillers: Vec<_> = std::iter::from_fn(|| filling().ok()).collect();
    let target = format!("unix://{name}");
    let (tell, told) = telling();
    let options = ConnectOptions::default();
    serving.handle.connect(&target, &options, move || Telling(tell)).unwrap();
    assert_eq!(all(&told), ["fail WouldBlock"]);

    let retry =
        reev::Retry { tries: u32::MAX, first: Duration::from_millis(1), ..Default::default() };
    let options = ConnectOptions { retry: Some(retry), ..options };
    let (tell, told) = telling();
    serving.handle.connect(&target, &options, move || Telling(tell)).unwrap();
    for _ in &fillers {
        socket.accept().unwrap();
    }
    assert!(next(&told).starts_with("open unix:@reev-backlog-"));
}

#[test]
fn the_local_address_is_the_one_asked_for() {
    let serving = idle_server();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let bind = "127.0.0.9:0".parse().unwrap();
    let options = ConnectOptions { bind: Some(bind), ..ConnectOptions::default() };
    serving.handle.connect(addr, &options, || Telling(telling().0)).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip().to_string(), "127.0.0.9");
    let bind = "[::1]:0".parse().unwrap();
    let options = ConnectOptions { bind: Some(bind), ..ConnectOptions::default() };
    let (tell, told) = telling();
    serving.handle.connect(addr, &options, move || Telling(tell)).unwrap();
    assert_eq!(all(&told), ["fail AddrNotAvailable"]);
}

#[test]
fn fast_open_on_both_sides_carries_the_same_bytes() {
    let options = ListenOptions { fast_open: Some(16), ..ListenOptions::default() };
    let serving = Serving::start(config(), "127.0.0.1:0", &options, |_| {
        common::each(|cx, what| {
            if let common::What::Read(data) = what {
                cx.write(data);
                return Ok(data.len());
            }
            common::usual(cx, what)
        })
    });
    let options = ConnectOptions { fast_open: true, ..ConnectOptions::default() };
    for _ in 0..3 {
        let (tell, told) = telling();
        let (addr, options) = (serving.socket_addr(), options.clone());
        serving.ask(move |reactor| {
            let id = reactor.connect(addr, &options, Once(Telling(tell)));
            reactor.conn(id).unwrap().write(b"hello");
        });
        let lines = all(&told);
        assert_eq!(lines, ["read hello", "close local"]);
    }
}

/// Speaks first, as a server of mail does.
#[test]
fn fast_open_to_a_server_that_speaks_first() {
    let options = ListenOptions { fast_open: Some(16), ..ListenOptions::default() };
    let serving = Serving::start(config(), "127.0.0.1:0", &options, |_| {
        common::each(|cx, what| {
            if let common::What::Open = what {
                cx.write(b"220");
            }
            common::usual(cx, what)
        })
    });
    let options = ConnectOptions { fast_open: true, ..ConnectOptions::default() };
    for _ in 0..3 {
        let (tell, told) = telling();
        let (addr, options) = (serving.socket_addr(), options.clone());
        serving.ask(move |reactor| _ = reactor.connect(addr, &options, Once(Telling(tell))));
        assert_eq!(all(&told), ["read 220", "close local"]);
    }
}

/// Both once more where servers give cookies, so that a connection can begin with data.
/// Planted: a socket that waits for the first bytes is taken for one under way, and times out; the
/// SYN is never sent where nothing is written.
#[test]
#[cfg(target_os = "linux")]
fn fast_open_with_a_cookie() {
    const ALONE: &str = "REEV_TEST_COOKIE";
    if std::env::var_os(ALONE).is_some() {
        return;
    }
    let within = "ip link set lo up && echo 3 >/proc/sys/net/ipv4/tcp_fastopen || exit 77; \
        exec \"$0\" fast_open";
    let mut command = std::process::Command::new("unshare");
    command.args(["-rn", "sh", "-c", within]).arg(std::env::current_exe().unwrap());
    let output = command.env(ALONE, "1").output();
    let Ok(output) = output.map_err(|error| eprintln!("SKIPPED: no unshare(1): {error}")) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    if !said.contains("running 3 tests") {
        return eprintln!("SKIPPED: no network of its own: {output:?}");
    }
    assert!(output.status.success(), "{said}");
}

/// Closes after the first bytes.
struct Once(Telling);

impl EvHandler for Once {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        self.0.tell(format!("read {}", String::from_utf8_lossy(data)));
        cx.close();
        Ok(data.len())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        self.0.on_close(cx, why);
    }
}

#[test]
fn sockets_made_elsewhere_are_adopted() {
    let serving = idle_server();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut tcp, _) = listener.accept().unwrap();
    let (ours, mut unix) = UnixStream::pair().unwrap();
    let (tell, told) = telling();
    let tell_unix = tell.clone();
    serving.ask(move |reactor| {
        reactor.adopt(client, Telling(tell)).unwrap();
    });
    assert!(next(&told).starts_with("open 127.0.0.1:"));
    tcp.write_all(b"abc").unwrap();
    assert_eq!(next(&told), "read abc");
    serving.ask(move |reactor| {
        reactor.adopt(ours, Telling(tell_unix)).unwrap();
    });
    assert_eq!(next(&told), "open unix:(unnamed)");
    unix.write_all(b"def").unwrap();
    assert_eq!(next(&told), "read def");
    tcp.read_exact(&mut [0; 3]).unwrap();
    unix.read_exact(&mut [0; 3]).unwrap();
    drop((tcp, unix));
    assert_eq!(all(&told), ["close peer", "close peer"]);
}

#[test]
fn what_is_not_a_connected_stream_is_not_adopted() {
    let serving = idle_server();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let datagrams = std::os::unix::net::UnixDatagram::pair().unwrap().0;
    let kinds = serving.ask(move |reactor| {
        let sockets: [OwnedFd; 3] = [listener.into(), file.into(), datagrams.into()];
        sockets.map(|socket| {
            reactor.adopt(socket, Telling(telling().0)).unwrap_err().to_string();
            reactor.conn_ids().len()
        })
    });
    assert_eq!(kinds, [0, 0, 0]);
}

/// Reads nothing of "tail", and leaves when it is told to, with output that nobody reads.
struct Leaver {
    output: Vec<u8>,
    handed: Option<Sender<Detached>>,
    tell: Telling,
}

impl EvHandler for Leaver {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        if !data.ends_with(b"tail") {
            return Ok(0);
        }
        cx.write(&self.output);
        cx.set_timer(Duration::from_secs(3600));
        let handed = self.handed.take().unwrap();
        cx.detach(move |detached| handed.send(detached).unwrap());
        cx.detach(|_| panic!("it can leave only once"));
        Ok(data.len() - 4)
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        cx.write(b"too late");
        self.tell.on_close(cx, why);
    }
}

/// Planted: `unsent` dropped; the tail not handed over.
#[test]
fn a_detached_socket_goes_on_elsewhere_with_nothing_lost() {
    let big = common::Serving::tcp(|_| common::each(common::usual));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    let output = pattern(12 << 20, 1);
    let (hand, handed) = mpsc::channel();
    let (tell, told) = telling();
    let leaver = (output.clone(), hand, tell);
    big.ask(move |reactor| {
        let (output, hand, tell) = leaver;
        let leaver = Leaver { output, handed: Some(hand), tell: Telling(tell) };
        reactor.adopt(ours, leaver).unwrap();
    });
    client.write_all(b"head and tail").unwrap();
    let Detached { socket, unread, unsent } = handed.recv_timeout(PATIENCE).unwrap();
    assert_eq!(all(&told), ["close detached"]);
    assert_eq!(unread, b"tail");
    assert!(!unsent.is_empty(), "the system does not take 12 MiB");
    until("nothing is left", || big.ask(|reactor| reactor.conn_ids().is_empty()));
    assert_eq!(big.handle.stats()[0].output_queued, 0);

    // On as a blocking stream of the standard library.
    let mut elsewhere = TcpStream::from(socket);
    elsewhere.set_nonblocking(false).unwrap();
    let reader = std::thread::spawn(move || read_all(client));
    elsewhere.write_all(&unsent).unwrap();
    elsewhere.write_all(b"the end").unwrap();
    drop(elsewhere);
    let (received, error) = reader.join().unwrap();
    assert_eq!(error, None);
    assert!(received[..output.len()] == output[..], "the concatenation of what was written");
    assert_eq!(&received[output.len()..], b"the end");
}

/// Takes nothing, and leaves when the peer has finished.
struct LeavesAtEof(Option<Sender<Detached>>);

impl EvHandler for LeavesAtEof {
    fn on_read(&mut self, _: &mut Ctx<'_>, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }

    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        let handed = self.0.take().unwrap();
        cx.detach(move |detached| handed.send(detached).unwrap());
        Ok(())
    }
}

/// Planted: what was left untaken is dropped after `on_eof` before the connection leaves.
#[test]
fn what_was_left_untaken_leaves_with_a_finished_peer() {
    let (ours, mut client) = UnixStream::pair().unwrap();
    let (hand, handed) = mpsc::channel();
    let serving = idle_server();
    serving.ask(move |reactor| _ = reactor.adopt(ours, LeavesAtEof(Some(hand))).unwrap());
    client.write_all(b"all of it").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(handed.recv_timeout(PATIENCE).unwrap().unread, b"all of it");
}

/// Has a file behind output that nobody reads when it is told to leave.
struct Keeper {
    path: std::path::PathBuf,
    handed: Option<Sender<Detached>>,
    tell: Telling,
}

impl EvHandler for Keeper {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        cx.write(&pattern(12 << 20, 1));
        cx.send_file(std::fs::File::open(&self.path)?, 0..1000);
        let handed = self.handed.take().unwrap();
        cx.detach(move |detached| handed.send(detached).unwrap());
        Ok(data.len())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        self.tell.on_close(cx, why);
        self.tell.tell(why.to_string());
    }
}

/// Planted: it leaves all the same, without the file.
#[test]
fn a_connection_does_not_leave_while_a_file_waits() {
    let serving = idle_server();
    let path = std::env::temp_dir().join(format!("reev-keeper-{}", std::process::id()));
    std::fs::write(&path, pattern(1000, 2)).unwrap();
    let (ours, mut client) = UnixStream::pair().unwrap();
    let ((hand, handed), (tell, told)) = (mpsc::channel(), telling());
    let keeper = (path.clone(), Some(hand), Telling(tell));
    serving.ask(move |reactor| {
        let (path, handed, tell) = keeper;
        reactor.adopt(ours, Keeper { path, handed, tell }).unwrap();
    });
    client.write_all(b"go").unwrap();
    let lines = all(&told);
    assert_eq!(lines[0], "close error");
    assert!(lines[1].contains("a connection cannot be detached while a file waits"), "{lines:?}");
    assert!(handed.recv_timeout(PATIENCE).is_err(), "nobody is given half a connection");
    until("nothing is left", || serving.handle.stats()[0].output_queued == 0);
    std::fs::remove_file(path).unwrap();
}

/// Segments with data that a TCP socket has received (tcpi_data_segs_in of TCP_INFO, tcp(7)).
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn data_segments(stream: &TcpStream) -> u32 {
    let (mut info, mut len) = ([0_u8; 256], 256 as libc::socklen_t);
    // SAFETY: the option's value goes to a live array that is as long as is said.
    let done = unsafe {
        let fd = std::os::fd::AsRawFd::as_raw_fd(stream);
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut len)
    };
    assert!(done == 0 && len >= 156, "{}", io::Error::last_os_error());
    u32::from_ne_bytes(info[152..156].try_into().unwrap())
}

/// Planted: the head is sent without MSG_MORE, and so in a segment of its own.
#[cfg(target_os = "linux")] // others do not count them for us
#[test]
fn the_head_of_a_file_shares_its_segment() {
    let path = std::env::temp_dir().join(format!("reev-head-{}", std::process::id()));
    std::fs::write(&path, pattern(1000, 2)).unwrap();
    let theirs = path.clone();
    let serving = Serving::tcp(move |_| {
        let path = theirs.clone();
        common::each(move |cx, what| {
            if let common::What::Read(data) = what {
                cx.write(&[7; 200]);
                cx.send_file(std::fs::File::open(&path)?, 0..1000);
                return Ok(data.len());
            }
            common::usual(cx, what)
        })
    });
    let mut client = serving.connect();
    for _ in 0..20 {
        client.write_all(b"?").unwrap();
        client.read_exact(&mut [0; 1200]).unwrap();
    }
    assert_eq!(data_segments(&client), 20);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_detached_socket_joins_another_reactor() {
    let (first, second) = (idle_server(), idle_server());
    let (ours, mut client) = UnixStream::pair().unwrap();
    let (hand, handed) = mpsc::channel();
    first.ask(move |reactor| {
        let tell = Telling(telling().0);
        let leaver = Leaver { output: b"from the first; ".to_vec(), handed: Some(hand), tell };
        reactor.adopt(ours, leaver).unwrap();
    });
    client.write_all(b"tail").unwrap();
    let detached = handed.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&detached.unread[..], &detached.unsent[..]), (&b"tail"[..], &b""[..]));
    let (tell, told) = telling();
    second.ask(move |reactor| {
        let id = reactor.adopt(detached.socket, Telling(tell)).unwrap();
        reactor.conn(id).unwrap().write(b"from the second; ");
    });
    assert_eq!(next(&told), "open unix:(unnamed)");
    client.write_all(b"on").unwrap();
    assert_eq!(next(&told), "read on");
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_all(client).0, b"from the first; from the second; on");
}

#[test]
#[cfg(target_os = "linux")]
fn an_eventfd_a_pipe_and_a_socket_are_sources() {
    use nix::sys::eventfd::{EfdFlags, EventFd};
    let serving = idle_server();
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).unwrap();
    let (pipe, mut pipe_end) = io::pipe().unwrap();
    let (socket, mut socket_end) = UnixStream::pair().unwrap();
    let event_copy: OwnedFd = std::os::fd::AsFd::as_fd(&event).try_clone_to_owned().unwrap();
    let sources: [OwnedFd; 3] = [event_copy, pipe.into(), socket.into()];
    for (i, source) in sources.into_iter().enumerate() {
        let (tell, told) = telling();
        let add = move |reactor: &mut reev::Reactor| {
            reactor.add_source(source, Readiness::READ, Telling(tell)).unwrap()
        };
        let id = serving.ask(add);
        assert_eq!(next(&told), "open (no socket)");
        let make_ready =
            |event: &EventFd, pipe: &mut io::PipeWriter, socket: &mut UnixStream| match i {
                0 => assert_eq!(event.write(1).unwrap(), 8),
                1 => pipe.write_all(b"x").unwrap(),
                _ => socket.write_all(b"x").unwrap(),
            };
        make_ready(&event, &mut pipe_end, &mut socket_end);
        assert_eq!(next(&told), "ready true false false");
        // It does not spin, though it is still readable.
        serving.comes_to_rest();
        assert!(told.try_recv().is_err());
        serving.ask(move |reactor| reactor.conn(id).unwrap().watch(Readiness::READ).unwrap());
        assert_eq!(next(&told), "ready true false false");
        serving.ask(move |reactor| reactor.conn(id).unwrap().close());
        assert_eq!(all(&told), ["close local"]);
    }
}

#[test]
fn a_source_is_told_of_room_and_of_the_hang_up() {
    let serving = idle_server();
    let (reader, writer) = io::pipe().unwrap();
    let (tell, told) = telling();
    let id = serving
        .ask(move |reactor| reactor.add_source(writer, Readiness::WRITE, Telling(tell)).unwrap());
    assert_eq!(next(&told), "open (no socket)");
    assert_eq!(next(&told), "ready false true false");
    drop(reader);
    serving.comes_to_rest(); // a hang-up is not told to a source that rests
    // kqueue tells of an end in the direction that is watched; epoll in any.
    let (watch, ready) = match common::KQUEUE {
        true => (Readiness::WRITE, "ready false true true"),
        false => (Readiness::READ, "ready false false true"),
    };
    serving.ask(move |reactor| reactor.conn(id).unwrap().watch(watch).unwrap());
    assert_eq!(all(&told), [ready, "close local"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_system_event_is_a_source_and_a_regular_file_is_none() {
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    let serving = idle_server();
    let path = std::env::temp_dir().join(format!("reev-inotify-{}", std::process::id()));
    let mut file = std::fs::File::create(&path).unwrap();
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
    inotify.add_watch(&path, AddWatchFlags::IN_MODIFY).unwrap();
    let inotify: OwnedFd = inotify.into();
    let (tell, told) = telling();
    serving.ask(move |reactor| {
        reactor.add_source(inotify, Readiness::READ, Telling(tell)).unwrap();
    });
    assert_eq!(next(&told), "open (no socket)");
    file.write_all(b"changed").unwrap();
    assert_eq!(next(&told), "ready true false false");

    let refused = serving.ask(move |reactor| {
        let open = reactor.conn_ids().len();
        let error = reactor.add_source(file, Readiness::READ, Telling(telling().0)).unwrap_err();
        (error.kind(), reactor.conn_ids().len() - open, reactor.handle().stats()[0].open)
    });
    assert_eq!(refused, (io::ErrorKind::PermissionDenied, 0, 1));
    std::fs::remove_file(path).unwrap();
}

/// A source that is ready before the first turn, and whose `on_open` must still come first.
/// Planted: `source_ready` without `open_first`.
#[test]
fn a_source_of_setup_is_opened_before_it_is_ready() {
    let server = reev::Server::new(config()).unwrap();
    let (told_tx, told) = telling();
    let running = server.start(move |reactor| {
        let (one, mut other) = UnixStream::pair()?;
        other.write_all(b"x")?;
        // Connections that are ready in the first turn too, before it and after it.
        for _ in 0..3 {
            let copy = one.try_clone()?;
            reactor.add_source(copy, Readiness::READ, Telling(told_tx.clone()))?;
        }
        std::mem::forget(other.try_clone()?);
        Ok(())
    });
    let running = running.unwrap();
    let lines: Vec<String> = (0..6).map(|_| next(&told)).collect();
    let opens = lines.iter().take(3).filter(|line| line.starts_with("open")).count();
    let ready = lines.iter().filter(|line| line.starts_with("ready true")).count();
    assert!(opens >= 1 && ready == 3 && lines[0].starts_with("open"), "{lines:?}");
    running.handle().stop();
    running.join().unwrap();
}

/// A source that is ready when it joins, and gives up in `on_open`, together with `adder`.
struct GivesUp {
    adder: ConnId,
    tell: Telling,
}

/// Joins a `GivesUp`, and another handler in its last callback, which gets the source's slot.
struct Adder {
    ready: Option<io::PipeReader>,
    tell: Sender<String>,
}

impl EvHandler for GivesUp {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.abort();
        cx.conn(self.adder).unwrap().abort();
        Ok(())
    }

    fn on_ready(&mut self, cx: &mut Ctx<'_>, ready: Readiness) -> io::Result<()> {
        self.tell.on_ready(cx, ready)
    }
}

impl EvHandler for Adder {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        let (adder, tell) = (cx.id(), Telling(self.tell.clone()));
        cx.add_source(self.ready.take().unwrap(), Readiness::READ, GivesUp { adder, tell })?;
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, _: &Close) {
        cx.add(Telling(self.tell.clone()));
    }
}

/// Hard case 1 for sources. Planted: `source_ready` calls whoever has the slot after `open_first`.
#[test]
fn what_a_source_was_ready_for_is_not_told_to_the_next_in_its_slot() {
    let serving = idle_server();
    let (ready, mut writer) = io::pipe().unwrap();
    writer.write_all(b"x").unwrap();
    let (tell, told) = telling();
    serving.ask(move |reactor| _ = reactor.add(Adder { ready: Some(ready), tell }));
    assert_eq!(next(&told), "open (no socket)");
    serving.comes_to_rest();
    assert_eq!(told.try_recv().ok(), None);
}
