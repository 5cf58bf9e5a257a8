//! Books what renter and worker agree on while the attestors are silent. Writes only order and lease; moves no token.

use crate::shared::{Cx, Outcome, account, address, authority, runtime::now};
use atoll_interface::{
    Error,
    cosigned::Usage,
    fill::bit,
    instruction::{SettleCosigned, SettleCosignedAccounts},
    layout::{Config, FleetPage, Lease, Order, SLOT_USED, Table},
    signature::{INSTRUCTIONS_ID, signed},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [renter, mut order, mut lease, page, budget, config, instructions] = cx.take(&SettleCosignedAccounts::FLAGS)?;
    let SettleCosigned { check, slot } = SettleCosigned::decode(cx.fields)?;
    address::expect(&instructions, &INSTRUCTIONS_ID)?;
    let now = now()?;
    let (own, lease_address) = (*order.address().as_array(), *lease.address().as_array());
    let config = account::view::<Config>(cx.program, &config)?;
    let mut order = account::view_mut::<Order>(cx.program, &mut order)?;
    let mut lease = account::view_mut::<Lease>(cx.program, &mut lease)?;
    if !address::same(&lease.order, &own) || !address::is(&page, &lease.page) {
        return Err(Error::AddressWrong.into());
    }
    authority::expect_budget_place(&order, &own, &budget)?;
    if !authority::is_renter(cx.program, &order, &renter, &budget, now)? {
        return Err(Error::NotAuthorised.into());
    }
    let sysvar = instructions.try_borrow()?;
    let signed = signed(&sysvar, check)?;
    let usage = Usage::parse(signed.message)?;
    if !address::same(&usage.network_root, &config.network_root) || !address::same(&usage.lease, &lease_address) {
        return Err(Error::StatementWrong.into());
    }
    {
        let data = account::bytes(cx.program, &page)?;
        let (_, rows) = FleetPage::view_table(&data)?;
        let row = rows.get(usize::from(slot)).ok_or(Error::SlotUnknown)?;
        // Of a lease that holds no slot any more the page no longer tells which it held: any worker of the page speaks
        // for the supplier then, whom alone it pays.
        let holds = lease.devices_live == 0 || bit(&lease.bitmap, usize::from(slot));
        if row.flags & SLOT_USED == 0 || !holds || !address::same(&row.device_key, signed.key) {
            return Err(Error::NotAuthorised.into());
        }
    }
    order.ripen(now);
    lease.begin(&order);
    Ok(lease.settle_cosigned(&mut order, &usage, config.stall_s, now)?)
}
