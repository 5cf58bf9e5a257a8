//! Looks for what somebody else did to an order on the chain, in its trail there, for the receipt: extensions, and how it was
//! settled.
//!
//! Apart from `settlement`, which it must never hold up: each run asks the chain a few questions a job, and goes on from there.
//! Where a search stands is in memory only; another node or life begins it anew.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_domain::id::JobId;
use atoll_domain::job::JobState;
use atoll_domain::time::UnixMs;

use super::{Reconciler, for_each_job};
use crate::app::chain;
use crate::app::settled::{Look, Seen};
use crate::app::taken::{self, Search, Sought};
use crate::control::Control;
use crate::store::rows::{ChainTxState, Job, JobNow};

/// How many questions one job's search asks in one run: of the 10,000 transactions that are looked at, ten a second.
const QUESTIONS: usize = 10;
/// How long a history that was looked through is not looked through again.
const SOUGHT_FOR: Duration = Duration::from_secs(30);

pub(super) struct Histories {
    control: Arc<Control>,
    begun: Begun,
}

/// Searches that go on, by job.
#[derive(Default)]
struct Begun {
    searches: Mutex<BTreeMap<JobId, Search>>,
    looks: Mutex<BTreeMap<JobId, Look>>,
}

/// Takes what was begun, or begins.
fn take<T: Default>(begun: &Mutex<BTreeMap<JobId, T>>, job: JobId) -> T {
    begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&job).unwrap_or_default()
}

fn put<T>(begun: &Mutex<BTreeMap<JobId, T>>, job: JobId, it: T) {
    begun.lock().unwrap_or_else(PoisonError::into_inner).insert(job, it);
}

/// Whether it was asked how an order was settled, and is not known.
fn is_asked(now: &JobNow) -> bool {
    now.elsewhere.as_ref().is_some_and(|it| !it.is_known)
}

impl Histories {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control), begun: Begun::default() }
    }

    fn rests(&self, sought: Option<UnixMs>) -> bool {
        sought.is_some_and(|at| self.control.now().since(at) < SOUGHT_FOR)
    }

    async fn step(&self, found: Job, after: &Begun) -> anyhow::Result<()> {
        if is_asked(&found.now) { self.look(found, after).await } else { self.search(found, after).await }
    }

    async fn look(&self, found: Job, after: &Begun) -> anyhow::Result<()> {
        if self.rests(found.now.elsewhere.as_ref().and_then(|it| it.sought)) {
            return Ok(());
        }
        let mut look = take(&self.begun.looks, found.id);
        match look.go_on(&self.control, &found, QUESTIONS).await {
            Ok(seen @ (Seen::All | Seen::Some | Seen::Agreed)) => look.note(&self.control, found, seen).await,
            not_yet => {
                put(&after.looks, found.id, look);
                not_yet.map(drop)
            }
        }
    }

    async fn search(&self, found: Job, after: &Begun) -> anyhow::Result<()> {
        let control = &self.control;
        if self.rests(found.now.extensions_sought) {
            return Ok(());
        }
        let sent = control.store.chain_txs_of(found.id).await?;
        // What this operator sent itself it knows as soon as that is final.
        if sent.iter().any(|row| row.state == ChainTxState::Pending && chain::is_extension(row)) {
            return Ok(());
        }
        let mut search = take(&self.begun.searches, found.id);
        match search.go_on(control, &found, QUESTIONS).await {
            Ok(Sought::Over) => search.note(control, found).await,
            not_yet => {
                put(&after.searches, found.id, search);
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
        let wanted =
            |job: &Job| job.now.state > JobState::Ordering && (taken::missing_s(&job.now) > 0 || is_asked(&job.now));
        let after = Begun::default();
        let done = for_each_job(&self.control, Self::NAME, wanted, |job| self.step(job, &after)).await;
        // Those of jobs that are over are dropped.
        self.begun = after;
        done
    }
}
