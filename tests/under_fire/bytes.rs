//! Hard cases 8 to 11: whatever way a connection ends, no byte is lost that need not be.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use reev::{Close, Config, Ctx, EvHandler};
use socket2::SockRef;

use crate::origin::{Origin, both_ways};
use crate::support::{
    Host, Record, Stream, assert_same, config, eventually, pattern, read_to_end, unix_host,
};

const SIZES: [usize; 2] = [1000, 1_048_577];

/// Busy in every callback until it gets a token, or until there are no more.
struct Busy {
    tokens: Receiver<()>,
    record: Record,
    greeting: &'static [u8],
}

impl EvHandler for Busy {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.write(self.greeting);
        self.record.note("open");
        Ok(())
    }

    fn on_read(&mut self, _cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let _ = self.tokens.recv();
        self.record.seen().bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.record.note("eof");
        cx.close();
        Ok(())
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, why: &Close) {
        self.record.note(why.kind());
    }
}

/// The peer writes `size` bytes and closes while the handler is busy; what the handler saw.
fn write_and_close<S: Stream>(
    size: usize,
    greeting: &'static [u8],
    serve: impl FnOnce(Receiver<()>, Record) -> (Host, S),
) -> Record {
    let (token, tokens) = mpsc::channel();
    let record = Record::default();
    let (host, mut stream) = serve(tokens, record.clone());
    record.wait_for("open");
    eventually("the greeting is sent", || host.stats().bytes_out == greeting.len() as u64);
    stream.unblock();
    let data = pattern(size);
    let mut rest = data.as_slice();
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(n) => rest = &rest[n..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = token.send(()); // one more read, and a little room
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
    drop(stream);
    drop(token);
    eventually("the end", || host.stats().open == 0);
    assert_same(&record.seen().bytes, &data);
    record
}

fn tcp_host(tokens: Receiver<()>, record: Record, greeting: &'static [u8]) -> Host {
    let tokens = Mutex::new(Some(tokens));
    Host::serve(config(1), move |_| Busy {
        tokens: tokens.lock().unwrap().take().unwrap(),
        record: record.clone(),
        greeting,
    })
}

/// Planted: a `recv` shorter than the buffer is taken for the end of the stream.
fn hard_case_08_a_close_while_the_handler_is_busy_loses_nothing_on_tcp(origin: Origin) {
    for size in SIZES {
        let record = write_and_close(size, b"", |tokens, record| {
            let host = tcp_host(tokens, record, b"");
            let stream = host.peer::<TcpStream>(origin);
            (host, stream)
        });
        assert_eq!(record.seen().calls, ["open", "eof", "peer"]);
    }
}

/// A peer that closes without having read the greeting resets. What it sent before is there.
///
/// Planted: EPOLLHUP and EPOLLERR end the connection at once.
fn hard_case_08_a_reset_while_the_handler_is_busy_loses_nothing_that_arrived(origin: Origin) {
    let record = write_and_close(1000, b"unread", |tokens, record| {
        let host = tcp_host(tokens, record, b"unread");
        let stream = host.peer::<TcpStream>(origin);
        // Closing resets, with the greeting unread; but only if it is there.
        stream.peek(&mut [0; 6]).unwrap();
        (host, stream)
    });
    assert_eq!(record.seen().calls, ["open", "io"]);
}

/// Planted: EPOLLHUP and EPOLLERR end the connection at once.
fn hard_case_08_a_close_while_the_handler_is_busy_loses_nothing_on_a_unix_socket(origin: Origin) {
    for (size, greeting) in [(SIZES[0], &b""[..]), (SIZES[1], b""), (SIZES[1], b"unread")] {
        let record = write_and_close(size, greeting, |tokens, record| {
            let tokens = Mutex::new(Some(tokens));
            let host = unix_host(config(1), move |_| Busy {
                tokens: tokens.lock().unwrap().take().unwrap(),
                record: record.clone(),
                greeting,
            });
            let stream = host.peer::<UnixStream>(origin);
            (host, stream)
        });
        let end = if greeting.is_empty() { &["open", "eof", "peer"][..] } else { &["open", "io"] };
        assert_eq!(record.seen().calls, end);
    }
}

/// Counts the bytes of a request; when it has ended, answers with as many, times `factor`.
struct AnswerAtEof {
    request: usize,
    factor: usize,
    record: Record,
}

impl EvHandler for AnswerAtEof {
    fn on_read(&mut self, _cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        self.request += data.len();
        Ok(data.len())
    }

    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.write(&pattern(self.request * self.factor));
        cx.close();
        Ok(())
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, why: &Close) {
        self.record.note(why.kind());
    }
}

fn half_close(host: &Host, record: &Record, mut stream: impl Stream) {
    stream.write_all(&pattern(100_000)).unwrap();
    stream.half_close();
    assert_same(&read_to_end(&mut stream), &pattern(4_000_000));
    record.wait_for("peer");
    eventually("the slot is free", || host.stats().open == 0);
}

/// Planted: the peer's FIN ends the connection when `on_eof` has returned.
fn hard_case_09_a_half_closed_peer_gets_all_of_the_answer(origin: Origin) {
    let record = Record::default();
    let at_eof = |record: Record| {
        move |_: &reev::Addr| AnswerAtEof { request: 0, factor: 40, record: record.clone() }
    };
    let host = Host::serve(config(1), at_eof(record.clone()));
    half_close(&host, &record, host.peer::<TcpStream>(origin));
    let record = Record::default();
    let host = unix_host(config(1), at_eof(record.clone()));
    half_close(&host, &record, host.peer::<UnixStream>(origin));
}

/// Writes so much at once, and closes.
struct WriteAndClose {
    data: Vec<u8>,
    record: Record,
}

impl EvHandler for WriteAndClose {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.write(&self.data);
        cx.close();
        Ok(())
    }

    fn on_read(&mut self, _cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        Ok(data.len())
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, why: &Close) {
        self.record.note(why.kind());
    }
}

const EIGHT_MIB: usize = 8 << 20;

fn eight_mib(record: &Record) -> impl Fn(&reev::Addr) -> WriteAndClose + Send + Sync + 'static {
    let record = record.clone();
    move |_| WriteAndClose { data: pattern(EIGHT_MIB), record: record.clone() }
}

/// Reads in small pieces, with pauses.
fn read_slowly(stream: &mut impl Read) -> Vec<u8> {
    let mut got = Vec::new();
    let mut piece = vec![0; 50_000];
    loop {
        match stream.read(&mut piece).unwrap() {
            0 => return got,
            n => got.extend_from_slice(&piece[..n]),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Planted: `close()` ends the connection without waiting for its queue.
fn hard_case_10_close_flushes_eight_mib_to_a_slow_peer(origin: Origin) {
    let record = Record::default();
    let host = Host::serve(config(1), eight_mib(&record));
    assert_same(&read_slowly(&mut host.peer::<TcpStream>(origin)), &pattern(EIGHT_MIB));
    record.wait_for("local");
    let record = Record::default();
    let host = unix_host(config(1), eight_mib(&record));
    assert_same(&read_slowly(&mut host.peer::<UnixStream>(origin)), &pattern(EIGHT_MIB));
    record.wait_for("local");
}

/// Planted: the timer that bounds the flush is not armed.
fn hard_case_10_a_deadline_bounds_the_flush(origin: Origin) {
    let record = Record::default();
    let close_timeout = Duration::from_millis(300);
    let host = Host::serve(Config { close_timeout, ..config(1) }, eight_mib(&record));
    let began = Instant::now();
    let mut stream = host.peer::<TcpStream>(origin);
    record.wait_for("close_timeout");
    assert!(began.elapsed() >= close_timeout);
    eventually("all is given back", || {
        let stats = host.stats();
        (stats.open, stats.timers, stats.output_queued) == (0, 0, 0)
    });
    // The peer is told by a reset that this was not all.
    let error = io::copy(&mut stream, &mut io::sink()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Answers at the first byte with two MiB and closes, whatever else may come.
struct AnswerEarly(Record);

impl EvHandler for AnswerEarly {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        cx.write(&pattern(2 << 20));
        cx.close();
        Ok(data.len())
    }

    fn on_close(&mut self, _cx: &mut Ctx<'_>, why: &Close) {
        self.0.note(why.kind());
    }
}

/// Planted: no lingering: a connection whose output is flushed is closed at once.
fn hard_case_11_unread_input_does_not_reset_the_answer_away(origin: Origin) {
    let record = Record::default();
    let factory = record.clone();
    let config = Config { linger_timeout: Duration::from_secs(3600), ..config(1) };
    let host = Host::serve(config, move |_| AnswerEarly(factory.clone()));
    let mut stream = host.peer::<TcpStream>(origin);
    // More than one read takes, so that some of it is unread when the answer is written.
    stream.write_all(&pattern(300_000)).unwrap();
    let mut got = vec![0; 1 << 20];
    stream.read_exact(&mut got).unwrap();
    record.wait_for("local"); // the rest of the answer is on its way, the FIN behind it
    stream.write_all(&pattern(300_000)).unwrap();
    got.extend(read_to_end(&mut stream));
    assert_same(&got, &pattern(2 << 20));
    assert_eq!(host.stats().open, 1, "it waits for the peer's FIN");
    drop(stream);
    eventually("the peer's FIN ends it", || host.stats().open == 0);
}

/// Planted: the discarded bytes are not counted.
fn hard_case_11_lingering_is_bounded_in_bytes(origin: Origin) {
    let record = Record::default();
    let factory = record.clone();
    let hour = Duration::from_secs(3600);
    let config = Config { linger_timeout: hour, linger_bytes_max: 100_000, ..config(1) };
    let host = Host::serve(config, move |_| AnswerEarly(factory.clone()));
    let mut stream = host.peer::<TcpStream>(origin);
    stream.write_all(b"go").unwrap();
    assert_same(&read_to_end(&mut stream), &pattern(2 << 20));
    let flood = vec![0; 50_000];
    let cut = (0..2000).find_map(|_| stream.write_all(&flood).err());
    assert!(cut.is_some(), "100 MB were discarded");
    eventually("the slot is free", || host.stats().open == 0);
}

/// Planted: the linger timer is not armed.
fn hard_case_11_lingering_is_bounded_in_time(origin: Origin) {
    let record = Record::default();
    let factory = record.clone();
    let config = Config { linger_timeout: Duration::from_millis(200), ..config(1) };
    let host = Host::serve(config, move |_| AnswerEarly(factory.clone()));
    let mut stream = host.peer::<TcpStream>(origin);
    SockRef::from(&stream).set_tcp_nodelay(true).unwrap();
    stream.write_all(b"go").unwrap();
    assert_same(&read_to_end(&mut stream), &pattern(2 << 20));
    eventually("the slot is free", || host.stats().open == 0);
}

both_ways!(
    hard_case_08_a_close_while_the_handler_is_busy_loses_nothing_on_tcp,
    hard_case_08_a_reset_while_the_handler_is_busy_loses_nothing_that_arrived,
    hard_case_08_a_close_while_the_handler_is_busy_loses_nothing_on_a_unix_socket,
    hard_case_09_a_half_closed_peer_gets_all_of_the_answer,
    hard_case_10_close_flushes_eight_mib_to_a_slow_peer,
    hard_case_10_a_deadline_bounds_the_flush,
    hard_case_11_unread_input_does_not_reset_the_answer_away,
    hard_case_11_lingering_is_bounded_in_bytes,
    hard_case_11_lingering_is_bounded_in_time,
);
