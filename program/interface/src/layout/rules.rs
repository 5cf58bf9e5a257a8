//! The rules of stake, faults and votes, and how they change.

use super::{Kind, Plain, Record};
use crate::{Address, Hash};
use core::mem::{align_of, size_of};

records! {
    Rules;
    Proposal;
    Vote;
}

plain! {
    /// Parameters of stake, faults, rewards and governance, one account at [`crate::seeds::rules`]. `Config` is full: seats
    /// follow its header.
    256 Rules {
        /// [`Kind::Rules`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// Zero.
        flags: u8,
        /// Zero.
        spare: u32,
        /// May pause new orders and fills; zero is nobody.
        guardian: Address,
        /// Seconds for which leaving stake stays slashable, and for which a retired device key is kept.
        unbond_s: u32,
        /// Seconds for which co-stake counts after its owner asked to leave.
        exit_wait_s: u32,
        /// Seconds after the second in question within which a fault is brought.
        dispute_window_s: u32,
        /// Seconds for which a panel votes.
        voting_s: u32,
        /// Seconds within which an appeal is filed and decided.
        appeal_s: u32,
        /// Seconds between two statements whose wrong elements count together.
        case_s: u32,
        /// Seconds for which a proposal takes votes.
        proposal_s: u32,
        /// Seconds between an accepted proposal and its execution.
        timelock_s: u32,
        /// Part of a device's stake that fraud costs, basis points.
        device_slash_bps: u16,
        /// Part of an attestor's stake that equivocation costs, basis points.
        attestor_slash_bps: u16,
        /// Part of a slash that goes to who proved it, basis points.
        bounty_bps: u16,
        /// Part of the circulating supply that must vote on a proposal, basis points.
        quorum_bps: u16,
        /// Surcharge on orders paid in USDC, basis points.
        surcharge_bps: u16,
        /// The widest confidence interval of the feed that is accepted, basis points of the price.
        feed_width_bps: u16,
        /// Part of the fees that a lease burned by which hiring may raise its reward, basis points.
        hired_cap_bps: u16,
        /// Part of each hour's rewards for the enterprise tier, basis points.
        enterprise_bps: u16,
        /// The highest bounty, base units.
        bounty_max: u64,
        /// Bond of a dispute, base units.
        dispute_bond: u64,
        /// Stake that a proposer needs, base units.
        proposal_stake: u64,
        /// Start of the first hour of rewards, Unix seconds; 0 before rewards begin.
        reward_zero: i64,
        /// Proposals made so far: the number of the next one.
        proposals: u64,
        /// Rewards claimed so far, base units.
        rewards_claimed: u64,
        /// The highest total of the roots under which rewards were claimed, base units.
        rewards_total: u64,
        /// [`crate::network::set_hash`] of the present attestor set; zero while it is set 0, which the network root names.
        set_hash: Hash,
        /// Promised by all vestings, base units.
        vesting_total: u64,
        /// Of that, not paid yet, base units: it does not circulate.
        vesting_held: u64,
        /// Zero.
        reserve: [u8; 64],
    }

    /// A change that stakers vote on.
    352 Proposal {
        /// [`Kind::Proposal`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// [`PROPOSAL_VOTING`], [`PROPOSAL_QUEUED`], [`PROPOSAL_EXECUTED`] or [`PROPOSAL_FAILED`].
        state: u8,
        /// What is to change: the number of a [`crate::govern::Action`].
        action: u16,
        /// Bytes of `payload` in use.
        payload_len: u16,
        /// Number of the proposal.
        n: u64,
        /// Page 0 of the supplier that proposed it.
        proposer: Address,
        /// When it was made, Unix seconds: stake raised later does not vote.
        proposed_at: i64,
        /// Until when it takes votes, Unix seconds.
        vote_until: i64,
        /// From when it may be executed, Unix seconds; 0 before it is queued.
        execute_from: i64,
        /// Stake for it, base units.
        stake_for: u64,
        /// Stake against it, base units.
        stake_against: u64,
        /// Stake that must have voted, base units.
        quorum: u64,
        /// What of it: the fields of the action, as its instruction would carry them.
        payload: [u8; 160],
        /// Hash of what does not fit into `payload`, such as the program's new bytes; zero for none.
        payload_hash: Hash,
        /// When it was executed, Unix seconds; 0 before.
        executed_at: i64,
        /// Number of the attestor set that it made; 0 for none.
        set_no: u16,
        /// Zero.
        reserve: [u8; 22],
        /// Who paid the account's rent.
        rent_payer: Address,
    }

    /// One staker's vote on one proposal; locks its stake until the vote is over.
    128 Vote {
        /// [`Kind::Vote`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// [`VOTE_FOR`] or [`VOTE_AGAINST`].
        choice: u8,
        /// Zero.
        spare: u32,
        /// The proposal.
        proposal: Address,
        /// What voted: a supplier's page 0 with its own stake, or one co-stake.
        page: Address,
        /// Stake that voted, base units.
        stake: u64,
        /// The end of the vote, Unix seconds. The stake is bound until the votes were counted after it.
        locked_until: i64,
        /// Zero.
        reserve: [u8; 40],
    }
}

/// It takes votes.
pub const PROPOSAL_VOTING: u8 = 1;
/// Accepted; it waits for its timelock.
pub const PROPOSAL_QUEUED: u8 = 2;
/// Done. Final.
pub const PROPOSAL_EXECUTED: u8 = 3;
/// Not accepted, or not executed in time. Final.
pub const PROPOSAL_FAILED: u8 = 4;
/// A vote for it.
pub const VOTE_FOR: u8 = 1;
/// A vote against it.
pub const VOTE_AGAINST: u8 = 2;
