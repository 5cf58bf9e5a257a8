//! The Merkle tree over an epoch's leaves.

use atoll_domain::key::{Address, Digest, sha256};
use atoll_interface::merkle::{Leaf, depth, padded_len, root_and_path};

use crate::store::rows::{Epoch, EpochLeaf};

/// A leaf as the chain hashes it.
#[must_use]
pub fn of_row(row: &EpochLeaf) -> Leaf {
    Leaf {
        lease: row.lease.0,
        device_seconds: row.device_seconds,
        until: row.until,
        flags: row.flags,
        slots_root: row.slots_root.0,
    }
}

/// The root over leaves in their order.
#[must_use]
pub fn root(leaves: &[EpochLeaf]) -> Digest {
    root_and_path_of(leaves, 0).0
}

/// The leaf of a lease in an epoch: its index, itself, its path.
#[must_use]
pub fn find(epoch: &Epoch, lease: &Address) -> Option<(u32, EpochLeaf, Vec<[u8; 32]>)> {
    let index = epoch.leaves.iter().position(|leaf| leaf.lease == *lease)?;
    let (_, path) = root_and_path_of(&epoch.leaves, index);
    Some((u32::try_from(index).ok()?, epoch.leaves[index].clone(), path))
}

fn root_and_path_of(leaves: &[EpochLeaf], index: usize) -> (Digest, Vec<[u8; 32]>) {
    let mut scratch: Vec<[u8; 32]> = leaves.iter().map(|leaf| of_row(leaf).hash(sha256)).collect();
    scratch.resize(padded_len(leaves.len()), [0; 32]);
    let mut path = vec![[0; 32]; depth(leaves.len())];
    let (root, length) = root_and_path(sha256, &mut scratch, index, &mut path)
        .expect("an epoch has at most 2^20 leaves and index is one of them");
    path.truncate(length);
    (Digest(root), path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_domain::key::PublicKey;
    use atoll_domain::time::UnixMs;
    use atoll_interface::Hashes;
    use atoll_interface::merkle::root_of_path;

    #[test]
    fn every_leaf_leads_to_the_root() {
        let leaf = |n: u8| EpochLeaf {
            lease: PublicKey([n; 32]),
            device_seconds: u64::from(n),
            until: 5,
            flags: 0,
            slots_root: Digest([0; 32]),
        };
        for count in 1..9 {
            let leaves: Vec<EpochLeaf> = (1..=count).map(leaf).collect();
            let epoch = Epoch { index: 1, root: root(&leaves), leaves, created: UnixMs(0) };
            for row in &epoch.leaves {
                let (index, found, path) = find(&epoch, &row.lease).unwrap();
                let hash = of_row(&found).hash(sha256);
                assert_eq!(root_of_path(sha256, hash, index, Hashes::new(&path)), Some(epoch.root.0));
            }
            assert!(find(&epoch, &PublicKey([99; 32])).is_none());
        }
    }
}
