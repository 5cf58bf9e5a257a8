//! Rewards of suppliers.

use crate::{
    Address, Data, Error, Hash, SYSTEM_PROGRAM_ID, TOKEN_PROGRAM_ID,
    instruction::{Meta, SIGNER, WRITABLE},
    wire::{Hashes, Wire},
};

instructions! {
    /// Votes for one root over what suppliers have earned up to the end of an hour that is over.
    42 PostReward {
        /// The hour, from [`crate::layout::Rules::reward_zero`] on.
        hour: u64,
        /// The root over [`crate::reward::leaf_hash`] of every supplier.
        root: Hash,
        /// Sum of the leaves, base units; at most what [`crate::emission::given`] says of the hours up to this one's end.
        total: u64,
    }
    PostRewardAccounts {
        /// The attestor's key.
        key: signer,
        /// Pays the rent when this is the root's first vote.
        payer: signer writable,
        /// [`crate::seeds::attestor`]
        attestor: writable,
        /// [`crate::seeds::reward`]
        reward: writable,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::seeds::rules`]
        rules: readonly,
        = SYSTEM_PROGRAM_ID,
    }

    /// Pays a supplier what a leaf says that it has earned, less what it took before. Anyone may send it.
    43 ClaimReward<'a> {
        /// What the supplier has earned since the beginning, base units.
        sum: u64,
        /// Index of the leaf.
        leaf_index: u32,
        /// Path of the leaf.
        path: Hashes<'a>,
    }
    ClaimRewardAccounts {
        /// Pays the rent of the supplier's first claim.
        payer: signer writable,
        /// The supplier's wallet.
        supplier: readonly,
        /// Its page 0, closed or not.
        page: readonly,
        /// [`crate::seeds::claim`]
        claim: writable,
        /// The root, out of its hold.
        reward: readonly,
        /// A token account whose owner is the rules' address: what is given lies there.
        emission: writable,
        /// A token account of the supplier's wallet.
        destination: writable,
        /// [`crate::seeds::rules`]
        rules: writable,
        /// [`crate::seeds::config`]
        config: readonly,
        = TOKEN_PROGRAM_ID,
        = SYSTEM_PROGRAM_ID,
    }
}
