//! Sends what is appended to a file to every client, as `tail -f` does to a terminal:
//! `cargo run --release --example tail -- --file /var/log/syslog`, then `nc 127.0.0.1 7010`.
//!
//! Each reactor watches the file by an inotify descriptor of its own, which is a source of events
//! like any other, and reads what is new once for all its clients. A file that shrinks is read
//! from its beginning; one that is replaced (by rotation) is opened again. Where there is no inotify
//! (macOS, the BSDs), a timer looks at the file ten times a second.

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use reev::{Addr, Close, ConnId, Ctx, EvHandler, Reactor};

/// Bytes read from the file in one turn; the rest comes in the next.
const PIECE: usize = 64 << 10;

/// The clients of a reactor.
#[derive(Default)]
struct Clients(HashSet<ConnId>);

struct Client;

impl EvHandler for Client {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        let id = cx.id();
        cx.local::<Clients>().0.insert(id);
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, _: &Close) {
        let id = cx.id();
        cx.local::<Clients>().0.remove(&id);
    }
}

struct Tail {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl Tail {
    fn new(path: &Path) -> io::Result<Tail> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Tail { path: path.to_owned(), file: Some(file), buffer: vec![0; PIECE] })
    }

    /// Whether the path leads to another file now than the one that is open.
    fn is_replaced(&self) -> bool {
        let Ok(found) = std::fs::metadata(&self.path) else {
            return false; // between two files
        };
        let open = self.file.as_ref().and_then(|file| file.metadata().ok());
        open.is_none_or(|open| (open.dev(), open.ino()) != (found.dev(), found.ino()))
    }

    /// Reads what is new; 0 at the end.
    fn read(&mut self) -> io::Result<usize> {
        let Some(file) = &mut self.file else {
            return Ok(0);
        };
        if file.metadata()?.len() < file.stream_position()? {
            file.rewind()?;
        }
        file.read(&mut self.buffer)
    }

    fn pass_on(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        let mut n = self.read()?;
        if n == 0 && self.is_replaced() {
            n = self.read()?; // what came to its end before it was replaced
            if n == 0 {
                self.file = File::open(&self.path).ok();
                n = self.read()?;
            }
        }
        if n == 0 {
            return Ok(());
        }
        let piece = Bytes::copy_from_slice(&self.buffer[..n]);
        let clients: Vec<ConnId> = cx.local::<Clients>().0.iter().copied().collect();
        for id in clients {
            if let Some(mut client) = cx.conn(id) {
                client.write_owned(piece.clone());
            }
        }
        cx.set_timer(std::time::Duration::ZERO); // there may be more
        Ok(())
    }
}

#[cfg(target_os = "linux")]
mod watch {
    use super::{Ctx, EvHandler, Path, Reactor, Tail, io};
    use nix::errno::Errno;
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    use reev::Readiness;
    use std::os::fd::AsFd;

    struct Watched {
        tail: Tail,
        inotify: Inotify,
    }

    /// Watches the folder, so that a file that is replaced is noticed too.
    pub fn follow(reactor: &mut Reactor, path: &Path) -> io::Result<()> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_ATTRIB;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        inotify.add_watch(folder.unwrap_or(Path::new(".")), flags)?;
        let source = inotify.as_fd().try_clone_to_owned()?;
        let watched = Watched { tail: Tail::new(path)?, inotify };
        reactor.add_source(source, Readiness::READ, watched)?;
        Ok(())
    }

    impl EvHandler for Watched {
        fn on_ready(&mut self, cx: &mut Ctx<'_>, _: Readiness) -> io::Result<()> {
            match self.inotify.read_events() {
                Ok(_) | Err(Errno::EAGAIN) => self.tail.pass_on(cx),
                Err(error) => Err(error.into()),
            }
        }

        fn on_timeout(&mut self, cx: &mut Ctx<'_>, _: reev::TimerId) -> io::Result<()> {
            self.tail.pass_on(cx)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod watch {
    use super::{Ctx, EvHandler, Path, Reactor, Tail, io};
    use std::time::Duration;

    const LOOK_EVERY: Duration = Duration::from_millis(100);

    struct Watched(Tail);

    pub fn follow(reactor: &mut Reactor, path: &Path) -> io::Result<()> {
        reactor.add(Watched(Tail::new(path)?));
        Ok(())
    }

    impl EvHandler for Watched {
        fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
            cx.set_periodic(LOOK_EVERY);
            Ok(())
        }

        fn on_timeout(&mut self, cx: &mut Ctx<'_>, _: reev::TimerId) -> io::Result<()> {
            self.0.pass_on(cx)
        }
    }
}

/// Sends what is appended to a file to every client
#[derive(clap::Parser)]
#[command(name = "tail", version)]
struct Options {
    #[command(flatten)]
    serve: common::Serve,

    /// The file to follow
    #[arg(long)]
    file: PathBuf,
}

fn main() -> ExitCode {
    common::run("127.0.0.1:7010", |options: Options| {
        let (server, listener) = options.serve.listen()?;
        let addr = server.local_addr(listener);
        let path = options.file;
        let running = server.start(move |reactor| {
            let failed = |error: io::Error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            };
            watch::follow(reactor, &path).map_err(failed)?;
            reactor.accept(listener, |_: &Addr| Client)
        })?;
        common::banner("tail", &addr, common::how_to_try(&addr));
        running.join()
    })
}
