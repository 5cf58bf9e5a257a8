//! Changes valid inputs a little: bits, numbers, pieces, lengths, repeated and nested parts. Pure.

use std::time::{Duration, Instant};

/// A stream of numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The stream of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: usize) -> usize {
        let number = usize::try_from(self.number() >> 1).unwrap_or_default();
        number.checked_rem(end).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        self.number().to_le_bytes()[0]
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }
}

/// Numbers at which readers break: ends of ranges, lengths that are no lengths.
const NUMBERS: [u64; 14] = [
    0,
    1,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];
/// The same where numbers are written out, and what is none.
const TEXTS: [&str; 12] = [
    "0",
    "-1",
    "1e308",
    "1e999",
    "0.1",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "null",
    "\"\"",
    "[]",
];
/// Bytes that mean something to somebody.
const SIGNS: &[u8] = b"{}[]\":,\\/.=-_#\n\r\t\0\x7f\x80\xc0\xff 0aA";

/// One of the seeds, changed once to six times.
#[must_use]
pub fn mutated(rng: &mut Rng, seeds: &[Vec<u8>], words: &[Vec<u8>], bytes_max: usize) -> Vec<u8> {
    // Now and then something that is like no seed.
    let mut input = if rng.below(64) == 0 {
        (0..rng.below(bytes_max.min(256))).map(|_| rng.byte()).collect()
    } else {
        rng.pick(seeds).cloned().unwrap_or_default()
    };
    for _ in 0..=rng.below(6) {
        change(rng, &mut input, seeds, words, bytes_max);
        input.truncate(bytes_max);
    }
    input
}

fn change(rng: &mut Rng, input: &mut Vec<u8>, seeds: &[Vec<u8>], words: &[Vec<u8>], bytes_max: usize) {
    let at = rng.below(input.len() + 1);
    match rng.below(14) {
        0 if at < input.len() => input[at] ^= 1 << rng.below(8),
        1 if at < input.len() => input[at] = rng.byte(),
        2 if at < input.len() => input[at] = rng.pick(SIGNS).copied().unwrap_or_default(),
        3 => input.truncate(at),
        4 => drop(input.drain(range(rng, input.len()))),
        5 => number_over(rng, input, at),
        6 => written_number(rng, input),
        7 => again(rng, input, at),
        8 => splice(rng, input, at, seeds),
        9 => insert(input, at, &rng.pick(words).cloned().unwrap_or_default()),
        10 => field_again(rng, input),
        11 => grow(rng, input, at, bytes_max),
        12 => nest(rng, input, bytes_max),
        _ => insert(input, at, &[rng.byte()]),
    }
}

/// A piece of an input: short mostly, sometimes anything.
fn range(rng: &mut Rng, len: usize) -> std::ops::Range<usize> {
    let start = rng.below(len + 1);
    let most = if rng.below(4) == 0 { len } else { 16 };
    start..(start + rng.below(most + 1)).min(len)
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    drop(input.splice(at..at, bytes.iter().copied()));
}

/// Writes a number that breaks readers over what is there, in one of the widths and both orders, or as a varint.
fn number_over(rng: &mut Rng, input: &mut Vec<u8>, at: usize) {
    let number = rng.pick(&NUMBERS).copied().unwrap_or_default();
    let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
    let written: Vec<u8> = match rng.below(7) {
        0 => little[..2].to_vec(),
        1 => little[..4].to_vec(),
        2 => little.to_vec(),
        3 => big[6..].to_vec(),
        4 => big[4..].to_vec(),
        5 => big.to_vec(),
        _ => varint(number),
    };
    let end = (at + written.len()).min(input.len());
    drop(input.splice(at..end, written));
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 128 {
        bytes.push(number.to_le_bytes()[0] | 128);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
    bytes
}

/// Replaces a number in a text.
fn written_number(rng: &mut Rng, input: &mut Vec<u8>) {
    let from = rng.below(input.len() + 1);
    let Some(start) = input[from..].iter().position(u8::is_ascii_digit).map(|at| from + at) else { return };
    let end = input[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(input.len(), |len| start + len);
    let text = rng.pick(&TEXTS).copied().unwrap_or_default();
    drop(input.splice(start..end, text.bytes()));
}

/// Puts a piece of the input in again somewhere.
fn again(rng: &mut Rng, input: &mut Vec<u8>, at: usize) {
    let piece = input[range(rng, input.len())].to_vec();
    insert(input, at, &piece);
}

/// Puts a piece of another valid input over one of this.
fn splice(rng: &mut Rng, input: &mut Vec<u8>, at: usize, seeds: &[Vec<u8>]) {
    let Some(other) = rng.pick(seeds) else { return };
    let piece = other[range(rng, other.len())].to_vec();
    let end = (at + rng.below(piece.len() + 1)).min(input.len());
    drop(input.splice(at..end, piece));
}

/// Says a field or a line of a text twice: what lies between two signs that separate.
fn field_again(rng: &mut Rng, input: &mut Vec<u8>) {
    let sign = *rng.pick(b",\n&;}").unwrap_or(&b',');
    let ends: Vec<usize> = input.iter().enumerate().filter(|(_, byte)| **byte == sign).map(|(at, _)| at).collect();
    let Some(&[start, end]) = rng.pick(&ends.windows(2).map(|two| [two[0], two[1]]).collect::<Vec<_>>()) else {
        return;
    };
    let field = input[start..end].to_vec();
    insert(input, end, &field);
}

/// Repeats a piece until the input is long.
fn grow(rng: &mut Rng, input: &mut Vec<u8>, at: usize, bytes_max: usize) {
    let piece = input[range(rng, input.len())].to_vec();
    let room = bytes_max.saturating_sub(input.len());
    let times = rng.below(room.checked_div(piece.len()).unwrap_or_default() + 1);
    insert(input, at, &piece.repeat(times));
}

/// Opens more than anybody closes.
fn nest(rng: &mut Rng, input: &mut Vec<u8>, bytes_max: usize) {
    let at = rng.below(input.len() + 1);
    let open: &[u8] = rng.pick(&[&b"["[..], b"{\"a\":", b"[[", b"a.", b"\x0a"]).copied().unwrap_or_default();
    let room = bytes_max.saturating_sub(input.len()) / open.len();
    let times = rng.below(room + 1);
    insert(input, at, &open.repeat(times));
}

/// The smallest input found within a time that still fails: pieces are left out, halves first.
#[must_use]
pub fn shrunk(input: &[u8], within: Duration, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let (started, mut small) = (Instant::now(), input.to_vec());
    let mut piece = small.len().div_ceil(2);
    while piece > 0 && started.elapsed() < within {
        let mut at = 0;
        let before = small.len();
        while at < small.len() && started.elapsed() < within {
            let mut shorter = small.clone();
            drop(shorter.drain(at..(at + piece).min(small.len())));
            if fails(&shorter) {
                small = shorter;
            } else {
                at += piece;
            }
        }
        if small.len() == before || piece > small.len() {
            piece /= 2;
        }
    }
    small
}
