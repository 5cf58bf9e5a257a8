//! Rewards of suppliers, and what was promised at genesis.

use super::{Kind, Plain, Record};
use crate::{Address, Hash};
use core::mem::{align_of, size_of};

records! {
    Vesting;
    Claim;
    Reward;
}

plain! {
    /// A root proposed for the rewards of one hour. Its leaves say what each supplier has earned since the beginning.
    168 Reward {
        /// [`Kind::Reward`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// Zero.
        flags: u8,
        /// Votes so far.
        vote_count: u16,
        /// Zero.
        spare: u16,
        /// The hour, from [`super::Rules::reward_zero`] on.
        hour: u64,
        /// Root over the suppliers' sums.
        root: Hash,
        /// Sum of all leaves, base units: never above what the table gives up to this hour.
        total: u64,
        /// Who paid the account's rent.
        rent_payer: Address,
        /// When the first vote came, Unix seconds.
        posted_at: i64,
        /// When the votes reached the threshold, Unix seconds; 0 before.
        final_at: i64,
        /// One bit a seat that voted.
        votes: [u8; 32],
        /// Zero.
        reserve: [u8; 32],
    }

    /// What a supplier has claimed of its rewards. Leaves are cumulative, so one number says what a bitmap would.
    96 Claim {
        /// [`Kind::Claim`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// Zero.
        flags: u8,
        /// Zero.
        spare: u32,
        /// The supplier's page 0.
        page: Address,
        /// Claimed so far, base units.
        claimed: u64,
        /// The hour of the newest leaf claimed.
        hour: u64,
        /// Zero.
        reserve: [u8; 40],
    }

    /// Tokens of the genesis that are released over time.
    152 Vesting {
        /// [`Kind::Vesting`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// Bump of the vault's address.
        vault_bump: u8,
        /// Number among its beneficiary's.
        n: u16,
        /// Zero.
        spare: u16,
        /// Who receives.
        beneficiary: Address,
        /// What was promised, base units.
        total: u64,
        /// What was paid, base units.
        claimed: u64,
        /// Start, Unix seconds.
        start: i64,
        /// Nothing before this many seconds.
        cliff_s: u64,
        /// All of it after this many seconds.
        duration_s: u64,
        /// For whom the part is booked, such as `seed` or `community`, in ASCII, zero-padded.
        name: [u8; 32],
        /// Zero.
        reserve: [u8; 40],
    }
}
