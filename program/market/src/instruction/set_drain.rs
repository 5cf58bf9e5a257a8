//! Lets slots of a page take no new lease, or take them again.

use crate::shared::{Cx, Outcome, account, authority};
use atoll_interface::{
    Error,
    fill::Slots,
    instruction::{SetDrain, SetDrainAccounts},
    layout::{FleetPage, SLOT_DRAINING, SLOT_USED, Table},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [authority, mut page, ask_key] = cx.take(&SetDrainAccounts::FLAGS)?;
    let set = SetDrain::decode(cx.fields)?;
    let slots = Slots::new(set.first_slot, set.bits)?;
    if set.drain > 1 {
        return Err(Error::InstructionMalformed.into());
    }
    let asks = authority::has_asks(cx.program, &authority, &page, &ask_key)?;
    let mut data = account::bytes_mut(cx.program, &mut page)?;
    let (_, rows) = FleetPage::view_table_mut(&mut data)?;
    if !asks && !authority::is_device_of_all(&authority, rows, slots)? {
        return Err(Error::NotAuthorised.into());
    }
    for number in slots.iter() {
        let slot = rows.get_mut(number).filter(|slot| slot.flags & SLOT_USED != 0).ok_or(Error::SlotUnknown)?;
        if set.drain == 1 {
            slot.flags |= SLOT_DRAINING;
        } else {
            slot.flags &= !SLOT_DRAINING;
        }
    }
    Ok(())
}
