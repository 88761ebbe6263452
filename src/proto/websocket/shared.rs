//! What the WebSockets of one reactor share.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;
use std::rc::Rc;

use super::dial::Dial;
use super::endpoint::Endpoint;
use super::error::SendError;
use super::handler::Handler;
use super::options::Options;
use super::path::Path;
use super::prepared::Prepared;
use super::server::{self, Reject};
use super::watch::Wheel;
use super::{Connection, Role, client};
use crate::conn::Flags;
use crate::http1::{Fields, Request, Response, Status, Version};
use crate::{ConnId, Ctx};

/// The WebSockets of one reactor: makes their handlers.
///
/// A service of HTTP upgrades in a line:
///
/// ```
/// use reev::http1::{Http1, Request, Response, Service};
/// use reev::websocket::{Handler, Options, WebSocket, WebSockets};
///
/// struct Echo;
///
/// impl Handler for Echo {
///     fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
///         let _ = ws.text(text); // after the close frame nothing is sent
///     }
/// }
///
/// struct Site(WebSockets);
///
/// impl Service for Site {
///     fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
///         self.0.upgrade(req, res, Echo);
///     }
/// }
///
/// let mut server = reev::Server::new(reev::Config { reactors: 1, ..Default::default() })?;
/// let listener = server.listen("127.0.0.1:0")?;
/// let running = server.start(move |reactor| {
///     let (http, sockets) = (Http1::new(Default::default()), WebSockets::new(Options::default()));
///     reactor.accept(listener, move |_peer| http.connection(Site(sockets.clone())))
/// })?;
/// running.handle().stop();
/// running.join()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct WebSockets {
    shared: Rc<Shared>,
}

impl WebSockets {
    /// To be made once on each reactor, in the setup closure.
    pub fn new(options: Options) -> WebSockets {
        let wheel = Wheel::new(&options.keep_alive);
        WebSockets { shared: Rc::new(Shared { options, wheel, sets: RefCell::default() }) }
    }

    /// Answers a handshake: 101, and `handler` takes the connection over; or what RFC 6455
    /// section 4.2.2 asks for, and false.
    pub fn upgrade<H: Handler>(
        &self,
        req: &Request<'_>,
        res: &mut Response<'_>,
        handler: H,
    ) -> bool {
        let options = &self.shared.options;
        let protocols: Vec<&str> = options.protocols.iter().map(String::as_str).collect();
        let offer =
            server::Options { protocols: &protocols, deflate: options.codec.deflate.as_ref() };
        let minor = u8::from(req.version() == Version::Http11);
        let headers = req.headers().iter().map(|(name, value)| (name.as_bytes(), value));
        let accept = match server::accept(req.method().as_bytes(), minor, headers, &offer) {
            Ok(accept) if options.origins.allows(accept.origin, accept.host) => accept,
            Ok(_) => return refuse(res, Reject::Forbidden),
            Err(reject) => return refuse(res, reject),
        };
        let codec = Connection::new(Role::Server, &options.codec, accept.deflate.as_ref());
        let place = accept.protocol.and_then(|chosen| protocols.iter().position(|p| *p == chosen));
        for (name, value) in accept.headers().filter(|(name, _)| name.starts_with("Sec-")) {
            if res.header(name, value).is_err() {
                return refuse(res, Reject::BadRequest("no answer can be made"));
            }
        }
        let endpoint = Endpoint::new(self.shared.clone(), codec, handler, place);
        res.upgrade("websocket", endpoint)
            || refuse(res, Reject::BadRequest("a handshake has no content"))
    }

    /// A service for a listener that has nothing else to serve: `path` upgrades, with a handler
    /// that `factory` makes; others give 404.
    pub fn path<H: Handler, F: Fn() -> H + 'static>(&self, path: &str, factory: F) -> Path<F> {
        Path::new(self.clone(), path, factory)
    }

    /// The handler of a client, for [`Ctx::connect`] and
    /// [`Reactor::connect`](crate::Reactor::connect): makes the handshake for `target` (path and
    /// query), then `handler` takes over. `host` is what the `Host` field says.
    ///
    /// # Errors
    /// `InvalidInput` if these make no request; what the system says if it has no random
    /// numbers.
    pub fn client<H: Handler>(
        &self,
        host: &str,
        target: &str,
        handler: H,
    ) -> std::io::Result<Dial<H>> {
        self.client_with(host, target, &[], handler)
    }

    /// [`WebSockets::client`] with more header fields, as `Origin` and `Authorization`.
    ///
    /// # Errors
    /// As of [`WebSockets::client`].
    pub fn client_with<H: Handler>(
        &self,
        host: &str,
        target: &str,
        headers: &[(&str, &str)],
        handler: H,
    ) -> std::io::Result<Dial<H>> {
        let key = client::Key::random()?;
        let mut head = Vec::new();
        self.shared.request(|request| {
            let request = client::Request { host, target, headers, ..request };
            request.write(&key, &mut head)
        })?;
        Ok(Dial::new(self.shared.clone(), key, head, handler))
    }
}

impl fmt::Debug for WebSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSockets").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// Answers what is no handshake, and closes. False, for the caller to return.
fn refuse(res: &mut Response<'_>, reject: Reject) -> bool {
    const VERSION: Fields<'static> =
        Fields::new("Sec-WebSocket-Version: 13\r\nContent-Type: text/plain\r\n");
    const ALLOW: Fields<'static> = Fields::new("Allow: GET\r\nContent-Type: text/plain\r\n");
    const PLAIN: Fields<'static> = Fields::new("Content-Type: text/plain\r\n");
    let message = reject.message().as_bytes();
    let fields = match reject {
        Reject::NotUpgrade | Reject::Version => {
            res.close().demand_upgrade("websocket", VERSION, message);
            return false;
        }
        Reject::Method => ALLOW,
        Reject::BadRequest(_) | Reject::Forbidden => PLAIN,
    };
    let status = Status::new(reject.status()).unwrap_or(Status::BAD_REQUEST);
    res.close().send(status, fields, message);
    false
}

pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) wheel: Wheel,
    sets: RefCell<Sets>,
}

/// Facts about few connections at a time.
#[derive(Default)]
struct Sets {
    /// Have sent their close frame.
    closing: HashSet<ConnId>,
    /// Are above the high mark, so that `on_drain` is owed.
    above: HashSet<ConnId>,
}

impl Shared {
    /// The part of a client's request that the options decide.
    pub(super) fn request<R>(&self, run: impl FnOnce(client::Request<'_>) -> R) -> R {
        let protocols: Vec<&str> = self.options.protocols.iter().map(String::as_str).collect();
        run(client::Request {
            host: "",
            target: "",
            protocols: &protocols,
            deflate: self.options.codec.deflate.as_ref(),
            headers: &[],
        })
    }

    /// `id` sends nothing more.
    pub(super) fn closing(&self, id: ConnId) {
        self.sets.borrow_mut().closing.insert(id);
    }

    /// After a write that may have crossed the high mark.
    pub(super) fn note_marks(&self, cx: &Ctx<'_>) {
        let conn = cx.core.conns.get(cx.id.0);
        if conn.is_some_and(|conn| conn.flags.any(Flags::ABOVE_HIGH)) {
            self.sets.borrow_mut().above.insert(cx.id);
        }
    }

    /// Whether `on_drain` is owed to `id` and due.
    pub(super) fn has_drained(&self, cx: &Ctx<'_>) -> bool {
        let conn = cx.core.conns.get(cx.id.0);
        conn.is_some_and(|conn| !conn.flags.any(Flags::ABOVE_HIGH))
            && self.sets.borrow_mut().above.remove(&cx.id)
    }

    /// `id` has ended, or only its WebSocket: it was `replaced`.
    pub(super) fn forget(&self, cx: &Ctx<'_>, replaced: bool) {
        let mut sets = self.sets.borrow_mut();
        sets.closing.remove(&cx.id);
        sets.above.remove(&cx.id);
        drop(sets);
        self.wheel.left(cx, replaced);
    }
}

/// A server's WebSocket, for the other handlers of the same reactor and setup: cheap to clone.
///
/// A broadcast is a loop over peers: the message is encoded once, and a long one is queued by
/// reference. The compressed form of a [`Prepared`] goes to connections that agreed on
/// `server_no_context_takeover`. Elsewhere compression has a history for each connection, out of
/// a peer's reach, and the plain form goes out; [`WebSocket::prepared`](super::WebSocket::prepared)
/// and [`Remote::prepared`](super::Remote::prepared) compress there too.
#[derive(Clone)]
pub struct Peer {
    shared: Rc<Shared>,
    id: ConnId,
    role: Role,
    /// See `Sender::free_window`.
    free_window: usize,
}

impl Peer {
    pub(super) fn new(shared: Rc<Shared>, id: ConnId, role: Role, free_window: usize) -> Peer {
        Peer { shared, id, role, free_window }
    }

    /// The connection's name.
    pub fn id(&self) -> ConnId {
        self.id
    }

    /// Sends `message`, from a callback of any connection of the reactor.
    ///
    /// # Errors
    /// [`SendError::Closed`] if the WebSocket has ended, is ending or has sent its close frame,
    /// [`SendError::SlowConsumer`] by the policy, [`SendError::ClientRole`] of a client.
    pub fn send(&self, cx: &mut Ctx<'_>, message: &Prepared) -> Result<(), SendError> {
        if self.role == Role::Client {
            return Err(SendError::ClientRole);
        }
        let mut cx = cx.conn(self.id).ok_or(SendError::Closed)?;
        if self.shared.sets.borrow().closing.contains(&self.id) {
            return Err(SendError::Closed);
        }
        self.shared.check_accepts(&cx)?;
        self.shared.check_pace(&mut cx)?;
        let bytes = message.compressed(self.free_window).unwrap_or(message.plain());
        cx.write_owned(bytes.clone());
        self.shared.note_marks(&cx);
        Ok(())
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.id).finish_non_exhaustive()
    }
}
