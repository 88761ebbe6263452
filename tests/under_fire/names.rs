//! Hard case 38: what a peer is called.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream};
use std::os::unix::net::UnixStream;

use reev::{Ctx, EvHandler, ListenOptions, Server};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::{Host, config, connect, read_to_end, unix_host, unix_path};

/// Says who the peer is, and closes.
struct WhoAmI;

impl EvHandler for WhoAmI {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> std::io::Result<()> {
        let peer = cx.peer().to_string();
        cx.write(peer.as_bytes());
        cx.close();
        Ok(())
    }

    fn on_read(&mut self, _cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
        Ok(data.len())
    }
}

fn text(stream: &mut impl std::io::Read) -> String {
    String::from_utf8(read_to_end(stream)).unwrap()
}

/// Planted: an address that holds an IPv4 address is printed as IPv6.
#[test]
fn hard_case_38_a_v4_peer_of_a_v6_socket_is_v4() {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    socket.set_only_v6(false).unwrap();
    let mapped: SocketAddr = "[::ffff:127.0.0.1]:0".parse().unwrap();
    socket.bind(&mapped.into()).unwrap();
    socket.listen(16).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let mut server = Server::new(config(1)).unwrap();
    let listener = server.adopt_listener(socket, &ListenOptions::default()).unwrap();
    assert_eq!(server.local_addr(listener).to_string(), format!("127.0.0.1:{port}"));
    let _host = Host::run(server, listener, |_| WhoAmI);
    let mut stream = connect(SocketAddr::from(([127, 0, 0, 1], port)));
    let me = stream.local_addr().unwrap();
    assert_eq!(text(&mut stream), me.to_string());
    assert!(me.is_ipv4());
}

/// A link-local address of this machine, with its scope.
fn link_local() -> Option<SocketAddrV6> {
    let interfaces = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    interfaces.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, index, _, scope, flags, _] = fields[..] else {
            return None;
        };
        let tentative = u32::from_str_radix(flags, 16).ok()? & 0x48 != 0;
        if scope != "20" || tentative {
            return None;
        }
        let ip = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
        Some(SocketAddrV6::new(ip, 0, 0, u32::from_str_radix(index, 16).ok()?))
    })
}

/// Planted: the scope id is dropped.
#[test]
fn hard_case_38_a_link_local_peer_keeps_its_scope() {
    let Some(link_local) = link_local() else {
        eprintln!("SKIPPED: no interface has a link-local address");
        return;
    };
    let scope = link_local.scope_id();
    let addr = format!("tcp://[{}%{scope}]:0", link_local.ip());
    let options = ListenOptions::default();
    let host = Host::serve_on(&addr, config(1), &options, |_| WhoAmI);
    let to = host.socket_addr();
    assert!(to.to_string().contains(&format!("%{scope}]:")), "{to}");
    let mut stream = TcpStream::connect(to).unwrap();
    let SocketAddr::V6(me) = stream.local_addr().unwrap() else { panic!("not IPv6") };
    let called = format!("[{}%{scope}]:{}", me.ip(), me.port());
    assert_eq!(text(&mut stream), called);
}

/// Planted: of an unnamed peer, the bytes of the address are read all the same.
#[test]
fn hard_case_38_unix_peers_named_and_unnamed() {
    let host = unix_host(config(1), |_| WhoAmI);
    assert_eq!(text(&mut host.unix()), "unix:(unnamed)");
    let path = unix_path();
    let named = |name: &SockAddr| {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(name).unwrap();
        socket.connect(&SockAddr::unix(host.addr.unix_path().unwrap()).unwrap()).unwrap();
        text(&mut UnixStream::from(std::os::fd::OwnedFd::from(socket)))
    };
    assert_eq!(named(&SockAddr::unix(&path).unwrap()), format!("unix:{}", path.display()));
    std::fs::remove_file(&path).unwrap();
    let name = format!("reev-client-{}", std::process::id());
    let abstract_name = SockAddr::unix(format!("\0{name}")).unwrap();
    assert_eq!(named(&abstract_name), format!("unix:@{name}"));
}
