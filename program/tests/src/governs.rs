//! The calls of votes and of the guardian.

use crate::{
    Call, Party, World,
    calls::{catalogue, config},
    pays::emission,
    stakes::{rule_values, rules},
    world::{pda, sha256},
};
use atoll_interface::{
    ATL, Address, Hash,
    govern::{ACTION_SEAT, SetSeat},
    instruction as ix,
    layout::{Proposal, VOTE_FOR},
    seeds,
};

/// Seconds for which a proposal takes votes in the tests' network.
pub const PROPOSAL_S: i64 = 300;
/// Seconds of its timelock.
pub const TIMELOCK_S: i64 = 100;
/// Own stake of a party that votes. 20% of what circulates must vote: one such party among three purses is enough, among
/// five it is not.
pub const WEIGHT: u64 = 700_000 * ATL;

/// Address of a proposal.
pub fn proposal(n: u64) -> Address {
    pda(&seeds::proposal(&n.to_le_bytes()))
}

/// Address of what a page or a co-stake voted on a proposal.
pub fn ballot(n: u64, what: Address) -> Address {
    pda(&seeds::vote(&proposal(n), &what))
}

impl World {
    pub fn set_guardian(&self, guardian: Address) -> Call {
        self.set_rules_to(&ix::SetRules { guardian, ..rule_values() })
    }

    pub fn pause(&self, guardian: Address, seconds: u32) -> Call {
        let accounts = ix::PauseAccounts { guardian, config: config(), rules: rules() };
        Call::new("pause", &accounts.metas(), ix::Pause { seconds }.encode().unwrap())
    }

    pub fn queue(&self, n: u64) -> Call {
        let accounts = ix::QueueAccounts { proposal: proposal(n), rules: rules() };
        Call::new("queue", &accounts.metas(), ix::Queue {}.encode().unwrap())
    }

    pub fn execute(&self, n: u64) -> Call {
        self.execute_with(n, proposal(n))
    }

    pub fn execute_with(&self, n: u64, treasury: Address) -> Call {
        let accounts = ix::ExecuteAccounts {
            payer: self.node,
            proposal: proposal(n),
            config: config(),
            rules: rules(),
            catalogue: catalogue(),
            treasury,
        };
        Call::new("execute", &accounts.metas(), ix::Execute {}.encode().unwrap())
    }

    /// Proposes as a party, lets it vote for it alone, and waits until it may be executed; returns its number.
    pub fn accept(&mut self, party: &Party, action: u16, payload: &[u8]) -> u64 {
        let n = self.read::<atoll_interface::layout::Rules>(rules()).proposals;
        self.must(&party.propose(n, action, payload, [7; 32]));
        self.must(&party.vote(n, VOTE_FOR));
        self.wait(PROPOSAL_S);
        self.must(&self.queue(n));
        assert_eq!(self.read::<Proposal>(proposal(n)).state, atoll_interface::layout::PROPOSAL_QUEUED);
        self.wait(TIMELOCK_S);
        n
    }

    /// Changes a seat of the attestor set by a vote.
    pub fn change_seat(&mut self, party: &Party, seat: &SetSeat) {
        let n = self.accept(party, ACTION_SEAT, seat.encode().unwrap().as_slice());
        self.must(&self.execute(n));
        self.must(&party.vote(n, 0));
    }
}

impl Party {
    /// A party with enough stake to propose and to decide.
    pub fn weighty(world: &mut World, name: &str) -> Self {
        let party = Self::ready(world, name, 1);
        world.must(&party.stake(WEIGHT));
        world.wait(1);
        party
    }

    pub fn propose(&self, n: u64, action: u16, payload: &[u8], payload_hash: Hash) -> Call {
        let accounts = ix::ProposeAccounts {
            proposer: self.supplier,
            first_page: self.page,
            proposal: proposal(n),
            mint: self.mint,
            emission: emission(),
            config: config(),
            rules: rules(),
        };
        let data = ix::Propose { action, payload, payload_hash };
        Call::new("propose", &accounts.metas(), data.encode().unwrap())
    }

    /// Votes with the supplier's own stake; 0 gives the vote back.
    pub fn vote(&self, n: u64, choice: u8) -> Call {
        self.vote_as(self.supplier, self.page, n, choice)
    }

    /// Votes with a co-stake of the renter's wallet.
    pub fn vote_by_costake(&self, offer: u16, n: u64, choice: u8) -> Call {
        self.vote_as(self.renter, self.costake(offer), n, choice)
    }

    pub fn vote_as(&self, voter: Address, what: Address, n: u64, choice: u8) -> Call {
        let accounts = ix::VoteAccounts {
            voter,
            proposal: proposal(n),
            first_page: self.page,
            costake: what,
            vote: ballot(n, what),
        };
        Call::new("vote", &accounts.metas(), ix::Vote { choice }.encode().unwrap())
    }
}

/// A key that a test names, for seats.
pub fn seat(world: &mut World, number: u16, threshold: u16, name: &str) -> SetSeat {
    let owner = world.key(&format!("{name}/owner"));
    world.token(sha256(&[b"purse", &owner]), owner, 100 * ATL);
    SetSeat { seat: number, threshold, owner, key: world.key(&format!("{name}/key")) }
}

/// A token account of somebody at an address that follows from a name.
pub fn token_of(world: &mut World, name: &str, owner: Address) -> Address {
    let at = sha256(&[b"token", name.as_bytes()]);
    world.token(at, owner, 0);
    at
}
