//! The chat of the example `websocket`, as its pages meet it.
#![cfg(feature = "websocket")]

#[path = "support/example.rs"]
mod example;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use example::Example;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A page of the chat.
struct Page(BufReader<TcpStream>);

impl Page {
    fn open(chat: &Example) -> Page {
        let mut stream = chat.connect();
        let addr = chat.addr;
        write!(
            stream,
            "GET /ws HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        .unwrap();
        let mut page = Page(BufReader::new(stream));
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(page.0.read_line(&mut line).unwrap() > 0);
        }
        page
    }

    /// A short message, masked with zeros.
    fn send(&mut self, wish: &Value) {
        let text = wish.to_string();
        assert!(text.len() < 126);
        let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
        frame.extend(text.as_bytes());
        self.0.get_mut().write_all(&frame).unwrap();
    }

    fn say(&mut self, text: &str) {
        self.send(&json!({"type": "say", "text": text}));
    }

    fn join(&mut self, room: &str, name: &str) {
        self.send(&json!({"type": "join", "room": room, "name": name}));
    }

    fn news(&mut self) -> Value {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut len = usize::from(head[1]);
        if len == 126 {
            let mut long = [0; 2];
            self.0.read_exact(&mut long).unwrap();
            len = usize::from(u16::from_be_bytes(long));
        }
        let mut text = vec![0; len];
        self.0.read_exact(&mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// The next news of that type.
    fn until(&mut self, kind: &str) -> Value {
        loop {
            let news = self.news();
            if news["type"] == kind {
                return news;
            }
        }
    }
}

/// Planted: a line that is in the room's history and still under way is sent again.
#[test]
fn who_joins_gets_every_line_once() {
    let chat = Example::start("websocket", &[]);
    let pid = Pid::from_raw(chat.child.id() as i32);
    let (mut ada, mut bob) = (Page::open(&chat), Page::open(&chat));
    ada.join("lobby", "ada");
    ada.until("room");
    for round in 0..40 {
        bob.join("games", "bob");
        bob.until("room");
        // Both are read in one turn, mostly in this order.
        kill(pid, Signal::SIGSTOP).unwrap();
        waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
        let text = format!("line {round}");
        ada.say(&text);
        bob.join("lobby", "bob");
        kill(pid, Signal::SIGCONT).unwrap();
        let room = bob.until("room");
        bob.say("end");
        let mut times =
            room["lines"].as_array().unwrap().iter().filter(|l| l["text"] == *text).count();
        loop {
            let line = bob.until("line");
            if line["text"] == "end" {
                break;
            }
            times += usize::from(line["text"] == *text);
        }
        assert_eq!(times, 1, "{text}");
    }
}

/// Planted: the room one is in is left before the other is found to be full.
#[test]
fn a_refused_join_changes_nothing() {
    let chat = Example::start("websocket", &[]);
    let mut pages: Vec<Page> = (0..61).map(|_| Page::open(&chat)).collect();
    for (i, page) in pages.iter_mut().enumerate() {
        page.join(&format!("room {i}"), "x");
        page.until("room");
    }
    let mut ada = Page::open(&chat);
    ada.join("lobby", "ada");
    ada.until("room");
    ada.join("one more", "ada");
    assert_eq!(ada.until("error")["text"], "there are too many rooms");
    ada.say("still here");
    assert_eq!(ada.until("line")["name"], "ada");
}

/// Planted: the number that makes a name unique makes it longer than a name may be.
#[test]
fn a_name_that_is_given_may_be_asked_for() {
    let chat = Example::start("websocket", &[]);
    let mut pages: Vec<Page> = (0..3).map(|_| Page::open(&chat)).collect();
    let name = "n".repeat(24);
    for page in &mut pages {
        page.join("lobby", &name);
        let given = page.until("room")["name"].as_str().unwrap().to_owned();
        page.join("games", &given);
        assert_eq!(page.until("room")["name"], *given);
        page.join("lobby", &given);
        assert_eq!(page.until("room")["name"], *given);
    }
}
