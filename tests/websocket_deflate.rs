//! permessage-deflate by RFC 7692: its examples, its limits, its contexts.
#![cfg(feature = "websocket")]

#[path = "support/websocket_fuzzing.rs"]
mod bodies;
#[path = "support/websocket_inflate.rs"]
mod inflate;

use bodies::{DEFLATE, Owned, connect, feed, frame_for};
use reev::websocket::{
    Compress, Config, DeflateConfig, DeflateParams, Kind, Prepared, ProtocolError, Role, SendError,
};

const ROLES: [Role; 2] = [Role::Server, Role::Client];
const FORGETFUL: DeflateParams =
    DeflateParams { server_no_context_takeover: true, client_no_context_takeover: true, ..DEFLATE };

fn taken(role: Role, params: &DeflateParams, stream: &[u8]) -> Vec<Owned> {
    let outcome = bodies::differential(role, &Config::default(), Some(params), stream, 1);
    assert_eq!(outcome.error, None, "{stream:x?}");
    outcome.events
}

#[test]
fn the_examples_of_section_7_2_3() {
    let hello = Owned::Text("Hello".into());
    for role in ROLES {
        let frame = |first, payload: &[u8]| frame_for(role, first, payload);
        // One block; in two fragments, of which only the first has RSV1; stored; final; two blocks.
        let one = frame(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00");
        let fragments = [frame(0x41, b"\xf2\x48\xcd"), frame(0x80, b"\xc9\xc9\x07\x00")].concat();
        let stored = frame(0xc1, b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00");
        let last = frame(0xc1, b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00");
        let two = frame(0xc1, b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00");
        for stream in [&one, &fragments, &stored, &last, &two] {
            assert_eq!(taken(role, &DEFLATE, stream), std::slice::from_ref(&hello));
            assert_eq!(taken(role, &FORGETFUL, &stream.repeat(3)), vec![hello.clone(); 3]);
        }
        // The second message refers back to the first.
        let context = [one.clone(), frame(0xc1, b"\xf2\x00\x11\x00\x00")].concat();
        assert_eq!(taken(role, &DEFLATE, &context), [hello.clone(), hello.clone()]);
        let lost = bodies::differential(role, &Config::default(), Some(&FORGETFUL), &context, 1);
        assert_eq!(lost.error, Some(ProtocolError::Inflate));
        // Empty messages, also one without any byte, and plain ones between.
        let mixed = [frame(0xc1, b"\x00"), frame(0x81, b"plain"), frame(0xc2, b""), one].concat();
        let expected = [
            Owned::Text("".into()),
            Owned::Text("plain".into()),
            Owned::Binary(vec![]),
            hello.clone(),
        ];
        assert_eq!(taken(role, &DEFLATE, &mixed), expected);
    }
}

#[test]
fn section_6_reserved_bits_and_bad_data() {
    for role in ROLES {
        let refused = |stream: &[u8]| {
            let outcome = bodies::differential(role, &Config::default(), Some(&DEFLATE), stream, 1);
            outcome.error.expect("it is refused")
        };
        let frame = |first, payload: &[u8]| frame_for(role, first, payload);
        for opcode in [0x8, 0x9, 0xa] {
            assert_eq!(refused(&frame(0xc0 | opcode, b"")), ProtocolError::ReservedBits);
        }
        let continued = [frame(0x41, b"\xf2\x48\xcd"), frame(0xc0, b"\xc9\xc9\x07\x00")].concat();
        assert_eq!(refused(&continued), ProtocolError::ReservedBits);
        assert_eq!(refused(&frame(0xe1, b"\x00")), ProtocolError::ReservedBits);
        for wrong in
            [&b"\xff\xff\xff"[..], b"\x06\x00", b"\x00\x05\x00\x05\x00hello", b"\x02\x00\x11\x00"]
        {
            assert_eq!(refused(&frame(0xc2, wrong)), ProtocolError::Inflate, "{wrong:x?}");
        }
    }
}

#[test]
fn a_bomb_is_refused_within_bounds() {
    let config = Config { message_max: 100_000, ..Config::default() };
    for role in ROLES {
        let sender = if role == Role::Server { Role::Client } else { Role::Server };
        for (len, refused) in [(100_000, false), (100_001, true), (50 << 20, true)] {
            for fragment_size in [None, Some(100)] {
                let sending = Config { fragment_size, ..Config::default() };
                let mut stream = Vec::new();
                connect(sender, &sending, Some(&DEFLATE))
                    .sender()
                    .binary(&vec![0; len], &mut stream)
                    .unwrap();
                assert!(stream.len() < len / 20);
                let outcome = bodies::differential(role, &config, Some(&DEFLATE), &stream, 1);
                assert_eq!(outcome.error, refused.then_some(ProtocolError::MessageTooBig));
                assert_eq!(
                    outcome.error.map(|error| error.close_code().0),
                    refused.then_some(1009)
                );
            }
        }
        // Blocks of nothing, for ever.
        let endless =
            [frame_for(role, 0x42, &b"\x00\x00\x00\xff\xff".repeat(1000)).as_slice()].concat();
        let more = frame_for(role, 0x00, &b"\x00\x00\x00\xff\xff".repeat(1000));
        let stream = [&endless[..], &more.repeat(99)].concat();
        let outcome = feed(&mut connect(role, &config, Some(&DEFLATE)), &stream, || 65536);
        assert_eq!(outcome.error, Some(ProtocolError::MessageTooBig));
    }
}

#[test]
fn compression_is_per_message() {
    let config = Config {
        deflate: Some(DeflateConfig { threshold: 50, ..Default::default() }),
        ..Config::default()
    };
    let mut server = connect(Role::Server, &config, Some(&DEFLATE));
    let mut sent = |len, compress| {
        let mut out = Vec::new();
        server.sender().message(Kind::Text, &vec![b'x'; len], compress, &mut out).unwrap();
        out[0]
    };
    assert_eq!(
        [sent(49, Compress::Auto), sent(50, Compress::Auto), sent(500, Compress::Never)],
        [0x81, 0xc1, 0x81]
    );
    assert_eq!(
        [sent(1, Compress::Always), sent(0, Compress::Always), sent(0, Compress::Auto)],
        [0xc1, 0x81, 0x81]
    );
    // What does not shrink goes as it is, unless the peer's window must see it.
    let noise: Vec<u8> = (0..256u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
    let mut out = Vec::new();
    connect(Role::Server, &config, Some(&FORGETFUL)).sender().binary(&noise, &mut out).unwrap();
    assert_eq!(out[0], 0x82);
}

/// Text with repeats at every distance.
fn varied(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut text: Vec<u8> = Vec::with_capacity(len + 300);
    while text.len() < len {
        if rng.bool() && !text.is_empty() {
            let reach = 1 << rng.u32(1..16);
            let from = text.len() - 1 - rng.usize(..text.len().min(reach));
            let count = rng.usize(1..260).min(text.len() - from);
            text.extend_from_within(from..from + count);
        } else {
            text.extend((0..rng.usize(1..20)).map(|_| rng.alphanumeric() as u8));
        }
    }
    text
}

/// The compressor for 8 bits works with 9; an inflater that measures finds no reference beyond 2^bits.
#[test]
fn windows_are_kept_at_every_level() {
    for bits in 8..=15 {
        for level in 0..=9 {
            let deflate = DeflateConfig { level, threshold: 1, ..DeflateConfig::default() };
            let config = Config { deflate: Some(deflate), ..Config::default() };
            let params = DeflateParams {
                server_max_window_bits: bits,
                client_max_window_bits: bits,
                ..DEFLATE
            };
            let mut sender = connect(Role::Server, &config, Some(&params));
            let (mut history, mut farthest) = (Vec::new(), 0);
            for round in 0..4 {
                let message = varied(if round == 0 { 70_000 } else { 3_000 }, round);
                let mut out = Vec::new();
                sender.sender().binary(&message, &mut out).unwrap();
                assert_eq!(out[0], 0xc2);
                let header = match out[1] {
                    127 => 10,
                    126 => 4,
                    _ => 2,
                };
                let begin = history.len();
                let payload = [&out[header..], b"\x00\x00\xff\xff"].concat();
                farthest = farthest.max(inflate::inflate(&payload, &mut history));
                assert!(history[begin..] == message);
            }
            assert!(farthest <= 1 << bits, "bits {bits}, level {level}: {farthest}");
            assert!(
                level == 0 || bits == 8 || farthest > 1 << (bits - 2),
                "bits {bits}, level {level}: {farthest}"
            );
        }
    }
}

/// RFC 7692 section 7.1.1: without context takeover no message refers to one before, of its own connection or of
/// another that used the compressor in between.
#[test]
fn without_takeover_each_message_stands_alone() {
    let deflate = DeflateConfig { threshold: 1, ..DeflateConfig::default() };
    let config = Config { deflate: Some(deflate), ..Config::default() };
    let text = "said before, here or elsewhere; ".repeat(10);
    for role in ROLES {
        let mut both = [0, 1].map(|_| connect(role, &config, Some(&FORGETFUL)));
        let peer = if role == Role::Server { Role::Client } else { Role::Server };
        for round in 0..6 {
            let mut frame = Vec::new();
            both[round % 2].sender().text(&text, &mut frame).unwrap();
            assert_eq!(frame[0], 0xc1);
            assert_eq!(taken(peer, &FORGETFUL, &frame), [Owned::Text(text.clone())]);
        }
    }
}

#[test]
fn prepared_messages() {
    let text = "a message for everyone, everyone, everyone ".repeat(3);
    let plain = Prepared::text(&text);
    let both = Prepared::with_deflate(Kind::Text, text.as_bytes(), 6);
    let config = Config::default();
    let mut bare = connect(Role::Server, &config, None);
    assert_eq!(bare.sender().prepared(&both).unwrap(), plain.plain());
    assert_eq!(plain.plain()[..4], *b"\x81\x7e\x00\x81");
    let mut narrow = connect(
        Role::Server,
        &config,
        Some(&DeflateParams { server_max_window_bits: 8, ..DEFLATE }),
    );
    assert_eq!(narrow.sender().prepared(&both).unwrap()[0], 0xc1);
    let long = Prepared::with_deflate(Kind::Binary, &varied(5_000, 1), 6);
    assert_eq!(narrow.sender().prepared(&long).unwrap()[0], 0x82);
    // It refers back 280 bytes, which the compressor's window of 9 bits would hold and the peer's of 8 does not.
    let far = [&b"begin again"[..], &[b'-'; 269], b"begin again"].concat();
    let far = Prepared::with_deflate(Kind::Binary, &far, 6);
    assert_eq!(narrow.sender().prepared(&far).unwrap()[0], 0x82);
    let params = DeflateParams { server_max_window_bits: 9, ..DEFLATE };
    let mut wider = connect(Role::Server, &config, Some(&params));
    assert_eq!(wider.sender().prepared(&far).unwrap()[0], 0xc2);
    assert_eq!(Prepared::with_deflate(Kind::Text, b"", 6).plain()[..], *b"\x81\x00");

    let mut client = connect(Role::Client, &config, Some(&DEFLATE));
    assert_eq!(client.sender().prepared(&both), Err(SendError::ClientRole));
    let mut closed = connect(Role::Server, &config, None);
    closed.sender().close(reev::websocket::CloseCode::NORMAL, "", &mut Vec::new()).unwrap();
    assert_eq!(closed.sender().prepared(&both), Err(SendError::Closed));

    // Between messages with context: the two windows no longer agree, and so the next message must not refer back.
    let mut server = connect(Role::Server, &config, Some(&DEFLATE));
    let mut stream = Vec::new();
    for _ in 0..3 {
        server.sender().text(&text, &mut stream).unwrap();
        stream.extend_from_slice(server.sender().prepared(&both).unwrap());
        server.sender().text(&text, &mut stream).unwrap();
    }
    assert_eq!(taken(Role::Client, &DEFLATE, &stream), vec![Owned::Text(text); 9]);
}
