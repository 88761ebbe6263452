use std::collections::HashMap;
use std::io;

use reev::{Close, Config, ConnId, Ctx, EvHandler, Server};

/// Those who are in the room, with their names.
#[derive(Default)]
struct Room(HashMap<ConnId, String>);

/// One of them, or somebody who has not said a name yet.
#[derive(Default)]
struct Guest {
    name: Option<String>,
}

/// Sends `line` to all in the room.
fn tell(cx: &mut Ctx<'_>, line: &str) {
    let everybody: Vec<ConnId> = cx.local::<Room>().0.keys().copied().collect();
    for id in everybody {
        if let Some(mut guest) = cx.conn(id) {
            guest.write(line.as_bytes());
        }
    }
}

impl Guest {
    fn line(&mut self, cx: &mut Ctx<'_>, line: &str) {
        let Some(name) = &self.name else {
            let id = cx.id();
            cx.local::<Room>().0.insert(id, line.to_owned());
            tell(cx, &format!("* {line} has come\n"));
            self.name = Some(line.to_owned());
            return;
        };
        tell(cx, &format!("{name}: {line}\n"));
    }
}

impl EvHandler for Guest {
    fn on_open(&mut self, cx: &mut Ctx<'_>) -> io::Result<()> {
        cx.write(b"your name?\n");
        Ok(())
    }

    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let mut taken = 0;
        while let Some(length) = data[taken..].iter().position(|&byte| byte == b'\n') {
            let line = String::from_utf8_lossy(&data[taken..taken + length]);
            self.line(cx, line.trim());
            taken += length + 1;
        }
        Ok(taken)
    }

    fn on_close(&mut self, cx: &mut Ctx<'_>, _why: &Close) {
        let id = cx.id();
        if let Some(name) = cx.local::<Room>().0.remove(&id) {
            tell(cx, &format!("* {name} has left\n"));
        }
    }
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let mut server = Server::new(Config { reactors: 1, ..Config::default() })?;
    let listener = server.listen(&addr)?;
    reev::stop_on_signals(&server.handle())?;
    println!("listening on {}", server.local_addr(listener));
    server.run(move |reactor| reactor.accept(listener, |_peer| Guest::default()))
}
