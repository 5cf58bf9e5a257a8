//! Notices that a pod is gone, and starts the recovery.
//!
//! A pod is lost when its worker has been out of touch for [`LOST_AFTER`], or when its tenant's program ended although
//! the command had not. This marks what is lost and what must start anew; giving the lease back to the chain and
//! filling it again is `placement`'s, starting pods `pods`', the command's next attempt `runtime`'s.
//!
//! A program that ends by itself before the command begins may be its machine's fault, a broken pack's say; another machine
//! is tried once. Then it is the job's own.

use std::sync::Arc;
use std::time::Duration;

use atoll_domain::cluster::{PodRole, PodState};
use atoll_domain::job::{JobOutcome, JobState};
use atoll_domain::placement::Setback;
use atoll_domain::time::UnixMs;

use super::{Reconciler, for_each_job};
use crate::app::job;
use crate::control::Control;
use crate::store::rows::{Job, JobNow, Pod, PodChange};

/// How long a worker may be out of touch before its pods are given up: a restart of the agent takes 1 to 2 s, three
/// heartbeats are 3 s.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(5);
/// The most times a job's command is started. A job that loses machines faster than this is not placed well.
const ATTEMPTS_MAX: u32 = 20;

/// How many programs may end by themselves before the command begins.
const BAD_STARTS_MAX: usize = 2;

pub(super) struct Losses {
    control: Arc<Control>,
}

impl Losses {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control) }
    }

    async fn step(&self, found: Job) -> anyhow::Result<()> {
        let control = &self.control;
        for pod in control.store.pods_of(found.id).await? {
            self.give_up(&pod).await?;
        }
        if found.now.state == JobState::Settling {
            return Ok(());
        }
        let pods = control.store.pods_of(found.id).await?;
        let is_news =
            |pod: &&Pod| pod.fence == found.now.fence && pod.state.is_over() && !found.now.gone.contains(&pod.id);
        let gone: Vec<&Pod> = pods.iter().filter(is_news).collect();
        if gone.is_empty() {
            return Ok(());
        }
        if let Some(reason) = does_not_start(&found.now, &pods) {
            job::end(control, &found, JobOutcome::Failed, &reason).await?;
            return Ok(());
        }
        let head_gone = gone.iter().any(|pod| pod.role == PodRole::Head);
        let reason = gone.iter().map(|pod| format!("{} {}", pod.worker, pod.reason)).collect::<Vec<_>>().join("; ");
        let spec = job::spec_of(&found)?;
        if found.now.attempt > 0 && !spec.checkpoints {
            let why = gone.iter().map(|pod| found.now.left_behind.get(&pod.lease)).collect::<Option<Vec<_>>>();
            let reason = match why {
                // Whose lease did not go along with its order is at no fault.
                Some(why) => format!(
                    "a lease has ended that did not go along when its order was lengthened ({}), and the job writes no \
                     checkpoints to go on from elsewhere",
                    why.into_iter().cloned().collect::<Vec<_>>().join("; ")
                ),
                None => {
                    format!("a machine was lost ({reason}) and the job writes no checkpoints to start again from")
                }
            };
            job::end(control, &found, JobOutcome::Failed, &reason).await?;
            return Ok(());
        }
        if found.now.attempt >= ATTEMPTS_MAX {
            let reason = format!("its command was started {ATTEMPTS_MAX} times and a machine was lost each time");
            job::end(control, &found, JobOutcome::Failed, &reason).await?;
            return Ok(());
        }
        let at = control.now();
        let changed = job::change(control, &found, |now| {
            for pod in &gone {
                now.gone.insert(pod.id);
                let setback = Setback::after(now.setbacks.get(&pod.worker).copied(), at);
                now.setbacks.insert(pod.worker, setback);
            }
            recover(now, head_gone, &reason);
        })
        .await?;
        if head_gone {
            self.retire_older(&changed, &pods).await?;
        }
        Ok(())
    }

    /// Marks a pod lost whose worker has been away for too long.
    async fn give_up(&self, pod: &Pod) -> anyhow::Result<()> {
        let (control, now) = (&self.control, self.control.now());
        // First what is held, then how long nobody has been there: a link that begins in between is not the one read.
        let held = control.links.held(pod.worker);
        if pod.state.is_over() || !is_lost(control.links.away(pod.worker), pod.created, now) {
            return Ok(());
        }
        let reason = format!("was out of touch for {} s", LOST_AFTER.as_secs());
        let fields =
            [("worker", pod.worker.to_string()), ("pod", pod.id.to_string()), ("lease", pod.lease.to_string())];
        let told = job::event(now, "lost", format!("{} {reason}", pod.worker), &fields);
        let change = PodChange { state: Some(PodState::Lost), reason: Some(reason), ..PodChange::default() };
        if control.store.pod_lose(pod.id, held, &change, &[told]).await? {
            tracing::warn!(pod = %pod.id, worker = %pod.worker, lease = %pod.lease, "worker lost, pod given up");
            control.wake.signal();
        }
        Ok(())
    }

    /// With the head its whole runtime is gone: pods of the old fence are over, their leases stay.
    async fn retire_older(&self, job: &Job, pods: &[Pod]) -> anyhow::Result<()> {
        let reason = "restarted with a new head";
        for pod in pods.iter().filter(|pod| pod.fence < job.now.fence && !pod.state.is_over()) {
            let change =
                PodChange { state: Some(PodState::Exited), reason: Some(reason.to_owned()), ..PodChange::default() };
            self.control.store.pod_change(pod.id, &change, &[]).await?;
        }
        self.control.wake.signal();
        Ok(())
    }
}

/// Whether a pod's worker has been away for too long to wait for it. A pod that was asked of an absent worker gets the
/// same time.
fn is_lost(away: Option<Duration>, pod_created: UnixMs, now: UnixMs) -> bool {
    away.is_some_and(|away| away.min(now.since(pod_created)) >= LOST_AFTER)
}

/// Why the job's own programs keep its cluster from coming up; none while it may be a machine.
fn does_not_start(now: &JobNow, pods: &[Pod]) -> Option<String> {
    // Pods of a cluster that has been up are older than the wait for the next one.
    let comes_up = matches!(now.state, JobState::Starting | JobState::Recovering);
    let by_itself = |pod: &&Pod| pod.created >= now.since && pod.exit_code.is_some_and(|status| status >= 0);
    let ended: Vec<&Pod> = pods.iter().filter(by_itself).collect();
    let last = ended.last().filter(|_| comes_up && ended.len() >= BAD_STARTS_MAX)?;
    Some(format!("its pods end before the command begins, the last on {}: {}", last.worker, last.reason))
}

/// The job's changing part when a machine is lost.
fn recover(now: &mut JobNow, head_gone: bool, reason: &str) {
    now.state = if now.attempt == 0 { JobState::Starting } else { JobState::Recovering };
    now.reason = format!("{reason}; looking for a replacement");
    now.roster += 1;
    if head_gone {
        now.head = None;
        now.fence += 1;
        now.submission = None;
    }
}

impl Reconciler for Losses {
    const NAME: &'static str = "losses";
    const PERIOD: Duration = Duration::from_millis(500);

    async fn run(&mut self) -> anyhow::Result<()> {
        let watched = |job: &Job| {
            matches!(
                job.now.state,
                JobState::Placing | JobState::Starting | JobState::Running | JobState::Recovering | JobState::Settling
            )
        };
        for_each_job(&self.control, Self::NAME, watched, |job| self.step(job)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_waited_for_and_then_given_up() {
        let (at, away) = (UnixMs, |ms| Some(Duration::from_millis(ms)));
        assert!(!is_lost(None, at(0), at(1_000_000)), "it is linked");
        assert!(!is_lost(away(4_999), at(0), at(14_999)));
        assert!(is_lost(away(5_000), at(0), at(15_000)));
        assert!(!is_lost(away(5_000), at(12_000), at(15_000)), "asked of it while it was away");
        assert!(!is_lost(away(1_000), at(0), at(900_000)), "the clock went ahead");
    }

    fn running(attempt: u32) -> JobNow {
        let now = serde_json::json!({
            "state": "running", "outcome": null, "stop_wanted": false, "reason": "", "refusals": {}, "attempt": attempt,
            "submission": "name", "head": null, "next_index": 3, "roster": 4, "fence": 1, "runtime_token": "", "step": null,
            "accuracy_ppm": null, "resumed_from_step": null, "log_bytes": 0, "since": 0, "ended": null,
        });
        serde_json::from_value(now).unwrap()
    }

    #[test]
    fn a_lost_node_keeps_the_others_a_lost_head_starts_them_anew() {
        let mut node = running(1);
        recover(&mut node, false, "it");
        assert_eq!((node.state, node.roster, node.fence), (JobState::Recovering, 5, 1));
        assert!(node.submission.is_some(), "the attempt must be stopped at the head, which lives");
        let mut head = running(1);
        recover(&mut head, true, "it");
        assert_eq!((head.state, head.roster, head.fence, head.submission), (JobState::Recovering, 5, 2, None));
        let mut early = running(0);
        recover(&mut early, false, "it");
        assert_eq!(early.state, JobState::Starting, "nothing ran yet, so nothing is resumed");
    }
}
