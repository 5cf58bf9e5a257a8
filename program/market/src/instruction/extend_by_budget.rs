//! Lengthens an order that a budget posted, by the budget's key and within its limits.

use crate::shared::{
    Cx, Outcome, account, address, authority,
    runtime::now,
    token::{self, Call},
};
use atoll_interface::{
    Error,
    instruction::{ExtendByBudget, ExtendByBudgetAccounts},
    layout::{Budget, Order},
    seeds,
};
use pinocchio::cpi::Seed;

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [key, mut budget, purse, mut order, vault, _token] = cx.take(&ExtendByBudgetAccounts::FLAGS)?;
    let extend = ExtendByBudget::decode(cx.fields)?;
    let now = now()?;
    let (own, payer) = (*order.address().as_array(), *budget.address().as_array());
    let (renter, bump) = {
        let mut order = account::view_mut::<Order>(cx.program, &mut order)?;
        let mut budget = account::view_mut::<Budget>(cx.program, &mut budget)?;
        address::expect_derived(cx.program, &vault, seeds::order_vault(&own), order.vault_bump)?;
        address::expect_derived(cx.program, &purse, seeds::budget_vault(&payer), budget.vault_bump)?;
        if !address::same(&order.budget, &payer) {
            return Err(Error::NotAuthorised.into());
        }
        authority::expect_budget_key(&budget, &key, now)?;
        budget.spend(order.escrow_initial, extend.escrow, now)?;
        order.extend(extend.seconds, extend.escrow, now)?;
        (budget.renter, [budget.bump])
    };
    if token::balance(&purse)? < extend.escrow {
        return Err(Error::FundsShort.into());
    }
    let [prefix, of, session] = seeds::budget(&renter, key.address().as_array());
    let seeds = [Seed::from(prefix), Seed::from(of), Seed::from(session), Seed::from(&bump)];
    Call { from: &purse, to: &vault, authority: &budget, seeds: &seeds }.transfer(extend.escrow)
}
