//! Resolving names off the loop, on a few threads that are started when first needed.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;

use crate::endpoint::Endpoint;

/// Threads of the process that ask the system's resolver, which blocks.
const THREADS: usize = 4;

/// Names that may wait; more are refused.
const WAITING_MAX: usize = 1024;

type Answer = Box<dyn FnOnce(io::Result<Vec<SocketAddr>>) + Send>;
type Question = (Endpoint, Answer);

/// Finds the addresses of `endpoint` and calls `answer` with them, on another thread or, if
/// there is no room, at once.
pub(crate) fn resolve(
    endpoint: Endpoint,
    answer: impl FnOnce(io::Result<Vec<SocketAddr>>) + Send + 'static,
) {
    static QUESTIONS: OnceLock<Option<SyncSender<Question>>> = OnceLock::new();
    let refused = match QUESTIONS.get_or_init(start) {
        None => (endpoint, Box::new(answer) as Answer),
        Some(questions) => match questions.try_send((endpoint, Box::new(answer))) {
            Ok(()) => return,
            Err(TrySendError::Full(question) | TrySendError::Disconnected(question)) => question,
        },
    };
    let (endpoint, answer) = refused;
    let message = format!("cannot resolve {endpoint}: too many names wait");
    answer(Err(io::Error::new(io::ErrorKind::WouldBlock, message)));
}

fn start() -> Option<SyncSender<Question>> {
    let (sender, questions) = sync_channel(WAITING_MAX);
    let questions = Arc::new(Mutex::new(questions));
    let started = (0..THREADS).filter(|_| {
        let questions = questions.clone();
        let thread = thread::Builder::new().name("reev-resolver".to_owned());
        thread.spawn(move || answer_all(&questions)).is_ok()
    });
    (started.count() > 0).then_some(sender)
}

fn answer_all(questions: &Mutex<Receiver<Question>>) {
    loop {
        let question = questions.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((endpoint, answer)) = question else {
            return;
        };
        answer(endpoint.resolve());
    }
}
