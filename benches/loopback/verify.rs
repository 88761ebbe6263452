//! Whether a server answers rightly, byte for byte, before its speed means anything.

use crate::websocket::{self, BINARY, CLOSE, PING, PONG};
use crate::workload::{self, Protocol, REQUEST, Workload, pattern};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, SystemTime};

const TIMEOUT: Duration = Duration::from_secs(10);
const FLOOD_SIZE: usize = 8 * 1024 * 1024;
const HEADERS_MAX: usize = 16;
/// From each socket at once, of 0 to the most bytes that fit into a frame of Ethernet.
const DATAGRAMS: usize = 24;
const DATAGRAM_MAX: usize = 1472;
/// The payload of a close frame: code 1000.
const NORMAL: [u8; 2] = [3, 232];

/// Asks twice on one connection, and returns the size of the answer to one request of the workload.
pub fn probe(addr: SocketAddr, workload: &Workload) -> io::Result<usize> {
    match workload.protocol {
        Protocol::Relay => {
            let backend = TcpListener::bind(workload::backend(addr))?;
            let (mut near, mut far) = workload::tunnel(addr, &backend)?;
            far.set_read_timeout(Some(TIMEOUT))?;
            near.write_all(&workload.request(1))?;
            return expect_bytes(&mut far, &workload.request(1));
        }
        Protocol::Datagram => {
            return datagrams(addr, &[workload.message]).map(|()| workload.message);
        }
        _ => {}
    }
    let mut stream = connect(addr, workload)?;
    let mut size = 0;
    for salt in [1, 2] {
        stream.write_all(&workload.request(salt))?;
        size = expect_answer(&mut stream, workload, salt)?;
    }
    Ok(size)
}

/// What is seldom and must be right all the same: requests cut anywhere, a reader so slow that output is stuck, and a
/// FIN while output is on its way.
pub fn thorough(addr: SocketAddr, workload: &Workload) -> io::Result<()> {
    match workload.protocol {
        Protocol::Relay => return relay(addr).map_err(|e| named("a proxy", e)),
        Protocol::Datagram => {
            let sizes: Vec<usize> =
                (0..DATAGRAMS).map(|i| i * DATAGRAM_MAX / (DATAGRAMS - 1)).collect();
            return datagrams(addr, &sizes).map_err(|e| named("datagrams of all sizes", e));
        }
        _ => {}
    }
    cut(addr, workload).map_err(|e| named("requests in pieces", e))?;
    if workload.protocol == Protocol::Broadcast {
        return broadcast(addr, workload).map_err(|e| named("several members", e));
    }
    if workload.protocol == Protocol::WebSocket {
        frames(addr, workload).map_err(|e| named("fragments and control frames", e))?;
    }
    flood(addr, workload).map_err(|e| named("a slow reader", e))
}

fn named(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn connect(addr: SocketAddr, workload: &Workload) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    workload.open(&mut stream)?;
    Ok(stream)
}

fn cut(addr: SocketAddr, workload: &Workload) -> io::Result<()> {
    let mut stream = connect(addr, workload)?;
    let request = workload.request(3);
    let last = request.len();
    for at in [1, last / 2, last - 3, last - 2, last - 1] {
        for piece in [&request[..at], &request[at..]] {
            stream.write_all(piece)?;
            thread::sleep(Duration::from_millis(1));
        }
        expect_answer(&mut stream, workload, 3)?;
    }
    Ok(())
}

fn flood(addr: SocketAddr, workload: &Workload) -> io::Result<()> {
    let mut stream = connect(addr, workload)?;
    let writer = stream.try_clone()?;
    let flood = Flood::new(workload);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            (&writer).write_all(&flood.input)?;
            if flood.end != End::Fin {
                return Ok(());
            }
            writer.shutdown(Shutdown::Write)
        });
        thread::sleep(Duration::from_millis(100));
        match &flood.output {
            Some(output) => expect_bytes(&mut stream, output)?,
            None => expect_responses(&mut stream, FLOOD_SIZE / REQUEST.len())?,
        };
        writing.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))?;
        if flood.end == End::FinAfterAnswer {
            stream.shutdown(Shutdown::Write)?;
        }
        expect_end(&mut stream)
    })
}

/// Much in both directions at once, with readers that are slow; and then one direction ends before the other.
fn relay(addr: SocketAddr) -> io::Result<()> {
    let backend = TcpListener::bind(workload::backend(addr))?;
    let (near, far) = workload::tunnel(addr, &backend)?;
    let (there, back) = (pattern(FLOOD_SIZE, 7), pattern(FLOOD_SIZE, 8));
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
    }
    let write = |mut stream: &TcpStream, data: &[u8]| {
        stream.write_all(data)?;
        stream.shutdown(Shutdown::Write)
    };
    thread::scope(|scope| {
        let sending = scope.spawn(|| write(&near, &there));
        let answering = scope.spawn(|| (&far).write_all(&back));
        let reading = scope.spawn(|| {
            thread::sleep(Duration::from_millis(50));
            expect_bytes(&mut &near, &back)
        });
        thread::sleep(Duration::from_millis(100));
        expect_bytes(&mut &far, &there)?;
        expect_end(&mut &far)?;
        let panicked = || io::Error::other("a thread panicked");
        sending.join().map_err(|_| panicked())??;
        answering.join().map_err(|_| panicked())??;
        reading.join().map_err(|_| panicked())??;
        write(&far, &back)?;
        expect_bytes(&mut &near, &back)?;
        expect_end(&mut &near)
    })
}

/// Datagrams of these sizes from three sockets, each of which gets its own back, in order.
fn datagrams(addr: SocketAddr, sizes: &[usize]) -> io::Result<()> {
    let sockets = (0..3).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
    let sockets = sockets.collect::<io::Result<Vec<_>>>()?;
    for (salt, socket) in sockets.iter().enumerate() {
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.connect(addr)?;
        for &size in sizes {
            socket.send(&pattern(size, salt))?;
        }
    }
    let mut answer = [0; DATAGRAM_MAX + 1];
    for (salt, socket) in sockets.iter().enumerate() {
        for &size in sizes {
            let length = socket.recv(&mut answer)?;
            if answer[..length] != pattern(size, salt) {
                return Err(invalid(&format!(
                    "{length} B came back, not the {size} B that were sent"
                )));
            }
        }
    }
    Ok(())
}

fn expect_end(stream: &mut impl Read) -> io::Result<()> {
    match stream.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(invalid("more than was asked for")),
    }
}

/// What one member sends, however much and however slowly the others read, comes to all; and leaving members are no
/// hindrance.
fn broadcast(addr: SocketAddr, workload: &Workload) -> io::Result<()> {
    let mut members =
        (0..3).map(|_| connect(addr, workload)).collect::<io::Result<Vec<TcpStream>>>()?;
    drop(connect(addr, workload)?);
    let mut publisher = connect(addr, workload)?;
    let writer = publisher.try_clone()?;
    let messages = pattern(FLOOD_SIZE, 6);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            (&writer).write_all(&messages)?;
            writer.shutdown(Shutdown::Write)
        });
        let publishing = scope.spawn(|| {
            expect_bytes(&mut publisher, &messages)?;
            expect_end(&mut publisher)
        });
        thread::sleep(Duration::from_millis(100));
        for member in &mut members {
            expect_bytes(member, &messages)?;
        }
        for part in [publishing, writing] {
            part.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))?;
        }
        Ok(())
    })
}

/// Much more than buffers hold, in both directions.
struct Flood {
    input: Vec<u8>,
    /// `None`: responses.
    output: Option<Vec<u8>>,
    end: End,
}

#[derive(PartialEq, Eq)]
enum End {
    /// A FIN while output is on its way.
    Fin,
    /// A FIN once all is answered: a server that answers later, from elsewhere, cannot know that more will come.
    FinAfterAnswer,
    /// It is in the input.
    CloseFrame,
}

impl Flood {
    fn new(workload: &Workload) -> Flood {
        match workload.protocol {
            Protocol::Http => {
                let input = REQUEST.repeat(FLOOD_SIZE / REQUEST.len());
                Flood { input, output: None, end: End::Fin }
            }
            Protocol::WebSocket => {
                let count = FLOOD_SIZE / workload.message;
                let mut input = workload.request(4).repeat(count);
                input.extend(websocket::masked(CLOSE, &NORMAL));
                let mut output =
                    websocket::unmasked(BINARY, &pattern(workload.message, 4)).repeat(count);
                output.extend(websocket::unmasked(CLOSE, &NORMAL));
                Flood { input, output: Some(output), end: End::CloseFrame }
            }
            protocol => {
                let input = pattern(FLOOD_SIZE, 4);
                let late = protocol == Protocol::Offload;
                let end = if late { End::FinAfterAnswer } else { End::Fin };
                Flood { output: Some(input.clone()), input, end }
            }
        }
    }
}

/// A message in three fragments with a ping between them, and an empty one.
fn frames(addr: SocketAddr, workload: &Workload) -> io::Result<()> {
    let mut stream = connect(addr, workload)?;
    let message = pattern(workload.message, 5);
    let (first, rest) = message.split_at(workload.message / 3);
    let (second, third) = rest.split_at(workload.message / 3);
    let sent = [
        websocket::fragment(BINARY, first),
        websocket::masked(PING, b"between"),
        websocket::fragment(0, second),
        websocket::masked(0, third),
        websocket::masked(BINARY, b""),
    ];
    stream.write_all(&sent.concat())?;
    expect_bytes(&mut stream, &websocket::unmasked(PONG, b"between"))?;
    expect_bytes(&mut stream, &websocket::unmasked(BINARY, &message))?;
    expect_bytes(&mut stream, &websocket::unmasked(BINARY, b"")).map(drop)
}

/// Returns the size of the answer.
fn expect_answer(stream: &mut TcpStream, workload: &Workload, salt: usize) -> io::Result<usize> {
    match workload.answer(salt) {
        Some(answer) => expect_bytes(stream, &answer),
        None => expect_responses(stream, workload.depth),
    }
}

fn expect_bytes(stream: &mut impl Read, wanted: &[u8]) -> io::Result<usize> {
    let mut answer = vec![0; wanted.len()];
    stream.read_exact(&mut answer)?;
    match answer.iter().zip(wanted).position(|(got, wanted)| got != wanted) {
        None => Ok(answer.len()),
        Some(at) => {
            Err(invalid(&format!("byte {at} of {} is not what it should be", wanted.len())))
        }
    }
}

/// Returns the bytes of the `count` responses, which must all be of one size.
fn expect_responses(stream: &mut TcpStream, count: usize) -> io::Result<usize> {
    let mut input = Vec::new();
    let mut buffer = [0; 4096];
    let size = loop {
        if let Some(size) = response_size(&input)? {
            break size;
        }
        match stream.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => input.extend_from_slice(&buffer[..length]),
        }
    };
    let read = input.len();
    if read > size * count {
        return Err(invalid("more than was asked for"));
    }
    input.resize(size * count, 0);
    stream.read_exact(&mut input[read..])?;
    for response in input.chunks_exact(size) {
        if response_size(response)? != Some(size) {
            return Err(invalid("responses of different sizes"));
        }
    }
    Ok(input.len())
}

/// The bytes of the first response in `input`, once they are all there.
fn response_size(input: &[u8]) -> io::Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(input).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
    let httparse::Status::Complete(head) = parsed else { return Ok(None) };
    if response.code != Some(200) {
        return Err(invalid(&format!("status {:?}", response.code)));
    }
    let field = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        let value = header.and_then(|header| str::from_utf8(header.value).ok());
        value.ok_or_else(|| invalid(&format!("no {name} in the response")))
    };
    field("Server")?;
    field("Content-Type")?;
    let date =
        httpdate::parse_http_date(field("Date")?).map_err(|_| invalid("the Date is no date"))?;
    if SystemTime::now().duration_since(date).unwrap_or_default() > Duration::from_secs(3) {
        return Err(invalid("the Date is stale"));
    }
    let length =
        field("Content-Length")?.parse().map_err(|_| invalid("the Content-Length is no number"))?;
    match input[head..].get(..length) {
        None => Ok(None),
        Some(b"Hello, World!") => Ok(Some(head + length)),
        Some(_) => Err(invalid("the body is not the plaintext")),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
