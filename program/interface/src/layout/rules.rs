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
        /// [`RULES_GOVERNED`]
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
        /// Part of the stake that must vote on a proposal, basis points.
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
        /// Zero.
        reserve: [u8; 112],
    }

    /// A change that stakers vote on.
    352 Proposal {
        /// [`Kind::Proposal`]
        kind: u8,
        /// 1
        version: u8,
        /// Bump of the account's address.
        bump: u8,
        /// Where it stands: 1 voting, 2 queued, 3 executed, 4 failed.
        state: u8,
        /// What is to change.
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
        /// Zero.
        reserve: [u8; 32],
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
        /// 1 for, 2 against.
        choice: u8,
        /// Zero.
        spare: u32,
        /// The proposal.
        proposal: Address,
        /// The supplier's page 0.
        page: Address,
        /// Stake that voted, base units.
        stake: u64,
        /// Until when the stake is locked, Unix seconds.
        locked_until: i64,
        /// Zero.
        reserve: [u8; 40],
    }
}

/// Votes decide: the admin's rights over rules, catalogue and seats have ended.
pub const RULES_GOVERNED: u8 = 1;
