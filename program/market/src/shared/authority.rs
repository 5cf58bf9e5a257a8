//! Who acts for a renter, who for a supplier, and who for the network.

use super::{Fault, account, address, runtime::now};
use atoll_interface::{
    Address as Bytes, Error, NO_ADDRESS,
    fill::Slots,
    layout::{
        ATTESTOR_SLASHED, AskKey, Attestor, BUDGET_REVOKED, Budget, CONFIG_GOVERNED, Config, FleetPage, Order, Seat,
        Slot,
    },
};
use pinocchio::{AccountView, Address};

/// Whether the signer is the admin, and votes do not decide yet.
///
/// # Errors
/// [`Error::NotAuthorised`] otherwise.
pub(crate) fn expect_admin(config: &Config, admin: &AccountView) -> Result<(), Fault> {
    if config.flags & CONFIG_GOVERNED == 0 && address::is(admin, &config.admin) {
        Ok(())
    } else {
        Err(Error::NotAuthorised.into())
    }
}

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

/// Whether the signer is an attestor's key that may vote: it holds its seat in the present set.
///
/// # Errors
/// [`Error::NotAuthorised`] for another key, [`Error::AttestorSlashed`], [`Error::SeatUnknown`] when it lost its seat.
pub(crate) fn expect_attestor(attestor: &Attestor, key: &AccountView, seats: &[Seat]) -> Result<(), Fault> {
    if !address::is(key, &attestor.key) {
        return Err(Error::NotAuthorised.into());
    }
    if attestor.flags & ATTESTOR_SLASHED != 0 {
        return Err(Error::AttestorSlashed.into());
    }
    match seats.get(usize::from(attestor.seat)) {
        Some(seat) if address::same(&seat.key, &attestor.key) => Ok(()),
        _ => Err(Error::SeatUnknown.into()),
    }
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

/// Whether the signer has the asks of a page: its supplier's wallet, or a key that the wallet gave them to. The place of
/// the key's account holds that account, or the page again: nothing else, so that no account goes unchecked.
///
/// # Errors
/// [`Error::NotAuthorised`] for another's key, [`Error::AskKeyExpired`] after its time, [`Error::AddressWrong`].
pub(crate) fn has_asks(
    program: &Address,
    authority: &AccountView,
    page: &AccountView,
    ask_key: &AccountView,
) -> Result<bool, Fault> {
    let supplier = account::view::<FleetPage>(program, page)?.supplier;
    if ask_key.address() == page.address() {
        return Ok(address::is(authority, &supplier));
    }
    let key = account::view::<AskKey>(program, ask_key)?;
    if !address::same(&key.supplier, &supplier) || !address::is(authority, &key.key) {
        return Err(Error::NotAuthorised.into());
    }
    if now()? >= key.until {
        return Err(Error::AskKeyExpired.into());
    }
    Ok(true)
}

/// Whether every slot named is the signer's own.
///
/// # Errors
/// [`Error::SlotUnknown`] for a slot that the page does not have.
pub(crate) fn is_device_of_all(authority: &AccountView, rows: &[Slot], slots: Slots<'_>) -> Result<bool, Fault> {
    for number in slots.iter() {
        if !address::is(authority, &rows.get(number).ok_or(Error::SlotUnknown)?.device_key) {
            return Ok(false);
        }
    }
    Ok(true)
}
