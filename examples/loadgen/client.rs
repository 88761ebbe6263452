//! The handler of a connection on which requests and answers are bytes.

use std::io;
use std::time::Instant;

use reev::{Close, Ctx, EvHandler, TimerId};

use crate::line::{Line, Wake};

/// What is sent, and how answers are found in what comes.
pub(crate) trait Protocol: 'static {
    fn request(&self) -> &[u8];

    /// Takes answers out of `data` and hands each to `found`; what it did not use is offered again.
    fn parse(&mut self, data: &[u8], found: &mut dyn FnMut(Answer)) -> Result<usize, Wrong>;

    /// The server's end: the answer that it completes.
    fn eof(&mut self) -> Option<Answer> {
        None
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) status: Option<u16>,
    /// The server closes behind it.
    pub(crate) last: bool,
}

/// Why something is no answer: its kind, and what exactly.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Wrong(pub(crate) &'static str, pub(crate) String);

pub(crate) struct Client<P> {
    line: Line,
    protocol: P,
    /// The server has said that it closes.
    last: bool,
}

impl<P: Protocol> Client<P> {
    pub(crate) fn new(line: Line, protocol: P) -> Client<P> {
        Client { line, protocol, last: false }
    }

    fn send(&mut self, cx: &mut Ctx<'_>) {
        if self.last {
            return;
        }
        for _ in 0..self.line.take_due(cx) {
            cx.write(self.protocol.request());
        }
        if self.line.is_spent() {
            cx.close();
        }
    }
}

impl<P: Protocol> EvHandler for Client<P> {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.line.opened(cx);
        self.send(cx);
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let now = Instant::now();
        let (line, last) = (&mut self.line, &mut self.last);
        let mut sound = true;
        let parsed = self.protocol.parse(data, &mut |answer| {
            *last |= answer.last;
            sound &= line.answered(now, answer.status);
        });
        match parsed {
            Ok(used) if sound => {
                if self.last {
                    cx.close();
                }
                self.send(cx);
                Ok(used)
            }
            parsed => {
                if let Err(Wrong(kind, what)) = parsed {
                    self.line.fail(kind, || what);
                }
                cx.abort();
                Ok(data.len())
            }
        }
    }

    fn on_eof(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        if let Some(answer) = self.protocol.eof() {
            self.last = true;
            self.line.answered(Instant::now(), answer.status);
        }
        cx.close();
        Ok(())
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, timer: TimerId) -> io::Result<()> {
        match self.line.woken(cx, timer) {
            Wake::Send => self.send(cx),
            Wake::Close => cx.close(),
            Wake::GiveUp => cx.abort(),
        }
        Ok(())
    }

    fn on_connect_fail(&mut self, cx: &mut Ctx<'_>, error: io::Error) {
        self.line.refused(cx, &error);
    }

    fn on_shutdown(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        if self.line.is_over() {
            cx.close();
        }
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        self.line.closed(cx, why, self.last);
    }
}
