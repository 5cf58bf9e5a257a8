//! Lengthens what renters lengthened: sends their transactions, then moves each lease's end to its order's.
//!
//! An order says by itself that it was lengthened, so whoever brought that to the chain, its leases follow. An order that is
//! nobody's here is followed too: at once when it was lengthened through this operator, and shortly before a lease ends when
//! its own operator has not done it by then (`orphan` looks). A lease that cannot go along (its worker asks more by now,
//! drains, is suspended) ends as it would have; `placement` then fills its devices again.

use std::sync::Arc;
use std::time::Duration;

use atoll_domain::job::JobState;
use atoll_domain::key::Address;
use atoll_interface::layout::Order;

use super::{Reconciler, for_each_job, orphan};
use crate::app::chain::{self, For};
use crate::app::extension;
use crate::control::Control;
use crate::store::rows::Job;

/// How long before a lease's end another operator's order is lengthened in its place.
const LAST_MINUTE_S: i64 = 60;

pub(super) struct Extensions {
    control: Arc<Control>,
}

impl Extensions {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control) }
    }

    /// Brings renters' transactions to the chain.
    async fn send(&self) -> anyhow::Result<()> {
        let control = &self.control;
        for row in control.store.chain_txs_pending().await?.into_iter().filter(chain::is_extension) {
            let home = row.job.map_or_else(|| control.links.is_home(Self::NAME), |job| control.links.is_home(job));
            if home {
                let sent = chain::send_extension(control, &row, false).await?;
                extension::tell(control, &row, &sent).await?;
            }
        }
        Ok(())
    }

    async fn step(&self, found: Job) -> anyhow::Result<()> {
        let control = &self.control;
        let Some(order) = chain::order(control, &found.order).await? else { return Ok(()) };
        if order.extended_s == 0 && found.now.left_behind.is_empty() {
            return Ok(());
        }
        let behind = extension::follow(control, For::from(&found), &order).await?;
        extension::leave_behind(control, &found, behind).await
    }

    /// Orders that are nobody's here and were lengthened through this node, until all their leases that can have followed.
    async fn follow_relayed(&self) -> anyhow::Result<()> {
        let control = &self.control;
        for address in control.relayed.all() {
            let Some(order) = chain::order(control, &address).await? else {
                control.relayed.remove(&address);
                continue;
            };
            let now = chain::time(control).await?;
            extension::follow(control, For::from(address), &order).await?;
            let left = chain::shorter_leases(control, &address, &order, now).await?;
            if order.extended_s > 0 && left.iter().all(|lease| lease.goes_along.is_err()) {
                control.relayed.remove(&address);
            }
        }
        Ok(())
    }
}

/// Lengthens the leases of an order that is nobody's here, if one of them is about to end.
///
/// # Errors
/// When store or chain fail.
pub(super) async fn in_the_last_minute(
    control: &Control,
    address: &Address,
    order: &Order,
    now: i64,
) -> anyhow::Result<()> {
    if order.extended_s == 0 || !orphan::is_nobodys(control, address).await? {
        return Ok(());
    }
    let near = |end: i64| end - now <= LAST_MINUTE_S;
    let shorter = chain::shorter_leases(control, address, order, now).await?;
    if shorter.iter().any(|lease| near(lease.lease.end)) {
        extension::follow(control, For::from(*address), order).await?;
    }
    Ok(())
}

impl Reconciler for Extensions {
    const NAME: &'static str = "extensions";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn run(&mut self) -> anyhow::Result<()> {
        self.send().await?;
        self.follow_relayed().await?;
        let wanted = |job: &Job| matches!(job.now.state, JobState::Starting | JobState::Running | JobState::Recovering);
        for_each_job(&self.control, Self::NAME, wanted, |job| self.step(job)).await
    }
}
