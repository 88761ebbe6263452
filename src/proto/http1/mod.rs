//! An HTTP/1.1 server: a [`Service`] answers requests, [`serve`] and [`Http1`] put it on a listener.
//!
//! ```no_run
//! use reev::http1::{Fields, Request, Response, Service, Status};
//!
//! struct Hello;
//!
//! impl Service for Hello {
//!     fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
//!         res.send(Status::OK, Fields::NONE, req.path().as_bytes());
//!     }
//! }
//!
//! reev::http1::serve("127.0.0.1:8080", |_peer| Hello)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A body may be streamed ([`Service::on_head`]), an answer too ([`Response::stream`]), and it may
//! come later from another thread ([`Response::later`]):
//!
//! ```
//! use reev::http1::{Answer, Request, Response, Service};
//!
//! struct Slow;
//!
//! impl Service for Slow {
//!     fn on_request(&mut self, _req: &Request<'_>, res: &mut Response<'_>) {
//!         let responder = res.later();
//!         std::thread::spawn(move || {
//!             let answer = Answer::text("worked out elsewhere");
//!             if responder.respond(answer).is_err() {
//!                 // the client has gone
//!             }
//!         });
//!     }
//! }
//! ```
//!
//! # The codec
//!
//! Beneath is a codec without I/O: bytes and time in, requests and bytes out. No socket, no clock,
//! no allocation for a request of at most [`HEADERS_INLINE`] header fields. A connection is driven
//! like this:
//! 1. [`HeadDecoder::decode`] on the unread bytes, until it answers [`Head::Complete`];
//! 2. [`BodyDecoder`] from [`Request::body_kind`] on what follows, until [`Step::End`];
//! 3. [`ResponseHead::start`] with [`Request::reply`], then on with the next request if
//!    [`Reply::keep_alive`].
//!
//! Every refusal is a [`Reject`]: answer with [`refuse`], close, and never parse what follows. The
//! decoders keep their refusal and answer it again if they are asked again.
//!
//! What is refused, and when, depends on the bytes alone and never on how they were cut into reads.

mod answer;
mod body;
mod chars;
mod chunked;
mod conditional;
mod connection;
mod content_type;
mod date;
mod exchange;
mod field;
mod folder;
mod framing;
mod head;
mod last_head;
mod limits;
mod line;
mod list;
mod options;
mod range;
mod reject;
mod request;
mod respond;
mod responder;
mod response;
mod router;
mod service;
mod status;
mod sweeper;
mod target;

pub use answer::Answer;
pub use body::{BodyDecoder, BodyKind, Step};
pub use conditional::{Validators, if_range, not_modified, precondition_failed};
pub use connection::Connection;
pub use content_type::content_type;
pub use date::DateCache;
pub use field::{Fields, HeaderError};
pub use folder::{Folder, send_file};
pub use head::{HEADERS_INLINE, Head, HeadDecoder, HeaderSlots};
pub use limits::Limits;
pub use options::{Http1, Options, serve};
pub use range::{ByteRange, ContentRange, byte_range};
pub use reject::Reject;
pub use request::{Headers, Reply, Request, Version};
pub use respond::Response;
pub use responder::{Gone, Responder};
pub use response::{BodyEncoder, LengthMismatch, ResponseHead, Sink, put_continue, refuse};
pub use router::{RouteFn, Routed, Router, Shared as SharedRouter};
pub use service::{Intake, Service};
pub use status::Status;
