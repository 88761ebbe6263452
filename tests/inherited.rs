//! Socket activation: a server on sockets that the process was started with.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use reev::{Close, Config, Ctx, EvHandler, ListenOptions, Server};

/// Set in the process that is started with a socket.
const MARK: &str = "REEV_TEST_INHERITED";

/// Answers with the name of its socket, and stops the server at the end.
struct Named(String);

impl EvHandler for Named {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> std::io::Result<usize> {
        cx.write(self.0.as_bytes());
        Ok(data.len())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, _why: &Close) {
        cx.handle().shutdown(None);
    }
}

/// What the started process does.
fn serve() {
    let mut sockets = reev::inherited_sockets().unwrap();
    assert_eq!(sockets.len(), 1);
    assert!(reev::inherited_sockets().unwrap().is_empty(), "taken once");
    let inherited = sockets.remove(0);
    let mut server = Server::new(Config { reactors: 2, pin: false, ..Config::default() }).unwrap();
    let listener = server.adopt_listener(inherited.socket, &ListenOptions::default()).unwrap();
    let name = inherited.name;
    let setup = move |reactor: &mut reev::Reactor| {
        let name = name.clone();
        reactor.accept(listener, move |_peer| Named(name.clone()))
    };
    server.run(setup).unwrap();
}

/// Starts this test again with `socket` as descriptor 3 and the variables that say so, as a
/// service manager does; a shell knows its own process number.
fn activated(test: &str, socket: OwnedFd, count: &str) -> Command {
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).stdin(Stdio::from(socket));
    command.env(MARK, "1").env("LISTEN_FDS", count).env("LISTEN_FDNAMES", "front:other");
    command
}

/// Planted: `LISTEN_FDNAMES` not read; the descriptor after it taken.
#[test]
fn a_server_takes_the_socket_that_it_was_started_with() {
    if std::env::var_os(MARK).is_some() {
        return serve();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Before the server is there: the connection waits in the queue.
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    client.write_all(b"?").unwrap();
    let test = "a_server_takes_the_socket_that_it_was_started_with";
    let mut server = activated(test, listener.into(), "1").spawn().unwrap();
    let mut name = [0; 5];
    client.read_exact(&mut name).unwrap();
    assert_eq!(&name, b"front");
    drop(client);
    assert!(server.wait().unwrap().success());
}

/// Planted: no look at whether a descriptor is open.
#[test]
fn what_is_not_there_is_told() {
    if std::env::var_os(MARK).is_some() {
        let error = reev::inherited_sockets().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        let message = error.to_string();
        assert!(message.contains("of the 900 handed over"), "{message}");
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let status = activated("what_is_not_there_is_told", listener.into(), "900").status().unwrap();
    assert!(status.success());
}
