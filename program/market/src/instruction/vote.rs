//! Votes on a proposal with what a staker has staked, or gives the vote back.

use crate::shared::{
    Cx, Fault, Outcome,
    account::{self, Make},
    address,
    runtime::now,
};
use atoll_interface::{
    Address as Bytes, Error,
    instruction::{Vote, VoteAccounts},
    layout::{CoStake, FleetPage, PROPOSAL_VOTING, Proposal, Record, Vote as Ballot},
    seeds,
};
use pinocchio::{AccountView, Address};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut voter, mut proposal, mut first_page, mut costake, mut vote, _system] = cx.take(&VoteAccounts::FLAGS)?;
    let Vote { choice } = Vote::decode(cx.fields)?;
    let mut staker = Staker { voter: &voter, first_page: &mut first_page, costake: &mut costake };
    if choice == 0 {
        staker.give_back(cx.program, &proposal, &vote)?;
        return account::close(&mut vote, &mut voter);
    }
    let (stake, what) = {
        let proposal = account::view::<Proposal>(cx.program, &proposal)?;
        (staker.bind(cx.program, &proposal)?, *staker.costake.address().as_array())
    };
    let on = *proposal.address().as_array();
    let bump = account::make(&Make {
        program: cx.program,
        payer: &voter,
        account: &vote,
        seeds: &seeds::vote(&on, &what),
        space: Ballot::SIZE,
        owner: cx.program,
    })?;
    let mut proposal = account::view_mut::<Proposal>(cx.program, &mut proposal)?;
    proposal.vote(choice, stake, now()?)?;
    let mut record = account::fresh::<Ballot>(&mut vote)?;
    record.bump = bump;
    record.choice = choice;
    record.proposal = on;
    record.page = what;
    record.stake = stake;
    record.locked_until = proposal.vote_until;
    Ok(())
}

/// Who votes: a supplier with its page, or a co-staker with a co-stake of that page. For a supplier the page stands in the
/// place of the co-stake, so `costake` is always what votes.
struct Staker<'a> {
    voter: &'a AccountView,
    first_page: &'a mut AccountView,
    costake: &'a mut AccountView,
}

impl Staker<'_> {
    fn is_supplier(&self) -> bool {
        self.first_page.address() == self.costake.address()
    }

    /// Binds the stake; returns its weight.
    #[inline(never)]
    fn bind(&mut self, program: &Address, proposal: &Proposal) -> Result<u64, Fault> {
        if self.is_supplier() {
            let mut first = account::view_mut::<FleetPage>(program, self.first_page)?;
            expect_supplier(self.voter, &first)?;
            return Ok(first.bind(proposal)?);
        }
        let first = account::view::<FleetPage>(program, self.first_page)?;
        let mut costake = account::view_mut::<CoStake>(program, self.costake)?;
        expect_staker(self.voter, &costake, self.first_page.address().as_array())?;
        Ok(costake.bind(&first, proposal)?)
    }

    /// Frees the stake of a vote that is counted. By the proposal's state and not by the clock: a vote that is given back
    /// can never be cast again.
    #[inline(never)]
    fn give_back(&mut self, program: &Address, proposal: &AccountView, vote: &AccountView) -> Outcome {
        if account::view::<Proposal>(program, proposal)?.state == PROPOSAL_VOTING {
            return Err(Error::ProposalTooEarly.into());
        }
        {
            let vote = account::view::<Ballot>(program, vote)?;
            address::expect(proposal, &vote.proposal)?;
            address::expect(self.costake, &vote.page)?;
        }
        if self.is_supplier() {
            let mut first = account::view_mut::<FleetPage>(program, self.first_page)?;
            expect_supplier(self.voter, &first)?;
            first.votes_open = first.votes_open.checked_sub(1).ok_or(Error::Overflow)?;
        } else {
            let mut costake = account::view_mut::<CoStake>(program, self.costake)?;
            expect_staker(self.voter, &costake, self.first_page.address().as_array())?;
            costake.votes_open = costake.votes_open.checked_sub(1).ok_or(Error::Overflow)?;
        }
        Ok(())
    }
}

fn expect_supplier(voter: &AccountView, first: &FleetPage) -> Outcome {
    if first.page_no == 0 && address::is(voter, &first.supplier) { Ok(()) } else { Err(Error::NotAuthorised.into()) }
}

fn expect_staker(voter: &AccountView, costake: &CoStake, page: &Bytes) -> Outcome {
    if !address::same(&costake.page, page) {
        return Err(Error::AddressWrong.into());
    }
    if address::is(voter, &costake.staker) { Ok(()) } else { Err(Error::NotAuthorised.into()) }
}
