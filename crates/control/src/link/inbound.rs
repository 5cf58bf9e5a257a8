//! Carries out what a linked worker says. Everything is idempotent, because a worker repeats what it thinks was lost.
//!
//! A worker is believed about its own pods and nothing else: a pod that the store has on another worker, under another
//! lease or another fence is left alone. One that the store does not know is `strays`'.

use std::collections::BTreeSet;

use atoll_api::link::envelope::Body;
use atoll_api::link::{CommandResult, Heartbeat, PodReport, Usage};
use atoll_domain::cluster::PodState;
use atoll_domain::id::PodId;
use atoll_domain::meter::SignedUsage;
use atoll_domain::pod_key::{self, Expected};

use super::connection::{End, Link};
use super::strays;
use crate::app::job;
use crate::error::Code;
use crate::store::rows::{CommandAnswer, Pod, PodChange};

/// The most pods one heartbeat lists.
const RUNNING_MAX: usize = 256;
/// The longest text a worker sends: reasons, codes.
const WORDS_MAX: usize = 1000;

pub(super) fn refused(why: impl Into<String>) -> End {
    End::Refused(Code::LinkBadFrame, why.into())
}

/// The first characters of what a worker says, without control characters.
pub(super) fn words(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

/// Carries out one numbered message.
pub(super) async fn body(link: &mut Link, body: Body) -> Result<(), End> {
    match body {
        Body::PodReport(report) => pod_report(link, &report).await,
        Body::Usage(signed) => usage(link, &signed).await,
        Body::CommandResult(result) => command_result(link, result).await,
        _ => Err(refused("a message that only the control plane sends")),
    }
}

/// What really runs on a worker that has just linked. A pod that should be there and is not has ended unseen.
pub(super) async fn hello(link: &mut Link, reports: &[PodReport]) -> Result<(), End> {
    for report in reports {
        pod_report(link, report).await?;
    }
    let named: BTreeSet<&str> = reports.iter().map(|report| report.pod.as_str()).collect();
    for pod in link.control.store.pods_on(link.worker.id).await? {
        let started = matches!(pod.state, PodState::Prepared | PodState::Running);
        if started && !named.contains(pod.id.to_string().as_str()) {
            let reason = "its worker came back without it".to_owned();
            let change = PodChange { state: Some(PodState::Exited), reason: Some(reason), ..PodChange::default() };
            change_pod(link, &pod, &change).await?;
        }
    }
    strays::unnamed(link, |stray| named.contains(stray.to_string().as_str())).await
}

async fn pod_report(link: &mut Link, report: &PodReport) -> Result<(), End> {
    let id: PodId = report.pod.parse().map_err(|_| refused("a report about something that is no pod"))?;
    let state: PodState = serde_json::from_value(report.state.clone().into())
        .ok()
        .filter(|state| *state != PodState::Lost)
        .ok_or_else(|| refused("a pod in a state that no worker reports"))?;
    let Some(pod) = link.control.store.pod(id).await? else {
        return strays::report(link, id, state, report).await;
    };
    let same_lease = report.lease.is_empty() || report.lease == pod.lease.0;
    if pod.worker != link.worker.id || pod.fence != report.fence || !same_lease {
        tracing::warn!(worker = %link.worker.id, pod = %id, fence = report.fence, "a report that is not about this worker's pod");
        return Ok(());
    }
    let statement = (!report.statement.is_empty()).then(|| report.statement.clone());
    let stated = statement.is_some() && pod.statement != statement;
    if !(stated || pod.state != state) || state == PodState::Requested {
        return Ok(());
    }
    if stated {
        check_statement(link, &pod, &report.statement).await?;
    }
    let change = PodChange {
        state: Some(state),
        reason: (!report.reason.is_empty()).then(|| words(&report.reason)),
        statement,
        exit_code: (state == PodState::Exited).then_some(report.exit_code),
    };
    change_pod(link, &pod, &change).await
}

/// Its cluster's pods refuse a roster for one statement that is wrong: this one goes no further. The link ends with it, and
/// its worker's pods are replaced like those of any worker that is away.
async fn check_statement(link: &Link, pod: &Pod, statement: &[u8]) -> Result<(), End> {
    let Some(job) = link.control.store.job(pod.job).await? else { return Ok(()) };
    let (lease, address, device_key) = (pod.lease, pod.index.address(), pod.device_key);
    let expected = Expected { order: job.order, lease, address, device_key, now_s: link.control.now().secs() };
    let key = pod_key::check(statement, &expected).map_err(|why| refused(format!("{}: {why}", pod.id)))?;
    if pod.statement.is_some() {
        // A pod has one key for life; its peers may have been told already.
        return Err(refused(format!("{}: another pod key statement than before", pod.id)));
    }
    let others = link.control.store.pods_of(pod.job).await?;
    let same = |other: &&Pod| other.id != pod.id && other.statement.as_deref().and_then(pod_key::key) == Some(key);
    match others.iter().find(same) {
        Some(other) => Err(refused(format!("{}: its overlay key is that of {}", pod.id, other.id))),
        None => Ok(()),
    }
}

async fn change_pod(link: &mut Link, pod: &Pod, change: &PodChange) -> Result<(), End> {
    let control = &link.control;
    let state = change.state.unwrap_or(pod.state);
    if state.is_over() {
        // Whoever attests its last leaf may be another node: what this one saw must be there before it is over.
        super::flush(control).await;
    }
    let mut message = format!("pod {} on {} is {state}", pod.index.address(), pod.worker);
    if let Some(reason) = &change.reason {
        message.push_str(": ");
        message.push_str(reason);
    }
    let fields = [("pod", pod.id.to_string()), ("worker", pod.worker.to_string()), ("state", state.to_string())];
    let event = job::event(control.now(), "pod", message, &fields);
    let events = if state == pod.state { vec![] } else { vec![event] };
    if control.store.pod_change(pod.id, change, &events).await? {
        tracing::info!(worker = %pod.worker, pod = %pod.id, %state, reason = change.reason.as_deref(), "pod changed state");
        control.wake.signal();
    }
    Ok(())
}

async fn usage(link: &mut Link, usage: &Usage) -> Result<(), End> {
    if usage.signed.len() > 4096 {
        return Err(refused("an overlong usage statement"));
    }
    let signed: SignedUsage =
        serde_json::from_slice(&usage.signed).map_err(|error| refused(format!("a usage statement: {error}")))?;
    let Some(pod) = link.control.store.pod(signed.statement.pod).await? else {
        return strays::usage(link, &signed).await;
    };
    let own = pod.worker == link.worker.id && pod.lease == signed.statement.lease;
    if !own || signed.verify(&pod.device_key).is_err() {
        tracing::warn!(worker = %link.worker.id, pod = %pod.id, "a usage statement that is not this pod's; ignored");
        return Ok(());
    }
    link.control.store.usage_put(pod.id, &signed).await?;
    Ok(())
}

async fn command_result(link: &mut Link, result: CommandResult) -> Result<(), End> {
    let id = result.command.parse().map_err(|_| refused("an answer to something that is no command"))?;
    let answer =
        CommandAnswer { accepted: result.accepted, code: words(&result.code), message: words(&result.message) };
    if link.control.store.command_answer(link.worker.id, id, &answer).await? {
        if !answer.accepted {
            tracing::warn!(worker = %link.worker.id, command = %id, code = answer.code, message = answer.message, "command refused");
        }
        link.session(|session| session.commands.remove(&id));
        link.control.wake.signal();
    }
    Ok(())
}

/// Counts observed time for the pods that run, as far as they are this worker's.
pub(super) async fn heartbeat(link: &mut Link, beat: &Heartbeat) -> Result<(), End> {
    if beat.running.len() > RUNNING_MAX {
        return Err(refused("a heartbeat that lists too many pods"));
    }
    if beat.running.is_empty() {
        return Ok(());
    }
    let mut unknown: BTreeSet<&str> = beat.running.iter().map(String::as_str).collect();
    for pod in link.control.store.pods_on(link.worker.id).await? {
        let named = unknown.remove(pod.id.to_string().as_str());
        if pod.state == PodState::Running && named {
            link.control.links.beat(pod.id, pod.observation);
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    strays::beat(link, |stray| unknown.contains(stray.to_string().as_str())).await
}
