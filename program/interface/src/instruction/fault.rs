//! Faults that the program itself judges.

use crate::{
    Address, Data, Error, TOKEN_PROGRAM_ID,
    instruction::{Meta, SIGNER, WRITABLE},
    wire::Wire,
};

instructions! {
    /// Proves that an attestor's key signed two roots of one epoch: its stake is burned but for a bounty, and the key votes
    /// no more. The transaction also holds the two ed25519 checks.
    32 ProveEquivocation {
        /// Which instruction of the transaction checks the first vote.
        first: u16,
        /// Which one checks the second.
        second: u16,
    }
    ProveEquivocationAccounts {
        /// Who proves it; takes the bounty.
        prover: signer,
        /// [`crate::seeds::attestor`]
        attestor: writable,
        /// [`crate::seeds::attestor_vault`]
        vault: writable,
        /// ATL.
        mint: writable,
        /// A token account of the prover.
        bounty: writable,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::seeds::rules`]
        rules: readonly,
        /// [`crate::signature::INSTRUCTIONS_ID`]
        instructions: readonly,
        = TOKEN_PROGRAM_ID,
    }
}
