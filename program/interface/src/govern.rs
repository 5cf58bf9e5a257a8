//! What votes and the guardian may change, and when: methods without I/O.
//!
//! Who votes: a supplier with its own stake, a co-staker with its co-stake; each of them once on a proposal. Stake that was
//! raised when the proposal was made, or later, does not count, and stake that voted does not leave before the votes are
//! counted: so no unit votes twice, wherever it is moved, and none votes that was there for one block only.

mod action;

pub use action::{
    ACTION_CATALOGUE, ACTION_GOVERN, ACTION_PARAMETERS, ACTION_RULES, ACTION_SEAT, ACTION_TREASURY, ACTION_UPGRADE,
    Action, Parameters, SetSeat, check_majority, check_unlike,
};

use crate::{
    Error,
    arithmetic::{BPS, add, mul_div},
    instruction::Propose,
    layout::{
        CO_STAKE_HELD, CoStake, Config, FleetPage, PROPOSAL_EXECUTED, PROPOSAL_FAILED, PROPOSAL_QUEUED,
        PROPOSAL_VOTING, Proposal, Rules, VOTE_AGAINST, VOTE_FOR,
    },
};

/// The longest pause of new orders and fills: 72 hours, in seconds.
pub const PAUSE_S_MAX: u32 = 72 * 3_600;
/// Seconds after the end of a pause in which no other begins: 7 days. So orders are taken for at least 7 of any 10 days,
/// whatever the guardian's key does, and the default vote and timelock that replace the guardian take no longer.
pub const PAUSE_REST_S: u32 = 7 * 86_400;
/// Seconds within which an accepted proposal is executed, from the end of its timelock on: 14 days. Later it has failed,
/// so that nobody keeps a decision for a day on which it means something else.
pub const EXECUTE_S: u32 = 14 * 86_400;

impl Proposal {
    /// Writes a new proposal: number, times, and the stake that must vote, a part of what `circulates`, base units.
    ///
    /// # Errors
    /// What [`Action::read`] refuses, [`Error::StakeTooLow`] and [`Error::StakeTooNew`] for the proposer,
    /// [`Error::Overflow`].
    pub fn open(
        &mut self,
        propose: &Propose<'_>,
        (rules, circulates): (&mut Rules, u64),
        proposer: &FleetPage,
        now: i64,
    ) -> Result<(), Error> {
        Action::read(propose.action, propose.payload, &propose.payload_hash)?;
        if proposer.own < rules.proposal_stake {
            return Err(Error::StakeTooLow);
        }
        if proposer.raised_at >= now {
            return Err(Error::StakeTooNew);
        }
        let room = self.payload.get_mut(..propose.payload.len()).ok_or(Error::InstructionMalformed)?;
        room.copy_from_slice(propose.payload);
        self.payload_len = u16::try_from(propose.payload.len()).map_err(|_| Error::InstructionMalformed)?;
        self.payload_hash = propose.payload_hash;
        self.action = propose.action;
        self.state = PROPOSAL_VOTING;
        self.n = rules.proposals;
        self.proposed_at = now;
        self.vote_until = now.saturating_add(i64::from(rules.proposal_s));
        self.quorum = mul_div(circulates, u64::from(rules.quorum_bps), BPS)?.max(1);
        rules.proposals = add(rules.proposals, 1)?;
        Ok(())
    }

    /// What it changes.
    ///
    /// # Errors
    /// As [`Action::read`].
    pub fn read_action(&self) -> Result<Action, Error> {
        let payload = self.payload.get(..usize::from(self.payload_len)).ok_or(Error::InstructionMalformed)?;
        Action::read(self.action, payload, &self.payload_hash)
    }

    /// Counts a vote of some stake. That a staker votes once is the caller's to see.
    ///
    /// # Errors
    /// [`Error::ProposalStateWrong`] when its votes are over, [`Error::NothingToDo`] without stake,
    /// [`Error::InstructionMalformed`] for another choice.
    pub fn vote(&mut self, choice: u8, stake: u64, now: i64) -> Result<(), Error> {
        if self.state != PROPOSAL_VOTING || now >= self.vote_until {
            return Err(Error::ProposalStateWrong);
        }
        if stake == 0 {
            return Err(Error::NothingToDo);
        }
        match choice {
            VOTE_FOR => self.stake_for = add(self.stake_for, stake)?,
            VOTE_AGAINST => self.stake_against = add(self.stake_against, stake)?,
            _ => return Err(Error::InstructionMalformed),
        }
        Ok(())
    }

    /// Counts the votes after their end: accepted, its timelock begins; else it has failed. An accepted one whose time is
    /// over has failed, too.
    ///
    /// # Errors
    /// [`Error::ProposalTooEarly`], [`Error::ProposalStateWrong`] when it is final.
    pub fn queue(&mut self, rules: &Rules, now: i64) -> Result<(), Error> {
        match self.state {
            PROPOSAL_VOTING if now < self.vote_until => return Err(Error::ProposalTooEarly),
            PROPOSAL_VOTING => {
                let voted = add(self.stake_for, self.stake_against)?;
                if voted >= self.quorum && self.stake_for > self.stake_against {
                    self.state = PROPOSAL_QUEUED;
                    self.execute_from = now.saturating_add(i64::from(rules.timelock_s));
                } else {
                    self.state = PROPOSAL_FAILED;
                }
            }
            PROPOSAL_QUEUED if now < self.execute_until() => return Err(Error::ProposalTooEarly),
            PROPOSAL_QUEUED => self.state = PROPOSAL_FAILED,
            _ => return Err(Error::ProposalStateWrong),
        }
        Ok(())
    }

    /// Marks it executed; the caller does what it says in the same instruction.
    ///
    /// # Errors
    /// [`Error::ProposalTooEarly`] within its timelock, [`Error::ProposalStateWrong`] when it is not accepted, was executed,
    /// or its time is over.
    pub const fn execute(&mut self, now: i64) -> Result<(), Error> {
        if self.state != PROPOSAL_QUEUED || now >= self.execute_until() {
            return Err(Error::ProposalStateWrong);
        }
        if now < self.execute_from {
            return Err(Error::ProposalTooEarly);
        }
        self.state = PROPOSAL_EXECUTED;
        self.executed_at = now;
        Ok(())
    }

    const fn execute_until(&self) -> i64 {
        self.execute_from.saturating_add(EXECUTE_S as i64)
    }
}

impl FleetPage {
    /// Own stake that votes on a proposal; binds it.
    ///
    /// # Errors
    /// [`Error::StakeTooNew`], [`Error::Overflow`].
    pub fn bind(&mut self, proposal: &Proposal) -> Result<u64, Error> {
        if self.raised_at >= proposal.proposed_at {
            return Err(Error::StakeTooNew);
        }
        self.votes_open = self.votes_open.checked_add(1).ok_or(Error::Overflow)?;
        Ok(self.own)
    }
}

impl CoStake {
    /// Co-stake that votes on a proposal; binds it.
    ///
    /// # Errors
    /// [`Error::CoStakeStateWrong`] when it is not held, [`Error::StakeTooNew`], [`Error::Overflow`].
    pub fn bind(&mut self, page: &FleetPage, proposal: &Proposal) -> Result<u64, Error> {
        if self.state != CO_STAKE_HELD {
            return Err(Error::CoStakeStateWrong);
        }
        if self.accepted_at >= proposal.proposed_at {
            return Err(Error::StakeTooNew);
        }
        self.votes_open = self.votes_open.checked_add(1).ok_or(Error::Overflow)?;
        self.worth(page)
    }
}

impl Config {
    /// Pauses new orders and fills for some seconds from now on; 0 ends a pause that runs.
    ///
    /// # Errors
    /// [`Error::ParameterOutOfRange`] above [`PAUSE_S_MAX`], [`Error::PauseTooSoon`] while one runs or rests,
    /// [`Error::NothingToDo`] when none runs that could end.
    pub fn pause(&mut self, seconds: u32, now: i64) -> Result<(), Error> {
        if seconds > PAUSE_S_MAX {
            return Err(Error::ParameterOutOfRange);
        }
        if seconds == 0 {
            if now >= self.paused_until {
                return Err(Error::NothingToDo);
            }
            self.paused_until = now;
            return Ok(());
        }
        if self.paused_until != 0 && now < self.paused_until.saturating_add(i64::from(PAUSE_REST_S)) {
            return Err(Error::PauseTooSoon);
        }
        self.paused_until = now.saturating_add(i64::from(seconds));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
