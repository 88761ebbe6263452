//! Opening files below a folder and nowhere else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// How often a path that the kernel cannot be sure of is opened again.
const TRIES_MAX: usize = 32;
/// Never wait for the other end of a pipe.
const FLAGS: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

/// Opens `path`, which is relative and has no empty, `.` or `..` segment, below `folder`. The
/// kernel follows symbolic links as long as they stay below it; where it cannot see to that
/// (before Linux 5.6), none is followed.
pub(crate) fn open_beneath(folder: BorrowedFd<'_>, path: &str) -> io::Result<File> {
    let mut opened = beneath(folder, path);
    for _ in 0..TRIES_MAX {
        // Something was renamed meanwhile, anywhere, and the path has a `..` in a link (openat2(2)).
        if !matches!(opened, Err(nix::Error::EAGAIN)) {
            break;
        }
        opened = beneath(folder, path);
    }
    match opened {
        Err(nix::Error::ENOSYS | nix::Error::EPERM) => Ok(walk(folder, path)?),
        opened => Ok(opened?),
    }
}

#[cfg(target_os = "linux")]
fn beneath(folder: BorrowedFd<'_>, path: &str) -> nix::Result<File> {
    use nix::fcntl::{OpenHow, ResolveFlag, openat2};
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    openat2(folder, path, OpenHow::new().flags(FLAGS).resolve(resolve)).map(File::from)
}

#[cfg(not(target_os = "linux"))]
fn beneath(_folder: BorrowedFd<'_>, _path: &str) -> nix::Result<File> {
    Err(nix::Error::ENOSYS)
}

/// Segment by segment, so that no link on the way is followed either.
fn walk(folder: BorrowedFd<'_>, path: &str) -> nix::Result<File> {
    let mut at: Option<OwnedFd> = None;
    for segment in path.split('/') {
        let from = at.as_ref().map_or(folder, |fd| fd.as_fd());
        at = Some(openat(from, segment, FLAGS | OFlag::O_NOFOLLOW, Mode::empty())?);
    }
    at.map(File::from).ok_or(nix::Error::ENOENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_above_the_folder_is_opened() {
        let base = std::env::temp_dir().join(format!("reev-folder-{}", std::process::id()));
        let root = base.join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(base.join("secret"), "x").unwrap();
        fs::write(root.join("sub/file"), "y").unwrap();
        for (link, to) in
            [("out", "../secret"), ("abs", "/etc/passwd"), ("up", ".."), ("in", "sub/file")]
        {
            symlink(to, root.join(link)).unwrap();
        }
        let folder = File::open(&root).unwrap();
        for open in [open_beneath, |folder: BorrowedFd<'_>, path: &str| Ok(walk(folder, path)?)] {
            open(folder.as_fd(), "sub/file").unwrap();
            for path in ["out", "abs", "up/secret", "sub/none", "none"] {
                open(folder.as_fd(), path).unwrap_err();
            }
        }
        open_beneath(folder.as_fd(), "../secret").unwrap_err();
        walk(folder.as_fd(), "in").unwrap_err();
        fs::remove_dir_all(&base).unwrap();
    }

    /// Planted: that the kernel cannot be sure of a `..` while something is renamed is taken for a
    /// file that is not there.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_link_holds_while_other_files_are_renamed() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let base = std::env::temp_dir().join(format!("reev-renamed-{}", std::process::id()));
        let root = base.join("root");
        fs::create_dir_all(root.join("site")).unwrap();
        fs::create_dir_all(root.join("releases/7")).unwrap();
        fs::write(root.join("releases/7/page"), "x").unwrap();
        symlink("../releases/7", root.join("site/current")).unwrap();
        let folder = File::open(&root).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let names = [base.join("a"), base.join("b")];
                fs::write(&names[0], "").unwrap();
                while !over.load(Ordering::Relaxed) {
                    fs::rename(&names[0], &names[1]).unwrap();
                    fs::rename(&names[1], &names[0]).unwrap();
                }
            });
            let opened: Vec<_> = (0..20_000)
                .filter_map(|_| open_beneath(folder.as_fd(), "site/current/page").err())
                .collect();
            over.store(true, Ordering::Relaxed);
            assert!(opened.is_empty(), "{} times {:?}", opened.len(), opened[0]);
        });
        fs::remove_dir_all(&base).unwrap();
    }
}
