//! The HTTP/1.1 handler on a simulated kernel: what a client sends, and what it gets.
#![cfg(all(feature = "http1", feature = "sim"))]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use reev::TimerId;
use reev::http1::{Http1, Intake, Options, Request, Response, Service, Status};
use reev::sim::{Faults, Simulation};

#[path = "support/http1_app.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod app;

use app::{Bench, bodies, get};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn one_request_one_answer() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    let answer = bench.talk(&peer, get("/a?b"));
    assert_eq!(
        answer,
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Content-Type: text/plain\r\nContent-Length: 8\r\n\r\nGET /a?b"
    );
    assert!(!peer.saw_fin());
}

#[test]
fn the_date_goes_with_the_clock() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    bench.talk(&peer, get("/"));
    bench.sim.advance(5 * SECOND);
    assert!(bench.talk(&peer, get("/")).contains("08:49:42 GMT"));
}

#[test]
fn sixteen_pipelined_requests_are_answered_in_order_in_one_send() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    let requests: String = (0..16).map(|i| get(&format!("/{i}"))).collect();
    let sends = bench.sim.calls().sends;
    let answers = bench.talk(&peer, requests);
    let expected: Vec<String> = (0..16).map(|i| format!("GET /{i}")).collect();
    assert_eq!(bodies(&answers), expected);
    assert_eq!(bench.sim.calls().sends, sends + 1);
}

#[test]
fn rfc9112_9_3_persistence() {
    for (request, connection, stays) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", None, true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", Some("close"), false),
        ("GET / HTTP/1.0\r\n\r\n", Some("close"), false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", Some("keep-alive"), true),
    ] {
        let mut bench = Bench::new();
        let peer = bench.connect();
        let answer = bench.talk(&peer, format!("{request}{}", get("/next")));
        let field = answer.lines().find_map(|line| line.strip_prefix("Connection: "));
        assert_eq!(field, connection, "{request}");
        assert_eq!(bodies(&answer).len(), if stays { 2 } else { 1 }, "{request}");
        assert_eq!(peer.saw_fin(), !stays, "{request}");
    }
}

#[test]
fn answers_without_content() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    let head = bench.talk(&peer, get("/").replace("GET", "HEAD"));
    assert!(head.ends_with("Content-Length: 6\r\n\r\n"), "{head}");
    for path in ["/empty", "/same"] {
        let answer = bench.talk(&peer, get(path));
        assert!(answer.ends_with("\r\n\r\n") && !answer.contains("Content-Length"), "{answer}");
    }
    // Fault: an `Answer` and a file, whose content goes out beside the head, kept it with 205.
    for path in ["/reset", "/reset/file"] {
        let answer = bench.talk(&peer, get(path));
        assert!(answer.ends_with("Content-Length: 0\r\n\r\n"), "{path}: {answer}");
    }
    assert_eq!(bodies(&bench.talk(&peer, get("/"))), ["GET /"]);
}

#[test]
fn whole_bodies() {
    for body in [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n",
    ] {
        let mut bench = Bench::new();
        let peer = bench.connect();
        let request = format!("POST /post HTTP/1.1\r\nHost: a\r\n{body}");
        let answers = bench.talk(&peer, format!("{request}{request}{}", get("/")));
        assert_eq!(bodies(&answers), ["hello", "hello", "GET /"]);
        // In single bytes.
        let mut answer = String::new();
        for byte in request.bytes() {
            answer += &bench.talk(&peer, [byte]);
        }
        assert_eq!(bodies(&answer), ["hello"]);
    }
}

#[test]
fn streamed_bodies() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    let request = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    assert_eq!(bench.talk(&peer, request), "");
    assert_eq!(bench.talk(&peer, [1; 60_000]), "");
    let answer = bench.talk(&peer, [&[1; 40_000][..], get("/").as_bytes()].concat());
    assert_eq!(bodies(&answer), ["100000 100000", "GET /"]);
    let request = "POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   1\r\nA\r\n1\r\nB\r\n0\r\n\r\n";
    assert_eq!(bodies(&bench.talk(&peer, request)), ["2 131"]);
}

#[test]
fn content_can_be_echoed_as_it_comes() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n";
    let begun = bench.talk(&peer, format!("{head}abc"));
    assert!(begun.ends_with("3\r\nabc\r\n"), "{begun}");
    assert_eq!(bench.talk(&peer, "def"), "3\r\ndef\r\n0\r\n\r\n");
    // The answer began before the request ended, so it could not promise that more follows.
    assert!(begun.contains("Connection: close") && peer.saw_fin());
}

#[test]
fn an_answer_before_the_end_of_the_body_is_the_last() {
    for path in ["/refuse", "/early"] {
        for body in ["hello", ""] {
            let mut bench = Bench::new();
            let peer = bench.connect();
            let request =
                format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n{body}");
            let answer = bench.talk(&peer, request);
            assert_eq!(bodies(&answer).len(), 1);
            assert!(answer.contains("Connection: close") && peer.saw_fin(), "{answer}");
            assert_eq!(bench.talk(&peer, get("/")), "");
        }
    }
}

#[test]
fn rfc9110_10_1_1_expect_100_continue() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    let head =
        "POST /post HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(bench.talk(&peer, head), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(bodies(&bench.talk(&peer, "hello")), ["hello"]);
    // Not to one that has sent content already, nor where the content is refused.
    assert_eq!(bodies(&bench.talk(&peer, format!("{head}hello"))), ["hello"]);
    let answer = bench.talk(&peer, head.replace("/post", "/refuse"));
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
}

#[test]
fn what_follows_a_framing_error_is_never_a_request() {
    for (bad, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999\r\n\r\nx", 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ("POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxx", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", 417),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
    ] {
        let mut bench = Bench::new();
        let peer = bench.connect();
        let answers = bench.talk(&peer, format!("{}{bad}{}", get("/before"), get("/after")));
        let bodies = bodies(&answers);
        assert_eq!(bodies.len(), 2, "{bad}: {answers}");
        assert_eq!(bodies[0], "GET /before");
        let second = answers.split("GET /before").nth(1).unwrap_or_default();
        assert!(second.starts_with(&format!("HTTP/1.1 {status} ")), "{bad}: {second}");
        assert!(second.contains("Connection: close\r\n"), "{bad}: {second}");
        assert!(peer.saw_fin());
        assert_eq!(bench.talk(&peer, get("/after")), "", "{bad}");
        let requests = bench.seen.borrow().requests.clone();
        assert!(!requests.iter().any(|request| request.ends_with("/after")), "{bad}");
    }
}

#[test]
fn bounds_of_a_request() {
    for (bad, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000)), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(17_000)), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200)), 431),
        (format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(50)), 501),
    ] {
        let mut bench = Bench::new();
        let peer = bench.connect();
        let answer = bench.talk(&peer, bad);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(peer.saw_fin());
    }
}

#[test]
fn a_request_left_unanswered_or_answered_twice() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    let answers = bench.talk(&peer, format!("{}{}{}", get("/nothing"), get("/twice"), get("/")));
    assert!(answers.starts_with("HTTP/1.1 500 "), "{answers}");
    assert_eq!(bodies(&answers), ["", "once", "GET /"]);
}

#[test]
fn header_fields_cannot_be_forged() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    let answer = bench.talk(&peer, get("/header"));
    assert!(answer.starts_with("HTTP/1.1 201 Created\r\n"), "{answer}");
    assert!(answer.contains("\r\nX-A: b\r\n") && !answer.contains("Injected"), "{answer}");
    // Nothing of it is left for the next answer.
    assert!(!bench.talk(&peer, get("/")).contains("X-A"));
}

#[test]
fn a_panic_is_answered_with_500_and_hurts_nobody_else() {
    let mut bench = Bench::new();
    let (peer, other) = (bench.connect(), bench.connect());
    let answers = bench.talk(&peer, format!("{}{}{}", get("/a"), get("/panic"), get("/b")));
    assert_eq!(bodies(&answers), ["GET /a", ""]);
    assert!(answers.contains("HTTP/1.1 500 Internal Server Error\r\n"), "{answers}");
    assert!(peer.saw_fin());
    assert_eq!(bodies(&bench.talk(&other, get("/a"))), ["GET /a"]);
    let late = bench.talk(&other, get("/panic/late"));
    assert_eq!((bodies(&late), other.saw_fin()), (vec!["done"], true));
    let third = bench.connect();
    bench.talk(&third, get("/panic/stream"));
    assert!(third.saw_reset());
}

#[test]
fn streamed_answers() {
    for (size, version, ended) in
        [(0, "1.1", "0\r\n\r\n"), (2500, "1.1", "0\r\n\r\n"), (2500, "1.0", "....")]
    {
        let mut bench = Bench::new();
        let peer = bench.connect();
        let request = format!("GET /stream?{size} HTTP/{version}\r\nHost: a\r\n\r\n");
        let answer = bench.talk(&peer, request);
        assert!(answer.ends_with(ended), "{answer}");
        assert_eq!(answer.matches('.').count(), size + 1, "one in the status line");
        assert_eq!(peer.saw_fin(), version == "1.0");
    }
}

#[test]
fn a_long_streamed_answer_is_driven_by_drain_and_stays_bounded() {
    const SIZE: usize = 5_000_000;
    let faults = Faults { send_buffer_max: 10_000, ..Faults::default() };
    let mut bench = Bench::with(3, faults, Options::default());
    let peer = bench.connect();
    peer.send(format!("{}{}", get(&format!("/stream?{SIZE}")), get("/next")).as_bytes());
    bench.sim.settle();
    let before = bench.seen.borrow().drains;
    assert!(before < 400, "{before} pieces of 1000 bytes for a peer that does not read");
    bench.sim.settle();
    assert_eq!(bench.seen.borrow().drains, before);
    let answer = bench.hear(&peer);
    assert_eq!(answer.matches('.').count() - 2, SIZE);
    assert!(answer.ends_with("GET /next"));
}

#[test]
fn an_answer_that_waits_for_a_timer_does_not_spin() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    bench.talk(&peer, get("/events"));
    let drains = bench.seen.borrow().drains;
    assert!(drains <= 2, "{drains}");
    bench.sim.advance(99 * SECOND);
    assert_eq!(bench.hear(&peer), "", "longer than the idle timeout, and open");
    bench.sim.advance(2 * SECOND);
    assert_eq!(bench.hear(&peer), "4\r\ntick\r\n0\r\n\r\n");
    assert!(!peer.saw_fin());
}

/// Streams without end, with the status that the query names; counts the calls of `on_drain`.
struct Endless(Rc<Cell<usize>>);

impl Service for Endless {
    fn on_head(&mut self, _req: &Request<'_>, _res: &mut Response<'_>) -> Intake {
        Intake::Streamed
    }

    fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
        res.cx().set_timer(SECOND);
        let code = req.query().map_or(200, |code| code.parse().expect("a number"));
        res.status(Status::new(code).expect("a status"));
        match req.path() {
            "/sized" => res.stream_sized(1 << 40),
            _ => res.stream(),
        }
        res.write(b"begun");
    }

    fn on_drain(&mut self, res: &mut Response<'_>) {
        self.0.set(self.0.get() + 1);
        res.write(&[b'.'; 10_000]);
    }

    fn on_timeout(&mut self, _timer: TimerId, _res: &mut Response<'_>) {}
}

/// A peer of an [`Endless`].
fn endless() -> (Simulation, reev::sim::Peer, Rc<Cell<usize>>) {
    let mut sim = Simulation::new(1);
    let drains = Rc::new(Cell::new(0));
    let (http, counted) = (Http1::new(Options::default()), drains.clone());
    let listener = sim.listen(move |_peer| http.connection(Endless(counted.clone())));
    let peer = sim.connect(listener);
    (sim, peer, drains)
}

/// Fault: `on_drain` was called again and again, as nothing it wrote was ever to be sent; then
/// the connection was neither driven nor closed.
#[test]
fn a_streamed_answer_without_content_ends_with_its_head() {
    for (line, stays) in [
        ("HEAD / HTTP/1.1", true),
        ("HEAD /sized HTTP/1.1", true),
        ("GET /?204 HTTP/1.1", true),
        ("GET /sized?205 HTTP/1.1", true),
        ("GET /?304 HTTP/1.1", true),
        ("HEAD /sized HTTP/1.0\r\nConnection: keep-alive", true),
        // To GET the answer would go on until the connection's end.
        ("HEAD / HTTP/1.0\r\nConnection: keep-alive", false),
        ("HEAD / HTTP/1.1\r\nConnection: close", false),
    ] {
        let (mut sim, peer, drains) = endless();
        peer.send(format!("{line}\r\nHost: a\r\n\r\n").repeat(2).as_bytes());
        sim.settle();
        let answers = String::from_utf8(peer.receive()).expect("heads alone");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), if stays { 2 } else { 1 }, "{line}");
        assert!(answers.ends_with("\r\n\r\n") && !answers.contains("begun"), "{line}: {answers}");
        assert_eq!((drains.get(), peer.saw_fin()), (0, !stays), "{line}");
        sim.advance(100 * SECOND);
        assert!(peer.saw_fin(), "{line}: idle");
    }
}

/// Fault: a call of the service from elsewhere drove an answer without content, while the body
/// came.
#[test]
fn a_streamed_answer_without_content_is_not_driven_while_the_body_comes() {
    let (mut sim, peer, drains) = endless();
    peer.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    sim.advance(2 * SECOND);
    assert_eq!((drains.get(), peer.saw_fin()), (0, false));
    peer.send(b"def");
    sim.settle();
    let answer = String::from_utf8(peer.receive()).expect("a head alone");
    assert!(answer.contains("Connection: close\r\n") && peer.saw_fin(), "{answer}");
    assert_eq!(drains.get(), 0);
}

#[test]
fn a_peer_that_does_not_read_stops_the_pipeline() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    peer.send(get("/big").repeat(500).as_bytes());
    bench.sim.settle();
    let begun = bench.seen.borrow().requests.len();
    assert!(begun < 20, "{begun} answers of 100 kB for a peer that does not read");
    let answers = bench.hear(&peer);
    assert_eq!(bodies(&answers).len(), 500);
}

#[test]
fn files() {
    for size in [0, 1, 1000, 20_000, 3_000_000] {
        let mut bench = Bench::with(size, Faults::hostile(), Options::default());
        let peer = bench.connect();
        let requests = format!("{0}{0}{1}", get(&format!("/file?{size}")), get("/next"));
        peer.send(requests.as_bytes());
        let mut heard = Vec::new();
        while !heard.ends_with(b"GET /next") {
            bench.sim.advance(Duration::from_millis(1));
            heard.extend(peer.receive());
        }
        let expected = app::pattern(size as usize);
        for _ in 0..2 {
            let end = heard.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
            let head = String::from_utf8_lossy(&heard[..end]).into_owned();
            assert!(head.contains(&format!("Content-Length: {size}\r\n")), "{head}");
            assert!(heard[end..].starts_with(&expected), "{size}");
            heard.drain(..end + expected.len());
        }
    }
}

#[test]
fn a_file_that_is_shorter_than_promised_resets() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    bench.talk(&peer, get("/file/short"));
    assert!(peer.saw_reset());
    assert_eq!(bench.seen.borrow().closes, ["error"]);
}

#[test]
fn an_upgrade_hands_over_the_unread_bytes() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    let request =
        "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n";
    let answer = bench.talk(&peer, format!("{}{request}hello", get("/")));
    let (_, upgraded) = answer.split_once("GET /").expect("an answer before");
    assert!(upgraded.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{upgraded}");
    assert!(upgraded.contains("Upgrade: shout\r\nConnection: upgrade\r\n\r\nHELLO"), "{upgraded}");
    assert_eq!(bench.talk(&peer, "more"), "MORE");
    assert_eq!(bench.seen.borrow().closes, ["replaced"]);
    // The wheel leaves it alone.
    bench.sim.advance(200 * SECOND);
    assert_eq!(bench.talk(&peer, "still"), "STILL");
}

#[test]
fn shutdown_lets_the_request_under_way_finish() {
    let mut bench = Bench::new();
    let (idle, busy) = (bench.connect(), bench.connect());
    bench.talk(&busy, get("/later"));
    bench.sim.handle().shutdown(5 * SECOND);
    bench.sim.settle();
    assert!(idle.saw_fin() && !busy.saw_fin());
    bench.respond(0, "done").unwrap();
    let answer = bench.hear(&busy);
    assert!(answer.contains("Connection: close") && answer.ends_with("done"), "{answer}");
}

/// Fault: of a request whose body was under way when the shutdown began, the answer did not say
/// `Connection: close`, and its connection stayed until the shutdown's deadline.
#[test]
fn an_answer_after_the_shutdown_began_closes() {
    const HEAD: &str = "HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    for (path, end) in [
        ("/post", "hello"),
        ("/upload", "5 532"),
        ("/upload/nothing", "Content-Length: 0\r\n\r\n"), // 500
        ("/echo", "0\r\n\r\n"),
        ("/stream?3", "0\r\n\r\n"),
        ("/later", "late"),
    ] {
        let request = format!("POST {path} {HEAD}hello");
        // In the head, behind it, and in the body.
        for cut in [20, request.len() - 5, request.len() - 2] {
            let mut bench = Bench::new();
            let peer = bench.connect();
            let mut answer = bench.talk(&peer, &request[..cut]);
            bench.sim.handle().shutdown(60 * SECOND);
            bench.sim.settle();
            answer += &bench.talk(&peer, &request[cut..]);
            if path == "/later" {
                assert!(!peer.saw_fin(), "the answer is still to come");
                bench.respond(0, "late").unwrap();
                answer += &bench.hear(&peer);
            }
            assert!(answer.contains("Connection: close\r\n"), "{path}, cut at {cut}: {answer}");
            assert!(answer.ends_with(end), "{path}, cut at {cut}: {answer}");
            assert!(peer.saw_fin(), "{path}, cut at {cut}");
        }
    }
}
