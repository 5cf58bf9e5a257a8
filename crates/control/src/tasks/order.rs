//! Brings a job's order to the chain: sends the renter's signed transaction and waits until the order stands.
//!
//! The server cannot change the transaction. It lands once, or its blockhash expires and nothing was charged.

use std::sync::Arc;
use std::time::Duration;

use atoll_domain::job::JobState;

use super::{Reconciler, for_each_job};
use crate::app::chain::{self, Sent};
use crate::app::job;
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
        if chain::order(&self.control, &found.order).await?.is_some() {
            job::change(&self.control, &found, |now| {
                now.state = JobState::Placing;
                now.reason = String::new();
            })
            .await?;
            return Ok(());
        }
        match chain::send_renters(&self.control, &found).await? {
            // The next run sees the order, or asks again.
            Sent::Confirmed | Sent::Waiting => Ok(()),
            Sent::Failed(reason) => self.never_posted(&found, &reason).await,
            Sent::Expired => self.never_posted(&found, "its transaction expired before the chain took it").await,
        }
    }

    async fn never_posted(&self, found: &Job, reason: &str) -> anyhow::Result<()> {
        let now = self.control.now();
        job::change(&self.control, found, |job| {
            job.state = JobState::Failed;
            job.outcome = Some(atoll_domain::job::JobOutcome::Failed);
            job.reason = format!("its order was not posted: {reason}; nothing was charged, submit it again");
            job.ended = Some(now);
        })
        .await?;
        Ok(())
    }
}

impl Reconciler for Orders {
    const NAME: &'static str = "orders";
    const PERIOD: Duration = Duration::from_millis(500);

    async fn run(&mut self) -> anyhow::Result<()> {
        for_each_job(&self.control, Self::NAME, |job| job.now.state == JobState::Ordering, |job| self.step(job)).await
    }
}
