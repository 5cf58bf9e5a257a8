//! Closes a lease that is released and settled: pays what is owed and returns the rent.

use crate::{
    instruction::withdraw_owed::Payment,
    shared::{Cx, Outcome, account, address, runtime::now},
};
use atoll_interface::{
    Error,
    instruction::{CloseLease, CloseLeaseAccounts},
    layout::{Config, FleetPage, LEASE_COUNTED, Lease, Order},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut order, mut lease, mut page, vault, destination, mut rent_payer, config, _token] =
        cx.take(&CloseLeaseAccounts::FLAGS)?;
    CloseLease::decode(cx.fields)?;
    let stall_s = account::view::<Config>(cx.program, &config)?.stall_s;
    let counted = {
        let lease = account::view::<Lease>(cx.program, &lease)?;
        lease.check_close(stall_s, now()?)?;
        address::expect(&rent_payer, &lease.rent_payer)?;
        lease.flags & LEASE_COUNTED != 0
    };
    Payment { order, lease, page, vault, destination }.pay(cx.program)?;
    {
        let mut order = account::view_mut::<Order>(cx.program, &mut order)?;
        order.leases_open = order.leases_open.checked_sub(1).ok_or(Error::Overflow)?;
    }
    if counted {
        let mut page = account::view_mut::<FleetPage>(cx.program, &mut page)?;
        page.leases_open = page.leases_open.checked_sub(1).ok_or(Error::Overflow)?;
    }
    account::close(&mut lease, &mut rent_payer)
}
