//! Hard cases 23 and 24: `accept` fails, for want of descriptors or memory or because the client
//! is gone. Nobody who is there notices, nobody spins, and whoever waits is told.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use reev::Config;
use socket2::{Domain, Socket, Type};

use crate::support::{
    Echo, Host, PATIENCE, config, eventually, in_own_process, in_own_process_traced, ping,
};

/// Takes all descriptors that are left.
fn take_all() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/zero").ok()).collect()
}

/// Sockets that are made while there are descriptors, to connect when there are none.
fn sockets(n: usize) -> Vec<Socket> {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let sockets: Vec<Socket> = (0..n).map(|_| socket()).collect();
    sockets.iter().for_each(|socket| socket.set_read_timeout(Some(PATIENCE)).unwrap());
    sockets
}

fn connect(socket: Socket, to: SocketAddr) -> TcpStream {
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// Whether the other side closed or reset, and sent nothing.
fn is_turned_away(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

/// Turns of the loop in a moment in which nothing happens but for at most one back-off.
fn turns_at_rest(host: &Host) -> u64 {
    let before = host.stats().turns;
    std::thread::sleep(Duration::from_millis(200));
    host.stats().turns - before
}

/// Planted: no spare descriptor, so that the queue is never emptied (spins). Planted: a failed
/// `accept` ends the reactor.
#[test]
fn hard_case_23_three_episodes_without_descriptors() {
    in_own_process("descriptors::hard_case_23_three_episodes_without_descriptors", || {
        setrlimit(Resource::RLIMIT_NOFILE, 256, 256).unwrap();
        let host = Host::serve(config(1), |_| Echo);
        let mut established: Vec<TcpStream> = (0..5).map(|_| host.tcp()).collect();
        established.iter_mut().for_each(ping);
        for episode in 1..=3 {
            let waiting = sockets(70); // more than a turn's share of accepts
            let taken = take_all();
            let mut told = Vec::new(); // keeps their descriptors out of the way
            for socket in waiting {
                let mut client = connect(socket, host.socket_addr());
                assert!(is_turned_away(&mut client), "somebody was let in");
                told.push(client);
            }
            established.iter_mut().for_each(ping);
            assert!(turns_at_rest(&host) < 20, "it spins");
            let stats = host.stats();
            assert_eq!((stats.turned_away, stats.accept_errors), (70 * episode, 70 * episode));
            drop((taken, told));
            ping(&mut host.tcp());
            eventually("only the first are left", || host.stats().open == 5);
        }
        established.iter_mut().for_each(ping);
    });
}

/// Another thread may take the spare descriptor in the moment in which it is given up. Then
/// clients wait, without a spin; and when there are descriptors again, there is a spare again.
///
/// Planted: a spare that was lost is not made again.
#[test]
fn hard_case_23_the_spare_descriptor_comes_back() {
    // The spare is /dev/null. Each thread's first try to open it fails: the reactor's is to make
    // it again when it has turned somebody away.
    let thief =
        ["-P", "/dev/null", "-e", "trace=openat", "-e", "inject=openat:error=EMFILE:when=1"];
    let test = "descriptors::hard_case_23_the_spare_descriptor_comes_back";
    in_own_process_traced(&thief, test, || {
        setrlimit(Resource::RLIMIT_NOFILE, 256, 256).unwrap();
        assert!(File::open("/dev/null").is_err()); // this thread's, or there would be no server
        // A rest long enough for all that is done meanwhile.
        let accept_backoff = Duration::from_secs(1);
        let host = Host::serve(Config { accept_backoff, ..config(1) }, |_| Echo);
        let mut waiting = sockets(10);
        let mut come = || connect(waiting.pop().unwrap(), host.socket_addr());
        let mut taken = take_all();
        let mut told = come();
        assert!(is_turned_away(&mut told));
        eventually("it is counted", || host.stats().turned_away == 1);
        taken.extend(take_all()); // what was the spare's
        let mut waits = come();
        eventually("the listener rests", || host.stats().accept_errors > 1);
        assert!(turns_at_rest(&host) < 100, "it spins");
        assert_eq!(host.stats().turned_away, 1);
        drop(taken);
        ping(&mut waits);
        turns_at_rest(&host); // or it is we who take the spare, in the middle of its turn
        // The next episode: whoever waits is told again.
        let _taken = take_all();
        assert!(is_turned_away(&mut come()));
        eventually("it is counted", || host.stats().turned_away == 2);
        ping(&mut waits);
    });
}

/// Clients come one by one while some calls of `accept` fail; how many were served.
fn clients_under_injection(host: &Host, n: usize) -> usize {
    let mut first = host.tcp();
    ping(&mut first);
    let mut served = 0;
    for _ in 0..n {
        let mut client = host.tcp();
        let mut answer = [0];
        let sent = client.write_all(b"x");
        served += usize::from(sent.and_then(|()| client.read_exact(&mut answer)).is_ok());
        ping(&mut first);
    }
    assert!(turns_at_rest(host) < 20, "it spins");
    served
}

/// Runs `body` in a process whose third `accept` fails with `error`, and every fourth from there.
fn with_failing_accepts(error: &str, test: &str, body: impl FnOnce()) {
    let inject = format!("inject=accept4:error={error}:when=3+4");
    in_own_process_traced(&["-e", "trace=accept4", "-e", &inject], test, body);
}

/// Planted: the listener is not watched again after its rest.
#[test]
fn hard_case_23_no_buffers() {
    no_memory("ENOBUFS", "descriptors::hard_case_23_no_buffers");
}

/// Planted: as of `no_buffers`.
#[test]
fn hard_case_23_no_memory() {
    no_memory("ENOMEM", "descriptors::hard_case_23_no_memory");
}

fn no_memory(error: &str, test: &str) {
    with_failing_accepts(error, test, || {
        let host = Host::serve(config(1), |_| Echo);
        // Nobody is lost: they wait for the listener's rest, which is short.
        assert_eq!(clients_under_injection(&host, 12), 12);
        let stats = host.stats();
        assert!(stats.accept_errors >= 3, "{stats:?}");
        assert_eq!(stats.turned_away, 0);
    });
}

/// Planted: ENFILE is not taken for a want of descriptors, so that clients wait.
#[test]
fn hard_case_23_the_system_has_no_descriptors() {
    let test = "descriptors::hard_case_23_the_system_has_no_descriptors";
    with_failing_accepts("ENFILE", test, || {
        let host = Host::serve(config(1), |_| Echo);
        let served = clients_under_injection(&host, 12);
        let stats = host.stats();
        assert!(stats.turned_away >= 3, "{stats:?}");
        assert_eq!(
            (served as u64, stats.accept_errors),
            (12 - stats.turned_away, stats.turned_away)
        );
    });
}

/// Planted: these errors are taken for a want of memory, so that the listener rests.
#[test]
fn hard_case_24_a_connection_that_failed_does_not_stop_the_others() {
    let test = "descriptors::hard_case_24_a_connection_that_failed_does_not_stop_the_others";
    for error in ["ECONNABORTED", "EPROTO", "EPERM", "ENETDOWN", "EHOSTUNREACH", "EINTR"] {
        with_failing_accepts(error, test, || {
            let host = Host::serve(config(1), |_| Echo);
            assert_eq!(clients_under_injection(&host, 12), 12);
            assert_eq!(host.stats().accept_errors, 0);
        });
    }
}
