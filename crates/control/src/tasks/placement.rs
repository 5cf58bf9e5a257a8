//! Gives lost slots back to their order, chooses workers for what is open, and fills.
//!
//! Choosing is `domain::placement`'s, deciding the chain's. A reservation in the store keeps this operator's own jobs
//! from racing for one device; a fill that loses against another operator drops the reservation and chooses again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atoll_domain::id::WorkerId;
use atoll_domain::job::{JobOutcome, JobSpec, JobState};
use atoll_domain::lease::ReleaseReason;
use atoll_domain::placement::{Plan, Problem, place};
use atoll_interface::layout::Order;

use super::{Reconciler, for_each_job};
use crate::app::chain::{self, Group, Sent};
use crate::app::{candidates, job};
use crate::control::Control;
use crate::store::StoreError;
use crate::store::rows::{Job, Pod, Reservation};

/// How long devices stay reserved for a fill that is on its way: the solvers' window on the chain.
const RESERVED_FOR: Duration = Duration::from_secs(30);

pub(super) struct Placements {
    control: Arc<Control>,
}

impl Placements {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control) }
    }

    async fn step(&self, found: Job) -> anyhow::Result<()> {
        let Some((order, now)) = chain::order_now(&self.control, &found.order).await? else {
            return self.gone(&found).await;
        };
        let pods = self.control.store.pods_of(found.id).await?;
        self.release_gone(&found, &order, &pods, now).await?;
        if order.has_failed(now) {
            let reason = format!("no workers were found in time: {}", found.now.reason);
            job::end(&self.control, &found, JobOutcome::Failed, &reason).await?;
            return Ok(());
        }
        if order.active_at != 0 && found.now.state == JobState::Placing {
            self.control.store.devices_unreserve(found.id).await?;
            job::change(&self.control, &found, |now| {
                now.terms = Some(chain::terms(&order));
                now.state = JobState::Starting;
                now.reason = String::new();
                now.refusals.clear();
            })
            .await?;
            return Ok(());
        }
        if order.is_over(now) && found.now.state != JobState::Placing {
            job::end(&self.control, &found, JobOutcome::Failed, "its lease ended before its command did").await?;
            return Ok(());
        }
        if order.devices_open == 0 || found.now.stop_wanted {
            return Ok(());
        }
        let spec = job::spec_of(&found)?;
        self.fill(&found, &spec, &order, &pods).await
    }

    /// An order without leases may be closed by its renter at any time: then there is nothing left to do but to say so.
    /// One that a fork took back is as if it had never been sent.
    async fn gone(&self, job: &Job) -> anyhow::Result<()> {
        let control = &self.control;
        if !chain::order_is_closed(control, job).await? {
            return Ok(());
        }
        let sent = chain::send_renters(control, job).await?.sent;
        // Of an order that has had leases for long, a node of the chain may have forgotten how it was posted.
        if sent == Sent::Confirmed || (sent != Sent::Waiting && !job.now.leases.is_empty()) {
            let reason = if job.now.leases.is_empty() {
                "its order was closed, and what it held refunded"
            } else {
                "its order was over and was settled while its operator was away: how its command ended is not known"
            };
            job::end(control, job, JobOutcome::Failed, reason).await?;
            return Ok(());
        }
        tracing::warn!(job = %job.id, order = %job.order, "a fork took the order back; it is sent again");
        control.store.devices_unreserve(job.id).await?;
        job::change(control, job, |now| {
            now.terms = None;
            now.state = JobState::Ordering;
            now.reason = "a fork of the chain took its order back; it is sent again".into();
        })
        .await?;
        Ok(())
    }

    /// Slots whose pod is gone go back to the order, so that they cost nothing and can be filled again.
    async fn release_gone(&self, job: &Job, order: &Order, pods: &[Pod], now: i64) -> anyhow::Result<()> {
        let gone: Vec<&Pod> = pods.iter().filter(|pod| job.now.gone.contains(&pod.id)).collect();
        if gone.is_empty() || order.devices_live == 0 {
            return Ok(());
        }
        for slot in chain::live_slots(&self.control, job).await? {
            if gone.iter().any(|pod| pod.lease == slot.lease && pod.at == slot.at) {
                if chain::release(&self.control, job, &slot, ReleaseReason::Lost, now).await? != Sent::Confirmed {
                    continue;
                }
                let message = format!("lease of {} released at its last served second", slot.worker);
                let fields = [("worker", slot.worker.to_string()), ("lease", slot.lease.to_string())];
                let told = job::event(self.control.now(), "chain", message, &fields);
                self.control.store.events_add(job.id, &[told]).await?;
                self.control.wake.signal();
            }
        }
        Ok(())
    }

    async fn fill(&self, job: &Job, spec: &JobSpec, order: &Order, pods: &[Pod]) -> anyhow::Result<()> {
        let Some(market) = self.control.market.snapshot() else { return Ok(()) };
        match chain::fill_under_way(&self.control, job, order).await? {
            // It took these devices or will: the order tells in the next run.
            Some(Sent::Confirmed) => {
                self.control.wake.signal();
                return Ok(());
            }
            Some(Sent::Waiting) => return Ok(()),
            Some(Sent::Failed(_) | Sent::Expired) | None => {}
        }
        // Nothing of this job is under way, so what it had reserved is free for its own new choice too.
        self.control.store.devices_unreserve(job.id).await?;
        let problem = Problem {
            model: spec.model.clone(),
            devices: order.devices_open,
            price_max: atoll_domain::money::UsdMicrosPerHour(order.price_cap_uusd),
            pack: spec.pack.clone(),
            excluded: self.serving(job, pods).await?,
            setbacks: job.now.setbacks.clone(),
            strangers: self.control.config.strangers,
            now: self.control.now(),
        };
        let view = candidates::view(&self.control, &market).await?;
        let plan = place(&problem, &view, &Plan::default());
        if plan.placed.is_empty() {
            return self.nobody(job, &plan, problem.devices).await;
        }
        let until = self.control.now().after(RESERVED_FOR);
        let reserve =
            |p: &atoll_domain::placement::Placed| Reservation { job: job.id, worker: p.worker, mask: p.mask, until };
        let reservations: Vec<Reservation> = plan.placed.iter().map(reserve).collect();
        match self.control.store.devices_reserve(&reservations, self.control.now()).await {
            Ok(()) => {}
            Err(StoreError::Conflict { .. }) => {
                self.control.wake.signal();
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        for group in chain::groups(&market, &plan) {
            // Each fill takes the order's next lease number, which stands only when the one before has landed.
            if !self.fill_group(job, &group).await? {
                break;
            }
        }
        Ok(())
    }

    /// Workers that have a pod of the job, or hold a lease for one. Who lost one may be taken again.
    async fn serving(&self, job: &Job, pods: &[Pod]) -> anyhow::Result<BTreeSet<WorkerId>> {
        let leased = chain::live_slots(&self.control, job).await?.into_iter().map(|slot| slot.worker);
        let running = pods.iter().filter(|pod| !pod.state.is_over()).map(|pod| pod.worker);
        Ok(leased.chain(running).collect())
    }

    /// Fills one group; true when it is leased.
    async fn fill_group(&self, job: &Job, group: &Group) -> anyhow::Result<bool> {
        match chain::fill(&self.control, job, group).await? {
            Sent::Confirmed => {
                let message = format!("leased {} device(s) of {}", group.devices(), group.workers_in_words());
                let told = job::event(self.control.now(), "chain", message, &[]);
                self.control.store.events_add(job.id, &[told]).await?;
                self.control.wake.signal();
                Ok(true)
            }
            Sent::Failed(reason) => {
                tracing::info!(job = %job.id, reason, "a fill lost; choosing again");
                self.control.store.devices_unreserve(job.id).await?;
                Ok(false)
            }
            Sent::Waiting | Sent::Expired => Ok(false),
        }
    }

    /// Says why nobody serves the order, once per change.
    async fn nobody(&self, job: &Job, plan: &Plan, wanted: u32) -> anyhow::Result<()> {
        let reason = format!("waiting for {wanted} free device(s); {} fit now", plan.devices_free);
        let refusals: BTreeMap<WorkerId, String> =
            plan.refusals.iter().map(|(worker, refusal)| (*worker, refusal.to_string())).collect();
        if job.now.reason != reason || job.now.refusals != refusals {
            job::change(&self.control, job, |now| {
                now.reason = reason;
                now.refusals = refusals;
            })
            .await?;
        }
        Ok(())
    }
}

impl Reconciler for Placements {
    const NAME: &'static str = "placements";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn run(&mut self) -> anyhow::Result<()> {
        let wanted = |job: &Job| {
            matches!(job.now.state, JobState::Placing | JobState::Starting | JobState::Running | JobState::Recovering)
        };
        for_each_job(&self.control, Self::NAME, wanted, |job| self.step(job)).await
    }
}
