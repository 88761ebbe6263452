//! A listener that serves WebSockets and nothing else.

use super::handler::Handler;
use super::shared::WebSockets;
use crate::http1::{Fields, Request, Response, Service, Status};

/// The [`Service`] of one path; made by [`WebSockets::path`].
///
/// ```no_run
/// use reev::http1::{Http1, Options as Http};
/// use reev::websocket::{Handler, Options, WebSocket, WebSockets};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
///         let _ = ws.text(text);
///     }
/// }
///
/// let mut server = reev::Server::new(reev::Config::default())?;
/// let listener = server.listen("127.0.0.1:8081")?;
/// server.run(move |reactor| {
///     let (http, sockets) = (Http1::new(Http::default()), WebSockets::new(Options::default()));
///     reactor.accept(listener, move |_peer| http.connection(sockets.path("/ws", || Echo)))
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
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
