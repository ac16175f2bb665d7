//! Inputs made of others.

/// Numbers that look random (SplitMix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, or 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.next() % end as u64) as usize }
    }

    /// From 1, mostly small, and up to two to the power of `bits`.
    fn length(&mut self, bits: usize) -> usize {
        let bits = self.below(bits);
        1 + self.below(1 << bits)
    }
}

/// A name for bytes (FNV-1a).
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Numbers at which things go wrong.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    1 << 40,
    i64::MAX as u64,
    u64::MAX,
];

/// The same numbers as text, and what else is seldom expected.
const WORDS: [&str; 16] = [
    "0",
    "-1",
    "1e999",
    "99999989",
    "2147483648",
    "4294967296",
    "18446744073709551616",
    "\u{0}",
    "\u{feff}",
    "\u{202e}",
    "\r\n",
    "\u{10ffff}",
    "NaN",
    "null",
    "é",
    "\u{1f980}",
];

/// Changes an input, once or several times. `others` are inputs to take parts from, `words` what the target's inputs are
/// made of.
pub(crate) fn mutate(
    random: &mut Random,
    input: &mut Vec<u8>,
    others: &[Vec<u8>],
    words: &[&str],
    max_len: usize,
) {
    for _ in 0..1 << random.below(5) {
        once(random, input, others, words);
        input.truncate(max_len);
    }
}

fn once(random: &mut Random, input: &mut Vec<u8>, others: &[Vec<u8>], words: &[&str]) {
    let place = random.below(input.len() + 1);
    let length = random.length(9);
    let end = (place + length).min(input.len());
    match random.below(12) {
        0 => {
            if let Some(byte) = input.get_mut(place) {
                *byte ^= 1 << random.below(8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(place) {
                *byte = random.next() as u8;
            }
        }
        // A number of 1, 2, 4 or 8 bytes: an edge, or a little more or less than it was.
        2 | 3 => {
            let width = 1 << random.below(4);
            if let Some(bytes) = input.get_mut(place..place + width) {
                let mut number = [0; 8];
                number[..width].copy_from_slice(bytes);
                let number = u64::from_le_bytes(number);
                let changed = match random.below(3) {
                    0 => EDGES[random.below(EDGES.len())],
                    1 => number.wrapping_add(random.below(17) as u64),
                    _ => number.wrapping_sub(random.below(17) as u64),
                };
                bytes.copy_from_slice(&changed.to_le_bytes()[..width]);
            }
        }
        4 => drop(input.drain(place..end)),
        5 => {
            let part = input[place..end].to_vec();
            let times = random.length(6);
            insert(input, place, &part.repeat(times));
        }
        6 | 7 if !words.is_empty() => insert(input, place, words[random.below(words.len())].as_bytes()),
        8 => insert(input, place, WORDS[random.below(WORDS.len())].as_bytes()),
        9 => {
            let word = WORDS[random.below(WORDS.len())].as_bytes();
            drop(input.splice(place..end, word.iter().copied()));
        }
        10 => input.truncate(place),
        _ => {
            if let Some(other) = others.get(random.below(others.len())) {
                let begin = random.below(other.len() + 1);
                let end = (begin + length).min(other.len());
                insert(input, place, &other[begin..end]);
            }
        }
    }
}

fn insert(input: &mut Vec<u8>, place: usize, bytes: &[u8]) {
    drop(input.splice(place..place, bytes.iter().copied()));
}
