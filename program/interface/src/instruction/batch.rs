//! Settlement of many leases at once.

use crate::{
    Address, Data, Error, Hash,
    instruction::{Meta, SIGNER, WRITABLE},
    merkle::Leaf,
    wire::{Hashes, Wire},
};

/// Leaves of one batch at most.
pub const BATCH_MAX: usize = 8;
/// Leaves of one batch of several orders at most: each brings its order's account along.
pub const MIXED_MAX: usize = 4;
/// Bytes of a leaf without its lease: device-seconds u64 ‖ until i64 ‖ flags ‖ slots root, little-endian.
pub const SAID_LEN: usize = 8 + 8 + 1 + 32;

instructions! {
    /// Books neighbouring leaves of one order's leases under one path: 1, 2, 4 or 8 leaves, the first at a multiple of
    /// their number. The leases follow the accounts below, writable, in the order of their leaves. All are booked, or none.
    /// Anyone may send it.
    36 SettleBatch<'a> {
        /// Place of the first leaf in its epoch's tree.
        first_leaf: u32,
        /// What each leaf says: [`said`].
        leaves: &'a [[u8; SAID_LEN]],
        /// The path of the node above them all.
        path: Hashes<'a>,
    }
    SettleBatchAccounts {
        /// [`crate::seeds::order`]
        order: writable,
        /// [`crate::seeds::epoch`]
        epoch: readonly,
        /// [`crate::seeds::config`]
        config: readonly,
    }

    /// Books neighbouring leaves of several orders' leases under one path, as [`SettleBatch`] does of one: 1, 2 or 4. The
    /// orders follow the accounts below, one a leaf, and then the leases, all writable, in the order of their leaves.
    54 SettleMixed<'a> {
        /// Place of the first leaf in its epoch's tree.
        first_leaf: u32,
        /// What each leaf says: [`said`].
        leaves: &'a [[u8; SAID_LEN]],
        /// The path of the node above them all.
        path: Hashes<'a>,
    }
    SettleMixedAccounts {
        /// [`crate::seeds::epoch`]
        epoch: readonly,
        /// [`crate::seeds::config`]
        config: readonly,
    }
}

/// What a leaf says of its lease, as a batch carries it.
#[must_use]
pub fn said(leaf: &Leaf) -> [u8; SAID_LEN] {
    let mut bytes = [0; SAID_LEN];
    bytes[..8].copy_from_slice(&leaf.device_seconds.to_le_bytes());
    bytes[8..16].copy_from_slice(&leaf.until.to_le_bytes());
    bytes[16] = leaf.flags;
    bytes[17..].copy_from_slice(&leaf.slots_root);
    bytes
}

/// The leaf of a lease that says what [`said`] wrote.
#[must_use]
pub fn leaf_of(lease: Address, said: &[u8; SAID_LEN]) -> Leaf {
    let (mut device_seconds, mut until, mut slots_root): ([u8; 8], [u8; 8], Hash) = ([0; 8], [0; 8], [0; 32]);
    device_seconds.copy_from_slice(&said[..8]);
    until.copy_from_slice(&said[8..16]);
    slots_root.copy_from_slice(&said[17..]);
    let (device_seconds, until) = (u64::from_le_bytes(device_seconds), i64::from_le_bytes(until));
    Leaf { lease, device_seconds, until, flags: said[16], slots_root }
}
