//! Merkle trees over SHA-256 with separate domains for leaves and nodes.
//!
//! A tree is filled up with zero hashes to the next power of two. No leaf can hash to zero, so a padding leaf proves
//! nothing, and every path of a tree has the same length.

use crate::{Address, Hash, wire::Hashes};

/// First byte of what a leaf hashes.
pub const LEAF: u8 = 0x00;
/// First byte of what an inner node hashes.
pub const NODE: u8 = 0x01;
/// The longest path accepted: a tree of 2^20 leaves.
pub const DEPTH_MAX: usize = 20;

/// The lease has served its last second; no later leaf will say more.
pub const FLAG_FINAL: u8 = 1;
/// The observers of two owners blame the supplier for the loss of a slot.
pub const FLAG_LOSS_BLAMED: u8 = 2;

/// What attestors say of one lease at the end of an epoch. Cumulative: the newest leaf says everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The lease's account.
    pub lease: Address,
    /// Device-seconds served since the lease's start, without those judged `Fail` or `Unjudged`.
    pub device_seconds: u64,
    /// Chain time, in Unix seconds, up to which the lease was observed.
    pub until: i64,
    /// [`FLAG_FINAL`] and [`FLAG_LOSS_BLAMED`].
    pub flags: u8,
    /// Commits (slot, seconds, verdict) of every slot; opened only in a dispute.
    pub slots_root: Hash,
}

impl Leaf {
    /// SHA-256(0x00 ‖ lease ‖ device_seconds ‖ until ‖ flags ‖ slots_root), integers little-endian.
    pub fn hash(&self, sha256: impl Fn(&[&[u8]]) -> Hash) -> Hash {
        let mut bytes = [LEAF; 1 + 32 + 8 + 8 + 1 + 32];
        bytes[1..33].copy_from_slice(&self.lease);
        bytes[33..41].copy_from_slice(&self.device_seconds.to_le_bytes());
        bytes[41..49].copy_from_slice(&self.until.to_le_bytes());
        bytes[49] = self.flags;
        bytes[50..].copy_from_slice(&self.slots_root);
        sha256(&[&bytes])
    }
}

/// SHA-256(0x01 ‖ left ‖ right).
pub fn node(sha256: impl Fn(&[&[u8]]) -> Hash, left: &Hash, right: &Hash) -> Hash {
    let prefix = [NODE];
    sha256(&[&prefix, left, right])
}

/// The root that a leaf hash at `index` and its path lead to; `None` when the index does not fit under the path's depth
/// or the path is longer than [`DEPTH_MAX`].
pub fn root_of_path(sha256: impl Fn(&[&[u8]]) -> Hash, leaf: Hash, index: u32, path: Hashes<'_>) -> Option<Hash> {
    if path.len() > DEPTH_MAX || index >> path.len() != 0 {
        return None;
    }
    let mut hash = leaf;
    for (level, sibling) in path.iter().enumerate() {
        hash = if (index >> level) & 1 == 0 { node(&sha256, &hash, sibling) } else { node(&sha256, sibling, &hash) };
    }
    Some(hash)
}

/// Folds neighbouring leaf hashes to the node above them all, in place. Their number is a power of two.
pub fn fold(sha256: impl Fn(&[&[u8]]) -> Hash, hashes: &mut [Hash]) -> Option<Hash> {
    let mut width = hashes.len();
    if !width.is_power_of_two() {
        return None;
    }
    while width > 1 {
        width /= 2;
        for pair in 0..width {
            let (left, right) = (hashes.get(2 * pair)?, hashes.get(2 * pair + 1)?);
            let above = node(&sha256, left, right);
            *hashes.get_mut(pair)? = above;
        }
    }
    hashes.first().copied()
}

/// How many entries the scratch space of [`root_and_path`] needs for `leaves` leaves: the next power of two, at least 1.
#[must_use]
pub const fn padded_len(leaves: usize) -> usize {
    leaves.next_power_of_two()
}

/// Depth of the tree over `leaves` leaves: the length of every path in it.
#[must_use]
pub const fn depth(leaves: usize) -> usize {
    padded_len(leaves).trailing_zeros() as usize
}

/// Folds leaf hashes to their root in place, and writes the path of the leaf at `index` into `path`.
///
/// `scratch` holds the leaf hashes followed by zero hashes up to [`padded_len`] and is overwritten; `path` must hold
/// [`depth`] entries. Returns the root and the path's length, or `None` when a length is not what it must be.
pub fn root_and_path(
    sha256: impl Fn(&[&[u8]]) -> Hash,
    scratch: &mut [Hash],
    index: usize,
    path: &mut [Hash],
) -> Option<(Hash, usize)> {
    let depth = depth(scratch.len());
    if !scratch.len().is_power_of_two() || index >= scratch.len() || path.len() < depth || depth > DEPTH_MAX {
        return None;
    }
    let (mut width, mut at) = (scratch.len(), index);
    for slot in path.iter_mut().take(depth) {
        *slot = scratch[at ^ 1];
        for pair in 0..width / 2 {
            scratch[pair] = node(&sha256, &scratch[2 * pair], &scratch[2 * pair + 1]);
        }
        (width, at) = (width / 2, at / 2);
    }
    Some((scratch[0], depth))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::sha256;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn tree(count: usize, index: usize) -> (Hash, Hash, Vec<Hash>) {
        let hashes: Vec<Hash> = (0..count).map(|i| sha256(&[&i.to_le_bytes()])).collect();
        let mut scratch = hashes.clone();
        scratch.resize(padded_len(count), [0; 32]);
        let mut path = [[0; 32]; DEPTH_MAX];
        let (root, depth) = root_and_path(sha256, &mut scratch, index, &mut path).unwrap();
        (root, hashes[index], path[..depth].to_vec())
    }

    proptest! {
        #[test]
        fn every_leaf_has_a_path_and_no_other(count in 1usize..70, pick: u32, other: u32) {
            let index = pick as usize % count;
            let (root, leaf, path) = tree(count, index);
            prop_assert_eq!(root_of_path(sha256, leaf, u32::try_from(index).unwrap(), Hashes::new(&path)), Some(root));
            let wrong = other as usize % count;
            if wrong != index {
                prop_assert_ne!(root_of_path(sha256, leaf, u32::try_from(wrong).unwrap(), Hashes::new(&path)), Some(root));
            }
        }
    }

    #[test]
    fn neighbours_fold_to_the_node_above_them() {
        let leaves: Vec<Hash> = (0u8..16).map(|byte| [byte; 32]).collect();
        let pair = |i: usize| node(sha256, &leaves[i], &leaves[i + 1]);
        assert_eq!(fold(sha256, &mut leaves[4..5].to_vec()), Some(leaves[4]));
        assert_eq!(fold(sha256, &mut leaves[4..6].to_vec()), Some(pair(4)));
        assert_eq!(fold(sha256, &mut leaves[4..8].to_vec()), Some(node(sha256, &pair(4), &pair(6))));
        for odd in [0, 3, 6] {
            assert_eq!(fold(sha256, &mut leaves[..odd].to_vec()), None);
        }
    }

    #[test]
    fn indexes_beyond_the_tree_are_refused() {
        let (_, leaf, path) = tree(4, 1);
        assert_eq!(root_of_path(sha256, leaf, 5, Hashes::new(&path)), None);
        assert_eq!(root_of_path(sha256, leaf, 0, Hashes::new(&[[0; 32]; DEPTH_MAX + 1])), None);
    }

    #[test]
    fn a_single_leaf_is_its_own_root() {
        let (root, leaf, path) = tree(1, 0);
        assert_eq!((root, path.len()), (leaf, 0));
    }

    #[test]
    fn a_leaf_hashes_what_the_design_says() {
        let leaf = Leaf { lease: [7; 32], device_seconds: 258, until: -2, flags: FLAG_FINAL, slots_root: [9; 32] };
        let expected = sha256(&[
            &[0],
            &[7; 32],
            &[2, 1, 0, 0, 0, 0, 0, 0],
            &[0xfe, 255, 255, 255, 255, 255, 255, 255],
            &[1],
            &[9; 32],
        ]);
        assert_eq!(leaf.hash(sha256), expected);
    }
}
