//! Disputes on one leaf, which a panel of attestors judges.

use crate::{
    Address, Data, Error, Hash, SYSTEM_PROGRAM_ID, TOKEN_PROGRAM_ID,
    instruction::{Meta, SIGNER, WRITABLE},
    wire::{Hashes, Wire},
};

instructions! {
    /// Disputes one lease's leaf of a final root within its hold, with a bond. Freezes that lease alone. Anyone may send it.
    38 OpenDispute<'a> {
        /// What the leaf should say, device-seconds: less than it does, and no less than what is settled.
        ceiling: u64,
        /// [`crate::merkle::Leaf::device_seconds`]
        device_seconds: u64,
        /// [`crate::merkle::Leaf::until`]
        until: i64,
        /// [`crate::merkle::Leaf::flags`]
        flags: u8,
        /// [`crate::merkle::Leaf::slots_root`]
        slots_root: Hash,
        /// Index of the leaf.
        leaf_index: u32,
        /// Path of the leaf.
        path: Hashes<'a>,
    }
    OpenDisputeAccounts {
        /// Pays rent and bond; gets the rent back.
        opener: signer writable,
        /// [`crate::seeds::dispute`]
        dispute: writable,
        /// [`crate::seeds::dispute_vault`]
        vault: writable,
        /// A token account of the opener.
        source: writable,
        /// The lease's order.
        order: readonly,
        /// The lease.
        lease: writable,
        /// The lease's page.
        page: readonly,
        /// The root.
        epoch: readonly,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::seeds::rules`]
        rules: readonly,
        /// ATL.
        mint: readonly,
        = TOKEN_PROGRAM_ID,
        = SYSTEM_PROGRAM_ID,
    }

    /// Draws the first panel, if it is not drawn yet, and votes for a seat of the panel. Anyone may draw.
    39 VoteDispute {
        /// [`DRAW`], [`FOR_OPENER`] or [`FOR_LEAF`].
        choice: u8,
    }
    VoteDisputeAccounts {
        /// The attestor's key; anyone who only draws.
        key: signer,
        /// [`crate::seeds::attestor`]; the dispute again for who only draws.
        attestor: readonly,
        /// The dispute.
        dispute: writable,
        /// [`crate::seeds::config`]
        config: readonly,
    }

    /// Appeals against what the first panel said, or did not say, with twice the bond: all seats but the parties' vote.
    /// Anyone may send it.
    40 Appeal {}
    AppealAccounts {
        /// Pays the bond.
        appellant: signer,
        /// The dispute.
        dispute: writable,
        /// [`crate::seeds::dispute_vault`]
        vault: writable,
        /// A token account of the appellant.
        source: writable,
        /// [`crate::seeds::config`]
        config: readonly,
        = TOKEN_PROGRAM_ID,
    }

    /// Ends a dispute whose times are over: settles its leaf as it was judged, thaws the lease, and pays the bonds. Anyone
    /// may send it.
    41 CloseDispute {}
    CloseDisputeAccounts {
        /// The dispute.
        dispute: writable,
        /// [`crate::seeds::dispute_vault`]
        vault: writable,
        /// The lease's order.
        order: writable,
        /// The lease.
        lease: writable,
        /// Who opened it; gets the rent.
        opener: writable,
        /// A token account of the opener when it is paid, else the vault again.
        to_opener: writable,
        /// A token account of the appellant when it is paid, else the vault again.
        to_appellant: writable,
        /// A token account of the supplier's wallet when it is paid, else the vault again.
        to_supplier: writable,
        /// ATL.
        mint: writable,
        = TOKEN_PROGRAM_ID,
    }
}

/// [`VoteDispute::choice`]: no vote.
pub const DRAW: u8 = 0;
/// [`VoteDispute::choice`]: the leaf says too much.
pub const FOR_OPENER: u8 = 1;
/// [`VoteDispute::choice`]: the leaf is right.
pub const FOR_LEAF: u8 = 2;
