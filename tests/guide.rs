//! The guide's programs are those of examples/guide/, and they do over loopback what it says.

// For its own test: `cargo test` builds an example as a program or as tests, and the program is
// wanted below.
#[allow(dead_code)]
#[path = "../examples/guide/chat.rs"]
mod chat;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const GUIDE: &str = include_str!("../docs/guide.md");
const README: &str = include_str!("../README.md");

/// The pieces of Rust in the section whose heading starts with `number`, one after the other.
fn program(page: &str, number: &str) -> String {
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    let (mut here, mut inside) = (number.is_empty(), false);
    for line in page.lines() {
        match line {
            _ if inside && line == "```" => inside = false,
            _ if inside => blocks.last_mut().expect("a block is open").push(line),
            _ if line.starts_with("## ") && !number.is_empty() => {
                here = line[3..].starts_with(number);
            }
            _ if here && line.starts_with("```rust") => {
                inside = true;
                blocks.push(Vec::new());
            }
            _ => {}
        }
    }
    let blocks: Vec<String> = blocks.iter().map(|block| block.join("\n")).collect();
    assert!(!blocks.is_empty(), "no piece of Rust under {number}");
    blocks.join("\n\n") + "\n"
}

/// Planted: a word changed in each program.
#[test]
fn the_guide_shows_the_programs_that_run() {
    let lines = include_str!("../examples/guide/lines.rs");
    let room = include_str!("../examples/guide/room.rs");
    let chat = include_str!("../examples/guide/chat.rs");
    assert_eq!(program(GUIDE, "1. "), program(README, ""), "the echo is the README's");
    assert_eq!(program(GUIDE, "2. "), lines);
    assert_eq!(program(GUIDE, "3. "), room);
    let whole = [program(GUIDE, "4. "), program(GUIDE, "5. ")].join("\n");
    assert_eq!(whole, chat);
    let pieces = GUIDE.matches("```rust").count();
    assert_eq!(pieces, 1 + 1 + 1 + 5 + 1, "a piece of Rust that belongs to no program");
}

/// A program of the guide, which ends with the test.
struct Program(Child);

impl Program {
    fn start(name: &str, addr: &str) -> Program {
        let test = std::env::current_exe().expect("this test has a path");
        let profile = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps");
        let path = profile.join("examples").join(name);
        assert!(path.exists(), "{} is not there: cargo build --examples", path.display());
        let child = Command::new(path).arg(addr).stdout(Stdio::piped()).spawn();
        Program(child.expect("the program starts"))
    }

    /// Where it says that it listens.
    fn addr(&mut self) -> String {
        let mut banner = String::new();
        let stdout = self.0.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut banner).expect("a banner");
        let addr = banner.trim_end().split("listening on ").nth(1);
        addr.unwrap_or_else(|| panic!("no address: {banner:?}")).to_owned()
    }

    fn terminate(&mut self) {
        let pid = Pid::from_raw(self.0.id().try_into().expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("it runs");
    }

    fn ends_well(&mut self) {
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill(); // it has ended already in a test that passed
        let _ = self.0.wait();
    }
}

/// Somebody with a terminal.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(addr: &str) -> Client {
        let stream = TcpStream::connect(addr).expect("the program accepts");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        Client(BufReader::new(stream))
    }

    fn says(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("sent");
    }

    #[track_caller]
    fn reads(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut got = String::new();
        self.0.read_line(&mut got).expect("a line");
        got
    }

    /// Reads to the peer's FIN.
    fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).expect("a FIN, not a reset");
        rest
    }
}

#[test]
fn lines_are_counted_however_they_are_cut() {
    let path = std::env::temp_dir().join(format!("guide-lines-{}", std::process::id()));
    let mut program = Program::start("guide_lines", &format!("unix://{}", path.display()));
    let mut stream = loop {
        if let Ok(stream) = UnixStream::connect(&path) {
            break stream;
        }
        let ended = program.0.try_wait().expect("a child");
        assert!(ended.is_none(), "it ended before it served: {ended:?}");
        std::thread::yield_now();
    };
    for piece in ["one\ntwo", " and a half\n", "\n"] {
        stream.write_all(piece.as_bytes()).expect("sent");
    }
    stream.shutdown(Shutdown::Write).expect("half-closed");
    let mut got = String::new();
    stream.read_to_string(&mut got).expect("all of it");
    assert_eq!(got, "3 bytes\n14 bytes\n0 bytes\n");
    program.terminate();
    program.ends_well();
}

#[test]
fn a_room_hears_what_is_said() {
    let mut program = Program::start("guide_room", "127.0.0.1:0");
    let addr = program.addr();
    let mut ada = Client::connect(&addr);
    ada.reads("your name?\n");
    ada.says("ada\n");
    ada.reads("* ada has come\n");
    let mut bob = Client::connect(&addr);
    bob.says("bob\nhello\n");
    ada.reads("* bob has come\n");
    ada.reads("bob: hello\n");
    drop(bob);
    ada.reads("* bob has left\n");
    program.terminate();
    assert_eq!(ada.rest(), "");
    program.ends_well();
}

#[test]
fn the_chat_does_what_the_guide_says() {
    let mut program = Program::start("guide_chat", "127.0.0.1:0");
    let addr = program.addr();
    let mut ada = Client::connect(&addr);
    ada.reads("* your name?\n");
    ada.says("ada\n");
    ada.reads("* ada has come\n");
    let mut bob = Client::connect(&addr);
    bob.reads("* your name?\n");
    bob.says("ada\nbob\n");
    bob.reads("* somebody has that name\n");
    bob.reads("* bob has come\n");
    ada.reads("* bob has come\n");
    bob.says("hello ada\n");
    for guest in [&mut ada, &mut bob] {
        guest.reads("bob: hello ada\n");
    }
    ada.says("/join engines\n");
    ada.reads("* ada has come\n");
    bob.reads("* ada has gone to engines\n");
    bob.says("still here?\n/who\n");
    let mut lines = [bob.line(), bob.line()]; // the one answers, the other goes by the mailbox
    lines.sort();
    assert_eq!(lines, ["* ada, bob\n", "bob: still here?\n"]);
    bob.says("/stats\n");
    let stats = bob.line();
    assert!(stats.starts_with("* 2 here, ") && stats.ends_with(" waiting\n"), "{stats}");
    let mut long = Client::connect(&addr);
    long.says(&"x".repeat(2000));
    let mut bytes = Vec::new();
    let reset = long.0.read_to_end(&mut bytes).expect_err("a line over the bound is reset");
    assert_eq!(reset.kind(), std::io::ErrorKind::ConnectionReset);
    let mut carl = Client::connect(&addr);
    carl.says("carl\n/join engines\n/quit\n");
    carl.rest();
    ada.reads("* carl has come\n");
    ada.reads("* carl has left: closed by this side\n");
    program.terminate();
    assert_eq!(ada.rest(), "* the chat closes\n");
    assert!(bob.rest().ends_with("* the chat closes\n"));
    program.ends_well();
}
