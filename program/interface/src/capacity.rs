//! Capacity challenges as the chain judges them: what a device commits to, signs, and is caught by.
//!
//! A challenge of side `n` asks for the product C = A × B of two n × n matrices of int8 that a seed gives. The device
//! commits to a Merkle root over C and signs a [`Statement`]. One element of C is cheap to compute again, on chain too:
//! [`element`]. Who asks, when, and how long a device may take, is the network's.
//!
//! **The matrices.** Row i of A is, 32 bytes at a time, SHA-256(key_a ‖ i u32 ‖ block u32) with key_a =
//! SHA-256("atoll/capacity/a\0" ‖ seed ‖ device key); column j of B likewise from key_b = SHA-256("atoll/capacity/b\0" ‖
//! seed). Bytes are int8, integers little-endian. So all devices under one seed share B and nobody shares A.
//!
//! **The commitment.** A leaf is SHA-256(0x00 ‖ 32 consecutive int32 of one row); leaf number `row * n / 32 + column / 32`;
//! nodes as in [`crate::merkle`].

use crate::{
    Address, Error, Hash,
    merkle::{LEAF, node},
    wire::Hashes,
};

/// Domain of a signed statement.
pub const STATEMENT_DOMAIN: &[u8; 17] = b"atoll/capacity/1\0";
/// Length of [`Statement::message`].
pub const STATEMENT_LEN: usize = 17 + 32 + 32 + 32 + 4 + 32 + 8;
/// Elements of a leaf.
pub const LEAF_ELEMENTS: u32 = 32;
/// The largest side: its path still fits in a transaction.
pub const SIDE_MAX: u32 = 1 << 14;
/// Wrong elements, in distinct rows and columns, that prove fraud. One flipped bit of a row of A or a column of B spoils that
/// row or column alone, so no single flip of an honest device reaches it.
pub const WRONG_MIN: u16 = 3;

/// The elements of one leaf, little-endian int32.
pub type LeafBytes = [u8; 4 * LEAF_ELEMENTS as usize];

/// What a device signs of one challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The network it is meant for.
    pub network_root: Hash,
    /// The device key that signs.
    pub device: Address,
    /// The challenge's seed.
    pub seed: Hash,
    /// Side of the matrices: a power of two from 32 to [`SIDE_MAX`].
    pub n: u32,
    /// Root over the product.
    pub root: Hash,
    /// When it was made, Unix seconds.
    pub at: i64,
}

impl Statement {
    /// The bytes that the device signs: domain ‖ network root ‖ device ‖ seed ‖ n ‖ root ‖ time.
    #[must_use]
    pub fn message(&self) -> [u8; STATEMENT_LEN] {
        let mut message = [0; STATEMENT_LEN];
        let n = self.n.to_le_bytes();
        let at = self.at.to_le_bytes();
        let parts: [&[u8]; 7] = [STATEMENT_DOMAIN, &self.network_root, &self.device, &self.seed, &n, &self.root, &at];
        let mut rest = message.as_mut_slice();
        for part in parts {
            let (front, tail) = core::mem::take(&mut rest).split_at_mut(part.len());
            front.copy_from_slice(part);
            rest = tail;
        }
        message
    }

    /// Reads a signed message back.
    ///
    /// # Errors
    /// [`Error::StatementWrong`] for another length, domain or side.
    pub fn parse(message: &[u8]) -> Result<Self, Error> {
        let (domain, rest) = message.split_first_chunk::<17>().ok_or(Error::StatementWrong)?;
        let (network_root, rest) = rest.split_first_chunk::<32>().ok_or(Error::StatementWrong)?;
        let (device, rest) = rest.split_first_chunk::<32>().ok_or(Error::StatementWrong)?;
        let (seed, rest) = rest.split_first_chunk::<32>().ok_or(Error::StatementWrong)?;
        let (n, rest) = rest.split_first_chunk::<4>().ok_or(Error::StatementWrong)?;
        let (root, rest) = rest.split_first_chunk::<32>().ok_or(Error::StatementWrong)?;
        let (at, rest) = rest.split_first_chunk::<8>().ok_or(Error::StatementWrong)?;
        let n = u32::from_le_bytes(*n);
        let side = n.is_power_of_two() && (LEAF_ELEMENTS..=SIDE_MAX).contains(&n);
        if domain != STATEMENT_DOMAIN || !side || !rest.is_empty() {
            return Err(Error::StatementWrong);
        }
        let at = i64::from_le_bytes(*at);
        Ok(Self { network_root: *network_root, device: *device, seed: *seed, n, root: *root, at })
    }
}

/// What rows and columns of one challenge are expanded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// For the rows of A.
    pub a: Hash,
    /// For the columns of B.
    pub b: Hash,
}

impl Keys {
    /// The keys of a seed for one device.
    pub fn of(sha256: impl Fn(&[&[u8]]) -> Hash, seed: &Hash, device: &Address) -> Self {
        Self {
            a: sha256(&[b"atoll/capacity/a\0".as_slice(), seed, device]),
            b: sha256(&[b"atoll/capacity/b\0".as_slice(), seed]),
        }
    }
}

/// Bytes `32 * block ..` of a row or column: one hash.
#[inline(always)]
pub fn expand(sha256: impl Fn(&[&[u8]]) -> Hash, key: &Hash, line: u32, block: u32) -> Hash {
    sha256(&[key, &line.to_le_bytes(), &block.to_le_bytes()])
}

/// One element of the product: row `row` of A times column `column` of B. At most 2^14 products of at most 2^14, so it fits
/// in an int32.
pub fn element(sha256: impl Fn(&[&[u8]]) -> Hash, keys: &Keys, n: u32, row: u32, column: u32) -> i32 {
    let mut sum = 0i64;
    for block in 0..n / LEAF_ELEMENTS {
        let (a, b) = (expand(&sha256, &keys.a, row, block), expand(&sha256, &keys.b, column, block));
        for (a, b) in a.iter().zip(&b) {
            sum = sum.wrapping_add(i64::from(a.cast_signed()).wrapping_mul(i64::from(b.cast_signed())));
        }
    }
    // See above: the sum fits.
    #[allow(clippy::cast_possible_truncation)]
    {
        sum as i32
    }
}

/// An element shown under a commitment.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its row.
    pub row: u32,
    /// Its column.
    pub column: u32,
    /// The leaf that holds it.
    pub leaf: &'a LeafBytes,
    /// The leaf's path.
    pub path: Hashes<'a>,
}

impl Shown<'_> {
    /// The element, if its leaf is under the root of a commitment of side `n`.
    ///
    /// # Errors
    /// [`Error::ParameterOutOfRange`] outside of the matrix, [`Error::LeafPathWrong`] for another leaf, path or root.
    pub fn committed(self, sha256: impl Fn(&[&[u8]]) -> Hash, root: &Hash, n: u32) -> Result<i32, Error> {
        let Self { row, column, leaf, path } = self;
        if row >= n || column >= n {
            return Err(Error::ParameterOutOfRange);
        }
        let leaves = leaves(n);
        if path.len() != leaves.trailing_zeros() as usize {
            return Err(Error::LeafPathWrong);
        }
        // Below 2^14 * 2^9.
        let index = row.wrapping_mul(n / LEAF_ELEMENTS).wrapping_add(column / LEAF_ELEMENTS);
        let mut hash = leaf_hash(&sha256, leaf);
        for (level, sibling) in path.iter().enumerate() {
            hash =
                if (index >> level) & 1 == 0 { node(&sha256, &hash, sibling) } else { node(&sha256, sibling, &hash) };
        }
        if hash != *root {
            return Err(Error::LeafPathWrong);
        }
        let at = (column % LEAF_ELEMENTS) as usize;
        let (elements, _) = leaf.as_chunks::<4>();
        elements.get(at).map(|bytes| i32::from_le_bytes(*bytes)).ok_or(Error::ParameterOutOfRange)
    }
}

/// Leaves of a commitment of side `n`.
#[must_use]
pub const fn leaves(n: u32) -> u32 {
    n.wrapping_mul(n / LEAF_ELEMENTS)
}

/// The hash of one leaf.
pub fn leaf_hash(sha256: impl Fn(&[&[u8]]) -> Hash, leaf: &LeafBytes) -> Hash {
    let prefix = [LEAF];
    sha256(&[&prefix, leaf])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::sha256;
    use std::{vec, vec::Vec};

    fn statement() -> Statement {
        Statement { network_root: [1; 32], device: [2; 32], seed: [3; 32], n: 64, root: [4; 32], at: -5 }
    }

    /// The whole product and its commitment, the plain way.
    fn product(keys: &Keys, n: u32) -> (Vec<LeafBytes>, Vec<Vec<Hash>>) {
        let mut leaves = vec![];
        for row in 0..n {
            for block in 0..n / 32 {
                let mut leaf = [0; 128];
                for (at, bytes) in leaf.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    let column = block * 32 + u32::try_from(at).unwrap();
                    *bytes = element(sha256, keys, n, row, column).to_le_bytes();
                }
                leaves.push(leaf);
            }
        }
        let mut levels = vec![leaves.iter().map(|leaf| leaf_hash(sha256, leaf)).collect::<Vec<_>>()];
        while levels.last().unwrap().len() > 1 {
            let below = levels.last().unwrap();
            levels.push(below.chunks(2).map(|pair| node(sha256, &pair[0], &pair[1])).collect());
        }
        (leaves, levels)
    }

    fn path(levels: &[Vec<Hash>], index: usize) -> Vec<Hash> {
        levels[..levels.len() - 1].iter().enumerate().map(|(level, hashes)| hashes[(index >> level) ^ 1]).collect()
    }

    fn hex(bytes: &[u8]) -> std::string::String {
        bytes.iter().map(|byte| std::format!("{byte:02x}")).collect()
    }

    #[test]
    fn statements_round_trip_and_refuse_other_bytes() {
        let message = statement().message();
        assert_eq!(Statement::parse(&message), Ok(statement()));
        assert_eq!(Statement::parse(&message[1..]), Err(Error::StatementWrong));
        assert_eq!(Statement::parse(&[&message[..], &[0]].concat()), Err(Error::StatementWrong));
        for n in [0, 31, 33, 48, 1 << 15, u32::MAX] {
            let wrong = Statement { n, ..statement() }.message();
            assert_eq!(Statement::parse(&wrong), Err(Error::StatementWrong), "{n}");
        }
        let mut other = message;
        other[0] ^= 1;
        assert_eq!(Statement::parse(&other), Err(Error::StatementWrong));
    }

    /// Vectors for other implementations; a second one, in another language, gave the same.
    #[test]
    fn vectors() {
        let keys = Keys::of(sha256, &[3; 32], &[2; 32]);
        assert_eq!(hex(&keys.a), "010a6249626e70dc7aa06602fa31b8352d2cb905a71b4d612516414663ec05ce");
        assert_eq!(hex(&keys.b), "a1da2d7509daab52045be7eb667503096a3010409b44b9e569d20a4ec3cb607d");
        let block = expand(sha256, &keys.a, 1, 2);
        assert_eq!(hex(&block), "f756131d0131c25d669201f0c90e0bed365168e90813db81c2d24ba98e3a8ba7");
        let elements = [(0, 0), (0, 1), (1, 0), (63, 63)].map(|(row, column)| element(sha256, &keys, 64, row, column));
        assert_eq!(elements, [-68_873, 28_571, -7_218, 6_884]);
        let (_, levels) = product(&keys, 64);
        let root = levels.last().unwrap()[0];
        assert_eq!(hex(&root), "fcc63220f5a19593325af34afbbdf93e6e2956362c391c1011c2678cf979fd5e");
    }

    #[test]
    fn every_element_is_shown_and_no_other_passes() {
        let keys = Keys::of(sha256, &[3; 32], &[2; 32]);
        let n = 32;
        let (leaves, levels) = product(&keys, n);
        let root = levels.last().unwrap()[0];
        for (row, column) in [(0, 0), (5, 31), (31, 7)] {
            let index = usize::try_from(row * (n / 32) + column / 32).unwrap();
            let path = path(&levels, index);
            let shown = Shown { row, column, leaf: &leaves[index], path: Hashes::new(&path) };
            assert_eq!(shown.committed(sha256, &root, n), Ok(element(sha256, &keys, n, row, column)));
            let other = Shown { row: (row + 1) % n, ..shown };
            assert_eq!(other.committed(sha256, &root, n), Err(Error::LeafPathWrong));
            let short = Shown { path: Hashes::new(&path[1..]), ..shown };
            assert_eq!(short.committed(sha256, &root, n), Err(Error::LeafPathWrong));
            assert_eq!(shown.committed(sha256, &root, n * 2), Err(Error::LeafPathWrong));
            assert_eq!(Shown { column: n, ..shown }.committed(sha256, &root, n), Err(Error::ParameterOutOfRange));
        }
    }
}
