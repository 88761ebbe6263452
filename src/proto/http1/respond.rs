use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::answer::{Answer, put_line};
use super::field::{Fields, HeaderError, check_value};
use super::options::{Begun, Shared};
use super::request::Reply;
use super::responder::{Awaited, Responder, pair};
use super::response::{BodyEncoder, ResponseHead, Sink};
use super::status::Status;
use crate::{Ctx, EvHandler};

/// More than the parts of an answer's head that are not the service's take.
const HEAD_ROOM: usize = 256;
/// The largest buffer of header fields that is kept for the next answer.
const LINES_KEPT_MAX: usize = 16 << 10;
/// Files up to this size are read and sent with their head; longer ones go by `sendfile`.
const FILE_COPY_MAX: u64 = 16 << 10;

/// The answer to a request, as a service writes it.
///
/// Header fields come first, then one of [`send`](Response::send), [`body`](Response::body),
/// [`answer`](Response::answer), [`file`](Response::file), [`stream`](Response::stream) and
/// [`later`](Response::later). A request is answered once: what comes after is ignored, and
/// logged as an error. Nothing here fails or blocks, as of [`Ctx`].
///
/// ```
/// use reev::http1::{Request, Response, Service};
///
/// /// Counts to a million, no faster than the client reads.
/// struct Count(u32);
///
/// impl Service for Count {
///     fn on_request(&mut self, _req: &Request<'_>, res: &mut Response<'_>) {
///         self.0 = 0;
///         res.stream(); // then `on_drain`, again and again
///     }
///
///     fn on_drain(&mut self, res: &mut Response<'_>) {
///         let lines: String = (self.0..self.0 + 1000).map(|number| format!("{number}\n")).collect();
///         res.write(lines.as_bytes());
///         self.0 += 1000;
///         if self.0 == 1_000_000 {
///             res.end();
///         }
///     }
/// }
/// ```
pub struct Response<'a> {
    pub(super) cx: Ctx<'a>,
    shared: &'a Shared,
    pub(super) reply: Reply,
    pub(super) progress: Progress,
    status: Status,
    /// Header fields that are to be written.
    lines: Vec<u8>,
    /// Content was written in this callback.
    pub(super) wrote: bool,
}

/// How far the answer to a request is.
pub(super) enum Progress {
    /// Nothing has been done about it.
    Due,
    Awaited(Awaited),
    Streaming(BodyEncoder),
    Done,
    /// The connection has gone over to another handler.
    Upgraded,
}

impl<'a> Response<'a> {
    /// `body_left`: the request's body has not been read to its end.
    #[inline]
    pub(super) fn new(
        cx: &'a mut Ctx<'_>,
        shared: &'a Shared,
        mut reply: Reply,
        progress: Progress,
        body_left: bool,
    ) -> Response<'a> {
        if body_left {
            reply.close();
        }
        let cx = Ctx { core: cx.core, net: cx.net, id: cx.id };
        Response {
            cx,
            shared,
            reply,
            progress,
            status: Status::OK,
            lines: Vec::new(),
            wrote: false,
        }
    }

    /// The connection and its reactor, for timers, messages and other connections. What is
    /// written to the connection itself breaks the answers' framing.
    pub fn cx(&mut self) -> &mut Ctx<'a> {
        &mut self.cx
    }

    /// Sets the status of what follows; 200 otherwise.
    pub fn status(&mut self, status: Status) -> &mut Self {
        self.status = status;
        self
    }

    /// Adds a header field.
    ///
    /// # Errors
    /// A name or a value that could break the answer's framing, or a field that is the layer's;
    /// then nothing is added.
    pub fn header(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), HeaderError> {
        put_line(self.lines(), name, value.as_ref())
    }

    /// Adds fields that were checked before.
    pub fn fields(&mut self, fields: Fields<'_>) -> &mut Self {
        self.lines().extend_from_slice(fields.as_bytes());
        self
    }

    /// Makes this the connection's last answer.
    pub fn close(&mut self) -> &mut Self {
        self.reply.close();
        self
    }

    /// Answers with `body` as the content: the shortest way, which allocates nothing.
    #[inline]
    pub fn send(&mut self, status: Status, fields: Fields<'_>, body: &[u8]) {
        self.status = status;
        if !self.begin(Begun::Whole) {
            return;
        }
        let room = HEAD_ROOM + self.lines.len() + fields.as_bytes().len() + body.len();
        let date = self.shared.date.borrow();
        let (status, reply, lines) = (self.status, self.reply, &self.lines);
        match self.cx.core.scratch_room(self.cx.id, room) {
            Some(scratch) => {
                scratch.reserve(room);
                if status == Status::OK && lines.is_empty() && reply.is_usual() {
                    let mut last = self.shared.last_head.borrow_mut();
                    last.put(scratch, fields, body, reply, &date);
                    drop((last, date));
                    return self.end_whole();
                }
                let mut head = ResponseHead::start(scratch, status, reply, &date);
                head.raw(lines).fields(fields);
                head.body(body);
            }
            None => {
                let mut head = ResponseHead::start(&mut self.cx, status, reply, &date);
                head.raw(lines).fields(fields);
                head.body(body);
            }
        }
        drop(date);
        self.end_whole();
    }

    /// Answers with `body` as the content, behind the status and the fields set before.
    pub fn body(&mut self, body: &[u8]) {
        self.send(self.status, Fields::NONE, body);
    }

    /// Answers with what was prepared; fields set before come first.
    pub fn answer(&mut self, answer: Answer) {
        self.status = answer.status;
        self.lines().extend_from_slice(&answer.lines);
        if !self.begin(Begun::Whole) {
            return;
        }
        if self.write_head(answer.body.len() as u64).has_content() {
            self.cx.write_owned(answer.body);
        }
        self.end_whole();
    }

    /// Answers with a part of a file as the content; see [`Ctx::send_file`]. A short one is read
    /// at once and leaves with its head.
    ///
    /// A part that the file does not have resets the connection, or gives 500 where that is
    /// known in time.
    pub fn file(&mut self, file: File, part: Range<u64>) {
        let len = part.end.saturating_sub(part.start);
        let mut content = [0; FILE_COPY_MAX as usize];
        let short = len <= FILE_COPY_MAX;
        if short && let Err(error) = file.read_exact_at(&mut content[..len as usize], part.start) {
            log::error!("reading a file to be sent: {error}");
            self.lines.clear();
            return self.send(Status::INTERNAL_SERVER_ERROR, Fields::NONE, b"");
        }
        if short {
            return self.body(&content[..len as usize]);
        }
        if !self.begin(Begun::Whole) {
            return;
        }
        if self.write_head(len).has_content() {
            self.cx.send_file(file, part);
        }
        self.end_whole();
    }

    /// Begins an answer whose content follows through [`Response::write`] and
    /// [`Response::end`], now and in later callbacks: chunked, or to an HTTP/1.0 client until
    /// the connection's end.
    ///
    /// Where there is no content (HEAD, 204, 205, 304) the head is the whole answer: what is
    /// written is left out, and when the callback returns the next request may come.
    /// [`Service::on_drain`](super::Service::on_drain) is not called, so a service that writes
    /// on of itself, by a timer, asks [`Response::is_streaming`] first.
    pub fn stream(&mut self) {
        if self.begin(Begun::Partly) {
            let date = self.shared.date.borrow();
            let mut head = ResponseHead::start(&mut self.cx, self.status, self.reply, &date);
            head.raw(&self.lines);
            self.progress = Progress::Streaming(head.stream());
        }
    }

    /// Like [`Response::stream`], for content of which the length is known.
    pub fn stream_sized(&mut self, len: u64) {
        if self.begin(Begun::Partly) {
            let encoder = self.write_head(len);
            self.progress = Progress::Streaming(encoder);
        }
    }

    /// Writes a piece of streamed content. One beyond the length that was announced resets the
    /// connection.
    pub fn write(&mut self, data: &[u8]) {
        let Progress::Streaming(encoder) = &mut self.progress else {
            return log::error!("content was written to no streamed answer");
        };
        self.wrote |= !data.is_empty();
        if let Err(error) = encoder.put(&mut self.cx, data) {
            log::error!("{error}");
            self.cx.abort();
        }
    }

    /// Ends streamed content. One that is shorter than announced resets the connection.
    pub fn end(&mut self) {
        match std::mem::replace(&mut self.progress, Progress::Done) {
            Progress::Streaming(encoder) => match encoder.end(&mut self.cx) {
                Ok(true) => {}
                Ok(false) => self.reply.close(),
                Err(error) => {
                    log::error!("{error}");
                    self.cx.abort();
                }
            },
            other => self.progress = other,
        }
        self.shared.begun.set(Begun::Whole);
    }

    /// Whether the answer is streamed and not at its end.
    pub fn is_streaming(&self) -> bool {
        matches!(self.progress, Progress::Streaming(_))
    }

    /// Leaves the answer to the [`Responder`], which may go to another thread.
    pub fn later(&mut self) -> Responder {
        let (responder, awaited) = pair(self.cx.remote());
        match self.progress {
            Progress::Due => self.progress = Progress::Awaited(awaited),
            _ => log::error!("a request was answered more than once"), // and `awaited` is dropped
        }
        responder
    }

    /// Answers 101 and puts `handler` in the layer's place (RFC 9110 section 7.8), after the
    /// fields set before; it gets the bytes that follow the request. False, and nothing is done,
    /// if `protocol` is no token or the request's body is not read.
    pub fn upgrade(&mut self, protocol: &str, handler: impl EvHandler) -> bool {
        let named = !protocol.is_empty() && check_value(protocol.as_bytes()).is_ok();
        if !named || !self.reply.may_upgrade() || !matches!(self.progress, Progress::Due) {
            return false;
        }
        self.status = Status::SWITCHING_PROTOCOLS;
        self.shared.begun.set(Begun::Whole);
        let date = self.shared.date.borrow();
        let mut head = ResponseHead::start(&mut self.cx, self.status, self.reply, &date);
        head.raw(&self.lines);
        if head.upgrade(protocol).is_ok() {
            head.body(b"");
        }
        self.cx.replace(handler);
        self.progress = Progress::Upgraded;
        true
    }

    /// Answers 426, naming the `protocol` that is needed (RFC 9110 section 15.5.22); nothing if it
    /// is no value of a field.
    pub fn demand_upgrade(&mut self, protocol: &str, fields: Fields<'_>, body: &[u8]) {
        self.status = Status::UPGRADE_REQUIRED;
        if check_value(protocol.as_bytes()).is_err() || !self.begin(Begun::Whole) {
            return;
        }
        let date = self.shared.date.borrow();
        let mut head = ResponseHead::start(&mut self.cx, self.status, self.reply, &date);
        head.raw(&self.lines).fields(fields);
        if head.upgrade(protocol).is_ok() {
            head.body(body);
        }
        drop(date);
        self.end_whole();
    }

    /// Whether the answer may begin; if so it has, as far as a panic is concerned.
    #[inline]
    fn begin(&mut self, begun: Begun) -> bool {
        if !matches!(self.progress, Progress::Due) {
            log::error!("a request was answered more than once");
            return false;
        }
        if self.status.is_interim() {
            log::error!("{} is no final status", self.status.code());
            self.status = Status::INTERNAL_SERVER_ERROR;
        }
        self.shared.begun.set(begun);
        true
    }

    fn write_head(&mut self, len: u64) -> BodyEncoder {
        let date = self.shared.date.borrow();
        let mut head = ResponseHead::start(&mut self.cx, self.status, self.reply, &date);
        head.raw(&self.lines);
        head.length(len)
    }

    #[inline]
    fn end_whole(&mut self) {
        self.progress = Progress::Done;
        self.wrote = true;
    }

    fn lines(&mut self) -> &mut Vec<u8> {
        if self.lines.capacity() == 0 {
            self.lines = self.shared.lines.take();
            self.lines.clear();
        }
        &mut self.lines
    }

    /// What the callback has left.
    #[inline]
    pub(super) fn into_parts(self) -> (Progress, Reply) {
        if self.lines.capacity() > 0 && self.lines.capacity() <= LINES_KEPT_MAX {
            self.shared.lines.set(self.lines);
        }
        (self.progress, self.reply)
    }
}

impl Sink for Ctx<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.write(bytes);
    }
}
