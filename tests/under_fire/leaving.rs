//! Hard case 26: listeners that leave, come back and are removed, and no client that is reset.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use reev::{Config, Handle, ListenOptions, ListenerId, Placement, Server};
use socket2::{Domain, Socket, Type};

use crate::support::{Echo, Host, PATIENCE, config, connect, eventually, ping};

const CLIENTS: usize = 4;
const CONNECTIONS: usize = 50_000;

fn grace(reactors: usize, millis: u64) -> Config {
    Config { listener_grace: Duration::from_millis(millis), ..config(reactors) }
}

/// Connects from a source address of the client's own, so that none runs out of ports.
fn connect_from(client: usize, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let source = Ipv4Addr::new(127, 0, 1, client as u8 + 1);
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A byte there and back.
fn exchange(stream: &mut (impl Read + Write)) -> io::Result<()> {
    stream.write_all(b"x")?;
    let mut answer = [0];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"x");
    Ok(())
}

/// Runs a task on a reactor and waits for what it says.
fn on_reactor<R: Send + 'static>(
    handle: &Handle,
    reactor: usize,
    task: impl FnOnce(&mut reev::Reactor) -> R + Send + 'static,
) -> R {
    let (answer, answered) = mpsc::channel();
    let task = move |reactor: &mut reev::Reactor| answer.send(task(reactor)).unwrap();
    handle.run_on(reactor, task).unwrap();
    answered.recv_timeout(PATIENCE).unwrap()
}

fn leave(handle: &Handle, reactor: usize, listener: ListenerId) {
    on_reactor(handle, reactor, move |reactor| reactor.close_listener(listener)).unwrap();
}

/// Joins again as soon as the leaving is over.
fn rejoin(handle: &Handle, reactor: usize, listener: ListenerId) {
    eventually("the listener is there again", || {
        let joined = on_reactor(handle, reactor, move |r| r.accept(listener, |_| Echo));
        match joined {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
                false
            }
        }
    });
}

/// Planted: a listener that leaves is closed at once (1,696 and 3,380 resets in two runs).
#[test]
fn hard_case_26_fifty_thousand_connections_while_listeners_come_and_go() {
    let host = Host::serve(config(3), |_| Echo);
    let (to, done) = (host.socket_addr(), Arc::new(AtomicUsize::new(0)));
    let enough = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (done, enough) = (done.clone(), enough.clone());
            std::thread::spawn(move || {
                let mut errors = Vec::new();
                let (mut slow, mut made) = (0, 0);
                while done.fetch_add(1, Ordering::Relaxed) < CONNECTIONS
                    || !enough.load(Ordering::Relaxed)
                {
                    let began = Instant::now();
                    let short =
                        connect_from(client, to).and_then(|mut stream| exchange(&mut stream));
                    errors.extend(short.err());
                    made += 1;
                    slow += usize::from(began.elapsed() > Duration::from_millis(900));
                }
                (errors, slow, made)
            })
        })
        .collect();
    let mut departures = 0;
    while done.load(Ordering::Relaxed) < CONNECTIONS || !enough.load(Ordering::Relaxed) {
        // One leaves, or two at a time; one always stays.
        let first = departures % 3;
        leave(&host.handle, first, host.listener);
        if departures % 2 == 0 {
            leave(&host.handle, (first + 1) % 3, host.listener);
            rejoin(&host.handle, (first + 1) % 3, host.listener);
        }
        rejoin(&host.handle, first, host.listener);
        departures += 1;
        enough.store(departures >= 8, Ordering::Relaxed);
    }
    let outcomes: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let connections: usize = outcomes.iter().map(|&(_, _, made)| made).sum();
    let errors: Vec<_> = outcomes.iter().flat_map(|(errors, ..)| errors).collect();
    let slow: usize = outcomes.iter().map(|(_, slow, _)| slow).sum();
    println!(
        "{connections} connections, {departures} rounds of leaving: {} errors, {slow} had to ask again",
        errors.len()
    );
    assert!(errors.is_empty(), "{} of {connections}: {:?}", errors.len(), errors.first());
    assert_eq!(host.stats().accepted as usize, connections);
}

/// Planted: nothing is steered away.
#[test]
fn hard_case_26_a_listener_that_leaves_gets_no_new_connection() {
    let host = Host::serve(grace(3, 3_600_000), |_| Echo);
    let mut left = [0; 3];
    for reactor in [1, 0] {
        leave(&host.handle, reactor, host.listener);
        left[reactor] = host.handle.stats()[reactor].accepted;
        (0..200).for_each(|_| ping(&mut host.tcp()));
        let stats = host.handle.stats();
        assert_eq!(stats[1].accepted, left[1]);
        assert!(reactor == 1 || stats[0].accepted == left[0]);
    }
}

/// Planted: what is in the queue at the end is left there.
#[test]
fn hard_case_26_a_queue_longer_than_a_turn_s_share_is_served() {
    let config = Config { accepts_per_turn: 1, ..grace(2, 0) };
    let host = Host::serve(config, |_| Echo);
    let (free, freed) = mpsc::channel::<()>();
    host.handle.run_on(0, move |_| freed.recv().unwrap_or_default()).unwrap();
    let mut waiting: Vec<TcpStream> = (0..200).map(|_| connect(host.socket_addr())).collect();
    // About half of them are in the queue of the one that leaves as soon as it can.
    let listener = host.listener;
    host.handle.run_on(0, move |reactor| reactor.close_listener(listener).unwrap()).unwrap();
    drop(free);
    waiting.iter_mut().for_each(ping);
    assert!(host.handle.stats()[0].accepted > 20, "too few to show anything");
}

/// Planted: the rule that steered away from a listener stays when it has come back.
#[test]
fn hard_case_26_all_reactors_get_connections_after_a_leave_and_a_return() {
    let host = Host::serve(grace(2, 1), |_| Echo);
    for reactor in [0, 1, 0] {
        leave(&host.handle, reactor, host.listener);
        let only = host.handle.stats()[1 - reactor].accepted;
        for _ in 0..20 {
            ping(&mut host.tcp());
        }
        assert_eq!(host.handle.stats()[1 - reactor].accepted, only + 20);
        rejoin(&host.handle, reactor, host.listener);
        let before = host.handle.stats();
        // By a hash of addresses and ports: 200 heads in a row would be a sign.
        for _ in 0..200 {
            ping(&mut host.tcp());
        }
        let after = host.handle.stats();
        for (before, after) in before.iter().zip(&after) {
            assert!(after.accepted > before.accepted, "{before:?} {after:?}");
        }
    }
}

/// Clients connect until they are refused, each well ahead of what it does with its connections,
/// so that some are in every stage; whoever was let in has to be served. `stay` connections are
/// there before and after.
fn removed_under_load<S: Read + Write + Send + 'static>(
    host: &Host,
    stay: u64,
    connect: impl Fn(usize) -> io::Result<S> + Send + Sync + 'static,
) {
    let connect = Arc::new(connect);
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (connect, served) = (connect.clone(), served.clone());
            let (made, ready) = mpsc::sync_channel::<S>(64);
            let exchanging = std::thread::spawn(move || {
                for mut stream in ready {
                    exchange(&mut stream).unwrap();
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
            let connecting = std::thread::spawn(move || {
                loop {
                    match connect(client) {
                        Ok(stream) => made.send(stream).unwrap(),
                        Err(error) => return error.kind(),
                    }
                }
            });
            (connecting, exchanging)
        })
        .collect();
    eventually("some are served", || served.load(Ordering::Relaxed) > 1000);
    host.handle.remove_listener(host.listener).unwrap();
    for (connecting, exchanging) in clients {
        let refused = connecting.join().unwrap();
        assert!(matches!(refused, ErrorKind::ConnectionRefused | ErrorKind::NotFound), "{refused}");
        exchanging.join().unwrap();
    }
    eventually("all others are gone", || host.stats().open == stay);
}

fn tcp_client(to: SocketAddr) -> impl Fn(usize) -> io::Result<TcpStream> + Send + Sync {
    move |client| connect_from(client, to)
}

/// Planted: connections that are there are closed with their listener.
#[test]
fn hard_case_26_a_listener_is_removed_from_all_reactors_under_load() {
    let host = Host::serve(grace(2, 100), |_| Echo);
    let mut stays = host.tcp();
    ping(&mut stays);
    let to = host.socket_addr();
    removed_under_load(&host, 1, tcp_client(to));
    ping(&mut stays);
    // The port is free for whoever comes next.
    let next = TcpListener::bind(to).unwrap();
    drop(next);
}

/// Planted: the reactor that does not accept throws away what is handed to it once it has left.
#[test]
fn hard_case_26_a_listener_that_hands_over_is_removed_under_load() {
    let options = ListenOptions { placement: Placement::RoundRobin, ..ListenOptions::default() };
    let host = Host::serve_on("127.0.0.1:0", grace(2, 100), &options, |_| Echo);
    let client = tcp_client(host.socket_addr());
    removed_under_load(&host, 0, client);
}

/// Planted: the other reactor gives up its place, and is given connections all the same.
#[test]
fn hard_case_26_a_reactor_leaves_and_rejoins_where_connections_are_handed_over() {
    let options = ListenOptions { placement: Placement::RoundRobin, ..ListenOptions::default() };
    let host = Host::serve_on("127.0.0.1:0", grace(3, 1), &options, |_| Echo);
    let spread = |n: usize| -> Vec<u64> {
        let accepted = |host: &Host| host.handle.stats().into_iter().map(|s| s.accepted);
        let before: Vec<u64> = accepted(&host).collect();
        (0..n).for_each(|_| ping(&mut host.tcp()));
        accepted(&host).zip(before).map(|(after, before)| after - before).collect()
    };
    assert_eq!(spread(12), [4, 4, 4]);
    leave(&host.handle, 1, host.listener);
    assert_eq!(spread(12), [6, 0, 6]);
    leave(&host.handle, 0, host.listener);
    assert_eq!(spread(12), [0, 0, 12], "it accepts for the others still");
    rejoin(&host.handle, 1, host.listener);
    rejoin(&host.handle, 0, host.listener);
    assert_eq!(spread(12), [4, 4, 4]);
}

/// Planted: what is in the queue at the end is left there.
#[test]
fn hard_case_26_a_unix_listener_is_removed_under_load() {
    let host = crate::support::unix_host(grace(2, 100), |_| Echo);
    let path = host.addr.unix_path().unwrap().to_owned();
    let to = path.clone();
    removed_under_load(&host, 0, move |_| UnixStream::connect(&to));
    assert!(!path.exists(), "the path is left behind");
}

/// Planted: a pause before the socket is closed (harmless), and with it that connections are not
/// refused first.
#[test]
fn hard_case_26_an_abstract_unix_listener_is_removed_under_load() {
    let name = format!("reev-under-fire-{}", std::process::id());
    let (options, addr) = (ListenOptions::default(), format!("unix://@{name}"));
    let host = Host::serve_on(&addr, grace(2, 100), &options, |_| Echo);
    removed_under_load(&host, 0, move |_| {
        UnixStream::connect_addr(&UnixAddr::from_abstract_name(&name)?)
    });
}

/// A socket that is shared with another process, as in a restart without a gap: what we do when
/// we leave it must not hurt the other, which accepts all that we do not.
///
/// Planted: the filter that ignores new connections stays on the socket.
#[test]
fn hard_case_26_an_adopted_listener_goes_on_elsewhere() {
    let ours = TcpListener::bind("127.0.0.1:0").unwrap();
    let (to, theirs) = (ours.local_addr().unwrap(), ours.try_clone().unwrap());
    let host = adopt(ours);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (stop, connect) = (stop.clone(), tcp_client(to));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    exchange(&mut connect(client).unwrap()).unwrap();
                }
            })
        })
        .collect();
    eventually("some are served", || host.stats().accepted > 1000);
    host.handle.remove_listener(host.listener).unwrap();
    // The other one: an echo as simple as it gets.
    theirs.set_nonblocking(true).unwrap();
    let mut taken_over = 0;
    while clients.iter().any(|client| !client.is_finished()) {
        match theirs.accept() {
            Ok((mut stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_ok() {
                    stream.write_all(&byte).unwrap();
                }
                taken_over += 1;
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
        stop.fetch_or(taken_over > 1000, Ordering::Relaxed);
    }
    clients.into_iter().for_each(|client| client.join().unwrap());
    eventually("ours are done", || host.stats().open == 0);
}

fn adopt(listener: impl Into<std::os::fd::OwnedFd>) -> Host {
    let mut server = Server::new(grace(2, 50)).unwrap();
    let listener = server.adopt_listener(listener, &ListenOptions::default()).unwrap();
    Host::run(server, listener, |_| Echo)
}

/// Planted: an adopted Unix socket is told to refuse connections.
#[test]
fn hard_case_26_an_adopted_unix_listener_goes_on_elsewhere() {
    let path = crate::support::unix_path();
    let ours = UnixListener::bind(&path).unwrap();
    let theirs = ours.try_clone().unwrap();
    let host = adopt(ours);
    ping(&mut host.unix());
    host.handle.remove_listener(host.listener).unwrap();
    eventually("it is left", || {
        [0, 1].iter().all(|&reactor| {
            let listener = host.listener;
            let again = move |reactor: &mut reev::Reactor| reactor.accept(listener, |_| Echo);
            let left = on_reactor(&host.handle, reactor, again);
            left.unwrap_err().kind() == ErrorKind::Unsupported
        })
    });
    let client = UnixStream::connect(&path).unwrap();
    theirs.set_nonblocking(false).unwrap();
    drop(theirs.accept().unwrap());
    drop(client);
    std::fs::remove_file(&path).unwrap();
}

/// Those who wait because the house is full are let in as others go, though the listener leaves.
///
/// Planted: the end of the grace is the end of the limit too.
#[test]
fn hard_case_26_a_full_listener_leaves_when_its_queue_is_empty() {
    let options = ListenOptions { max_connections: Some(2), ..ListenOptions::default() };
    let host = Host::serve_on("127.0.0.1:0", grace(1, 1), &options, |_| Echo);
    let mut inside = [host.tcp(), host.tcp()];
    inside.iter_mut().for_each(ping);
    let mut waiting: Vec<TcpStream> = (0..4).map(|_| connect(host.socket_addr())).collect();
    leave(&host.handle, 0, host.listener);
    std::thread::sleep(Duration::from_millis(20)); // more than the grace
    assert_eq!(host.stats().open, 2, "more than the limit");
    drop(inside);
    waiting.drain(..).for_each(|mut stream| ping(&mut stream));
    eventually("it is closed", || TcpStream::connect(host.socket_addr()).is_err());
    assert_eq!(host.stats().accepted, 6);
}

/// Loopback packets are handled by the CPU that sends them, so a pinned client meets the reactor
/// of its CPU.
///
/// Planted: the program asks for another CPU than the reactor's.
#[test]
fn a_connection_goes_to_the_reactor_of_its_cpu() {
    let cores = core_affinity::get_core_ids().unwrap();
    if cores.len() < 2 {
        eprintln!("SKIPPED: there is one CPU only");
        return;
    }
    let options = ListenOptions { cpu_steering: true, ..ListenOptions::default() };
    let config = Config { pin: true, ..grace(2, 1) };
    let host = Host::serve_on("127.0.0.1:0", config, &options, |_| Echo);
    let from = |cpu: usize| -> Vec<u64> {
        let (to, core) = (host.socket_addr(), cores[cpu]);
        let before = host.handle.stats();
        let client = std::thread::spawn(move || {
            assert!(core_affinity::set_for_current(core));
            (0..32).for_each(|_| ping(&mut connect(to)));
        });
        client.join().unwrap();
        let accepted = host.handle.stats().into_iter().zip(before);
        accepted.map(|(after, before)| after.accepted - before.accepted).collect()
    };
    assert_eq!((from(0), from(1)), (vec![32, 0], vec![0, 32]));
    leave(&host.handle, 0, host.listener);
    assert_eq!((from(0), from(1)), (vec![0, 32], vec![0, 32]));
    rejoin(&host.handle, 0, host.listener);
    assert_eq!((from(0), from(1)), (vec![32, 0], vec![0, 32]));
}
