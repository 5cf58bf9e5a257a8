//! Closes a lease that is released and settled: pays what is owed and returns the rent.

use crate::{
    instruction::withdraw_owed::Payment,
    shared::{Cx, Outcome, account, address, runtime::now},
};
use atoll_interface::{
    Error,
    instruction::{CloseLease, CloseLeaseAccounts},
    layout::{Config, Lease, Order},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut order, mut lease, page, vault, destination, mut rent_payer, config, _token] =
        cx.take(&CloseLeaseAccounts::FLAGS)?;
    CloseLease::decode(cx.fields)?;
    let stall_s = account::view::<Config>(cx.program, &config)?.stall_s;
    {
        let lease = account::view::<Lease>(cx.program, &lease)?;
        lease.check_close(stall_s, now()?)?;
        address::expect(&rent_payer, &lease.rent_payer)?;
    }
    Payment { order, lease, page, vault, destination }.pay(cx.program)?;
    {
        let mut order = account::view_mut::<Order>(cx.program, &mut order)?;
        order.leases_open = order.leases_open.checked_sub(1).ok_or(Error::Overflow)?;
    }
    account::close(&mut lease, &mut rent_payer)
}
