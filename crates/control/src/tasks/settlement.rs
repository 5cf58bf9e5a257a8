//! Pays what was served, refunds the rest, closes the books, writes the receipt.
//!
//! Settling goes on while a job runs; closing follows its end: pods are stopped, leases released, each closed after its
//! final leaf, fees collected, the order closed. Every step looks at the chain first and is one transaction that the
//! program accepts once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use atoll_domain::id::WorkerId;
use atoll_domain::job::{JobOutcome, JobState};
use atoll_domain::key::{Address, PublicKey};
use atoll_domain::lease::ReleaseReason;
use atoll_interface::layout::{LEASE_FINAL, Lease, Order};
use atoll_interface::merkle::FLAG_FINAL;

use super::{Reconciler, for_each_job, pods};
use crate::app::{chain, job, leaves, receipt};
use crate::control::Control;
use crate::store::rows::{Job, LeaseRecord, Pod};

pub(super) struct Settlements {
    control: Arc<Control>,
}

impl Settlements {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control) }
    }

    async fn step(&self, found: Job) -> anyhow::Result<()> {
        let control = &self.control;
        for (address, lease) in chain::leases(control, &found.order).await? {
            self.settle(&found, &address, &lease).await?;
        }
        // Closing reads what settling wrote.
        let mut found = found;
        if let Some(order) = chain::order(control, &found.order).await? {
            for (address, lease) in chain::leases(control, &found.order).await? {
                // A lease that never got a clock has nothing to attest.
                if lease.devices_live == 0 && (lease.flags & LEASE_FINAL != 0 || lease.start == 0) {
                    found = self.close_lease(&found, &order, &address, &lease).await?;
                }
            }
        }
        if found.now.state == JobState::Settling { self.wind_up(found).await } else { Ok(()) }
    }

    /// Books the newest leaf of a lease, once its root is out of its hold.
    async fn settle(&self, job: &Job, address: &Address, lease: &Lease) -> anyhow::Result<()> {
        let Some(epoch) = self.control.store.epoch_with_lease(address).await? else { return Ok(()) };
        let Some((index, leaf, path)) = leaves::find(&epoch, address) else { return Ok(()) };
        let news = leaf.device_seconds > lease.device_seconds_paid;
        let last = leaf.flags & FLAG_FINAL != 0 && lease.flags & LEASE_FINAL == 0;
        if (news || last) && chain::epoch_pays(&self.control, &epoch).await? {
            chain::settle(&self.control, job, &epoch, index, &leaf, &path).await?;
        }
        Ok(())
    }

    /// Writes down what the receipt needs, then pays the supplier and closes the lease.
    async fn close_lease(&self, found: &Job, order: &Order, address: &Address, lease: &Lease) -> anyhow::Result<Job> {
        let record = self.record(found, order, address, lease).await?;
        let changed = if found.now.leases.iter().any(|known| known.lease == *address) {
            found.clone()
        } else {
            job::change(&self.control, found, |now| now.leases.push(record)).await?
        };
        chain::close_lease(&self.control, &changed, address, lease).await?;
        self.control.wake.signal();
        Ok(changed)
    }

    async fn record(&self, job: &Job, order: &Order, address: &Address, lease: &Lease) -> anyhow::Result<LeaseRecord> {
        let pods = self.control.store.pods_of(job.id).await?;
        let pods: Vec<&Pod> = pods.iter().filter(|pod| pod.lease == *address).collect();
        let epoch = self.control.store.epoch_with_lease(address).await?;
        let page = chain::page(&self.control, &lease.page).await?;
        let slots: BTreeSet<u16> = pods.iter().map(|pod| pod.at.slot).collect();
        let workers: BTreeSet<WorkerId> = pods.iter().map(|pod| pod.worker).collect();
        Ok(LeaseRecord {
            lease: *address,
            n: lease.n,
            page: PublicKey(lease.page),
            page_no: page.page_no,
            supplier: PublicKey(page.supplier),
            workers: workers.into_iter().collect(),
            refill: lease.start > order.active_at,
            lost: pods.iter().any(|pod| job.now.gone.contains(&pod.id)),
            slots: slots.into_iter().collect(),
            mask: lease.mask,
            ask_uusd: lease.ask_uusd,
            rate: lease.rate,
            start: lease.start,
            end: lease.end,
            released_at: lease.released_at,
            device_seconds: lease.device_seconds_paid,
            epoch: epoch.map(|epoch| epoch.index),
        })
    }

    /// After the command's end: stop, release, collect, close, receipt.
    async fn wind_up(&self, found: Job) -> anyhow::Result<()> {
        let control = &self.control;
        let all = control.store.pods_of(found.id).await?;
        let live: Vec<&Pod> = all.iter().filter(|pod| !pod.state.is_over()).collect();
        if !live.is_empty() {
            return pods::stop(control, &live, "the job has ended").await;
        }
        let Some(order) = chain::order(control, &found.order).await? else { return self.finish(&found).await };
        if order.devices_live > 0 {
            for slot in chain::live_slots(control, &found).await? {
                let lost = all
                    .iter()
                    .any(|pod| pod.lease == slot.lease && pod.at == slot.at && found.now.gone.contains(&pod.id));
                let reason = if lost { ReleaseReason::Lost } else { ReleaseReason::Done };
                chain::release(control, &found, &slot, reason).await?;
            }
            control.wake.signal();
            return Ok(());
        }
        if order.leases_open > 0 {
            return Ok(());
        }
        self.close_order(&found, &order).await
    }

    async fn close_order(&self, found: &Job, order: &Order) -> anyhow::Result<()> {
        let found = &job::change(&self.control, found, |now| now.terms = Some(chain::terms(order))).await?;
        if order.fees > 0 {
            chain::collect_fees(&self.control, found).await?;
        }
        chain::close_order(&self.control, found, order).await?;
        self.control.wake.signal();
        Ok(())
    }

    /// The order is closed: everything is paid. Writes the receipt, then the final state.
    async fn finish(&self, found: &Job) -> anyhow::Result<()> {
        receipt::write(&self.control, found).await?;
        self.control.store.devices_unreserve(found.id).await?;
        let outcome = found.now.outcome.unwrap_or(JobOutcome::Failed);
        job::change(&self.control, found, |now| now.state = outcome.into()).await?;
        Ok(())
    }
}

impl Reconciler for Settlements {
    const NAME: &'static str = "settlements";
    const PERIOD: Duration = Duration::from_millis(500);

    async fn run(&mut self) -> anyhow::Result<()> {
        let wanted = |job: &Job| job.now.state > JobState::Placing;
        for_each_job(&self.control, Self::NAME, wanted, |job| self.step(job)).await
    }
}
