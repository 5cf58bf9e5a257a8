//! Go's `math/rand` for a given seed: the published tables were drawn with it.
//!
//! An additive lagged Fibonacci generator of 607 words (`src/math/rand/rng.go` of Go 1.19); the constants are in
//! [`TABLE`](table::TABLE). Only what the replay draws is here.

mod table;

const LENGTH: usize = 607;
const TAP: usize = 273;

/// One seeded stream.
#[derive(Clone, Debug)]
pub(crate) struct GoRand {
    words: [u64; LENGTH],
    tap: usize,
    feed: usize,
}

/// `x -> 48271 x mod (2^31 - 1)`, which fills the words from the seed.
fn lehmer(x: u64) -> u64 {
    x * 48_271 % 0x7fff_ffff
}

impl GoRand {
    /// The stream that `rand.New(rand.NewSource(seed))` has.
    pub(crate) fn new(seed: u32) -> Self {
        let mut x = match u64::from(seed) % 0x7fff_ffff {
            0 => 89_482_311,
            x => x,
        };
        for _ in 0..20 {
            x = lehmer(x);
        }
        let words = table::TABLE.map(|constant| {
            let a = lehmer(x);
            let b = lehmer(a);
            x = lehmer(b);
            (a << 40) ^ (b << 20) ^ x ^ constant.cast_unsigned()
        });
        Self { words, tap: 0, feed: LENGTH - TAP }
    }

    /// The next 63 bits.
    pub(crate) fn i63(&mut self) -> u64 {
        self.tap = self.tap.checked_sub(1).unwrap_or(LENGTH - 1);
        self.feed = self.feed.checked_sub(1).unwrap_or(LENGTH - 1);
        let word = self.words[self.feed].wrapping_add(self.words[self.tap]);
        self.words[self.feed] = word;
        word & (u64::MAX >> 1)
    }

    /// A number below `n`, as `Intn` draws it for `n` below 2^31.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let bound = u64::try_from(n).expect("a usize has no more than 64 bits");
        let mut drawn = self.i63() >> 32;
        if bound.is_power_of_two() {
            drawn &= bound - 1;
        } else {
            let most = 0x7fff_ffff - (1 << 31) % bound;
            while drawn > most {
                drawn = self.i63() >> 32;
            }
            drawn %= bound;
        }
        usize::try_from(drawn).expect("below n")
    }

    /// A number below `n`, as `Shuffle` draws it: by multiplication.
    fn below_multiplied(&mut self, n: usize) -> usize {
        let bound = u64::try_from(n).expect("a usize has no more than 64 bits");
        let low = |product: u64| product & 0xffff_ffff;
        let mut product = (self.i63() >> 31) * bound;
        if low(product) < bound {
            let least = ((1 << 32) - bound) % bound;
            while low(product) < least {
                product = (self.i63() >> 31) * bound;
            }
        }
        usize::try_from(product >> 32).expect("below n")
    }

    /// Shuffles as `Shuffle` does.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            let other = self.below_multiplied(last + 1);
            list.swap(last, other);
        }
    }

    /// A permutation of `0..n`, as `Perm` draws it.
    pub(crate) fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut drawn = vec![0; n];
        for i in 0..n {
            let j = self.below(i + 1);
            drawn[i] = drawn[j];
            drawn[j] = i;
        }
        drawn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_that_of_go() {
        let first = |seed| {
            let mut stream = GoRand::new(seed);
            [stream.i63(), stream.i63(), stream.i63(), stream.i63()]
        };
        let of_1 = [
            5_577_006_791_947_779_410,
            8_674_665_223_082_153_551,
            6_129_484_611_666_145_821,
            4_037_200_794_235_010_051,
        ];
        let of_42 =
            [3_440_579_354_231_278_675, 608_747_136_543_856_411, 5_571_782_338_101_878_760, 1_926_012_586_526_624_009];
        assert_eq!(first(1), of_1);
        assert_eq!(first(42), of_42);
    }
}
