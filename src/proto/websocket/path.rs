//! A listener that serves WebSockets and nothing else.

use super::handler::Handler;
use super::shared::WebSockets;
use crate::http1::{Fields, Request, Response, Service, Status};

/// The [`Service`] of one path; made by [`WebSockets::path`].
#[derive(Clone, Debug)]
pub struct Path<F> {
    sockets: WebSockets,
    path: Box<str>,
    factory: F,
}

impl<F> Path<F> {
    pub(super) fn new(sockets: WebSockets, path: &str, factory: F) -> Path<F> {
        Path { sockets, path: path.into(), factory }
    }
}

impl<H: Handler, F: Fn() -> H + 'static> Service for Path<F> {
    fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
        if req.path() == &*self.path {
            self.sockets.upgrade(req, res, (self.factory)());
        } else {
            res.send(Status::NOT_FOUND, Fields::NONE, b"");
        }
    }
}
