//! The next step of an offer's end.

use crate::shared::{
    Cx, Outcome, account, address,
    runtime::now,
    token::{self, Call, PageSeeds},
};
use atoll_interface::{
    Error,
    instruction::{CostakeExit, CostakeExitAccounts},
    layout::{CO_STAKE_HELD, CO_STAKE_OFFERED, CO_STAKE_WAITING, CoStake, FleetPage, Rules},
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [authority, mut first_page, mut costake, mut supplier, vault, destination, rules, _token] =
        cx.take(&CostakeExitAccounts::FLAGS)?;
    CostakeExit::decode(cx.fields)?;
    let (page, now) = (*first_page.address().as_array(), now()?);
    let (amount, staker, signer) = {
        let rules = account::view::<Rules>(cx.program, &rules)?;
        let mut first = account::view_mut::<FleetPage>(cx.program, &mut first_page)?;
        let mut record = account::view_mut::<CoStake>(cx.program, &mut costake)?;
        if !address::same(&record.page, &page) {
            return Err(Error::AddressWrong.into());
        }
        address::expect(&supplier, &first.supplier)?;
        let by = match record.state {
            CO_STAKE_OFFERED => Some(first.supplier),
            CO_STAKE_HELD => Some(record.staker),
            _ => None,
        };
        if by.is_some_and(|by| !address::is(&authority, &by)) {
            return Err(Error::NotAuthorised.into());
        }
        let paid = match record.state {
            CO_STAKE_OFFERED => {
                record.forget(&mut first)?;
                Some(0)
            }
            CO_STAKE_HELD => {
                record.wait(&rules, now)?;
                None
            }
            CO_STAKE_WAITING => {
                record.leave(&mut first, &rules, now)?;
                None
            }
            _ => Some(record.pay_out(&mut first, now)?),
        };
        let pays = paid.is_some_and(|amount| amount > 0);
        if pays {
            address::expect_derived(cx.program, &vault, seeds::stake_vault(&page), first.vault_bump)?;
        } else {
            address::expect(&vault, &page)?;
            address::expect(&destination, &page)?;
        }
        (paid, record.staker, PageSeeds::of(&first))
    };
    let Some(amount) = amount else { return Ok(()) };
    if amount > 0 {
        token::expect_paid_to(&destination, &vault, &staker)?;
        Call { from: &vault, to: &destination, authority: &first_page, seeds: &signer.seeds() }.transfer(amount)?;
    }
    account::close(&mut costake, &mut supplier)
}
