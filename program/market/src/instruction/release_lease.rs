//! Frees slots of a lease at once.

use crate::shared::{Cx, Outcome, account, address, authority, runtime::now};
use atoll_interface::{
    Error,
    fill::Slots,
    instruction::{ReleaseLease, ReleaseLeaseAccounts},
    layout::{FleetPage, Lease, Order, SLOT_SUSPENDED, Table},
    settlement::{Reason, Releaser},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [authority, mut order, mut lease, mut page, budget] = cx.take(&ReleaseLeaseAccounts::FLAGS)?;
    let release = ReleaseLease::decode(cx.fields)?;
    let slots = Slots::new(release.first_slot, release.bits)?;
    let reason = Reason::from_number(release.reason)?;
    let now = now()?;
    let by_renter = {
        let own = *order.address().as_array();
        let order = account::view::<Order>(cx.program, &order)?;
        authority::expect_budget_place(&order, &own, &budget)?;
        authority::is_renter(cx.program, &order, &authority, &budget, now)?
    };
    let (order_address, page_address) = (*order.address().as_array(), *page.address().as_array());
    let mut order = account::view_mut::<Order>(cx.program, &mut order)?;
    let mut lease = account::view_mut::<Lease>(cx.program, &mut lease)?;
    let mut data = account::bytes_mut(cx.program, &mut page)?;
    let (header, rows) = FleetPage::view_table_mut(&mut data)?;
    if !address::same(&lease.order, &order_address) || !address::same(&lease.page, &page_address) {
        return Err(Error::AddressWrong.into());
    }
    order.ripen(now);
    lease.begin(&order);

    let by_supplier = address::is(&authority, &header.supplier);
    let releaser = match reason {
        Reason::Expired => Releaser::Anyone,
        Reason::Leave | Reason::Reclaim if by_supplier => Releaser::Supplier,
        Reason::Leave | Reason::Reclaim if authority::is_device_of_all(&authority, rows, slots)? => Releaser::Device,
        Reason::Lost | Reason::Done if by_renter => Releaser::Renter,
        Reason::Lost | Reason::Done if authority::is_solver(&order, authority.address().as_array()) => Releaser::Solver,
        _ => return Err(Error::NotAuthorised.into()),
    };
    releaser.check(reason, &order, &lease, now)?;
    let from_supplier = matches!(releaser, Releaser::Supplier | Releaser::Device);
    let effective_at = if from_supplier { release.effective_at } else { now };
    lease.release(&mut order, slots, reason, effective_at, now)?;
    for number in slots.iter() {
        let slot = rows.get_mut(number).ok_or(Error::SlotUnknown)?;
        slot.leased_mask &= !lease.mask;
        if reason == Reason::Lost {
            slot.flags |= SLOT_SUSPENDED;
        }
    }
    Ok(())
}
