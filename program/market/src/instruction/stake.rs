//! Adds to a supplier's own stake.

use crate::shared::{
    Cx, Outcome, account, address,
    runtime::now,
    token::{self, Call, MakeVault},
};
use atoll_interface::{
    Error,
    instruction::{Stake, StakeAccounts},
    layout::{Config, FleetPage},
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [supplier, mut first_page, vault, source, mint, config, ..] = cx.take(&StakeAccounts::FLAGS)?;
    let Stake { amount } = Stake::decode(cx.fields)?;
    address::expect(&mint, &account::view::<Config>(cx.program, &config)?.mint)?;
    if amount == 0 {
        return Err(Error::NothingToDo.into());
    }
    let owner = *first_page.address().as_array();
    let mut bump = {
        let first = account::view::<FleetPage>(cx.program, &first_page)?;
        if first.page_no != 0 || !address::is(&supplier, &first.supplier) {
            return Err(Error::NotAuthorised.into());
        }
        first.vault_bump
    };
    if account::is_vacant(&vault) {
        bump = token::make(&MakeVault {
            program: cx.program,
            payer: &supplier,
            vault: &vault,
            mint: &mint,
            seeds: seeds::stake_vault(&owner),
            owner: &owner,
        })?;
    } else {
        address::expect_derived(cx.program, &vault, seeds::stake_vault(&owner), bump)?;
    }
    if token::read(&source, mint.address().as_array())?.amount < amount {
        return Err(Error::FundsShort.into());
    }
    Call { from: &source, to: &vault, authority: &supplier, seeds: &[] }.transfer(amount)?;
    let mut first = account::view_mut::<FleetPage>(cx.program, &mut first_page)?;
    first.stake(amount, now()?)?;
    first.vault_bump = bump;
    Ok(())
}
