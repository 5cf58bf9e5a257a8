//! Settlement by renter and worker while the attestors are silent.

use crate::{
    Address, Data, Error,
    instruction::{Meta, SIGNER, WRITABLE},
    wire::Wire,
};

instructions! {
    /// Books device-seconds that renter and worker agree on, once nothing was attested of the lease for the stall time.
    /// An ed25519 instruction of the same transaction checks the worker's signature over [`crate::cosigned::Usage`]. Never
    /// above the lease's cap; moves no token, and makes no lease closable.
    37 SettleCosigned {
        /// Place of the ed25519 instruction in the transaction.
        check: u16,
        /// Slot of the page whose device key signed.
        slot: u16,
    }
    SettleCosignedAccounts {
        /// The renter's wallet, or the key of the budget that posted the order.
        renter: signer,
        /// The order.
        order: writable,
        /// The lease.
        lease: writable,
        /// The lease's page.
        page: readonly,
        /// The order's budget when its key signs, else the order's address again.
        budget: readonly,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::signature::INSTRUCTIONS_ID`]
        instructions: readonly,
    }
}
