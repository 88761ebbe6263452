use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reev::{
    Bytes, Close, Config, ConnId, Ctx, EvHandler, Handle, Reactor, SendError, Server, Stats,
    TimerId, Traffic,
};

const NAME_MAX: usize = 24;
const LINE_MAX: usize = 1000;
/// Who owes no more than so many bytes gets a line; others miss it.
const BEHIND_MAX: usize = 64 << 10;
/// How long a guest may take to say a name, and then to say anything.
const LOGIN: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(600);

/// What the guests of all reactors share.
struct Chat {
    handle: Handle,
    names: Mutex<BTreeSet<String>>,
}

/// The guests of one reactor, each with the room that it is in.
#[derive(Default)]
struct Guests(HashMap<ConnId, String>);

impl Chat {
    fn new(handle: Handle) -> Arc<Chat> {
        Arc::new(Chat { handle, names: Mutex::default() })
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends `line` to all in `room`, whichever reactor they are on.
    fn tell(&self, room: &str, line: String) {
        let (room, line) = (room.to_owned(), Bytes::from(line));
        let told = self.handle.broadcast(move |reactor| tell_here(reactor, &room, &line));
        if told == Err(SendError::Full) {
            eprintln!("a reactor is behind: its guests miss a line");
        }
    }
}

/// Sends `line` to those in `room` that are on this reactor.
fn tell_here(reactor: &mut Reactor, room: &str, line: &Bytes) {
    let guests = &reactor.local::<Guests>().0;
    let in_room = guests.iter().filter(|(_, theirs)| *theirs == room);
    let ids: Vec<ConnId> = in_room.map(|(id, _)| *id).collect();
    for id in ids {
        if let Some(mut guest) = reactor.conn(id)
            && guest.pending_output() <= BEHIND_MAX
        {
            guest.write_owned(line.clone());
        }
    }
}

/// One connection: first without a name, then in a room.
struct Guest {
    chat: Arc<Chat>,
    name: Option<String>,
    room: String,
    login: TimerId,
}

impl Guest {
    fn new(chat: Arc<Chat>) -> Guest {
        Guest { chat, name: None, room: "lobby".to_owned(), login: TimerId::NONE }
    }

    fn line(&mut self, cx: &mut Ctx<'_>, line: &str) -> io::Result<()> {
        let Some(name) = self.name.clone() else {
            return self.enter(cx, line);
        };
        match line.split_once(' ').unwrap_or((line, "")) {
            ("/join", room) => self.join(cx, &name, room),
            ("/who", _) => {
                let names: Vec<String> = self.chat.names().iter().cloned().collect();
                writeln!(cx.out(), "* {}", names.join(", "))?;
            }
            ("/stats", _) => {
                let Stats { open, bytes_in, bytes_out, output_queued, .. } =
                    Stats::total(&self.chat.handle.stats());
                writeln!(
                    cx.out(),
                    "* {open} here, {bytes_in} bytes in, {bytes_out} out, {output_queued} waiting"
                )?;
            }
            _ => self.chat.tell(&self.room, format!("{name}: {line}\n")),
        }
        Ok(())
    }

    fn enter(&mut self, cx: &mut Ctx<'_>, name: &str) -> io::Result<()> {
        if name.is_empty() || name.len() > NAME_MAX || name.contains(char::is_whitespace) {
            return writeln!(cx.out(), "* a name is one word of at most {NAME_MAX} bytes");
        }
        if !self.chat.names().insert(name.to_owned()) {
            return writeln!(cx.out(), "* somebody has that name");
        }
        cx.cancel_timer(self.login);
        cx.idle_timeout_by(SILENCE, Traffic::Reads);
        self.name = Some(name.to_owned());
        let room = self.room.clone();
        self.join(cx, name, &room);
        Ok(())
    }

    fn join(&mut self, cx: &mut Ctx<'_>, name: &str, room: &str) {
        let id = cx.id();
        let before = cx.local::<Guests>().0.insert(id, room.to_owned());
        if let Some(before) = before {
            self.chat.tell(&before, format!("* {name} has gone to {room}\n"));
        }
        self.room = room.to_owned();
        self.chat.tell(room, format!("* {name} has come\n"));
    }
}

impl EvHandler for Guest {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        self.login = cx.set_timer(LOGIN);
        cx.write(b"* your name?\n");
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let mut taken = 0;
        while let Some(length) = data[taken..].iter().position(|&byte| byte == b'\n') {
            if length > LINE_MAX {
                break;
            }
            let line = String::from_utf8_lossy(&data[taken..taken + length]);
            if line.trim() == "/quit" {
                cx.close();
                return Ok(data.len());
            }
            self.line(cx, line.trim())?;
            taken += length + 1;
        }
        if data.len() - taken > LINE_MAX {
            let message = format!("a line of more than {LINE_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(taken)
    }

    fn on_timeout(&mut self, cx: &mut Ctx<'_>, _timer: TimerId) -> io::Result<()> {
        cx.write(b"* you have not said your name\n");
        cx.close();
        Ok(())
    }

    fn on_shutdown(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.write(b"* the chat closes\n");
        cx.close();
        Ok(())
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, why: &Close) {
        let id = cx.id();
        cx.local::<Guests>().0.remove(&id);
        if let Some(name) = self.name.take() {
            self.chat.names().remove(&name);
            self.chat.tell(&self.room, format!("* {name} has left: {why}\n"));
        }
    }
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let mut server = Server::new(Config { output_max: 1 << 20, ..Config::default() })?;
    let listener = server.listen(&addr)?;
    reev::stop_on_signals(&server.handle())?;
    println!("chat: listening on {}", server.local_addr(listener));
    let chat = Chat::new(server.handle());
    server.run(move |reactor| {
        let chat = chat.clone();
        reactor.accept(listener, move |_peer| Guest::new(chat.clone()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use reev::sim::Simulation;

    #[test]
    fn who_says_no_name_is_sent_away_and_the_others_talk() {
        let mut sim = Simulation::new(1);
        let chat = Chat::new(sim.handle());
        let listener = sim.listen(move |_peer| Guest::new(chat.clone()));
        let (ada, mute) = (sim.connect(listener), sim.connect(listener));
        ada.send(b"ada\nhel");
        sim.settle();
        ada.send(b"lo\n");
        sim.advance(LOGIN);
        assert_eq!(ada.receive(), b"* your name?\n* ada has come\nada: hello\n");
        assert_eq!(mute.receive(), b"* your name?\n* you have not said your name\n");
        assert!(mute.saw_fin());
    }
}
