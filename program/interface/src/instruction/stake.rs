//! How stake leaves, and how others stake for a supplier.

use crate::{
    Address, Data, Error, SYSTEM_PROGRAM_ID, TOKEN_PROGRAM_ID,
    instruction::{Meta, SIGNER, WRITABLE},
    wire::Wire,
};

instructions! {
    /// Starts the waiting time of stake that no device requires. It stays slashable meanwhile. A second request starts the
    /// time of all anew.
    27 UnstakeRequest {
        /// Base units.
        amount: u64,
    }
    UnstakeRequestAccounts {
        /// The supplier's wallet.
        supplier: signer,
        /// [`crate::seeds::page`] of 0
        first_page: writable,
        /// [`crate::seeds::rules`]
        rules: readonly,
    }

    /// Pays out stake whose waiting time is over. Anyone may send it.
    28 UnstakeWithdraw {}
    UnstakeWithdrawAccounts {
        /// [`crate::seeds::page`] of 0
        first_page: writable,
        /// [`crate::seeds::stake_vault`]
        vault: writable,
        /// A token account of the supplier's wallet.
        destination: writable,
        = TOKEN_PROGRAM_ID,
    }

    /// Offers to take co-stake on some terms.
    29 CostakeOffer {
        /// Number of the offer, below [`crate::stake::OFFERS_MAX`].
        n: u16,
        /// Base units.
        amount: u64,
        /// The co-staker's share of what its part of the stake earns, basis points.
        reward_bps: u16,
    }
    CostakeOfferAccounts {
        /// The supplier's wallet; pays the rent and gets it back.
        supplier: signer writable,
        /// [`crate::seeds::page`] of 0
        first_page: writable,
        /// [`crate::seeds::costake`]
        costake: writable,
        = SYSTEM_PROGRAM_ID,
    }

    /// Accepts an offer: the stake is moved, and its terms are fixed. It repeats the terms, so that nobody accepts others.
    30 CostakeAccept {
        /// Base units, as offered.
        amount: u64,
        /// As offered.
        reward_bps: u16,
    }
    CostakeAcceptAccounts {
        /// The co-staker's wallet.
        staker: signer,
        /// The supplier's page 0.
        first_page: writable,
        /// The offer.
        costake: writable,
        /// [`crate::seeds::stake_vault`], made by the supplier's own first stake.
        vault: writable,
        /// The co-staker's token account.
        source: writable,
        = TOKEN_PROGRAM_ID,
    }

    /// The next step of an offer's end: the supplier withdraws an offer that nobody accepted; the co-staker asks to leave;
    /// after the first waiting time, by anyone, it counts no more; after the second, by anyone, it is paid out.
    31 CostakeExit {}
    CostakeExitAccounts {
        /// The supplier's wallet, the co-staker's, or anyone, as the step needs.
        authority: signer,
        /// The supplier's page 0.
        first_page: writable,
        /// The co-stake.
        costake: writable,
        /// The supplier's wallet; gets the rent.
        supplier: writable,
        /// [`crate::seeds::stake_vault`] when it is paid out, else the page again.
        vault: writable,
        /// A token account of the co-staker when it is paid out, else the page again.
        destination: writable,
        /// [`crate::seeds::rules`]
        rules: readonly,
        = TOKEN_PROGRAM_ID,
    }
}
