//! HTTP/1.1 by the rules of the TechEmpower tests 1 (`/json`) and 6 (`/plaintext`):
//! `cargo run --release --example http_plaintext`, then `curl http://127.0.0.1:8080/plaintext`.
//!
//! Answers are whole blocks of bytes, made once a second with the new date; a request costs its
//! parsing and one copy. What is pipelined is answered in one `send`.

mod common;

use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use httparse::{Error, Header, Request, Status};
use reev::{Addr, Ctx, EvHandler, TimerId};

/// Bytes of a request's line and headers; more is answered with 431.
const HEAD_MAX: usize = 8 << 10;
/// Headers of a request; more is answered with 431.
const HEADERS_MAX: usize = 64;
/// Bytes of a request's body, which is thrown away; more is answered with 413.
const BODY_MAX: u64 = 1 << 20;
/// A connection on which nothing moves for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// What `/json` answers.
#[derive(serde::Serialize)]
struct Message {
    message: &'static str,
}

const MESSAGE: Message = Message { message: "Hello, World!" };
/// Room for the serialized message.
const MESSAGE_MAX: usize = 64;

/// An answer but for its `Connection` header.
struct Answer {
    bytes: Vec<u8>,
    /// Where the empty line after the headers is.
    head: usize,
}

impl Answer {
    fn new(status: &str, headers: &str, date: &str, length: usize, body: &str) -> Answer {
        let head = format!(
            "HTTP/1.1 {status}\r\nServer: reev\r\nDate: {date}\r\n\
             Content-Type: {headers}\r\nContent-Length: {length}\r\n"
        );
        Answer { bytes: format!("{head}\r\n{body}").into_bytes(), head: head.len() }
    }

    fn text(status: &str, date: &str, body: &str) -> Answer {
        Answer::new(status, "text/plain", date, body.len(), body)
    }
}

/// All answers, with the date of this second. Each reactor has its own.
struct Answers {
    plaintext: Answer,
    /// Without its body, which is serialized for each request.
    json: Answer,
    root: Answer,
    bad_request: Answer,
    not_found: Answer,
    not_allowed: Answer,
    body_too_large: Answer,
    head_too_large: Answer,
}

impl Answers {
    fn now() -> Answers {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let mut buffer = [0; MESSAGE_MAX];
        let length = serialize(&MESSAGE, &mut buffer).len();
        Answers {
            plaintext: Answer::text("200 OK", &date, "Hello, World!"),
            json: Answer::new("200 OK", "application/json", &date, length, ""),
            root: Answer::text("200 OK", &date, "reev: there is /plaintext and /json\n"),
            bad_request: Answer::text("400 Bad Request", &date, "not an HTTP request\n"),
            not_found: Answer::text("404 Not Found", &date, "there is /plaintext and /json\n"),
            not_allowed: Answer::new(
                "405 Method Not Allowed",
                "text/plain\r\nAllow: GET, HEAD",
                &date,
                17,
                "only GET and HEAD",
            ),
            body_too_large: Answer::text("413 Content Too Large", &date, "body too large\n"),
            head_too_large: Answer::text(
                "431 Request Header Fields Too Large",
                &date,
                "headers too large\n",
            ),
        }
    }
}

fn serialize<'a>(message: &Message, into: &'a mut [u8; MESSAGE_MAX]) -> &'a [u8] {
    let mut free = into.as_mut_slice();
    serde_json::to_writer(&mut free, message).expect("the message fits");
    let length = MESSAGE_MAX - free.len();
    &into[..length]
}

/// Renews the date once a second.
struct Clock(Rc<RefCell<Answers>>);

impl EvHandler for Clock {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.set_periodic(Duration::from_secs(1));
        Ok(())
    }

    fn on_read(&mut self, _cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        Ok(data.len()) // it has no socket
    }

    fn on_timeout(&mut self, _cx: &mut Ctx<'_>, _timer: TimerId) -> io::Result<()> {
        *self.0.borrow_mut() = Answers::now();
        Ok(())
    }
}

/// One connection.
struct Http {
    answers: Rc<RefCell<Answers>>,
    /// Bytes of the last request's body that are still to come.
    body_left: u64,
}

/// What an answer says of the connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connection {
    /// It stays, as is usual in HTTP/1.1.
    Stays,
    /// It stays because an HTTP/1.0 client asked for that.
    Kept,
    Closes,
}

enum Page {
    Plaintext,
    Json,
    Root,
    Missing,
}

/// What is to be known of a request's headers.
struct Facts {
    connection: Connection,
    body: u64,
}

impl EvHandler for Http {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.idle_timeout(IDLE);
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let answers = self.answers.borrow();
        let mut rest: &[u8] = data;
        loop {
            if self.body_left > 0 {
                let skipped = self.body_left.min(rest.len() as u64);
                self.body_left -= skipped;
                rest = &rest[skipped as usize..];
            }
            if rest.is_empty() {
                return Ok(data.len());
            }
            let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
            let mut request = Request::new(&mut []);
            let window = &rest[..rest.len().min(HEAD_MAX)];
            let refusal = match request.parse_with_uninit_headers(window, &mut headers) {
                Ok(Status::Complete(length)) => match facts(&request) {
                    Some(facts) if facts.body <= BODY_MAX => {
                        answer(cx, &answers, &request, facts.connection);
                        if facts.connection == Connection::Closes {
                            cx.close();
                            return Ok(data.len());
                        }
                        self.body_left = facts.body;
                        rest = &rest[length..];
                        continue;
                    }
                    Some(_) => &answers.body_too_large,
                    None => &answers.bad_request,
                },
                Ok(Status::Partial) if window.len() < HEAD_MAX => {
                    return Ok(data.len() - rest.len());
                }
                Ok(Status::Partial) | Err(Error::TooManyHeaders) => &answers.head_too_large,
                Err(_) => &answers.bad_request,
            };
            send(cx, refusal, Connection::Closes, true);
            cx.close();
            return Ok(data.len());
        }
    }
}

/// Answers a request whose headers are in order.
#[inline]
fn answer(cx: &mut Ctx<'_>, answers: &Answers, request: &Request<'_, '_>, connection: Connection) {
    let method = request.method.unwrap_or_default();
    let body = method == "GET";
    if !body && method != "HEAD" {
        return send(cx, &answers.not_allowed, connection, true);
    }
    match page(request.path.unwrap_or_default()) {
        Page::Plaintext => send(cx, &answers.plaintext, connection, body),
        Page::Json => {
            send(cx, &answers.json, connection, body);
            if body {
                cx.write(serialize(&MESSAGE, &mut [0; MESSAGE_MAX]));
            }
        }
        Page::Root => send(cx, &answers.root, connection, body),
        Page::Missing => send(cx, &answers.not_found, connection, body),
    }
}

#[inline]
fn send(cx: &mut Ctx<'_>, answer: &Answer, connection: Connection, body: bool) {
    let end = if body { answer.bytes.len() } else { answer.head + 2 };
    if connection == Connection::Stays {
        return cx.write(&answer.bytes[..end]);
    }
    cx.write(&answer.bytes[..answer.head]);
    cx.write(match connection {
        Connection::Stays => b"",
        Connection::Kept => b"Connection: keep-alive\r\n",
        Connection::Closes => b"Connection: close\r\n",
    });
    cx.write(&answer.bytes[answer.head..end]);
}

/// What a request's target names.
#[inline]
fn page(target: &str) -> Page {
    match target {
        "/plaintext" => Page::Plaintext,
        "/json" => Page::Json,
        "/" => Page::Root,
        _ => match path(target) {
            path if path != target => page(path),
            _ => Page::Missing,
        },
    }
}

/// The path of a target: without its query and, in the form that proxies get, without scheme
/// and host.
fn path(target: &str) -> &str {
    let path = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => {
            rest.find('/').map_or("/", |start| &rest[start..])
        }
        _ => target,
    };
    path.split_once('?').map_or(path, |(path, _query)| path)
}

/// What the headers say of connection and body, by RFC 9112; `None` for a bad request.
#[inline]
fn facts(request: &Request<'_, '_>) -> Option<Facts> {
    let new = request.version == Some(1);
    let (mut hosts, mut length) = (0, None);
    let (mut keeps, mut closes) = (false, false);
    for header in request.headers.iter() {
        let (name, value) = (header.name, header.value);
        match name.len() {
            4 if name.eq_ignore_ascii_case("host") => hosts += 1,
            10 if name.eq_ignore_ascii_case("connection") && value == b"keep-alive" => keeps = true,
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    closes |= option.eq_ignore_ascii_case(b"close");
                    keeps |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let this = decimal(value)?;
                if length.replace(this).is_some_and(|other| other != this) {
                    return None;
                }
            }
            // A body whose end cannot be told by counting, or is not sent before it is asked
            // for: the connection ends with this answer, so no such byte is taken for a request.
            17 if name.eq_ignore_ascii_case("transfer-encoding") => closes = true,
            6 if name.eq_ignore_ascii_case("expect") => closes = true,
            _ => {}
        }
    }
    if hosts > 1 || (new && hosts == 0) {
        return None;
    }
    let connection = match (closes, new, keeps) {
        (true, ..) | (_, false, false) => Connection::Closes,
        (_, true, _) => Connection::Stays,
        (_, false, true) => Connection::Kept,
    };
    Some(Facts { connection, body: length.unwrap_or(0) })
}

/// A number of digits alone: `parse` would take a sign.
fn decimal(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// An HTTP server for two paths: /plaintext and /json
#[derive(clap::Parser)]
#[command(name = "http_plaintext", version)]
struct Options {
    #[command(flatten)]
    serve: common::Serve,
}

fn main() -> ExitCode {
    common::run("127.0.0.1:8080", |options: Options| {
        let (server, listener) = options.serve.listen()?;
        let addr = server.local_addr(listener);
        let running = server.start(move |reactor| {
            let answers = Rc::new(RefCell::new(Answers::now()));
            reactor.add(Clock(answers.clone()));
            reactor.accept(listener, move |_peer| Http { answers: answers.clone(), body_left: 0 })
        })?;
        common::banner("http_plaintext", &addr, how_to_try(&addr));
        running.join()
    })
}

fn how_to_try(addr: &Addr) -> String {
    match addr.unix_path() {
        Some(path) => format!("curl --unix-socket {} http://localhost/plaintext", path.display()),
        None => format!("curl http://{addr}/plaintext"),
    }
}
