//! Gives a worker another device key; the old one is kept as retired.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    address,
    runtime::now,
};
use atoll_interface::{
    Error,
    instruction::{RotateDeviceKey, RotateDeviceKeyAccounts},
    layout::{DEVICE_SLASHED, DeviceKey, FleetPage, Record, Table},
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [supplier, device, mut page, mut old_key, mut new_key, _system] = cx.take(&RotateDeviceKeyAccounts::FLAGS)?;
    let rotate = RotateDeviceKey::decode(cx.fields)?;
    let (own, key) = (*page.address().as_array(), *device.address().as_array());
    let old = {
        let mut data = account::bytes_mut(cx.program, &mut page)?;
        let (header, rows) = FleetPage::view_table_mut(&mut data)?;
        if !address::is(&supplier, &header.supplier) {
            return Err(Error::NotAuthorised.into());
        }
        let slot = rows.get_mut(usize::from(rotate.slot)).ok_or(Error::SlotUnknown)?;
        let mut old = account::view_mut::<DeviceKey>(cx.program, &mut old_key)?;
        if !address::same(&old.page, &own) || old.slot != rotate.slot || !old.is_of(slot) {
            return Err(Error::SlotUnknown.into());
        }
        if old.flags & DEVICE_SLASHED != 0 {
            return Err(Error::DeviceSlashed.into());
        }
        old.retired_at = now()?;
        slot.device_key = key;
        *old
    };
    let bump = account::make(&Make {
        program: cx.program,
        payer: &supplier,
        account: &new_key,
        seeds: &seeds::device(&key),
        space: DeviceKey::SIZE,
        owner: cx.program,
    })?;
    let mut record = account::fresh::<DeviceKey>(&mut new_key)?;
    record.bump = bump;
    record.slot = old.slot;
    record.key = key;
    record.page = old.page;
    record.generation = old.generation;
    record.stake = old.stake;
    Ok(())
}
