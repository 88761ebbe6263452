//! A request that is not over at once: its body is still to come, or its answer.

use super::body::{BodyDecoder, BodyKind, Step};
use super::connection::{Connection, Pass};
use super::head::{Head, HeadDecoder, HeaderSlots};
use super::request::{Reply, Request};
use super::respond::{Progress, Response};
use super::response::put_continue;
use super::service::{Intake, Service};
use crate::Ctx;

pub(super) struct Exchange {
    pub(super) reply: Reply,
    /// The body, until its end has come.
    pub(super) incoming: Option<Incoming>,
    pub(super) progress: Progress,
}

pub(super) struct Incoming {
    decoder: BodyDecoder,
    /// None if the content is streamed.
    collected: Option<Collected>,
}

struct Collected {
    /// The bytes of the head, to be read again when the content is complete.
    head: Vec<u8>,
    content: Vec<u8>,
}

impl<S: Service> Connection<S> {
    /// A request with a body. True if the next request can be looked at.
    #[cold]
    pub(super) fn with_body(
        &mut self,
        cx: &mut Ctx<'_>,
        pass: &mut Pass<'_>,
        request: Request<'_>,
        head: &[u8],
    ) -> bool {
        let mut res = Response::new(cx, &self.shared, pass.reply, Progress::Due, true);
        let intake = self.service.on_head(&request, &mut res);
        let (progress, reply) = res.into_parts();
        if !matches!(progress, Progress::Due) {
            return self.settle(cx, progress, reply); // which closes, the body being unread
        }
        let rest = pass.rest();
        let arrived = match request.body_kind() {
            BodyKind::Length(length) => usize::try_from(length).ok().filter(|&n| n <= rest.len()),
            _ => None,
        };
        if let (Intake::Whole, Some(length)) = (intake, arrived) {
            pass.used += length;
            return self.answer_whole(cx, request.with_content(&rest[..length]), pass.reply);
        }
        let decoder = BodyDecoder::new(request.body_kind(), &self.shared.options.limits);
        let (reply, mut progress) = (pass.reply, Progress::Due);
        let collected = match intake {
            Intake::Whole => Some(Collected { head: head.to_vec(), content: Vec::new() }),
            Intake::Streamed => {
                let mut res = Response::new(cx, &self.shared, reply, Progress::Due, true);
                self.service.on_request(&request, &mut res);
                let (progressed, closing) = res.into_parts();
                match progressed {
                    Progress::Due | Progress::Awaited(_) => progress = progressed,
                    Progress::Streaming(_) => {
                        let incoming = Some(Incoming { decoder, collected: None });
                        let reply = closing;
                        self.put_exchange(cx, Exchange { reply, incoming, progress: progressed });
                        return self.receive(cx, pass);
                    }
                    Progress::Done | Progress::Upgraded => {
                        return self.settle(cx, progressed, closing);
                    }
                }
                None
            }
        };
        if request.wants_continue(!rest.is_empty()) {
            put_continue(cx);
        }
        let incoming = Some(Incoming { decoder, collected });
        self.put_exchange(cx, Exchange { reply, incoming, progress });
        self.receive(cx, pass)
    }

    /// Takes what has come of a body, if one is under way. True if the next request can be
    /// looked at.
    #[cold]
    pub(super) fn receive(&mut self, cx: &mut Ctx<'_>, pass: &mut Pass<'_>) -> bool {
        loop {
            let Some(exchange) = self.exchange.as_deref_mut() else {
                return false; // it was answered and closes
            };
            pass.reply = exchange.reply;
            let Some(incoming) = &mut exchange.incoming else {
                return false; // its answer is awaited
            };
            match incoming.decoder.decode(pass.rest()) {
                Err(reject) => {
                    self.reject(cx, reject);
                    return false;
                }
                Ok(Step::More { used }) => {
                    pass.used += used;
                    self.await_body(cx);
                    return false;
                }
                Ok(Step::Trailer { used, .. }) => pass.used += used,
                Ok(Step::Data { data, used }) => {
                    pass.used += used;
                    match &mut incoming.collected {
                        Some(collected) => collected.content.extend_from_slice(data),
                        None => {
                            self.call(cx, |service, res| service.on_body(data, res));
                            if self.end_if_done(cx) {
                                return false; // which closes, the body being unread
                            }
                        }
                    }
                }
                Ok(Step::End { used }) => {
                    pass.used += used;
                    return self.received(cx);
                }
            }
        }
    }

    /// The end of a body. True if the next request can be looked at.
    fn received(&mut self, cx: &mut Ctx<'_>) -> bool {
        let Some(exchange) = &mut self.exchange else {
            return false;
        };
        if self.last {
            exchange.reply.close(); // the shutdown began while the body came
        }
        let reply = exchange.reply;
        match exchange.incoming.take().and_then(|incoming| incoming.collected) {
            Some(Collected { head, content }) => {
                self.exchange = None;
                let mut slots = HeaderSlots::new();
                let mut decoder = HeadDecoder::default();
                match decoder.decode(&head, &mut slots, &self.shared.clone().options.limits) {
                    Ok(Head::Complete { request, .. }) => {
                        let request = request.with_content(&content);
                        let goes_on = self.answer_whole(cx, request, reply);
                        if self.exchange.is_none() {
                            self.disarm(cx);
                        }
                        goes_on
                    }
                    // The same bytes were a request before.
                    Ok(Head::Partial) => unreachable!("a complete head became incomplete"),
                    Err(reject) => {
                        self.reject(cx, reject);
                        false
                    }
                }
            }
            None => {
                self.call(cx, |service, res| service.on_end(res));
                let Some(exchange) = self.exchange.take() else {
                    return false;
                };
                self.disarm(cx);
                let Exchange { progress, reply, .. } = *exchange;
                self.settle(cx, progress, reply)
            }
        }
    }

    fn answer_whole(&mut self, cx: &mut Ctx<'_>, request: Request<'_>, reply: Reply) -> bool {
        let mut res = Response::new(cx, &self.shared, reply, Progress::Due, false);
        self.service.on_request(&request, &mut res);
        let (progress, reply) = res.into_parts();
        self.settle(cx, progress, reply)
    }
}
