//! The DNS stub example, as its clients and its upstream server meet it.

#[path = "support/example.rs"]
mod example;

use std::net::UdpSocket;
use std::time::Duration;

use example::{Example, PATIENCE, udp_ask, udp_receive};

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
