//! Hard cases 27 and 28: Unix paths that are taken, and connections placed on reactors exactly.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, mpsc};

use reev::{Addr, Ctx, EvHandler, ListenOptions, Placement, Server};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::{
    Echo, Host, PATIENCE, config, eventually, ping, read_exactly, unix_host, unix_path,
};

fn listen(path: &Path) -> io::Result<Server> {
    let mut server = Server::new(config(1))?;
    server.listen(&format!("unix://{}", path.display()))?;
    Ok(server)
}

/// Planted: a path that is in use is not looked into.
#[test]
fn hard_case_27_a_stale_socket_is_replaced() {
    let path = unix_path();
    drop(UnixListener::bind(&path).unwrap()); // leaves its path behind
    let server = listen(&path).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(server);
    assert!(!path.exists(), "its own path is removed");
}

/// Planted: whatever is at the path is unlinked.
#[test]
fn hard_case_27_what_is_not_a_socket_is_left_alone() {
    let path = unix_path();
    std::fs::write(&path, "precious").unwrap();
    let error = listen(&path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();

    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("file"), "precious").unwrap();
    assert!(listen(&path).is_err());
    assert_eq!(std::fs::read(path.join("file")).unwrap(), b"precious");
    std::fs::remove_dir_all(&path).unwrap();

    let target = unix_path();
    drop(UnixListener::bind(&target).unwrap());
    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert!(listen(&path).is_err());
    assert!(path.is_symlink() && target.exists());
    std::fs::remove_file(&path).unwrap();
    std::fs::remove_file(&target).unwrap();
}

/// Planted: a path at which somebody listens is taken over.
#[test]
fn hard_case_27_a_server_that_runs_keeps_its_path() {
    let host = unix_host(config(1), |_| Echo);
    let error = listen(host.addr.unix_path().unwrap()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
    ping(&mut host.unix());
}

/// A server that is too busy to accept is there all the same.
///
/// Planted: whether somebody listens is found out by a `connect` that blocks.
#[test]
fn hard_case_27_a_server_whose_queue_is_full_keeps_its_path() {
    let path = unix_path();
    let busy = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let addr = SockAddr::unix(&path).unwrap();
    busy.bind(&addr).unwrap();
    busy.listen(0).unwrap();
    let mut queue = Vec::new();
    loop {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        match client.connect(&addr) {
            Ok(()) => queue.push(client),
            Err(error) => break assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
    let (said, says) = mpsc::channel();
    let tried = path.clone();
    std::thread::spawn(move || said.send(listen(&tried).unwrap_err().kind()).unwrap());
    assert_eq!(says.recv_timeout(PATIENCE), Ok(io::ErrorKind::AddrInUse));
    std::fs::remove_file(&path).unwrap();
}

/// Planted: the path is removed at the end, whoever's it is.
#[test]
fn hard_case_27_a_path_that_is_another_server_s_by_now_is_left() {
    let host = unix_host(config(1), |_| Echo);
    let path = host.addr.unix_path().unwrap().to_owned();
    std::fs::remove_file(&path).unwrap();
    let next = UnixListener::bind(&path).unwrap();
    drop(host);
    UnixStream::connect(&path).unwrap();
    drop(next);
    std::fs::remove_file(&path).unwrap();
}

/// Says at once on which reactor it is, and stays.
struct WhereAmI;

impl EvHandler for WhereAmI {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.write(&[cx.reactor_index() as u8]);
        Ok(())
    }

    fn on_read(&mut self, _cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        Ok(data.len())
    }
}

const REACTORS: usize = 4;

fn placed(placement: Placement) -> Host {
    let options = ListenOptions { placement, ..ListenOptions::default() };
    Host::serve_on("127.0.0.1:0", config(REACTORS), &options, |_| WhereAmI)
}

/// A long connection from a loopback address, and its reactor.
fn long_connection(host: &Host, source: u8) -> (TcpStream, usize) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source = Ipv4Addr::new(127, 0, 3, source);
    socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
    socket.connect(&host.socket_addr().into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let reactor = read_exactly(&mut stream, 1)[0];
    (stream, reactor.into())
}

fn spread(connections: &[(TcpStream, usize)]) -> [usize; REACTORS] {
    let mut spread = [0; REACTORS];
    connections.iter().for_each(|&(_, reactor)| spread[reactor] += 1);
    spread
}

/// Planted: connections stay with the reactor that accepts them.
#[test]
fn hard_case_28_round_robin_spreads_32_long_connections_exactly() {
    let host = placed(Placement::RoundRobin);
    let connections: Vec<_> = (0..32).map(|_| long_connection(&host, 1)).collect();
    assert_eq!(spread(&connections), [8; REACTORS]);
}

/// Planted: the end of a connection is not counted.
#[test]
fn hard_case_28_least_connections_spreads_exactly_and_fills_gaps() {
    let host = placed(Placement::LeastConnections);
    let mut connections: Vec<_> = (0..32).map(|_| long_connection(&host, 1)).collect();
    assert_eq!(spread(&connections), [8; REACTORS]);
    connections.retain(|&(_, reactor)| reactor != 2);
    eventually("the ends are noticed", || host.stats().open == 24);
    connections.extend((0..8).map(|_| long_connection(&host, 1)));
    assert_eq!(spread(&connections), [8; REACTORS]);
}

/// Planted: the port goes into the hash.
#[test]
fn hard_case_28_a_source_has_one_reactor() {
    let host = placed(Placement::SourceHash);
    let mut used = [false; REACTORS];
    for source in 1..=16 {
        let connections: Vec<_> = (0..4).map(|_| long_connection(&host, source)).collect();
        let reactor = connections[0].1;
        assert_eq!(spread(&connections)[reactor], 4);
        used[reactor] = true;
    }
    assert!(used.iter().filter(|&&used| used).count() > 1, "all sources on one reactor");
}

/// Planted: as of round robin.
#[test]
fn hard_case_28_a_function_of_the_user_s_decides() {
    let by_last_octet = |peer: &Addr, _: &[usize]| match peer.ip() {
        Some(std::net::IpAddr::V4(ip)) => ip.octets()[3].into(),
        _ => 0,
    };
    let host = placed(Placement::Custom(Arc::new(by_last_octet)));
    let connections: Vec<_> = (0..32).map(|i| long_connection(&host, i / 2)).collect();
    assert_eq!(spread(&connections), [8; REACTORS]);
    assert!(connections.iter().enumerate().all(|(i, &(_, reactor))| reactor == i / 2 % REACTORS));
}
