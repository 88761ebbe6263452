//! Sends what is appended to a file to every client, as `tail -f` does to a terminal:
//! `cargo run --release --example tail -- --file /var/log/syslog`, then `nc 127.0.0.1 7010`.
//!
//! Each reactor watches the file by an inotify descriptor of its own, which is a source of events
//! like any other, and reads what is new once for all its clients. A file that shrinks is read
//! from its beginning; one that is replaced (by rotation) is opened again, if it is a regular file.
//! Where there is no inotify (macOS, the BSDs), a timer looks at the file ten times a second.
//!
//! What clients have not read waits for them in memory: one that is so slow during a burst that
//! more than `Config::output_max` (16 MiB) waits is closed.

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use reev::{Addr, Close, ConnId, Ctx, EvHandler, Reactor};
use watch::Watch;

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
    watch: Watch,
    buffer: Vec<u8>,
}

impl Tail {
    fn new(path: &Path) -> io::Result<Tail> {
        let (path, watch) = (path.to_owned(), Watch::new(path)?);
        let mut tail = Tail { path, file: None, watch, buffer: vec![0; PIECE] };
        let mut file = tail.open()?;
        file.seek(SeekFrom::End(0))?;
        tail.file = Some(file);
        Ok(tail)
    }

    /// Opens what the path leads to now, and has it watched.
    fn open(&mut self) -> io::Result<File> {
        // Without O_NONBLOCK a FIFO would be waited for.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&self.path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        self.watch.renew(&self.path)?;
        Ok(file)
    }

    /// Whether the path leads to another file now than the one that is open.
    fn is_replaced(&self) -> bool {
        let Ok(found) = std::fs::metadata(&self.path) else {
            return false; // between two files
        };
        let open = self.file.as_ref().and_then(|file| file.metadata().ok());
        open.is_none_or(|open| (open.dev(), open.ino()) != (found.dev(), found.ino()))
    }

    /// Reads what is new; 0 at the end, or without a file.
    fn read(&mut self) -> usize {
        let read = |file: &mut File, buffer: &mut [u8]| {
            if file.metadata()?.len() < file.stream_position()? {
                file.rewind()?;
            }
            file.read(buffer)
        };
        match self.file.as_mut().map(|file| read(file, &mut self.buffer)) {
            Some(Ok(n)) => n,
            Some(Err(error)) => {
                self.give_up(&error);
                0
            }
            None => 0,
        }
    }

    /// Goes on without a file until there is one again, and says so once.
    fn give_up(&mut self, error: &io::Error) {
        if self.file.take().is_some() {
            log::warn!("{}: {error}", self.path.display());
        }
    }

    fn pass_on(&mut self, cx: &mut Ctx<'_>) {
        let mut n = self.read();
        if n == 0 && self.is_replaced() {
            n = self.read(); // what came to its end before it was replaced
            if n == 0 {
                match self.open() {
                    Ok(file) => self.file = Some(file),
                    Err(error) => self.give_up(&error),
                }
                n = self.read();
            }
        }
        if n == 0 {
            return;
        }
        let piece = Bytes::copy_from_slice(&self.buffer[..n]);
        let clients: Vec<ConnId> = cx.local::<Clients>().0.iter().copied().collect();
        for id in clients {
            if let Some(mut client) = cx.conn(id) {
                client.write_owned(piece.clone());
            }
        }
        cx.set_timer(std::time::Duration::ZERO); // there may be more
    }
}

#[cfg(target_os = "linux")]
mod watch {
    use super::{Ctx, EvHandler, Path, Reactor, Tail, io};
    use nix::errno::Errno;
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
    use reev::Readiness;
    use std::os::fd::AsFd;

    /// Watches the file, by whatever name it is written to, and the folder of its path, where a
    /// file that replaces it appears.
    pub struct Watch {
        inotify: Inotify,
        folder: WatchDescriptor,
        file: Option<WatchDescriptor>,
    }

    impl Watch {
        pub fn new(path: &Path) -> io::Result<Watch> {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            let flags =
                AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ATTRIB;
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
            let folder = inotify.add_watch(folder.unwrap_or(Path::new(".")), flags)?;
            Ok(Watch { inotify, folder, file: None })
        }

        /// Watches what the path leads to now, and no other file.
        pub fn renew(&mut self, path: &Path) -> io::Result<()> {
            if let Some(old) = self.file.take() {
                let _ = self.inotify.rm_watch(old); // it has ended by itself with its file
            }
            self.file = Some(self.inotify.add_watch(path, AddWatchFlags::IN_MODIFY)?);
            Ok(())
        }
    }

    pub fn follow(reactor: &mut Reactor, tail: Tail) -> io::Result<()> {
        let source = tail.watch.inotify.as_fd().try_clone_to_owned()?;
        reactor.add_source(source, Readiness::READ, tail)?;
        Ok(())
    }

    impl EvHandler for Tail {
        fn on_ready(&mut self, cx: &mut Ctx<'_>, _: Readiness) -> io::Result<()> {
            let events = match self.watch.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let gone = (self.watch.folder, AddWatchFlags::IN_IGNORED);
            if events.iter().any(|event| (event.wd, event.mask) == gone) {
                log::error!("{}: no new file is followed, its folder is gone", self.path.display());
            }
            self.pass_on(cx);
            Ok(())
        }

        fn on_timeout(&mut self, cx: &mut Ctx<'_>, _: reev::TimerId) -> io::Result<()> {
            self.pass_on(cx);
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod watch {
    use super::{Ctx, EvHandler, Path, Reactor, Tail, io};
    use std::time::Duration;

    const LOOK_EVERY: Duration = Duration::from_millis(100);

    /// Nothing but the timer.
    pub struct Watch;

    impl Watch {
        pub fn new(_: &Path) -> io::Result<Watch> {
            Ok(Watch)
        }

        pub fn renew(&mut self, _: &Path) -> io::Result<()> {
            Ok(())
        }
    }

    pub fn follow(reactor: &mut Reactor, tail: Tail) -> io::Result<()> {
        reactor.add(tail);
        Ok(())
    }

    impl EvHandler for Tail {
        fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
            cx.set_periodic(LOOK_EVERY);
            Ok(())
        }

        fn on_timeout(&mut self, cx: &mut Ctx<'_>, _: reev::TimerId) -> io::Result<()> {
            self.pass_on(cx);
            Ok(())
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
            let tail = Tail::new(&path).map_err(failed)?;
            watch::follow(reactor, tail)?;
            reactor.accept(listener, |_: &Addr| Client)
        })?;
        common::banner("tail", &addr, common::how_to_try(&addr));
        running.join()
    })
}
