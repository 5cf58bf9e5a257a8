//! Changes a slot's terms. They bind future leases only.

use crate::shared::{Cx, Outcome, account, address};
use atoll_interface::{
    Error,
    instruction::{ASK, DRAIN, RESUME, SetAsk, SetAskAccounts, UNDRAIN},
    layout::{FleetPage, SLOT_DRAINING, SLOT_SUSPENDED, SLOT_USED, Table},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [authority, mut page] = cx.take(&SetAskAccounts::FLAGS)?;
    let terms = SetAsk::decode(cx.fields)?;
    let mut data = account::bytes_mut(cx.program, &mut page)?;
    let (header, slots) = FleetPage::view_table_mut(&mut data)?;
    let slot = slots.get_mut(usize::from(terms.slot)).ok_or(Error::SlotUnknown)?;
    if slot.flags & SLOT_USED == 0 {
        return Err(Error::SlotUnknown.into());
    }
    let change = terms.change;
    if change == 0 || change & !(ASK | DRAIN | UNDRAIN | RESUME) != 0 || change & (DRAIN | UNDRAIN) == DRAIN | UNDRAIN {
        return Err(Error::InstructionMalformed.into());
    }
    let by_wallet = address::is(&authority, &header.supplier);
    let by_device = address::is(&authority, &slot.device_key);
    let denied = (change & ASK != 0 && !by_wallet) || (change & RESUME != 0 && !by_device) || !(by_wallet || by_device);
    if denied {
        return Err(Error::NotAuthorised.into());
    }
    if change & ASK != 0 {
        slot.ask_uusd = terms.ask_uusd;
        slot.lease_s_max = terms.lease_s_max;
    }
    if change & DRAIN != 0 {
        slot.flags |= SLOT_DRAINING;
    }
    if change & UNDRAIN != 0 {
        slot.flags &= !SLOT_DRAINING;
    }
    if change & RESUME != 0 {
        slot.flags &= !SLOT_SUSPENDED;
    }
    Ok(())
}
