//! Takes a worker without leases off its slot.

use crate::shared::{Cx, Outcome, account, address, runtime::now};
use atoll_interface::{
    Error,
    instruction::{RetireWorker, RetireWorkerAccounts},
    layout::{Catalogue, Config, DeviceKey, FleetPage, SLOT_USED, Slot, Table},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [supplier, mut page, mut first_page, mut device_key, config, catalogue] =
        cx.take(&RetireWorkerAccounts::FLAGS)?;
    let retire = RetireWorker::decode(cx.fields)?;
    let own = *page.address().as_array();
    let bound = {
        let mut data = account::bytes_mut(cx.program, &mut page)?;
        let (header, rows) = FleetPage::view_table_mut(&mut data)?;
        if !address::is(&supplier, &header.supplier) {
            return Err(Error::NotAuthorised.into());
        }
        let slot = rows.get_mut(usize::from(retire.slot)).filter(|slot| slot.flags & SLOT_USED != 0);
        let slot = slot.ok_or(Error::SlotUnknown)?;
        let mut key = account::view_mut::<DeviceKey>(cx.program, &mut device_key)?;
        if !address::same(&key.page, &own) || key.slot != retire.slot || !key.is_of(slot) {
            return Err(Error::SlotUnknown.into());
        }
        if slot.leased_mask != 0 {
            return Err(Error::SlotLeased.into());
        }
        let models = account::bytes(cx.program, &catalogue)?;
        let (_, models) = Catalogue::view_table(&models)?;
        let model = models.iter().find(|model| model.id == slot.model);
        let bound = slot.bound(&*account::view::<Config>(cx.program, &config)?, model)?;
        let generation = slot.generation;
        *slot = Slot::ZERO;
        slot.generation = generation;
        key.retired_at = now()?;
        header.free_slots = header.free_slots.checked_add(1).ok_or(Error::Overflow)?;
        bound
    };
    let mut first = account::view_mut::<FleetPage>(cx.program, &mut first_page)?;
    if first.page_no != 0 || !address::is(&supplier, &first.supplier) {
        return Err(Error::AddressWrong.into());
    }
    first.required = first.required.saturating_sub(bound);
    Ok(())
}
