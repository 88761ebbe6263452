//! A chat in the browser: an HTTP page and the WebSocket behind it.
//! `cargo run --release --example websocket`, then open http://127.0.0.1:8081/.
//!
//! Rooms are shared by all reactors: a lock holds who is there and what was said last, and what
//! is new is encoded once and handed to every reactor, which sends it to its own connections. A
//! second page, /echo, measures round trips.

mod common;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use reev::http1::{Fields, Http1, Request, Response, Service, Status};
use reev::websocket::{
    CloseCode, Closed, DeflateConfig, Handler, Options, Peer, Prepared, SlowConsumer, WebSocket,
    WebSockets,
};
use reev::{Ctx, Handle, Reactor};
use serde::{Deserialize, Serialize};

/// Bounds of what visitors can make the server hold.
const ROOMS_MAX: usize = 64;
const MEMBERS_MAX: usize = 1000;
const HISTORY_MAX: usize = 100;
const NAME_MAX: usize = 24;
const TEXT_MAX: usize = 2000;
const MESSAGE_MAX: usize = 16 << 10;
const ECHO_MAX: usize = 64 << 10;
/// Rooms that are there when nobody is.
const ROOMS: [&str; 3] = ["lobby", "games", "rust"];

const HTML: Fields<'static> =
    Fields::new("Content-Type: text/html; charset=utf-8\r\nCache-Control: no-cache\r\n");
const CSS: Fields<'static> =
    Fields::new("Content-Type: text/css; charset=utf-8\r\nCache-Control: no-cache\r\n");
const SCRIPT: Fields<'static> =
    Fields::new("Content-Type: text/javascript; charset=utf-8\r\nCache-Control: no-cache\r\n");
const ICON: Fields<'static> = Fields::new("Content-Type: image/svg+xml\r\n");

/// A chat in the browser: open the address, choose a room
#[derive(clap::Parser)]
#[command(name = "websocket", version)]
struct Flags {
    #[command(flatten)]
    serve: common::Serve,
}

/// What a page sends.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Wish {
    Join { room: String, name: String },
    Say { text: String },
}

#[derive(Clone, Serialize)]
struct Line {
    name: String,
    text: String,
    /// Milliseconds since 1970.
    at: u64,
}

/// What a page gets.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum News<'a> {
    Room { room: &'a str, name: &'a str, lines: &'a VecDeque<Line>, rooms: Vec<(&'a str, usize)> },
    Members { members: Vec<&'a str> },
    Line(&'a Line),
    Error { text: &'a str },
}

fn encode(news: &News<'_>) -> String {
    serde_json::to_string(news).unwrap_or_default() // strings and numbers always encode
}

/// The rooms as all reactors see them.
struct Hall {
    rooms: Mutex<BTreeMap<String, Room>>,
    /// The number of the last line in any room; changes under the lock.
    said: AtomicU64,
    handle: Handle,
}

#[derive(Default)]
struct Room {
    lines: VecDeque<Line>,
    members: Vec<String>,
}

/// A reactor's own connections, by room, each with the number of the last line that its page was
/// given when it joined: such lines may still be under way to this reactor.
type Local = Rc<RefCell<HashMap<String, Vec<(Peer, u64)>>>>;

impl Hall {
    fn new(handle: Handle) -> Hall {
        let rooms = ROOMS.map(|room| (room.to_owned(), Room::default()));
        Hall { rooms: Mutex::new(rooms.into()), said: AtomicU64::new(0), handle }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends to everybody in `room` who does not have the line `number` yet. Called under the lock,
    /// so that all see the same order.
    fn tell(&self, room: &str, number: u64, news: &News<'_>) {
        let message = Prepared::text(&encode(news));
        let room = room.to_owned();
        let told = self.handle.broadcast(move |reactor: &mut Reactor| {
            let local = reactor.local::<Local>().clone();
            for (peer, last) in local.borrow().get(&room).into_iter().flatten() {
                if let Some(mut cx) = reactor.conn(peer.id()).filter(|_| *last < number) {
                    let _ = peer.send(&mut cx, &message); // a slow one misses it
                }
            }
        });
        if let Err(error) = told {
            log::warn!("a message did not reach every reactor: {error}");
        }
    }

    fn tell_members(&self, rooms: &BTreeMap<String, Room>, room: &str) {
        if let Some(found) = rooms.get(room) {
            let members = found.members.iter().map(String::as_str).collect();
            self.tell(room, u64::MAX, &News::Members { members });
        }
    }

    fn leave(&self, rooms: &mut BTreeMap<String, Room>, room: &str, name: &str) {
        let Some(found) = rooms.get_mut(room) else {
            return;
        };
        if let Some(at) = found.members.iter().position(|member| member == name) {
            found.members.remove(at);
        }
        if found.members.is_empty() && !ROOMS.contains(&room) {
            rooms.remove(room);
        }
        self.tell_members(rooms, room);
    }
}

/// One visitor of the chat.
struct Visitor {
    hall: Arc<Hall>,
    /// Room and name, once it has joined.
    joined: Option<(String, String)>,
}

impl Visitor {
    fn join(&mut self, ws: &mut WebSocket<'_>, room: &str, name: &str) -> Result<(), &'static str> {
        let (room, wanted) = (room.trim(), name.trim());
        if room.is_empty() || room.chars().count() > NAME_MAX {
            return Err("a room's name has 1 to 24 characters");
        }
        if wanted.is_empty() || wanted.chars().count() > NAME_MAX {
            return Err("a name has 1 to 24 characters");
        }
        let hall = self.hall.clone();
        let mut rooms = hall.lock();
        let stays = self.joined.as_ref().is_some_and(|(old, _)| old == room);
        match rooms.get(room) {
            None if rooms.len() >= ROOMS_MAX => return Err("there are too many rooms"),
            Some(found) if found.members.len() >= MEMBERS_MAX && !stays => {
                return Err("the room is full");
            }
            _ => {}
        }
        self.leave(&mut ws.ctx(), &mut rooms);
        let found = rooms.entry(room.to_owned()).or_default();
        let is_free = |name: &String| !found.members.contains(name);
        let others = (2..=MEMBERS_MAX + 1).map(|number| {
            let number = format!(" {number}");
            let part: String = wanted.chars().take(NAME_MAX - number.len()).collect();
            part + &number
        });
        let Some(name) = std::iter::once(wanted.to_owned()).chain(others).find(is_free) else {
            return Err("the name is taken");
        };
        found.members.push(name.clone());
        let last = hall.said.load(Ordering::Relaxed);
        let counts = rooms.iter().map(|(room, found)| (room.as_str(), found.members.len()));
        let counts: Vec<(&str, usize)> = counts.collect();
        let lines = &rooms[room].lines;
        let _ = ws.text(&encode(&News::Room { room, name: &name, lines, rooms: counts }));
        let peer = ws.peer();
        let local = ws.ctx().local::<Local>().clone();
        local.borrow_mut().entry(room.to_owned()).or_default().push((peer, last));
        hall.tell_members(&rooms, room);
        self.joined = Some((room.to_owned(), name));
        Ok(())
    }

    fn say(&self, text: &str) -> Result<(), &'static str> {
        let Some((room, name)) = &self.joined else {
            return Err("join a room first");
        };
        let text = text.trim();
        if text.is_empty() || text.chars().count() > TEXT_MAX {
            return Err("a message has 1 to 2000 characters");
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis());
        let line = Line { name: name.clone(), text: text.to_owned(), at: at as u64 };
        let mut rooms = self.hall.lock();
        if let Some(found) = rooms.get_mut(room) {
            if found.lines.len() == HISTORY_MAX {
                found.lines.pop_front();
            }
            found.lines.push_back(line.clone());
            let number = self.hall.said.fetch_add(1, Ordering::Relaxed) + 1;
            self.hall.tell(room, number, &News::Line(&line));
        }
        Ok(())
    }

    fn leave(&mut self, cx: &mut Ctx<'_>, rooms: &mut BTreeMap<String, Room>) {
        let Some((room, name)) = self.joined.take() else {
            return;
        };
        let id = cx.id();
        let local = cx.local::<Local>().clone();
        let mut local = local.borrow_mut();
        if let Some(peers) = local.get_mut(&room) {
            peers.retain(|(peer, _)| peer.id() != id);
            if peers.is_empty() {
                local.remove(&room);
            }
        }
        self.hall.leave(rooms, &room, &name);
    }
}

impl Handler for Visitor {
    fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
        let done = match serde_json::from_str(text) {
            Ok(Wish::Join { room, name }) => self.join(ws, &room, &name),
            Ok(Wish::Say { text }) => self.say(&text),
            Err(_) => return ws.close(CloseCode::POLICY, "no such request"),
        };
        if let Err(text) = done {
            let _ = ws.text(&encode(&News::Error { text })); // it is open: it has just sent
        }
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, _closed: &Closed<'_>) {
        let hall = self.hall.clone();
        self.leave(cx, &mut hall.lock());
    }
}

/// What the second page measures.
struct Echo;

impl Handler for Echo {
    fn on_text(&mut self, ws: &mut WebSocket<'_>, text: &str) {
        let _ = ws.text(text); // nothing is sent after the close frame
    }

    fn on_binary(&mut self, ws: &mut WebSocket<'_>, data: &[u8]) {
        let _ = ws.binary(data);
    }
}

struct Site {
    chat: WebSockets,
    echo: WebSockets,
    hall: Arc<Hall>,
}

impl Service for Site {
    fn on_request(&mut self, req: &Request<'_>, res: &mut Response<'_>) {
        let (fields, asset) = match req.path() {
            "/ws" => {
                let visitor = Visitor { hall: self.hall.clone(), joined: None };
                self.chat.upgrade(req, res, visitor);
                return;
            }
            "/ws/echo" => {
                self.echo.upgrade(req, res, Echo);
                return;
            }
            "/" => (HTML, include_str!("websocket/chat.html")),
            "/echo" => (HTML, include_str!("websocket/echo.html")),
            "/chat.js" => (SCRIPT, include_str!("websocket/chat.js")),
            "/echo.js" => (SCRIPT, include_str!("websocket/echo.js")),
            "/style.css" => (CSS, include_str!("websocket/style.css")),
            "/favicon.ico" => (ICON, include_str!("websocket/icon.svg")),
            _ => return res.send(Status::NOT_FOUND, Fields::NONE, b"not found\n"),
        };
        match req.method() {
            "GET" | "HEAD" => res.send(Status::OK, fields, asset.as_bytes()),
            _ => res.send(Status::METHOD_NOT_ALLOWED, Fields::new("Allow: GET, HEAD\r\n"), b""),
        }
    }
}

fn main() -> ExitCode {
    common::run("127.0.0.1:8081", |flags: Flags| {
        let mut options = Options::default();
        options.codec.message_max = ECHO_MAX;
        let echo = options.clone();
        options.codec.message_max = MESSAGE_MAX;
        options.codec.deflate = Some(DeflateConfig::default());
        options.slow_consumer = SlowConsumer::Drop;
        let (server, listener) = flags.serve.listen()?;
        let addr = server.local_addr(listener);
        let hall = Arc::new(Hall::new(server.handle()));
        let running = server.start(move |reactor| {
            let http = Http1::new(Default::default());
            let (chat, echo) = (WebSockets::new(options.clone()), WebSockets::new(echo.clone()));
            let hall = hall.clone();
            reactor.accept(listener, move |_peer| {
                let (chat, echo, hall) = (chat.clone(), echo.clone(), hall.clone());
                http.connection(Site { chat, echo, hall })
            })
        })?;
        let try_it = match addr.socket_addr().map(common::reached_at) {
            Some(addr) => format!("open http://{addr}/ in a browser"),
            None => common::curl(&addr, "/"),
        };
        common::banner("websocket", &addr, try_it);
        running.join()
    })
}
