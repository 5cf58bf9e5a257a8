//! Accepts an offer of co-stake: the stake is moved, and its terms are fixed.

use crate::shared::{
    Cx, Outcome, account, address,
    runtime::now,
    token::{self, Call},
};
use atoll_interface::{
    Error,
    instruction::{CostakeAccept, CostakeAcceptAccounts},
    layout::{CoStake, FleetPage},
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [staker, mut first_page, mut costake, vault, source, _token] = cx.take(&CostakeAcceptAccounts::FLAGS)?;
    let accept = CostakeAccept::decode(cx.fields)?;
    let page = *first_page.address().as_array();
    {
        let mut first = account::view_mut::<FleetPage>(cx.program, &mut first_page)?;
        let mut record = account::view_mut::<CoStake>(cx.program, &mut costake)?;
        address::expect_derived(cx.program, &vault, seeds::stake_vault(&page), first.vault_bump)?;
        if !address::same(&record.page, &page) {
            return Err(Error::AddressWrong.into());
        }
        // Its own stake would count as another's: it stakes for itself instead.
        if address::is(&staker, &first.supplier) {
            return Err(Error::NotAuthorised.into());
        }
        record.accept(&mut first, staker.address().as_array(), (accept.amount, accept.reward_bps), now()?)?;
    }
    if token::balance_beside(&source, &vault)? < accept.amount {
        return Err(Error::FundsShort.into());
    }
    Call { from: &source, to: &vault, authority: &staker, seeds: &[] }.transfer(accept.amount)
}
