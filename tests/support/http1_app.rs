//! A service that does a bit of everything, on a simulated kernel.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::rc::Rc;

use reev::http1::{
    Answer, Fields, Http1, Intake, Options, Request, Responder, Response, Service, Status,
};
use reev::sim::{Faults, Peer, Simulation};
use reev::{Close, Config, Ctx, EvHandler, TimerId};

pub(crate) const PLAIN: Fields<'static> = Fields::new("Content-Type: text/plain\r\n");

/// What the tests see of the services of a simulation.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) responders: Vec<(String, Responder)>,
    pub(crate) requests: Vec<String>,
    pub(crate) closes: Vec<&'static str>,
    pub(crate) drains: usize,
}

pub(crate) type Shared = Rc<RefCell<Seen>>;

pub(crate) struct App {
    pub(crate) seen: Shared,
    /// Bytes of streamed content to come, and of it received.
    pub(crate) left: usize,
    pub(crate) got: Vec<u8>,
}

impl Service for App {
    fn on_head(&mut self, req: &Request<'_>, res: &mut Response<'_>) -> Intake {
        match req.path() {
            "/refuse" => res.send(Status::UNAUTHORIZED, PLAIN, b"no"),
            "/upload" | "/upload/nothing" | "/early" | "/echo" => return Intake::Streamed,
            _ => {}
        }
        Intake::Whole
    }

    fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
        let line = format!("{} {}", req.method(), req.target());
        self.seen.borrow_mut().requests.push(line.clone());
        let path = req.path();
        match path {
            "/upload" => self.got.clear(),
            "/early" => res.send(Status::OK, PLAIN, b"early"),
            "/echo" => res.stream(),
            "/post" => res.send(Status::OK, PLAIN, req.body()),
            "/empty" => res.send(Status::NO_CONTENT, Fields::NONE, b"ignored"),
            "/same" => res.send(Status::NOT_MODIFIED, Fields::NONE, b"ignored"),
            "/reset" => res.answer(Answer::new(Status::RESET_CONTENT).body("ignored")),
            "/reset/file" => res.status(Status::RESET_CONTENT).file(file_of(20_000), 0..20_000),
            "/nothing" | "/upload/nothing" => {}
            "/twice" => {
                res.send(Status::OK, PLAIN, b"once");
                res.send(Status::OK, PLAIN, b"twice");
            }
            "/panic" => panic!("as asked"),
            "/panic/late" => {
                res.send(Status::OK, PLAIN, b"done");
                panic!("as asked");
            }
            "/panic/stream" => {
                res.stream();
                res.write(b"half");
                panic!("as asked");
            }
            "/later" => {
                let responder = res.later();
                self.seen.borrow_mut().responders.push((req.target().to_owned(), responder));
            }
            "/stream" => {
                self.left = req.query().and_then(|n| n.parse().ok()).unwrap_or(0);
                res.fields(PLAIN).stream();
            }
            "/events" => {
                res.stream();
                let timer = res.cx().set_timer(std::time::Duration::from_secs(100));
                assert_ne!(timer, TimerId::NONE);
            }
            "/file" => {
                let len: u64 = req.query().and_then(|n| n.parse().ok()).unwrap_or(0);
                res.file(file_of(len as usize), 0..len);
            }
            "/file/short" => res.file(file_of(100_000), 0..200_000),
            "/big" => res.send(Status::OK, PLAIN, &[b'x'; 100_000]),
            "/header" => {
                assert!(res.header("X-A", "b\r\nInjected: yes").is_err());
                assert!(res.header("Content-Length", "9").is_err());
                res.header("X-A", "b").unwrap();
                res.status(Status::CREATED).body(b"made");
            }
            "/upgrade" if req.wants_upgrade("shout") => {
                assert!(res.upgrade("shout", Shout));
            }
            _ => res.send(Status::OK, PLAIN, line.as_bytes()),
        }
    }

    fn on_body(&mut self, data: &[u8], res: &mut Response<'_>) {
        if res.is_streaming() {
            return res.write(data);
        }
        self.got.extend_from_slice(data);
    }

    fn on_end(&mut self, res: &mut Response<'_>) {
        if res.is_streaming() {
            return res.end();
        }
        if self.seen.borrow().requests.last().is_some_and(|r| r.ends_with("/nothing")) {
            return;
        }
        let sum: u64 = self.got.iter().map(|&b| u64::from(b)).sum();
        res.send(Status::OK, PLAIN, format!("{} {sum}", self.got.len()).as_bytes());
    }

    fn on_drain(&mut self, res: &mut Response<'_>) {
        self.seen.borrow_mut().drains += 1;
        let piece = self.left.min(1000);
        if piece > 0 {
            self.left -= piece;
            res.write(&vec![b'.'; piece]);
        }
        if self.left == 0 && !self.seen.borrow().requests.iter().any(|r| r.ends_with("/events")) {
            res.end();
        }
    }

    fn on_timeout(&mut self, _timer: TimerId, res: &mut Response<'_>) {
        res.write(b"tick");
        res.end();
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, why: &Close) {
        self.seen.borrow_mut().closes.push(why.kind());
    }
}

/// The protocol behind an upgrade: it shouts.
pub(crate) struct Shout;

impl EvHandler for Shout {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        data.make_ascii_uppercase();
        cx.write(data);
        Ok(data.len())
    }
}

/// A file of so many bytes, without a name.
pub(crate) fn file_of(len: usize) -> File {
    let path = std::env::temp_dir().join(format!(
        "reev-{}-{:?}-{len}",
        std::process::id(),
        std::thread::current().id()
    ));
    let mut file = File::options().create(true).truncate(true).read(true).write(true).open(&path);
    let file = file.as_mut().expect("a temporary file");
    file.write_all(&pattern(len)).expect("room for a temporary file");
    std::fs::remove_file(&path).expect("our own file");
    file.try_clone().expect("a second descriptor")
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31) >> 3) as u8).collect()
}

pub(crate) struct Bench {
    pub(crate) sim: Simulation,
    pub(crate) seen: Shared,
    pub(crate) listener: reev::ListenerId,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench::with(1, Faults::default(), Options::default())
    }

    pub(crate) fn with(seed: u64, faults: Faults, options: Options) -> Bench {
        let mut sim = Simulation::with(seed, faults, Config::default());
        let seen = Shared::default();
        let (http, shared) = (Http1::new(options), seen.clone());
        let listener = sim.listen(move |_peer| {
            http.connection(App { seen: shared.clone(), left: 0, got: Vec::new() })
        });
        Bench { sim, seen, listener }
    }

    /// A peer that is accepted.
    pub(crate) fn connect(&mut self) -> Peer {
        let peer = self.sim.connect(self.listener);
        self.sim.settle();
        peer
    }

    /// Sends, and gives what comes back at once.
    pub(crate) fn talk(&mut self, peer: &Peer, bytes: impl AsRef<[u8]>) -> String {
        peer.send(bytes.as_ref());
        self.hear(peer)
    }

    /// Reads until nothing more comes.
    pub(crate) fn hear(&mut self, peer: &Peer) -> String {
        let mut heard = Vec::new();
        loop {
            self.sim.settle();
            let bytes = peer.receive();
            if bytes.is_empty() {
                return String::from_utf8_lossy(&heard).into_owned();
            }
            heard.extend(bytes);
        }
    }

    pub(crate) fn respond(&mut self, index: usize, text: &str) -> Result<(), reev::http1::Gone> {
        let (_, responder) = self.seen.borrow_mut().responders.remove(index);
        responder.respond(Answer::text(text.to_owned()))
    }
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// The bodies of answers that all have a Content-Length, in order.
pub(crate) fn bodies(mut answers: &str) -> Vec<&str> {
    let mut bodies = Vec::new();
    while !answers.is_empty() {
        let (head, rest) = answers.split_once("\r\n\r\n").expect("a whole head");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |n| n.parse().expect("a number"));
        bodies.push(&rest[..length]);
        answers = &rest[length..];
    }
    bodies
}
