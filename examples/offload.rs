//! Slow work beside the reactors: a request to `/hash/N` is handed to a pool of threads, which
//! answers it when its job is done, while the reactor goes on serving.
//! `cargo run --release --example offload`, then `curl http://127.0.0.1:8082/hash/1000000`.
//!
//! The queue of the pool is bounded: where it is full, the answer is 503 at once.

mod common;

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use reev::http1::{
    Answer, Fields, Http1, Options as HttpOptions, Request, Responder, Response, Service, Status,
};

const PLAIN: Fields<'static> = Fields::new("Content-Type: text/plain\r\n");
const RETRY: Fields<'static> = Fields::new("Content-Type: text/plain\r\nRetry-After: 1\r\n");
/// The most rounds a client may ask for.
const ROUNDS_MAX: u64 = 1_000_000_000;
/// Between two looks at whether the client still waits.
const ROUNDS_BETWEEN_LOOKS: u64 = 1 << 16;

/// What a thread of the pool is to do.
struct Job {
    rounds: u64,
    responder: Responder,
}

/// One connection.
struct Site {
    pool: SyncSender<Job>,
}

impl Service for Site {
    fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
        let rounds = req.path().strip_prefix("/hash/").and_then(|rounds| rounds.parse().ok());
        let Some(rounds) = rounds.filter(|&rounds| rounds <= ROUNDS_MAX) else {
            return match req.path() {
                "/" => res.send(Status::OK, PLAIN, b"there is /hash/ROUNDS\n"),
                _ => res.send(Status::NOT_FOUND, PLAIN, b"there is /hash/ROUNDS\n"),
            };
        };
        let job = Job { rounds, responder: res.later() };
        if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) =
            self.pool.try_send(job)
        {
            let busy = Answer::new(Status::SERVICE_UNAVAILABLE).fields(RETRY).body("busy\n");
            let _ = job.responder.respond(busy); // the client may be gone, which is as good
        }
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { rounds, responder }) = job else {
            return; // the server has ended
        };
        if let Some(hash) = hash(rounds, &responder) {
            let _ = responder.respond(Answer::text(format!("{hash:016x}\n")));
        }
    }
}

/// FNV-1a over and over: time that passes. None if nobody waits for it any more.
fn hash(rounds: u64, responder: &Responder) -> Option<u64> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for round in 0..rounds {
        if round % ROUNDS_BETWEEN_LOOKS == 0 && !responder.is_open() {
            return None;
        }
        hash = (hash ^ (round & 0xff)).wrapping_mul(0x0100_0000_01b3);
    }
    Some(hash)
}

/// HTTP requests that are answered by a pool of threads
#[derive(clap::Parser)]
#[command(name = "offload", version)]
struct Options {
    #[command(flatten)]
    serve: common::Serve,

    /// Threads of the pool
    #[arg(long, default_value = "4")]
    threads: NonZeroUsize,

    /// Jobs that may wait for a thread
    #[arg(long, default_value_t = 64)]
    queue: usize,
}

fn main() -> ExitCode {
    common::run("127.0.0.1:8082", |options: Options| {
        let (server, listener) = options.serve.listen()?;
        let addr = server.local_addr(listener);
        let (pool, jobs) = sync_channel(options.queue);
        let jobs = Arc::new(Mutex::new(jobs));
        for index in 0..options.threads.get() {
            let jobs = jobs.clone();
            let thread = thread::Builder::new().name(format!("job-{index}"));
            thread.spawn(move || work(&jobs))?;
        }
        let running = server.start(move |reactor| {
            let (http, pool) = (Http1::new(HttpOptions::default()), pool.clone());
            reactor.accept(listener, move |_peer| http.connection(Site { pool: pool.clone() }))
        })?;
        common::banner("offload", &addr, common::curl(&addr, "/hash/1000000"));
        running.join()
    })
}
