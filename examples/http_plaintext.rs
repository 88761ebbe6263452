//! HTTP/1.1 by the rules of the TechEmpower tests 1 (`/json`) and 6 (`/plaintext`):
//! `cargo run --release --example http_plaintext`, then `curl http://127.0.0.1:8080/plaintext`.

mod common;

use std::process::ExitCode;
use std::time::Duration;

use reev::http1::{Fields, Http1, Options as HttpOptions, Request, Response, Service, Status};

/// What `/json` answers.
#[derive(serde::Serialize)]
struct Message {
    message: &'static str,
}

/// Room for the serialized message.
const MESSAGE_MAX: usize = 64;

const PLAIN: Fields<'static> = Fields::new("Server: reev\r\nContent-Type: text/plain\r\n");
const JSON: Fields<'static> = Fields::new("Server: reev\r\nContent-Type: application/json\r\n");
const NOT_ALLOWED: Fields<'static> =
    Fields::new("Server: reev\r\nContent-Type: text/plain\r\nAllow: GET, HEAD\r\n");

/// Answers a connection's requests; it keeps nothing between them.
struct Site;

impl Service for Site {
    #[inline]
    fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
        if !matches!(req.method(), "GET" | "HEAD") {
            return res.send(Status::METHOD_NOT_ALLOWED, NOT_ALLOWED, b"only GET and HEAD");
        }
        // Most targets are paths; to take one apart costs more than to compare it.
        answer(req.target(), res, |res| {
            answer(req.path(), res, |res| {
                res.send(Status::NOT_FOUND, PLAIN, b"there is /plaintext and /json\n");
            });
        });
    }
}

#[inline]
fn answer(path: &str, res: &mut Response<'_>, otherwise: impl FnOnce(&mut Response<'_>)) {
    match path {
        "/plaintext" => res.send(Status::OK, PLAIN, b"Hello, World!"),
        "/json" => {
            let mut buffer = [0; MESSAGE_MAX];
            let body = serialize(&Message { message: "Hello, World!" }, &mut buffer);
            res.send(Status::OK, JSON, body);
        }
        "/" => res.send(Status::OK, PLAIN, b"reev: there is /plaintext and /json\n"),
        _ => otherwise(res),
    }
}

fn serialize<'a>(message: &Message, into: &'a mut [u8; MESSAGE_MAX]) -> &'a [u8] {
    let mut free = into.as_mut_slice();
    serde_json::to_writer(&mut free, message).expect("the message fits");
    let length = MESSAGE_MAX - free.len();
    &into[..length]
}

fn http_options() -> HttpOptions {
    let mut options = HttpOptions::default();
    options.limits.head_bytes_max = 8 << 10;
    options.limits.headers_max = 64;
    options.idle_timeout = Duration::from_secs(60);
    options
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
            let http = Http1::new(http_options());
            reactor.accept(listener, move |_peer| http.connection(Site))
        })?;
        common::banner("http_plaintext", &addr, common::curl(&addr, "/plaintext"));
        running.join()
    })
}
