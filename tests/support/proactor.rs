//! Sockets for a watcher, and what it completes.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use reev::proactor::{Completion, Watcher};

/// Two ends of a TCP connection.
pub(crate) fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

/// Bytes of which a piece is not like another.
pub(crate) fn pattern(n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// What `each` makes of `n` completions, of which no more come.
#[track_caller]
pub(crate) fn collect<T: Send + 'static, R>(
    watcher: &mut Watcher<T>,
    n: usize,
    mut each: impl FnMut(Completion<'_, T>) -> R,
) -> Vec<R> {
    let mut got = Vec::new();
    while got.len() < n {
        got.extend(watcher.wait().unwrap().map(&mut each));
    }
    assert_eq!(got.len(), n);
    got
}

/// Waits until the system has told the socket of `what`.
pub(crate) fn wait_until(socket: &impl AsFd, what: PollFlags) {
    let mut watched = [PollFd::new(socket.as_fd(), what)];
    while !watched[0].revents().is_some_and(|told| told.contains(what)) {
        poll(&mut watched, PollTimeout::NONE).unwrap();
    }
}
