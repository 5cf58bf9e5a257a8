//! Faults that the program itself judges.

use crate::{
    Address, Data, Error, SYSTEM_PROGRAM_ID, TOKEN_PROGRAM_ID,
    capacity::LeafBytes,
    instruction::{Meta, SIGNER, WRITABLE},
    wire::{Hashes, Wire},
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

    /// Opens a case of capacity fraud on a statement that a device signed. The transaction also holds the ed25519 check.
    33 OpenFraud {
        /// Which instruction of the transaction checks the signature.
        check: u16,
        /// Number of the device's page, which may be closed by now.
        page_no: u16,
    }
    OpenFraudAccounts {
        /// Pays the rent and gets it back when the stake is slashed; takes the bounty.
        opener: signer writable,
        /// [`crate::seeds::fraud`]
        case: writable,
        /// [`crate::seeds::device`]
        device_key: readonly,
        /// The device key's page.
        page: readonly,
        /// [`crate::seeds::page`] of 0
        first_page: readonly,
        /// A lease that holds the worker; the page again when none does.
        lease: readonly,
        /// The lease's order; the page again when there is none.
        order: readonly,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::seeds::rules`]
        rules: readonly,
        /// [`crate::signature::INSTRUCTIONS_ID`]
        instructions: readonly,
        = SYSTEM_PROGRAM_ID,
    }

    /// Shows one wrong element of a case's commitment: the program computes it again. Anyone may send it. The third one, of
    /// this case alone or with those of another, proves the case.
    34 AddFraudElement<'a> {
        /// Its row.
        row: u32,
        /// Its column.
        column: u32,
        /// The committed leaf that holds it.
        leaf: LeafBytes,
        /// The leaf's path.
        path: Hashes<'a>,
    }
    AddFraudElementAccounts {
        /// [`crate::seeds::fraud`]
        case: writable,
        /// Another case whose elements count with this one's, and which is closed when they prove it; else the case again.
        other: writable,
        /// Who opened the other case and gets its rent; else the case again.
        other_opener: writable,
        /// [`crate::seeds::rules`]
        rules: readonly,
    }

    /// Slashes the stake that a proven case puts at risk, and closes the case. Anyone may send it.
    35 ExecuteSlash {}
    ExecuteSlashAccounts {
        /// [`crate::seeds::fraud`]
        case: writable,
        /// Who opened it; gets the rent.
        opener: writable,
        /// [`crate::seeds::device`]
        device_key: writable,
        /// The device key's page, also when it is closed.
        page: writable,
        /// [`crate::seeds::page`] of 0
        first_page: writable,
        /// [`crate::seeds::stake_vault`]
        vault: writable,
        /// ATL.
        mint: writable,
        /// A token account of the opener.
        bounty: writable,
        /// A token account of the harmed renter's wallet; the vault again when nobody was harmed.
        refund: writable,
        /// [`crate::seeds::rules`]
        rules: readonly,
        = TOKEN_PROGRAM_ID,
    }
}
