//! What a user does with jobs: submit, stop, look.
//!
//! Nothing is charged and nothing written before every check has passed; then one store transaction accepts the job, and
//! reconcilers do the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atoll_api::http::{JobEvent, JobEvents, JobView, PodView, RefusedWorker, SubmitJob};
use atoll_domain::id::{ClusterId, JobId};
use atoll_domain::job::{JobSpec, JobState, SPEC_BYTES_MAX, SignedSpec, SpecError};
use atoll_domain::key::{Digest, PublicKey};
use atoll_domain::meter::served_seconds;
use atoll_domain::money::Atl;
use atoll_domain::placement::Problem;
use atoll_domain::request::{NONCE_KEPT, RequestSeal};
use base64::Engine as _;
use bytes::Bytes;
use futures_util::Stream;

use super::auth::{self, Caller};
use super::market::MarketView;
use super::order::{self, Terms};
use super::{adopt, budget, job, kept, pod_token, quotes};
use crate::control::Control;
use crate::error::{ApiError, Code};
use crate::objects::{ObjectError, Owner};
use crate::store::rows::{Event, Job, JobNow, NewJob, Pod};
use crate::store::{Accepted, StoreError};

/// The most events of one answer.
const EVENTS_MAX: u32 = 500;
/// How often a waiting call looks again: events may come from another node.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How often a change that lost against another is tried again.
const TRIES_MAX: u32 = 16;

/// A submission whose seal fits it; whether its signer may, the specification says.
#[derive(Debug)]
pub struct Submission {
    /// Who submits.
    pub caller: Caller,
    /// The wallet's seal; its nonce is used up by acceptance.
    pub seal: RequestSeal,
    /// Makes a retry the same request.
    pub idempotency_key: String,
    /// What is submitted.
    pub request: SubmitJob,
    /// The exact body.
    pub body: Bytes,
}

/// A specification and an order that fit each other, the network and the caller.
struct Checked {
    signed: SignedSpec,
    spec: JobSpec,
    transaction: Vec<u8>,
    terms: Terms,
}

/// Accepts a job, or gives the one that the same submission made before.
///
/// # Errors
/// The first check that fails, in words; nothing is left behind then.
pub async fn submit(control: &Control, view: &MarketView, submission: Submission) -> Result<Job, ApiError> {
    let checked = check(control, view, &submission)?;
    let known = match control.store.job_by_order(&checked.spec.order).await? {
        Some(known) => Some(known),
        // Accepted before the store was lost: a retry must find the same job.
        None => adopt::by_order(control, &checked.spec.order).await.map_err(ApiError::internal)?,
    };
    // A retry of an accepted submission must not fail because its own order has taken money and devices by now.
    if known.is_none() {
        check_bundle(control, &submission.caller, &checked.spec).await?;
        check_funds(control, view, &checked).await?;
        check_fit(control, view, &checked).await?;
    }
    let new = new_job(control, &submission, checked);
    let id = match control.store.job_accept(&new, control.now()).await? {
        Accepted::New => {
            adopt::keep(control, &new.job).await.map_err(ApiError::internal)?;
            tracing::info!(job = %new.job.id, order = %new.job.order, user = %new.job.user, "job accepted");
            control.wake.signal();
            return Ok(new.job);
        }
        Accepted::Again(id) => id,
        Accepted::KeyReused => {
            let message = "this Idempotency-Key stands for another request: use a new one for a new request";
            return Err(ApiError::new(Code::IdempotencyKeyReused, message));
        }
        Accepted::Replayed => {
            let message = "this sealed request was used before: seal a new one (for a retry, keep the Idempotency-Key)";
            return Err(ApiError::new(Code::ReplayedRequest, message));
        }
        Accepted::OrderTaken => {
            let message =
                format!("a job runs under the order {} already: post a new order for a new job", new.job.order);
            return Err(ApiError::new(Code::OrderTaken, message));
        }
    };
    let again = control.store.job(id).await?.ok_or_else(|| ApiError::not_found("job"))?;
    adopt::keep(control, &again).await.map_err(ApiError::internal)?;
    Ok(again)
}

/// Checks what needs neither chain nor store: form, bounds, signatures, and that all parts say the same.
fn check(control: &Control, view: &MarketView, submission: &Submission) -> Result<Checked, ApiError> {
    let decoded = |text: &str, what: &str, bytes_max: usize| {
        let bad = |why: String| ApiError::new(Code::BadRequest, format!("`{what}` {why}"));
        if text.len() > bytes_max * 4 / 3 + 4 {
            return Err(bad(format!("has more than {bytes_max} bytes")));
        }
        base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| bad(format!("is not base64: {error}")))
    };
    let request = &submission.request;
    let signed =
        SignedSpec { bytes: decoded(&request.spec, "spec", SPEC_BYTES_MAX)?, signature: request.spec_signature };
    let transaction = decoded(&request.order_transaction, "order_transaction", 4096)?;
    let spec = signed.open().map_err(|error| match error {
        SpecError::NotSigned(_) => ApiError::new(Code::SpecNotSigned, error.to_string()),
        _ => ApiError::new(Code::BadSpec, error.to_string()),
    })?;
    auth::check_sealer(&submission.caller, &submission.seal, spec.budget)?;
    let wallet = submission.caller.user.wallet;
    if spec.renter != wallet {
        let message = format!(
            "the job's renter is {}, and your key acts with {wallet}: submit with that wallet's key",
            spec.renter
        );
        return Err(ApiError::new(Code::WrongWallet, message));
    }
    if spec.network != view.network.network_root {
        let message = format!(
            "the job is signed for network {}, this is {}: check the network_root in your profile",
            spec.network, view.network.network_root
        );
        return Err(ApiError::new(Code::OtherNetwork, message));
    }
    let model = quotes::model(view, &spec.model)?;
    let terms = order::check(&transaction, &spec, &signed.root(), view, model, &control.keys.node.public())
        .map_err(|misfit| ApiError::new(Code::BadOrder, misfit.to_string()))?;
    Ok(Checked { signed, spec, transaction, terms })
}

async fn check_bundle(control: &Control, caller: &Caller, spec: &JobSpec) -> Result<(), ApiError> {
    let there = control.objects.blob_bytes(Owner::User(caller.user.id), &spec.bundle.sha256).await?;
    if there == Some(spec.bundle.bytes) {
        return Ok(());
    }
    let message = format!(
        "the job's folder {} ({} bytes) is not uploaded under your key: PUT /v1/blobs/{} first",
        spec.bundle.sha256, spec.bundle.bytes, spec.bundle.sha256
    );
    Err(ApiError::new(Code::BundleMissing, message))
}

/// The renter must own what the order escrows, or the session key's vault hold it within the key's limits.
async fn check_funds(control: &Control, view: &MarketView, checked: &Checked) -> Result<(), ApiError> {
    let Checked { terms, spec, .. } = checked;
    let owner = match spec.budget {
        None => spec.renter,
        Some(key) => {
            budget::check(control, &spec.renter, &key, terms.escrow).await?;
            order::budget_of(&spec.renter, &key)
        }
    };
    let source = atoll_chain::Address(terms.source.0);
    let account = match control.rpc.token_account(&source).await {
        Ok(account) => account,
        Err(atoll_chain::RpcError::Malformed { .. }) => {
            let message = format!("the order pays from {}, which is no token account", terms.source);
            return Err(ApiError::new(Code::BadOrder, message));
        }
        Err(error) => return Err(ApiError::chain(error)),
    };
    if account.is_some_and(|account| account.owner.0 != owner.0 || account.mint.0 != view.network.mint.0) {
        let message = format!("the order pays from {}, which is not the ATL account of {owner}", terms.source);
        return Err(ApiError::new(Code::BadOrder, message));
    }
    let balance = Atl(account.map_or(0, |account| account.amount));
    match terms.escrow.checked_sub(balance) {
        None | Some(Atl(0)) => Ok(()),
        Some(missing) => {
            let message = format!(
                "the order escrows {} and {owner} has {balance}: {missing} are missing; add funds, or lower devices, max_hours or max_price",
                terms.escrow
            );
            Err(ApiError::new(Code::InsufficientFunds, message))
        }
    }
}

/// Somebody must be able to serve it now.
async fn check_fit(control: &Control, view: &MarketView, checked: &Checked) -> Result<(), ApiError> {
    let Checked { terms, spec, .. } = checked;
    let problem = Problem {
        model: spec.model.clone(),
        devices: spec.devices,
        price_max: terms.price_max,
        pack: spec.pack.clone(),
        excluded: BTreeSet::new(),
        setbacks: BTreeMap::new(),
        strangers: control.config.strangers,
        now: control.now(),
    };
    let (plan, candidates) = quotes::plan(control, view, &problem).await?;
    if !plan.placed.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} `{}` devices at up to {} with the pack `{}` are wanted, {} fit now; nothing was charged. The reasons are listed per worker",
        spec.devices, spec.model, terms.price_max, spec.pack.name, plan.devices_free
    );
    let refusals = quotes::refusals(&plan, &candidates, spec.devices);
    Err(ApiError::new(Code::CannotBeFilled, message).with_refusals(refusals))
}

fn new_job(control: &Control, submission: &Submission, checked: Checked) -> NewJob {
    let now = control.now();
    let Checked { signed, spec, transaction, terms } = checked;
    let message = format!("accepted: {} {} devices for at most {} s", spec.devices, spec.model, spec.seconds_max);
    let cluster = ClusterId::from_random(control.random());
    let job = Job {
        id: JobId::from_random(control.random()),
        user: submission.caller.user.id,
        cluster,
        name: spec.name,
        spec: signed.bytes,
        spec_signature: signed.signature,
        order: spec.order,
        order_tx: transaction,
        escrow: terms.escrow.0,
        created: now,
        generation: 1,
        now: first(now, pod_token::of_runtime(&control.keys.pod_secret, cluster)),
    };
    NewJob {
        job,
        idempotency_key: submission.idempotency_key.clone(),
        request_sha256: Digest::of(&submission.body),
        seal: (submission.seal.signer, submission.seal.nonce),
        nonce_forget_at: now.after(NONCE_KEPT),
        event: job::event(now, "state", message, &[("state", JobState::Ordering.to_string())]),
    }
}

/// The changing part of a job that has just been accepted.
pub(super) fn first(now: atoll_domain::time::UnixMs, runtime_token: String) -> JobNow {
    JobNow {
        state: JobState::Ordering,
        outcome: None,
        stop_wanted: false,
        reason: "its order is on the way to the chain".into(),
        refusals: BTreeMap::new(),
        attempt: 0,
        submission: None,
        head: None,
        gone: BTreeSet::new(),
        setbacks: BTreeMap::new(),
        next_index: 0,
        roster: 0,
        fence: 1,
        runtime_token,
        step: None,
        accuracy_ppm: None,
        resumed_from_step: None,
        log_bytes: 0,
        attempt_log_bytes: 0,
        terms: None,
        leases: Vec::new(),
        extended_s: 0,
        extensions: Vec::new(),
        extensions_sought: None,
        left_behind: std::collections::BTreeMap::new(),
        since: now,
        ended: None,
        adopting: None,
        carried: BTreeMap::new(),
        elsewhere: None,
        newer: BTreeMap::new(),
    }
}

/// A job of the caller; another's is as if it were not there.
///
/// # Errors
/// [`Code::NotFound`].
pub async fn owned(control: &Control, caller: &Caller, id: JobId) -> Result<Job, ApiError> {
    let job = control.store.job(id).await?.filter(|job| job.user == caller.user.id);
    job.ok_or_else(|| ApiError::not_found("job"))
}

/// The session key that ordered a job, if one did.
///
/// # Errors
/// When the store's specification is damaged.
pub fn budget(job: &Job) -> Result<Option<PublicKey>, ApiError> {
    Ok(job::spec_of(job).map_err(ApiError::internal)?.budget)
}

/// Wishes a job stopped. A job that is over, or stopped already, stays as it is.
///
/// # Errors
/// [`Code::ReplayedRequest`], [`Code::Conflict`].
pub async fn stop(control: &Control, job: Job, seal: &RequestSeal) -> Result<Job, ApiError> {
    let now = control.now();
    if !control.store.nonce_use(&seal.signer, &seal.nonce, now, now.after(NONCE_KEPT)).await? {
        let message = "this sealed request was used before: seal a new one";
        return Err(ApiError::new(Code::ReplayedRequest, message));
    }
    let wanted = |now: &JobNow| !now.state.is_final() && !now.stop_wanted;
    if wanted(&job.now) {
        // Before it is acknowledged: a store that is lost must not have the job run on at its renter's cost.
        kept::put_stop(control, &job.order, now).await?;
    }
    let event = job::event(now, "state", "its renter wants it stopped", &[("stop_wanted", "true".to_owned())]);
    update(control, job, wanted, |now| now.stop_wanted = true, &[event]).await
}

/// Changes a job where `wanted`, again when somebody else was first.
///
/// # Errors
/// [`Code::Conflict`] when others were first again and again.
pub(crate) async fn update(
    control: &Control,
    mut job: Job,
    wanted: impl Fn(&JobNow) -> bool,
    edit: impl Fn(&mut JobNow),
    events: &[Event],
) -> Result<Job, ApiError> {
    for _ in 0..TRIES_MAX {
        if !wanted(&job.now) {
            return Ok(job);
        }
        match job::change_with(control, &job, &edit, events.to_vec()).await {
            Ok(changed) => return Ok(changed),
            Err(StoreError::Conflict { .. }) => {
                job = control.store.job(job.id).await?.ok_or_else(|| ApiError::not_found("job"))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict { what: "job" }.into())
}

/// The pod that runs the cluster's head, if it runs.
///
/// # Errors
/// When the store fails.
pub async fn head(control: &Control, job: &Job) -> Result<Option<Pod>, ApiError> {
    let Some(id) = job.now.head else { return Ok(None) };
    Ok(control.store.pod(id).await?.filter(|pod| !pod.state.is_over()))
}

/// A job as its owner sees it.
///
/// # Errors
/// When the store fails.
pub async fn render(control: &Control, job: &Job) -> Result<JobView, ApiError> {
    let spec = job::spec_of(job)?;
    let pods = control.store.pods_of(job.id).await?;
    let now = &job.now;
    let refusal = |(worker, reason): (&_, &String)| RefusedWorker { worker: *worker, reason: reason.clone() };
    Ok(JobView {
        job: job.id,
        name: job.name.clone(),
        state: now.state,
        outcome: now.outcome,
        reason: now.reason.clone(),
        order: job.order,
        cluster: job.cluster,
        devices: spec.devices,
        attempt: now.attempt,
        step: now.step,
        accuracy_ppm: now.accuracy_ppm,
        resumed_from_step: now.resumed_from_step,
        created: job.created,
        ended: now.ended,
        escrow: Atl(now.terms.map_or(job.escrow, |terms| terms.escrow)),
        pods: pods.iter().map(|pod| render_pod(control, pod)).collect(),
        refusals: now.refusals.iter().map(refusal).collect(),
    })
}

fn render_pod(control: &Control, pod: &Pod) -> PodView {
    let observation = control.links.observed(pod.id, pod.observation);
    let claimed_ms = pod.usage.map_or(0, |usage| usage.statement.served_ms);
    PodView {
        pod: pod.id,
        worker: pod.worker,
        lease: pod.lease,
        role: pod.role,
        state: pod.state,
        overlay_ip: pod.index.address().to_string(),
        served_s: served_seconds(claimed_ms, observation.observed_ms, u64::MAX),
        reason: pod.reason.clone(),
    }
}

/// Events after a number; waits for the first, unless the job is over.
///
/// # Errors
/// When the store fails.
pub async fn events(control: &Control, id: JobId, after: u64, wait: Duration) -> Result<JobEvents, ApiError> {
    let until = tokio::time::Instant::now() + wait;
    let mut changed = control.wake.subscribe();
    loop {
        changed.mark_unchanged();
        let job = control.store.job(id).await?.ok_or_else(|| ApiError::not_found("job"))?;
        let events = control.store.events(id, after, EVENTS_MAX).await?;
        if !events.is_empty() || job.now.state.is_final() || tokio::time::Instant::now() >= until {
            let event = |(seq, event): (u64, Event)| JobEvent {
                seq,
                at: event.at,
                kind: event.kind,
                message: event.message,
                fields: event.fields,
            };
            return Ok(JobEvents { events: events.into_iter().map(event).collect(), state: job.now.state });
        }
        tokio::select! {
            biased;
            _ = changed.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
    }
}

/// The job's output from an offset, followed until the job is over where that is wished.
pub fn output(
    control: Arc<Control>,
    id: JobId,
    from: u64,
    follow: bool,
) -> impl Stream<Item = Result<Bytes, ObjectError>> + Send {
    futures_util::stream::try_unfold((control, from), move |(control, at)| async move {
        loop {
            // Read whether it is over first: what is appended before that is sent for sure.
            let over = match control.store.job(id).await {
                Ok(job) => job.is_none_or(|job| job.now.state.is_final()),
                Err(error) => return Err(ObjectError::Corrupt(error.to_string())),
            };
            let bytes = control.objects.read_log(id, at).await?;
            if !bytes.is_empty() {
                let next = at + bytes.len() as u64;
                return Ok(Some((bytes, (control, next))));
            }
            if over || !follow {
                return Ok(None);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    })
}
