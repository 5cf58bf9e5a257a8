//! Gives one group of slots to an order. Pay is the slots' posted ask, never the order's limit.

use crate::shared::{
    Cx, Fault, Outcome,
    account::{self, Make},
    address, authority,
    runtime::{now, sha256},
};
use atoll_interface::{
    Error,
    fill::{Slots, group_hash},
    instruction::{FillOrder, FillOrderAccounts},
    layout::{Config, FleetPage, LEASE_COUNTED, Lease, Order, Record, Table},
    merkle::root_of_path,
    seeds,
};
use pinocchio::{AccountView, Address};

/// What the page gave.
struct Group {
    devices: u32,
    ask_uusd: u64,
}

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [filler, payer, mut order, mut page, first_page, mut lease, config, _system] =
        cx.take(&FillOrderAccounts::FLAGS)?;
    let fill = FillOrder::decode(cx.fields)?;
    let slots = Slots::new(fill.first_slot, fill.bits)?;
    let now = now()?;
    if now < account::view::<Config>(cx.program, &config)?.paused_until {
        return Err(Error::Paused.into());
    }
    check_stake(cx.program, &page, &first_page)?;
    let (order_address, page_address) = (*order.address().as_array(), *page.address().as_array());

    let (n, group) = {
        let mut order = account::view_mut::<Order>(cx.program, &mut order)?;
        if now < order.open_at && !authority::is_solver(&order, filler.address().as_array()) {
            return Err(Error::SolverWindow.into());
        }
        check_chosen(&order, &page, &fill, slots)?;
        let group = lock(cx.program, &order, &mut page, &fill, slots)?;
        (order.fill(group.devices, now)?, group)
    };
    let number = n.to_le_bytes();
    let seeds = seeds::lease(&order_address, &page_address, &number);
    let bump = account::make(&Make {
        program: cx.program,
        payer: &payer,
        account: &lease,
        seeds: &seeds,
        space: Lease::SIZE,
        owner: cx.program,
    })?;
    let order = account::view::<Order>(cx.program, &order)?;
    let mut record = account::fresh::<Lease>(&mut lease)?;
    record.bump = bump;
    record.n = n;
    record.flags = LEASE_COUNTED;
    record.mask = fill.mask;
    record.order = order_address;
    record.page = page_address;
    record.rent_payer = *payer.address().as_array();
    record.open(&order, slots, group.devices, group.ask_uusd, now)?;
    Ok(())
}

/// The supplier's stake covers what its devices require. Page 0 tells; it may be the very page that is filled.
fn check_stake(program: &Address, page: &AccountView, first_page: &AccountView) -> Outcome {
    let (page, first) = (account::view::<FleetPage>(program, page)?, account::view::<FleetPage>(program, first_page)?);
    if first.page_no != 0 || !address::same(&first.supplier, &page.supplier) {
        return Err(Error::AddressWrong.into());
    }
    if first.own.saturating_add(first.costake) < first.required {
        return Err(Error::StakeTooLow.into());
    }
    Ok(())
}

/// With a fill root, the renter chose the groups: this one must be under it.
fn check_chosen(order: &Order, page: &AccountView, fill: &FillOrder<'_>, slots: Slots<'_>) -> Outcome {
    if address::same(&order.fill_root, &[0; 32]) {
        return Ok(());
    }
    let leaf = group_hash(sha256, page.address().as_array(), fill.ask_max, fill.mask, slots);
    match root_of_path(sha256, leaf, fill.group_index, fill.group_path) {
        Some(root) if address::same(&root, &order.fill_root) => Ok(()),
        _ => Err(Error::FillPathWrong.into()),
    }
}

/// Locks the mask in every slot of the group.
#[inline(always)]
fn lock(
    program: &Address,
    order: &Order,
    page: &mut AccountView,
    fill: &FillOrder<'_>,
    slots: Slots<'_>,
) -> Result<Group, Fault> {
    order.check_mask(fill.mask)?;
    let mut data = account::bytes_mut(program, page)?;
    let (header, rows) = FleetPage::view_table_mut(&mut data)?;
    header.leases_open = header.leases_open.checked_add(1).ok_or(Error::Overflow)?;
    let mut group: Option<Group> = None;
    for number in slots.iter() {
        let slot = rows.get_mut(number).ok_or(Error::SlotUnknown)?;
        order.check_slot(slot, fill.mask, fill.ask_max)?;
        slot.leased_mask |= fill.mask;
        let (devices, ask_uusd) = (fill.mask.count_ones(), slot.ask_uusd);
        group = Some(match group {
            None => Group { devices, ask_uusd },
            Some(group) if group.ask_uusd == ask_uusd => {
                Group { devices: group.devices.wrapping_add(devices), ask_uusd }
            }
            Some(_) => return Err(Error::AskUnequal.into()),
        });
    }
    group.ok_or(Error::InstructionMalformed.into())
}
