//! The completion time of many clients at once, which are a process of their own: a process may not open enough files
//! for both ends.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::SockRef;

use crate::servers::Server;

/// The flag that makes this process the clients.
pub const CHILD: &str = "--connect-to";
/// Bytes that each client sends.
pub const SIZE: usize = 1024;
const SILENCE: Duration = Duration::from_secs(20);

/// As many as the system lets us; the number.
pub fn raise_open_files() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// Seconds until `count` clients of `server` have their messages back.
pub fn measure(server: &Server, count: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let mut host = (server.start)(SIZE, false)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut child = Command::new(std::env::current_exe()?)
        .args([CHILD, &listener.local_addr()?.to_string(), "--clients", &count.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    for _ in 0..count {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        host.serve(stream)?;
    }
    let mut told = String::new();
    child.stdout.take().ok_or("no output of the clients")?.read_to_string(&mut told)?;
    let status = child.wait()?;
    host.stop();
    if !status.success() {
        return Err(format!("{}: the clients failed: {status}", server.name).into());
    }
    Ok(told.trim().parse()?)
}

/// The clients: connects them all, then takes the time. Prints the seconds.
pub fn child(addr: SocketAddr, count: usize) -> io::Result<()> {
    raise_open_files()?;
    let mut poll = Poll::new()?;
    let mut streams = Vec::with_capacity(count);
    for i in 0..count {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        // Closes with a reset, so that thousands of ports do not stay in TIME_WAIT.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(i), Interest::READABLE)?;
        streams.push((stream, SIZE));
    }
    // The server has accepted all of them, but for the last few in its queue.
    std::thread::sleep(Duration::from_millis(100));
    let (message, mut answer) = ([7; SIZE], [0; SIZE]);
    let began = Instant::now();
    for (stream, _) in &mut streams {
        stream.write_all(&message)?; // fits into the empty buffer of the socket
    }
    let mut events = Events::with_capacity(1024);
    let mut unanswered = count;
    while unanswered > 0 {
        poll.poll(&mut events, Some(SILENCE))?;
        if events.is_empty() {
            return Err(io::Error::new(ErrorKind::TimedOut, "the server has gone silent"));
        }
        for event in &events {
            let (stream, left) = &mut streams[event.token().0];
            loop {
                match stream.read(&mut answer[..(*left).max(1)]) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(n) if answer[..n].iter().all(|&byte| byte == 7) && n <= *left => *left -= n,
                    Ok(_) => return Err(ErrorKind::InvalidData.into()),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
                if *left == 0 {
                    unanswered -= 1;
                    break;
                }
            }
        }
    }
    println!("{}", began.elapsed().as_secs_f64());
    Ok(())
}
