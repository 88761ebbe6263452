//! Masking: the XOR of RFC 6455 section 5.3, and where the keys come from.

use std::fmt;

/// XORs `data` with `key`, which starts at the first byte. Masking and unmasking are the same.
///
/// Any alignment; the blocks of words are for the compiler to make vectors of.
///
/// ```
/// use reev::websocket::mask;
///
/// let key = [1, 2, 3, 4];
/// let mut data = *b"Hello";
/// let (first, rest) = data.split_at_mut(3);
/// mask::apply(first, key);
/// mask::apply(rest, mask::advance(key, 3));
/// mask::apply(&mut data, key);
/// assert_eq!(&data, b"Hello");
/// ```
#[inline]
pub fn apply(data: &mut [u8], key: [u8; 4]) {
    let half = u32::from_ne_bytes(key);
    let word = u64::from(half) << 32 | u64::from(half);
    let (blocks, tail) = data.as_chunks_mut::<BLOCK>();
    for block in blocks {
        block.as_chunks_mut::<8>().0.iter_mut().for_each(|bytes| xor(bytes, word));
    }
    let (words, tail) = tail.as_chunks_mut::<8>();
    words.iter_mut().for_each(|bytes| xor(bytes, word));
    let (four, tail) = tail.as_chunks_mut::<4>();
    if let [bytes] = four {
        *bytes = (u32::from_ne_bytes(*bytes) ^ half).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(key) {
        *byte ^= mask;
    }
}

/// The key for the bytes that follow the first `done` bytes of a payload.
#[inline]
pub fn advance(key: [u8; 4], done: usize) -> [u8; 4] {
    let mut key = key;
    key.rotate_left(done & 3);
    key
}

/// Bytes that one round of the loop masks.
const BLOCK: usize = 32;

fn xor(bytes: &mut [u8; 8], word: u64) {
    *bytes = (u64::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
}

const POOL: usize = 128;

/// The source of a client's mask keys, a fresh one for each frame (RFC 6455 section 10.3).
///
/// ```
/// use reev::websocket::Masks;
///
/// assert_eq!(Masks::seeded(7).next_key(), Masks::seeded(7).next_key());
/// ```
pub struct Masks(Source);

enum Source {
    System { pool: Box<[u8; POOL]>, used: usize },
    Seeded(fastrand::Rng),
}

impl Masks {
    /// Keys of the operating system's strong random numbers, fetched 32 at a time.
    pub fn system() -> Self {
        Masks(Source::System { pool: Box::new([0; POOL]), used: POOL })
    }

    /// Keys that a seed repeats: for simulations and tests only, since an attacker can foresee them.
    pub fn seeded(seed: u64) -> Self {
        Masks(Source::Seeded(fastrand::Rng::with_seed(seed)))
    }

    /// The next key.
    ///
    /// # Panics
    /// If the operating system has no random numbers to give, without which no client may send.
    pub fn next_key(&mut self) -> [u8; 4] {
        match &mut self.0 {
            Source::Seeded(rng) => rng.u32(..).to_ne_bytes(),
            Source::System { pool, used } => {
                if *used == POOL {
                    getrandom::fill(&mut pool[..])
                        .expect("random bytes for a mask from the operating system");
                    *used = 0;
                }
                let key = [pool[*used], pool[*used + 1], pool[*used + 2], pool[*used + 3]];
                *used += 4;
                key
            }
        }
    }
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masks")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_alignment_length_and_phase_agrees_with_the_rfc() {
        let key = [0x12, 0x34, 0x56, 0x78];
        for offset in 0..16 {
            for len in 0..80 {
                for phase in 0..4 {
                    let mut data: Vec<u8> = (0..offset + len).map(|i| i as u8 ^ 0x5a).collect();
                    let expected: Vec<u8> = data[offset..]
                        .iter()
                        .enumerate()
                        .map(|(i, byte)| byte ^ key[(i + phase) % 4])
                        .collect();
                    apply(&mut data[offset..], advance(key, phase));
                    assert_eq!(data[offset..], expected);
                }
            }
        }
    }

    #[test]
    fn system_keys_differ_and_seeded_keys_repeat() {
        let mut system = Masks::system();
        let keys: std::collections::HashSet<_> = (0..100).map(|_| system.next_key()).collect();
        assert!(keys.len() > 95);
        assert_eq!(Masks::seeded(7).next_key(), Masks::seeded(7).next_key());
    }
}
