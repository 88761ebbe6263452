//! A plain inflater (RFC 1951), slow and simple, that measures how far back the stream refers.

struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> usize {
        (0..count).fold(0, |value, i| value | self.bit() << i)
    }

    fn bit(&mut self) -> usize {
        let bit = self.data[self.at / 8] >> (self.at % 8) & 1;
        self.at += 1;
        usize::from(bit)
    }
}

/// A canonical Huffman code: how many codes there are of each length, and the symbols in order.
struct Huffman {
    counts: [usize; 16],
    symbols: Vec<usize>,
}

impl Huffman {
    fn new(lengths: &[usize]) -> Self {
        let mut counts = [0; 16];
        lengths.iter().for_each(|&len| counts[len] += 1);
        counts[0] = 0;
        let mut symbols: Vec<usize> =
            (0..lengths.len()).filter(|&symbol| lengths[symbol] > 0).collect();
        symbols.sort_by_key(|&symbol| (lengths[symbol], symbol));
        Huffman { counts, symbols }
    }

    fn decode(&self, bits: &mut Bits<'_>) -> usize {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for len in 1..16 {
            code |= bits.bit();
            if code < first + self.counts[len] {
                return self.symbols[index + code - first];
            }
            index += self.counts[len];
            first = (first + self.counts[len]) << 1;
            code <<= 1;
        }
        panic!("no such code");
    }
}

/// Appends what the blocks hold to `out`, which is also the history, and returns the farthest distance.
pub fn inflate(data: &[u8], out: &mut Vec<u8>) -> usize {
    let mut bits = Bits { data, at: 0 };
    let mut farthest = 0;
    while bits.at + 3 <= data.len() * 8 {
        let last = bits.bit();
        match bits.take(2) {
            0 => {
                bits.at = bits.at.next_multiple_of(8);
                let len = bits.take(16);
                assert_eq!(len ^ 0xffff, bits.take(16));
                out.extend((0..len).map(|_| bits.take(8) as u8));
            }
            1 => {
                let lengths: Vec<usize> = (0..288)
                    .map(|symbol| match symbol {
                        0..=143 => 8,
                        144..=255 => 9,
                        256..=279 => 7,
                        _ => 8,
                    })
                    .collect();
                farthest = farthest.max(block(
                    &mut bits,
                    &Huffman::new(&lengths),
                    &Huffman::new(&[5; 30]),
                    out,
                ));
            }
            2 => {
                let (literals, distances) = tables(&mut bits);
                farthest = farthest.max(block(&mut bits, &literals, &distances, out));
            }
            _ => panic!("no such block"),
        }
        assert_eq!(last, 0, "a message is flushed, not finished");
    }
    farthest
}

fn tables(bits: &mut Bits<'_>) -> (Huffman, Huffman) {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (literals, distances, codes) = (bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4);
    let mut lengths = [0; 19];
    ORDER[..codes].iter().for_each(|&symbol| lengths[symbol] = bits.take(3));
    let code = Huffman::new(&lengths);
    let mut lengths: Vec<usize> = Vec::new();
    while lengths.len() < literals + distances {
        match code.decode(bits) {
            16 => lengths.extend(vec![*lengths.last().expect("a length before"); bits.take(2) + 3]),
            17 => lengths.extend(vec![0; bits.take(3) + 3]),
            18 => lengths.extend(vec![0; bits.take(7) + 11]),
            len => lengths.push(len),
        }
    }
    (Huffman::new(&lengths[..literals]), Huffman::new(&lengths[literals..]))
}

fn block(bits: &mut Bits<'_>, literals: &Huffman, distances: &Huffman, out: &mut Vec<u8>) -> usize {
    let mut farthest = 0;
    loop {
        match literals.decode(bits) {
            symbol @ 0..=255 => out.push(symbol as u8),
            256 => return farthest,
            symbol => {
                let len = match symbol - 257 {
                    28 => 258,
                    code @ 0..=7 => code + 3,
                    code => ((4 + code % 4) << (code / 4 - 1)) + 3 + bits.take(code / 4 - 1),
                };
                let distance = match distances.decode(bits) {
                    code @ 0..=3 => code + 1,
                    code => ((2 + code % 2) << (code / 2 - 1)) + 1 + bits.take(code / 2 - 1),
                };
                farthest = farthest.max(distance);
                let from = out.len() - distance;
                (from..from + len).for_each(|i| out.push(out[i]));
            }
        }
    }
}
