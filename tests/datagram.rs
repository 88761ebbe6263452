//! Datagrams on loopback sockets.

mod common;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use common::{Serving, config, until};
use reev::{Addr, Close, ConnId, Ctx, DatagramOptions, EvHandler, Server};
use socket2::SockRef;

const PATIENCE: Duration = Duration::from_secs(30);

/// Takes only what it sends itself: others are refused, and nobody else can have the port.
fn refusing_socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(socket.local_addr().unwrap()).unwrap();
    socket
}

/// Tells what comes and sends it back.
struct Echo(Sender<String>);

impl Echo {
    fn tell(&self, text: String) {
        let _ = self.0.send(text);
    }
}

impl EvHandler for Echo {
    fn on_open(&mut self, _: &mut Ctx<'_>) -> io::Result<()> {
        self.tell("open".into());
        Ok(())
    }

    fn on_datagram(&mut self, cx: &mut Ctx<'_>, data: &mut [u8], from: &Addr) -> io::Result<()> {
        self.tell(format!("{} bytes", data.len()));
        assert!(cx.send_to(from, data));
        Ok(())
    }

    fn on_datagram_truncated(
        &mut self,
        _: &mut Ctx<'_>,
        data: &mut [u8],
        _: &Addr,
    ) -> io::Result<()> {
        self.tell(format!("{} bytes of more", data.len()));
        Ok(())
    }

    fn on_datagram_error(&mut self, _: &mut Ctx<'_>, e: io::Error, to: &Addr) -> io::Result<()> {
        self.tell(format!("{:?} {to}", e.kind()));
        Ok(())
    }

    fn on_close(&mut self, _: &mut Ctx<'_>, why: &Close) {
        self.tell(format!("close {}", why.kind()));
    }
}

fn next(told: &Receiver<String>) -> String {
    told.recv_timeout(PATIENCE).expect("something is told")
}

/// A reactor with an echo at `addr`: its address, its id, and what it tells.
fn echo(addr: &str, options: DatagramOptions) -> (Serving, Addr, ConnId, Receiver<String>) {
    let serving = Serving::tcp(|_| common::each(common::usual));
    let (tell, told) = mpsc::channel();
    let addr = addr.to_owned();
    let (id, local) = serving.ask(move |reactor| {
        let id = reactor.bind_datagrams(&addr, &options, Echo(tell)).unwrap();
        (id, reactor.conn(id).unwrap().local_addr().unwrap())
    });
    assert_eq!(next(&told), "open");
    (serving, local, id, told)
}

fn client(to: &Addr) -> UdpSocket {
    let to = to.socket_addr().unwrap();
    let own = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(own).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(to).unwrap();
    socket
}

fn ask(client: &UdpSocket, data: &[u8]) -> Vec<u8> {
    client.send(data).unwrap();
    let mut answer = vec![0; 65_536];
    let n = client.recv(&mut answer).unwrap();
    answer.truncate(n);
    answer
}

/// Every way of the system: one call for many, a call for each, joined and cut by the kernel.
fn ways() -> Vec<DatagramOptions> {
    let plain = DatagramOptions { gso: false, ..DatagramOptions::default() };
    vec![
        DatagramOptions::default(),
        DatagramOptions { gro: true, ..DatagramOptions::default() },
        DatagramOptions { batches: false, ..DatagramOptions::default() },
        plain,
    ]
}

#[test]
fn hard_case_14_zero_length_datagrams_are_data() {
    for options in ways() {
        let (_serving, addr, _, told) = echo("udp://127.0.0.1:0", options);
        let client = client(&addr);
        assert_eq!(ask(&client, b""), b"");
        assert_eq!(next(&told), "0 bytes");
        assert_eq!(ask(&client, b"more"), b"more");
        assert_eq!(next(&told), "4 bytes");
    }
}

#[test]
fn hard_case_14_truncation_is_told() {
    for options in ways() {
        let options = DatagramOptions { datagram_max: 100, ..options };
        let gro = options.gro;
        let (_serving, addr, _, told) = echo("udp://127.0.0.1:0", options);
        let client = client(&addr);
        client.send(&[1; 101]).unwrap();
        let expected = if gro { "101 bytes" } else { "100 bytes of more" };
        assert_eq!(next(&told), expected);
        client.send(&[1; 100]).unwrap();
        assert_eq!(next(&told), "100 bytes");
    }
}

/// A burst that comes in one turn comes back whole, in order, each datagram with its own length.
/// Planted: a message's segments counted as one; `advance` by messages; a message with no
/// segment size.
#[test]
fn a_burst_comes_back_in_order() {
    for options in ways() {
        let (serving, addr, _, _told) = echo("udp://127.0.0.1:0", options);
        let client = client(&addr);
        for round in 0..20_usize {
            let stall = serving.stall();
            let sizes: Vec<usize> =
                (0..90).map(|i| if i % 7 == round % 7 { i + round } else { 50 }).collect();
            for (i, &size) in sizes.iter().enumerate() {
                client.send(&vec![i as u8; size]).unwrap();
            }
            drop(stall);
            for (i, &size) in sizes.iter().enumerate() {
                let mut answer = [0; 2048];
                let n = client.recv(&mut answer).unwrap();
                assert_eq!((n, &answer[..n]), (size, &vec![i as u8; size][..]), "datagram {i}");
            }
        }
    }
}

/// What one reactor has the system cut up, or not, another has it join, or not: each datagram is
/// told with its own length.
/// Planted: what was joined is told as one.
#[test]
fn what_the_system_cuts_up_and_joins_are_datagrams() {
    for gso in [true, false] {
        for gro in [true, false] {
            let options = DatagramOptions { gso, gro, ..DatagramOptions::default() };
            let (_serving, to, _, told) = echo("udp://127.0.0.1:0", options.clone());
            let (other, _, sender, _echoed) = echo("udp://127.0.0.1:0", options);
            other.ask(move |reactor| {
                let mut cx = reactor.conn(sender).unwrap();
                for size in [100; 20].into_iter().chain([60, 300, 300]) {
                    assert!(cx.send_to(&to, &vec![1; size]));
                }
            });
            let lengths: Vec<String> = (0..23).map(|_| next(&told)).collect();
            let expected = [100; 20].into_iter().chain([60, 300, 300]);
            let expected: Vec<String> = expected.map(|n| format!("{n} bytes")).collect();
            assert_eq!(lengths, expected, "gso {gso}, gro {gro}");
        }
    }
}

/// Planted: an error of datagrams that were sent before (to a port that is closed) is taken for a
/// refusal of what is sent now, and the system cuts up nothing any more.
#[test]
#[cfg(target_os = "linux")]
fn an_earlier_error_does_not_end_what_the_system_cuts_up() {
    use nix::sys::socket::{setsockopt, sockopt::UdpGroSegment};
    let (serving, _, id, told) = echo("udp://127.0.0.1:0", DatagramOptions::default());
    let refusing = refusing_socket();
    let closed = refusing.local_addr().unwrap();
    let live = UdpSocket::bind("127.0.0.1:0").unwrap();
    live.set_read_timeout(Some(PATIENCE)).unwrap();
    setsockopt(&live, UdpGroSegment, &true).unwrap();
    let to_live = live.local_addr().unwrap();
    // The two tasks run one after the other, before the poller can tell of the error.
    let (go, gate) = mpsc::channel::<()>();
    serving.handle.run_on(0, move |_| _ = gate.recv()).unwrap();
    for to in [closed, to_live] {
        let to = Addr::from(to);
        let send = move |reactor: &mut reev::Reactor| {
            let mut cx = reactor.conn(id).unwrap();
            (0..3).for_each(|_| assert!(cx.send_to(&to, &[1; 100])));
        };
        serving.handle.run_on(0, send).unwrap();
    }
    go.send(()).unwrap();
    // What was sent as one comes as one to a socket that joins.
    assert_eq!(live.recv(&mut [0; 1000]).unwrap(), 300);
    assert_eq!(next(&told), format!("ConnectionRefused {closed}"));
}

#[test]
fn ipv6_and_ipv4_on_one_socket() {
    for text in ["udp://[::1]:0", "udp6://[::1]:0", "udp4://127.0.0.1:0", "udp://localhost:0"] {
        let (_serving, addr, _, _told) = echo(text, DatagramOptions::default());
        assert_eq!(ask(&client(&addr), b"hello"), b"hello", "{text}");
    }
    let (_serving, addr, _, _told) = echo("udp://:0", DatagramOptions::default());
    for ip in ["127.0.0.1", "::1"] {
        let to = SocketAddr::new(ip.parse::<IpAddr>().unwrap(), addr.port().unwrap());
        assert_eq!(ask(&client(&Addr::from(to)), b"both"), b"both", "{ip}");
    }
}

#[test]
fn icmp_errors_are_told_and_end_nothing() {
    for options in ways() {
        let (serving, addr, id, told) = echo("udp://127.0.0.1:0", options);
        let refusing = refusing_socket();
        let closed = refusing.local_addr().unwrap();
        let to = Addr::from(closed);
        for _ in 0..3 {
            let to = to.clone();
            serving.ask(move |reactor| {
                assert!(reactor.conn(id).unwrap().send_to(&to, b"anybody?"));
            });
            assert_eq!(next(&told), format!("ConnectionRefused {closed}"));
        }
        assert_eq!(ask(&client(&addr), b"still here"), b"still here");
        serving.comes_to_rest(); // an error that was told does not spin
    }
}

#[test]
fn what_cannot_be_sent_is_told_and_the_rest_is_sent() {
    let (serving, _, id, told) = echo("udp://127.0.0.1:0", DatagramOptions::default());
    let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = Addr::from(receiver.local_addr().unwrap());
    let shown = to.to_string();
    let dropped = serving.ask(move |reactor| {
        let mut cx = reactor.conn(id).unwrap();
        for data in [&b"first"[..], &[0; 66_000], b"last"] {
            assert!(cx.send_to(&to, data));
        }
        cx.dropped_datagrams()
    });
    assert_eq!(dropped, 0, "nothing is tried before the task is over");
    let mut buffer = [0; 16];
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 5);
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 4);
    let line = next(&told);
    assert!(line.ends_with(&shown), "EMSGSIZE, for that peer: {line}");
    let dropped = serving.ask(move |reactor| reactor.conn(id).unwrap().dropped_datagrams());
    assert_eq!((dropped, serving.handle.stats()[0].datagrams_dropped), (1, 1));
}

#[test]
fn the_output_queue_is_bounded_and_counts_what_it_drops() {
    let options = DatagramOptions { output_max: 1000, ..DatagramOptions::default() };
    let (serving, addr, id, _told) = echo("udp://127.0.0.1:0", options);
    let accepted = serving.ask(move |reactor| {
        let mut cx = reactor.conn(id).unwrap();
        (0..20).filter(|_| cx.send_to(&addr, &[0; 100])).count()
    });
    assert_eq!(accepted, 10);
    assert_eq!(serving.ask(move |r| r.conn(id).unwrap().dropped_datagrams()), 10);
}

#[test]
fn connected_sockets_hear_their_peer_alone() {
    let (serving, addr, _, _told) = echo("udp://127.0.0.1:0", DatagramOptions::default());
    let (tell, told) = mpsc::channel();
    struct Client(Sender<String>);
    impl EvHandler for Client {
        fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
            cx.write(b"by write");
            assert!(cx.send(b""));
            let _ = self.0.send(cx.local_addr()?.to_string());
            Ok(())
        }
        fn on_datagram(&mut self, _: &mut Ctx<'_>, data: &mut [u8], _: &Addr) -> io::Result<()> {
            let _ = self.0.send(String::from_utf8_lossy(data).into_owned());
            Ok(())
        }
        fn on_datagram_error(
            &mut self,
            _: &mut Ctx<'_>,
            error: io::Error,
            to: &Addr,
        ) -> io::Result<()> {
            let _ = self.0.send(format!("{:?} {to}", error.kind()));
            Ok(())
        }
    }
    let target = format!("udp://{addr}");
    let id = serving.ask(move |reactor| {
        let options = DatagramOptions::default();
        reactor.connect_datagrams(&target, &options, Client(tell)).unwrap()
    });
    let own = next(&told);
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(b"from a stranger", own).unwrap();
    assert_eq!(next(&told), "by write");
    assert_eq!(next(&told), "");
    assert_eq!(serving.ask(move |r| r.conn(id).unwrap().peer().to_string()), addr.to_string());

    // Nobody is there: told, and it goes on.
    let refusing = refusing_socket();
    let closed = refusing.local_addr().unwrap();
    for icmp_errors in [true, false] {
        let (tell, told) = mpsc::channel();
        let options = DatagramOptions { icmp_errors, ..DatagramOptions::default() };
        let target = format!("udp://{closed}");
        serving.ask(move |reactor| {
            reactor.connect_datagrams(&target, &options, Client(tell)).unwrap();
        });
        next(&told);
        assert_eq!(next(&told), format!("ConnectionRefused {closed}"));
    }
    let refused = serving.ask(|reactor| {
        let options = DatagramOptions::default();
        let kind = |r: io::Result<ConnId>| r.unwrap_err().kind();
        let echo = || Echo(mpsc::channel().0);
        [
            kind(reactor.connect_datagrams("udp://localhost:1", &options, echo())),
            kind(reactor.connect_datagrams("tcp://127.0.0.1:1", &options, echo())),
            kind(reactor.bind_datagrams("unix:///x", &options, echo())),
        ]
    });
    assert_eq!(refused, [io::ErrorKind::InvalidInput; 3]);
}

#[test]
fn unix_datagrams_by_path_and_by_name() {
    let path = std::env::temp_dir().join(format!("reev-gram-{}", std::process::id()));
    drop(UnixDatagram::bind(&path).unwrap()); // stale
    let text = format!("unixgram://{}", path.display());
    let (serving, addr, id, told) = echo(&text, DatagramOptions::default());
    assert_eq!(addr.unix_path(), Some(path.as_path()));
    let own = std::env::temp_dir().join(format!("reev-gram-client-{}", std::process::id()));
    let client = UnixDatagram::bind(&own).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect(&path).unwrap();
    for data in [&b"one"[..], b"", b"three"] {
        client.send(data).unwrap();
        let mut answer = [9; 16];
        let n = client.recv(&mut answer).unwrap();
        assert_eq!(&answer[..n], data);
        next(&told);
    }
    // An unnamed sender cannot be answered, and harms nobody.
    let unnamed = UnixDatagram::unbound().unwrap();
    unnamed.send_to(b"anonymous", &path).unwrap();
    assert_eq!(next(&told), "9 bytes");
    assert!(next(&told).contains("unix:"));
    // A receiver that does not read is told of, and does not spin or block the others.
    let full = Addr::unix(Some(std::os::unix::ffi::OsStrExt::as_bytes(own.as_os_str())));
    serving.ask(move |reactor| {
        let mut cx = reactor.conn(id).unwrap();
        (0..1000).for_each(|_| assert!(cx.send_to(&full, b"too many")));
    });
    assert!(next(&told).starts_with("WouldBlock unix:"));
    // Each of the thousand is tried, a few in a turn; then there is nothing left to do.
    serving.comes_to_rest();
    serving.ask(move |reactor| reactor.conn(id).unwrap().close());
    until("it is closed", || told.try_iter().any(|line| line == "close local"));
    until("its path goes with it", || !path.exists());
    std::fs::remove_file(own).unwrap();

    let name = format!("unixgram://@reev-gram-{}", std::process::id());
    let (_serving, addr, _, told) = echo(&name, DatagramOptions::default());
    let (other, _, _, other_told) = echo(&format!("{name}-2"), DatagramOptions::default());
    let target = addr.unix_name().unwrap().to_vec();
    let id = other.ask(|reactor| reactor.conn_ids()[0]);
    other.ask(move |reactor| {
        reactor.conn(id).unwrap().send_to(&Addr::unix(Some(&target)), b"ab");
    });
    assert_eq!(next(&told), "2 bytes");
    assert_eq!(next(&other_told), "2 bytes");
}

/// A Unix socket for one peer has a name of the system's choice, so that it can be answered.
/// Planted: no such name; not connected.
#[test]
fn a_connected_unix_socket_is_answered() {
    let name = format!("unixgram://@reev-answer-{}", std::process::id());
    let (serving, addr, _, told) = echo(&name, DatagramOptions::default());
    let (tell, answers) = mpsc::channel();
    struct Client(Echo);
    impl EvHandler for Client {
        fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
            assert!(cx.send(b"ask"));
            self.0.tell(cx.peer().to_string());
            Ok(())
        }
        fn on_datagram(&mut self, _: &mut Ctx<'_>, data: &mut [u8], from: &Addr) -> io::Result<()> {
            self.0.tell(format!("{} bytes from {from}", data.len()));
            Ok(())
        }
        fn on_datagram_error(
            &mut self,
            cx: &mut Ctx<'_>,
            e: io::Error,
            to: &Addr,
        ) -> io::Result<()> {
            self.0.on_datagram_error(cx, e, to)
        }
    }
    serving.ask(move |reactor| {
        let options = DatagramOptions::default();
        reactor.connect_datagrams(&name, &options, Client(Echo(tell))).unwrap();
    });
    assert_eq!(next(&answers), addr.to_string());
    assert_eq!(next(&told), "3 bytes");
    assert_eq!(next(&answers), format!("3 bytes from {addr}"));
}

/// Planted: joining, leaving or `multicast_interface` does nothing; the interface is 0.
#[test]
fn a_multicast_group_is_joined_and_left() {
    let (serving, addr, id, told) = echo("udp4://:0", DatagramOptions::default());
    let interface = reev::interface_index("lo").unwrap();
    assert!(reev::interface_index("no such interface").is_err());
    let group: IpAddr = "239.255.77.78".parse().unwrap();
    serving.ask(move |reactor| {
        let mut cx = reactor.conn(id).unwrap();
        cx.join_multicast(group, interface).unwrap();
        assert!(cx.join_multicast("127.0.0.1".parse().unwrap(), 0).is_err());
    });
    let to = Addr::from(SocketAddr::new(group, addr.port().unwrap()));
    let options = DatagramOptions { multicast_interface: interface, ..DatagramOptions::default() };
    let (other, _, sender, sender_told) = echo("udp4://:0", options);
    let copy = to.clone();
    other.ask(move |reactor| {
        reactor.conn(sender).unwrap().send_to(&copy, b"to all");
    });
    assert_eq!(next(&told), "6 bytes");
    assert_eq!(next(&sender_told), "6 bytes", "and the answer");
    serving.ask(move |reactor| {
        let mut cx = reactor.conn(id).unwrap();
        cx.leave_multicast(group, interface).unwrap();
        assert!(cx.leave_multicast(group, interface).is_err());
    });
}

/// A group of interface-local scope: nothing that is sent to it leaves the machine (RFC 4291
/// section 2.7).
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff11, 0, 0, 0, 0, 0, 0x7265, 0x6576);

/// The first interface on which plain sockets meet in a group of IPv6. The loopback is often
/// none, for want of a route.
fn interface_of_v6_groups() -> Option<u32> {
    let meet = |index: u32| -> io::Result<()> {
        let receiver = UdpSocket::bind("[::]:0")?;
        receiver.join_multicast_v6(&GROUP_V6, index)?;
        receiver.set_read_timeout(Some(Duration::from_secs(1)))?;
        let sender = UdpSocket::bind("[::]:0")?;
        SockRef::from(&sender).set_multicast_if_v6(index)?;
        sender.send_to(b"probe", (GROUP_V6, receiver.local_addr()?.port()))?;
        receiver.recv(&mut [0; 8]).map(drop)
    };
    (1..64).find(|&index| meet(index).is_ok())
}

/// Whether the system says that somebody has joined `group` on this interface.
#[cfg(target_os = "linux")]
fn is_joined_v6(group: Ipv6Addr, interface: u32) -> bool {
    let (group, interface) = (format!("{:032x}", group.to_bits()), interface.to_string());
    let joined = std::fs::read_to_string("/proc/net/igmp6").unwrap();
    let mut lines = joined.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines.any(|fields| fields[0] == interface && fields[2] == group)
}

/// Planted: the interface is 0; joining, or leaving, does nothing.
#[test]
fn an_ipv6_group_is_joined_and_left_on_an_interface() {
    let Some(interface) = interface_of_v6_groups() else {
        eprintln!("SKIPPED: no interface carries IPv6 multicast");
        return;
    };
    let (serving, addr, id, told) = echo("udp6://:0", DatagramOptions::default());
    let group = IpAddr::from(GROUP_V6);
    serving.ask(move |reactor| {
        let mut cx = reactor.conn(id).unwrap();
        cx.join_multicast(group, interface).unwrap();
        assert!(cx.join_multicast("::1".parse().unwrap(), interface).is_err());
        let other = IpAddr::from(Ipv6Addr::from_bits(GROUP_V6.to_bits() + 2));
        assert!(cx.join_multicast(other, u32::MAX).is_err(), "there is no such interface");
    });
    let to = Addr::from(SocketAddr::new(group, addr.port().unwrap()));
    let options = DatagramOptions { multicast_interface: interface, ..DatagramOptions::default() };
    let (other, _, sender, sender_told) = echo("udp6://:0", options);
    other.ask(move |reactor| {
        reactor.conn(sender).unwrap().send_to(&to, b"to all");
    });
    assert_eq!(next(&told), "6 bytes");
    assert_eq!(next(&sender_told), "6 bytes", "and the answer, to an address with a scope");
    serving.ask(move |reactor| {
        let mut cx = reactor.conn(id).unwrap();
        cx.leave_multicast(group, interface).unwrap();
        assert!(cx.leave_multicast(group, interface).is_err());
    });
}

/// Where no interface carries it, too: on the loopback, by its index, and nowhere else.
/// Planted: the interface is 0; joining or leaving does nothing.
#[test]
#[cfg(target_os = "linux")]
fn an_ipv6_group_is_joined_on_the_interface_that_is_named() {
    let group = Ipv6Addr::from_bits(GROUP_V6.to_bits() + 1); // nobody else's
    let loopback = reev::interface_index("lo").unwrap();
    if !std::path::Path::new("/proc/net/igmp6").exists() {
        eprintln!("SKIPPED: this system has no IPv6");
        return;
    }
    let (serving, _, id, _told) = echo("udp6://:0", DatagramOptions::default());
    assert!(!is_joined_v6(group, loopback));
    serving.ask(move |r| r.conn(id).unwrap().join_multicast(group.into(), loopback).unwrap());
    assert!(is_joined_v6(group, loopback));
    serving.ask(move |r| r.conn(id).unwrap().leave_multicast(group.into(), loopback).unwrap());
    assert!(!is_joined_v6(group, loopback));
}

#[test]
fn each_reactor_has_a_socket_of_the_group() {
    let mut server = Server::new(reev::Config { reactors: 2, ..config() }).unwrap();
    let socket = server.bind_datagrams("udp://127.0.0.1:0", &DatagramOptions::default()).unwrap();
    let addr = server.datagram_addr(socket);
    let (tell, told) = mpsc::channel();
    let running = server.start(move |reactor| {
        reactor.serve_datagrams(socket, Echo(tell.clone()))?;
        let again = reactor.serve_datagrams(socket, Echo(tell.clone()));
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::NotFound);
        Ok(())
    });
    let running = running.unwrap();
    for _ in 0..64 {
        assert_eq!(ask(&client(&addr), b"spread"), b"spread");
    }
    let stats = running.handle().stats();
    assert_eq!(stats.iter().map(|s| s.datagrams_in).sum::<u64>(), 64);
    assert!(stats.iter().all(|s| s.datagrams_in > 0), "the kernel spreads by the client's port");
    assert_eq!(running.handle().shutdown(PATIENCE).wait(), 0);
    running.join().unwrap();
    let lines: Vec<String> = told.iter().collect();
    assert_eq!(lines.iter().filter(|line| *line == "close local").count(), 2);
    assert!(Server::new(config()).unwrap().listen("udp://127.0.0.1:0").is_err());
}

#[test]
fn a_paused_socket_rests_and_a_handler_that_fails_ends() {
    let (serving, addr, id, told) = echo("udp://127.0.0.1:0", DatagramOptions::default());
    serving.ask(move |reactor| reactor.conn(id).unwrap().pause_reads());
    let client = client(&addr);
    client.send(b"later").unwrap();
    serving.comes_to_rest();
    assert!(told.try_recv().is_err());
    serving.ask(move |reactor| reactor.conn(id).unwrap().resume_reads());
    assert_eq!(next(&told), "5 bytes");

    let (tell, told) = mpsc::channel();
    struct Failing(Echo);
    impl EvHandler for Failing {
        fn on_datagram(&mut self, _: &mut Ctx<'_>, _: &mut [u8], _: &Addr) -> io::Result<()> {
            Err(io::Error::other("no"))
        }
        fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
            self.0.on_close(cx, why);
        }
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = socket.local_addr().unwrap();
    serving.ask(move |reactor| {
        let options = DatagramOptions::default();
        reactor.adopt_datagrams(socket, &options, Failing(Echo(tell))).unwrap();
    });
    client
        .send_to(b"x", addr)
        .unwrap_or_else(|_| UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", addr).unwrap());
    assert_eq!(next(&told), "close error");
}
