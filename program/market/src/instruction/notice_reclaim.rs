//! Gives notice that a spot lease's devices are taken back.

use crate::shared::{Cx, Outcome, account, address, runtime::now};
use atoll_interface::{
    Error,
    instruction::{NoticeReclaim, NoticeReclaimAccounts},
    layout::{FleetPage, Lease, Order},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [supplier, order, mut lease, page] = cx.take(&NoticeReclaimAccounts::FLAGS)?;
    NoticeReclaim::decode(cx.fields)?;
    let now = now()?;
    let mut order_now = *account::view::<Order>(cx.program, &order)?;
    let mut lease = account::view_mut::<Lease>(cx.program, &mut lease)?;
    if !address::is(&order, &lease.order) || !address::is(&page, &lease.page) {
        return Err(Error::AddressWrong.into());
    }
    if !address::is(&supplier, &account::view::<FleetPage>(cx.program, &page)?.supplier) {
        return Err(Error::NotAuthorised.into());
    }
    order_now.ripen(now);
    lease.begin(&order_now);
    Ok(lease.notice(&order_now, now)?)
}
