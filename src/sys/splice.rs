//! Bytes from socket to socket through a pipe, without copying them (splice(2)). Linux; elsewhere
//! they are copied.

use std::io;

/// What one pass has moved.
#[derive(Debug, Default)]
pub(crate) struct Passed {
    /// Bytes taken from the one socket; 0 is the peer's FIN.
    pub(crate) taken: usize,
    /// Of these, those that the other took.
    pub(crate) sent: usize,
    /// Why the other takes no more, if it never will.
    pub(crate) error: Option<io::Error>,
}

pub(crate) use imp::Splicer;

#[cfg(any(target_os = "linux", target_os = "android"))]
mod imp {
    use std::io::{self, PipeReader, PipeWriter, Read};
    use std::os::fd::BorrowedFd;

    use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice};

    use super::Passed;
    use crate::config::PIPE_SIZE;

    /// Bytes that are read at a time of what did not go through.
    const PIECE: usize = 16 << 10;

    /// The pipe of a reactor, made when it is first needed. Between two passes it is empty, so
    /// one is enough for all connections.
    #[derive(Default)]
    pub(crate) struct Splicer(Option<(PipeReader, PipeWriter)>);

    impl Splicer {
        /// Moves at most so many bytes from one socket to another. What the other does not take
        /// is given to `keep`. `WouldBlock`: there is nothing to take; `Unsupported` or
        /// `InvalidInput`: not here, or not between these; other errors are of the first socket.
        pub(crate) fn pass(
            &mut self,
            from: BorrowedFd<'_>,
            to: BorrowedFd<'_>,
            most: usize,
            mut keep: impl FnMut(&[u8]),
        ) -> io::Result<Passed> {
            let (reader, writer) = match &mut self.0 {
                Some(pipe) => pipe,
                none => {
                    // Descriptors may have run out: it works without.
                    let (reader, writer) = io::pipe().map_err(|_| io::ErrorKind::Unsupported)?;
                    // As a wish: how much goes in depends on how the network cut it.
                    let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
                    none.insert((reader, writer))
                }
            };
            let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
            let taken = loop {
                match splice(from, None, &*writer, None, most, flags) {
                    Err(nix::errno::Errno::EINTR) => {}
                    other => break other?,
                }
            };
            let mut passed = Passed { taken, ..Passed::default() };
            while passed.sent < taken {
                match splice(&*reader, None, to, None, taken - passed.sent, flags) {
                    Ok(n) => passed.sent += n,
                    Err(nix::errno::Errno::EINTR) => {}
                    Err(nix::errno::Errno::EAGAIN) => {
                        let mut left = taken - passed.sent;
                        while left > 0 {
                            let mut piece = [0; PIECE];
                            let n = left.min(PIECE); // it is there, so this does not block
                            reader.read_exact(&mut piece[..n])?;
                            keep(&piece[..n]);
                            left -= n;
                        }
                        break;
                    }
                    Err(error) => {
                        passed.error = Some(error.into());
                        self.0 = None; // with what is left in it
                        break;
                    }
                }
            }
            Ok(passed)
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod imp {
    use std::io;
    use std::os::fd::BorrowedFd;

    use super::Passed;

    #[derive(Default)]
    pub(crate) struct Splicer(());

    impl Splicer {
        pub(crate) fn pass(
            &mut self,
            _from: BorrowedFd<'_>,
            _to: BorrowedFd<'_>,
            _most: usize,
            _keep: impl FnMut(&[u8]),
        ) -> io::Result<Passed> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
}
