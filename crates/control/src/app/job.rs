//! The verbs of a job's life that more than one reconciler uses.

use std::collections::BTreeMap;

use atoll_domain::cluster::PodState;
use atoll_domain::id::JobId;
use atoll_domain::job::{JobOutcome, JobSpec, JobState};
use atoll_domain::time::UnixMs;

use crate::control::Control;
use crate::store::rows::{Event, Job, JobNow, Pod};
use crate::store::{Result, StoreError};

/// Reads a job's specification, which was checked when the job was accepted.
///
/// # Errors
/// [`StoreError::Corrupt`].
pub fn spec_of(job: &Job) -> Result<JobSpec> {
    serde_json::from_slice(&job.spec)
        .map_err(|error| StoreError::Corrupt { what: "job specification", reason: error.to_string() })
}

/// An event with named values.
#[must_use]
pub fn event(at: UnixMs, kind: &str, message: impl Into<String>, fields: &[(&str, String)]) -> Event {
    let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect::<BTreeMap<_, _>>();
    Event { at, kind: kind.to_owned(), message: message.into(), fields }
}

/// Changes a job by `edit`; a new state begins now and is told as an event.
///
/// # Errors
/// [`StoreError::Conflict`] when the job changed since it was read.
pub async fn change(control: &Control, job: &Job, edit: impl FnOnce(&mut JobNow)) -> Result<Job> {
    change_with(control, job, edit, Vec::new()).await
}

/// The same with more events.
///
/// # Errors
/// [`StoreError::Conflict`] when the job changed since it was read.
pub async fn change_with(
    control: &Control,
    job: &Job,
    edit: impl FnOnce(&mut JobNow),
    mut events: Vec<Event>,
) -> Result<Job> {
    let mut now = job.now.clone();
    edit(&mut now);
    let at = control.now();
    if now.state != job.now.state {
        now.since = at;
        let message =
            if now.reason.is_empty() { now.state.to_string() } else { format!("{}: {}", now.state, now.reason) };
        events.push(event(at, "state", message, &[("state", now.state.to_string())]));
        tracing::info!(job = %job.id, from = %job.now.state, to = %now.state, reason = now.reason, "job changed state");
    }
    if now == job.now && events.is_empty() {
        return Ok(job.clone());
    }
    let changed = control.store.job_change(job.id, job.generation, &now, &events).await?;
    control.wake.signal();
    Ok(changed)
}

/// The command is over: what remains is to settle.
///
/// # Errors
/// [`StoreError::Conflict`] when the job changed since it was read.
pub async fn end(control: &Control, job: &Job, outcome: JobOutcome, reason: &str) -> Result<Job> {
    let at = control.now();
    change(control, job, |now| {
        now.state = JobState::Settling;
        now.outcome = Some(outcome);
        reason.clone_into(&mut now.reason);
        now.ended = Some(at);
        now.refusals.clear();
    })
    .await
}

/// The name of an attempt at the runtime.
#[must_use]
pub fn submission_name(job: JobId, attempt: u32) -> String {
    format!("{job}-{attempt}")
}

/// Pods that count now: of the job's current fence and not over.
#[must_use]
pub fn current<'a>(job: &Job, pods: &'a [Pod]) -> Vec<&'a Pod> {
    pods.iter().filter(|pod| pod.fence == job.now.fence && !pod.state.is_over()).collect()
}

/// Whether `pods` serve all devices that the specification asks for, and all are at least in `state`.
#[must_use]
pub fn all_at_least(spec: &JobSpec, pods: &[&Pod], state: PodState) -> bool {
    let rank = |state| match state {
        PodState::Requested => 0,
        PodState::Prepared => 1,
        PodState::Running => 2,
        PodState::Exited | PodState::Lost => 3,
    };
    let devices: u32 = pods.iter().map(|pod| pod.mask.count_ones()).sum();
    devices == spec.devices && pods.iter().all(|pod| !pod.state.is_over() && rank(pod.state) >= rank(state))
}
