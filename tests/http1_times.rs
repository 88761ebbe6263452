//! Answers that come later, and times that run out, on a simulated kernel and its clock.
#![cfg(all(feature = "http1", feature = "sim"))]

use std::time::Duration;

use reev::http1::{Answer, Gone, Options};
use reev::sim::Faults;

#[path = "support/http1_app.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod app;

use app::{Bench, bodies, get};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_answer_from_elsewhere_keeps_its_place() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    let requests = format!("{}{}{}", get("/a"), get("/later"), get("/b"));
    assert_eq!(bodies(&bench.talk(&peer, requests)), ["GET /a"]);
    assert_eq!(bench.hear(&peer), "", "what follows waits");
    bench.respond(0, "late").unwrap();
    assert_eq!(bodies(&bench.hear(&peer)), ["late", "GET /b"]);
}

#[test]
fn responders_of_many_connections_answer_in_any_order() {
    let mut bench = Bench::new();
    let peers: Vec<_> = (0..8).map(|_| bench.connect()).collect();
    for (i, peer) in peers.iter().enumerate() {
        bench.talk(peer, format!("{}{}", get(&format!("/later?{i}")), get(&format!("/{i}"))));
    }
    let responders = std::mem::take(&mut bench.seen.borrow_mut().responders);
    for (name, responder) in responders.into_iter().rev() {
        std::thread::spawn(move || responder.respond(Answer::text(name))).join().unwrap().unwrap();
    }
    for (i, peer) in peers.iter().enumerate() {
        let answers = bench.hear(peer);
        assert_eq!(bodies(&answers), [format!("/later?{i}"), format!("GET /{i}")]);
    }
}

#[test]
fn pipelined_later_answers_come_one_after_the_other() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    let requests: String = (0..5).map(|i| get(&format!("/later?{i}"))).collect();
    peer.send(requests.as_bytes());
    for i in 0..5 {
        bench.sim.settle();
        assert_eq!(bench.seen.borrow().responders.len(), 1, "one at a time is handed out");
        bench.respond(0, &i.to_string()).unwrap();
        let answer = bench.hear(&peer);
        assert_eq!(bodies(&answer), [i.to_string()]);
    }
}

#[test]
fn what_waits_behind_a_later_answer_is_bounded() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    peer.send(get("/later").as_bytes());
    for _ in 0..100 {
        peer.send(&[b'x'; 10_000]);
        bench.sim.settle();
    }
    assert!(peer.unread() > 900_000, "{} bytes are left in the kernel", peer.unread());
}

#[test]
fn the_answerer_is_told_that_the_connection_is_gone() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    bench.talk(&peer, get("/later"));
    assert!(bench.seen.borrow().responders[0].1.is_open());
    peer.reset();
    bench.sim.settle();
    assert!(!bench.seen.borrow().responders[0].1.is_open());
    assert_eq!(bench.respond(0, "late"), Err(Gone));
}

#[test]
fn a_half_closed_client_still_gets_its_answers() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    peer.send(format!("{}{}", get("/later"), get("/b")).as_bytes());
    peer.finish();
    bench.sim.settle();
    bench.respond(0, "late").unwrap();
    assert_eq!(bodies(&bench.hear(&peer)), ["late", "GET /b"]);
    assert!(peer.saw_fin());
    let second = bench.connect();
    second.send(get("/later").as_bytes());
    second.finish();
    bench.sim.settle();
    bench.respond(0, "late").unwrap();
    assert!(bench.hear(&second).ends_with("late"));
    assert!(second.saw_fin());
}

#[test]
fn a_dropped_responder_answers_500() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    bench.talk(&peer, format!("{}{}", get("/later"), get("/b")));
    bench.seen.borrow_mut().responders.clear();
    let answers = bench.hear(&peer);
    assert!(answers.starts_with("HTTP/1.1 500 "), "{answers}");
    assert_eq!(bodies(&answers), ["", "GET /b"]);
}

#[test]
fn a_responder_that_takes_too_long_is_answered_for() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    bench.talk(&peer, get("/later"));
    bench.sim.advance(59 * SECOND);
    assert_eq!(bench.hear(&peer), "");
    bench.sim.advance(2 * SECOND);
    let answer = bench.hear(&peer);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(peer.saw_fin());
    assert!(!bench.seen.borrow().responders[0].1.is_open());
    assert_eq!(bench.respond(0, "late"), Err(Gone));
    assert_eq!(bench.hear(&peer), "");
}

#[test]
fn a_head_that_trickles_in_is_cut_with_408() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    bench.talk(&peer, get("/"));
    for byte in b"GET / HTT" {
        assert_eq!(bench.talk(&peer, [*byte]), "");
        bench.sim.advance(SECOND);
    }
    let answer = {
        bench.sim.advance(2 * SECOND);
        bench.hear(&peer)
    };
    assert!(answer.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{answer}");
    assert!(answer.contains("Connection: close\r\n") && peer.saw_fin());
    assert_eq!(bench.talk(&peer, "P/1.1\r\nHost: a\r\n\r\n"), "");
}

#[test]
fn a_head_in_time_disarms_its_timeout() {
    let mut bench = Bench::new();
    let peer = bench.connect();
    for _ in 0..10 {
        // Always one whole request and the beginning of the next.
        bench.talk(&peer, "GET / HTTP/1.1\r\n");
        bench.sim.advance(6 * SECOND);
        assert_eq!(bodies(&bench.talk(&peer, "Host: a\r\n\r\n")), ["GET /"]);
        bench.talk(&peer, "GET / HTTP/1.1\r\n");
        bench.sim.advance(6 * SECOND);
        assert_eq!(bench.hear(&peer), "");
        assert_eq!(bench.talk(&peer, "Host: a\r\n\r\nGET /x HTTP").matches("200 OK").count(), 1);
        bench.sim.advance(6 * SECOND);
        assert_eq!(bodies(&bench.talk(&peer, "/1.1\r\nHost: a\r\n\r\n")), ["GET /x"]);
    }
}

#[test]
fn a_body_that_stalls_or_never_ends_is_cut_with_408() {
    let head = "POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
    let mut bench = Bench::new();
    let (stalls, trickles) = (bench.connect(), bench.connect());
    bench.talk(&stalls, head);
    bench.talk(&trickles, head);
    let mut cut = (0, 0);
    for second in 1..=70 {
        bench.sim.advance(SECOND);
        if bench.hear(&stalls).starts_with("HTTP/1.1 408 ") {
            cut.0 = second;
        }
        if bench.talk(&trickles, "x").starts_with("HTTP/1.1 408 ") {
            cut.1 = second;
        }
    }
    assert_eq!(cut, (30, 60));
    assert!(stalls.saw_fin() && trickles.saw_fin());
    assert!(bench.seen.borrow().requests.is_empty());
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let mut bench = Bench::new();
    let (idle, busy, silent) = (bench.connect(), bench.connect(), bench.connect());
    bench.talk(&idle, get("/"));
    let mut closed = 0;
    for second in 1..=300 {
        bench.sim.advance(SECOND);
        bench.talk(&busy, get("/"));
        if idle.saw_fin() && closed == 0 {
            closed = second;
        }
    }
    assert!((75..=85).contains(&closed), "after {closed} s");
    assert!(silent.saw_fin() && !busy.saw_fin());
    assert_eq!(bench.seen.borrow().closes, ["local", "local"]);
    // With the last connection the wheel's timer goes too.
    busy.close();
    bench.sim.advance(100 * SECOND);
    bench.sim.advance(100 * SECOND);
    assert_eq!(bench.sim.handle().stats()[0].timers, 0);
}

#[test]
fn a_peer_that_reads_nothing_is_cut() {
    let mut bench = Bench::with(1, Faults::default(), Options::default());
    let peer = bench.connect();
    peer.send(get("/file?9000000").as_bytes());
    bench.sim.settle();
    bench.sim.advance(100 * SECOND);
    assert!(peer.saw_reset());
}

#[test]
fn a_turnover_of_connections_leaves_no_memory() {
    let mut bench = Bench::new();
    for _ in 0..5000 {
        let peer = bench.connect();
        bench.talk(&peer, get("/").replace("1.1", "1.0"));
        peer.close();
    }
    let peer = bench.connect();
    bench.sim.advance(3 * SECOND);
    assert_eq!(bodies(&bench.talk(&peer, get("/"))), ["GET /"]);
    bench.sim.advance(100 * SECOND);
    assert!(peer.saw_fin());
}
