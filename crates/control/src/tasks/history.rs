//! Looks for extensions that somebody else brought to the chain, in the order's history there, for the receipt.
//!
//! Apart from `settlement`, which it must never hold up: each run asks the chain a few questions a job, and goes on from there.
//! Where a search stands is in memory only; another node or life begins it anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_domain::id::JobId;
use atoll_domain::job::JobState;

use super::{Reconciler, for_each_job};
use crate::app::chain;
use crate::app::taken::{self, Search, Sought};
use crate::control::Control;
use crate::store::rows::{ChainTxState, Job};

/// How many questions one job's search asks in one run: of the 10,000 transactions that are looked at, ten a second.
const QUESTIONS: usize = 10;
/// How long a history that was looked through is not looked through again.
const SOUGHT_FOR: Duration = Duration::from_secs(30);

pub(super) struct Histories {
    control: Arc<Control>,
    searches: Searches,
}

/// Searches that go on, by job.
type Searches = Mutex<BTreeMap<JobId, Search>>;

impl Histories {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control), searches: Mutex::default() }
    }

    async fn step(&self, found: Job, after: &Searches) -> anyhow::Result<()> {
        let control = &self.control;
        if found.now.extensions_sought.is_some_and(|at| control.now().since(at) < SOUGHT_FOR) {
            return Ok(());
        }
        let sent = control.store.chain_txs_of(found.id).await?;
        // What this operator sent itself it knows as soon as that is final.
        if sent.iter().any(|row| row.state == ChainTxState::Pending && chain::is_extension(row)) {
            return Ok(());
        }
        let begun = self.searches.lock().unwrap_or_else(PoisonError::into_inner).remove(&found.id);
        let mut search = begun.unwrap_or_default();
        match search.go_on(control, &found, QUESTIONS).await {
            Ok(Sought::Over) => search.note(control, found).await,
            not_yet => {
                after.lock().unwrap_or_else(PoisonError::into_inner).insert(found.id, search);
                not_yet.map(drop)
            }
        }
    }
}

impl Reconciler for Histories {
    const NAME: &'static str = "histories";
    const PERIOD: Duration = Duration::from_secs(1);
    // Many signals must not become a stream of questions.
    const GAP: Duration = Duration::from_secs(1);

    async fn run(&mut self) -> anyhow::Result<()> {
        let wanted = |job: &Job| job.now.state > JobState::Ordering && taken::missing_s(&job.now) > 0;
        let after = Searches::default();
        let done = for_each_job(&self.control, Self::NAME, wanted, |job| self.step(job, &after)).await;
        // Those of jobs that are over are dropped.
        self.searches = after;
        done
    }
}
