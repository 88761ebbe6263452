//! Whether a server answers rightly, byte for byte, before its speed means anything.

use crate::workload::{Protocol, REQUEST, Workload, pattern};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime};

const TIMEOUT: Duration = Duration::from_secs(10);
const FLOOD_SIZE: usize = 8 * 1024 * 1024;
const HEADERS_MAX: usize = 16;

/// Asks twice on one connection, and returns the size of the answer to one request of the workload.
pub fn probe(addr: SocketAddr, workload: &Workload) -> io::Result<usize> {
    let mut stream = connect(addr)?;
    let mut size = 0;
    for salt in [1, 2] {
        let request = workload.request(salt);
        stream.write_all(&request)?;
        size = match workload.protocol {
            Protocol::Echo => expect_echo(&mut stream, &request)?,
            Protocol::Http => expect_responses(&mut stream, workload.depth)?,
        };
    }
    Ok(size)
}

/// What is seldom and must be right all the same: requests cut anywhere, a reader so slow that output is stuck, and a
/// FIN while output is on its way.
pub fn thorough(addr: SocketAddr, workload: &Workload) -> io::Result<()> {
    cut(addr, workload).map_err(|e| named("requests in pieces", e))?;
    flood(addr, workload).map_err(|e| named("a slow reader", e))
}

fn named(what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn cut(addr: SocketAddr, workload: &Workload) -> io::Result<()> {
    let mut stream = connect(addr)?;
    let request = workload.request(3);
    let last = request.len();
    for at in [1, last / 2, last - 3, last - 2, last - 1] {
        for piece in [&request[..at], &request[at..]] {
            stream.write_all(piece)?;
            thread::sleep(Duration::from_millis(1));
        }
        match workload.protocol {
            Protocol::Echo => expect_echo(&mut stream, &request)?,
            Protocol::Http => expect_responses(&mut stream, workload.depth)?,
        };
    }
    Ok(())
}

fn flood(addr: SocketAddr, workload: &Workload) -> io::Result<()> {
    let mut stream = connect(addr)?;
    let writer = stream.try_clone()?;
    let count = FLOOD_SIZE / REQUEST.len();
    let request = match workload.protocol {
        Protocol::Echo => pattern(FLOOD_SIZE, 4),
        Protocol::Http => REQUEST.repeat(count),
    };
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            (&writer).write_all(&request)?;
            writer.shutdown(Shutdown::Write)
        });
        thread::sleep(Duration::from_millis(100));
        match workload.protocol {
            Protocol::Echo => expect_echo(&mut stream, &request)?,
            Protocol::Http => expect_responses(&mut stream, count)?,
        };
        writing.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))?;
        match stream.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(invalid("more than was asked for")),
        }
    })
}

fn expect_echo(stream: &mut TcpStream, request: &[u8]) -> io::Result<usize> {
    let mut answer = vec![0; request.len()];
    stream.read_exact(&mut answer)?;
    match answer.iter().zip(request).position(|(got, wanted)| got != wanted) {
        None => Ok(answer.len()),
        Some(at) => Err(invalid(&format!("byte {at} of {} is not what was sent", request.len()))),
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
