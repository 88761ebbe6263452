//! WebSocket messages, each answered by one.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use reev::websocket::{
    CloseCode, Closed, DeflateConfig, Handler, Options, WebSocket, WebSockets, client,
};
use reev::{Close, Ctx, TimerId};

use crate::echo;
use crate::http::field_of;
use crate::line::{Line, Wake};
use crate::options;
use crate::target::{Url, invalid};

/// What all connections ask for and send.
#[derive(Clone)]
pub(crate) struct Talk {
    url: Url,
    headers: Vec<(String, String)>,
    message: String,
    text: bool,
    any_answer: bool,
    deflate: bool,
}

impl Talk {
    pub(crate) fn new(options: &options::Ws, url: Url) -> io::Result<Talk> {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let fields = options.headers.iter().map(|field| Ok(own(field_of(field)?)));
        let talk = Talk {
            url,
            headers: fields.collect::<io::Result<_>>()?,
            message: String::from_utf8(echo::message(options.size)).expect("it is ASCII"),
            text: options.text,
            any_answer: options.any_answer,
            deflate: options.deflate,
        };
        talk.check()?;
        Ok(talk)
    }

    fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// What makes no request makes none on any connection: better told once.
    fn check(&self) -> io::Result<()> {
        let headers = self.headers();
        let request = client::Request::new(&self.url.host, &self.url.path);
        let request = client::Request { headers: &headers, ..request };
        let written = request.write(&client::Key::from_nonce([0; 16]), &mut Vec::new());
        written.map_err(|error| invalid(format!("the handshake: {error}")))
    }

    pub(crate) fn message_len(&self) -> usize {
        self.message.len()
    }

    /// Makes the handlers of a thread.
    pub(crate) fn sockets(&self) -> Sockets {
        let mut options = Options::default();
        options.codec.message_max = options.codec.message_max.max(self.message.len());
        options.codec.deflate = self.deflate.then(DeflateConfig::default);
        Sockets { sockets: WebSockets::new(options), talk: Rc::new(self.clone()) }
    }
}

pub(crate) struct Sockets {
    sockets: WebSockets,
    talk: Rc<Talk>,
}

impl Sockets {
    pub(crate) fn dial(&self, line: Line) -> io::Result<impl reev::EvHandler + use<>> {
        let talk = self.talk.clone();
        let Url { host, path, .. } = &self.talk.url;
        self.sockets.client_with(host, path, &self.talk.headers(), Client { line, talk })
    }
}

struct Client {
    line: Line,
    talk: Rc<Talk>,
}

impl Client {
    fn send(&mut self, ws: &mut WebSocket<'_>) {
        for _ in 0..self.line.take_due(&mut ws.ctx()) {
            // After the close frame nothing is sent; `on_close` tells what is owed.
            let _ = match self.talk.text {
                true => ws.text(&self.talk.message),
                false => ws.binary(self.talk.message.as_bytes()),
            };
        }
        if self.line.is_spent() {
            ws.close(CloseCode::NORMAL, "");
        }
    }

    fn answered(&mut self, ws: &mut WebSocket<'_>, text: bool, data: &[u8]) {
        let is_echo = text == self.talk.text && data == self.talk.message.as_bytes();
        if !is_echo && !self.talk.any_answer {
            let kind = if text { "text" } else { "binary" };
            self.line.fail("not an echo", || format!("{} bytes of {kind} came back", data.len()));
            return ws.ctx().abort();
        }
        match self.line.answered(Instant::now(), None) {
            true => self.send(ws),
            false => ws.ctx().abort(),
        }
    }
}

impl Handler for Client {
    fn on_open(&mut self, ws: &mut WebSocket<'_>) {
        self.line.opened(&mut ws.ctx());
        self.send(ws);
    }

    fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
        self.answered(ws, true, text.as_bytes());
    }

    fn on_binary(&mut self, ws: &mut WebSocket<'_>, data: &[u8]) {
        self.answered(ws, false, data);
    }

    fn on_close_frame(&mut self, ws: &mut WebSocket<'_>, code: CloseCode, reason: &str) {
        if ws.is_open() && !self.line.is_even() {
            let words = || format!("{} {reason}", code.0).trim_end().to_owned();
            self.line.fail("closed by the server before it answered", words);
        }
    }

    fn on_timeout(&mut self, ws: &mut WebSocket<'_>, timer: TimerId) {
        match self.line.woken(&mut ws.ctx(), timer) {
            Wake::Send => self.send(ws),
            Wake::Close => ws.close(CloseCode::NORMAL, ""),
            Wake::GiveUp => ws.ctx().abort(),
        }
    }

    fn on_shutdown(&mut self, ws: &mut WebSocket<'_>) {
        if self.line.is_over() {
            ws.close(CloseCode::NORMAL, "");
        }
    }

    fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, error: io::Error) {
        self.line.refused(cx, &error);
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, closed: &Closed<'_>) {
        if let Some(error) = closed.error {
            self.line.fail("not a WebSocket", || error.to_string());
        }
        let by_us = closed.clean && self.line.is_even();
        let why = if by_us { &Close::Local } else { closed.cause };
        self.line.closed(cx, why, closed.clean);
    }
}
