//! The network root, which names one network for ever, and the message that attestors sign off chain.

use crate::{Address, Hash};

/// Domain of the network root.
pub const NETWORK_DOMAIN: &[u8] = b"atoll/network/1\0";
/// Domain of an attestor's vote.
pub const VOTE_DOMAIN: &[u8] = b"atoll/vote/1\0";
/// Domain of a JobSpec's root.
pub const JOBSPEC_DOMAIN: &[u8] = b"atoll/jobspec/1\0";

/// Domain of an attestor set's hash.
pub const SET_DOMAIN: &[u8] = b"atoll/attestor-set/1\0";

/// Length of [`vote_message`].
pub const VOTE_LEN: usize = VOTE_DOMAIN.len() + 32 + 8 + 32;

/// SHA-256(domain ‖ program id ‖ genesis hash ‖ attestor set 0).
///
/// `attestor_set` is the set's encoding: threshold u16 ‖ count u16 ‖ (owner ‖ key) of each seat, little-endian; it is what
/// the `init` instruction carries and what follows the header of the `Config` account.
pub fn network_root(
    sha256: impl Fn(&[&[u8]]) -> Hash,
    program_id: &Address,
    genesis_hash: &Hash,
    threshold: u16,
    seats: &[[u8; 64]],
) -> Hash {
    let threshold = threshold.to_le_bytes();
    // A set has at most 256 seats, so the cast keeps every bit.
    #[allow(clippy::cast_possible_truncation)]
    let count = (seats.len() as u16).to_le_bytes();
    sha256(&[NETWORK_DOMAIN, program_id, genesis_hash, &threshold, &count, seats.as_flattened()])
}

/// Hash of an attestor set, over the one before it: SHA-256(domain ‖ network root ‖ number ‖ hash before ‖ threshold ‖ count
/// ‖ seats), the set as in [`network_root`], which stands for the hash before set 1. So the newest hash on the chain
/// commits to every set there was, and a receipt can show them one by one from the root that its reader pinned.
pub fn set_hash(
    sha256: impl Fn(&[&[u8]]) -> Hash,
    network_root: &Hash,
    before: &Hash,
    (number, threshold): (u16, u16),
    seats: &[[u8; 64]],
) -> Hash {
    let (number, threshold) = (number.to_le_bytes(), threshold.to_le_bytes());
    // A set has at most 256 seats, so the cast keeps every bit.
    #[allow(clippy::cast_possible_truncation)]
    let count = (seats.len() as u16).to_le_bytes();
    sha256(&[SET_DOMAIN, network_root, &number, before, &threshold, &count, seats.as_flattened()])
}

/// What an attestor signs with its key for one epoch: (domain, network root, epoch, root).
#[must_use]
pub fn vote_message(network_root: &Hash, epoch: u64, root: &Hash) -> [u8; VOTE_LEN] {
    let mut message = [0; VOTE_LEN];
    let (domain, rest) = message.split_at_mut(VOTE_DOMAIN.len());
    domain.copy_from_slice(VOTE_DOMAIN);
    rest[..32].copy_from_slice(network_root);
    rest[32..40].copy_from_slice(&epoch.to_le_bytes());
    rest[40..].copy_from_slice(root);
    message
}

/// SHA-256 of the domain and the exact bytes of a JobSpec: the `spec_root` of an order.
pub fn spec_root(sha256: impl Fn(&[&[u8]]) -> Hash, job_spec: &[u8]) -> Hash {
    sha256(&[JOBSPEC_DOMAIN, job_spec])
}

/// Index of the epoch that holds the second `now`, or `None` before the first epoch.
///
/// Epoch `i` covers `[zero + i * epoch_s, zero + (i + 1) * epoch_s)`.
#[must_use]
pub const fn epoch_at(now: i64, zero: i64, epoch_s: u32) -> Option<u64> {
    if now < zero || epoch_s == 0 {
        return None;
    }
    Some(now.wrapping_sub(zero).cast_unsigned() / epoch_s as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::sha256;

    #[test]
    fn roots_bind_every_part() {
        let base = network_root(sha256, &[1; 32], &[2; 32], 1, &[[3; 64]]);
        assert_ne!(base, network_root(sha256, &[0; 32], &[2; 32], 1, &[[3; 64]]));
        assert_ne!(base, network_root(sha256, &[1; 32], &[0; 32], 1, &[[3; 64]]));
        assert_ne!(base, network_root(sha256, &[1; 32], &[2; 32], 2, &[[3; 64]]));
        assert_ne!(base, network_root(sha256, &[1; 32], &[2; 32], 1, &[[3; 64], [4; 64]]));
    }

    #[test]
    fn votes_are_laid_out_as_documented() {
        let vote = vote_message(&[1; 32], 0x0102, &[2; 32]);
        assert_eq!(&vote[..13], VOTE_DOMAIN);
        assert_eq!(vote[13..45], [1; 32]);
        assert_eq!(vote[45..53], [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(vote[53..], [2; 32]);
    }

    #[test]
    fn epochs() {
        assert_eq!(epoch_at(9, 10, 5), None);
        assert_eq!(epoch_at(10, 10, 5), Some(0));
        assert_eq!(epoch_at(14, 10, 5), Some(0));
        assert_eq!(epoch_at(15, 10, 5), Some(1));
        assert_eq!(epoch_at(15, 10, 0), None);
    }
}
