//! Lengthens what renters lengthened: sends their transactions, then moves each lease's end to its order's.
//!
//! An order says by itself that it was lengthened, so whoever brought that to the chain, its leases follow. An order that is
//! nobody's here is followed too: at once when it was lengthened through this operator, and shortly before a lease ends when
//! its own operator has not done it by then (`orphan` looks). A lease that cannot go along (its worker asks more by now,
//! drains, is suspended) ends as it would have; `placement` then fills its devices again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atoll_domain::job::JobState;
use atoll_domain::key::Address;
use atoll_interface::layout::Order;

use super::{Reconciler, for_each_job, orphan};
use crate::app::chain::{self, For, Sent};
use crate::app::extension;
use crate::control::Control;
use crate::store::rows::Job;

/// How long before a lease's end another operator's order is lengthened in its place, at most.
const LAST_MINUTE_S: i64 = 60;
/// Over how many of these seconds operators spread, so that not all of them send the same.
const TURNS_S: i64 = 20;

pub(super) struct Extensions {
    control: Arc<Control>,
}

impl Extensions {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control) }
    }

    /// Brings renters' transactions to the chain, each for itself; gives the orders of those of which it is not known yet
    /// what became.
    async fn send(&self) -> anyhow::Result<BTreeSet<Address>> {
        let control = &self.control;
        let mut open = BTreeSet::new();
        for row in control.store.chain_txs_pending().await?.into_iter().filter(chain::is_extension) {
            let home = row.job.map_or_else(|| control.links.is_home(Self::NAME), |job| control.links.is_home(job));
            let sent = if home { extension::send(control, &row).await.map(|it| it.sent) } else { Ok(Sent::Waiting) };
            if let Err(error) = &sent {
                let error = format!("{error:#}");
                tracing::warn!(key = row.key, error, "an extension could not be sent; the next run retries");
            }
            if matches!(sent, Ok(Sent::Waiting) | Err(_)) {
                open.extend(chain::extension_order(&row));
            }
        }
        Ok(open)
    }

    async fn step(&self, found: Job) -> anyhow::Result<()> {
        let control = &self.control;
        let Some(order) = chain::order(control, &found.order).await? else { return Ok(()) };
        if order.extended_s == 0 && found.now.left_behind.is_empty() {
            return Ok(());
        }
        let behind = extension::follow(control, For::from(&found), &order, &found.now.left_behind).await?;
        extension::leave_behind(control, &found, behind).await
    }

    /// Lengthens the leases of an order that is nobody's here; whether there is nothing left to do, unless it is
    /// lengthened again.
    async fn follow_relayed(&self, address: &Address) -> anyhow::Result<bool> {
        let control = &self.control;
        let Some((order, now)) = chain::order_now(control, address).await? else { return Ok(true) };
        extension::follow(control, For::from(*address), &order, &BTreeMap::new()).await?;
        let left = chain::shorter_leases(control, address, &order, now).await?;
        Ok(left.iter().all(|lease| lease.goes_along.is_err()))
    }
}

/// Lengthens the leases of an order that is nobody's here, if one of them is about to end; whether something was due.
///
/// # Errors
/// When store or chain fail.
pub(super) async fn in_the_last_minute(
    control: &Control,
    address: &Address,
    order: &Order,
    now: i64,
) -> anyhow::Result<bool> {
    if order.extended_s == 0 || !orphan::is_nobodys(control, address).await? {
        return Ok(false);
    }
    let ahead_s = LAST_MINUTE_S - orphan::turn_s(&control.keys.node.public(), address, TURNS_S);
    let shorter = chain::shorter_leases(control, address, order, now).await?;
    let due = |lease: &atoll_chain::market::Shorter| lease.goes_along.is_ok() && lease.lease.end - now <= ahead_s;
    if !shorter.iter().any(due) {
        return Ok(false);
    }
    extension::follow(control, For::from(*address), order, &BTreeMap::new()).await?;
    Ok(true)
}

impl Reconciler for Extensions {
    const NAME: &'static str = "extensions";
    const PERIOD: Duration = Duration::from_secs(1);

    async fn run(&mut self) -> anyhow::Result<()> {
        let open = self.send().await?;
        for order in self.control.relayed.all() {
            match self.follow_relayed(&order).await {
                Ok(true) if !open.contains(&order) => self.control.relayed.remove(&order),
                Ok(_) => {}
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(%order, error, "an order could not be followed; the next run retries");
                }
            }
        }
        let wanted = |job: &Job| matches!(job.now.state, JobState::Starting | JobState::Running | JobState::Recovering);
        for_each_job(&self.control, Self::NAME, wanted, |job| self.step(job)).await
    }
}
