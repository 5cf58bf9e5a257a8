//! What was promised at genesis.

use crate::{
    Address, Data, Error, SYSTEM_PROGRAM_ID, TOKEN_PROGRAM_ID,
    instruction::{Meta, SIGNER, WRITABLE},
    wire::Wire,
};

instructions! {
    /// Pays the beneficiary of a vesting what is due by now and was not paid. Anyone may send it.
    49 ClaimVesting {}
    ClaimVestingAccounts {
        /// [`crate::seeds::vesting`]
        vesting: writable,
        /// [`crate::seeds::vesting_vault`]
        vault: writable,
        /// A token account of the beneficiary.
        destination: writable,
        /// [`crate::seeds::rules`]
        rules: writable,
        = TOKEN_PROGRAM_ID,
    }

    /// Promises tokens over time, and locks them in the same instruction. By the admin until votes decide.
    55 GrantVesting {
        /// Who receives.
        beneficiary: Address,
        /// Number among the beneficiary's.
        n: u16,
        /// Base units.
        total: u64,
        /// Start, Unix seconds.
        start: i64,
        /// Nothing before this many seconds from the start.
        cliff_s: u64,
        /// All of it after this many seconds from the start.
        duration_s: u64,
        /// For whom the part is booked, such as `seed` or `community`, in ASCII, zero-padded.
        name: [u8; 32],
    }
    GrantVestingAccounts {
        /// The network's admin; pays the rent and gives the tokens.
        admin: signer writable,
        /// [`crate::seeds::vesting`]
        vesting: writable,
        /// [`crate::seeds::vesting_vault`]
        vault: writable,
        /// A token account of the admin.
        source: writable,
        /// A token account whose owner is the rules' address: the rewards.
        emission: readonly,
        /// ATL.
        mint: readonly,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::seeds::rules`]
        rules: writable,
        = TOKEN_PROGRAM_ID,
        = SYSTEM_PROGRAM_ID,
    }
}
