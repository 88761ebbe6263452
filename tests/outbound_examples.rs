//! The examples of connecting out, datagrams and sources, as their users meet them.

#[path = "support/example.rs"]
mod example;
#[path = "support/refusing.rs"]
mod refusing;

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{ChildStderr, Command, Stdio};
use std::time::Duration;

use example::{Example, PATIENCE};
use refusing::Refusing;

/// Writes `request`, and reads as many bytes as `expected` has.
#[track_caller]
fn talk(stream: &mut TcpStream, request: &str, expected: &str) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = vec![0; expected.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), expected);
}

fn udp_ask(socket: &UdpSocket, request: &[u8]) -> Vec<u8> {
    socket.send(request).unwrap();
    udp_receive(socket)
}

fn udp_receive(socket: &UdpSocket) -> Vec<u8> {
    let mut answer = vec![0; 65_536];
    let n = socket.recv(&mut answer).unwrap();
    answer.truncate(n);
    answer
}

#[test]
fn udp_echo_answers_with_and_without_batches() {
    for flags in [&[][..], &["--no-batches"], &["--gro"]] {
        let socket = Example::start("udp_echo", flags);
        assert_eq!(udp_ask(&socket.udp(), b"hello"), b"hello");
    }
}

/// Planted: the default bound, whatever the flag says.
#[test]
fn udp_echo_sends_long_datagrams_back() {
    let long = [7; 9000];
    for flags in [&["--max", "9000"][..], &["--max", "9000", "--gro"]] {
        let socket = Example::start("udp_echo", flags);
        assert_eq!(udp_ask(&socket.udp(), &long), long);
    }
}

/// A query for the A record of `name`.
fn query(id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

#[test]
fn dns_stub_answers_forwards_and_keeps_answers() {
    let upstream = Example::start("dns_stub", &["--name", "far.test=192.0.2.7"]);
    let asked = upstream.addr.to_string();
    let stub = Example::start("dns_stub", &["--name", "near.test=192.0.2.1", "--upstream", &asked]);
    let socket = stub.udp();
    let answer = udp_ask(&socket, &query(7, "NEAR.test"));
    assert_eq!((&answer[..2], answer[3] & 15, answer[7]), (&[0, 7][..], 0, 1));
    assert!(answer.ends_with(&[0, 4, 192, 0, 2, 1]));
    let forwarded = udp_ask(&socket, &query(8, "far.test"));
    assert!(forwarded.ends_with(&[0, 4, 192, 0, 2, 7]));
    assert_eq!(forwarded[..2], [0, 8]);
    drop(upstream);
    let kept = udp_ask(&socket, &query(9, "far.test"));
    let ttl = forwarded.len() - 10..forwarded.len() - 6; // which may be lower meanwhile
    assert_eq!((&kept[..2], &kept[2..ttl.start]), (&[0, 9][..], &forwarded[2..ttl.start]));
    assert_eq!(kept[ttl.end..], forwarded[ttl.end..]);
    let failed = udp_ask(&socket, &query(10, "nowhere.test"));
    assert_eq!(failed[3] & 15, 2, "the upstream server is gone");
}

/// `query` with an OPT record (RFC 6891).
fn edns(mut query: Vec<u8>, size: u16, dnssec: bool) -> Vec<u8> {
    query[11] = 1;
    query.extend([0, 0, 41]);
    query.extend(size.to_be_bytes());
    query.extend([0, 0, u8::from(dnssec) << 7, 0, 0, 0]);
    query
}

/// The answer of an upstream server to what it was `asked`: so many records, and an OPT record if
/// it got one. `far.test` is the only name.
fn upstream_answer(asked: &[u8], records: u16) -> Vec<u8> {
    let end = query(0, "far.test").len();
    let mut message = asked[..end].to_vec();
    message[2] |= 0x80;
    message[6..8].copy_from_slice(&records.to_be_bytes());
    for _ in 0..records {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 7]); // for 300 s
    }
    message.extend(&asked[end..]);
    message
}

/// A stub whose upstream server is the test.
struct Stub {
    socket: UdpSocket,
    upstream: UdpSocket,
    _example: Example,
}

impl Stub {
    fn start(flags: &[&str]) -> Stub {
        let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
        upstream.set_read_timeout(Some(PATIENCE)).unwrap();
        let addr = upstream.local_addr().unwrap().to_string();
        let example = Example::start("dns_stub", &[&["--upstream", &addr], flags].concat());
        Stub { socket: example.udp(), upstream, _example: example }
    }

    /// What the upstream server was asked, and what the client got.
    fn forwards(&self, query: &[u8], respond: impl Fn(&[u8]) -> Vec<u8>) -> (Vec<u8>, Vec<u8>) {
        self.socket.send(query).unwrap();
        let mut asked = vec![0; 4096];
        let (n, from) = self.upstream.recv_from(&mut asked).unwrap();
        asked.truncate(n);
        self.upstream.send_to(&respond(&asked), from).unwrap();
        (asked, udp_receive(&self.socket))
    }

    /// The upstream server is not asked.
    fn answers(&self, query: &[u8]) -> Vec<u8> {
        let answer = udp_ask(&self.socket, query);
        self.upstream.set_nonblocking(true).unwrap();
        assert!(self.upstream.recv(&mut [0]).is_err(), "it is asked");
        self.upstream.set_nonblocking(false).unwrap();
        answer
    }
}

/// Planted: the kept answer as the first asker got it; one for all, with EDNS or without; types in
/// lower case.
#[test]
fn dns_stub_gives_each_asker_an_answer_to_its_own_question() {
    let stub = Stub::start(&[]);
    let one = |asked: &[u8]| upstream_answer(asked, 1);
    let first = edns(query(7, "Far.TEST"), 1232, false);
    let (_, answer) = stub.forwards(&first, one);
    assert_eq!((answer[11], &answer[12..26]), (1, &first[12..26]));
    // The same with other capitals is kept; the answer has the question as it was asked.
    let again = edns(query(8, "fAR.test"), 1232, false);
    assert_eq!(stub.answers(&again)[12..26], again[12..26]);
    // Without EDNS, with DNSSEC, without recursion, with another type, it is another question.
    let plain = query(9, "fAR.test");
    let (asked, answer) = stub.forwards(&plain, one);
    assert_eq!((asked[11], answer[11], &answer[12..26]), (0, 0, &plain[12..26]));
    let (asked, _) = stub.forwards(&edns(query(10, "far.test"), 1232, true), one);
    assert_eq!(asked[asked.len() - 4], 0x80, "DO is passed on");
    let mut final_only = query(11, "far.test");
    final_only[2] = 0;
    assert_eq!(stub.forwards(&final_only, one).1[2] & 1, 0);
    for kind in [b'A', b'a'] {
        let mut other = query(12, "far.test");
        let at = other.len() - 3;
        other[at] = kind;
        assert_eq!(stub.forwards(&other, one).1[12..26], other[12..26]);
    }
    assert_eq!(stub.answers(&plain)[11], 0);
}

/// Planted: the kept answer as it came.
#[test]
fn dns_stub_lowers_times_to_live() {
    let stub = Stub::start(&[]);
    let question = edns(query(7, "far.test"), 1232, false);
    let (_, answer) = stub.forwards(&question, |asked| upstream_answer(asked, 2));
    let began = std::time::Instant::now();
    let lowered = loop {
        let kept = stub.answers(&question);
        if kept != answer {
            break kept;
        }
        assert!(began.elapsed() < PATIENCE, "it grows no older");
        std::thread::sleep(Duration::from_millis(10));
    };
    let ttls: Vec<usize> = (0..2).map(|i| 26 + 16 * i + 6).collect();
    let ttl = |at: usize| u32::from_be_bytes(lowered[at..at + 4].try_into().unwrap());
    assert!(ttl(ttls[0]) < 300 && ttl(ttls[0]) == ttl(ttls[1]), "{lowered:?}");
    let mut raised = lowered.clone();
    ttls.iter().for_each(|&at| raised[at..at + 4].copy_from_slice(&300_u32.to_be_bytes()));
    assert_eq!(raised, answer, "nothing else changes, not the OPT record's flags");
}

/// Planted: own answers of any length; kept answers of any length; the size that a client can take
/// passed on; a long answer of the upstream server dropped.
#[test]
fn dns_stub_says_that_an_answer_is_too_long() {
    let hosts = std::env::temp_dir().join(format!("reev-hosts-{}", std::process::id()));
    let lines = (0..100).map(|i| format!("10.0.0.{i} many.test\n")).collect::<String>();
    // What is no address that can be answered is passed over.
    std::fs::write(&hosts, "fe80::1%lo0 many.test\n".to_owned() + &lines).unwrap();
    let stub = Stub::start(&["--hosts", hosts.to_str().unwrap()]);
    std::fs::remove_file(&hosts).unwrap();
    let is_cut = |question: &[u8], answer: &[u8]| {
        let end = 12 + question[12..].iter().position(|&byte| byte == 0).unwrap() + 5;
        assert_eq!((answer[2] & 2, &answer[6..11]), (2, &[0; 5][..]), "{answer:?}");
        assert_eq!((answer[11], &answer[12..end]), (question[11], &question[12..end]));
        assert_eq!(answer.len(), question.len());
    };
    let own = query(7, "many.test");
    is_cut(&own, &stub.answers(&own));
    let own = edns(own, 1232, true);
    is_cut(&own, &stub.answers(&own));
    let own = stub.answers(&edns(query(7, "many.test"), 4096, true));
    assert_eq!((own[2] & 2, own[7], own[11]), (0, 100, 1));

    let [large, small] = [60_000, 600].map(|size| edns(query(8, "far.test"), size, false));
    let (asked, answer) = stub.forwards(&large, |asked| upstream_answer(asked, 100));
    assert!(asked[asked.len() - 8..].starts_with(&[16, 0]), "4,096 bytes are asked for");
    assert_eq!((answer[2] & 2, answer[7], answer.len()), (0, 100, large.len() + 1600));
    is_cut(&small, &stub.answers(&small));
    // One that is too long for the stub itself, or was cut already, is told at once and not kept.
    let plain = query(9, "far.test");
    is_cut(&plain, &stub.forwards(&plain, |asked| upstream_answer(asked, 400)).1);
    let cut = |asked: &[u8]| {
        let mut answer = upstream_answer(asked, 1);
        answer[2] |= 2;
        answer
    };
    is_cut(&plain, &stub.forwards(&plain, cut).1);
    assert_eq!(stub.forwards(&plain, |asked| upstream_answer(asked, 1)).1[7], 1);
}

/// Planted: the opcode, the class, dots in labels not looked at; an error without a question
/// dropped.
#[test]
fn dns_stub_answers_errors_to_what_it_cannot_answer() {
    let stub = Stub::start(&["--name", "near.test=192.0.2.1"]);
    let near = query(7, "near.test");
    let code = |answer: &[u8]| answer[3] & 15;
    assert_eq!(code(&stub.answers(&near)), 0);
    let mut update = near.clone();
    update[2] |= 5 << 3;
    assert_eq!(code(&stub.answers(&update)), 4, "not implemented");
    let mut chaos = near.clone();
    *chaos.last_mut().unwrap() = 3;
    let mut dotted = near.clone();
    dotted[12] = 9;
    dotted[17] = b'.';
    for question in [chaos, dotted] {
        // Both are passed on, and refused without a word on what was asked.
        let formerr = |asked: &[u8]| [&asked[..2], &[0x81, 0x81], &[0; 8]].concat();
        let (_, answer) = stub.forwards(&question, formerr);
        assert_eq!((code(&answer), &answer[12..]), (1, &question[12..]));
    }
    // A name above 255 bytes, and a record that goes on beyond the end.
    let long = query(7, &["label"; 43].join("."));
    let mut short = edns(near.clone(), 1232, false);
    short.pop();
    for wrong in [long, short] {
        assert_eq!(code(&stub.answers(&wrong)), 1);
    }
}

#[test]
fn dns_stub_names_the_file_that_is_not_there() {
    let output = example::command("dns_stub").args(["--hosts", "/none/hosts"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/none/hosts"), "{output:?}");
}

/// A proxy that prints statistics every second, which are taken from here.
struct Proxy {
    example: Example,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Proxy {
    fn start(backends: &[SocketAddr], flags: &[&str]) -> Proxy {
        let backends: Vec<String> = backends.iter().map(SocketAddr::to_string).collect();
        let mut all = vec!["--stats-s", "1"];
        all.extend(flags);
        backends.iter().for_each(|backend| all.extend(["--backend", backend]));
        let mut example = Example::start_with("tcp_proxy", &all, Stdio::piped());
        let lines = BufReader::new(example.child.stderr.take().unwrap()).lines();
        Proxy { example, lines }
    }

    /// Waits for a line of statistics with all of these in it.
    #[track_caller]
    fn until(&mut self, wanted: &[&str]) {
        let mut last = String::new();
        let began = std::time::Instant::now();
        while began.elapsed() < PATIENCE {
            last = self.lines.next().unwrap().unwrap();
            if wanted.iter().all(|part| last.contains(part)) {
                return;
            }
        }
        panic!("{wanted:?} not in {last}");
    }
}

fn backend() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Which of the backends gets the next connection.
fn accept_any(backends: &[TcpListener]) -> (usize, TcpStream) {
    let began = std::time::Instant::now();
    loop {
        for (i, backend) in backends.iter().enumerate() {
            backend.set_nonblocking(true).unwrap();
            if let Ok((stream, _)) = backend.accept() {
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return (i, stream);
            }
        }
        assert!(began.elapsed() < PATIENCE, "no backend is asked");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Planted: the first backend is chosen; the count of open ones is not taken back.
#[test]
fn tcp_proxy_gives_the_next_client_to_the_backend_with_the_fewest() {
    let (listeners, addrs): (Vec<_>, Vec<_>) = (0..3).map(|_| backend()).unzip();
    let mut proxy = Proxy::start(&addrs, &[]);
    let mut open: Vec<(usize, TcpStream, TcpStream)> = Vec::new();
    let connect = |proxy: &Proxy| {
        let client = proxy.example.connect();
        let (i, server) = accept_any(&listeners);
        (i, client, server)
    };
    for _ in 0..6 {
        open.push(connect(&proxy));
    }
    let count = |open: &[(usize, TcpStream, TcpStream)], i| {
        open.iter().filter(|(backend, ..)| *backend == i).count()
    };
    assert_eq!([0, 1, 2].map(|i| count(&open, i)), [2, 2, 2]);
    // The clients of the second leave; the next two are its own again.
    open.retain(|(backend, ..)| *backend != 1);
    proxy.until(&[&format!("{} open 0 served 2 failed 0", addrs[1])]);
    let next = [connect(&proxy), connect(&proxy)];
    assert_eq!([next[0].0, next[1].0], [1, 1]);
    let [(_, mut client, mut server), _] = next;
    talk(&mut client, "question", "");
    server.read_exact(&mut [0; 8]).unwrap();
    talk(&mut server, "an answer", "");
    client.read_exact(&mut [0; 9]).unwrap();
    let shown = [0, 1, 2].map(|i| format!("{} open 2 served {}", addrs[i], [2, 4, 2][i]));
    proxy.until(&[&shown[0], &shown[1], &shown[2], "in 17 out 17", "unserved 0"]);
}

/// A backend that does not answer at all is given up after the time allowed, left alone for a
/// while, and the client is served by the next.
/// Planted: the timeout is not passed on; a backend that has failed does not rest.
#[test]
fn tcp_proxy_passes_over_a_backend_that_does_not_answer() {
    // A queue that is full: the system drops who knocks.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    silent.listen(0).unwrap();
    let silent_addr = silent.local_addr().unwrap().as_socket().unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = TcpStream::connect_timeout(&silent_addr, Duration::from_millis(300)) {
        fillers.push(filler);
        assert!(fillers.len() < 64, "the queue is never full");
    }
    let (listener, live_addr) = backend();
    let mut proxy = Proxy::start(
        &[silent_addr, live_addr],
        &["--connect-timeout-ms", "100", "--rest-s", "3600"],
    );
    let mut served = Vec::new();
    for _ in 0..5 {
        let client = proxy.example.connect();
        served.push((client, accept_any(std::slice::from_ref(&listener)).1));
    }
    let silent_shown = format!("{silent_addr} open 0 served 0 failed 1");
    proxy.until(&[&silent_shown, &format!("{live_addr} open 5 served 5 failed 0")]);
}

/// Planted: the connections to backends and the reporter counted too; a rest that goes on beyond
/// the clock.
#[test]
fn tcp_proxy_counts_the_clients_that_are_open() {
    let (listener, addr) = backend();
    let dead = Refusing::new();
    let mut proxy = Proxy::start(&[dead.addr(), addr], &["--rest-s", "18446744073709551615"]);
    let clients = [(); 3].map(|()| {
        let client = proxy.example.connect();
        (client, accept_any(std::slice::from_ref(&listener)).1)
    });
    proxy.until(&["accepted 3 open 3 in", &format!("{addr} open 3 served 3")]);
    drop(clients);
    proxy.until(&["accepted 3 open 0 in", &format!("{addr} open 0 served 3")]);
}

#[test]
fn tcp_proxy_refuses_a_backend_of_datagrams() {
    let output =
        example::command("tcp_proxy").args(["--backend", "udp://127.0.0.1:9"]).output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("udp://127.0.0.1:9") && error.lines().count() == 1, "{error}");
}

/// Planted: no idle timeout.
#[test]
fn tcp_proxy_closes_what_is_idle_in_both_directions() {
    let (listener, addr) = backend();
    let mut proxy = Proxy::start(&[addr], &["--idle-timeout-s", "1"]);
    let mut client = proxy.example.connect();
    let (_, mut server) = accept_any(&[listener]);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.read(&mut [0]).unwrap(), 0);
    proxy.until(&[&format!("{addr} open 0 served 1"), "unserved 0"]);
}

#[test]
fn tcp_proxy_uses_the_backends_that_are_there() {
    let echo = Example::start("echo", &[]);
    let dead = Refusing::new();
    let (dead, live) = (dead.addr().to_string(), echo.addr.to_string());
    let proxy = Example::start("tcp_proxy", &["--backend", &dead, "--backend", &live]);
    for _ in 0..5 {
        let mut client = proxy.connect();
        talk(&mut client, "through", "through");
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    drop(echo);
    assert!(proxy.connect().read(&mut [0]).is_err(), "a reset when nobody is left");
}

#[test]
fn redis_answers_byte_for_byte() {
    let redis = Example::start("redis", &[]);
    let mut client = redis.connect();
    talk(&mut client, "PING\r\n", "+PONG\r\n");
    let pipeline = "SET n 41\r\nINCR n\r\nGET n\r\nINCR none\r\nDEL n none x\r\nGET n\r\n";
    talk(&mut client, pipeline, "+OK\r\n:42\r\n$2\r\n42\r\n:1\r\n:2\r\n$-1\r\n");
    talk(&mut client, "*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\n", "$3\r\na\r\n\r\n");
    talk(&mut client, "LPUSH l a b c\r\nLRANGE l 0 -2\r\n", ":3\r\n*2\r\n$1\r\nc\r\n$1\r\nb\r\n");
    talk(&mut client, "SET t x EX 100\r\nTTL t\r\n", "+OK\r\n:100\r\n");
    talk(&mut client, "SET t x EX 0\r\n", "-ERR invalid expire time in 'set' command\r\n");
    talk(&mut client, "INCR t\r\n", "-ERR value is not an integer or out of range\r\n");
    talk(&mut client, "NONSENSE\r\n", "-ERR unknown command 'NONSENSE'\r\n");
    let mut subscriber = redis.connect();
    talk(&mut subscriber, "SUBSCRIBE news\r\n", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    talk(&mut client, "PUBLISH news hello\r\n", ":1\r\n");
    talk(&mut subscriber, "", "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
    talk(&mut client, "QUIT\r\n", "+OK\r\n");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    talk(&mut subscriber, "*1\r\n!\r\n", "-ERR Protocol error: expected '$'\r\n");
}

/// Planted: the end of a range overflows (and the answers before it go to the next client); no
/// answer for UNSUBSCRIBE of nothing; commands behind QUIT are run; a PING with a message is
/// answered as if nothing were subscribed to; numbers are taken in any spelling.
#[test]
fn redis_answers_the_edges_as_redis_does() {
    let redis = Example::start("redis", &[]);
    let mut client = redis.connect();
    talk(&mut client, "LPUSH l a b\r\n", ":2\r\n");
    let (whole, huge) = ("*2\r\n$1\r\nb\r\n$1\r\na\r\n", i64::MAX);
    talk(&mut client, &format!("ECHO x\r\nLRANGE l 0 {huge}\r\n"), &format!("$1\r\nx\r\n{whole}"));
    talk(&mut client, &format!("LRANGE l {} {huge}\r\n", i64::MIN), whole);
    talk(&mut client, &format!("LRANGE l {huge} {}\r\n", i64::MIN), "*0\r\n");
    talk(&mut client, "UNSUBSCRIBE\r\n", "*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n");
    for number in ["+5", "007", "-0", "-", ""] {
        let set = format!("*3\r\n$3\r\nSET\r\n$1\r\nn\r\n${}\r\n{number}\r\n", number.len());
        talk(&mut client, &set, "+OK\r\n");
        talk(&mut client, "INCR n\r\n", "-ERR value is not an integer or out of range\r\n");
    }
    talk(&mut client, "SET n -1\r\nINCR n\r\nINCR n\r\n", "+OK\r\n:0\r\n:1\r\n");
    talk(&mut client, "SET n 1 NX XX\r\n", "-ERR syntax error\r\n");
    for (command, name) in [("EXISTS", "exists"), ("DBSIZE x", "dbsize"), ("CONFIG", "config")] {
        let says = format!("-ERR wrong number of arguments for '{name}' command\r\n");
        talk(&mut client, &format!("{command}\r\n"), &says);
    }
    talk(&mut client, "CONFIG SET a b\r\n", "-ERR unknown subcommand 'SET'\r\n");
    talk(&mut client, "SET q 1\r\nQUIT\r\nSET q 2\r\n", "+OK\r\n+OK\r\n");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let mut client = redis.connect();
    talk(&mut client, "GET q\r\n", "$1\r\n1\r\n");
    talk(&mut client, "SUBSCRIBE c\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n");
    talk(&mut client, "PING hi\r\n", "*2\r\n$4\r\npong\r\n$2\r\nhi\r\n");
    talk(&mut client, "PING\r\n", "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
}

/// Planted: a command that the parser allows is above the bound on input, and reset.
#[test]
fn redis_refuses_a_command_that_is_too_long() {
    let redis = Example::start("redis", &[]);
    let push = |lengths: &[usize]| {
        let mut command = format!("*{}\r\n$5\r\nLPUSH\r\n$1\r\nl\r\n", lengths.len() + 2);
        for &length in lengths {
            command += &format!("${length}\r\n{}\r\n", "x".repeat(length));
        }
        command
    };
    let (half, less) = (512 << 10, (512 << 10) - 100);
    let mut client = redis.connect();
    talk(&mut client, &push(&[half, less]), ":2\r\n");
    talk(&mut client, &push(&[half, half, less]), "-ERR Protocol error: too big command\r\n");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

/// Planted: 0 reactors are taken for the default.
#[test]
fn redis_has_one_reactor_by_default() {
    let output = example::command("redis").arg("--help").output().unwrap();
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    let reactors = help.split("--reactors").nth(1).and_then(|rest| rest.split("default: ").nth(1));
    assert!(reactors.is_some_and(|default| default.starts_with("1]")), "{help}");
}

#[test]
fn redis_serves_the_clients_of_the_distribution() {
    let redis = Example::start("redis", &[]);
    let port = redis.addr.port().to_string();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(["-p", &port]).args(arguments).output();
        let Ok(output) = output else {
            eprintln!("SKIPPED: no {program} here (package redis-tools)");
            return None;
        };
        assert!(output.status.success(), "{output:?}");
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    if let Some(answer) = run("redis-cli", &["SET", "k", "v"]) {
        assert_eq!(answer, "OK\n");
        assert_eq!(run("redis-cli", &["GET", "k"]).unwrap(), "v\n");
        assert_eq!(run("redis-cli", &["CONFIG", "GET", "save"]).unwrap(), "save\n\n");
    }
    let flags = ["-t", "ping,set,get,incr,lpush", "-P", "16", "-n", "2000", "-q"];
    if let Some(report) = run("redis-benchmark", &flags) {
        assert_eq!(report.matches("requests per second").count(), 6, "{report}");
    }
}

#[test]
fn pool_asks_redis_for_its_clients() {
    let redis = Example::start("redis", &[]);
    talk(&mut redis.connect(), "SET k value\r\n", "+OK\r\n");
    let backend = redis.addr.to_string();
    let pool = Example::start("pool", &["--backend", &backend, "--max", "2"]);
    let mut clients: Vec<TcpStream> = (0..20).map(|_| pool.connect()).collect();
    for client in &mut clients {
        client.write_all(b"k\nnone\nk\n").unwrap();
    }
    for client in &mut clients {
        talk(client, "", "value\r\n(nil)\r\nvalue\r\n");
    }
}

/// A pool of one connection, and a server that the test plays.
fn pool_and_backend() -> (Example, TcpListener) {
    let (listener, addr) = backend();
    let flags = ["--backend", &addr.to_string(), "--max", "1", "--min-idle", "0"];
    (Example::start("pool", &flags), listener)
}

fn accept(listener: &TcpListener) -> TcpStream {
    accept_any(std::slice::from_ref(listener)).1
}

/// What the pool sends for `key`.
fn get(key: &str) -> String {
    format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len())
}

#[track_caller]
fn expect(stream: &mut TcpStream, expected: &str) {
    talk(stream, "", expected);
}

/// Planted: a question whose connection ends by a reset or an error is not answered; an empty line
/// is taken apart (a panic); the end of a reply is computed from a length that overflows; a reply
/// longer than may wait is waited for.
#[test]
fn pool_tells_a_client_when_the_server_breaks() {
    let (pool, listener) = pool_and_backend();
    let mut client = pool.connect();
    let mut server = None;
    let huge = format!("${}\r\n", i64::MAX);
    for reply in ["", "\r\n", "nonsense\r\n", "$-2\r\n", "$1\r\nvalue", "$1048577\r\n", &huge] {
        client.write_all(b"a\nb\n").unwrap();
        let mut asked = server.take().unwrap_or_else(|| accept(&listener));
        expect(&mut asked, &get("a"));
        let held = if reply.is_empty() {
            // Closed without time to linger: a reset.
            socket2::SockRef::from(&asked).set_linger(Some(Duration::ZERO)).unwrap();
            drop(asked);
            None
        } else {
            asked.write_all(reply.as_bytes()).unwrap();
            Some(asked)
        };
        let mut told = String::new();
        BufReader::new(&client).read_line(&mut told).unwrap();
        assert!(told.starts_with('(') && told.ends_with(")\r\n"), "{reply}: {told}");
        drop(held);
        let mut asked = accept(&listener);
        expect(&mut asked, &get("b"));
        asked.write_all(b"$5\r\nvalue\r\n").unwrap();
        expect(&mut client, "value\r\n");
        server = Some(asked);
    }
}

/// Planted: the client's end closes it while a question is under way.
#[test]
fn pool_answers_clients_that_have_ended() {
    let (pool, listener) = pool_and_backend();
    let mut server = None;
    for keys in [&["a"][..], &["a", "b", "c"]] {
        let mut client = pool.connect();
        client.write_all(format!("{}\n", keys.join("\n")).as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let server = server.get_or_insert_with(|| accept(&listener));
        for key in keys {
            expect(server, &get(key));
            server.write_all(b"+value\r\n").unwrap();
        }
        let mut answers = String::new();
        client.read_to_string(&mut answers).unwrap();
        assert_eq!(answers, "+value\r\n".repeat(keys.len()));
    }
}
