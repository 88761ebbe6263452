use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::answer::Answer;
use super::status::Status;
use crate::Remote;

/// The value with which a responder rings at its connection.
pub(super) const RESPONDED: u64 = u64::MAX;

/// The peer can no longer be answered: its connection is gone, or the request was answered with
/// 503 because `request_timeout` was over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection that waited for this answer is gone")
    }
}

impl std::error::Error for Gone {}

/// Answers one request later, from any thread; made by [`Response::later`].
///
/// The requests that follow on the connection wait for this answer, unread, so answers are in
/// order and what a client can make the server hold is bounded. One that is dropped without an
/// answer, as by a panic of the thread that had it, answers 500.
///
/// [`Response::later`]: super::Response::later
///
/// ```
/// use reev::http1::{Answer, Gone, Request, Responder, Response, Service};
/// use std::sync::mpsc::Sender;
///
/// /// Passes each question on to a thread that may block.
/// struct Ask(Sender<(String, Responder)>);
///
/// impl Service for Ask {
///     fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
///         let _ = self.0.send((req.path().to_owned(), res.later())); // dropped: 500
///     }
/// }
///
/// fn answer(question: &str, responder: Responder) {
///     if let Err(Gone) = responder.respond(Answer::text(format!("you asked for {question}\n"))) {
///         log::debug!("the client did not wait");
///     }
/// }
/// ```
pub struct Responder {
    slot: Arc<Slot>,
    remote: Remote,
}

impl Responder {
    /// Hands the answer to the connection's reactor, which sends it soon.
    ///
    /// # Errors
    /// [`Gone`] if nobody waits for it any more. `Ok` means accepted, not received by the peer.
    pub fn respond(self, answer: Answer) -> Result<(), Gone> {
        self.put(answer)
    }

    /// Whether the answer was still awaited a moment ago: a long job asks now and then.
    pub fn is_open(&self) -> bool {
        self.remote.is_open() && matches!(*self.slot.lock(), State::Awaited)
    }

    fn put(&self, answer: Answer) -> Result<(), Gone> {
        {
            let mut state = self.slot.lock();
            if !matches!(*state, State::Awaited) || !self.remote.is_open() {
                return Err(Gone);
            }
            *state = State::Answered(answer);
        }
        self.remote.notify_urgent(RESPONDED).map_err(|_| Gone)
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.is_open() {
            log::error!("a request was dropped without an answer");
            let _ = self.put(Answer::new(Status::INTERNAL_SERVER_ERROR)); // gone is as good
        }
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").field("is_open", &self.is_open()).finish_non_exhaustive()
    }
}

/// The connection's end of a [`Responder`]; its drop tells the other end.
pub(super) struct Awaited(Arc<Slot>);

impl Awaited {
    pub(super) fn take(&self) -> Option<Answer> {
        let mut state = self.0.lock();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Answered(answer) => Some(answer),
            other => {
                *state = other;
                None
            }
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let dropped = std::mem::replace(&mut *self.0.lock(), State::Closed);
        drop(dropped); // outside the lock
    }
}

/// Both ends of a later answer.
pub(super) fn pair(remote: Remote) -> (Responder, Awaited) {
    let slot = Arc::new(Slot(Mutex::new(State::Awaited)));
    (Responder { slot: slot.clone(), remote }, Awaited(slot))
}

struct Slot(Mutex<State>);

enum State {
    Awaited,
    Answered(Answer),
    Closed,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of others runs under the lock, so a poisoned one is still whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
