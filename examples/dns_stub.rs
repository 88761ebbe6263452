//! A DNS stub (RFC 1035) over UDP: answers names it is told from the command line or a hosts file
//! by itself, and forwards all else to an upstream server, whose answers it keeps for as long as
//! they are valid.
//!
//! ```sh
//! cargo run --release --example dns_stub -- --name app.test=127.0.0.1 --upstream 9.9.9.9:53
//! dig @127.0.0.1 -p 5353 app.test
//! ```
//!
//! It has no TCP: of an answer that is too long for a datagram only the question is sent, marked as
//! cut (TC).
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
/// Bytes of the longest message, and of the longest that a client gets which does not ask for more
/// (EDNS, RFC 6891).
const MESSAGE_MAX: u16 = 4096;
const PLAIN_MAX: u16 = 512;
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
const NOT_IMPLEMENTED: u8 = 4;
const REFUSED: u8 = 5;

/// In the third byte of a message: the answer is too long for it (TC).
const CUT: u8 = 2;
/// The type of the record that is none, but EDNS.
const OPT: u16 = 41;

fn number(message: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([message[at], message[at + 1]])
}

/// Where type, class, time to live and length of each record are. None if the message ends before.
fn records(message: &[u8], question_end: usize) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    let mut at = question_end;
    for _ in 0..[6, 8, 10].iter().map(|&count| u32::from(number(message, count))).sum() {
        loop {
            match usize::from(*message.get(at)?) {
                0 => break at += 1,
                0xc0.. => break at += 2,
                len => at += 1 + len,
            }
        }
        found.push(at);
        at += 10 + usize::from(number(message.get(at..at + 10)?, 8));
    }
    (at <= message.len()).then_some(found)
}

/// Where the times to live are, and what they are. OPT has flags in their place.
fn times_to_live(message: &[u8], question_end: usize) -> Option<Vec<(usize, u32)>> {
    let found = records(message, question_end)?.into_iter();
    let ttl = |at| u32::from(number(message, at)) << 16 | u32::from(number(message, at + 2));
    let timed = found.filter(|&at| number(message, at) != OPT).map(|at| at + 4);
    Some(timed.map(|at| (at, ttl(at))).collect())
}

/// For how long an answer may be kept, or none if it is not to be.
fn keep_for(message: &[u8], question_end: usize) -> Option<u32> {
    if message[3] & 0xf != NO_ERROR || message[2] & CUT != 0 || number(message, 6) == 0 {
        return None; // failed, cut short, or empty
    }
    let times = times_to_live(message, question_end)?;
    Some(times.iter().fold(TTL_MAX, |shortest, &(_, ttl)| shortest.min(ttl)))
}

/// The head of an answer to `query`, which ends with its header or question: no records.
fn answer(query: &[u8], code: u8) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] = 0x80 | query[2] & 0x79; // an answer, with the query's kind and wish to recurse
    answer[3] = 0x80 | code;
    answer[4..HEADER].fill(0);
    answer[5] = u8::from(query.len() > HEADER);
    answer
}

/// What a client asks: one question, its name in lower case.
struct Query {
    bytes: Vec<u8>,
    question_end: usize,
    name: String,
    kind: u16,
    class: u16,
    edns: Option<Edns>,
}

/// The bytes that a client can take, and whether it asks for DNSSEC's records.
struct Edns {
    size: u16,
    dnssec: bool,
}

impl Query {
    fn parse(bytes: &[u8]) -> Option<Query> {
        let mut name = String::new();
        let mut at = HEADER;
        loop {
            let len = usize::from(*bytes.get(at)?);
            at += 1;
            if len == 0 {
                break;
            }
            let label = bytes.get(at..at + len).filter(|_| len < 64)?;
            if !name.is_empty() {
                name.push('.');
            }
            for byte in label {
                if *byte == b'.' {
                    name.push('\\'); // it does not end the label
                }
                name.push(char::from(byte.to_ascii_lowercase()));
            }
            at += len;
        }
        let question_end = at + 4;
        if at > HEADER + 255 || bytes.len() < question_end || number(bytes, 4) != 1 {
            return None;
        }
        let opt = records(bytes, question_end)?.into_iter().find(|&at| number(bytes, at) == OPT);
        let edns = opt.map(|at| Edns {
            size: number(bytes, at + 2).clamp(PLAIN_MAX, MESSAGE_MAX),
            dnssec: bytes[at + 6] & 0x80 != 0,
        });
        let (kind, class) = (number(bytes, at), number(bytes, at + 2));
        Some(Query { bytes: bytes.to_vec(), question_end, name, kind, class, edns })
    }

    /// Who sends EDNS gets it.
    fn add_opt(&self, message: &mut Vec<u8>) {
        if let Some(edns) = &self.edns {
            message.extend([0, 0, OPT as u8]);
            message.extend(MESSAGE_MAX.to_be_bytes());
            message.extend([0, 0, u8::from(edns.dnssec) << 7, 0, 0, 0]);
            message[11] = 1;
        }
    }

    fn answer(&self, code: u8) -> Vec<u8> {
        let mut message = answer(&self.bytes[..self.question_end], code);
        self.add_opt(&mut message);
        message
    }

    fn own_answer(&self, addrs: &[IpAddr], ttl: u32) -> Vec<u8> {
        let mut message = answer(&self.bytes[..self.question_end], NO_ERROR);
        message[2] |= 4; // authoritative
        let mut count = 0_u16;
        for addr in addrs {
            let (kind, data) = match addr {
                IpAddr::V4(ip) => (1_u16, ip.octets().to_vec()),
                IpAddr::V6(ip) => (28, ip.octets().to_vec()),
            };
            if kind == self.kind || self.kind == 255 {
                count = count.saturating_add(1);
                message.extend([0xc0, HEADER as u8]); // the name of the question
                message.extend(kind.to_be_bytes());
                message.extend([0, 1]);
                message.extend(ttl.to_be_bytes());
                message.extend((data.len() as u16).to_be_bytes());
                message.extend(data);
            }
        }
        message[6..8].copy_from_slice(&count.to_be_bytes());
        self.add_opt(&mut message);
        self.answer_from(message, 0)
    }

    /// An answer of `age` seconds as this query's own: with its id, its question as it is spelt,
    /// and nothing but that if it is too long.
    fn answer_from(&self, mut message: Vec<u8>, age: u32) -> Vec<u8> {
        let end = self.question_end;
        message[..2].copy_from_slice(&self.bytes[..2]);
        message[HEADER..end].copy_from_slice(&self.bytes[HEADER..end]);
        for (at, ttl) in times_to_live(&message, end).unwrap_or_default() {
            message[at..at + 4].copy_from_slice(&ttl.saturating_sub(age).to_be_bytes());
        }
        let size = self.edns.as_ref().map_or(PLAIN_MAX, |edns| edns.size);
        if message.len() > size.into() || message[2] & CUT != 0 {
            message.truncate(end);
            message[2] |= CUT;
            message[6..HEADER].fill(0);
            self.add_opt(&mut message);
        }
        message
    }

    /// What the upstream server is asked: the question and what its answer depends on, which is
    /// recursion and DNSSEC. Options of the client, such as its cookies, are not for others.
    fn passed_on(&self, id: u16) -> Vec<u8> {
        let mut message = self.bytes[..self.question_end].to_vec();
        message[..2].copy_from_slice(&id.to_be_bytes());
        message[2] &= 0x01;
        message[3] &= 0x30;
        message[6..HEADER].fill(0);
        self.add_opt(&mut message);
        message
    }

    /// What an answer is kept under: all that is passed on, the name in lower case.
    fn key(&self) -> Vec<u8> {
        let mut key = self.passed_on(0);
        key[HEADER..self.question_end - 4].make_ascii_lowercase();
        key
    }

    /// Whether `message` has the same question. Errors may come without one.
    fn is_answered_by(&self, message: &[u8]) -> bool {
        let question = HEADER..self.question_end;
        match number(message, 4) {
            0 => message[3] & 0xf != NO_ERROR,
            1 => message
                .get(question.clone())
                .is_some_and(|same| same.eq_ignore_ascii_case(&self.bytes[question])),
            _ => false,
        }
    }
}

/// A question passed on: whose it is, and until when it waits.
struct Waiting {
    from: Addr,
    query: Query,
    until: Instant,
}

/// An answer of the upstream server.
struct Kept {
    message: Vec<u8>,
    since: Instant,
    until: Instant,
}

/// What the two sockets of a reactor share.
#[derive(Default)]
struct State {
    cache: HashMap<Vec<u8>, Kept>,
    waiting: HashMap<u16, Waiting>,
}

struct Stub {
    names: Arc<HashMap<String, Vec<IpAddr>>>,
    ttl: u32,
    upstream: Option<ConnId>,
    state: Rc<RefCell<State>>,
}

impl Stub {
    fn reply(&mut self, cx: &mut Ctx<'_>, bytes: &[u8], from: &Addr) -> Option<Vec<u8>> {
        if bytes.len() < HEADER || bytes[2] & 0x80 != 0 {
            return None; // too short to be answered, or an answer itself
        }
        if bytes[2] & 0x78 != 0 {
            return Some(answer(&bytes[..HEADER], NOT_IMPLEMENTED)); // no plain query
        }
        let Some(query) = Query::parse(bytes) else {
            return Some(answer(&bytes[..HEADER], FORMAT_ERROR));
        };
        if matches!(query.class, 1 | 255)
            && let Some(addrs) = self.names.get(&query.name)
        {
            return Some(query.own_answer(addrs, self.ttl));
        }
        let state = &mut *self.state.borrow_mut();
        let now = cx.now();
        if let Some(kept) = state.cache.get(&query.key()).filter(|kept| kept.until > now) {
            let age = now.saturating_duration_since(kept.since).as_secs();
            return Some(query.answer_from(kept.message.clone(), age as u32));
        }
        let Some(mut upstream) = self.upstream.and_then(|id| cx.conn(id)) else {
            return Some(query.answer(REFUSED));
        };
        if state.waiting.len() >= WAITING_MAX {
            return Some(query.answer(FAILURE));
        }
        // An id that is hard to guess, so that no stranger can answer in the server's name.
        let id = loop {
            let id = fastrand::u16(..);
            if !state.waiting.contains_key(&id) {
                break id;
            }
        };
        upstream.send(&query.passed_on(id));
        state.waiting.insert(id, Waiting { from: from.clone(), query, until: now + PATIENCE });
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
        state.cache.retain(|_, kept| kept.until > now);
        for (_, late) in state.waiting.extract_if(|_, waiting| waiting.until <= now) {
            cx.send_to(&late.from, &late.query.answer(FAILURE));
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
        if data.len() < HEADER || data[2] & 0x80 == 0 {
            return Ok(());
        }
        let state = &mut *self.state.borrow_mut();
        let id = number(data, 0);
        if !state.waiting.get(&id).is_some_and(|waiting| waiting.query.is_answered_by(data)) {
            return Ok(()); // late, or made up
        }
        let Some(Waiting { from, query, .. }) = state.waiting.remove(&id) else {
            return Ok(());
        };
        let message = match number(data, 4) {
            0 => query.answer(data[3] & 0xf),
            _ => query.answer_from(data.to_vec(), 0),
        };
        if let Some(mut stub) = cx.conn(self.stub.get()) {
            stub.send_to(&from, &message);
        }
        if let Some(ttl) = keep_for(data, query.question_end)
            && state.cache.len() < CACHE_MAX
        {
            let since = cx.now();
            let until = since + Duration::from_secs(ttl.into());
            state.cache.insert(query.key(), Kept { message: data.to_vec(), since, until });
        }
        Ok(())
    }

    fn on_datagram_truncated(
        &mut self,
        cx: &mut Ctx<'_>,
        data: &mut [u8],
        from: &Addr,
    ) -> io::Result<()> {
        data[2] |= CUT;
        self.on_datagram(cx, data, from)
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
#[command(mut_arg("addr", |arg| common::takes(arg, common::DATAGRAM_ADDRS)))]
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
        let mut hosts = String::new();
        if let Some(path) = &self.hosts {
            hosts = std::fs::read_to_string(path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
        }
        for line in hosts.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(addr) = words.next() else {
                continue;
            };
            let Ok(addr) = addr.parse::<IpAddr>() else {
                log::warn!("passed over, no address that can be answered: {line}");
                continue;
            };
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
        let datagrams =
            DatagramOptions { datagram_max: MESSAGE_MAX.into(), ..DatagramOptions::default() };
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
        let try_it = match addr.socket_addr().map(common::reached_at) {
            Some(addr) => format!("dig @{} -p {} localhost", addr.ip(), addr.port()),
            None => "a client for Unix datagrams".to_owned(),
        };
        common::banner("dns_stub", &addr, try_it);
        running.join()
    })
}
