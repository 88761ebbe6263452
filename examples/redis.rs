//! A store that speaks RESP2, as Redis does: enough for `redis-cli` and
//! `redis-benchmark -t ping,set,get,incr,lpush -P 16`.
//!
//! One store for all connections, on one reactor by default: then nothing is shared between
//! threads and nothing is locked. With `--reactors N` every reactor has a store and channels of
//! its own (shards by connection, not by key), which suits caches that a client fills itself.
//!
//! `benches/redis.sh` compares it with the `redis-server` of the distribution.
//!
//! Commands: PING, ECHO, GET, SET (EX, PX, NX, XX), DEL, EXISTS, TTL, INCR, LPUSH, LLEN, LRANGE,
//! PUBLISH, SUBSCRIBE, UNSUBSCRIBE, CONFIG GET, COMMAND, DBSIZE, FLUSHALL, QUIT. An argument has
//! at most 512 KiB, a command 1 MiB.

mod common;

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use reev::{Addr, Close, Config, ConnId, Ctx, EvHandler, Server, TimerId};

const BULK_MAX: usize = 512 << 10;
const ARGUMENTS_MAX: usize = 1024;
const COMMAND_MAX: usize = 1 << 20;
/// The rest of a read behind a command of that length may have to wait with it.
const INPUT_MAX: usize = 2 * COMMAND_MAX;
const INLINE_MAX: usize = 64 << 10;
const OUTPUT_HIGH: usize = 256 << 10;
/// How long to go on looking for requests before sleeping, in microseconds: a busy client need not
/// wake the server then, which costs it more than the request.
const SPIN_US: u64 = 50;
/// How often keys that have expired are looked for.
const SWEEP: Duration = Duration::from_secs(1);

enum Value {
    Text(Vec<u8>),
    List(VecDeque<Vec<u8>>),
}

struct Entry {
    value: Value,
    until: Option<Instant>,
}

/// FNV-1a over eight bytes at a time: keys are short, and the store is not open to strangers.
#[derive(Default, Clone, Copy)]
struct Hasher(u64);

impl std::hash::Hasher for Hasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.0 ^= self.0 >> 29;
        }
    }
}

type Map<V> = HashMap<Vec<u8>, V, std::hash::BuildHasherDefault<Hasher>>;

/// What the connections of a reactor share.
#[derive(Default)]
struct Store {
    keys: Map<Entry>,
    channels: Map<HashSet<ConnId>>,
}

impl Store {
    /// The entry of a key that has not expired.
    fn live(&mut self, key: &[u8], now: Instant) -> Option<&mut Entry> {
        if self.keys.get(key)?.until.is_some_and(|until| until <= now) {
            self.keys.remove(key);
        }
        self.keys.get_mut(key)
    }
}

/// A command in the input: where its arguments are, and where it ends.
enum Parsed {
    Command(usize),
    Incomplete,
    Broken(&'static str),
}

/// A number and CRLF from `at` on; `None` if the line is not whole.
fn number(data: &[u8], mut at: usize) -> Option<Result<(i64, usize), ()>> {
    let negative = data.get(at) == Some(&b'-');
    at += usize::from(negative);
    let start = at;
    let mut n = 0_i64;
    loop {
        match data.get(at)? {
            digit @ b'0'..=b'9' if at - start < 10 => n = n * 10 + i64::from(digit - b'0'),
            b'\r' if at > start => {
                return match data.get(at + 1)? {
                    b'\n' => Some(Ok((if negative { -n } else { n }, at + 2))),
                    _ => Some(Err(())),
                };
            }
            _ => return Some(Err(())),
        }
        at += 1;
    }
}

/// Finds the arguments of the command that begins at `start`.
fn parse(data: &[u8], start: usize, arguments: &mut Vec<Range<usize>>) -> Parsed {
    arguments.clear();
    if data[start] != b'*' {
        return parse_inline(data, start, arguments);
    }
    let (count, mut at) = match number(data, start + 1) {
        None => return Parsed::Incomplete,
        Some(Ok((count, at))) if count <= ARGUMENTS_MAX as i64 => (count, at),
        Some(_) => return Parsed::Broken("invalid multibulk length"),
    };
    for _ in 0..count {
        match data.get(at) {
            None => return Parsed::Incomplete,
            Some(b'$') => {}
            Some(_) => return Parsed::Broken("expected '$'"),
        }
        let (len, from) = match number(data, at + 1) {
            None => return Parsed::Incomplete,
            Some(Ok((len, from))) if (0..=BULK_MAX as i64).contains(&len) => (len as usize, from),
            Some(_) => return Parsed::Broken("invalid bulk length"),
        };
        at = from + len + 2;
        if at - start > COMMAND_MAX {
            return Parsed::Broken("too big command");
        }
        if data.len() < at {
            return Parsed::Incomplete;
        }
        arguments.push(from..from + len);
    }
    Parsed::Command(at)
}

/// A line of words, for people with netcat.
fn parse_inline(data: &[u8], start: usize, arguments: &mut Vec<Range<usize>>) -> Parsed {
    let Some(len) = memchr::memchr(b'\n', &data[start..]) else {
        let long = data.len() - start > INLINE_MAX;
        return if long { Parsed::Broken("too big inline request") } else { Parsed::Incomplete };
    };
    let mut word = None;
    for (at, byte) in data.iter().enumerate().take(start + len + 1).skip(start) {
        match (byte.is_ascii_whitespace(), word) {
            (false, None) => word = Some(at),
            (true, Some(from)) => {
                arguments.push(from..at);
                word = None;
            }
            _ => {}
        }
    }
    Parsed::Command(start + len + 1)
}

/// Answers are gathered here, and written once for all the commands of a read.
struct Output(Vec<u8>);

impl Output {
    fn integer(&mut self, n: i64) {
        let _ = write!(self.0, ":{n}\r\n");
    }

    fn length(&mut self, kind: u8, mut n: usize) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        loop {
            at -= 1;
            digits[at] = b'0' + (n % 10) as u8;
            n /= 10;
            if n == 0 {
                break;
            }
        }
        self.0.push(kind);
        self.0.extend_from_slice(&digits[at..]);
        self.0.extend_from_slice(b"\r\n");
    }

    fn bulk(&mut self, data: &[u8]) {
        self.length(b'$', data.len());
        self.0.extend_from_slice(data);
        self.0.extend_from_slice(b"\r\n");
    }

    fn text(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
        self.0.extend_from_slice(b"\r\n");
    }
}

const OK: &str = "+OK";
const NIL: &str = "$-1";
const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";
const NOT_INTEGER: &str = "-ERR value is not an integer or out of range";
const SYNTAX: &str = "-ERR syntax error";

/// A range's end as LRANGE has it: negative ones count from the end.
fn index(of: i64, len: usize) -> i64 {
    if of < 0 { of + len as i64 } else { of }
}

/// A number in its one spelling: `+5`, `007` and `-0` are none.
fn integer(text: &[u8]) -> Option<i64> {
    match text {
        [b'0'] | [b'1'..=b'9', ..] | [b'-', b'1'..=b'9', ..] => {
            std::str::from_utf8(text).ok()?.parse().ok()
        }
        _ => None,
    }
}

struct Client {
    store: Rc<RefCell<Store>>,
    arguments: Vec<Range<usize>>,
    output: Rc<RefCell<Output>>,
    channels: HashSet<Vec<u8>>,
    quits: bool,
}

impl Client {
    fn run(&mut self, cx: &mut Ctx<'_>, data: &[u8], out: &mut Output) {
        let arguments = std::mem::take(&mut self.arguments);
        let words = |i: usize| arguments.get(i).map(|range| &data[range.clone()]);
        let (count, name) = (arguments.len(), words(0).unwrap_or_default());
        let mut upper = [0; 12];
        let name_len = name.len().min(upper.len());
        upper[..name_len].copy_from_slice(&name[..name_len]);
        upper.make_ascii_uppercase();
        let (a, b) = (words(1).unwrap_or_default(), words(2).unwrap_or_default());
        let rest = |from: usize| arguments.iter().skip(from).map(|range| &data[range.clone()]);
        match (&upper[..name_len], count) {
            (b"GET", 2) => self.get(cx.now(), a, out),
            (b"SET", 3..) => self.set(cx.now(), a, b, rest(3), out),
            (b"PING", 1) if self.channels.is_empty() => out.text("+PONG"),
            (b"PING", 1 | 2) if !self.channels.is_empty() => {
                out.text("*2\r\n$4\r\npong");
                out.bulk(a);
            }
            (b"PING" | b"ECHO", 2) => out.bulk(a),
            (b"INCR", 2) => self.increment(cx.now(), a, out),
            (b"LPUSH", 3..) => self.push(cx.now(), a, rest(2), out),
            (b"LLEN", 2) => self.list(cx.now(), a, out, |list, out| out.integer(list.len() as i64)),
            (b"LRANGE", 4) => self.range(cx.now(), a, b, words(3).unwrap_or_default(), out),
            (b"DEL" | b"EXISTS", 2..) => {
                let (now, delete) = (cx.now(), upper[0] == b'D');
                let store = &mut *self.store.borrow_mut();
                let found = rest(1).filter(|key| {
                    let live = store.live(key, now).is_some();
                    if live && delete {
                        store.keys.remove(*key);
                    }
                    live
                });
                let found = found.count() as i64;
                out.integer(found);
            }
            (b"TTL", 2) => {
                let now = cx.now();
                let left = match self.store.borrow_mut().live(a, now).map(|entry| entry.until) {
                    None => -2,
                    Some(None) => -1,
                    Some(Some(until)) => (until - now).as_millis().div_ceil(1000) as i64,
                };
                out.integer(left);
            }
            (b"PUBLISH", 3) => self.publish(cx, a, b, out),
            (b"SUBSCRIBE", 2..) => rest(1).for_each(|channel| self.subscribe(cx, channel, out)),
            (b"UNSUBSCRIBE", 1) if self.channels.is_empty() => {
                out.text("*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0");
            }
            (b"UNSUBSCRIBE", _) => {
                let named: Vec<Vec<u8>> = match count {
                    1 => self.channels.iter().cloned().collect(),
                    _ => rest(1).map(<[u8]>::to_vec).collect(),
                };
                named.iter().for_each(|channel| self.unsubscribe(cx.id(), channel, out));
            }
            (b"CONFIG", 3..) if a.eq_ignore_ascii_case(b"GET") => {
                out.length(b'*', 2);
                out.bulk(b);
                out.bulk(if b.eq_ignore_ascii_case(b"appendonly") { b"no" } else { b"" });
            }
            (b"CONFIG", 2..) if !a.eq_ignore_ascii_case(b"GET") => {
                out.text(&format!(
                    "-ERR unknown subcommand '{:.128}'",
                    a.escape_ascii().to_string()
                ));
            }
            (b"COMMAND", _) => out.text("*0"),
            (b"DBSIZE", 1) => out.integer(self.store.borrow().keys.len() as i64),
            (b"FLUSHALL", _) => {
                self.store.borrow_mut().keys.clear();
                out.text(OK);
            }
            (b"QUIT", _) => {
                out.text(OK);
                self.quits = true;
            }
            (_, 0) => {}
            (known, _) if COMMANDS.contains(&known) => {
                let name = String::from_utf8_lossy(name).to_lowercase();
                out.text(&format!("-ERR wrong number of arguments for '{name}' command"));
            }
            _ => {
                let name = name.escape_ascii().to_string();
                out.text(&format!("-ERR unknown command '{name:.128}'"));
            }
        }
        self.arguments = arguments;
    }

    fn get(&mut self, now: Instant, key: &[u8], out: &mut Output) {
        match self.store.borrow_mut().live(key, now).map(|entry| &entry.value) {
            None => out.text(NIL),
            Some(Value::Text(text)) => out.bulk(text),
            Some(Value::List(_)) => out.text(WRONG_TYPE),
        }
    }

    fn set<'a>(
        &mut self,
        now: Instant,
        key: &[u8],
        value: &[u8],
        mut options: impl Iterator<Item = &'a [u8]>,
        out: &mut Output,
    ) {
        let (mut until, mut only_if) = (None, None);
        while let Some(option) = options.next() {
            let unit = match option.to_ascii_uppercase().as_slice() {
                b"EX" => 1000,
                b"PX" => 1,
                b"NX" if only_if != Some(true) => {
                    only_if = Some(false);
                    continue;
                }
                b"XX" if only_if != Some(false) => {
                    only_if = Some(true);
                    continue;
                }
                _ => return out.text(SYNTAX),
            };
            let time = options.next().and_then(integer).and_then(|n| n.checked_mul(unit));
            match time.filter(|&millis| (1..=1 << 40).contains(&millis)) {
                Some(millis) => until = Some(now + Duration::from_millis(millis as u64)),
                None => return out.text("-ERR invalid expire time in 'set' command"),
            }
        }
        let store = &mut *self.store.borrow_mut();
        let old = store.live(key, now);
        if only_if.is_some_and(|there| there != old.is_some()) {
            return out.text(NIL);
        }
        match old {
            Some(Entry { value: Value::Text(text), until: ends }) => {
                text.clear();
                text.extend_from_slice(value);
                *ends = until;
            }
            Some(entry) => *entry = Entry { value: Value::Text(value.to_vec()), until },
            None => {
                let entry = Entry { value: Value::Text(value.to_vec()), until };
                store.keys.insert(key.to_vec(), entry);
            }
        }
        out.text(OK);
    }

    fn increment(&mut self, now: Instant, key: &[u8], out: &mut Output) {
        let store = &mut *self.store.borrow_mut();
        match store.live(key, now).map(|entry| &mut entry.value) {
            None => {
                let entry = Entry { value: Value::Text(b"1".to_vec()), until: None };
                store.keys.insert(key.to_vec(), entry);
                out.integer(1);
            }
            Some(Value::Text(text)) => match integer(text).and_then(|n| n.checked_add(1)) {
                Some(n) => {
                    text.clear();
                    let _ = write!(text, "{n}");
                    out.integer(n);
                }
                None => out.text(NOT_INTEGER),
            },
            Some(Value::List(_)) => out.text(WRONG_TYPE),
        }
    }

    fn push<'a>(
        &mut self,
        now: Instant,
        key: &[u8],
        values: impl Iterator<Item = &'a [u8]>,
        out: &mut Output,
    ) {
        let store = &mut *self.store.borrow_mut();
        if store.live(key, now).is_none() {
            let entry = Entry { value: Value::List(VecDeque::new()), until: None };
            store.keys.insert(key.to_vec(), entry);
        }
        match store.live(key, now).map(|entry| &mut entry.value) {
            Some(Value::List(list)) => {
                values.for_each(|value| list.push_front(value.to_vec()));
                out.integer(list.len() as i64);
            }
            _ => out.text(WRONG_TYPE),
        }
    }

    fn list(
        &mut self,
        now: Instant,
        key: &[u8],
        out: &mut Output,
        answer: impl FnOnce(&VecDeque<Vec<u8>>, &mut Output),
    ) {
        match self.store.borrow_mut().live(key, now).map(|entry| &entry.value) {
            None => answer(&VecDeque::new(), out),
            Some(Value::List(list)) => answer(list, out),
            Some(Value::Text(_)) => out.text(WRONG_TYPE),
        }
    }

    fn range(&mut self, now: Instant, key: &[u8], from: &[u8], to: &[u8], out: &mut Output) {
        let (Some(from), Some(to)) = (integer(from), integer(to)) else {
            return out.text(NOT_INTEGER);
        };
        self.list(now, key, out, |list, out| {
            let from = index(from, list.len()).max(0) as usize;
            let to = index(to, list.len()).saturating_add(1).clamp(0, list.len() as i64) as usize;
            let part = list.range(from.min(to)..to);
            out.length(b'*', part.len());
            part.for_each(|value| out.bulk(value));
        });
    }

    fn publish(&mut self, cx: &mut Ctx<'_>, channel: &[u8], message: &[u8], out: &mut Output) {
        let store = self.store.borrow();
        let mut receivers = 0;
        if let Some(subscribers) = store.channels.get(channel) {
            let mut push = Output(Vec::new());
            push.text("*3\r\n$7\r\nmessage");
            push.bulk(channel);
            push.bulk(message);
            let push = bytes::Bytes::from(push.0);
            for &id in subscribers {
                if id == cx.id() {
                    out.0.extend_from_slice(&push);
                    receivers += 1;
                } else if let Some(mut subscriber) = cx.conn(id) {
                    subscriber.write_owned(push.clone());
                    receivers += 1;
                }
            }
        }
        out.integer(receivers);
    }

    fn subscribe(&mut self, cx: &Ctx<'_>, channel: &[u8], out: &mut Output) {
        let store = &mut *self.store.borrow_mut();
        store.channels.entry(channel.to_vec()).or_default().insert(cx.id());
        self.channels.insert(channel.to_vec());
        out.text("*3\r\n$9\r\nsubscribe");
        out.bulk(channel);
        out.integer(self.channels.len() as i64);
    }

    fn unsubscribe(&mut self, id: ConnId, channel: &[u8], out: &mut Output) {
        let store = &mut *self.store.borrow_mut();
        if let Some(subscribers) = store.channels.get_mut(channel) {
            subscribers.remove(&id);
            if subscribers.is_empty() {
                store.channels.remove(channel);
            }
        }
        self.channels.remove(channel);
        out.text("*3\r\n$11\r\nunsubscribe");
        out.bulk(channel);
        out.integer(self.channels.len() as i64);
    }
}

const COMMANDS: [&[u8]; 15] = [
    b"GET",
    b"SET",
    b"PING",
    b"ECHO",
    b"INCR",
    b"LPUSH",
    b"LLEN",
    b"LRANGE",
    b"DEL",
    b"EXISTS",
    b"TTL",
    b"PUBLISH",
    b"SUBSCRIBE",
    b"CONFIG",
    b"DBSIZE",
];

impl EvHandler for Client {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let output = self.output.clone();
        let out = &mut *output.borrow_mut();
        out.0.clear(); // what a callback left that panicked is not for this client
        let mut at = 0;
        while at < data.len() && !self.quits {
            match parse(data, at, &mut self.arguments) {
                Parsed::Command(end) => {
                    self.run(cx, data, out);
                    at = end;
                }
                Parsed::Incomplete => break,
                Parsed::Broken(why) => {
                    out.text(&format!("-ERR Protocol error: {why}"));
                    cx.write(&out.0);
                    out.0.clear();
                    cx.close();
                    return Ok(data.len());
                }
            }
            // A peer that asks for much and reads little is asked to read first.
            if out.0.len() >= 32 << 10 {
                cx.write(&out.0);
                out.0.clear();
                if cx.pending_output() > OUTPUT_HIGH {
                    break; // what is left is offered again when the output is below its low mark
                }
            }
        }
        cx.write(&out.0);
        out.0.clear();
        if self.quits {
            cx.close();
        }
        Ok(at)
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, _: &Close) {
        let mut unheard = Output(Vec::new());
        for channel in std::mem::take(&mut self.channels) {
            self.unsubscribe(cx.id(), &channel, &mut unheard);
        }
    }
}

/// Forgets keys whose time is up, though nobody asks for them.
struct Sweeper(Rc<RefCell<Store>>);

impl EvHandler for Sweeper {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.set_periodic(SWEEP);
        Ok(())
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, _: TimerId) -> io::Result<()> {
        let now = cx.now();
        self.0.borrow_mut().keys.retain(|_, entry| entry.until.is_none_or(|until| until > now));
        Ok(())
    }
}

/// A store that speaks RESP2, as Redis does
#[derive(clap::Parser)]
#[command(name = "redis", version, mut_arg("reactors", |arg| arg.default_value("1")))]
struct Options {
    #[command(flatten)]
    serve: common::Serve,
}

fn main() -> ExitCode {
    common::run("127.0.0.1:6379", |mut options: Options| {
        options.serve.spin_us.get_or_insert(SPIN_US);
        let config =
            Config { input_max: INPUT_MAX, output_high: OUTPUT_HIGH, ..options.serve.config() };
        let mut server = Server::new(config)?;
        let listener = server.listen(&options.serve.addr)?;
        reev::stop_on_signals(&server.handle())?;
        let addr = server.local_addr(listener);
        let running = server.start(move |reactor| {
            let store = Rc::new(RefCell::new(Store::default()));
            let output = Rc::new(RefCell::new(Output(Vec::new())));
            reactor.add(Sweeper(store.clone()));
            reactor.accept(listener, move |_: &Addr| Client {
                store: store.clone(),
                arguments: Vec::new(),
                output: output.clone(),
                channels: HashSet::new(),
                quits: false,
            })
        })?;
        let port = addr.port().unwrap_or(6379);
        common::banner("redis", &addr, format!("redis-cli -p {port}"));
        running.join()
    })
}
