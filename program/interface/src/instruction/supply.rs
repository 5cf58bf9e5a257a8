//! Supply and its rules: terms of many slots, keys, and how workers leave.

use crate::{
    Address, Data, Error, SYSTEM_PROGRAM_ID, TOKEN_PROGRAM_ID,
    instruction::{Meta, SIGNER, WRITABLE},
    wire::Wire,
};

instructions! {
    /// Makes or changes the rules of stake, faults, rewards and votes. By the admin, until votes decide.
    19 SetRules {
        /// [`crate::layout::Rules::guardian`]
        guardian: Address,
        /// [`crate::layout::Rules::unbond_s`]
        unbond_s: u32,
        /// [`crate::layout::Rules::exit_wait_s`]
        exit_wait_s: u32,
        /// [`crate::layout::Rules::dispute_window_s`]
        dispute_window_s: u32,
        /// [`crate::layout::Rules::voting_s`]
        voting_s: u32,
        /// [`crate::layout::Rules::appeal_s`]
        appeal_s: u32,
        /// [`crate::layout::Rules::case_s`]
        case_s: u32,
        /// [`crate::layout::Rules::proposal_s`]
        proposal_s: u32,
        /// [`crate::layout::Rules::timelock_s`]
        timelock_s: u32,
        /// [`crate::layout::Rules::device_slash_bps`]
        device_slash_bps: u16,
        /// [`crate::layout::Rules::attestor_slash_bps`]
        attestor_slash_bps: u16,
        /// [`crate::layout::Rules::bounty_bps`]
        bounty_bps: u16,
        /// [`crate::layout::Rules::quorum_bps`]
        quorum_bps: u16,
        /// [`crate::layout::Rules::surcharge_bps`]
        surcharge_bps: u16,
        /// [`crate::layout::Rules::feed_width_bps`]
        feed_width_bps: u16,
        /// [`crate::layout::Rules::hired_cap_bps`]
        hired_cap_bps: u16,
        /// [`crate::layout::Rules::enterprise_bps`]
        enterprise_bps: u16,
        /// [`crate::layout::Rules::bounty_max`]
        bounty_max: u64,
        /// [`crate::layout::Rules::dispute_bond`]
        dispute_bond: u64,
        /// [`crate::layout::Rules::proposal_stake`]
        proposal_stake: u64,
    }
    SetRulesAccounts {
        /// The network's admin; pays when the account is made.
        admin: signer writable,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::seeds::rules`]
        rules: writable,
        = SYSTEM_PROGRAM_ID,
    }

    /// Lets some slots of a page take no new lease, or take them again. Running leases go on.
    20 SetDrain<'a> {
        /// 1 drains, 0 ends it.
        drain: u8,
        /// The first slot of the bitmap.
        first_slot: u16,
        /// Bitmap of slots.
        bits: &'a [u8],
    }
    SetDrainAccounts {
        /// The supplier's wallet, a key with its asks, or the device key of the one slot.
        authority: signer,
        /// The slots' page.
        page: writable,
        /// [`crate::seeds::ask_key`] when such a key signs, else the page again.
        ask_key: readonly,
    }

    /// Gives a key the supplier's asks and drains until some time, or takes them away.
    21 DelegateAskKey {
        /// The key.
        key: Address,
        /// When it stops working, Unix seconds; a time that is over takes the right away and closes the account.
        until: i64,
    }
    DelegateAskKeyAccounts {
        /// The supplier's wallet; pays the rent and gets it back.
        supplier: signer writable,
        /// [`crate::seeds::ask_key`]
        ask_key: writable,
        = SYSTEM_PROGRAM_ID,
    }

    /// Sets one ask for some slots of a page. It binds future leases only.
    22 SetAsks<'a> {
        /// New ask, micro-USD per device-hour.
        ask_uusd: u64,
        /// New longest lease, seconds; 0 is any.
        lease_s_max: u32,
        /// The first slot of the bitmap.
        first_slot: u16,
        /// Bitmap of slots.
        bits: &'a [u8],
    }
    SetAsksAccounts {
        /// The supplier's wallet, or a key with its asks.
        authority: signer,
        /// The slots' page.
        page: writable,
        /// [`crate::seeds::ask_key`] when such a key signs, else the page again.
        ask_key: readonly,
    }

    /// Gives a worker another device key. The wallet decides, so that a lost key does not lose the worker; the old key is
    /// kept as retired.
    23 RotateDeviceKey {
        /// The worker's slot.
        slot: u16,
    }
    RotateDeviceKeyAccounts {
        /// The supplier's wallet; pays the rent.
        supplier: signer writable,
        /// The new device key.
        device: signer,
        /// The worker's page.
        page: writable,
        /// [`crate::seeds::device`] of the old key
        old_key: writable,
        /// [`crate::seeds::device`] of the new key
        new_key: writable,
        = SYSTEM_PROGRAM_ID,
    }

    /// Takes a worker without leases off its slot; what its devices required is required no more. The stake itself leaves
    /// by [`crate::instruction::UnstakeRequest`].
    24 RetireWorker {
        /// The worker's slot.
        slot: u16,
    }
    RetireWorkerAccounts {
        /// The supplier's wallet.
        supplier: signer,
        /// The worker's page.
        page: writable,
        /// Page 0 of the same supplier; the same account when the page is page 0.
        first_page: writable,
        /// [`crate::seeds::device`]
        device_key: writable,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::seeds::catalogue`]
        catalogue: readonly,
    }

    /// Closes the account of a device key that was retired long enough ago; the key may then be registered again.
    25 CloseDeviceKey {
        /// Number of the page that it stood on.
        page_no: u16,
    }
    CloseDeviceKeyAccounts {
        /// The supplier's wallet; gets the rent.
        supplier: signer writable,
        /// [`crate::seeds::device`]
        device_key: writable,
        /// [`crate::seeds::rules`]
        rules: readonly,
    }

    /// Closes a page that holds nothing; page 0 with the stake vault, when no stake is left in it.
    26 ClosePage {}
    ClosePageAccounts {
        /// The supplier's wallet; gets the rent.
        supplier: signer writable,
        /// The page.
        page: writable,
        /// [`crate::seeds::stake_vault`] for page 0 of a supplier that ever staked, else the page again.
        vault: writable,
        /// A token account of the wallet, for what others sent to the vault by mistake; else the page again.
        destination: writable,
        = TOKEN_PROGRAM_ID,
    }
}
