//! Who else acts or stakes for a supplier.

use super::{Kind, Plain, Record};
use crate::Address;
use core::mem::{align_of, size_of};

records! {
    AskKey;
    CoStake;
}

plain! {
    /// A key to which a supplier's wallet gave its asks.
    112 AskKey {
        /// [`Kind::AskKey`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// Zero.
        flags: u8,
        /// Zero.
        spare: u32,
        /// The supplier's wallet.
        supplier: Address,
        /// The key.
        key: Address,
        /// When it stops working, Unix seconds.
        until: i64,
        /// Zero.
        reserve: [u8; 32],
    }

    /// Stake that somebody else puts under a supplier, on terms that the supplier offered.
    136 CoStake {
        /// [`Kind::CoStake`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// [`CO_STAKE_OFFERED`], [`CO_STAKE_HELD`], [`CO_STAKE_WAITING`] or [`CO_STAKE_LEAVING`].
        state: u8,
        /// Number of the offer among its supplier's.
        n: u16,
        /// The co-staker's share of what its part of the stake earns, basis points.
        reward_bps: u16,
        /// The supplier's page 0.
        page: Address,
        /// Who accepted; zero before.
        staker: Address,
        /// Stake at `slash_index`, base units; its worth now is [`CoStake::worth`].
        amount: u64,
        /// The supplier's slash index when `amount` was written.
        slash_index: u64,
        /// When it was accepted, Unix seconds.
        accepted_at: i64,
        /// When the next step of its exit may be taken, Unix seconds.
        until: i64,
        /// Its votes that were not given back: while there are any, it does not leave.
        votes_open: u16,
        /// Zero.
        reserve: [u8; 30],
    }
}

/// The supplier offers; nobody accepted.
pub const CO_STAKE_OFFERED: u8 = 1;
/// It counts and is bound.
pub const CO_STAKE_HELD: u8 = 2;
/// Its owner asked to leave: it counts until `until`.
pub const CO_STAKE_WAITING: u8 = 3;
/// It counts no more, and is slashable until `until`.
pub const CO_STAKE_LEAVING: u8 = 4;
