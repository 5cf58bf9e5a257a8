//! Attests served time: once an epoch, one Merkle root over the cumulative leaves of this operator's leases.
//!
//! Served is where the worker's signed meter and this operator's own observation agree, never more than the chain's cap.
//! Leaves are written to the store before the root is posted, so that what was attested can always be shown. An epoch in
//! which nothing changed is not posted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atoll_domain::id::PodId;
use atoll_domain::key::{Address, Digest, sha256};
use atoll_domain::meter::{Observation, SignedUsage, served_seconds};
use atoll_interface::layout::{LEASE_FINAL, Lease};
use atoll_interface::merkle::FLAG_FINAL;
use atoll_interface::network::epoch_at;

use super::{Reconciler, orphan};
use crate::app::chain::{self, Sent};
use crate::app::{kept, leaves};
use crate::control::Control;
use crate::store::rows::{Epoch, EpochLeaf, Job, Pod, Stray};

/// How long after a lease's end its pods may take to stop before its last leaf is written without them: a worker stops
/// them by itself 30 s after the end. One that says for ever that it runs must not hold up the order.
const STOP_S: i64 = 30;
/// Epochs that are remembered to stand: of more, the oldest are asked for again.
const STAND_MAX: usize = 1_000;

pub(super) struct Epochs {
    control: Arc<Control>,
    /// The latest epoch whose leaves are known to be kept beside the store.
    kept: Option<u64>,
    /// The latest epoch of which another root is kept: this one is not voted on.
    refused: Option<u64>,
    /// The newest epochs whose roots are known to stand for good. Until then the latest one's vote is looked at again in each
    /// run, and what was final in an earlier one is attested again.
    stand: BTreeSet<u64>,
}

/// What the worker claims of a pod and this operator saw of it.
struct Metered {
    id: PodId,
    lease: Address,
    slot: u16,
    mask: u16,
    usage: Option<SignedUsage>,
    observation: Observation,
    over: bool,
}

impl From<Pod> for Metered {
    fn from(pod: Pod) -> Self {
        let Pod { id, lease, at, mask, usage, observation, state, .. } = pod;
        Self { id, lease, slot: at.slot, mask, usage, observation, over: state.is_over() }
    }
}

impl From<Stray> for Metered {
    fn from(stray: Stray) -> Self {
        let Stray { id, lease, at, mask, usage, observation, state, .. } = stray;
        Self { id, lease, slot: at.slot, mask, usage, observation, over: state.is_over() }
    }
}

/// What was served under one lease, as far as this operator knows.
#[derive(Debug, Default)]
struct Served {
    seconds_by_slot: BTreeMap<u16, u64>,
    /// Device-seconds attested for pods that the store has lost.
    carried: u64,
    /// Whether all its pods are over.
    over: bool,
}

impl Epochs {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control), kept: None, refused: None, stand: BTreeSet::new() }
    }

    /// Open jobs whose leases are attested.
    async fn attested_jobs(&self) -> anyhow::Result<Vec<Job>> {
        let mut jobs = self.control.store.jobs_open().await?;
        jobs.retain(|job| job.now.adopting.is_none());
        Ok(jobs)
    }

    /// Keeps an epoch's leaves beside the store, then votes for its root. The note decides: an epoch has one, and a store
    /// that came back old under a node that runs gives a root that its key must not sign.
    async fn post(&mut self, epoch: &Epoch) -> anyhow::Result<Sent> {
        if self.stand.contains(&epoch.index) {
            return Ok(Sent::Confirmed);
        }
        let refused = || Ok(Sent::Failed("another root of this epoch is kept".into()));
        if self.refused == Some(epoch.index) {
            return refused();
        }
        if self.kept != Some(epoch.index) {
            if !kept::put_epoch(&self.control, epoch).await? {
                tracing::error!(epoch = epoch.index, "another root of this epoch is kept; this one is not voted on");
                self.refused = Some(epoch.index);
                return refused();
            }
            self.kept = Some(epoch.index);
        }
        let sent = chain::post_epoch(&self.control, epoch).await?;
        if sent == Sent::Confirmed {
            self.stands(epoch).await?;
        }
        Ok(sent)
    }

    /// Whether an epoch's root stands for good.
    async fn stands(&mut self, epoch: &Epoch) -> anyhow::Result<bool> {
        if self.stand.contains(&epoch.index) {
            return Ok(true);
        }
        let stands = chain::epoch_stands(&self.control, epoch).await?;
        if stands {
            self.stand.insert(epoch.index);
        }
        while self.stand.len() > STAND_MAX {
            self.stand.pop_first();
        }
        Ok(stands)
    }

    /// The leaf of every lease that has a clock, from what was seen of its pods. What is final under a root that stands for
    /// good is left out, so that this root comes out of its hold however busy the market is. Until then a fork may take the
    /// vote back, and a key that has voted on a later epoch can never give it again. `redo` is an epoch that the chain
    /// refused: what stood in it is attested again.
    async fn leaves_of(
        &mut self,
        leases: Vec<(Address, Lease)>,
        pods: &[Metered],
        carried: &BTreeMap<Address, u64>,
        (now, redo): (i64, Option<u64>),
        leaves: &mut BTreeMap<Address, EpochLeaf>,
    ) -> anyhow::Result<bool> {
        let mut changed = false;
        for (address, lease) in leases {
            if lease.start == 0 || now <= lease.start {
                continue;
            }
            let epoch = self.control.store.epoch_with_lease(&address).await?;
            let again = epoch.as_ref().is_some_and(|epoch| Some(epoch.index) == redo);
            let last = epoch.as_ref().and_then(|epoch| epoch.leaves.iter().find(|leaf| leaf.lease == address));
            let closing = last.filter(|last| closes(last, &lease) && !again);
            if let (Some(epoch), Some(last)) = (&epoch, closing) {
                if lease.flags & LEASE_FINAL == 0 && !self.stands(epoch).await? {
                    leaves.insert(address, last.clone());
                }
                continue;
            }
            let mut served = self.served(address, pods);
            served.carried = carried.get(&address).copied().unwrap_or_default();
            let leaf = leaf(address, &lease, &served, last, now)?;
            // One that was final and closes the lease no more is from before a fork that took its release back.
            changed |= again
                || leaf.flags & FLAG_FINAL != 0
                || last.is_none_or(|last| (last.device_seconds, last.flags) != (leaf.device_seconds, leaf.flags));
            leaves.insert(address, leaf);
        }
        Ok(changed)
    }

    fn served(&self, lease: Address, pods: &[Metered]) -> Served {
        let mut served = Served { over: true, ..Served::default() };
        for pod in pods.iter().filter(|pod| pod.lease == lease) {
            let seen = self.control.links.observed(pod.id, pod.observation);
            let claimed = pod.usage.map_or(0, |usage| usage.statement.served_ms);
            let seconds = served_seconds(claimed, seen.observed_ms, u64::MAX);
            let of_slot = served.seconds_by_slot.entry(pod.slot).or_default();
            *of_slot = of_slot.saturating_add(seconds.saturating_mul(u64::from(pod.mask.count_ones())));
            served.over &= pod.over;
        }
        served
    }
}

/// What this operator attests of one lease at `now`, a chain time read before the lease.
///
/// Never less than it attested before or the chain has booked: what a node saw and did not write down before it was
/// killed was seen all the same, and the program refuses a leaf that takes seconds back. Final only when it reaches the
/// last second: the program closes a lease on nothing less.
fn leaf(
    address: Address,
    lease: &Lease,
    served: &Served,
    last: Option<&EpochLeaf>,
    now: i64,
) -> anyhow::Result<EpochLeaf> {
    let cap = lease.cap(now).map_err(|error| anyhow::anyhow!("the cap of lease {address}: {error:?}"))?;
    let total = served.seconds_by_slot.values().fold(served.carried, |total, seconds| total.saturating_add(*seconds));
    let before = last.map_or(0, |last| last.device_seconds).max(lease.device_seconds_paid);
    let ended = lease.devices_live == 0 && now >= lease.last_second();
    let is_final = ended && (served.over || now >= lease.last_second().saturating_add(STOP_S));
    Ok(EpochLeaf {
        lease: address,
        device_seconds: total.max(before).min(cap),
        until: now,
        flags: if is_final { FLAG_FINAL } else { 0 },
        slots_root: slots_root(&served.seconds_by_slot),
    })
}

/// Whether the program closes a lease on a leaf once that is booked.
fn closes(leaf: &EpochLeaf, lease: &Lease) -> bool {
    leaf.flags & FLAG_FINAL != 0 && lease.devices_live == 0 && leaf.until >= lease.last_second()
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
        if !self.control.links.is_home("epochs") {
            return Ok(());
        }
        let Some(market) = self.control.market.snapshot() else { return Ok(()) };
        let latest = self.control.store.epoch_latest().await?;
        if self.control.caught_up.went_back(latest.as_ref().map(|latest| latest.index), None) {
            anyhow::bail!("the store is older than what was attested over it");
        }
        let mut redo = None;
        if let Some(latest) = &latest {
            // An epoch begins only when the one before it stands, or can no longer stand.
            match self.post(latest).await? {
                Sent::Confirmed => {}
                Sent::Failed(_) => redo = Some(latest.index),
                Sent::Waiting | Sent::Expired => return Ok(()),
            }
        }
        let jobs = self.attested_jobs().await?;
        if jobs.is_empty() && self.control.store.stray_orders().await?.is_empty() {
            return Ok(());
        }
        let (next, now) = chain::next_epoch(&self.control).await?;
        let over = epoch_at(now, market.network.epoch_zero, market.network.epoch_s).and_then(|at| at.checked_sub(1));
        let Some(over) = over.and_then(|over| self.control.config.attest_turn.latest(over)) else { return Ok(()) };
        // A key votes on rising epochs: what is behind its last vote it has said, or left to say, for ever.
        let voted = next.is_some_and(|next| over < next);
        if voted || latest.is_some_and(|latest| latest.index >= over) {
            return Ok(());
        }
        let (mut leaves, mut changed) = (BTreeMap::new(), false);
        for job in jobs {
            let pods: Vec<Metered> = self.control.store.pods_of(job.id).await?.into_iter().map(Metered::from).collect();
            let leases = chain::leases(&self.control, &job.order).await?;
            changed |= self.leaves_of(leases, &pods, &job.now.carried, (now, redo), &mut leaves).await?;
        }
        for order in orphan::attestable(&self.control, now).await? {
            let pods: Vec<Metered> = order.strays.into_iter().map(Metered::from).collect();
            changed |= self.leaves_of(order.leases, &pods, &BTreeMap::new(), (now, redo), &mut leaves).await?;
        }
        if !changed {
            return Ok(());
        }
        let leaves: Vec<EpochLeaf> = leaves.into_values().collect();
        let root = leaves::root(&leaves);
        let epoch = Epoch { index: over, root, leaves, created: self.control.now() };
        let epoch = self.control.store.epoch_put(&epoch).await?;
        self.post(&epoch).await?;
        self.control.wake.signal();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_domain::key::PublicKey;

    const AT: Address = PublicKey([1; 32]);

    /// One device from 1,000 to 2,000.
    fn lease() -> Lease {
        let mut lease = Lease::new();
        (lease.start, lease.cap_since, lease.end, lease.devices_live) = (1_000, 1_000, 2_000, 1);
        lease
    }

    fn released(at: i64) -> Lease {
        let mut lease = lease();
        (lease.devices_live, lease.cap_since, lease.released_at) = (0, at, at);
        lease.cap_base = (at - 1_000).cast_unsigned();
        lease
    }

    fn served(seconds: u64, over: bool) -> Served {
        Served { seconds_by_slot: BTreeMap::from([(0, seconds)]), carried: 0, over }
    }

    #[test]
    fn served_time_is_never_above_the_cap_nor_below_what_was_said() {
        let at = |lease: &Lease, seconds, last: Option<&EpochLeaf>| {
            leaf(AT, lease, &served(seconds, false), last, 1_100).unwrap().device_seconds
        };
        assert_eq!(at(&lease(), 60, None), 60);
        assert_eq!(at(&lease(), 600, None), 100, "the chain's cap");
        let before = leaf(AT, &lease(), &served(90, false), None, 1_095).unwrap();
        assert_eq!(at(&lease(), 88, Some(&before)), 90, "two seconds of memory were lost");
        let mut paid = lease();
        paid.device_seconds_paid = 91;
        assert_eq!(at(&paid, 88, Some(&before)), 91);
    }

    #[test]
    fn a_final_leaf_reaches_the_last_second() {
        let flags = |lease: &Lease, over, now| leaf(AT, lease, &served(9, over), None, now).unwrap().flags;
        assert_eq!(flags(&lease(), true, 1_050), 0, "it still runs");
        // The clock was read before the lease was released: the program would not close on it.
        assert_eq!(flags(&released(1_051), true, 1_050), 0);
        assert_eq!(flags(&released(1_051), true, 1_051), FLAG_FINAL);
        assert_eq!(flags(&released(2_500), true, 2_000), FLAG_FINAL, "it had ended before");
    }

    #[test]
    fn a_final_leaf_closes_no_lease_that_was_released_again_later() {
        let last = leaf(AT, &released(1_051), &served(9, true), None, 1_060).unwrap();
        assert!(closes(&last, &released(1_051)) && closes(&last, &released(1_060)));
        assert!(!closes(&last, &released(1_061)), "a fork took the release back, and it came again");
        assert!(!closes(&last, &lease()), "and here not yet");
        let before = leaf(AT, &released(1_051), &served(9, false), None, 1_060).unwrap();
        assert!(!closes(&before, &released(1_051)), "its pods were not over");
    }

    #[test]
    fn a_pod_that_never_stops_does_not_hold_up_its_lease() {
        let flags = |now| leaf(AT, &released(1_100), &served(9, false), None, now).unwrap().flags;
        assert_eq!(flags(1_129), 0);
        assert_eq!(flags(1_130), FLAG_FINAL);
    }
}
