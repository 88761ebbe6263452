//! Instructions of the HTTP/1.1 codec, for callgrind: `http1_cost bare|head|answer TURNS`. One turn
//! is sixteen pipelined requests; the difference between two numbers of turns has no start-up in
//! it.

use std::hint::black_box;
use std::mem::MaybeUninit;

use reev::proto::http1::{
    DateCache, Fields, Head, HeadDecoder, HeaderSlots, Limits, ResponseHead, Status, Version,
};

const REQUEST: &[u8] =
    b"GET /plaintext HTTP/1.1\r\nHost: localhost:8080\r\nAccept: text/plain\r\nUser-Agent: wrk\r\nConnection: keep-alive\r\n\r\n";
const PLAIN: Fields<'static> = Fields::new("Server: reev\r\nContent-Type: text/plain\r\n");

fn main() {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let turns: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let bytes = REQUEST.repeat(16);
    for _ in 0..turns {
        match what.as_str() {
            "bare" => bare(black_box(&bytes)),
            "head" => heads(black_box(&bytes)),
            _ => answers(),
        }
    }
}

#[inline(never)]
fn bare(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let mut slots = [const { MaybeUninit::uninit() }; 64];
        let mut request = httparse::Request::new(&mut []);
        let Ok(httparse::Status::Complete(used)) =
            request.parse_with_uninit_headers(bytes, &mut slots)
        else {
            return;
        };
        black_box(&request);
        bytes = &bytes[used..];
    }
}

#[inline(never)]
fn heads(mut bytes: &[u8]) {
    let limits = Limits::default();
    let mut decoder = HeadDecoder::default();
    let mut slots = HeaderSlots::new();
    while !bytes.is_empty() {
        let Ok(Head::Complete { request, used }) = decoder.decode(bytes, &mut slots, &limits)
        else {
            return;
        };
        assert!(request.version() == Version::Http11);
        black_box(&request);
        bytes = &bytes[used..];
    }
}

#[inline(never)]
fn answers() {
    let date = DateCache::new(784_111_777);
    let mut out = Vec::with_capacity(4096);
    let (bytes, limits, mut slots) = (REQUEST, Limits::default(), HeaderSlots::new());
    let Ok(Head::Complete { request, .. }) =
        HeadDecoder::default().decode(bytes, &mut slots, &limits)
    else {
        return;
    };
    let reply = black_box(request.reply());
    for _ in 0..16 {
        let mut head = ResponseHead::start(&mut out, Status::OK, reply, &date);
        head.fields(PLAIN);
        head.body(b"Hello, World!");
    }
    black_box(&out);
}
