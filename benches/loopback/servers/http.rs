//! The plaintext response, the same bytes from every server, and the answer to parsed requests.

use httparse::{Header, Request, Status};
use std::io;
use std::mem::MaybeUninit;
use std::time::{SystemTime, UNIX_EPOCH};

/// `copies` of the response in one block, so that a server which only counts can send many at once.
pub struct Response {
    block: Vec<u8>,
    size: usize,
    second: u64,
}

const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
const HEADERS_MAX: usize = 16;

impl Response {
    pub fn new(copies: usize) -> Response {
        let mut response = Response { block: Vec::new(), size: 0, second: 0 };
        let one = Response::text(SystemTime::now());
        response.size = one.len();
        response.block = one.repeat(copies);
        response
    }

    fn text(now: SystemTime) -> Vec<u8> {
        let date = httpdate::fmt_http_date(now);
        format!(
            "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: {date}\r\nContent-Type: text/plain\r\n\
             Content-Length: 13\r\n\r\nHello, World!"
        )
        .into_bytes()
    }

    /// Brings the Date up to date. Cheap within a second: for a loop to call once a turn.
    pub fn refresh(&mut self) {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if second != self.second {
            self.second = second;
            let one = Response::text(now);
            self.block.chunks_exact_mut(self.size).for_each(|copy| copy.copy_from_slice(&one));
        }
    }

    /// The first `count` copies, or `None` when there are not so many.
    pub fn copies(&self, count: usize) -> Option<&[u8]> {
        self.block.get(..count * self.size)
    }

    /// Answers all whole requests of `input` into `out` and returns how many bytes they were.
    pub fn answer(&self, input: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let mut used = 0;
        while used < input.len() {
            let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
            let mut request = Request::new(&mut []);
            match request.parse_with_uninit_headers(&input[used..], &mut headers) {
                Ok(Status::Complete(length)) => used += length,
                Ok(Status::Partial) => break,
                Err(e) => return Err(io::Error::new(io::ErrorKind::InvalidData, e)),
            }
            let known = request.method == Some("GET") && request.path == Some("/plaintext");
            out.extend_from_slice(if known { &self.block[..self.size] } else { NOT_FOUND });
        }
        Ok(used)
    }
}
