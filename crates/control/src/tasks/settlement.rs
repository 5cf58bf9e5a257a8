//! Pays what was served, refunds the rest, closes the books, writes the receipt.
//!
//! Settling goes on while a job runs; closing follows its end: pods are stopped, leases released, each closed after its
//! final leaf, fees collected, the order closed. Every step looks at the chain first and is one transaction that the
//! program accepts once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atoll_domain::id::WorkerId;
use atoll_domain::job::{JobOutcome, JobState};
use atoll_domain::key::{Address, PublicKey};
use atoll_domain::lease::ReleaseReason;
use atoll_interface::layout::{LEASE_FINAL, Lease, Order};
use atoll_interface::merkle::FLAG_FINAL;
use atoll_interface::network::epoch_at;

use super::{Reconciler, for_each_job, pods};
use crate::app::chain::{self, Sent};
use crate::app::{job, kept, leaves, receipt, settled, taken};
use crate::control::Control;
use crate::store::rows::{Epoch, EpochLeaf, Job, JobNow, LeaseRecord, Pod};

/// How long pods are waited for after the command's end. A worker stops one in well under a second.
const STOP_MAX: Duration = Duration::from_secs(10);
/// How many epochs back a root that pays is looked for. On Solana a root is final some 13 s after its vote: three epochs of
/// the shortest length in use, 5 s.
const EPOCHS_BACK: usize = 8;
/// How long after the command's end a receipt waits, with everything paid, for extensions that are not known yet: what is
/// on its way becomes final within a quarter of it, and `history` has looked twice by then.
const EXTENSIONS_MAX: Duration = Duration::from_secs(60);

pub(super) struct Settlements {
    control: Arc<Control>,
}

impl Settlements {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control) }
    }

    async fn step(&self, mut found: Job) -> anyhow::Result<()> {
        let control = &self.control;
        if let Some(order) = chain::order(control, &found.order).await? {
            found = taken::note(control, found, &order).await?;
            let leases = chain::leases_under(control, &found.order, &order).await?;
            found = self.note_new(found, &order, &leases).await?;
            for (address, lease) in &leases {
                if has_moved(&found, address, lease) {
                    found = self.note(found, &order, (address, lease), None).await?;
                }
                found = self.settle(found, &order, address, lease).await?;
            }
            // Closing reads what settling wrote.
            for (address, lease) in chain::leases_under(control, &found.order, &order).await? {
                // A lease that never got a clock has nothing to attest.
                if lease.devices_live == 0 && (lease.flags & LEASE_FINAL != 0 || lease.start == 0) {
                    found = self.close_lease(found, &order, &address, &lease).await?;
                }
            }
        }
        if found.now.state == JobState::Settling { self.wind_up(found).await } else { Ok(()) }
    }

    /// Writes down every lease when it is first seen: once nothing is owed, anyone may close it, and the receipt must
    /// name it all the same.
    async fn note_new(&self, found: Job, order: &Order, leases: &[(Address, Lease)]) -> anyhow::Result<Job> {
        let is_new = |address: &Address| found.now.leases.iter().all(|known| known.lease != *address);
        let new: Vec<&(Address, Lease)> = leases.iter().filter(|(address, _)| is_new(address)).collect();
        if new.is_empty() {
            return Ok(found);
        }
        let live = chain::live_slots(&self.control, &found).await?;
        let pods = self.control.store.pods_of(found.id).await?;
        let mut records = Vec::new();
        for (address, lease) in new {
            let page = chain::page_of(&self.control, &PublicKey(lease.page)).await?.header;
            let leased = live.iter().filter(|slot| slot.lease == *address).map(|slot| (slot.at.slot, slot.worker));
            let served = pods.iter().filter(|pod| pod.lease == *address).map(|pod| (pod.at.slot, pod.worker));
            let slots: BTreeMap<u16, WorkerId> = leased.chain(served).collect();
            let mut record = LeaseRecord {
                lease: *address,
                n: lease.n,
                page: PublicKey(lease.page),
                page_no: page.page_no,
                supplier: PublicKey(page.supplier),
                workers: slots.values().copied().collect(),
                slots: slots.into_keys().collect(),
                refill: false,
                lost: false,
                mask: lease.mask,
                ask_uusd: lease.ask_uusd,
                rate: lease.rate,
                start: 0,
                end: 0,
                released_at: 0,
                device_seconds: 0,
                epoch: None,
            };
            bring_up(&mut record, order, lease, false);
            records.push(record);
        }
        let noted = job::change(&self.control, &found, |now| now.leases.extend(records)).await?;
        kept::put_leases(&self.control, &noted).await?;
        Ok(noted)
    }

    /// Brings a lease's record up to the present; with `leaf`, to where settling that leaf will bring it.
    async fn note(
        &self,
        found: Job,
        order: &Order,
        (address, lease): (&Address, &Lease),
        leaf: Option<(&Epoch, &EpochLeaf)>,
    ) -> anyhow::Result<Job> {
        let pods = self.control.store.pods_of(found.id).await?;
        let lost = pods.iter().any(|pod| pod.lease == *address && found.now.gone.contains(&pod.id));
        let changed = job::change(&self.control, &found, |now| {
            for record in now.leases.iter_mut().filter(|record| record.lease == *address) {
                bring_up(record, order, lease, lost);
                if let Some((epoch, leaf)) = leaf {
                    (record.device_seconds, record.epoch) = (leaf.device_seconds, Some(epoch.index));
                }
            }
        });
        // Also beside the store, before anybody can close the lease.
        let noted = changed.await?;
        kept::put_leases(&self.control, &noted).await?;
        Ok(noted)
    }

    /// Books the newest leaf of a lease whose root is out of its hold. What a last leaf says is written down first: with
    /// it booked, anyone may close the lease.
    async fn settle(&self, found: Job, order: &Order, address: &Address, lease: &Lease) -> anyhow::Result<Job> {
        // Once released only the last leaf is booked: on an earlier one that reaches as far, anyone could close the lease.
        let is_news = |leaf: &EpochLeaf| leaf.device_seconds > lease.device_seconds_paid && lease.devices_live > 0;
        let wanted = |leaf: &EpochLeaf| is_news(leaf) || is_last(leaf, lease);
        let Some(Payable { epoch, index, leaf, path }) = newest_that_pays(&self.control, address, wanted).await? else {
            return Ok(found);
        };
        let last = is_last(&leaf, lease);
        let found = if last { self.note(found, order, (address, lease), Some((&epoch, &leaf))).await? } else { found };
        if chain::settle(&self.control, &found, &epoch, index, &leaf, &path).await? == Sent::Confirmed {
            self.control.wake.signal();
        }
        Ok(found)
    }

    /// Writes down how the lease ended, then pays the supplier and closes it.
    async fn close_lease(&self, found: Job, order: &Order, address: &Address, lease: &Lease) -> anyhow::Result<Job> {
        let found = self.note(found, order, (address, lease), None).await?;
        if chain::close_lease(&self.control, &found, address, lease).await? == Sent::Confirmed {
            self.control.wake.signal();
        }
        Ok(found)
    }

    /// After the command's end: stop, release, collect, close, receipt.
    async fn wind_up(&self, found: Job) -> anyhow::Result<()> {
        let control = &self.control;
        kept::put_ended(control, &found).await?;
        let all = control.store.pods_of(found.id).await?;
        let live: Vec<&Pod> = all.iter().filter(|pod| !pod.state.is_over()).collect();
        if !live.is_empty() {
            pods::stop(control, &live, "the job has ended").await?;
            // What stops in time says what it served. What does not must not cost on.
            if control.now().since(found.now.since) < STOP_MAX {
                return Ok(());
            }
        }
        let Some((order, now)) = chain::order_now(control, &found.order).await? else {
            return if chain::order_is_closed(control, &found).await? { self.finish(&found).await } else { Ok(()) };
        };
        if order.devices_live > 0 {
            for slot in chain::live_slots(control, &found).await? {
                let lost = all
                    .iter()
                    .any(|pod| pod.lease == slot.lease && pod.at == slot.at && found.now.gone.contains(&pod.id));
                let reason = if lost { ReleaseReason::Lost } else { ReleaseReason::Done };
                if chain::release(control, &found, &slot, reason, now).await? == Sent::Confirmed {
                    control.wake.signal();
                }
            }
            return Ok(());
        }
        if order.leases_open > 0 {
            return Ok(());
        }
        self.close_order(&found, &order).await
    }

    async fn close_order(&self, found: &Job, order: &Order) -> anyhow::Result<()> {
        let noted = |now: &mut JobNow| (now.terms, now.extended_s) = (Some(chain::terms(order)), order.extended_s);
        let found = &job::change(&self.control, found, noted).await?;
        if order.fees > 0 && chain::collect_fees(&self.control, found, order).await? != Sent::Confirmed {
            return Ok(());
        }
        if chain::close_order(&self.control, found, order).await? == Sent::Confirmed {
            self.control.wake.signal();
        }
        Ok(())
    }

    /// The order is closed: everything is paid. Writes the receipt, then the final state.
    async fn finish(&self, found: &Job) -> anyhow::Result<()> {
        let waits = self.control.now().since(found.now.since) < EXTENSIONS_MAX;
        if taken::missing_s(&found.now) > 0 && waits || !settled::is_known(&self.control, found).await? {
            return Ok(());
        }
        receipt::write(&self.control, found).await?;
        self.control.store.devices_unreserve(found.id).await?;
        let outcome = found.now.outcome.unwrap_or(JobOutcome::Failed);
        job::change(&self.control, found, |now| now.state = outcome.into()).await?;
        Ok(())
    }
}

/// Whether a lease's times are other ones than were written down. Should another operator settle it, nothing else tells them.
fn has_moved(job: &Job, address: &Address, lease: &Lease) -> bool {
    let known = job.now.leases.iter().find(|known| known.lease == *address);
    known.is_some_and(|it| (it.start, it.end, it.released_at) != (lease.start, lease.end, lease.released_at))
}

/// Whether a leaf is the last of its lease, which does not have it yet.
pub(super) const fn is_last(leaf: &EpochLeaf, lease: &Lease) -> bool {
    leaf.flags & FLAG_FINAL != 0 && lease.flags & LEASE_FINAL == 0
}

/// A leaf whose root pays.
pub(super) struct Payable {
    pub(super) epoch: Epoch,
    pub(super) index: u32,
    pub(super) leaf: EpochLeaf,
    pub(super) path: Vec<[u8; 32]>,
}

/// The newest leaf of this lease whose root pays, as long as `wanted` picks those that are newer as well. Where hold or
/// finality are longer than an epoch, there is always a newer one whose root does not pay yet.
pub(super) async fn newest_that_pays(
    control: &Control,
    lease: &Address,
    wanted: impl Fn(&EpochLeaf) -> bool,
) -> anyhow::Result<Option<Payable>> {
    let Some(market) = control.market.snapshot() else { return Ok(None) };
    let facts = &market.network;
    let then = chain::time(control).await?.saturating_sub(i64::from(facts.epoch_hold_s));
    let mut over = epoch_at(then, facts.epoch_zero, facts.epoch_s);
    for _ in 0..EPOCHS_BACK {
        let Some(up_to) = over.and_then(|at| at.checked_sub(1)) else { return Ok(None) };
        let Some(epoch) = control.store.epoch_with_lease_up_to(lease, up_to).await? else { return Ok(None) };
        let Some((index, leaf, path)) = leaves::find(&epoch, lease).filter(|(_, leaf, _)| wanted(leaf)) else {
            return Ok(None);
        };
        if chain::epoch_pays(control, &epoch).await? {
            return Ok(Some(Payable { epoch, index, leaf, path }));
        }
        over = Some(epoch.index);
    }
    Ok(None)
}

/// What the chain says of a lease now. Slots and workers stay those it was made with.
const fn bring_up(record: &mut LeaseRecord, order: &Order, lease: &Lease, lost: bool) {
    record.refill = order.active_at != 0 && lease.start > order.active_at;
    // What ran to its end was not lost, whatever its pod said then.
    record.lost = lost && (lease.released_at == 0 || lease.released_at < lease.end);
    (record.start, record.end) = (lease.start, lease.end);
    record.released_at = lease.released_at;
    record.device_seconds = lease.device_seconds_paid;
}

impl Reconciler for Settlements {
    const NAME: &'static str = "settlements";
    const PERIOD: Duration = Duration::from_millis(500);

    async fn run(&mut self) -> anyhow::Result<()> {
        let wanted = |job: &Job| job.now.state > JobState::Ordering;
        for_each_job(&self.control, Self::NAME, wanted, |job| self.step(job)).await
    }
}
