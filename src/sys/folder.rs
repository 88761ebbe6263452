//! Opening files below a folder and nowhere else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

/// Never wait for the other end of a pipe.
const FLAGS: OFlag = OFlag::O_RDONLY.union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

/// Opens `path`, which is relative and has no empty, `.` or `..` segment, below `folder`. The
/// kernel follows symbolic links as long as they stay below it; where it cannot see to that
/// (before Linux 5.6), none is followed.
pub(crate) fn open_beneath(folder: BorrowedFd<'_>, path: &str) -> io::Result<File> {
    match beneath(folder, path) {
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
}
