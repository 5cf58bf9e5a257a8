//! Orders with further terms, spot among them, and what a budget's key may lengthen.

use crate::{
    Address, Data, Error, SYSTEM_PROGRAM_ID, TOKEN_PROGRAM_ID,
    instruction::{Meta, SIGNER, WRITABLE},
    wire::Wire,
};

instructions! {
    /// Posts an order as [`crate::instruction::PostOrder`] does, with further terms. A spot order's price cap is its bid:
    /// every slot that asks no more is paid the bid, and its supplier may take the devices back after a notice.
    50 PostOrderSpot<'a> {
        /// Spot: seconds of notice before the supplier takes devices back; 0 is not spot.
        notice_s: u32,
        /// Regions wanted, one bit each of the first 64; 0 is any.
        region_mask: u64,
        /// Lowest score wanted, thousandths; 0 is any.
        score_min_milli: u16,
        /// The fields of [`crate::instruction::PostOrder`].
        order: &'a [u8],
    }
    PostOrderSpotAccounts {
        /// The renter's wallet or its budget's key.
        authority: signer,
        /// Pays the rent and gets it back.
        payer: signer writable,
        /// [`crate::seeds::order`]
        order: writable,
        /// [`crate::seeds::order_vault`]
        vault: writable,
        /// A token account of the wallet, or the budget's vault.
        source: writable,
        /// The budget, or the order's address again when the wallet signs.
        budget: writable,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::seeds::catalogue`]
        catalogue: readonly,
        /// [`crate::seeds::feed`]
        feed: readonly,
        /// ATL.
        mint: readonly,
        = TOKEN_PROGRAM_ID,
        = SYSTEM_PROGRAM_ID,
    }

    /// Gives notice that a spot lease's devices are taken back. From the notice's end on, and for as long as it was, they
    /// may be released as [`crate::settlement::Reason::Reclaim`].
    51 NoticeReclaim {}
    NoticeReclaimAccounts {
        /// The supplier's wallet.
        supplier: signer,
        /// The order.
        order: readonly,
        /// The lease.
        lease: writable,
        /// The lease's page.
        page: readonly,
    }

    /// Lengthens an order that a budget posted, by the budget's key and within its limits, as
    /// [`crate::instruction::ExtendOrder`] does.
    52 ExtendByBudget {
        /// Seconds added to the order's end.
        seconds: u32,
        /// What is added to the escrow, base units: exactly what [`crate::layout::Order::extension`] says.
        escrow: u64,
    }
    ExtendByBudgetAccounts {
        /// The budget's key.
        key: signer,
        /// The budget that posted the order.
        budget: writable,
        /// [`crate::seeds::budget_vault`]
        purse: writable,
        /// The order.
        order: writable,
        /// [`crate::seeds::order_vault`]
        vault: writable,
        = TOKEN_PROGRAM_ID,
    }
}
