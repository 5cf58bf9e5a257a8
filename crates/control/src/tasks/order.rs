//! Brings a job's order to the chain: sends the renter's signed transaction and waits until the order stands.
//!
//! The server cannot change the transaction. It lands once, or its blockhash expires and nothing was charged. Whoever has
//! the bytes may bring them there, so no node's word ends a job here, only the chain's final state.

use std::sync::Arc;
use std::time::Duration;

use atoll_domain::job::{JobState, SignedSpec};
use atoll_interface::layout::Order;

use super::{Reconciler, for_each_job};
use crate::app::chain::{self, Sent};
use crate::app::{adopt, job};
use crate::control::Control;
use crate::store::rows::Job;

pub(super) struct Orders {
    control: Arc<Control>,
}

impl Orders {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control) }
    }

    async fn step(&self, found: Job) -> anyhow::Result<()> {
        if let Some(order) = chain::order(&self.control, &found.order).await? {
            chain::renters_landed(&self.control, &found).await?;
            if !is_for(&order, &found)? {
                let reason = "another order of its renter stands at its address, which nobody fills: close it";
                return self.over(&found, reason.to_owned()).await;
            }
            // Written down at once: anyone may close an order that is over, and the receipt needs them then.
            job::change(&self.control, &found, |now| {
                now.terms = Some(chain::terms(&order));
                now.state = JobState::Placing;
                now.reason = String::new();
            })
            .await?;
            return Ok(());
        }
        // Before money moves: what would be needed to run the job if the store were lost.
        adopt::keep(&self.control, &found).await?;
        let standing = chain::send_renters(&self.control, &found).await?;
        match standing.sent {
            // Its renter may close it at any time, also before it was ever seen here.
            Sent::Confirmed if chain::order_is_closed(&self.control, &found).await? => {
                self.over(&found, "its order was closed before it was filled, and what it held refunded".into()).await
            }
            // The next run sees the order, or asks again.
            Sent::Confirmed | Sent::Waiting => self.waits(&found, standing.said).await,
            Sent::Failed(reason) => self.never_posted(&found, &reason).await,
            Sent::Expired => self.never_posted(&found, "its transaction expired before the chain took it").await,
        }
    }

    /// What the chain's node has against the transaction now is told and not believed.
    async fn waits(&self, found: &Job, said: Option<String>) -> anyhow::Result<()> {
        let Some(said) = said else { return Ok(()) };
        let reason =
            format!("the chain's node does not take its order now: {said}; it is sent until it can land no more");
        job::change(&self.control, found, |job| job.reason = reason).await?;
        Ok(())
    }

    async fn never_posted(&self, found: &Job, reason: &str) -> anyhow::Result<()> {
        self.over(found, format!("its order was not posted: {reason}; nothing was charged, submit it again")).await
    }

    async fn over(&self, found: &Job, reason: String) -> anyhow::Result<()> {
        let now = self.control.now();
        job::change(&self.control, found, |job| {
            job.state = JobState::Failed;
            job.outcome = Some(atoll_domain::job::JobOutcome::Failed);
            job.reason = reason;
            job.ended = Some(now);
        })
        .await?;
        Ok(())
    }
}

/// Whether an order is the one that a job was accepted with. Its renter alone could have put another one there.
fn is_for(order: &Order, job: &Job) -> anyhow::Result<bool> {
    let spec = job::spec_of(job)?;
    let root = SignedSpec { bytes: job.spec.clone(), signature: job.spec_signature }.root();
    let devices = (order.devices, order.devices_min) == (spec.devices, spec.devices);
    let ordered_s = order.duration_s.checked_sub(order.extended_s).map(u64::from);
    Ok(order.spec_root == root.0 && devices && ordered_s == Some(spec.seconds_max))
}

impl Reconciler for Orders {
    const NAME: &'static str = "orders";
    const PERIOD: Duration = Duration::from_millis(500);

    async fn run(&mut self) -> anyhow::Result<()> {
        for_each_job(&self.control, Self::NAME, |job| job.now.state == JobState::Ordering, |job| self.step(job)).await
    }
}
