//! Registers a worker: wallet and device key both sign, the worker takes a free slot of the page or a new one, the
//! required stake rises.

use crate::shared::{
    Cx, Fault, Outcome,
    account::{self, Make},
    address,
    runtime::now,
};
use atoll_interface::{
    Error,
    arithmetic::add,
    instruction::{RegisterWorker, RegisterWorkerAccounts},
    layout::{
        CLASS_ATTESTED, CLASS_SAMPLED, Catalogue, Config, DeviceKey, FleetPage, PAGE_COUNTED, Record, SLOT_USED,
        SLOTS_MAX, Table,
    },
    seeds, stake,
};
use pinocchio::AccountView;

/// Devices of one worker: the bits of a mask.
const DEVICES_MAX: u8 = 16;

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [supplier, device, config, catalogue, mut page, mut first_page, mut device_key, _system] =
        cx.take(&RegisterWorkerAccounts::FLAGS)?;
    let worker = RegisterWorker::decode(cx.fields)?;
    let in_range =
        (1..=DEVICES_MAX).contains(&worker.devices) && (CLASS_SAMPLED..=CLASS_ATTESTED).contains(&worker.class);
    if !in_range {
        return Err(Error::ParameterOutOfRange.into());
    }
    let model = {
        let data = account::bytes(cx.program, &catalogue)?;
        let (_, rows) = Catalogue::view_table(&data)?;
        *rows.iter().find(|row| row.id == worker.model).ok_or(Error::ModelUnknown)?
    };
    let required = stake::required(&*account::view::<Config>(cx.program, &config)?, &model, worker.devices)?;

    let (slot, generation) = place(cx, &supplier, &mut page, worker.page_no)?;
    let (page_address, key) = (*page.address().as_array(), *device.address().as_array());
    let bump = account::make(&Make {
        program: cx.program,
        payer: &supplier,
        account: &device_key,
        seeds: &seeds::device(&key),
        space: DeviceKey::SIZE,
        owner: cx.program,
    })?;
    let mut record = account::fresh::<DeviceKey>(&mut device_key)?;
    record.bump = bump;
    record.slot = slot;
    record.key = key;
    record.page = page_address;
    record.generation = generation;
    record.stake = required;

    let mut data = account::bytes_mut(cx.program, &mut page)?;
    let (_, slots) = FleetPage::view_table_mut(&mut data)?;
    let row = slots.get_mut(usize::from(slot)).ok_or(Error::SlotUnknown)?;
    row.device_key = key;
    row.ask_uusd = worker.ask_uusd;
    row.registered_at = now()?;
    row.lease_s_max = worker.lease_s_max;
    row.model = worker.model;
    row.region = worker.region;
    row.devices = worker.devices;
    row.tier = model.tier;
    row.class = worker.class;
    row.flags = SLOT_USED;
    row.generation = generation;
    row.required = required;
    drop(data);

    let mut first = account::view_mut::<FleetPage>(cx.program, &mut first_page)?;
    if first.page_no != 0 || !address::is(&supplier, &first.supplier) {
        return Err(Error::AddressWrong.into());
    }
    first.required = add(first.required, required)?;
    Ok(())
}

/// Makes the page, takes its first free slot or grows it by one; returns the slot's number and generation.
fn place(cx: &Cx<'_>, supplier: &AccountView, page: &mut AccountView, page_no: u16) -> Result<(u16, u32), Fault> {
    if account::is_vacant(page) {
        let (wallet, number) = (supplier.address().as_array(), page_no.to_le_bytes());
        let seeds = seeds::page(wallet, &number);
        let bump = account::make(&Make {
            program: cx.program,
            payer: supplier,
            account: page,
            seeds: &seeds,
            space: FleetPage::size_with(1),
            owner: cx.program,
        })?;
        let mut header = account::fresh::<FleetPage>(page)?;
        header.bump = bump;
        header.page_no = page_no;
        header.supplier = *wallet;
        header.slot_count = 1;
        header.flags = PAGE_COUNTED;
        return Ok((0, 0));
    }
    let slot = {
        let mut data = account::bytes_mut(cx.program, page)?;
        let (header, rows) = FleetPage::view_table_mut(&mut data)?;
        if header.page_no != page_no || !address::is(supplier, &header.supplier) {
            return Err(Error::AddressWrong.into());
        }
        if header.free_slots != 0 {
            let free = rows.iter().position(|row| row.flags & SLOT_USED == 0).ok_or(Error::SlotUnknown)?;
            let row = rows.get(free).ok_or(Error::SlotUnknown)?;
            header.free_slots = header.free_slots.wrapping_sub(1);
            let number = u16::try_from(free).map_err(|_| Error::SlotUnknown)?;
            return Ok((number, row.generation.wrapping_add(1)));
        }
        header.slot_count
    };
    if usize::from(slot) >= SLOTS_MAX {
        return Err(Error::PageFull.into());
    }
    let count = slot.wrapping_add(1);
    account::grow(supplier, page, FleetPage::size_with(usize::from(count)))?;
    account::view_mut::<FleetPage>(cx.program, page)?.slot_count = count;
    Ok((slot, 0))
}
