//! Refunds the rest of an order's escrow to whom it came from, and closes order and vault.

use crate::shared::{
    Cx, Outcome, account, address, authority,
    runtime::now,
    token::{self, Call},
};
use atoll_interface::{
    NO_ADDRESS,
    instruction::{CloseOrder, CloseOrderAccounts},
    layout::{Budget, Order},
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [authority, mut order, vault, refund, mut rent_payer, budget, _token] = cx.take(&CloseOrderAccounts::FLAGS)?;
    CloseOrder::decode(cx.fields)?;
    let now = now()?;
    let by_renter_or_solver = {
        let own = *order.address().as_array();
        let order = account::view::<Order>(cx.program, &order)?;
        authority::expect_budget_place(&order, &own, &budget)?;
        authority::is_solver(&order, authority.address().as_array())
            || authority::is_renter(cx.program, &order, &authority, &budget, now)?
    };
    let order_address = *order.address().as_array();
    let seeds = {
        let mut order = account::view_mut::<Order>(cx.program, &mut order)?;
        order.check_close(by_renter_or_solver, now)?;
        address::expect(&rent_payer, &order.rent_payer)?;
        address::expect_derived(cx.program, &vault, seeds::order_vault(&order_address), order.vault_bump)?;
        if address::same(&order.budget, &NO_ADDRESS) {
            token::expect_paid_to(&refund, &vault, &order.renter)?;
        } else {
            address::expect(&budget, &order.budget)?;
            let bump = account::view::<Budget>(cx.program, &budget)?.vault_bump;
            address::expect_derived(cx.program, &refund, seeds::budget_vault(&order.budget), bump)?;
        }
        token::OrderSeeds::of(&order)
    };
    // The whole balance: what others sent to the vault by mistake goes to the renter with the refund.
    let amount = token::balance(&vault)?;
    if amount > 0 {
        Call { from: &vault, to: &refund, authority: &order, seeds: &seeds.seeds() }.transfer(amount)?;
    }
    Call { from: &vault, to: &rent_payer, authority: &order, seeds: &seeds.seeds() }.close()?;
    account::close(&mut order, &mut rent_payer)
}
