//! A DNS stub (RFC 1035) over UDP: answers names it is told from the command line or a hosts file
//! by itself, and forwards all else to an upstream server, whose answers it keeps for as long as
//! they are valid.
//!
//! ```sh
//! cargo run --release --example dns_stub -- --name app.test=127.0.0.1 --upstream 9.9.9.9:53
//! dig @127.0.0.1 -p 5353 app.test
//! ```
//!
//! Each reactor has a socket, a cache and a connected socket to the upstream server of its own.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reev::{Addr, ConnId, Ctx, DatagramOptions, EvHandler, Server, TimerId};

const HEADER: usize = 12;
/// Answers kept, and questions that wait for the upstream server. Beyond, nothing more is kept,
/// and questions fail.
const CACHE_MAX: usize = 10_000;
const WAITING_MAX: usize = 4_096;
/// A question that the upstream server does not answer is answered with a failure.
const PATIENCE: Duration = Duration::from_secs(3);
const TTL_MAX: u32 = 3_600;

/// Response codes.
const NO_ERROR: u8 = 0;
const FORMAT_ERROR: u8 = 1;
const FAILURE: u8 = 2;
const REFUSED: u8 = 5;

/// The question of a message: its bytes, its name in lower case, its type.
struct Question {
    end: usize,
    name: String,
    kind: u16,
}

fn question(message: &[u8]) -> Option<Question> {
    if message.len() < HEADER || message[4..6] != [0, 1] {
        return None;
    }
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        let label = message.get(at..at + len).filter(|_| len < 64)?;
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(label.iter().map(|&byte| char::from(byte.to_ascii_lowercase())));
        at += len;
    }
    let rest = message.get(at..at + 4)?;
    Some(Question { end: at + 4, name, kind: u16::from_be_bytes([rest[0], rest[1]]) })
}

/// The head of an answer to `query`: its id and question, no records.
fn answer(query: &[u8], question_end: usize, code: u8) -> Vec<u8> {
    let mut answer = query[..question_end].to_vec();
    answer[2] = 0x80 | query[2] & 0x79; // an answer, with the query's kind and wish to recurse
    answer[3] = 0x80 | code;
    answer[6..HEADER].fill(0);
    answer
}

fn own_answer(query: &[u8], question: &Question, addrs: &[IpAddr], ttl: u32) -> Vec<u8> {
    let mut message = answer(query, question.end, NO_ERROR);
    message[2] |= 4; // authoritative
    let mut count = 0_u16;
    for addr in addrs {
        let (kind, data) = match addr {
            IpAddr::V4(ip) => (1_u16, ip.octets().to_vec()),
            IpAddr::V6(ip) => (28, ip.octets().to_vec()),
        };
        if kind == question.kind || question.kind == 255 {
            count += 1;
            message.extend([0xc0, HEADER as u8]); // the name of the question
            message.extend(kind.to_be_bytes());
            message.extend([0, 1]);
            message.extend(ttl.to_be_bytes());
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(data);
        }
    }
    message[6..8].copy_from_slice(&count.to_be_bytes());
    message
}

/// The shortest time to live of an answer's records, or none if it is not to be kept.
fn time_to_live(message: &[u8], question_end: usize) -> Option<u32> {
    let count = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    if message[3] & 0xf != NO_ERROR || message[2] & 2 != 0 || count(6) == 0 {
        return None; // failed, cut short, or empty
    }
    let mut at = question_end;
    let mut shortest = TTL_MAX;
    for _ in 0..count(6) {
        loop {
            match usize::from(*message.get(at)?) {
                0 => break at += 1,
                len if len >= 0xc0 => break at += 2,
                len => at += 1 + len,
            }
        }
        let fixed = message.get(at..at + 10)?;
        shortest = shortest.min(u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]));
        at += 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    }
    Some(shortest)
}

/// A question passed on: whose it is, under which id, and until when it waits.
struct Waiting {
    from: Addr,
    query: Vec<u8>,
    until: Instant,
}

/// What the two sockets of a reactor share.
#[derive(Default)]
struct State {
    cache: HashMap<Vec<u8>, (Vec<u8>, Instant)>,
    waiting: HashMap<u16, Waiting>,
}

/// The question's bytes in lower case: what an answer is kept under.
fn cache_key(message: &[u8], end: usize) -> Vec<u8> {
    message[HEADER..end].to_ascii_lowercase()
}

struct Stub {
    names: Arc<HashMap<String, Vec<IpAddr>>>,
    ttl: u32,
    upstream: Option<ConnId>,
    state: Rc<RefCell<State>>,
}

impl Stub {
    fn reply(&mut self, cx: &mut Ctx<'_>, query: &[u8], from: &Addr) -> Option<Vec<u8>> {
        if query.len() < HEADER || query[2] & 0x80 != 0 {
            return None; // too short to be answered, or an answer itself
        }
        let Some(question) = question(query) else {
            let mut message = answer(query, HEADER, FORMAT_ERROR);
            message[4..6].fill(0);
            return Some(message);
        };
        if let Some(addrs) = self.names.get(&question.name) {
            return Some(own_answer(query, &question, addrs, self.ttl));
        }
        let state = &mut *self.state.borrow_mut();
        let key = cache_key(query, question.end);
        if let Some((kept, until)) = state.cache.get(&key) {
            if *until > cx.now() {
                let mut message = kept.clone();
                message[..2].copy_from_slice(&query[..2]);
                return Some(message);
            }
            state.cache.remove(&key);
        }
        let Some(mut upstream) = self.upstream.and_then(|id| cx.conn(id)) else {
            return Some(answer(query, question.end, REFUSED));
        };
        if state.waiting.len() >= WAITING_MAX {
            return Some(answer(query, question.end, FAILURE));
        }
        // An id that is hard to guess, so that no stranger can answer in the server's name.
        let id = loop {
            let id = fastrand::u16(..);
            if !state.waiting.contains_key(&id) {
                break id;
            }
        };
        let mut passed_on = query.to_vec();
        passed_on[..2].copy_from_slice(&id.to_be_bytes());
        upstream.send(&passed_on);
        let until = cx.now() + PATIENCE;
        state.waiting.insert(id, Waiting { from: from.clone(), query: query.to_vec(), until });
        None
    }
}

impl EvHandler for Stub {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.set_periodic(PATIENCE / 6);
        Ok(())
    }

    fn on_datagram(&mut self, cx: &mut Ctx<'_>, data: &mut [u8], from: &Addr) -> io::Result<()> {
        if let Some(message) = self.reply(cx, data, from) {
            cx.send_to(from, &message);
        }
        Ok(())
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, _: TimerId) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        let now = cx.now();
        state.cache.retain(|_, (_, until)| *until > now);
        let late = state.waiting.extract_if(|_, waiting| waiting.until <= now);
        for (_, Waiting { from, query, .. }) in late {
            if let Some(question) = question(&query) {
                cx.send_to(&from, &answer(&query, question.end, FAILURE));
            }
        }
        Ok(())
    }
}

/// The socket to the upstream server.
struct Upstream {
    stub: Rc<Cell<ConnId>>,
    state: Rc<RefCell<State>>,
}

impl EvHandler for Upstream {
    fn on_datagram(&mut self, cx: &mut Ctx<'_>, data: &mut [u8], _: &Addr) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        let Some(question) = question(data).filter(|_| data[2] & 0x80 != 0) else {
            return Ok(());
        };
        let id = u16::from_be_bytes([data[0], data[1]]);
        let same = |waiting: &Waiting| {
            waiting.query.len() >= question.end
                && cache_key(&waiting.query, question.end) == cache_key(data, question.end)
        };
        if !state.waiting.get(&id).is_some_and(same) {
            return Ok(()); // late, or made up
        }
        let Some(Waiting { from, query, .. }) = state.waiting.remove(&id) else {
            return Ok(());
        };
        data[..2].copy_from_slice(&query[..2]);
        if let Some(ttl) = time_to_live(data, question.end)
            && state.cache.len() < CACHE_MAX
        {
            let until = cx.now() + Duration::from_secs(ttl.into());
            state.cache.insert(cache_key(data, question.end), (data.to_vec(), until));
        }
        if let Some(mut stub) = cx.conn(self.stub.get()) {
            stub.send_to(&from, data);
        }
        Ok(())
    }

    fn on_datagram_error(
        &mut self,
        _: &mut Ctx<'_>,
        error: io::Error,
        to: &Addr,
    ) -> io::Result<()> {
        log::warn!("the upstream server {to}: {error}");
        Ok(())
    }
}

/// A DNS stub over UDP: answers names it is told itself, forwards and caches the rest
#[derive(clap::Parser)]
#[command(name = "dns_stub", version)]
struct Options {
    #[command(flatten)]
    serve: common::Serve,

    /// A name to answer: NAME=ADDRESS; may be repeated
    #[arg(long, value_name = "NAME=ADDRESS")]
    name: Vec<String>,

    /// A file of addresses and names, as hosts(5)
    #[arg(long)]
    hosts: Option<std::path::PathBuf>,

    /// The server to ask for other names, ADDRESS:PORT; without it they are refused
    #[arg(long)]
    upstream: Option<SocketAddr>,

    /// Seconds that own answers may be kept by clients
    #[arg(long, default_value_t = 60)]
    ttl: u32,
}

impl Options {
    fn names(&self) -> io::Result<HashMap<String, Vec<IpAddr>>> {
        let mut names: HashMap<String, Vec<IpAddr>> = HashMap::new();
        let wrong = |text: &str| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("not a name and address: {text}"))
        };
        let hosts = self.hosts.as_ref().map(std::fs::read_to_string).transpose()?;
        for line in hosts.as_deref().unwrap_or_default().lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(addr) = words.next() else {
                continue;
            };
            let addr: IpAddr = addr.parse().map_err(|_| wrong(line))?;
            for name in words {
                names.entry(name.to_ascii_lowercase()).or_default().push(addr);
            }
        }
        for text in &self.name {
            let (name, addr) = text.split_once('=').ok_or_else(|| wrong(text))?;
            let addr = addr.parse().map_err(|_| wrong(text))?;
            names.entry(name.trim_end_matches('.').to_ascii_lowercase()).or_default().push(addr);
        }
        Ok(names)
    }
}

fn main() -> ExitCode {
    common::run("udp://127.0.0.1:5353", |options: Options| {
        let names = Arc::new(options.names()?);
        let datagrams = DatagramOptions { datagram_max: 4096, ..DatagramOptions::default() };
        let mut server = Server::new(options.serve.config())?;
        let socket = server.bind_datagrams(&options.serve.datagram_addr(), &datagrams)?;
        let addr = server.datagram_addr(socket);
        reev::stop_on_signals(&server.handle())?;
        let (ttl, upstream) = (options.ttl, options.upstream);
        let running = server.start(move |reactor| {
            let state = Rc::new(RefCell::new(State::default()));
            let stub_id = Rc::new(Cell::new(ConnId::NONE)); // each socket knows the other
            let upstream = match upstream {
                None => None,
                Some(upstream) => Some(reactor.connect_datagrams(
                    &format!("udp://{upstream}"),
                    &datagrams,
                    Upstream { stub: stub_id.clone(), state: state.clone() },
                )?),
            };
            let stub = Stub { names: names.clone(), ttl, upstream, state };
            stub_id.set(reactor.serve_datagrams(socket, stub)?);
            Ok(())
        })?;
        let port = addr.port().unwrap_or(53);
        common::banner("dns_stub", &addr, format!("dig @127.0.0.1 -p {port} localhost"));
        running.join()
    })
}
