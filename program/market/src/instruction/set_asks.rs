//! Sets one ask for some slots of a page.

use crate::shared::{Cx, Outcome, account, authority};
use atoll_interface::{
    Error,
    fill::Slots,
    instruction::{SetAsks, SetAsksAccounts},
    layout::{FleetPage, SLOT_USED, Table},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [authority, mut page, ask_key] = cx.take(&SetAsksAccounts::FLAGS)?;
    let set = SetAsks::decode(cx.fields)?;
    let slots = Slots::new(set.first_slot, set.bits)?;
    if !authority::has_asks(cx.program, &authority, &page, &ask_key)? {
        return Err(Error::NotAuthorised.into());
    }
    let mut data = account::bytes_mut(cx.program, &mut page)?;
    let (_, rows) = FleetPage::view_table_mut(&mut data)?;
    for number in slots.iter() {
        let slot = rows.get_mut(number).filter(|slot| slot.flags & SLOT_USED != 0).ok_or(Error::SlotUnknown)?;
        slot.ask_uusd = set.ask_uusd;
        slot.lease_s_max = set.lease_s_max;
    }
    Ok(())
}
