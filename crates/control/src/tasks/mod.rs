//! Reconcilers: each brings one kind of thing from what is to what should be.
//!
//! They take no input on purpose: a signal only says that something changed, and a restart loses nothing. Each run
//! reads the store, the chain and the links, decides, writes the intent, acts. Running one twice does no harm, and
//! failing inside a run is retried by the next one. The list in [`spawn`] is complete.
//!
//! All nodes of an operator run all of them. Each job has a home among the nodes that live, which alone works on it, so
//! that they do not do everything twice; what a node does that wrongly thinks itself the home is guarded like everything.

mod adopt;
mod build;
mod epoch;
mod extension;
mod history;
mod loss;
mod market;
mod order;
mod orphan;
mod placement;
mod pods;
mod restored;
mod runtime;
mod settlement;

use std::sync::Arc;
use std::time::Duration;

use atoll_domain::id::JobId;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::store::StoreError;
use crate::store::rows::Job;

/// The usual [`Reconciler::GAP`].
const RUN_GAP: Duration = Duration::from_millis(25);

/// Brings one kind of thing from what is to what should be.
trait Reconciler: Send + 'static {
    /// Its name in logs.
    const NAME: &'static str;
    /// How often it runs when nothing signals.
    const PERIOD: Duration;
    /// How soon after a run the next may start: many signals become one run.
    const GAP: Duration = RUN_GAP;
    /// Whether it runs before the store is known to be up to the operator's notes.
    const FIRST: bool = false;
    /// Whether it acts on what the chain shows, and so waits until the chain is known to be this store's.
    const ON_CHAIN: bool = true;

    /// One run over everything of its kind.
    fn run(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Starts every reconciler. They end when `stop` is cancelled.
#[must_use]
pub fn spawn(control: &Arc<Control>, stop: &CancellationToken) -> JoinSet<()> {
    let mut set = JoinSet::new();
    control.caught_up.unset();
    control.market.is_due();
    let mut start = Starter { set: &mut set, control, stop };
    start.reconciler(market::MarketReader::new(control));
    start.reconciler(adopt::Adoptions::new(control));
    start.reconciler(order::Orders::new(control));
    start.reconciler(placement::Placements::new(control));
    start.reconciler(extension::Extensions::new(control));
    start.reconciler(history::Histories::new(control));
    start.reconciler(pods::Pods::new(control));
    start.reconciler(loss::Losses::new(control));
    start.reconciler(runtime::Runtimes::new(control));
    start.reconciler(epoch::Epochs::new(control));
    start.reconciler(settlement::Settlements::new(control));
    start.reconciler(orphan::Orphans::new(control));
    set.spawn(atoll_life::bound(build::beat(Arc::clone(control), stop.clone())));
    set.spawn(atoll_life::bound(restored::watch(Arc::clone(control), stop.clone())));
    set
}

struct Starter<'a> {
    set: &'a mut JoinSet<()>,
    control: &'a Arc<Control>,
    stop: &'a CancellationToken,
}

impl Starter<'_> {
    fn reconciler<R: Reconciler>(&mut self, mut reconciler: R) {
        let mut signals = self.control.wake.subscribe();
        let (stop, caught_up) = (self.stop.clone(), self.control.caught_up.clone());
        let market = self.control.market.clone();
        self.set.spawn(atoll_life::bound(async move {
            if !R::FIRST {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = caught_up.wait() => {}
                }
            }
            while !caught_up.is_old() {
                signals.mark_unchanged();
                if R::ON_CHAIN && market.snapshot().is_none() {
                    tracing::debug!(reconciler = R::NAME, "waits for the chain");
                } else if let Err(error) = reconciler.run().await {
                    tracing::warn!(
                        reconciler = R::NAME,
                        error = format!("{error:#}"),
                        "a run failed; the next one retries"
                    );
                }
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(R::GAP) => {}
                }
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = signals.changed() => {}
                    () = tokio::time::sleep(R::PERIOD) => {}
                }
            }
        }));
    }
}

/// Runs `step` for every open job at home here that `wanted` picks and that is not being adopted; one job's failure does not hold up the others.
async fn for_each_job<F>(
    control: &Control,
    name: &'static str,
    wanted: impl Fn(&Job) -> bool,
    mut step: impl FnMut(Job) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    for_each_job_anywhere(control, name, |job| control.links.is_home(job.id) && wanted(job), &mut step).await
}

/// The same for jobs at home elsewhere, too.
async fn for_each_job_anywhere<F>(
    control: &Control,
    name: &'static str,
    wanted: impl Fn(&Job) -> bool,
    mut step: impl FnMut(Job) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let settled = |job: &Job| job.now.adopting.is_none();
    for job in control.store.jobs_open().await?.into_iter().filter(settled).filter(wanted) {
        let id: JobId = job.id;
        match step(job).await {
            Ok(()) => {}
            Err(error) if is_conflict(&error) => control.wake.signal(),
            Err(error) => {
                tracing::warn!(reconciler = name, job = %id, error = format!("{error:#}"), "a step failed; the next run retries");
            }
        }
    }
    Ok(())
}

/// Whether another writer was first: read and decide again.
fn is_conflict(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref::<StoreError>(), Some(StoreError::Conflict { .. }))
}
