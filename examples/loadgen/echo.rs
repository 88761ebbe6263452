//! Messages that come back as they were sent, and connections that only stay.

use std::sync::Arc;

use crate::client::{Answer, Protocol, Wrong};

/// Bytes that differ from their neighbours, so that what is lost or moved shows.
pub(crate) fn message(size: usize) -> Vec<u8> {
    (0..size).map(|i| b'!' + (i % 89) as u8).collect()
}

pub(crate) struct Echo {
    message: Arc<[u8]>,
    /// Bytes of the present answer that have come.
    come: usize,
}

impl Echo {
    pub(crate) fn new(message: Arc<[u8]>) -> Echo {
        Echo { message, come: 0 }
    }
}

impl Protocol for Echo {
    fn request(&self) -> &[u8] {
        &self.message
    }

    fn parse(&mut self, data: &[u8], found: &mut dyn FnMut(Answer)) -> Result<usize, Wrong> {
        let mut rest = data;
        while !rest.is_empty() {
            let expected = &self.message[self.come..];
            let (piece, behind) = rest.split_at(rest.len().min(expected.len()));
            if *piece != expected[..piece.len()] {
                let at = piece.iter().zip(expected).take_while(|(a, b)| a == b).count();
                let what = format!("byte {} of a message came back changed", self.come + at);
                return Err(Wrong("not an echo", what));
            }
            self.come += piece.len();
            rest = behind;
            if self.come == self.message.len() {
                self.come = 0;
                found(Answer { status: None, last: false });
            }
        }
        Ok(data.len())
    }
}

/// Says nothing, and ignores what it is told.
pub(crate) struct Silent;

impl Protocol for Silent {
    fn request(&self) -> &[u8] {
        b""
    }

    fn parse(&mut self, data: &[u8], _: &mut dyn FnMut(Answer)) -> Result<usize, Wrong> {
        Ok(data.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_found_however_it_is_cut() {
        let message: Arc<[u8]> = message(10).into();
        let stream = message.repeat(5);
        for cut in 1..=stream.len() {
            let (mut echo, mut answers) = (Echo::new(message.clone()), 0);
            for piece in stream.chunks(cut) {
                let used = echo.parse(piece, &mut |_| answers += 1);
                assert_eq!(used, Ok(piece.len()));
            }
            assert_eq!(answers, 5, "cut at {cut}");
        }
    }

    #[test]
    fn a_changed_byte_is_told_by_its_place() {
        let mut echo = Echo::new(message(10).into());
        let mut changed = message(10);
        changed[7] = 0;
        assert_eq!(echo.parse(&changed[..4], &mut |_| ()), Ok(4));
        let wrong = echo.parse(&changed[4..], &mut |_| ()).unwrap_err();
        assert_eq!(wrong, Wrong("not an echo", "byte 7 of a message came back changed".to_owned()));
    }
}
