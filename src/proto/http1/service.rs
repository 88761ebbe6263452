use std::any::type_name;

use super::request::Request;
use super::respond::Response;
use crate::{Close, Ctx, TimerId};

/// How a service wants the body of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Intake {
    /// Collected, up to `body_bytes_max`: `on_request` is called when it is complete.
    Whole,
    /// As it comes: `on_request` is called first, then `on_body` for each piece and `on_end`.
    Streamed,
}

/// What answers the requests of one connection.
///
/// Requests come one at a time and in order: the next one is looked at when the answer to this
/// one is complete, so what a service keeps of a request it can keep in itself. It lives on its
/// connection's reactor, and needs neither `Send` nor locks.
///
/// A panic in a callback is logged with [`Service::name`] and answered with 500, or with a reset
/// if the answer had begun; then the connection closes. The others are not affected.
///
/// ```
/// use reev::http1::{Fields, Intake, Request, Response, Service, Status};
///
/// /// Counts the bytes of what is uploaded, and keeps none.
/// #[derive(Default)]
/// struct Upload {
///     bytes: u64,
/// }
///
/// impl Service for Upload {
///     fn on_head(&mut self, _req: &Request<'_>, _res: &mut Response<'_>) -> Intake {
///         Intake::Streamed
///     }
///
///     fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
///         self.bytes = 0;
///         if req.method() != "PUT" {
///             res.send(Status::METHOD_NOT_ALLOWED, Fields::new("Allow: PUT\r\n"), b"");
///         }
///     }
///
///     fn on_body(&mut self, data: &[u8], _res: &mut Response<'_>) {
///         self.bytes += data.len() as u64;
///     }
///
///     fn on_end(&mut self, res: &mut Response<'_>) {
///         res.body(format!("{} bytes\n", self.bytes).as_bytes());
///     }
/// }
/// ```
pub trait Service: 'static {
    /// A request is there, with its content unless that is streamed. It is to be answered
    /// through `res`: at once ([`Response::send`] and others), piece by piece
    /// ([`Response::stream`]), or later and from another thread ([`Response::later`]). One that
    /// is left unanswered gets 500; a streamed one may also be answered in `on_body` and
    /// `on_end`.
    fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>);

    /// The head of a request with a body is there, its content not yet: says how to take it.
    /// An answer given here refuses the content, whose client may then not have to send it (see
    /// `Expect` in RFC 9110 section 10.1.1); the connection closes after it.
    fn on_head(&mut self, req: &Request<'_>, res: &mut Response<'_>) -> Intake {
        let _ = (req, res);
        Intake::Whole
    }

    /// A piece of streamed content, never empty. An answer completed here or in `on_request`
    /// comes before the end of the content, which is then not read: the connection closes.
    fn on_body(&mut self, data: &[u8], res: &mut Response<'_>) {
        let _ = (data, res);
    }

    /// The end of streamed content. One that is torn off has none: `on_close` comes instead.
    fn on_end(&mut self, res: &mut Response<'_>) {
        let _ = res;
    }

    /// There is room for more of an answer that was begun with [`Response::stream`]: called
    /// again as long as it writes and does not end, and when the peer has read. A service that
    /// has nothing to write yet returns, and goes on in `on_timeout` or `on_notify`.
    fn on_drain(&mut self, res: &mut Response<'_>) {
        let _ = res;
    }

    /// A timer of the service is due; see [`Ctx::set_timer`]. `res` is the answer under way, if
    /// one is.
    fn on_timeout(&mut self, timer: TimerId, res: &mut Response<'_>) {
        let _ = (timer, res);
    }

    /// A [`Remote`](crate::Remote) sent `value`; `u64::MAX` is taken by the layer. `res` is the
    /// answer under way, if one is.
    fn on_notify(&mut self, value: u64, res: &mut Response<'_>) {
        let _ = (value, res);
    }

    /// The connection is there.
    fn on_open(&mut self, cx: &mut Ctx<'_>) {
        let _ = cx;
    }

    /// The connection's end, or its upgrade ([`Close::Replaced`]): the last call.
    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        let _ = (cx, why);
    }

    /// The service's name in logs; by default its type's.
    fn name(&self) -> &'static str {
        type_name::<Self>()
    }
}
