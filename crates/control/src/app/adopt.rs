//! Takes up again what the store had forgotten: a store that was lost, or restored from an old copy.
//!
//! Three witnesses are asked, in the order in which they are believed: the chain (orders, leases, what was paid), the
//! workers (which pods run, under which fence, what their signed meters say), and the operator's own notes in the object
//! store (`app::kept`). What runs is taken up where it is; where that cannot be known to be safe, all pods of the job are
//! started anew under a fence that no worker can have seen, as after a lost head.
//!
//! Served time: what was attested stands, and is carried. Beyond it only what is observed from now on counts, so a
//! supplier can lose the observation of at most the epoch in which the store was lost. Unserved time is never paid.
//!
//! The deciding parts are pure; `tasks::adopt` runs them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use atoll_domain::cluster::{OverlayIndex, PodRole, PodState};
use atoll_domain::id::{JobId, PodId};
use atoll_domain::job::{JobOutcome, JobState};
use atoll_domain::key::{Address, Digest};
use atoll_domain::meter::{OBSERVED_GAP_MAX, Observation};
use atoll_domain::pod_key;
use atoll_domain::time::UnixMs;

use super::chain::{self, LiveSlot};
use super::kept::{self, KeptExtensions, KeptOrder};
use super::{job, jobs, pod_token};
use crate::control::Control;
use crate::objects::Owner;
use crate::store::rows::{AdoptedJob, Job, JobNow, Pod, PodChange, Stray, User};

/// How long workers are waited for before what they have not reported counts as gone: their longest pause between two
/// dials is 15 s.
pub const WORKERS_WAIT: Duration = Duration::from_secs(20);

/// Keeps a job's record, where that has not been done: before this the job is not acknowledged and its order not sent.
///
/// # Errors
/// When store or object store fail.
pub async fn keep(control: &Control, job: &Job) -> anyhow::Result<()> {
    if !kept::has_order(control, job).await? {
        let origin = control.store.job_origin(job.id).await?;
        kept::put_order(control, job, &origin.user, origin.submission).await?;
    }
    Ok(())
}

/// Takes up the job of an order that the store does not know; none when it never was this operator's.
///
/// # Errors
/// When store or object store fail, or what is kept was tampered with.
pub async fn by_order(control: &Control, order: &Address) -> anyhow::Result<Option<Job>> {
    let Some(kept) = kept::order(control, order).await? else { return Ok(None) };
    let log_bytes = control.objects.log_bytes(kept.record.job).await?;
    let adopted = rebuilt(control, &kept, log_bytes);
    let job = control.store.job_adopt(&adopted).await?;
    if job.id != kept.record.job {
        return Ok(Some(job));
    }
    if job.user != kept.record.user {
        let (from, to) = (Owner::User(kept.record.user), Owner::User(job.user));
        control.objects.share_blob(from, to, &kept.spec.bundle.sha256).await?;
    }
    if let Some(receipt) = &kept.receipt {
        control.store.receipt_put(job.id, &Digest::of(receipt.as_bytes()), receipt).await?;
    }
    tracing::warn!(
        job = %job.id, %order, user = kept.record.user_name, wallet = %kept.record.wallet, state = %job.now.state,
        "a job that the store had lost is taken up again; its user's API keys must be made anew with `atoll admin key create`"
    );
    control.wake.signal();
    Ok(Some(job))
}

/// The job that a record makes: as far as its notes tell. Everything else is found out while it is being adopted.
fn rebuilt(control: &Control, kept: &KeptOrder, log_bytes: u64) -> AdoptedJob {
    let (record, now) = (&kept.record, control.now());
    let mut job = Job {
        id: record.job,
        user: record.user,
        cluster: record.cluster,
        name: kept.spec.name.clone(),
        spec: kept.signed.bytes.clone(),
        spec_signature: record.spec_signature,
        order: kept.spec.order,
        order_tx: kept.transaction.clone(),
        escrow: record.escrow,
        created: record.created,
        generation: 1,
        now: jobs::first(now, pod_token::of_runtime(&control.keys.pod_secret, record.cluster)),
    };
    job.now.reason = "the operator's store was lost: looking for what it held".into();
    job.now.adopting = Some(now);
    job.now.log_bytes = log_bytes;
    apply_notes(&mut job.now, kept);
    if kept.receipt.is_some() {
        let outcome = kept.ended.as_ref().map_or(JobOutcome::Failed, |ended| ended.outcome);
        (job.now.state, job.now.outcome, job.now.adopting) = (outcome.into(), Some(outcome), None);
    }
    let user =
        User { id: record.user, name: record.user_name.clone(), wallet: record.wallet, created: record.user_created };
    let event = job::event(now, "state", "taken up again after the operator's store was lost", &[]);
    AdoptedJob { user, job, submission: record.submission.clone(), event }
}

/// Brings a job's row up to its notes; never back.
pub fn apply_notes(now: &mut JobNow, kept: &KeptOrder) {
    if let Some(mark) = kept.mark.as_ref().filter(|mark| is_ahead(mark, now)) {
        now.fence = mark.fence;
        now.attempt = mark.attempt;
        now.roster = mark.roster;
        now.head = mark.head;
        now.next_index = now.next_index.max(mark.next_index);
        now.submission = None;
        now.attempt_log_bytes = now.log_bytes.saturating_sub(mark.attempt_from);
    }
    // The latest word on terms, before what a lease says that was written down earlier.
    let is_ahead =
        |kept: &&KeptExtensions| kept.extended_s > now.extended_s || kept.records.len() > now.extensions.len();
    if let Some(extensions) = kept.extensions.as_ref().filter(is_ahead) {
        now.terms = extensions.terms.or(now.terms);
        now.extended_s = now.extended_s.max(extensions.extended_s);
        now.extensions.clone_from(&extensions.records);
    }
    for lease in &kept.leases {
        now.terms = now.terms.or(lease.terms);
        match now.leases.iter_mut().find(|known| known.lease == lease.record.lease) {
            Some(known) if known.device_seconds <= lease.record.device_seconds => *known = lease.record.clone(),
            Some(_) => {}
            None => now.leases.push(lease.record.clone()),
        }
    }
    now.stop_wanted |= wants_stop(now, kept);
    if let Some(ended) = kept.ended.as_ref().filter(|_| !now.state.is_final()) {
        now.state = JobState::Settling;
        now.outcome = Some(ended.outcome);
        now.reason.clone_from(&ended.reason);
        now.ended = Some(ended.at);
        now.attempt = now.attempt.max(ended.attempt);
        now.step = ended.step.or(now.step);
        now.accuracy_ppm = ended.accuracy_ppm.or(now.accuracy_ppm);
        now.resumed_from_step = ended.resumed_from_step.or(now.resumed_from_step);
    }
}

/// Whether a mark tells of something that the row does not know. The roster's number alone may lag: a mark is written
/// after the row.
fn is_ahead(mark: &kept::Mark, now: &JobNow) -> bool {
    (mark.fence, mark.attempt) > (now.fence, now.attempt) || (mark.fence == now.fence && mark.head != now.head)
}

/// Whether a job's renter wants it stopped, and its row does not know that.
#[must_use]
pub const fn wants_stop(now: &JobNow, kept: &KeptOrder) -> bool {
    kept.stop.is_some() && !now.stop_wanted && !now.state.is_final()
}

/// Whether the notes of an order tell of something that the job's row does not know: the store is older than they are.
#[must_use]
pub fn is_behind(now: &JobNow, kept: &KeptOrder) -> bool {
    let ended = kept.ended.is_some() && now.state < JobState::Settling;
    kept.mark.as_ref().is_some_and(|mark| is_ahead(mark, now)) || ended || kept.receipt.is_some()
}

/// What is known of a job that is being adopted.
#[derive(Debug)]
pub struct Known<'a> {
    /// The time now.
    pub now: UnixMs,
    /// Since when it is being adopted.
    pub since: UnixMs,
    /// Devices that the job asks for.
    pub devices: u32,
    /// Its row.
    pub job: &'a JobNow,
    /// Leased slots, as the chain shows them.
    pub slots: &'a [LiveSlot],
    /// Its pods that the store has.
    pub pods: &'a [Pod],
    /// Pods that workers report under its order and the store does not have.
    pub strays: &'a [Stray],
}

/// What to do with a job that is being adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Wait for workers.
    Wait,
    /// Take up these strays; whether every leased slot is served then.
    TakeUp(BTreeSet<PodId>, bool),
    /// Start all pods anew.
    Anew,
}

fn covers(slot: &LiveSlot, lease: &Address, stray: &Stray) -> bool {
    slot.lease == *lease && slot.at == stray.at && slot.device_key == stray.device_key && slot.mask == stray.mask
}

/// Decides what becomes of a job that is being adopted. Pure.
#[must_use]
pub fn decide(known: &Known<'_>) -> Decision {
    let fence = known.job.fence;
    let on_slot = |stray: &&Stray| known.slots.iter().any(|slot| covers(slot, &stray.lease, stray));
    // Nobody here knows what was begun under a higher fence, least of all who is its head.
    if known.strays.iter().filter(on_slot).any(|stray| stray.fence > fence) {
        return Decision::Anew;
    }
    let usable = |stray: &&Stray| stray.fence == fence && !stray.state.is_over() && index_of(stray).is_some();
    let mut taken = BTreeSet::new();
    let (mut served, mut metered) = (0, true);
    for slot in known.slots {
        let known_pod =
            |pod: &&Pod| pod.fence == fence && !pod.state.is_over() && pod.lease == slot.lease && pod.at == slot.at;
        if known.pods.iter().any(|pod| known_pod(&pod)) {
            served += slot.mask.count_ones();
        } else if let Some(stray) = known.strays.iter().filter(usable).find(|stray| covers(slot, &stray.lease, stray)) {
            served += slot.mask.count_ones();
            metered &= stray.state != PodState::Running || stray.usage.is_some();
            taken.insert(stray.id);
        }
    }
    let complete = served == known.devices;
    let head_stands = known.job.head.is_some_and(|head| {
        taken.contains(&head)
            || known.pods.iter().any(|pod| pod.id == head && pod.fence == fence && !pod.state.is_over())
    });
    let ends = known.job.state == JobState::Settling;
    if (complete && metered && (head_stands || ends)) || (ends && known.slots.is_empty()) {
        return Decision::TakeUp(taken, complete);
    }
    if known.now.since(known.since) < WORKERS_WAIT {
        return Decision::Wait;
    }
    if head_stands || ends { Decision::TakeUp(taken, complete) } else { Decision::Anew }
}

/// A stray's place in the overlay, as its signed statement says.
#[must_use]
pub fn index_of(stray: &Stray) -> Option<OverlayIndex> {
    OverlayIndex::of_address(pod_key::overlay_address(stray.statement.as_deref()?)?)
}

/// A stray as a pod of its job.
fn pod_of(job: JobId, head: Option<PodId>, stray: &Stray, index: OverlayIndex, state: PodState) -> Pod {
    Pod {
        id: stray.id,
        job,
        worker: stray.worker,
        device_key: stray.device_key,
        lease: stray.lease,
        at: stray.at,
        mask: stray.mask,
        index,
        role: if Some(stray.id) == head { PodRole::Head } else { PodRole::Node },
        fence: stray.fence,
        created: stray.reported,
        state,
        reason: stray.reason.clone(),
        statement: stray.statement.clone(),
        exit_code: stray.exit_code,
        usage: stray.usage,
        observation: stray.observation,
    }
}

/// Seconds of one pod that count, as `tasks::epoch` counts them.
fn served_ms(pod: &Pod) -> u64 {
    let claimed = pod.usage.map_or(0, |usage| usage.statement.served_ms);
    claimed.min(pod.observation.observed_ms)
}

/// What was attested or paid of one lease.
#[derive(Clone, Copy, Debug)]
pub struct Attested {
    /// Device-seconds.
    pub device_seconds: u64,
    /// The time up to which they were served.
    pub until: UnixMs,
}

/// Shares out what was attested of one lease: pods whose signed meter says more than was seen of them since are credited
/// up to that meter. Where the meter is as old as the store it may still come: they are credited with what was seen of them
/// beyond it, and those that run with the time since, too. Gives what is left, which pods served that nobody knows any
/// more. Pure.
///
/// Afterwards a pod's seconds and the rest go on with what is seen from now on, and never beyond the meters. Where a meter
/// is old they are less than what was attested until it comes: a leaf takes nothing back.
#[must_use]
pub fn share_attested(attested: Attested, pods: &mut [&mut Pod]) -> u64 {
    let devices = |pod: &Pod| u64::from(pod.mask.count_ones()).max(1);
    let counted: u64 = pods.iter().map(|pod| served_ms(pod) / 1000 * devices(pod)).sum();
    let mut missing = attested.device_seconds.saturating_sub(counted);
    for pod in pods.iter_mut() {
        let claimed = pod.usage.map_or(0, |usage| usage.statement.served_ms);
        let room_s = claimed.saturating_sub(pod.observation.observed_ms) / 1000;
        let give_s = room_s.min(missing / devices(pod));
        pod.observation.observed_ms += give_s * 1000;
        missing -= give_s * devices(pod);
    }
    for pod in pods.iter_mut() {
        let counted_s = served_ms(pod) / 1000;
        // One that is over served nothing since, but its last meter may still come. What is attested of a second may have
        // been served until its end.
        let seen = pod.observation.last_seen.filter(|_| !pod.state.is_over());
        // Chain and node have clocks of their own, and the next beat counts up to this much of the same time again. A meter
        // bounds what a pod is credited with; nothing bounds what is carried.
        let until = attested.until.after(Duration::from_secs(1)).after(OBSERVED_GAP_MAX);
        let unseen = seen.map_or(Duration::ZERO, |seen| until.since(seen).max(OBSERVED_GAP_MAX));
        let unseen_ms = u64::try_from(unseen.as_millis()).unwrap_or(u64::MAX);
        let reach_s = pod.observation.observed_ms.saturating_add(unseen_ms) / 1000;
        let own_s = missing.div_ceil(devices(pod)).min(reach_s.saturating_sub(counted_s));
        pod.observation.observed_ms = pod.observation.observed_ms.max((counted_s + own_s).saturating_mul(1000));
        missing = missing.saturating_sub(own_s.saturating_mul(devices(pod)));
    }
    missing
}

/// What was attested or paid of every lease of an order that stands.
async fn attested(control: &Control, order: &Address) -> anyhow::Result<BTreeMap<Address, Attested>> {
    let mut all = BTreeMap::new();
    for (address, lease) in chain::leases(control, order).await? {
        let epoch = control.store.epoch_with_lease(&address).await?;
        let leaf = epoch.and_then(|epoch| epoch.leaves.into_iter().find(|leaf| leaf.lease == address));
        let leaf = leaf.filter(|leaf| leaf.device_seconds >= lease.device_seconds_paid);
        let until = leaf.as_ref().map(|leaf| UnixMs::from_secs(u64::try_from(leaf.until).unwrap_or_default()));
        let device_seconds = leaf.map_or(lease.device_seconds_paid, |leaf| leaf.device_seconds);
        all.insert(address, Attested { device_seconds, until: until.unwrap_or_else(|| control.now()) });
    }
    Ok(all)
}

/// Carries a decision out: pods of the strays, their meters, the job's row, in one store transaction.
///
/// # Errors
/// When store or chain fail; `Conflict` when somebody else was first.
pub async fn carry_out(control: &Control, found: &Job, known: &Known<'_>, decision: &Decision) -> anyhow::Result<()> {
    let (taken, anew) = match decision {
        Decision::Wait => return Ok(()),
        Decision::TakeUp(taken, _) => (taken.clone(), false),
        Decision::Anew => (BTreeSet::new(), true),
    };
    let mut indices: BTreeSet<OverlayIndex> = known.pods.iter().map(|pod| pod.index).collect();
    let mut added = Vec::new();
    // Those that are taken up come first: a place in the overlay is nobody else's then.
    let (first, rest): (Vec<&Stray>, Vec<&Stray>) = known.strays.iter().partition(|stray| taken.contains(&stray.id));
    for stray in first.into_iter().chain(rest) {
        let Some(index) = index_of(stray).filter(|index| indices.insert(*index)) else { continue };
        // What is not taken up counts for its meter alone.
        let state = if taken.contains(&stray.id) { stray.state } else { PodState::Exited };
        // What was seen of it since this node's start comes on top of what was attested before.
        let unseen = Stray { observation: Observation::default(), ..stray.clone() };
        added.push(pod_of(found.id, found.now.head, &unseen, index, state));
    }
    let mut now = found.now.clone();
    let mut standing: Vec<Pod> = known.pods.to_vec();
    for (lease, attested) in attested(control, &found.order).await? {
        let of_lease = added.iter_mut().chain(&mut standing).filter(|pod| pod.lease == lease);
        let left = share_attested(attested, &mut of_lease.collect::<Vec<_>>());
        // Of what an earlier adoption carried, nothing is left but this.
        now.carried.remove(&lease);
        if left > 0 {
            now.carried.insert(lease, left);
        }
    }
    for pod in &mut added {
        let since = known.strays.iter().find(|stray| stray.id == pod.id).map(|stray| stray.observation);
        let since = since.unwrap_or_default();
        pod.observation.observed_ms = pod.observation.observed_ms.saturating_add(since.observed_ms);
        pod.observation.last_seen = since.last_seen;
    }
    let raised = standing.iter().zip(known.pods).filter(|(raised, stored)| raised.observation != stored.observation);
    let raised: BTreeMap<PodId, Observation> = raised.map(|(pod, _)| (pod.id, pod.observation)).collect();
    now.adopting = None;
    let top = indices.last().map_or(0, |index| index.get() + 1);
    now.next_index = now.next_index.max(top);
    now.roster = now.roster.saturating_add(1).max(known.now.secs());
    if anew {
        let manifest = control.objects.latest_manifest(found.id).await?;
        start_anew(&mut now, known, manifest.map_or(0, |manifest| manifest.attempt));
    } else {
        let all: Vec<&Pod> = standing.iter().chain(&added).filter(|pod| pod.fence == now.fence).collect();
        go_on(&mut now, found.id, &all, matches!(decision, Decision::TakeUp(_, true)));
    }
    let message = if anew { "its pods are started anew" } else { "its pods are taken up where they are" };
    let fields = [("pods", added.len().to_string()), ("fence", now.fence.to_string())];
    let told = job::event(known.now, "adopted", format!("{message}: {}", now.state), &fields);
    tracing::warn!(job = %found.id, order = %found.order, state = %now.state, fence = now.fence, attempt = now.attempt, anew, "adopted");
    control.store.observations_put(&raised).await?;
    let changed = control.store.pods_add(found.id, found.generation, &now, &added, &[], &[told]).await?;
    kept::put_mark(control, &changed.order, &changed.now).await?;
    if anew {
        for pod in known.pods.iter().filter(|pod| !pod.state.is_over()) {
            let reason = Some("started anew, because the operator's store was lost".to_owned());
            let change = PodChange { state: Some(PodState::Exited), reason, ..PodChange::default() };
            control.store.pod_change(pod.id, &change, &[]).await?;
        }
        if changed.now.attempt > 0 && !job::spec_of(&changed)?.checkpoints {
            let reason = "the operator's store was lost, its pods could not be taken up, and it writes no checkpoints";
            job::end(control, &changed, JobOutcome::Failed, reason).await?;
        }
    }
    control.store.strays_drop(&found.order, known.now.after(Duration::from_secs(1))).await?;
    control.wake.signal();
    Ok(())
}

/// A job whose pods are all replaced: a fence and an attempt above everything that was ever begun. Fences count starts, so
/// seconds since 1970 are above all of them, those of workers included that are away now.
fn start_anew(now: &mut JobNow, known: &Known<'_>, attempt_kept: u32) {
    let seen = known.strays.iter().map(|stray| stray.fence).max().unwrap_or_default();
    now.fence = (now.fence.max(seen) + 1).max(known.now.secs());
    now.attempt = now.attempt.max(attempt_kept);
    now.head = None;
    now.submission = None;
    now.gone.clear();
    now.state = if now.attempt == 0 { JobState::Starting } else { JobState::Recovering };
    now.since = known.now;
    now.reason = "the operator's store was lost; its pods start anew".into();
}

/// A job whose pods go on.
fn go_on(now: &mut JobNow, job: JobId, pods: &[&Pod], complete: bool) {
    if now.state == JobState::Settling {
        return;
    }
    let run = complete && pods.iter().all(|pod| pod.state == PodState::Running || pod.state.is_over());
    now.state = match (now.attempt, run) {
        (0, _) => JobState::Starting,
        (_, true) => JobState::Running,
        (_, false) => JobState::Recovering,
    };
    if now.attempt > 0 && now.submission.is_none() {
        now.submission = Some(job::submission_name(job, now.attempt));
    }
    now.reason = String::new();
}

#[cfg(test)]
#[path = "adopt_tests.rs"]
mod tests;
