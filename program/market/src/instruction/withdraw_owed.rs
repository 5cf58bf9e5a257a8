//! Moves what a lease is owed to its supplier, and nowhere else.

use crate::shared::{
    Cx, Fault, Outcome, account, address,
    token::{self, Call},
};
use atoll_interface::{
    Error,
    instruction::{WithdrawOwed, WithdrawOwedAccounts},
    layout::{FleetPage, Lease, Order},
    seeds,
};
use pinocchio::{AccountView, Address};

/// The accounts of one payment.
pub(crate) struct Payment {
    pub(crate) order: AccountView,
    pub(crate) lease: AccountView,
    pub(crate) page: AccountView,
    pub(crate) vault: AccountView,
    pub(crate) destination: AccountView,
}

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [order, lease, page, vault, destination, _token] = cx.take(&WithdrawOwedAccounts::FLAGS)?;
    WithdrawOwed::decode(cx.fields)?;
    if (Payment { order, lease, page, vault, destination }).pay(cx.program)? == 0 {
        return Err(Error::NothingToDo.into());
    }
    Ok(())
}

impl Payment {
    /// Pays what the lease is owed to a token account of the supplier's wallet; returns the amount. Checks that order,
    /// lease, page and vault belong together, also when nothing is owed.
    #[inline(never)]
    pub(crate) fn pay(&mut self, program: &Address) -> Result<u64, Fault> {
        let Self { order, lease, page, vault, destination } = self;
        let supplier = account::view::<FleetPage>(program, page)?.supplier;
        let (amount, signer) = {
            let order_address = *order.address().as_array();
            let mut order = account::view_mut::<Order>(program, order)?;
            let mut lease = account::view_mut::<Lease>(program, lease)?;
            if !address::same(&lease.order, &order_address) || !address::is(page, &lease.page) {
                return Err(Error::AddressWrong.into());
            }
            address::expect_derived(program, vault, seeds::order_vault(&order_address), order.vault_bump)?;
            (lease.withdraw(&mut order)?, token::OrderSeeds::of(&order))
        };
        if amount > 0 {
            token::expect_paid_to(destination, vault, &supplier)?;
            Call { from: vault, to: destination, authority: order, seeds: &signer.seeds() }.transfer(amount)?;
        }
        Ok(amount)
    }
}
