//! Books neighbouring leaves of one order's leases under one path. Writes only leases and order; moves no token.

use crate::shared::{
    Cx, Outcome, account, address,
    runtime::{now, sha256},
};
use atoll_interface::{
    Error, Hash,
    instruction::{BATCH_MAX, SettleBatch, SettleBatchAccounts, leaf_of},
    layout::{Config, Epoch, Lease, Order},
    merkle::{fold, root_of_path},
};
use pinocchio::{AccountView, Address};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut order, epoch, config] = cx.take(&SettleBatchAccounts::FLAGS)?;
    let batch = SettleBatch::decode(cx.fields)?;
    let count = batch.leaves.len();
    if !count.is_power_of_two() || count > BATCH_MAX {
        return Err(Error::InstructionMalformed.into());
    }
    let leases = cx.accounts.get_mut(SettleBatchAccounts::FLAGS.len()..).and_then(|rest| rest.get_mut(..count));
    let leases = leases.ok_or(Error::AccountsMissing)?;
    let now = now()?;
    expect_paid(cx.program, (&epoch, &config), leases, &batch, now)?;
    let order_address = *order.address().as_array();
    let mut order = account::view_mut::<Order>(cx.program, &mut order)?;
    order.ripen(now);
    for (lease, said) in leases.iter_mut().zip(batch.leaves) {
        settle(cx.program, (&mut order, &order_address), lease, said, now)?;
    }
    Ok(())
}

/// Whether the leases' leaves stand side by side under the epoch's root, and the root is out of its hold.
#[inline(always)]
pub(super) fn expect_paid(
    program: &Address,
    (epoch, config): (&AccountView, &AccountView),
    leases: &[AccountView],
    batch: &SettleBatch<'_>,
    now: i64,
) -> Outcome {
    let epoch = account::view::<Epoch>(program, epoch)?;
    let hold_s = account::view::<Config>(program, config)?.epoch_hold_s;
    if epoch.final_at == 0 || now < epoch.final_at.saturating_add(i64::from(hold_s)) {
        return Err(Error::EpochNotFinal.into());
    }
    expect_under(&epoch.root, leases, batch)
}

#[inline(never)]
fn expect_under(root: &Hash, leases: &[AccountView], batch: &SettleBatch<'_>) -> Outcome {
    let mut hashes = [[0; 32]; BATCH_MAX];
    for ((hash, lease), said) in hashes.iter_mut().zip(leases).zip(batch.leaves) {
        *hash = leaf_of(*lease.address().as_array(), said).hash(sha256);
    }
    let hashes = hashes.get_mut(..leases.len()).ok_or(Error::InstructionMalformed)?;
    let levels = leases.len().trailing_zeros();
    let index = batch.first_leaf >> levels;
    let aligned = index << levels == batch.first_leaf;
    let found = fold(sha256, hashes).and_then(|above| root_of_path(sha256, above, index, batch.path));
    match found {
        Some(found) if aligned && address::same(&found, root) => Ok(()),
        _ => Err(Error::LeafPathWrong.into()),
    }
}

/// Books one leaf.
#[inline(always)]
pub(super) fn settle(
    program: &Address,
    (order, order_address): (&mut Order, &[u8; 32]),
    lease: &mut AccountView,
    said: &[u8; atoll_interface::instruction::SAID_LEN],
    now: i64,
) -> Outcome {
    if !lease.is_writable() {
        return Err(Error::NotWritable.into());
    }
    let leaf = leaf_of(*lease.address().as_array(), said);
    let mut lease = account::view_mut::<Lease>(program, lease)?;
    if !address::same(&lease.order, order_address) {
        return Err(Error::AddressWrong.into());
    }
    lease.begin(order);
    Ok(lease.settle(order, &leaf, now)?)
}
