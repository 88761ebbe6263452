//! A folder of files over HTTP/1.1, with ranges, conditions and content types:
//! `cargo run --release --example static_files -- --root docs`, then
//! `curl -r 0-99 http://127.0.0.1:8081/design.md`.
//!
//! Paths cannot leave the folder, however they are written, and symbolic links neither.

mod common;

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use reev::http1::{Folder, Http1, Options as HttpOptions, Request, Response, Service};

/// One connection; all of a reactor share the folder.
struct Files {
    folder: Rc<Folder>,
}

impl Service for Files {
    fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
        self.folder.serve(req, res);
    }
}

/// A file server over HTTP/1.1
#[derive(clap::Parser)]
#[command(name = "static_files", version)]
struct Options {
    #[command(flatten)]
    serve: common::Serve,

    /// The folder to serve
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

fn main() -> ExitCode {
    common::run("127.0.0.1:8081", |options: Options| {
        Folder::open(&options.root).map_err(|error| {
            let message = format!("opening {}: {error}", options.root.display());
            std::io::Error::new(error.kind(), message)
        })?;
        let (server, listener) = options.serve.listen()?;
        let addr = server.local_addr(listener);
        let file = format!("/FILE, with a FILE of {}", options.root.display());
        let root = options.root;
        let running = server.start(move |reactor| {
            let folder = Rc::new(Folder::open(&root)?);
            let http = Http1::new(HttpOptions::default());
            reactor.accept(listener, move |_peer| http.connection(Files { folder: folder.clone() }))
        })?;
        common::banner("static_files", &addr, common::curl(&addr, &file));
        running.join()
    })
}
