//! Attests served time: once an epoch, one Merkle root over the cumulative leaves of this operator's leases.
//!
//! Served is where the worker's signed meter and this operator's own observation agree, never more than the chain's cap.
//! Leaves are written to the store before the root is posted, so that what was attested can always be shown. An epoch in
//! which nothing changed is not posted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atoll_domain::key::{Address, Digest, sha256};
use atoll_domain::meter::served_seconds;
use atoll_interface::layout::Lease;
use atoll_interface::merkle::FLAG_FINAL;
use atoll_interface::network::epoch_at;

use super::Reconciler;
use crate::app::{chain, leaves};
use crate::control::Control;
use crate::store::rows::{Epoch, EpochLeaf, Job, Pod};

pub(super) struct Epochs {
    control: Arc<Control>,
}

impl Epochs {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control) }
    }

    /// The leaf of every lease of one job that has a clock.
    async fn leaves_of(&self, job: &Job, now: i64, leaves: &mut BTreeMap<Address, EpochLeaf>) -> anyhow::Result<bool> {
        let pods = self.control.store.pods_of(job.id).await?;
        let mut changed = false;
        for (address, lease) in chain::leases(&self.control, &job.order).await? {
            if lease.start == 0 || now <= lease.start {
                continue;
            }
            let leaf = leaf(&self.control, address, &lease, &pods, now)?;
            let last = self.control.store.epoch_with_lease(&address).await?;
            let last = last.as_ref().and_then(|epoch| epoch.leaves.iter().find(|leaf| leaf.lease == address));
            changed |= last.is_none_or(|last| (last.device_seconds, last.flags) != (leaf.device_seconds, leaf.flags));
            leaves.insert(address, leaf);
        }
        Ok(changed)
    }
}

/// What this operator attests of one lease now.
fn leaf(control: &Control, address: Address, lease: &Lease, pods: &[Pod], now: i64) -> anyhow::Result<EpochLeaf> {
    let cap = lease.cap(now).map_err(|error| anyhow::anyhow!("the cap of lease {address}: {error:?}"))?;
    let mut seconds_by_slot: BTreeMap<u16, u64> = BTreeMap::new();
    let mut over = true;
    for pod in pods.iter().filter(|pod| pod.lease == address) {
        let seen = control.links.observation(pod.id).unwrap_or(pod.observation);
        let claimed = pod.usage.map_or(0, |usage| usage.statement.served_ms);
        let served = served_seconds(claimed, seen.observed_ms, u64::MAX) * u64::from(pod.mask.count_ones());
        *seconds_by_slot.entry(pod.at.slot).or_default() += served;
        over &= pod.state.is_over();
    }
    let total: u64 = seconds_by_slot.values().sum();
    let is_final = lease.devices_live == 0 && over;
    Ok(EpochLeaf {
        lease: address,
        device_seconds: total.min(cap),
        until: now,
        flags: if is_final { FLAG_FINAL } else { 0 },
        slots_root: slots_root(&seconds_by_slot),
    })
}

/// Commits the seconds of each slot: SHA-256 over (slot u16 ‖ seconds u64), little-endian, in order. Verdicts join when
/// something verifies.
fn slots_root(seconds_by_slot: &BTreeMap<u16, u64>) -> Digest {
    let mut bytes = Vec::new();
    for (slot, seconds) in seconds_by_slot {
        bytes.extend(slot.to_le_bytes());
        bytes.extend(seconds.to_le_bytes());
    }
    Digest(sha256(&[&bytes]))
}

impl Reconciler for Epochs {
    const NAME: &'static str = "epochs";
    const PERIOD: Duration = Duration::from_millis(500);

    async fn run(&mut self) -> anyhow::Result<()> {
        let Some(market) = self.control.market.snapshot() else { return Ok(()) };
        let now = chain::time(&self.control).await?;
        let latest = self.control.store.epoch_latest().await?;
        if let Some(latest) = &latest {
            chain::post_epoch(&self.control, latest).await?;
        }
        let Some(over) =
            epoch_at(now, market.network.epoch_zero, market.network.epoch_s).and_then(|at| at.checked_sub(1))
        else {
            return Ok(());
        };
        if latest.is_some_and(|latest| latest.index >= over) {
            return Ok(());
        }
        let (mut leaves, mut changed) = (BTreeMap::new(), false);
        for job in self.control.store.jobs_open().await? {
            changed |= self.leaves_of(&job, now, &mut leaves).await?;
        }
        if !changed {
            return Ok(());
        }
        let leaves: Vec<EpochLeaf> = leaves.into_values().collect();
        let root = leaves::root(&leaves);
        let epoch = Epoch { index: over, root, leaves, created: self.control.now() };
        let epoch = self.control.store.epoch_put(&epoch).await?;
        chain::post_epoch(&self.control, &epoch).await?;
        self.control.wake.signal();
        Ok(())
    }
}
