//! The one source of randomness of a world: a generator (xoshiro256**) for each purpose, all from one seed.
//!
//! A purpose has its own stream, so that one more draw for, say, a delay does not change who crashes when. Nothing here
//! is fit for secrets.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A stream of draws for one purpose. Clones share the stream.
#[derive(Clone, Debug)]
pub struct Random(Arc<Mutex<Xoshiro>>);

#[derive(Debug)]
struct Xoshiro([u64; 4]);

/// splitmix64: spreads a seed over a state (Steele, Lea, Flood 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Xoshiro {
    /// Blackman and Vigna, 2018.
    fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let drawn = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        drawn
    }
}

impl Random {
    /// The stream of a seed for a purpose.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a: purposes are few and written by hand.
        let named = purpose
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        let mut state = seed ^ named;
        Self(Arc::new(Mutex::new(Xoshiro(std::array::from_fn(|_| split_mix(&mut state))))))
    }

    fn state(&self) -> MutexGuard<'_, Xoshiro> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// 64 bits.
    #[must_use]
    pub fn bits(&self) -> u64 {
        self.state().next()
    }

    /// A number of a range that is not empty, evenly (but for a bias below 2^-32 for ranges below 2^32).
    #[must_use]
    pub fn below(&self, range: Range<u64>) -> u64 {
        assert!(range.start < range.end, "an empty range has nothing to draw");
        range.start + self.bits() % (range.end - range.start)
    }

    /// Whether something happens that does so `per_mille` times in a thousand.
    #[must_use]
    pub fn happens(&self, per_mille: u64) -> bool {
        self.below(0..1000) < per_mille
    }

    /// A length of time of a range, in microseconds.
    #[must_use]
    pub fn lasts(&self, range: Range<Duration>) -> Duration {
        let micros = |length: Duration| u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.below(micros(range.start)..micros(range.end).max(micros(range.start) + 1)))
    }

    /// One of them.
    #[must_use]
    pub fn one_of<'a, T>(&self, of: &'a [T]) -> &'a T {
        let at = self.below(0..of.len() as u64);
        &of[usize::try_from(at).expect("it is below a length")]
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.state();
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&state.next().to_le_bytes()[..chunk.len()]);
        }
    }

    /// So many bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seed: u64, purpose: &str) -> Vec<u64> {
        let random = Random::new(seed, purpose);
        (0..4).map(|_| random.bits()).collect()
    }

    #[test]
    fn a_seed_and_a_purpose_give_one_stream() {
        assert_eq!(first(1, "net"), first(1, "net"));
        assert_ne!(first(1, "net"), first(2, "net"));
        assert_ne!(first(1, "net"), first(1, "disk"));
    }

    #[test]
    fn draws_are_in_their_ranges_and_spread() {
        let random = Random::new(7, "test");
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[usize::try_from(random.below(0..10)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| (900..1100).contains(count)), "{seen:?}");
        let ms = Duration::from_millis;
        assert!((0..100).all(|_| (ms(2)..ms(5)).contains(&random.lasts(ms(2)..ms(5)))));
        assert_eq!(random.lasts(ms(3)..ms(3)), ms(3));
        assert!(!random.happens(0) && random.happens(1000));
    }
}
