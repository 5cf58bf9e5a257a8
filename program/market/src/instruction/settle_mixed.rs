//! Books neighbouring leaves of several orders' leases under one path. Writes only leases and orders; moves no token.

use super::settle_batch::{expect_paid, settle};
use crate::shared::{Cx, Outcome, account, runtime::now};
use atoll_interface::{
    Error,
    instruction::{MIXED_MAX, SettleBatch, SettleMixed, SettleMixedAccounts},
    layout::Order,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [epoch, config] = cx.take(&SettleMixedAccounts::FLAGS)?;
    let SettleMixed { first_leaf, leaves, path } = SettleMixed::decode(cx.fields)?;
    let count = leaves.len();
    if !count.is_power_of_two() || count > MIXED_MAX {
        return Err(Error::InstructionMalformed.into());
    }
    let rest =
        cx.accounts.get_mut(SettleMixedAccounts::FLAGS.len()..).and_then(|rest| rest.split_at_mut_checked(count));
    let (orders, leases) = rest.ok_or(Error::AccountsMissing)?;
    let leases = leases.get_mut(..count).ok_or(Error::AccountsMissing)?;
    let now = now()?;
    expect_paid(cx.program, (&epoch, &config), leases, &SettleBatch { first_leaf, leaves, path }, now)?;
    for ((order, lease), said) in orders.iter_mut().zip(leases).zip(leaves) {
        if !order.is_writable() {
            return Err(Error::NotWritable.into());
        }
        let order_address = *order.address().as_array();
        let mut order = account::view_mut::<Order>(cx.program, order)?;
        order.ripen(now);
        settle(cx.program, (&mut order, &order_address), lease, said, now)?;
    }
    Ok(())
}
