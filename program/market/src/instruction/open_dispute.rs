//! Opens a bonded dispute on one lease's leaf and freezes the lease.

use crate::shared::{
    Cx, Fault, Outcome,
    account::{self, Make},
    address,
    runtime::{now, sha256},
    slot::slot,
    token::{self, Call, MakeVault},
};
use atoll_interface::{
    Address as Bytes, Error,
    instruction::{OpenDispute, OpenDisputeAccounts},
    layout::{Config, Dispute, Epoch, FleetPage, Lease, Order, Record, Rules},
    merkle::{Leaf, root_of_path},
    seeds,
};
use pinocchio::{AccountView, Address};

/// What is asked, and when. A struct because calls on this target pass five words.
struct Asked<'a> {
    program: &'a Address,
    open: OpenDispute<'a>,
    leaf: Leaf,
    now: i64,
}

/// The disputed leaf's root.
struct Root {
    root: Bytes,
    index: u64,
}

/// What the freeze found.
struct Frozen {
    renter: Bytes,
    supplier: Bytes,
    cap_at: u64,
}

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [opener, mut dispute, vault, source, order, mut lease, page, epoch, config, rules, mint, ..] =
        cx.take(&OpenDisputeAccounts::FLAGS)?;
    let open = OpenDispute::decode(cx.fields)?;
    let now = now()?;
    let leaf = Leaf {
        lease: *lease.address().as_array(),
        device_seconds: open.device_seconds,
        until: open.until,
        flags: open.flags,
        slots_root: open.slots_root,
    };
    let asked = Asked { program: cx.program, open, leaf, now };
    let root = check_root(&asked, &[&epoch, &config, &mint])?;
    let frozen = freeze(&asked, &mut lease, &[&order, &page])?;

    let (own, index) = (*dispute.address().as_array(), root.index.to_le_bytes());
    let bump = account::make(&Make {
        program: cx.program,
        payer: &opener,
        account: &dispute,
        seeds: &seeds::dispute(&leaf.lease, &index),
        space: Dispute::SIZE,
        owner: cx.program,
    })?;
    let vault_bump = token::make(&MakeVault {
        program: cx.program,
        payer: &opener,
        vault: &vault,
        mint: &mint,
        seeds: seeds::dispute_vault(&own),
        owner: &own,
    })?;
    let bond = {
        let mut record = account::fresh::<Dispute>(&mut dispute)?;
        record.begin(&*account::view::<Rules>(cx.program, &rules)?, slot()?, now);
        record.bump = bump;
        record.vault_bump = vault_bump;
        record.lease = leaf.lease;
        record.root = root.root;
        record.epoch = root.index;
        record.claimed = leaf.device_seconds;
        record.ceiling = open.ceiling;
        record.opener = *opener.address().as_array();
        record.renter = frozen.renter;
        record.supplier = frozen.supplier;
        record.until = leaf.until;
        record.cap_at = frozen.cap_at;
        record.leaf_flags = leaf.flags;
        record.bond
    };
    if token::read(&source, mint.address().as_array())?.amount < bond {
        return Err(Error::FundsShort.into());
    }
    Call { from: &source, to: &vault, authority: &opener, seeds: &[] }.transfer(bond)
}

/// The root is final and within its hold, and the leaf is under it.
#[inline(never)]
fn check_root(asked: &Asked<'_>, [epoch, config, mint]: &[&AccountView; 3]) -> Result<Root, Fault> {
    let Asked { program, open, leaf, now } = asked;
    let epoch = account::view::<Epoch>(program, epoch)?;
    let config = account::view::<Config>(program, config)?;
    address::expect(mint, &config.mint)?;
    if epoch.final_at == 0 {
        return Err(Error::EpochNotFinal.into());
    }
    if *now >= epoch.final_at.saturating_add(i64::from(config.epoch_hold_s)) {
        return Err(Error::HoldOver.into());
    }
    match root_of_path(sha256, leaf.hash(sha256), open.leaf_index, open.path) {
        Some(root) if address::same(&root, &epoch.root) => Ok(Root { root, index: epoch.index }),
        _ => Err(Error::LeafPathWrong.into()),
    }
}

#[inline(never)]
fn freeze(asked: &Asked<'_>, lease: &mut AccountView, [order, page]: &[&AccountView; 2]) -> Result<Frozen, Fault> {
    let Asked { program, open, leaf, now } = asked;
    let mut order_now = *account::view::<Order>(program, order)?;
    let mut lease = account::view_mut::<Lease>(program, lease)?;
    if !address::is(order, &lease.order) || !address::is(page, &lease.page) {
        return Err(Error::AddressWrong.into());
    }
    order_now.ripen(*now);
    lease.begin(&order_now);
    let cap_at = lease.freeze(&order_now, leaf, open.ceiling, *now)?;
    let supplier = account::view::<FleetPage>(program, page)?.supplier;
    Ok(Frozen { renter: order_now.renter, supplier, cap_at })
}
