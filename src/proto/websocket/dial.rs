//! A client's handshake: request out, response in, then the WebSocket.

use std::io;
use std::rc::Rc;

use super::client::{HandshakeError, Key};
use super::connection::Connection;
use super::endpoint::Endpoint;
use super::frame::Role;
use super::handler::Handler;
use super::shared::Shared;
use crate::{Close, Ctx, EvHandler, TimerId};

/// Header fields that a response may have; more is refused.
const FIELDS_MAX: usize = 64;
/// Bytes that the head of a response may have; more is refused.
const HEAD_MAX: usize = 16 << 10;

/// The [`EvHandler`] of a client until its handshake is done; made by
/// [`WebSockets::client`](super::WebSockets::client).
pub struct Dial<H> {
    shared: Rc<Shared>,
    key: Key,
    head: Vec<u8>,
    /// None when it has taken over, or was told of the failure.
    handler: Option<H>,
    timer: TimerId,
}

impl<H: Handler> Dial<H> {
    pub(super) fn new(shared: Rc<Shared>, key: Key, head: Vec<u8>, handler: H) -> Dial<H> {
        Dial { shared, key, head, handler: Some(handler), timer: TimerId::NONE }
    }

    /// Looks at what has come of the response. The bytes of its head, if it is complete.
    fn establish(&mut self, cx: &mut Ctx<'_>, data: &[u8]) -> io::Result<usize> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let used = match response.parse(data) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) if data.len() < HEAD_MAX => return Ok(0),
            Ok(httparse::Status::Partial) => return Err(no_response("its head is too long")),
            Err(error) => return Err(no_response(&error.to_string())),
        };
        if response.version != Some(1) {
            return Err(no_response("it is not of HTTP/1.1"));
        }
        let status = response.code.unwrap_or(0);
        if (100..=199).contains(&status) && status != 101 {
            return Ok(used); // an interim answer, before the one that counts (RFC 9110 section 15.2)
        }
        let headers = response.headers.iter().map(|field| (field.name.as_bytes(), field.value));
        let (deflate, place) = self.shared.request(|request| {
            let established = request.check(&self.key, status, headers)?;
            let place = established
                .protocol
                .and_then(|chosen| request.protocols.iter().position(|asked| *asked == chosen));
            Ok::<_, HandshakeError>((established.deflate, place))
        })?;
        if let Some(handler) = self.handler.take() {
            let options = &self.shared.options.codec;
            let codec = Connection::new(Role::Client, options, deflate.as_ref());
            cx.cancel_timer(self.timer);
            cx.replace(Endpoint::new(self.shared.clone(), codec, handler, place));
        }
        Ok(used)
    }

    fn fail(&mut self, cx: &mut Ctx<'_>, error: io::Error) {
        if let Some(mut handler) = self.handler.take() {
            handler.on_connect_fail(cx, error);
        }
    }
}

fn no_response(why: &str) -> io::Error {
    let message = format!("websocket: the server's answer is no response: {why}");
    io::Error::new(io::ErrorKind::InvalidData, message)
}

impl<H: Handler> EvHandler for Dial<H> {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.write(&self.head);
        self.head = Vec::new();
        self.timer = cx.set_timer(self.shared.options.handshake_timeout);
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let mut used = 0;
        while self.handler.is_some() {
            match self.establish(cx, &data[used..]) {
                Ok(0) => break,
                Ok(taken) => used += taken,
                Err(error) => {
                    self.fail(cx, error);
                    cx.close();
                    return Ok(data.len());
                }
            }
        }
        Ok(used)
    }

    /// The only timer is the handshake's.
    fn on_timeout(&mut self, cx: &mut Ctx<'_>, _timer: TimerId) -> io::Result<()> {
        let message = "websocket: the server did not answer the handshake in time";
        self.fail(cx, io::Error::new(io::ErrorKind::TimedOut, message));
        cx.abort();
        Ok(())
    }

    fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, error: io::Error) {
        self.fail(cx, error);
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        let message = format!("websocket: the connection ended in the handshake: {why}");
        self.fail(cx, io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }

    fn name(&self) -> &'static str {
        self.handler.as_ref().map_or("a WebSocket handshake", |handler| handler.name())
    }
}
