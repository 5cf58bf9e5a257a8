//! Finds what the store has forgotten, and has it taken up again (`app::adopt`).
//!
//! At its start a node first looks whether its store is older than the operator's notes: epochs that were attested, jobs
//! that had begun more than their rows say. Until that is done nothing else acts. Then, again and again: orders on the
//! chain that are this operator's and that no job of the store has, pods under its orders that no job of the store has.
//! Two nodes that find the same thing write the same row once; the other one reads what stands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atoll_domain::job::{JobOutcome, JobState};
use atoll_domain::key::Address;
use atoll_domain::time::UnixMs;
use atoll_interface::layout::Order;

use super::{Reconciler, is_conflict};
use crate::app::adopt::{self, Known};
use crate::app::chain::{self, LiveSlot};
use crate::app::job;
use crate::app::kept::{self, KeptOrder};
use crate::control::Control;
use crate::objects::ObjectError;
use crate::store::rows::{Job, JobNow};

/// How often notes are looked through for jobs whose orders are not on the chain.
const NOTES_PERIOD: Duration = Duration::from_secs(600);
/// How often the chain's orders are looked through, however many signals come.
const SCAN_PERIOD: Duration = Duration::from_secs(2);
/// How long an order that has no record here is not asked for again.
const FOREIGN_FOR: Duration = Duration::from_secs(60);

pub(super) struct Adoptions {
    control: Arc<Control>,
    /// When notes were last looked through; never since this node's start.
    looked: Option<UnixMs>,
    /// When the chain's orders were last looked through.
    scanned: Option<UnixMs>,
    /// Orders without a record here, and when that was seen: only to ask less often.
    foreign: BTreeMap<Address, UnixMs>,
}

impl Adoptions {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control), looked: None, scanned: None, foreign: BTreeMap::new() }
    }

    /// Brings the store up to the operator's notes. Needs no chain. That epochs are missing is what tells that every row is
    /// old, and so they come last: whoever is killed before finds them missing again, and of two nodes the one that loses a
    /// race looks again from the start.
    async fn catch_up(&self) -> anyhow::Result<()> {
        let control = &self.control;
        let latest = control.store.epoch_latest().await?.map(|epoch| epoch.index);
        let missed = kept::epochs_after(control, latest).await?;
        let behind = !missed.is_empty();
        if behind {
            tracing::warn!(epochs = missed.len(), "the store is older than what was attested; it is brought up");
        }
        for job in control.store.jobs_open().await? {
            let notes = match kept::order(control, &job.order).await {
                Ok(notes) => notes,
                Err(ObjectError::Corrupt(why)) => {
                    tracing::error!(job = %job.id, why, "what is kept of a job cannot be believed");
                    None
                }
                // What cannot be read now may say that the row is old.
                Err(error) => return Err(error.into()),
            };
            self.bring_up(&job, notes.as_ref(), behind).await?;
        }
        for epoch in &missed {
            control.store.epoch_put(epoch).await?;
        }
        Ok(())
    }

    async fn bring_up(&self, job: &Job, notes: Option<&KeptOrder>, behind: bool) -> anyhow::Result<()> {
        let control = &self.control;
        let is_old = behind || notes.is_some_and(|notes| adopt::is_behind(&job.now, notes));
        // It needs no adoption, and may have come while the job was adopted.
        if let Some(notes) = notes
            && (!is_old || job.now.adopting.is_some())
            && adopt::wants_stop(&job.now, notes)
        {
            job::change(control, job, |row| row.stop_wanted = true).await?;
            return Ok(());
        }
        if job.now.adopting.is_some() || !is_old {
            return Ok(());
        }
        let receipt = notes.and_then(|notes| notes.receipt.as_ref());
        if let Some(receipt) = receipt {
            let digest = atoll_domain::key::Digest::of(receipt.as_bytes());
            control.store.receipt_put(job.id, &digest, receipt).await?;
        }
        let now = control.now();
        let changed = job::change(control, job, |row| {
            if let Some(notes) = notes {
                adopt::apply_notes(row, notes);
            }
            row.adopting = Some(now);
            if receipt.is_some() {
                row.state = row.outcome.unwrap_or(JobOutcome::Failed).into();
                row.adopting = None;
            }
        })
        .await?;
        tracing::warn!(job = %job.id, from = %job.now.state, to = %changed.now.state, "a job's row was old");
        Ok(())
    }

    /// Jobs that the store does not know: by their orders, and by their notes.
    async fn find(&mut self) -> anyhow::Result<()> {
        let now = self.control.now();
        if self.scanned.is_some_and(|scanned| now.since(scanned) < SCAN_PERIOD) {
            return Ok(());
        }
        let orders: BTreeMap<Address, Order> = chain::orders(&self.control).await?.0.into_iter().collect();
        self.find_orders(&orders).await?;
        self.find_notes().await?;
        self.scanned = Some(now);
        Ok(())
    }

    /// Orders of this operator that the store does not know.
    async fn find_orders(&mut self, orders: &BTreeMap<Address, Order>) -> anyhow::Result<()> {
        let control = Arc::clone(&self.control);
        let now = control.now();
        self.foreign.retain(|order, seen| orders.contains_key(order) && now.since(*seen) < FOREIGN_FOR);
        for order in orders.keys() {
            if self.foreign.contains_key(order) || control.store.job_by_order(order).await?.is_some() {
                continue;
            }
            match adopt::by_order(&control, order).await {
                Ok(Some(_)) => {}
                Ok(None) => drop(self.foreign.insert(*order, now)),
                Err(error) => {
                    tracing::error!(%order, error = format!("{error:#}"), "an order of this operator cannot be taken up");
                    self.foreign.insert(*order, now);
                }
            }
        }
        Ok(())
    }

    /// Jobs whose orders are not on the chain: not posted yet, or closed already.
    async fn find_notes(&mut self) -> anyhow::Result<()> {
        let control = &self.control;
        let now = control.now();
        if self.looked.is_some_and(|looked| now.since(looked) < NOTES_PERIOD) {
            return Ok(());
        }
        for order in kept::orders(control).await? {
            if control.store.job_by_order(&order).await?.is_none()
                && let Err(error) = adopt::by_order(control, &order).await
            {
                tracing::error!(%order, error = format!("{error:#}"), "a kept job cannot be taken up");
            }
        }
        self.looked = Some(now);
        Ok(())
    }

    /// One job: what the chain says of its order decides first, then what workers report.
    async fn step(&self, found: Job) -> anyhow::Result<()> {
        let Some(since) = found.now.adopting else { return self.strays_of_known(&found).await };
        let control = &self.control;
        let Some((order, now)) = chain::order_now(control, &found.order).await? else {
            return self.without_order(&found).await;
        };
        let settles = found.now.state == JobState::Settling;
        if order.active_at == 0 && !settles {
            return self
                .go_on(&found, |row| {
                    row.terms = Some(chain::terms(&order));
                    row.state = JobState::Placing;
                    row.reason = String::new();
                })
                .await;
        }
        if order.is_stopped() || order.is_over(now) || settles {
            let outcome = found.now.outcome.unwrap_or(JobOutcome::Failed);
            if !settles {
                let reason = "it ended while the operator's store was lost: how is not known";
                job::end(control, &found, outcome, reason).await?;
                return Ok(());
            }
        }
        if found.now.terms.is_none_or(|terms| terms.active_at == 0) {
            job::change(control, &found, |row| row.terms = Some(chain::terms(&order))).await?;
            return Ok(());
        }
        let slots = chain::live_slots(control, &found).await?;
        self.decide(&found, since, &slots).await
    }

    async fn decide(&self, found: &Job, since: UnixMs, slots: &[LiveSlot]) -> anyhow::Result<()> {
        let control = &self.control;
        let pods = control.store.pods_of(found.id).await?;
        let strays = self.strays_of(found).await?;
        let known = Known {
            now: control.now(),
            since,
            devices: job::spec_of(found)?.devices,
            job: &found.now,
            slots,
            pods: &pods,
            strays: &strays,
        };
        let decision = adopt::decide(&known);
        adopt::carry_out(control, found, &known, &decision).await
    }

    /// Strays of a job that its own pods are not among.
    async fn strays_of(&self, job: &Job) -> anyhow::Result<Vec<crate::store::rows::Stray>> {
        let mut strays = Vec::new();
        for stray in self.control.store.strays_of(&job.order).await? {
            if self.control.store.pod(stray.id).await?.is_none() {
                let observation = self.control.links.observed(stray.id, stray.observation);
                strays.push(crate::store::rows::Stray { observation, ..stray });
            }
        }
        Ok(strays)
    }

    /// A pod that a worker runs for a job of ours, and the store does not have: the store is older than the pod.
    async fn strays_of_known(&self, found: &Job) -> anyhow::Result<()> {
        if found.now.state < JobState::Placing || found.now.state.is_final() {
            return Ok(());
        }
        let strays = self.strays_of(found).await?;
        if strays.is_empty() {
            return Ok(());
        }
        let pods = self.control.store.pods_of(found.id).await?;
        let current = job::current(found, &pods);
        let mut open: Vec<LiveSlot> = chain::live_slots(&self.control, found).await?;
        open.retain(|slot| !current.iter().any(|pod| pod.lease == slot.lease && pod.at == slot.at));
        let news = strays.iter().any(|stray| {
            let serves = |slot: &LiveSlot| slot.lease == stray.lease && slot.at == stray.at;
            !stray.state.is_over() && stray.fence == found.now.fence && open.iter().any(serves)
        });
        if news {
            let now = self.control.now();
            tracing::warn!(job = %found.id, strays = strays.len(), "pods of this job run that the store does not have");
            job::change(&self.control, found, |row| row.adopting = Some(now)).await?;
        }
        Ok(())
    }

    /// No order on the chain: it was never posted, or it is closed for good.
    async fn without_order(&self, found: &Job) -> anyhow::Result<()> {
        let control = &self.control;
        if chain::order_is_closed(control, found).await? {
            if found.now.terms.is_none() {
                let reason = "its order was closed while the operator's store was lost; what it held was refunded";
                let at = control.now();
                return self
                    .go_on(found, |row| {
                        row.state = JobState::Failed;
                        row.outcome = Some(JobOutcome::Failed);
                        row.reason = reason.into();
                        row.ended = Some(at);
                    })
                    .await;
            }
            let at = control.now();
            return self
                .go_on(found, |row| {
                    row.state = JobState::Settling;
                    row.outcome = row.outcome.or(Some(JobOutcome::Failed));
                    row.ended = row.ended.or(Some(at));
                })
                .await;
        }
        if chain::renters_show(control, found).await? {
            // It was posted a moment ago: it shows soon, or is missing in a final state.
            return Ok(());
        }
        // As far as anybody knows it is on its way: `order` sends it again, which the chain takes once.
        self.go_on(found, |_| {}).await
    }

    async fn go_on(&self, found: &Job, edit: impl FnOnce(&mut JobNow)) -> anyhow::Result<()> {
        job::change(&self.control, found, |row| {
            edit(row);
            row.adopting = None;
        })
        .await?;
        Ok(())
    }
}

impl Reconciler for Adoptions {
    const NAME: &'static str = "adoptions";
    const PERIOD: Duration = Duration::from_secs(1);
    const FIRST: bool = true;
    /// Catching up needs no chain; the rest waits for it.
    const ON_CHAIN: bool = false;

    async fn run(&mut self) -> anyhow::Result<()> {
        if !self.control.caught_up.is_set() {
            match self.catch_up().await {
                Ok(()) => self.control.caught_up.set(),
                Err(error) if is_conflict(&error) => {
                    self.control.wake.signal();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        if self.control.market.snapshot().is_none() {
            return Ok(());
        }
        if self.control.links.is_home(Self::NAME) {
            self.find().await?;
        }
        for job in self.control.store.jobs_open().await? {
            let id = job.id;
            if !self.control.links.is_home(id) {
                continue;
            }
            match self.step(job).await {
                Ok(()) => {}
                Err(error) if is_conflict(&error) => self.control.wake.signal(),
                Err(error) => {
                    tracing::warn!(job = %id, error = format!("{error:#}"), "an adoption failed; the next run retries");
                }
            }
        }
        Ok(())
    }
}
