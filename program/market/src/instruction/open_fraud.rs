//! Opens a case on what a device signed of a capacity challenge, and puts down whom it harmed.

use crate::shared::{
    Cx, Fault, Outcome,
    account::{self, Make},
    address,
    runtime::{now, sha256},
};
use atoll_interface::{
    Error, NO_ADDRESS,
    capacity::Statement,
    fill::bit,
    instruction::{OpenFraud, OpenFraudAccounts},
    layout::{Config, DeviceKey, FleetPage, FraudCase, Lease, Order, Record, Rules, Slot, Table},
    seeds,
    signature::{INSTRUCTIONS_ID, signed},
};
use pinocchio::{AccountView, Address};

/// What the statement was made on.
struct Device {
    /// Number and content of its worker's slot, while there is one.
    slot: Option<(usize, Slot)>,
    /// Stake at risk, base units.
    stake: u64,
    /// When the statement was made, Unix seconds.
    at: i64,
    /// Chain time, Unix seconds.
    now: i64,
}

/// Whom the case pays first.
struct Harmed {
    renter: [u8; 32],
    lease: [u8; 32],
    harm: u64,
}

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [opener, mut case, device_key, page, first_page, lease, order, config, rules, instructions, _system] =
        cx.take(&OpenFraudAccounts::FLAGS)?;
    let open = OpenFraud::decode(cx.fields)?;
    let now = now()?;
    let (statement, hash) = read(&instructions, open.check)?;
    let (device, page_address) = {
        let key = account::view::<DeviceKey>(cx.program, &device_key)?;
        let config = account::view::<Config>(cx.program, &config)?;
        address::expect(&page, &key.page)?;
        let worker = worker(cx.program, &key, &[&page, &first_page], open.page_no)?;
        let slot = worker.as_ref().map(|(_, slot)| slot);
        let rules = account::view::<Rules>(cx.program, &rules)?;
        statement.check(&config.network_root, (&key, slot), &rules, now)?;
        let stake = match (key.stake, slot) {
            (0, Some(slot)) => slot.bound(&config, None)?,
            (0, None) => config.stake_per_device,
            (stake, _) => stake,
        };
        (Device { slot: worker, stake, at: statement.at, now }, key.page)
    };
    let harmed = harmed(cx.program, &device, &[&page, &lease, &order])?;

    let bump = account::make(&Make {
        program: cx.program,
        payer: &opener,
        account: &case,
        seeds: &seeds::fraud(&statement.device, &hash),
        space: FraudCase::SIZE,
        owner: cx.program,
    })?;
    let mut record = account::fresh::<FraudCase>(&mut case)?;
    record.bump = bump;
    record.n = statement.n;
    record.device = statement.device;
    record.page = page_address;
    record.first_page = *first_page.address().as_array();
    record.seed = statement.seed;
    record.root = statement.root;
    record.at = statement.at;
    record.opener = *opener.address().as_array();
    record.stake = device.stake;
    record.opened_at = now;
    record.renter = harmed.renter;
    record.lease = harmed.lease;
    record.harm = harmed.harm;
    Ok(())
}

/// The statement whose signature the transaction checked, and its hash.
#[inline(never)]
fn read(instructions: &AccountView, check: u16) -> Result<(Statement, [u8; 32]), Fault> {
    address::expect(instructions, &INSTRUCTIONS_ID)?;
    let sysvar = instructions.try_borrow()?;
    let signed = signed(&sysvar, check)?;
    let statement = Statement::parse(signed.message)?;
    if !address::same(&statement.device, signed.key) {
        return Err(Error::StatementWrong.into());
    }
    Ok((statement, sha256(&[signed.message])))
}

/// The key's worker, while it has a slot. The first page is its supplier's: a page that was closed meanwhile tells so by its
/// address alone, so that a supplier does not escape by closing it.
#[inline(never)]
fn worker(
    program: &Address,
    key: &DeviceKey,
    [page, first_page]: &[&AccountView; 2],
    page_no: u16,
) -> Result<Option<(usize, Slot)>, Fault> {
    let supplier = {
        let first = account::view::<FleetPage>(program, first_page)?;
        if first.page_no != 0 {
            return Err(Error::AddressWrong.into());
        }
        first.supplier
    };
    if account::is_vacant(page) {
        let number = page_no.to_le_bytes();
        address::find(program, page, &seeds::page(&supplier, &number))?;
        return Ok(None);
    }
    let data = account::bytes(program, page)?;
    let (header, rows) = FleetPage::view_table(&data)?;
    if !address::same(&header.supplier, &supplier) || header.page_no != page_no {
        return Err(Error::AddressWrong.into());
    }
    let number = usize::from(key.slot);
    Ok(rows.get(number).filter(|slot| key.is_of_worker(slot)).map(|slot| (number, *slot)))
}

/// The renter of a lease that holds the worker.
#[inline(never)]
fn harmed(program: &Address, device: &Device, [page, lease, order]: &[&AccountView; 3]) -> Result<Harmed, Fault> {
    let own = page.address().as_array();
    let Some((number, _)) = device.slot.as_ref().filter(|(_, slot)| slot.leased_mask != 0) else {
        address::expect(lease, own)?;
        address::expect(order, own)?;
        return Ok(Harmed { renter: NO_ADDRESS, lease: NO_ADDRESS, harm: 0 });
    };
    if address::is(lease, own) {
        return Err(Error::HarmedRenterMissing.into());
    }
    let mut order_now = *account::view::<Order>(program, order)?;
    let mut lease_now = *account::view::<Lease>(program, lease)?;
    let held = address::same(&lease_now.page, own) && bit(&lease_now.bitmap, *number);
    if !held || !address::is(order, &lease_now.order) {
        return Err(Error::AddressWrong.into());
    }
    order_now.ripen(device.now);
    lease_now.begin(&order_now);
    let harm = lease_now.harm(&order_now, device.at, device.now)?;
    Ok(Harmed { renter: order_now.renter, lease: *lease.address().as_array(), harm })
}
