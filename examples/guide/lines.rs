use std::io;

use reev::{Ctx, EvHandler};

/// Answers each line with its length.
struct Lines;

impl EvHandler for Lines {
    fn on_read(&mut self, cx: &mut Ctx<'_>, data: &mut [u8]) -> io::Result<usize> {
        let mut taken = 0;
        while let Some(length) = data[taken..].iter().position(|&byte| byte == b'\n') {
            cx.write(format!("{length} bytes\n").as_bytes());
            taken += length + 1;
        }
        Ok(taken)
    }
}

fn main() -> io::Result<()> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    reev::serve(&addr, |_peer| Lines)
}
