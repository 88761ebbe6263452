//! An example as a program of its own, on one reactor.

#![allow(dead_code, reason = "each test that includes this uses a part of it")]

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Long enough for a busy machine; no test waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An example with the flags that all have, not yet started. `cargo test` builds the examples;
/// `cargo test --test NAME` does not.
pub fn command(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is not there: cargo build --examples", path.display());
    let mut command = Command::new(path);
    command.args(["--addr", "127.0.0.1:0", "--reactors", "1", "--no-pin"]);
    command
}

/// A running example, which ends with the test.
pub struct Example {
    pub child: Child,
    pub addr: SocketAddr,
}

impl Example {
    pub fn start(name: &str, flags: &[&str]) -> Example {
        Example::start_with(name, flags, Stdio::inherit())
    }

    pub fn start_with(name: &str, flags: &[&str], errors: Stdio) -> Example {
        let mut command = command(name);
        let mut child = command.args(flags).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut banner = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut banner).unwrap();
        let addr = banner.split("listening on ").nth(1).and_then(|rest| rest.split(';').next());
        Example { child, addr: addr.expect("a banner with an address").parse().unwrap() }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn udp(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(self.addr).unwrap();
        socket
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends `request`, and gives what comes then.
pub fn udp_ask(socket: &UdpSocket, request: &[u8]) -> Vec<u8> {
    socket.send(request).unwrap();
    udp_receive(socket)
}

/// One datagram.
pub fn udp_receive(socket: &UdpSocket) -> Vec<u8> {
    let mut answer = vec![0; 65_536];
    let n = socket.recv(&mut answer).unwrap();
    answer.truncate(n);
    answer
}
