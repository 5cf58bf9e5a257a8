//! Moves a lease's end to its order's.

use crate::shared::{Cx, Outcome, account, address, runtime::now};
use atoll_interface::{
    Error,
    instruction::{ExtendLease, ExtendLeaseAccounts},
    layout::{FleetPage, Lease, Order, Table},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut order, mut lease, page] = cx.take(&ExtendLeaseAccounts::FLAGS)?;
    ExtendLease::decode(cx.fields)?;
    let now = now()?;
    let (order_address, page_address) = (*order.address().as_array(), *page.address().as_array());
    let mut order = account::view_mut::<Order>(cx.program, &mut order)?;
    let mut lease = account::view_mut::<Lease>(cx.program, &mut lease)?;
    let data = account::bytes(cx.program, &page)?;
    let (_, rows) = FleetPage::view_table(&data)?;
    if !address::same(&lease.order, &order_address) || !address::same(&lease.page, &page_address) {
        return Err(Error::AddressWrong.into());
    }
    order.ripen(now);
    lease.begin(&order);
    lease.extend(&order, rows, now)?;
    Ok(())
}
