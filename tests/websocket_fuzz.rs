//! The fuzz bodies under proptest, and over the corpus.
#![cfg(feature = "websocket")]

#[path = "support/websocket_fuzzing.rs"]
mod bodies;

use bodies::{DEFLATE, frame_for};
use proptest::prelude::*;
use reev::websocket::Role;
use std::path::Path;

/// Frames that are nearly right: any header bits, short payloads that may be compressed or not.
fn frames(role: Role) -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        "[a-z\u{e9}\u{20ac}\u{1f600}]{0,20}".prop_map(String::into_bytes),
        Just(b"\xf2\x48\xcd\xc9\xc9\x07\x00".to_vec()),
        Just(b"\x03\xe8".to_vec()),
        (0..20_000usize).prop_map(|len| vec![b'x'; len]),
    ];
    let first = prop_oneof![
        4 => prop::sample::select(vec![0x81u8, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a, 0xc1, 0xc2, 0x41]),
        1 => any::<u8>()
    ];
    prop::collection::vec((first, payload), 0..12).prop_map(move |frames| {
        frames.iter().flat_map(|(first, payload)| frame_for(role, *first, payload)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..300)) {
        bodies::decode(&data);
    }

    #[test]
    fn mutated_streams(data in prop::collection::vec(any::<u8>(), 0..400)) {
        bodies::mutate(&data);
    }

    #[test]
    fn header_blocks(
        data in "([A-Za-z-]{1,12}: ?[ -~]{0,40}\n|Sec-WebSocket-Extensions: [a-z_;,= \"\\\\0-9]{0,60}\n){0,8}"
    ) {
        bodies::handshake(data.as_bytes());
    }

    #[test]
    fn frames_for_a_server(choice in any::<u8>(), stream in frames(Role::Server)) {
        bodies::decode(&[&[choice & !1], &stream[..]].concat());
    }

    #[test]
    fn frames_for_a_client(choice in any::<u8>(), stream in frames(Role::Client)) {
        bodies::decode(&[&[choice | 1], &stream[..]].concat());
    }
}

/// The seeds of the corpus: for each body, streams that reach its corners.
fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (role, bit) in [(Role::Server, 0u8), (Role::Client, 1)] {
        let frame = |first, payload: &[u8]| frame_for(role, first, payload);
        let streams = [
            ("text", frame(0x81, "Hello \u{20ac}".as_bytes())),
            ("long", frame(0x82, &[b'x'; 300])),
            ("longest", [&frame(0x82, &[b'x'; 66_000])[..14], b"begin"].concat()),
            (
                "fragments",
                [frame(0x01, b"\xe2"), frame(0x89, b"?"), frame(0x80, b"\x82\xac")].concat(),
            ),
            ("invalid_text", frame(0x81, b"\xed\xa0\x80")),
            ("close", frame(0x88, b"\x03\xe8bye")),
            ("close_code", frame(0x88, b"\x03\xed")),
            (
                "deflate",
                [
                    frame(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00"),
                    frame(0xc1, b"\xf2\x00\x11\x00\x00"),
                ]
                .concat(),
            ),
            (
                "deflate_fragments",
                [frame(0x41, b"\xf2\x48\xcd"), frame(0x80, b"\xc9\xc9\x07\x00")].concat(),
            ),
            ("deflate_final", frame(0xc1, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00")),
        ];
        for (name, stream) in streams {
            seeds.push((
                format!("decode_{role:?}_{name}").to_lowercase(),
                [&[bit | 2][..], &stream].concat(),
            ));
        }
        seeds.push((
            format!("mutate_{role:?}").to_lowercase(),
            [&[bit | 0x12, 3][..], &[b'm'; 200]].concat(),
        ));
    }
    let head = "Host: a\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Extensions: permessage-deflate; \
        client_max_window_bits; server_max_window_bits=\"1\\0\"";
    seeds.push(("handshake".into(), head.into()));
    seeds
}

/// Runs every file of the corpus through the body that its name begins with, and sees that the seeds are there. With
/// `WEBSOCKET_CORPUS=write` it writes them.
#[test]
fn corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/websocket");
    for (name, bytes) in seeds() {
        let path = folder.join(&name);
        if std::env::var("WEBSOCKET_CORPUS").is_ok_and(|value| value == "write") {
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(
            std::fs::read(&path).is_ok_and(|found| found == bytes),
            "{name}: rerun with WEBSOCKET_CORPUS=write"
        );
    }
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        match entry.file_name().to_string_lossy().split('_').next() {
            Some("decode") => bodies::decode(&bytes),
            Some("mutate") => bodies::mutate(&bytes),
            Some("handshake") => bodies::handshake(&bytes),
            other => panic!("no body for {other:?}"),
        }
    }
    let outcome = bodies::differential(Role::Server, &Default::default(), Some(&DEFLATE), &[], 1);
    assert!(outcome.events.is_empty());
}
