//! Servers on real sockets: listeners of every kind, their options, bad input, and the end.

#[path = "../common/mod.rs"]
mod common;

mod ends;
mod unix_paths;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use common::in_child;
use common::origin::{Origin, both_ways};
use common::{Serving, What, config, each, read_all, until, usual};
use reev::{
    Addr, Close, Config, Ctx, EvHandler, Handle, ListenOptions, Reactor, SendError, Server, Stats,
};
use socket2::{SockAddr, Socket};

struct Echo;

impl EvHandler for Echo {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        cx.write(data);
        Ok(data.len())
    }
}

fn reactors(n: usize) -> Config {
    Config { reactors: n, ..config() }
}

/// The answer to one exchange, and the end of the stream.
fn echo(mut stream: impl Read + Write, finish: impl Fn()) {
    stream.write_all(b"hello").unwrap();
    finish();
    assert_eq!(read_all(stream), (b"hello".to_vec(), None));
}

fn echo_tcp(addr: SocketAddr) {
    let stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let other = stream.try_clone().unwrap();
    echo(stream, || other.shutdown(Shutdown::Write).unwrap());
}

fn echo_unix(addr: &SockAddr) {
    let stream = Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    stream.connect(addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let other = stream.try_clone().unwrap();
    echo(stream, || other.shutdown(Shutdown::Write).unwrap());
}

/// A folder of one test's own, removed with what is in it at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("reev-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn socket(&self) -> (PathBuf, String) {
        let path = self.0.join("socket");
        let addr = format!("unix://{}", path.display());
        (path, addr)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn every_kind_of_listener_in_one_server() {
    let folder = Folder::new("kinds");
    let (path, unix) = folder.socket();
    let name = format!("reev-kinds-{}", std::process::id());
    let mut server = Server::new(reactors(2)).unwrap();
    let mut listen = |addr: &str| {
        let id = server.listen(addr).unwrap();
        (id, server.local_addr(id))
    };
    let v4 = listen("tcp://127.0.0.1:0");
    let v6 = listen("tcp://[::1]:0");
    let v6_only = listen("tcp6://:0");
    let bare = listen("localhost:0");
    let unix = listen(&unix);
    let named = listen(&format!("unix://@{name}"));
    let all = [&v4, &v6, &v6_only, &bare, &unix, &named].map(|(id, _)| *id);
    let peers = Arc::new(Mutex::new(Vec::new()));
    let running = {
        let peers = peers.clone();
        server.start(move |reactor| {
            for id in all {
                let peers = peers.clone();
                reactor.accept(id, move |peer| {
                    peers.lock().unwrap().push(peer.clone());
                    Echo
                })?;
            }
            Ok(())
        })
    };
    let running = running.unwrap();
    for (_, addr) in [&v4, &v6, &bare] {
        let addr = addr.socket_addr().unwrap();
        assert_ne!(addr.port(), 0);
        for _ in 0..8 {
            echo_tcp(addr);
        }
    }
    let port = v6_only.1.port().unwrap();
    echo_tcp((std::net::Ipv6Addr::LOCALHOST, port).into());
    assert_eq!(unix.1.unix_path(), Some(path.as_path()));
    assert_eq!(named.1.to_string(), format!("unix:@{name}"));
    for _ in 0..8 {
        echo_unix(&SockAddr::unix(&path).unwrap());
        echo_unix(&SockAddr::unix(format!("\0{name}")).unwrap());
    }
    let peers = peers.lock().unwrap();
    assert_eq!(peers.iter().filter(|peer| peer.is_unix()).count(), 16);
    assert!(peers.iter().any(|peer| peer.ip() == Some(Ipv4Addr::LOCALHOST.into())));
    drop(peers);
    running.handle().stop();
    running.join().unwrap();
    assert!(!path.exists(), "the server's own path is removed");
}

/// A client of `[::]` that comes by IPv4 is shown as IPv4; a `tcp6` listener does not take it.
#[test]
fn dual_stack() {
    let (told, peers) = mpsc::channel();
    let factory = move |peer: &Addr| {
        told.send(peer.clone()).unwrap();
        Echo
    };
    for addr in ["tcp://[::]:0", "tcp://:0"] {
        let serving = Serving::start(config(), addr, &ListenOptions::default(), factory.clone());
        let port = serving.addr.port().unwrap();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        let local = client.local_addr().unwrap();
        assert_eq!(peers.recv().unwrap().to_string(), local.to_string());
        assert!(local.is_ipv4());
        echo_tcp((std::net::Ipv6Addr::LOCALHOST, port).into());
        assert!(matches!(peers.recv().unwrap().ip(), Some(IpAddr::V6(_))));
    }
    let serving = Serving::start(config(), "tcp4://:0", &ListenOptions::default(), factory);
    assert!(serving.addr.ip().unwrap().is_ipv4());
}

/// Soon: a child of another test's, forked a moment ago, may have all descriptors until it runs
/// its program.
#[track_caller]
fn nobody_listens(addr: SocketAddr) {
    until("nobody listens", || TcpStream::connect(addr).is_err());
}

#[test]
fn adopted_listeners_are_shared_by_all_reactors() {
    let folder = Folder::new("adopted");
    let path = folder.0.join("socket");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = tcp.local_addr().unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let mut server = Server::new(reactors(3)).unwrap();
    let options = ListenOptions::default();
    let ids = [
        server.adopt_listener(tcp, &options).unwrap(),
        server.adopt_listener(unix, &options).unwrap(),
    ];
    assert_eq!(server.local_addr(ids[0]), Addr::from(addr));
    assert_eq!(server.local_addr(ids[1]).unix_path(), Some(path.as_path()));
    let running =
        server.start(move |reactor| ids.iter().try_for_each(|&id| reactor.accept(id, |_| Echo)));
    let running = running.unwrap();
    for _ in 0..20 {
        echo_tcp(addr);
        echo_unix(&SockAddr::unix(&path).unwrap());
    }
    assert_eq!(Stats::total(&running.handle().stats()).accepted, 40);
    running.handle().stop();
    running.join().unwrap();
    assert!(path.exists(), "an adopted socket's path is its owner's");
    nobody_listens(addr);
}

/// Planted: the socket is adopted whatever it is, and the reactor tries to accept for ever.
#[test]
fn what_does_not_listen_is_not_adopted() {
    let mut server = Server::new(reactors(1)).unwrap();
    let options = ListenOptions::default();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    for error in [
        server.adopt_listener(connected, &options).unwrap_err(),
        server.adopt_listener(datagrams, &options).unwrap_err(),
        server.adopt_listener(UnixStream::pair().unwrap().0, &options).unwrap_err(),
        server.adopt_listener(fs::File::open("/dev/null").unwrap(), &options).unwrap_err(),
    ] {
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains("listen"), "{error}");
    }
}

/// The sockets of this process that are connected to `peer`, each with `read` of it.
#[cfg(target_os = "linux")] // which shows them in /proc
#[allow(unsafe_code)]
fn sockets_connected_to<R>(peer: SocketAddr, read: impl Fn(&socket2::SockRef<'_>) -> R) -> Vec<R> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let fd: i32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        // SAFETY: used for calls that only ask, in a process where nothing else runs.
        let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
        let socket = socket2::SockRef::from(&borrowed);
        let at = |addr: io::Result<SockAddr>| addr.ok().and_then(|addr| addr.as_socket());
        if at(socket.peer_addr()) == Some(peer) {
            found.push(read(&socket));
        }
    }
    found
}

/// Each option, read back where the system has put it. Planted: each line of `set_options`
/// left out.
#[cfg(target_os = "linux")] // others have no time of keep-alive, or other sizes
fn socket_options_reach_the_connections(origin: Origin) {
    if !in_child(&format!("{origin}::socket_options_reach_the_connections")) {
        return; // descriptors are searched
    }
    let seconds = Duration::from_secs;
    let look = |options: ListenOptions| {
        let serving = Serving::start(config(), "127.0.0.1:0", &options, |_| Echo);
        let client = serving.peer(origin);
        until("it is open", || serving.handle.stats()[0].open == 1);
        let mut sockets = sockets_connected_to(client.local_addr().unwrap(), |socket| {
            (
                socket.tcp_nodelay().unwrap(),
                socket.keepalive().unwrap().then(|| socket.tcp_keepalive_time().unwrap()),
                socket.recv_buffer_size().unwrap(),
                socket.send_buffer_size().unwrap(),
                socket.linger().unwrap(),
                socket.nonblocking().unwrap(),
            )
        });
        sockets.pop().expect("the reactor's socket")
    };
    let usual = look(ListenOptions::default());
    assert_eq!((usual.0, usual.1, usual.4, usual.5), (true, None, None, true));
    let set = look(ListenOptions {
        nodelay: false,
        keepalive: Some(seconds(77)),
        recv_buffer: Some(30_000),
        send_buffer: Some(40_000),
        linger: Some(Duration::ZERO),
        ..ListenOptions::default()
    });
    // The system doubles the sizes, for its own bookkeeping (socket(7)).
    assert_eq!(set, (false, Some(seconds(77)), 60_000, 80_000, Some(Duration::ZERO), true));
}

/// A backlog of one, with nobody accepting, lets few in. Planted: the backlog is not used.
#[test]
fn the_backlog_is_the_systems() {
    let mut server = Server::new(reactors(1)).unwrap();
    let options = ListenOptions { backlog: 1, ..ListenOptions::default() };
    let id = server.listen_with("127.0.0.1:0", &options).unwrap();
    let addr = server.local_addr(id).socket_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&addr, Duration::from_millis(100)) {
        waiting.push(stream);
        assert!(waiting.len() < 10, "a backlog of 1 holds {}", waiting.len());
    }
    assert!(!waiting.is_empty());
}

/// Without `reuse_port` one socket is shared. Either way the address is in use for everybody else,
/// but for who has `reuse_port` and says `share_port`.
#[test]
fn reuse_port_or_not() {
    for reuse_port in [true, false] {
        let options = ListenOptions { reuse_port, ..ListenOptions::default() };
        let mut server = Server::new(reactors(2)).unwrap();
        let id = server.listen_with("127.0.0.1:0", &options).unwrap();
        let addr = server.local_addr(id);
        for share_port in [true, false] {
            let options = ListenOptions { share_port, ..options.clone() };
            let again = Server::new(reactors(1)).unwrap().listen_with(&addr.to_string(), &options);
            assert_eq!(again.is_ok(), reuse_port && share_port);
            if let Err(error) = again {
                assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            }
        }
        let running = server.start(move |reactor| reactor.accept(id, |_| Echo)).unwrap();
        for _ in 0..8 {
            echo_tcp(addr.socket_addr().unwrap());
        }
        running.handle().stop();
        running.join().unwrap();
    }
}

#[test]
fn unix_mode_sets_the_permissions() {
    let folder = Folder::new("mode");
    let (path, addr) = folder.socket();
    let mut server = Server::new(reactors(1)).unwrap();
    let options = ListenOptions { unix_mode: Some(0o640), ..ListenOptions::default() };
    server.listen_with(&addr, &options).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    drop(server);
    assert!(!path.exists(), "a server that never ran removes its path too");
}

/// Never more than the limit, over all reactors, and all are served in the end. Planted: the
/// limit is twice as high; what a connection held is not given back.
#[test]
fn max_connections_is_exact() {
    const LIMIT: usize = 3;
    struct Counted(Arc<(AtomicUsize, AtomicUsize)>);
    impl EvHandler for Counted {
        fn on_open(&mut self, _: &mut Ctx<'_>) -> io::Result<()> {
            let now = self.0.0.fetch_add(1, Ordering::SeqCst) + 1;
            self.0.1.fetch_max(now, Ordering::SeqCst);
            Ok(())
        }
        fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
            cx.write(data);
            Ok(data.len())
        }
        fn on_close(&mut self, _: &mut Ctx<'_>, _: &Close) {
            self.0.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let counts = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let options = ListenOptions { max_connections: Some(LIMIT), ..ListenOptions::default() };
    let serving = Serving::start(reactors(2), "127.0.0.1:0", &options, {
        let counts = counts.clone();
        move |_| Counted(counts.clone())
    });
    let clients: Vec<_> = (0..12).map(|_| serving.connect()).collect();
    until("the limit is reached", || counts.0.load(Ordering::SeqCst) == LIMIT);
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| {
                let other = client.try_clone().unwrap();
                echo(client, || other.shutdown(Shutdown::Write).unwrap());
            });
        }
    });
    assert_eq!(counts.1.load(Ordering::SeqCst), LIMIT);
    assert_eq!(Stats::total(&serving.handle.stats()).accepted, 12);
}

#[track_caller]
fn refused(result: io::Result<reev::ListenerId>, kind: io::ErrorKind, words: &[&str]) {
    let error = result.expect_err("nonsense is refused");
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

#[test]
fn bad_addresses_get_a_clear_error() {
    use io::ErrorKind::*;
    let mut server = Server::new(reactors(1)).unwrap();
    refused(server.listen("127.0.0.1"), InvalidInput, &["127.0.0.1", "port"]);
    refused(server.listen("127.0.0.1:http"), InvalidInput, &["127.0.0.1:http", "65535"]);
    refused(server.listen("ftp://x:1"), InvalidInput, &["ftp", "scheme"]);
    refused(server.listen("unix://"), InvalidInput, &["empty path"]);
    refused(server.listen("192.0.2.1:0"), AddrNotAvailable, &["192.0.2.1", "no such address"]);
    refused(server.listen("tcp6://127.0.0.1:0"), NotFound, &["127.0.0.1"]);
    let long = format!("unix:///{}", "x".repeat(200));
    refused(server.listen(&long), InvalidInput, &["xxx"]);
    refused(server.listen("unix:///nowhere/at/all"), NotFound, &["/nowhere/at/all"]);
    // Another's port: the address is in the message, and what to do.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = other.local_addr().unwrap().to_string();
    refused(server.listen(&addr), AddrInUse, &[&addr, "in use", "another port"]);
    // What was refused has harmed nothing.
    let id = server.listen("127.0.0.1:0").unwrap();
    let addr = server.local_addr(id).socket_addr().unwrap();
    let running = server.start(move |reactor| reactor.accept(id, |_| Echo)).unwrap();
    echo_tcp(addr);
    running.handle().stop();
    running.join().unwrap();
}

#[test]
fn no_permission_gets_a_clear_error() {
    let folder = Folder::new("denied");
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(folder.0.join("probe"), "").is_ok() {
        return; // we may do everything, as root
    }
    let mut server = Server::new(reactors(1)).unwrap();
    let kind = io::ErrorKind::PermissionDenied;
    refused(server.listen(&folder.socket().1), kind, &["no permission"]);
}

#[test]
fn nonsense_in_options_is_refused() {
    use io::ErrorKind::InvalidInput;
    let mut server = Server::new(reactors(1)).unwrap();
    let mut with = |change: fn(&mut ListenOptions)| {
        let mut options = ListenOptions::default();
        change(&mut options);
        server.listen_with("127.0.0.1:0", &options)
    };
    refused(with(|o| o.backlog = 0), InvalidInput, &["backlog"]);
    refused(with(|o| o.backlog = -1), InvalidInput, &["backlog"]);
    refused(with(|o| o.max_connections = Some(0)), InvalidInput, &["max_connections"]);
    refused(with(|o| o.keepalive = Some(Duration::ZERO)), InvalidInput, &["keepalive"]);
    refused(with(|o| o.keepalive = Some(Duration::MAX)), InvalidInput, &["keepalive"]);
    let config = Config { output_low: 10, output_high: 5, ..config() };
    let error = Server::new(config).map(drop).unwrap_err();
    assert!(error.to_string().contains("output_low is 10"), "{error}");
}

/// The bounds of time may be as long as they like. Planted: they are added without saturation.
fn endless_times_are_allowed(origin: Origin) {
    let config = Config {
        close_timeout: Duration::MAX,
        linger_timeout: Duration::MAX,
        poll_timeout_max: Duration::MAX,
        accept_backoff: Duration::MAX,
        ..config()
    };
    let serving = Serving::start(config, "127.0.0.1:0", &ListenOptions::default(), |_| {
        each(|cx, what| match what {
            What::Open => {
                cx.idle_timeout(Duration::MAX);
                cx.set_timer(Duration::MAX);
                cx.set_periodic(Duration::MAX);
                Ok(0)
            }
            What::Read(data) => {
                cx.write(data);
                Ok(data.len())
            }
            other => usual(cx, other),
        })
    });
    let stream = serving.peer(origin);
    echo(&stream, || stream.shutdown(Shutdown::Write).unwrap());
}

#[test]
fn more_reactors_than_cores() {
    let serving = Serving::start(reactors(9), "127.0.0.1:0", &ListenOptions::default(), |_| Echo);
    assert_eq!(serving.handle.reactors(), 9);
    for _ in 0..30 {
        echo_tcp(serving.socket_addr());
    }
    assert_eq!(Stats::total(&serving.handle.stats()).accepted, 30);
    assert!(Server::new(reactors(1025)).is_err());
}

/// Planted: the reactor's time in setup is that of the server's making.
#[test]
fn setup_has_the_present_time() {
    let server = Server::new(reactors(1)).unwrap();
    let before = Instant::now();
    let handle = server.handle();
    server
        .run(move |reactor| {
            assert!(reactor.now() >= before);
            handle.stop();
            Ok(())
        })
        .unwrap();
}

#[test]
fn broadcast_and_run_on_reach_their_reactors() {
    let server = Server::new(reactors(3)).unwrap();
    let running = server
        .start(|reactor| {
            let index = reactor.index();
            reactor.set_local(index * 100);
            Ok(())
        })
        .unwrap();
    let handle: Handle = running.handle();
    let (told, answers) = mpsc::channel();
    let task = {
        let told = told.clone();
        move |reactor: &mut Reactor| {
            told.send((reactor.index(), *reactor.local::<usize>())).unwrap()
        }
    };
    handle.broadcast(task.clone()).unwrap();
    let mut got: Vec<_> = (0..3).map(|_| answers.recv().unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, [(0, 0), (1, 100), (2, 200)]);
    handle.run_on(2, task).unwrap();
    assert_eq!(answers.recv().unwrap(), (2, 200));
    handle.stop();
    running.join().unwrap();
}

fn stats_add_up(origin: Origin) {
    let serving = Serving::tcp(|_| {
        each(|cx, what| {
            match what {
                What::Open => {
                    cx.set_timer(Duration::from_secs(3600));
                }
                What::Read(data) => {
                    cx.write(data);
                    cx.write(&vec![0; 50_000]);
                    return Ok(data.len());
                }
                other => return usual(cx, other),
            }
            Ok(0)
        })
    });
    let mut clients: Vec<_> = (0..4).map(|_| serving.peer(origin)).collect();
    for client in &mut clients {
        client.write_all(&[1; 100]).unwrap();
        client.read_exact(&mut [0; 50_100]).unwrap();
    }
    serving.ask(|_| ());
    serving.ask(|_| ()); // a turn has ended between the two
    let stats = &serving.handle.stats()[0];
    let begun = if origin == Origin::Accepted { (4, 0) } else { (0, 4) };
    assert_eq!((stats.accepted, stats.connected), begun);
    assert_eq!((stats.open, stats.timers), (4, 4));
    assert_eq!((stats.bytes_in, stats.bytes_out), (400, 4 * 50_100));
    assert_eq!(stats.closed.iter().sum::<u64>(), 0);
    drop(clients);
    until("all are closed", || serving.handle.stats()[0].open == 0);
    let stats = &serving.handle.stats()[0];
    assert_eq!(stats.closed.iter().sum::<u64>(), 4);
    until("their timers are gone", || serving.handle.stats()[0].timers == 0);
}

both_ways!(
    #[cfg(target_os = "linux")]
    socket_options_reach_the_connections,
    endless_times_are_allowed,
    stats_add_up,
);
