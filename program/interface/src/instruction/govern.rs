//! Votes of stakers, the guardian's pause.

use crate::{
    Address, Data, Error, Hash, SYSTEM_PROGRAM_ID,
    instruction::{Meta, SIGNER, WRITABLE},
    wire::Wire,
};

instructions! {
    /// Proposes a change. Its number is [`crate::layout::Rules::proposals`].
    44 Propose<'a> {
        /// What is to change: the number of a [`crate::govern::Action`].
        action: u16,
        /// The fields of the action, at most 160 bytes.
        payload: &'a [u8],
        /// Hash of what stands elsewhere: the program's new bytes, or a text that says why. Zero for nothing.
        payload_hash: Hash,
    }
    ProposeAccounts {
        /// A supplier's wallet with enough stake; pays the rent.
        proposer: signer writable,
        /// Its [`crate::seeds::page`] of 0
        first_page: readonly,
        /// [`crate::seeds::proposal`] of the next number
        proposal: writable,
        /// ATL.
        mint: readonly,
        /// A token account whose owner is the rules' address: what lies there does not circulate.
        emission: readonly,
        /// [`crate::seeds::config`]
        config: readonly,
        /// [`crate::seeds::rules`]
        rules: writable,
        = SYSTEM_PROGRAM_ID,
    }

    /// Votes with what a staker has staked, or gives the vote back once the votes are counted, which frees the stake.
    45 Vote {
        /// [`crate::layout::VOTE_FOR`], [`crate::layout::VOTE_AGAINST`], or 0 to give it back.
        choice: u8,
    }
    VoteAccounts {
        /// The supplier's wallet, or the co-staker's; pays the rent and gets it back.
        voter: signer writable,
        /// The proposal.
        proposal: writable,
        /// The supplier's page 0.
        first_page: writable,
        /// The co-stake that votes; the page again when the supplier's own stake does.
        costake: writable,
        /// [`crate::seeds::vote`] of the page or the co-stake
        vote: writable,
        = SYSTEM_PROGRAM_ID,
    }

    /// Counts the votes after their end. Anyone may send it.
    46 Queue {}
    QueueAccounts {
        /// The proposal.
        proposal: writable,
        /// [`crate::seeds::rules`]
        rules: readonly,
    }

    /// Does what an accepted proposal says, once, after its timelock. Anyone may send it.
    47 Execute {}
    ExecuteAccounts {
        /// Pays for a new row.
        payer: signer writable,
        /// The proposal.
        proposal: writable,
        /// [`crate::seeds::config`]
        config: writable,
        /// [`crate::seeds::rules`]
        rules: writable,
        /// [`crate::seeds::catalogue`]
        catalogue: writable,
        /// The new treasury of [`crate::govern::Action::Treasury`]; else the proposal again.
        treasury: readonly,
        = SYSTEM_PROGRAM_ID,
    }

    /// Pauses new orders and fills for some time, or ends the pause; never refunds, settlements or withdrawals. It ends by
    /// itself, and the next one must wait: [`crate::govern::PAUSE_REST_S`].
    48 Pause {
        /// Seconds from now on, at most [`crate::govern::PAUSE_S_MAX`]; 0 ends the pause.
        seconds: u32,
    }
    PauseAccounts {
        /// [`crate::layout::Rules::guardian`]
        guardian: signer,
        /// [`crate::seeds::config`]
        config: writable,
        /// [`crate::seeds::rules`]
        rules: readonly,
    }
}
