//! Runs the job's command on its cluster's Ray: waits until Ray's living nodes are the cluster's pods, submits the next
//! attempt, keeps its output, sees how it ends.
//!
//! Readiness is observed, never assumed: an attempt is submitted only when the nodes that Ray holds for alive are
//! exactly the pods that run. A lost machine ends the attempt; its successor starts from the last checkpoint, which is
//! the command's own affair (`atoll.checkpoint.latest`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_domain::cluster::PodState;
use atoll_domain::id::JobId;
use atoll_domain::job::{JobOutcome, JobSpec, JobState};
use atoll_domain::time::UnixMs;

use super::{Reconciler, for_each_job_anywhere, loss};
use crate::app::{job, kept};
use crate::control::Control;
use crate::link::{ByteStream, Target};
use crate::ray::{DASHBOARD_PORT, Ray, RayError, Submission, SubmissionState};
use crate::store::rows::{Job, JobNow, Pod};

/// How long a failed command waits for news of a lost machine before the failure counts as its own. The command of a
/// cluster that loses a machine often fails before the loss is noticed.
const BLAME_AFTER: Duration = loss::LOST_AFTER.saturating_add(Duration::from_secs(3));
/// The longest a cluster may take to come up before the job is given up: 20 times what a cold start takes.
const BRING_UP_MAX: Duration = Duration::from_secs(600);
/// How often a running command's state and output are asked for.
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// The most output that is kept of one job.
const LOG_BYTES_MAX: u64 = 64 << 20;

pub(super) struct Runtimes {
    control: Arc<Control>,
    /// When a command was first seen failed, by job; only to wait [`BLAME_AFTER`], so that a restart waits again.
    failed: Mutex<BTreeMap<JobId, UnixMs>>,
    /// When a running command was last looked at, by job: signals must not become a stream of questions to Ray.
    watched: Mutex<BTreeMap<JobId, UnixMs>>,
}

impl Runtimes {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control), failed: Mutex::default(), watched: Mutex::default() }
    }

    async fn step(&self, found: Job) -> anyhow::Result<()> {
        let home = self.control.links.is_home(found.id);
        let pods = self.control.store.pods_of(found.id).await?;
        if home && found.now.stop_wanted && found.now.state != JobState::Settling {
            job::end(&self.control, &found, JobOutcome::Stopped, "stopped by its renter").await?;
            return Ok(());
        }
        let Some(head) = pods.iter().find(|pod| Some(pod.id) == found.now.head && pod.state == PodState::Running)
        else {
            return if home { self.too_long(&found).await } else { Ok(()) };
        };
        // The node that the head's worker is linked to speaks with it.
        if !self.control.links.is_here(head.worker) {
            return if home { self.too_long(&found).await } else { Ok(()) };
        }
        match found.now.state {
            JobState::Running => self.watch(&found, head).await,
            JobState::Recovering if found.now.submission.is_some() => self.stop_attempt(&found, head).await,
            JobState::Starting | JobState::Recovering => self.submit_when_ready(&found, &pods, head).await,
            _ => Ok(()),
        }
    }

    async fn too_long(&self, job: &Job) -> anyhow::Result<()> {
        let waiting = self.control.now().since(job.now.since);
        if job.now.state == JobState::Starting && waiting > BRING_UP_MAX {
            let reason = format!("its cluster did not come up within {} s", BRING_UP_MAX.as_secs());
            job::end(&self.control, job, JobOutcome::Failed, &reason).await?;
        }
        Ok(())
    }

    async fn ray(&self, job: &Job, head: &Pod) -> Result<Ray<ByteStream>, RayError> {
        let stream = self.control.links.open_stream(head.worker, head.id, Target::Port(DASHBOARD_PORT)).await;
        let stream = stream.map_err(|error| RayError::Unreachable(error.to_string()))?;
        Ok(Ray::over(stream, &job.now.runtime_token))
    }

    async fn submit_when_ready(&self, job: &Job, pods: &[Pod], head: &Pod) -> anyhow::Result<()> {
        let spec = job::spec_of(job)?;
        let current = job::current(job, pods);
        if !job::all_at_least(&spec, &current, PodState::Running) {
            return self.too_long(job).await;
        }
        let expected: BTreeSet<Ipv4Addr> = current.iter().map(|pod| pod.index.address()).collect();
        let alive = match self.ray(job, head).await {
            Ok(ray) => ray.nodes_alive().await,
            Err(error) => Err(error),
        };
        match alive {
            Ok(alive) if alive == expected => self.submit(job, &spec, head, expected.len()).await,
            Ok(alive) => {
                tracing::debug!(job = %job.id, ?alive, ?expected, "waiting for the runtime's nodes");
                self.too_long(job).await
            }
            Err(error) => {
                tracing::debug!(job = %job.id, %error, "waiting for the runtime's head");
                self.too_long(job).await
            }
        }
    }

    /// Writes the attempt down, then submits it under a name of its own: a crash between the two submits it again
    /// under the same name.
    async fn submit(&self, found: &Job, spec: &JobSpec, head: &Pod, world: usize) -> anyhow::Result<()> {
        let attempt = found.now.attempt + 1;
        let name = job::submission_name(found.id, attempt);
        let told = job::event(
            self.control.now(),
            "attempt",
            format!("starts the command, attempt {attempt}"),
            &[("attempt", attempt.to_string())],
        );
        let begin = |now: &mut JobNow| {
            now.state = JobState::Running;
            now.attempt = attempt;
            now.submission = Some(name.clone());
            now.attempt_log_bytes = 0;
            now.reason = String::new();
            now.refusals.clear();
        };
        // First of all: whoever finds the store lost or old must know of the attempt.
        let mut begun = found.now.clone();
        begin(&mut begun);
        kept::put_mark(&self.control, &found.order, &begun).await?;
        let changed = job::change_with(&self.control, found, begin, vec![told]).await?;
        self.ray(&changed, head).await?.submit(&name, &entry(spec), &attempt_env(spec, attempt, world)).await?;
        Ok(())
    }

    /// Whether a running command is due for a look; marks it looked at.
    fn is_due(&self, job: &Job) -> bool {
        let now = self.control.now();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let due = watched.get(&job.id).is_none_or(|last| now.since(*last) >= WATCH_EVERY);
        if due {
            watched.insert(job.id, now);
        }
        due
    }

    async fn watch(&self, job: &Job, head: &Pod) -> anyhow::Result<()> {
        if !self.is_due(job) {
            return Ok(());
        }
        let Some(name) = &job.now.submission else { anyhow::bail!("a running job without a submission") };
        let asked = match self.ray(job, head).await {
            Ok(ray) => ray.submission(name).await,
            Err(error) => Err(error),
        };
        let submission = match asked {
            Ok(Some(submission)) => submission,
            Ok(None) => {
                // Written down, but the server stopped before it was submitted.
                let spec = job::spec_of(job)?;
                let world = job::current(job, &self.control.store.pods_of(job.id).await?).len();
                let env = attempt_env(&spec, job.now.attempt, world);
                return Ok(self.ray(job, head).await?.submit(name, &entry(&spec), &env).await?);
            }
            Err(RayError::Unreachable(reason)) => {
                tracing::debug!(job = %job.id, reason, "the head does not answer");
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let job = self.keep_output(job, head, name).await?;
        match submission.status {
            SubmissionState::Pending | SubmissionState::Running => {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(&job.id);
                Ok(())
            }
            SubmissionState::Succeeded => {
                job::end(&self.control, &job, JobOutcome::Succeeded, "").await?;
                Ok(())
            }
            SubmissionState::Failed | SubmissionState::Stopped => self.failed(&job, &submission).await,
        }
    }

    /// A failed command is the command's own failure only when no machine turns out lost meanwhile, and none is away that
    /// may still turn out so: when many come back at once, that takes longer.
    async fn failed(&self, job: &Job, submission: &Submission) -> anyhow::Result<()> {
        let now = self.control.now();
        let since = *self.failed.lock().unwrap_or_else(PoisonError::into_inner).entry(job.id).or_insert(now);
        let pods = self.control.store.pods_of(job.id).await?;
        let is_away = |pod: &&Pod| self.control.links.away(pod.worker).is_some();
        if now.since(since) < BLAME_AFTER || job::current(job, &pods).iter().any(is_away) {
            return Ok(());
        }
        let words = in_short(submission.message.as_deref().unwrap_or("no reason given"));
        let reason = format!("its command failed: {words}; see `atoll logs {}`", job.id);
        job::end(&self.control, job, JobOutcome::Failed, &reason).await?;
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(&job.id);
        Ok(())
    }

    /// Appends what the attempt printed since the last look. Ray gives the whole output; what is new is its end.
    async fn keep_output(&self, found: &Job, head: &Pod, name: &str) -> anyhow::Result<Job> {
        let output = self.ray(found, head).await?.output(name).await?;
        let kept = usize::try_from(found.now.attempt_log_bytes)?;
        let Some(new) = output.as_bytes().get(kept..).filter(|new| !new.is_empty()) else { return Ok(found.clone()) };
        let room = usize::try_from(LOG_BYTES_MAX.saturating_sub(found.now.log_bytes)).unwrap_or(usize::MAX);
        let new = &new[..new.len().min(room)];
        self.control.objects.append_log(found.id, found.now.log_bytes, new).await?;
        let (bytes, read) = (new.len() as u64, output.len() as u64);
        Ok(job::change(&self.control, found, |now| {
            now.log_bytes += bytes;
            now.attempt_log_bytes = read;
        })
        .await?)
    }

    /// Before the next attempt the last one must be over: two would write checkpoints against each other.
    async fn stop_attempt(&self, found: &Job, head: &Pod) -> anyhow::Result<()> {
        let Some(name) = found.now.submission.clone() else { return Ok(()) };
        let over = match self.ray(found, head).await?.submission(&name).await? {
            None => true,
            Some(it) => !matches!(it.status, SubmissionState::Pending | SubmissionState::Running),
        };
        if !over {
            return Ok(self.ray(found, head).await?.stop(&name).await?);
        }
        let kept = self.keep_output(found, head, &name).await?;
        job::change(&self.control, &kept, |now| now.submission = None).await?;
        Ok(())
    }
}

/// Ray's words about a failure without the output that it appends: that is kept, whole, elsewhere.
fn in_short(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let words = line.split_once(", last available logs").map_or(line, |(words, _)| words);
    words.chars().filter(|one| !one.is_control()).take(500).collect()
}

/// The command line as Ray runs it: in the bundle's folder.
fn entry(spec: &JobSpec) -> String {
    format!("cd /job/src && {}", spec.entry)
}

/// What the command of one attempt finds in its environment, beside its pod's.
fn attempt_env(spec: &JobSpec, attempt: u32, world: usize) -> BTreeMap<String, String> {
    let mut env = spec.env.clone();
    env.insert("ATOLL_ATTEMPT".into(), attempt.to_string());
    // Ray's own processes warn that the internet is away, into the job's output; there is none by design.
    env.insert("RAY_BACKEND_LOG_LEVEL".into(), "error".into());
    env.insert("ATOLL_WORLD".into(), world.to_string());
    env
}

impl Reconciler for Runtimes {
    const NAME: &'static str = "runtimes";
    const PERIOD: Duration = Duration::from_millis(500);

    async fn run(&mut self) -> anyhow::Result<()> {
        let wanted = |job: &Job| {
            let active = matches!(job.now.state, JobState::Starting | JobState::Running | JobState::Recovering);
            active || (job.now.stop_wanted && job.now.state == JobState::Placing)
        };
        for_each_job_anywhere(&self.control, Self::NAME, wanted, |job| self.step(job)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_without_the_output() {
        let said =
            "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\na\tb\n";
        assert_eq!(in_short(said), "Job entrypoint command failed with exit code 1");
        assert_eq!(in_short("Unexpected error\u{1b}[0m\nmore"), "Unexpected error[0m");
        assert_eq!(in_short(&"x".repeat(1000)).len(), 500);
        assert_eq!(in_short(""), "");
    }
}
