//! Frames and messages by the sections of RFC 6455: what is taken, what is refused, and with which close code.
#![cfg(feature = "websocket")]

#[path = "support/websocket_fuzzing.rs"]
mod bodies;

use bodies::{DEFLATE, Owned, connect, feed, frame_for};
use reev::websocket::{
    CloseCode, Compress, Config, Connection, Event, Kind, ProtocolError, Role, SendError, State,
};

const ROLES: [Role; 2] = [Role::Server, Role::Client];

/// The body of the close frame in what a connection sent. A client's is masked.
fn sent_close(role: Role, out: &[u8]) -> Vec<u8> {
    let peer = if role == Role::Server { Role::Client } else { Role::Server };
    let outcome = feed(&mut connect(peer, &Config::default(), None), out, || usize::MAX);
    match outcome.events.last() {
        Some(Owned::Close(code, reason)) => {
            code.map_or(vec![], |code| [&code.to_be_bytes()[..], reason.as_bytes()].concat())
        }
        other => panic!("no close frame: {other:?}"),
    }
}

/// Feeds the stream cut everywhere, and wants the error, its close code and the state each time.
fn refused(
    role: Role,
    deflate: bool,
    config: &Config,
    stream: &[u8],
    error: ProtocolError,
    code: u16,
) {
    let params = deflate.then_some(&DEFLATE);
    let outcome = bodies::differential(role, config, params, stream, 1);
    assert_eq!(outcome.error, Some(error), "{role:?} {stream:x?}");
    assert_eq!(outcome.state, State::Done);
    assert_eq!(sent_close(role, &outcome.out)[..2], code.to_be_bytes(), "{stream:x?}");
    for cut in 1..stream.len().min(300) {
        let mut first = Some(cut);
        let split =
            feed(&mut connect(role, config, params), stream, || first.take().unwrap_or(usize::MAX));
        assert_eq!(
            (split.error, &split.events),
            (outcome.error, &outcome.events),
            "{stream:x?} at {cut}"
        );
    }
}

#[test]
fn section_5_2_headers() {
    let config = Config::default();
    for role in ROLES {
        let mask = if role == Role::Server { 0x80 } else { 0 };
        let refuse = |stream: &[u8], error| refused(role, false, &config, stream, error, 1002);
        for reserved in [0x40, 0x20, 0x10, 0x70] {
            for opcode in [0x0, 0x1, 0x2, 0x8, 0x9, 0xa] {
                refuse(&[0x80 | reserved | opcode, mask], ProtocolError::ReservedBits);
            }
        }
        for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
            refuse(&[0x80 | opcode, mask], ProtocolError::ReservedOpcode(opcode));
            refuse(&[opcode, mask], ProtocolError::ReservedOpcode(opcode));
        }
        for len in [0u16, 1, 125] {
            let [high, low] = len.to_be_bytes();
            refuse(&[0x82, mask | 126, high, low], ProtocolError::LengthNotMinimal);
        }
        for len in [0u64, 125, 126, 0xffff] {
            let long = [&[0x82, mask | 127][..], &len.to_be_bytes()].concat();
            refuse(&long, ProtocolError::LengthNotMinimal);
        }
        for len in [1u64 << 63, u64::MAX] {
            let long = [&[0x82, mask | 127][..], &len.to_be_bytes()].concat();
            refuse(&long, ProtocolError::LengthHighBit);
        }
        let wrong =
            if role == Role::Server { ProtocolError::NotMasked } else { ProtocolError::Masked };
        for opcode in [0x1, 0x2, 0x8, 0x9, 0xa] {
            refuse(&[0x80 | opcode, mask ^ 0x80], wrong);
            refuse(&[0x80 | opcode, mask ^ 0x80 | 5, 1, 2, 3, 4, 5, 6, 7, 8, 9], wrong);
        }
    }
}

#[test]
fn section_5_4_fragmentation() {
    let config = Config { fragments_max: 4, ..Config::default() };
    for role in ROLES {
        let frame = |first, payload: &[u8]| frame_for(role, first, payload);
        let refuse = |frames: &[Vec<u8>], error, code| {
            refused(role, false, &config, &frames.concat(), error, code)
        };
        for first in [0x00, 0x80] {
            refuse(&[frame(first, b"x")], ProtocolError::ContinuationUnexpected, 1002);
            refuse(
                &[frame(0x81, b"x"), frame(first, b"x")],
                ProtocolError::ContinuationUnexpected,
                1002,
            );
        }
        for first in [0x01, 0x02, 0x81, 0x82] {
            refuse(
                &[frame(0x01, b"x"), frame(first, b"x")],
                ProtocolError::ContinuationExpected,
                1002,
            );
            refuse(
                &[frame(0x02, b""), frame(0x89, b""), frame(first, b"")],
                ProtocolError::ContinuationExpected,
                1002,
            );
        }
        let many =
            [frame(2, b""), frame(0, b"a"), frame(0, b""), frame(0, b"b"), frame(0x80, b"c")];
        refuse(&many, ProtocolError::TooManyFragments, 1009);

        let stream = [
            frame(0x01, "h\u{e9}".as_bytes()),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x8a, b"pong"),
            frame(0x80, b"llo"),
            frame(0x82, b""),
            frame(0x02, b""),
            frame(0x80, b""),
        ];
        let outcome = bodies::differential(role, &config, None, &stream.concat(), 1);
        let expected = [
            Owned::Ping(b"ping".into()),
            Owned::Pong(b"pong".into()),
            Owned::Text("h\u{e9}llo".into()),
            Owned::Binary(vec![]),
            Owned::Binary(vec![]),
        ];
        assert_eq!((outcome.error, &outcome.events[..]), (None, &expected[..]));
    }
}

#[test]
fn section_5_5_control_frames() {
    let config = Config::default();
    for role in ROLES {
        let mask = if role == Role::Server { 0x80 } else { 0 };
        for opcode in [0x8, 0x9, 0xa] {
            refused(role, false, &config, &[opcode, mask], ProtocolError::ControlFragmented, 1002);
            for len in [126, 127] {
                refused(
                    role,
                    false,
                    &config,
                    &[0x80 | opcode, mask | len],
                    ProtocolError::ControlTooLong,
                    1002,
                );
            }
        }
        let longest = frame_for(role, 0x89, &[7; 125]);
        let outcome = bodies::differential(role, &config, None, &longest, 1);
        assert_eq!(outcome.events, [Owned::Ping(vec![7; 125])]);
        assert_eq!(outcome.out.len(), if role == Role::Server { 127 } else { 131 });
    }
}

#[test]
fn section_5_5_1_close_frames() {
    let config = Config::default();
    for role in ROLES {
        refused(
            role,
            false,
            &config,
            &frame_for(role, 0x88, b"\x03"),
            ProtocolError::CloseBody,
            1002,
        );
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
            let frame = frame_for(role, 0x88, &u16::to_be_bytes(code));
            refused(role, false, &config, &frame, ProtocolError::CloseCode(code), 1002);
        }
        for reason in [&b"\xff"[..], b"ok\xed\xa0\x80", b"cut \xe2\x82"] {
            let frame = frame_for(role, 0x88, &[&b"\x03\xe8"[..], reason].concat());
            refused(role, false, &config, &frame, ProtocolError::CloseReason, 1007);
        }
        for code in [
            1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999,
            4000, 4999,
        ] {
            let body = [&u16::to_be_bytes(code)[..], "bye \u{20ac}".as_bytes()].concat();
            let outcome =
                bodies::differential(role, &config, None, &frame_for(role, 0x88, &body), 1);
            assert_eq!(outcome.events, [Owned::Close(Some(code), "bye \u{20ac}".into())]);
            assert_eq!(
                (sent_close(role, &outcome.out), outcome.state),
                (code.to_be_bytes().to_vec(), State::Done)
            );
        }
        let outcome = bodies::differential(role, &config, None, &frame_for(role, 0x88, b""), 1);
        assert_eq!(
            (&outcome.events[..], outcome.state),
            (&[Owned::Close(None, String::new())][..], State::Done)
        );
        assert_eq!(sent_close(role, &outcome.out), b"");
    }
}

#[test]
fn nothing_after_the_close_frame_counts() {
    for role in ROLES {
        let after =
            [frame_for(role, 0x88, b"\x03\xe8"), frame_for(role, 0x89, b"late"), vec![0xff; 40]];
        let outcome = bodies::differential(role, &Config::default(), None, &after.concat(), 1);
        assert_eq!((outcome.error, outcome.events.len(), outcome.state), (None, 1, State::Done));
    }
}

#[test]
fn section_7_states_of_the_close_handshake() {
    let mut out = Vec::new();
    let mut ours = Connection::new(Role::Server, &Config::default(), None);
    assert_eq!((ours.state(), ours.sender().close_code()), (State::Open, None));
    ours.sender().close(CloseCode::GOING_AWAY, "bye", &mut out).unwrap();
    assert_eq!((out.as_slice(), ours.state()), (&b"\x88\x05\x03\xe9bye"[..], State::CloseSent));
    assert_eq!(ours.sender().text("late", &mut out), Err(SendError::Closed));
    assert_eq!(ours.sender().ping(b"", &mut out), Err(SendError::Closed));
    assert_eq!(ours.sender().close(CloseCode::NORMAL, "", &mut out), Err(SendError::Closed));
    // Messages still arrive, pings are no longer answered, and the peer's close ends it.
    let answer = [
        frame_for(Role::Server, 0x81, b"m"),
        frame_for(Role::Server, 0x89, b""),
        frame_for(Role::Server, 0x88, b""),
    ];
    let outcome = feed(&mut ours, &answer.concat(), || usize::MAX);
    let expected =
        [Owned::Text("m".into()), Owned::Ping(vec![]), Owned::Close(None, String::new())];
    assert_eq!(
        (&outcome.events[..], &outcome.out[..], outcome.state),
        (&expected[..], &b""[..], State::Done)
    );
    assert_eq!(ours.sender().close_code(), Some(CloseCode::GOING_AWAY));

    // The user answers: until then it may send.
    let manual = Config { answer_close: false, answer_pings: false, ..Config::default() };
    let mut theirs = Connection::new(Role::Server, &manual, None);
    let stream = [frame_for(Role::Server, 0x89, b"?"), frame_for(Role::Server, 0x88, b"")].concat();
    let outcome = feed(&mut theirs, &stream, || usize::MAX);
    assert_eq!((outcome.out.len(), outcome.state), (0, State::CloseReceived));
    out.clear();
    theirs.sender().text("last", &mut out).unwrap();
    theirs.sender().close(CloseCode::NORMAL, "", &mut out).unwrap();
    assert_eq!(
        (out.as_slice(), theirs.state()),
        (&b"\x81\x04last\x88\x02\x03\xe8"[..], State::Done)
    );
    assert_eq!(theirs.sender().close_code(), Some(CloseCode::NO_STATUS));
}

#[test]
fn what_may_not_be_sent_is_refused() {
    let mut out = Vec::new();
    for role in ROLES {
        let mut connection = Connection::new(role, &Config::default(), None);
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000] {
            let refusal = connection.sender().close(CloseCode(code), "", &mut out);
            assert_eq!(refusal, Err(SendError::CloseCode(code)));
        }
        assert_eq!(connection.sender().ping(&[0; 126], &mut out), Err(SendError::ControlTooLong));
        assert_eq!(connection.sender().pong(&[0; 126], &mut out), Err(SendError::ControlTooLong));
        assert_eq!((out.len(), connection.state()), (0, State::Open));
    }
}

#[test]
fn section_10_4_size_limits() {
    let config = Config { message_max: 1000, ..Config::default() };
    for role in ROLES {
        let frame = |first, len| frame_for(role, first, &vec![b'x'; len]);
        let refuse = |stream: Vec<u8>| {
            refused(role, false, &config, &stream, ProtocolError::MessageTooBig, 1009)
        };
        let outcome = bodies::differential(role, &config, None, &frame(0x81, 1000), 1);
        assert_eq!((outcome.error, outcome.events.len()), (None, 1));
        for kind in [0x01, 0x02] {
            refuse(frame(0x80 | kind, 1001));
            refuse([frame(kind, 600), frame(0x00, 300), frame(0x80, 101)].concat());
            // Declared is enough: nothing of it has to arrive.
            refuse(frame(0x80 | kind, 1001)[..if role == Role::Server { 8 } else { 4 }].to_vec());
            let huge = [
                &[0x80 | kind, if role == Role::Server { 255 } else { 127 }][..],
                &i64::MAX.to_be_bytes(),
            ];
            refuse([&huge.concat()[..], &[0; 4]].concat());
        }
    }
}

#[test]
fn a_message_in_many_fragments_and_of_many_bytes() {
    let config = Config { message_max: 64 << 20, ..Config::default() };
    let mut many = frame_for(Role::Server, 0x01, b"a");
    for _ in 0..99_998 {
        many.extend(frame_for(Role::Server, 0x00, "\u{e9}".as_bytes()));
    }
    many.extend(frame_for(Role::Server, 0x80, b"z"));
    let expected = Owned::Text(format!("a{}z", "\u{e9}".repeat(99_998)));
    for size in [1, 7, 65536, usize::MAX] {
        let outcome = feed(&mut connect(Role::Server, &config, None), &many, || size);
        assert_eq!((outcome.error, outcome.events.len()), (None, 1));
        assert!(outcome.events[0] == expected);
    }

    let payload: Vec<u8> = (0..64usize << 20).map(|i| (i >> 3) as u8).collect();
    let sending = Config { fragment_size: Some(payload.len().div_ceil(100_000)), ..config.clone() };
    let mut stream = Vec::new();
    connect(Role::Client, &sending, None).sender().binary(&payload, &mut stream).unwrap();
    let outcome = feed(&mut connect(Role::Server, &config, None), &stream, || 65536);
    assert!(outcome.error.is_none() && outcome.events == [Owned::Binary(payload)]);
}

/// Byte by byte, one frame of a mebibyte: work in proportion to the bytes, or this test never ends.
#[test]
fn a_large_frame_byte_by_byte() {
    let payload = vec![b'x'; 1 << 20];
    for first in [0x81, 0x82] {
        let stream = frame_for(Role::Server, first, &payload);
        let outcome = feed(&mut connect(Role::Server, &Config::default(), None), &stream, || 1);
        assert_eq!((outcome.error, outcome.events.len()), (None, 1));
    }
}

#[test]
fn a_whole_message_is_a_slice_of_the_data() {
    for first in [0x81, 0x82] {
        for len in [0, 1, 125, 126, 65535, 65536] {
            let mut data = frame_for(Role::Server, first, &vec![b'x'; len]);
            let range = data.as_ptr_range();
            let mut connection = connect(Role::Server, &Config::default(), None);
            let mut out = Vec::new();
            let step = connection.step(&mut data, &mut out).unwrap();
            let message = match step.event {
                Some(Event::Text(text)) => text.as_bytes(),
                Some(Event::Binary(bytes)) => bytes,
                other => panic!("{other:?}"),
            };
            assert_eq!(message.len(), len);
            assert!(range.contains(&message.as_ptr()) || len == 0);
        }
    }
}

#[test]
fn fragments_are_sent_by_size() {
    let config = Config { fragment_size: Some(3), ..Config::default() };
    let mut server = Connection::new(Role::Server, &config, None);
    let mut out = Vec::new();
    server.sender().text("abcdefgh", &mut out).unwrap();
    assert_eq!(out, b"\x01\x03abc\x00\x03def\x80\x02gh");
    out.clear();
    server.sender().message(Kind::Binary, b"abc", Compress::Always, &mut out).unwrap();
    assert_eq!(out, b"\x82\x03abc");
    let header = server.sender().plain_header(Kind::Text, 300).unwrap().unwrap();
    assert_eq!(*header, *b"\x81\x7e\x01\x2c");
    let mut client = Connection::new(Role::Client, &config, None);
    assert!(client.sender().plain_header(Kind::Text, 300).unwrap().is_none());
}

#[test]
fn the_examples_of_section_5_7() {
    let config = Config::default();
    let server = |stream: &[u8]| bodies::differential(Role::Server, &config, None, stream, 1);
    let client = |stream: &[u8]| bodies::differential(Role::Client, &config, None, stream, 1);
    let hello = [Owned::Text("Hello".into())];
    assert_eq!(client(b"\x81\x05Hello").events, hello);
    assert_eq!(server(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58").events, hello);
    assert_eq!(client(b"\x01\x03Hel\x80\x02lo").events, hello);
    assert_eq!(client(b"\x89\x05Hello").events, [Owned::Ping(b"Hello".into())]);
    assert_eq!(
        server(b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58").events,
        [Owned::Pong(b"Hello".into())]
    );
    let long = [&b"\x82\x7e\x01\x00"[..], &[9; 256]].concat();
    assert_eq!(client(&long).events, [Owned::Binary(vec![9; 256])]);
    let longer = [&b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"[..], &[9; 65536]].concat();
    assert_eq!(client(&longer).events, [Owned::Binary(vec![9; 65536])]);
}
