//! A server on a real socket: a folder, routes, uploads, and answers from other threads.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reev::http1::{
    Answer, Fields, Folder, Http1, Intake, Options, Request, Response, Router, Service,
    SharedRouter, Status,
};
use reev::{Config, Handle, Server};

pub(crate) const PLAIN: Fields<'static> = Fields::new("Content-Type: text/plain\r\n");
pub(crate) const BIG: usize = 3_000_000;

/// The state of one connection.
struct App {
    folder: Rc<Folder>,
    received: usize,
}

struct Site {
    router: Rc<Router<App>>,
    app: App,
}

impl Service for Site {
    fn on_head(&mut self, req: &Request<'_>, _res: &mut Response<'_>) -> Intake {
        if req.path() == "/upload" { Intake::Streamed } else { Intake::Whole }
    }

    fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
        if req.path() == "/upload" && req.method() == "POST" {
            self.app.received = 0;
            return;
        }
        self.router.clone().answer(&mut self.app, req, res);
    }

    fn on_body(&mut self, data: &[u8], _res: &mut Response<'_>) {
        self.app.received += data.len();
    }

    fn on_end(&mut self, res: &mut Response<'_>) {
        res.send(Status::OK, PLAIN, self.app.received.to_string().as_bytes());
    }

    fn on_drain(&mut self, res: &mut Response<'_>) {
        for i in 0..100 {
            res.write(format!("line {i}\n").as_bytes());
        }
        res.end();
    }
}

fn routes() -> Router<App> {
    Router::new()
        .get("/hello", |_, _, res| res.send(Status::OK, PLAIN, b"hello"))
        .post("/hello", |_, req, res| res.send(Status::OK, PLAIN, req.body()))
        .get("/lines", |_, _, res| res.fields(PLAIN).stream())
        .get("/later", |_, _, res| {
            let responder = res.later();
            std::thread::spawn(move || responder.respond(Answer::text("from a thread")));
        })
        .get("/files/*", |app, req, res| {
            let path = req.path().strip_prefix("/files").unwrap_or_default();
            app.folder.clone().serve_path(path, req, res);
        })
}

/// The server, and the folder it serves; both end with this.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    handle: Handle,
    base: PathBuf,
}

impl Running {
    pub(crate) fn start() -> Running {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("reev-site-{}-{count}", std::process::id()));
        let root = base.join("root");
        fs::create_dir_all(root.join("sub")).expect("a folder");
        for (name, content) in [
            ("../secret", b"secret".as_slice()),
            ("index.html", b"<p>index"),
            ("a b.txt", b"0123456789"),
            (".hidden", b"hidden"),
            ("sub/index.html", b"<p>sub"),
            ("big.bin", &vec![b'x'; BIG]),
        ] {
            fs::write(root.join(name), content).expect("a file");
        }
        symlink("../secret", root.join("out")).expect("a link");
        symlink("/etc/passwd", root.join("passwd")).expect("a link");
        symlink("..", root.join("sub/up")).expect("a link");
        let config = Config { reactors: 1, pin: false, ..Config::default() };
        let mut server = Server::new(config).expect("a poller");
        let listener = server.listen("127.0.0.1:0").expect("a port");
        let addr = server.local_addr(listener).to_string().parse().expect("an address");
        let running = server.start(move |reactor| {
            let http = Http1::new(Options::default());
            let router = Rc::new(routes());
            let folder = Rc::new(Folder::open(&root)?);
            reactor.accept(listener, move |_peer| {
                let app = App { folder: folder.clone(), received: 0 };
                http.connection(Site { router: router.clone(), app })
            })
        });
        Running { addr, handle: running.expect("a server").handle(), base }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        let _ = fs::remove_dir_all(&self.base);
    }
}

/// A shared router makes services too.
#[allow(dead_code, reason = "used by one of the tests")]
pub(crate) fn shared() -> SharedRouter<()> {
    Router::new().get("/", |_, _, res| res.send(Status::OK, PLAIN, b"root")).shared()
}
