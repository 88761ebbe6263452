//! The system calls of the benches that `std` does not offer: epoll, eventfd, thread clocks, a receive that drops what
//! it receives, and two socket options; and one call of a crate. The only file with `unsafe` in it.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::mem::{self, MaybeUninit};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

pub use libc::epoll_event as Event;

pub const IN: u32 = libc::EPOLLIN as u32;
pub const OUT: u32 = libc::EPOLLOUT as u32;
pub const EDGE: u32 = libc::EPOLLET as u32;

pub const EMPTY_EVENT: Event = Event { events: 0, u64: 0 };

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub struct Epoll(OwnedFd);

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        // SAFETY: the call takes no pointer; a result that is not negative is a new descriptor that nobody else owns.
        unsafe {
            Ok(Epoll(OwnedFd::from_raw_fd(checked(libc::epoll_create1(libc::EPOLL_CLOEXEC))?)))
        }
    }

    pub fn add(&self, fd: impl AsFd, events: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), events, token)
    }

    pub fn modify(&self, fd: impl AsFd, events: u32, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd(), events, token)
    }

    fn control(
        &self,
        verb: libc::c_int,
        fd: BorrowedFd<'_>,
        events: u32,
        token: u64,
    ) -> io::Result<()> {
        let mut event = Event { events, u64: token };
        // SAFETY: both descriptors are open as long as they are borrowed, and `event` outlives the call.
        checked(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), verb, fd.as_raw_fd(), &mut event) })
            .map(drop)
    }

    /// Waits at most `timeout_ms` (-1: for ever) and returns how many of `events` were filled; 0 after a signal.
    pub fn wait(&self, events: &mut [Event], timeout_ms: i32) -> io::Result<usize> {
        // SAFETY: the pointer and the length are those of one slice, which the kernel only writes.
        let n = unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as libc::c_int,
                timeout_ms,
            )
        };
        match checked(n) {
            Ok(n) => Ok(n as usize),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(e) => Err(e),
        }
    }
}

/// An eventfd: readable from when it is rung until it is silenced.
pub struct Bell(OwnedFd);

impl Bell {
    pub fn new() -> io::Result<Bell> {
        // SAFETY: the call takes no pointer; a result that is not negative is a new descriptor that nobody else owns.
        unsafe {
            Ok(Bell(OwnedFd::from_raw_fd(checked(libc::eventfd(
                0,
                libc::EFD_CLOEXEC | libc::EFD_NONBLOCK,
            ))?)))
        }
    }

    pub fn ring(&self) {
        // SAFETY: an open eventfd of our own and an integer. It fails only when the counter is full, so rung already.
        unsafe { libc::eventfd_write(self.0.as_raw_fd(), 1) };
    }

    pub fn silence(&self) {
        let mut rung = 0;
        // SAFETY: an open eventfd of our own and a place for its counter. It fails only when it is silent already.
        unsafe { libc::eventfd_read(self.0.as_raw_fd(), &mut rung) };
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// One thread as seen from the others of its process: what it has used, until it ends.
#[derive(Clone, Copy)]
pub struct Thread {
    clock: libc::clockid_t,
    id: libc::pid_t,
}

impl Thread {
    pub fn current() -> io::Result<Thread> {
        let mut clock = MaybeUninit::uninit();
        // SAFETY: the calling thread's own handle is valid, and the clock's id is written before it is read.
        unsafe {
            match libc::pthread_getcpuclockid(libc::pthread_self(), clock.as_mut_ptr()) {
                0 => Ok(Thread { clock: clock.assume_init(), id: libc::gettid() }),
                code => Err(io::Error::from_raw_os_error(code)),
            }
        }
    }

    /// Processor time of this thread (its CLOCK_THREAD_CPUTIME_ID), exact to the moment of the call.
    pub fn cpu_time(self) -> io::Result<Duration> {
        let mut time = MaybeUninit::<libc::timespec>::uninit();
        // SAFETY: the pointer is to a timespec, which the call fills when it succeeds; a dead thread's clock is EINVAL.
        let time = unsafe {
            checked(libc::clock_gettime(self.clock, time.as_mut_ptr()))?;
            time.assume_init()
        };
        Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }

    /// How often this thread went to sleep, and how often it was made to give up its core.
    pub fn switches(self) -> io::Result<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/self/task/{}/status", self.id))?;
        let field = |name| {
            let line = status.lines().find_map(|line: &str| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        let counts = field("voluntary_ctxt_switches:").zip(field("nonvoluntary_ctxt_switches:"));
        counts.ok_or_else(|| io::Error::other("no context switches in /proc/self/task/*/status"))
    }
}

/// Lets the calling thread run on every core that the process may use.
pub fn unpin() -> io::Result<()> {
    // SAFETY: the mask is numbers only, all bits of which may be set; the kernel leaves those out that are not allowed.
    let all: libc::cpu_set_t =
        unsafe { mem::transmute([u8::MAX; mem::size_of::<libc::cpu_set_t>()]) };
    // SAFETY: pointer and size are those of one mask on the stack; 0 is the calling thread.
    checked(unsafe { libc::sched_setaffinity(0, mem::size_of_val(&all), &all) }).map(drop)
}

/// Receives at most `scratch.len()` bytes and drops them in the kernel, without a copy (MSG_TRUNC, tcp(7)).
pub fn discard(stream: &TcpStream, scratch: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the descriptor is open while borrowed; pointer and length are those of one slice.
    let n = unsafe {
        libc::recv(
            stream.as_raw_fd(),
            scratch.as_mut_ptr().cast(),
            scratch.len(),
            libc::MSG_TRUNC | libc::MSG_DONTWAIT,
        )
    };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

/// Datagrams of IPv4 that are received and sent with one call (recvmmsg(2), sendmmsg(2)).
pub struct Batch {
    size: usize,
    /// How many of the headers the last call has changed.
    used: usize,
    headers: Vec<libc::mmsghdr>,
    /// What the headers point to: as many pieces of `bytes`, and addresses.
    pieces: Vec<libc::iovec>,
    _names: Vec<libc::sockaddr_in>,
    _bytes: Vec<u8>,
}

impl Batch {
    /// For at most `count` datagrams of at most `size` bytes, which is cut from longer ones.
    pub fn new(count: usize, size: usize) -> Batch {
        Batch::pointing(vec![0; count * size], count)
    }

    /// `count` times the same datagram, for the peer of a connected socket.
    pub fn filled(count: usize, datagram: &[u8]) -> Batch {
        let mut batch = Batch::pointing(datagram.repeat(count), count);
        for header in &mut batch.headers {
            header.msg_hdr.msg_name = ptr::null_mut();
            header.msg_hdr.msg_namelen = 0;
        }
        batch
    }

    fn pointing(mut bytes: Vec<u8>, count: usize) -> Batch {
        let size = bytes.len() / count;
        // SAFETY: all of these are numbers and pointers, for which zero is a value.
        let (name, header): (libc::sockaddr_in, libc::mmsghdr) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        let (mut names, mut headers) = (vec![name; count], vec![header; count]);
        let piece =
            |piece: &mut [u8]| libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: size };
        let mut pieces: Vec<libc::iovec> = bytes.chunks_exact_mut(size).map(piece).collect();
        for ((header, piece), name) in headers.iter_mut().zip(&mut pieces).zip(&mut names) {
            header.msg_hdr.msg_iov = piece;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen = mem::size_of_val(name) as libc::socklen_t;
        }
        Batch { size, used: 0, headers, pieces, _names: names, _bytes: bytes }
    }

    /// Returns how many there were.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        for (piece, header) in self.pieces[..self.used].iter_mut().zip(&mut self.headers) {
            piece.iov_len = self.size;
            header.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
        }
        self.used = 0;
        // SAFETY: the headers point into vectors that live as long as they and are never grown; their lengths are true.
        let count = checked(unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        })?;
        self.used = count as usize;
        for (piece, header) in self.pieces[..self.used].iter_mut().zip(&self.headers) {
            piece.iov_len = header.msg_len as usize;
        }
        Ok(self.used)
    }

    /// Sends `count` datagrams from the `first` on: those that were received last, each to where it came from, or those
    /// it was filled with. Returns how many the system took.
    pub fn send(&mut self, socket: &UdpSocket, first: usize, count: usize) -> io::Result<usize> {
        let headers = &mut self.headers[first..first + count];
        // SAFETY: as for `receive`.
        let sent = checked(unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as libc::c_uint,
                libc::MSG_DONTWAIT,
            )
        })?;
        Ok(sent as usize)
    }
}

/// A pipe that bytes are moved through without a copy (splice(2)). It does not block.
pub struct Pipe {
    input: OwnedFd,
    output: OwnedFd,
    waiting: usize,
}

/// The most that a pipe is to hold.
const PIPE_SIZE: libc::c_int = 256 * 1024;

impl Pipe {
    pub fn new() -> io::Result<Pipe> {
        let mut ends = [0; 2];
        // SAFETY: the pointer is to two ints; if the call succeeds they are descriptors that nobody else owns. How much
        // the pipe holds is a wish, and takes an int.
        unsafe {
            checked(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK))?;
            let [output, input] = ends.map(|end| OwnedFd::from_raw_fd(end));
            libc::fcntl(input.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_SIZE);
            Ok(Pipe { input, output, waiting: 0 })
        }
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Fills the empty pipe. Returns 0 at the end of the stream.
    pub fn fill(&mut self, from: &TcpStream) -> io::Result<usize> {
        let moved = splice(from.as_fd(), self.input.as_fd(), PIPE_SIZE as usize)?;
        self.waiting += moved;
        Ok(moved)
    }

    pub fn drain(&mut self, to: &TcpStream) -> io::Result<()> {
        self.waiting -= splice(self.output.as_fd(), to.as_fd(), self.waiting)?;
        Ok(())
    }
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, most: usize) -> io::Result<usize> {
    let (none, flags) = (ptr::null_mut(), libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK);
    // SAFETY: both descriptors are open while borrowed; without offsets the call takes no pointer.
    let moved = unsafe { libc::splice(from.as_raw_fd(), none, to.as_raw_fd(), none, most, flags) };
    if moved < 0 { Err(io::Error::last_os_error()) } else { Ok(moved as usize) }
}

/// A file in memory that holds `content`.
pub fn memory_file(content: &[u8]) -> io::Result<File> {
    // SAFETY: the name is a C string that outlives the call; a result that is not negative is a new descriptor.
    let mut file = unsafe {
        let fd = checked(libc::memfd_create(c"reev-bench".as_ptr(), libc::MFD_CLOEXEC))?;
        File::from(OwnedFd::from_raw_fd(fd))
    };
    file.write_all(content)?;
    Ok(file)
}

/// Sends a part of a file without copying it (sendfile(2)).
pub fn send_file(
    stream: &TcpStream,
    file: &File,
    offset: usize,
    length: usize,
) -> io::Result<usize> {
    let mut offset = offset as libc::off_t;
    // SAFETY: both descriptors are open while borrowed, and `offset` outlives the call.
    let n = unsafe { libc::sendfile(stream.as_raw_fd(), file.as_raw_fd(), &mut offset, length) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

/// The socket is reported readable only once this many bytes wait (SO_RCVLOWAT).
pub fn set_receive_low_water(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    set_socket_option(stream, libc::SO_RCVLOWAT, bytes)
}

pub fn set_send_buffer(stream: &TcpStream, bytes: usize) -> io::Result<()> {
    set_socket_option(stream, libc::SO_SNDBUF, bytes)
}

pub fn set_receive_buffer(socket: &UdpSocket, bytes: usize) -> io::Result<()> {
    set_socket_option(socket, libc::SO_RCVBUF, bytes)
}

fn set_socket_option(stream: &impl AsRawFd, option: libc::c_int, value: usize) -> io::Result<()> {
    let value = value as libc::c_int;
    // SAFETY: the descriptor is open while borrowed; pointer and length are those of one int on the stack.
    checked(unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            mem::size_of_val(&value) as libc::socklen_t,
        )
    })
    .map(drop)
}

/// Gives a listener a longer queue of connections to accept than the 128 of `std` (at most net.core.somaxconn).
pub fn set_backlog(listener: &TcpListener, backlog: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open while borrowed; on a socket that listens already this sets the length only.
    checked(unsafe { libc::listen(listener.as_raw_fd(), backlog) }).map(drop)
}

/// Raises the soft limit on open files to `wanted`, if the hard limit allows it. Returns the limit now in force.
pub fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to an rlimit on the stack, for both calls.
    unsafe {
        checked(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        if limit.rlim_cur < wanted {
            limit.rlim_cur = wanted.min(limit.rlim_max);
            checked(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
        }
    }
    Ok(limit.rlim_cur)
}
