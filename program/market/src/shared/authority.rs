//! Who acts for a renter.

use super::{Fault, account, address};
use atoll_interface::{
    Address as Bytes, Error, NO_ADDRESS,
    layout::{BUDGET_REVOKED, Budget, Order},
};
use pinocchio::{AccountView, Address};

/// Whether a budget's key may act now.
///
/// # Errors
/// [`Error::NotAuthorised`] for another key, [`Error::BudgetExpired`] when it expired or was revoked.
pub(crate) fn expect_budget_key(budget: &Budget, key: &AccountView, now: i64) -> Result<(), Fault> {
    if !address::is(key, &budget.key) {
        return Err(Error::NotAuthorised.into());
    }
    if budget.flags & BUDGET_REVOKED != 0 || now >= budget.expires_at {
        return Err(Error::BudgetExpired.into());
    }
    Ok(())
}

/// The place of an order's budget holds that budget, or the order again: nothing else, so that no account goes unchecked.
///
/// # Errors
/// [`Error::AddressWrong`] for another account.
pub(crate) fn expect_budget_place(order: &Order, own: &Bytes, budget: &AccountView) -> Result<(), Fault> {
    if address::is(budget, own) { Ok(()) } else { address::expect(budget, &order.budget) }
}

/// Whether the signer is the order's renter, or the living key of the budget that posted it.
pub(crate) fn is_renter(
    program: &Address,
    order: &Order,
    authority: &AccountView,
    budget: &AccountView,
    now: i64,
) -> Result<bool, Fault> {
    if address::is(authority, &order.renter) {
        return Ok(true);
    }
    if address::same(&order.budget, &NO_ADDRESS) || !address::is(budget, &order.budget) {
        return Ok(false);
    }
    let budget = account::view::<Budget>(program, budget)?;
    Ok(expect_budget_key(&budget, authority, now).is_ok())
}

/// Whether a key is one of the order's solvers.
pub(crate) fn is_solver(order: &Order, key: &Bytes) -> bool {
    let [a, b, c] = &order.solvers;
    !address::same(key, &NO_ADDRESS) && (address::same(key, a) || address::same(key, b) || address::same(key, c))
}
