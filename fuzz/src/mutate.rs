//! Ways to damage an input: what comes of broken disks, cut connections, and programs that mean harm.

use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

/// Numbers at which lengths and counts go wrong.
const NUMBERS: [u64; 18] =
    [0, 1, 2, 3, 4, 7, 8, 100, 127, 128, 255, 256, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];

/// Inputs longer than this tell no more than shorter ones.
const LEN_MAX: usize = 512 << 10;

/// One of the corpus, damaged in one to a few ways.
pub fn mutate(corpus: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut input = corpus.choose(rng).cloned().unwrap_or_default();
    let ways = if rng.random_bool(0.6) { 1 } else { rng.random_range(2..6) };
    for _ in 0..ways {
        damage(&mut input, corpus, rng);
    }
    input.truncate(LEN_MAX);
    input
}

fn damage(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut StdRng) {
    if input.is_empty() {
        return input.push(rng.random());
    }
    let at = rng.random_range(0..input.len());
    let len = rng.random_range(1..=(input.len() - at).min(64));
    match rng.random_range(0..11) {
        0 => input[at] ^= 1 << rng.random_range(0..8),
        1 => input[at] = rng.random(),
        2 => input[at] = input[at].wrapping_add(if rng.random() { 1 } else { 255 }),
        3 => input.truncate(at),
        4 => drop(input.drain(at..at + len)),
        5 => {
            let piece: Vec<u8> = input[at..at + len].to_vec();
            let to = rng.random_range(0..=input.len());
            input.splice(to..to, piece);
        }
        6 => {
            let piece: Vec<u8> = (0..len).map(|_| rng.random()).collect();
            input.splice(at..at, piece);
        }
        7 => number(&mut input[at..], rng),
        // The front of this one and the end of another.
        8 => {
            let other = corpus.choose(rng).map(Vec::as_slice).unwrap_or_default();
            let from = rng.random_range(0..=other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        9 => input[at..at + len].fill(rng.random()),
        // Digits of texts such as JSON, and signs that mean something in them.
        _ => input[at] = *b"0123456789-+.eE\"\\{}[],:/\0\n ".choose(rng).unwrap_or(&b'0'),
    }
}

/// Overwrites what may be a number, of any width and either order of bytes.
fn number(place: &mut [u8], rng: &mut StdRng) {
    let value = *NUMBERS.choose(rng).unwrap_or(&0);
    let width = [2, 4, 8][rng.random_range(0..3)].min(place.len());
    let bytes =
        if rng.random() { value.to_be_bytes()[8 - width..].to_vec() } else { value.to_le_bytes()[..width].to_vec() };
    place[..width].copy_from_slice(&bytes);
}
