//! Books a lease's leaf under a final root. Writes only lease and order; moves no token.

use crate::shared::{
    Cx, Outcome, account, address,
    runtime::{now, sha256},
};
use atoll_interface::{
    Error,
    instruction::{SettleLease, SettleLeaseAccounts},
    layout::{Config, Epoch, Lease, Order},
    merkle::{Leaf, root_of_path},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut order, mut lease, epoch, config] = cx.take(&SettleLeaseAccounts::FLAGS)?;
    let settle = SettleLease::decode(cx.fields)?;
    let now = now()?;
    let leaf = Leaf {
        lease: *lease.address().as_array(),
        device_seconds: settle.device_seconds,
        until: settle.until,
        flags: settle.flags,
        slots_root: settle.slots_root,
    };
    {
        let epoch = account::view::<Epoch>(cx.program, &epoch)?;
        let hold_s = account::view::<Config>(cx.program, &config)?.epoch_hold_s;
        if epoch.final_at == 0 || now < epoch.final_at.saturating_add(i64::from(hold_s)) {
            return Err(Error::EpochNotFinal.into());
        }
        match root_of_path(sha256, leaf.hash(sha256), settle.leaf_index, settle.path) {
            Some(root) if address::same(&root, &epoch.root) => {}
            _ => return Err(Error::LeafPathWrong.into()),
        }
    }
    let order_address = *order.address().as_array();
    let mut order = account::view_mut::<Order>(cx.program, &mut order)?;
    let mut lease = account::view_mut::<Lease>(cx.program, &mut lease)?;
    address_of(&lease, &order_address)?;
    order.ripen(now);
    lease.begin(&order);
    lease.settle(&mut order, &leaf, now)?;
    Ok(())
}

fn address_of(lease: &Lease, order: &[u8; 32]) -> Outcome {
    if address::same(&lease.order, order) { Ok(()) } else { Err(Error::AddressWrong.into()) }
}
