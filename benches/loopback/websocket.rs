//! The client's half of WebSocket, by hand: the handshake, and frames as RFC 6455 section 5 draws them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;

/// Four different bytes, so that one applied at the wrong place shows.
const KEY: [u8; 4] = [0x5a, 0x01, 0xc3, 0x7e];

/// With the nonce of RFC 6455 section 1.3, whose answer the RFC tells.
const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\n\
    Host: bench\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const RESPONSE_MAX: usize = 4096;
const HEADERS_MAX: usize = 16;

/// Turns a fresh connection into a WebSocket.
pub fn open(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(UPGRADE)?;
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        let mut buffer = [0; RESPONSE_MAX];
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => response.extend_from_slice(&buffer[..length]),
        }
        if response.len() > RESPONSE_MAX {
            return Err(refused("a long response"));
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    parsed.parse(&response).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
    let accepted = parsed.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("Sec-WebSocket-Accept")
            && header.value == ACCEPT.as_bytes()
    });
    match (parsed.code, accepted) {
        (Some(101), true) => Ok(()),
        (Some(101), false) => Err(refused("a wrong Sec-WebSocket-Accept")),
        (code, _) => Err(refused(&format!("status {code:?}"))),
    }
}

fn refused(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the upgrade was answered with {what}"))
}

/// A whole message in one frame, as a client must send it.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    fragment(FIN | opcode, payload)
}

/// A frame whose first byte is given.
pub fn fragment(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, MASKED, payload.len());
    frame.extend_from_slice(&KEY);
    frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// The same message as a server must send it.
pub fn unmasked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(FIN | opcode, 0, payload.len());
    frame.extend_from_slice(payload);
    frame
}

fn header(first: u8, masked: u8, length: usize) -> Vec<u8> {
    let mut header = vec![first];
    if length < 126 {
        header.push(masked | length as u8);
    } else if let Ok(length) = u16::try_from(length) {
        header.push(masked | 126);
        header.extend_from_slice(&length.to_be_bytes());
    } else {
        header.push(masked | 127);
        header.extend_from_slice(&(length as u64).to_be_bytes());
    }
    header
}
