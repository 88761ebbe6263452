//! The same bytes, however they are cut into reads and whatever the kernel does, give the same
//! requests and the same answers.
#![cfg(all(feature = "http1", feature = "sim"))]

use std::time::Duration;

use proptest::prelude::*;
use reev::http1::Options;
use reev::sim::Faults;

#[path = "support/http1_app.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod app;

use app::{Bench, get};

/// What a connection has led to.
#[derive(PartialEq, Eq, Debug)]
struct Outcome {
    answers: String,
    requests: Vec<String>,
    ended: bool,
}

/// Sends the pieces, and waits after each.
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, seed: u64, faults: Faults) -> Outcome {
    let mut bench = Bench::with(seed, faults, Options::default());
    let peer = bench.connect();
    let mut answers = Vec::new();
    for piece in pieces {
        peer.send(piece);
        bench.sim.settle();
        answers.extend(peer.receive());
    }
    // Withheld events come in later turns.
    for _ in 0..200 {
        bench.sim.advance(Duration::from_micros(100));
        answers.extend(peer.receive());
    }
    Outcome {
        answers: String::from_utf8_lossy(&answers).into_owned(),
        requests: bench.seen.borrow().requests.clone(),
        ended: peer.saw_fin() || peer.saw_reset(),
    }
}

fn whole(input: &[u8]) -> Outcome {
    run([input], 1, Faults::default())
}

fn conversations() -> Vec<String> {
    let chunked = "Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n";
    let post = |path: &str, body: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\n{body}");
    vec![
        format!("{}{}{}", get("/a"), get("/b?c").replace("GET", "HEAD"), get("/c")),
        format!("\r\n{}{}", post("/post", "Content-Length: 5\r\n\r\nhello"), get("/b")),
        format!("{}{}", post("/post", chunked), get("/b")),
        format!("{}{}", post("/upload", chunked), get("/b")),
        format!("{}{}", post("/upload", "Content-Length: 5\r\n\r\nhello"), get("/b")),
        format!("{}{}", post("/refuse", "Content-Length: 5\r\n\r\nhello"), get("/b")),
        format!("{}{}", post("/early", chunked), get("/b")),
        format!("{}{}{}", get("/a"), "GET / HTTP/1.0\r\n\r\n", get("/c")),
        format!("{}{}{}", get("/a"), "GET / HTTP/1.1\r\n\r\n", get("/c")),
        format!("{}{}", post("/post", "Content-Length: 5\r\nContent-Length: 5\r\n\r\n"), get("/c")),
        format!("{}{}", post("/post", "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX"), get("/c")),
        format!("{}{}{}", get("/panic"), get("/b"), get("/c")),
        format!("{}{}", get("/stream?2500"), get("/b")),
        format!("{}{}", get("/file?300"), get("/b")),
        format!("{}{}", get("/nothing"), get("/b")),
    ]
}

#[test]
fn split_at_every_position() {
    for conversation in conversations() {
        let bytes = conversation.as_bytes();
        let expected = whole(bytes);
        for at in 1..bytes.len() {
            let split = run([&bytes[..at], &bytes[at..]], 1, Faults::default());
            assert_eq!(split, expected, "{conversation:?} split at {at}");
        }
        assert_eq!(run(bytes.chunks(1), 1, Faults::default()), expected, "byte by byte");
    }
}

#[test]
fn on_a_hostile_kernel() {
    for conversation in conversations() {
        let bytes = conversation.as_bytes();
        let expected = whole(bytes);
        for seed in 0..20 {
            let outcome = run([bytes], seed, Faults::hostile());
            assert_eq!(outcome, expected, "{conversation:?} with seed {seed}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_conversation_in_any_pieces(
        which in prop::collection::vec(0..15usize, 1..5),
        flip in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let conversations = conversations();
        let mut bytes: Vec<u8> = which.iter().flat_map(|&i| conversations[i].bytes()).collect();
        if let Some((at, byte)) = flip {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        prop_assert_eq!(run(pieces, 1, Faults::default()), whole(&bytes));
    }
}
