//! Lengthens an active order; the renter escrows the worst case of the added time.

use crate::shared::{
    Cx, Outcome, account, address,
    runtime::now,
    token::{self, Call},
};
use atoll_interface::{
    Error,
    instruction::{ExtendOrder, ExtendOrderAccounts},
    layout::Order,
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [renter, mut order, vault, source, _token] = cx.take(&ExtendOrderAccounts::FLAGS)?;
    let extend = ExtendOrder::decode(cx.fields)?;
    let now = now()?;
    let own = *order.address().as_array();
    {
        let mut order = account::view_mut::<Order>(cx.program, &mut order)?;
        address::expect_derived(cx.program, &vault, seeds::order_vault(&own), order.vault_bump)?;
        if !address::is(&renter, &order.renter) {
            return Err(Error::NotAuthorised.into());
        }
        order.extend(extend.seconds, extend.escrow, now)?;
    }
    if token::balance_beside(&source, &vault)? < extend.escrow {
        return Err(Error::FundsShort.into());
    }
    Call { from: &source, to: &vault, authority: &renter, seeds: &[] }.transfer(extend.escrow)?;
    Ok(())
}
