//! However a connection's bytes are cut into reads, it means the same; and the chunked decoder is
//! its oracle's equal.
#![cfg(feature = "http1")]

use proptest::prelude::*;
use reev::http1::{Head, HeadDecoder, HeaderSlots, Limits};

#[path = "support/http1_fuzzing.rs"]
mod fuzzing;

use fuzzing::{Event, chunked, connection, fuzz_chunked, fuzz_request, limits, oracle_chunked};

/// Pieces that make heads, good and bad, when they are strung together.
const HEAD_PIECES: [&str; 44] = [
    "GET / HTTP/1.1\r\n",
    "POST /a HTTP/1.1\r\n",
    "GET / HTTP/1.0\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "GET ",
    "/",
    " HTTP/1.1\r\n",
    " HTTP/2.0\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "CONNECT a:1 HTTP/1.1\r\n",
    "GET http://a/b HTTP/1.1\r\n",
    "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMMM",
    "Host: a\r\n",
    "Host: a b\r\n",
    "host:\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 999\r\n",
    "Content-Length: +5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Connection: close\r\n",
    "Expect: 100-continue\r\n",
    "Expect: x\r\n",
    "X: y\r\n",
    "X: y\r\nX: y\r\nX: y\r\nX: y\r\nX: y\r\nX: y\r\n",
    "X : y\r\n",
    " folded\r\n",
    "no colon\r\n",
    "X: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n",
    "X: \0\r\n",
    "X: \u{e9}\r\n",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "0\r\nA: b\r\n\r\n",
    "hello",
    "\t",
    "#",
];

const CHUNK_PIECES: [&str; 38] = [
    "0\r\n",
    "\r\n",
    "1\r\nx\r\n",
    "5\r\nhello\r\n",
    "a\r\n0123456789\r\n",
    "fF\r\n",
    "FFFFFFFFFFFFFFFFF",
    "100",
    "0",
    "x",
    "\r",
    "\n",
    ";",
    "a",
    "=",
    "b",
    "\"",
    "\\",
    " ",
    "\t",
    "1;a=b\r\nx\r\n",
    "1 ; a = \"q;\\\"\" ;c\r\nx\r\n",
    "A: b\r\n",
    "B:\r\n",
    "C:\t d e \r\n",
    "Host: a\r\n",
    "content-length: 1\r\n",
    "A : b\r\n",
    ": b\r\n",
    " c\r\n",
    "\0",
    "\u{e9}",
    "-",
    "+",
    "0\r\n\r\n",
    "0;e\r\n\r\n",
    "D: 0123456789012345678901234567890123456789\r\n",
    ";aaaaaaaaaaaaaaa",
];

fn strung(pieces: &'static [&'static str], count: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(pieces), 0..count)
        .prop_map(|pieces| pieces.concat().into_bytes())
}

/// `bytes` with one of them replaced.
fn spoilt(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (bytes, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, b)| {
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = b;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn requests_do_not_depend_on_cuts(data in strung(&HEAD_PIECES, 14)) {
        fuzz_request(&data);
    }

    #[test]
    fn spoilt_requests_do_not_depend_on_cuts(data in spoilt(strung(&HEAD_PIECES, 10))) {
        fuzz_request(&data);
    }

    #[test]
    fn any_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..700)) {
        fuzz_request(&data);
        fuzz_chunked(&data);
    }

    #[test]
    fn chunks_are_those_of_the_oracle(data in strung(&CHUNK_PIECES, 16)) {
        fuzz_chunked(&data);
    }

    #[test]
    fn spoilt_chunks_are_those_of_the_oracle(data in spoilt(strung(&CHUNK_PIECES, 10))) {
        fuzz_chunked(&data);
    }

    #[test]
    fn framed_content_comes_back(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..12)) {
        let mut data = Vec::new();
        for part in &parts {
            data.extend(format!("{:x}\r\n", part.len()).bytes());
            data.extend(part);
            data.extend(b"\r\n");
        }
        data.extend(b"0\r\n\r\n");
        let content = parts.concat();
        let mut expected = if content.is_empty() { vec![] } else { vec![Event::Data(content)] };
        expected.push(Event::End);
        prop_assert_eq!(chunked([&data[..]], &limits()), expected);
    }
}

/// Every request of the seed corpus, cut in two at every position.
#[test]
fn seeds_cut_at_every_position() {
    for data in seeds("http1_request") {
        let whole = connection([&data[..]], &limits());
        for at in 0..=data.len() {
            let (head, tail) = data.split_at(at);
            assert_eq!(
                connection([head, tail], &limits()),
                whole,
                "{} cut at {at}",
                data.escape_ascii()
            );
        }
        fuzz_request(&data);
    }
    for data in seeds("http1_chunked") {
        let expected = oracle_chunked(&data, &limits());
        for at in 0..=data.len() {
            let (head, tail) = data.split_at(at);
            assert_eq!(
                chunked([head, tail], &limits()),
                expected,
                "{} cut at {at}",
                data.escape_ascii()
            );
        }
        fuzz_chunked(&data);
    }
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let seeds: Vec<_> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
    assert!(!seeds.is_empty(), "{folder} is empty");
    seeds
}

/// What [`HeadDecoder::again`] accepts, `decode` accepts, and they give the same request.
#[test]
fn a_head_like_the_last_one_is_read_as_any_other() {
    const FIELDS: &str = "Host: a\r\nAccept: */*\r\n\r\n";
    let lines =
        ["GET /plain?x=1 HTTP/1.1\r\n", "CONNECT a:1 HTTP/1.1\r\n", "OPTIONS * HTTP/1.1\r\n"];
    let mut accepted = 0;
    let limits = limits();
    for last in ["GET /first HTTP/1.1\r\n", "\r\nGET / HTTP/1.1\r\n", "GET / HTTP/1.0\r\n"] {
        for line in lines {
            for at in 0..line.len() {
                for byte in 0..=255 {
                    let mut next = line.as_bytes().to_vec();
                    next[at] = byte;
                    next.extend(FIELDS.bytes());
                    let bytes = [format!("{last}{FIELDS}").into_bytes(), next.clone()].concat();
                    accepted += usize::from(same_by_both(&bytes, &next, &limits));
                }
            }
        }
    }
    assert!(accepted > 1000, "{accepted}");
}

/// Whether the second head of `bytes`, which is `next`, is accepted in the light of the first.
fn same_by_both(bytes: &[u8], next: &[u8], limits: &Limits) -> bool {
    let (mut slots, mut decoder) = (HeaderSlots::new(), HeadDecoder::default());
    let Ok(Head::Complete { request, used }) = decoder.decode(bytes, &mut slots, limits) else {
        panic!("the first is a request");
    };
    let Some((again, again_used)) = decoder.again(&bytes[used..], &bytes[..used], &request, limits)
    else {
        return false;
    };
    let (mut slots, mut decoder) = (HeaderSlots::new(), HeadDecoder::default());
    match decoder.decode(next, &mut slots, limits) {
        Ok(Head::Complete { request, used }) => {
            assert_eq!(used, again_used);
            assert_eq!(format!("{request:?}"), format!("{again:?}"));
        }
        other => panic!("{:?} is accepted, but {other:?}", next.escape_ascii().to_string()),
    }
    true
}
