//! What the command says of itself: events for its owner, and the figures shown beside the job.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use atoll_api::pod::{Report, ReportKind};
use atoll_domain::id::JobId;
use atoll_domain::time::UnixMs;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;

use super::{Door, Tenant};
use crate::app::{job, jobs};
use crate::error::{ApiError, Code};
use crate::http::extract;
use crate::store::rows::{Event, JobNow};

/// The largest report, in bytes.
const REPORT_BYTES_MAX: usize = 16 << 10;
/// The longest message, in characters.
const MESSAGE_CHARS_MAX: usize = 1000;
/// Reports a second that one job may make on average.
const PER_S: u64 = 20;
/// Reports that it may make at once.
const BURST: u64 = 200;
/// Reports of steps kept as events, and as many of all other kinds; later ones still show in the job.
const KEPT_MAX: u64 = 20_000;

/// Reports of one job: thousandths left, since when, how many steps and how many others were kept.
#[derive(Clone, Copy, Debug)]
struct Meter {
    milli: u64,
    at: UnixMs,
    kept: [u64; 2],
}

/// By job. A job's meter starts anew when the node does.
#[derive(Debug, Default)]
pub(super) struct Meters(Mutex<BTreeMap<JobId, Meter>>);

/// Jobs metered at once; the oldest are forgotten.
const METERS_MAX: usize = 10_000;

impl Meters {
    /// Counts one report: none when it comes too fast, else whether it is kept as an event.
    fn count(&self, job: JobId, kind: ReportKind, now: UnixMs) -> Option<bool> {
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if meters.len() >= METERS_MAX && !meters.contains_key(&job) {
            let oldest = meters.iter().min_by_key(|(_, meter)| meter.at).map(|(job, _)| *job);
            oldest.and_then(|oldest| meters.remove(&oldest));
        }
        let meter = meters.entry(job).or_insert(Meter { milli: BURST * 1000, at: now, kept: [0; 2] });
        let passed = now.0.saturating_sub(meter.at.0);
        meter.milli = meter.milli.saturating_add(passed.saturating_mul(PER_S)).min(BURST * 1000);
        meter.at = now;
        meter.milli = meter.milli.checked_sub(1000)?;
        let kept = &mut meter.kept[usize::from(kind != ReportKind::Step)];
        *kept += 1;
        Some(*kept <= KEPT_MAX)
    }
}

pub(super) async fn post(State(door): State<Door>, tenant: Tenant, body: Body) -> Result<StatusCode, ApiError> {
    let report: Report = extract::json(&extract::body(body, REPORT_BYTES_MAX).await?)?;
    check(&report)?;
    tenant.check_attempt(report.attempt)?;
    let now = door.control.now();
    let kept = door.control.tenants.meters.count(tenant.job.id, report.kind, now).ok_or_else(|| {
        ApiError::new(Code::RateLimited, format!("a job reports at most {PER_S} times a second: report less often"))
    })?;
    let told = event(&report, &tenant, now);
    let events = if kept { vec![told] } else { vec![] };
    let current = |now: &JobNow| now.attempt == report.attempt && !now.state.is_final();
    jobs::update(&door.control, tenant.job, current, |now| apply(&report, now), &events).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check(report: &Report) -> Result<(), ApiError> {
    let bad = |message: &str| Err(ApiError::new(Code::BadRequest, message));
    if report.message.as_ref().is_some_and(|message| message.chars().count() > MESSAGE_CHARS_MAX) {
        return bad("a report's message has at most 1,000 characters");
    }
    if report.loss.is_some_and(|loss| !loss.is_finite()) {
        return bad("a loss is a finite number");
    }
    if report.accuracy.is_some_and(|accuracy| !(0.0..=1.0).contains(&accuracy)) {
        return bad("an accuracy is a number from 0 to 1");
    }
    Ok(())
}

/// Millionths of a number from 0 to 1.
fn ppm(share: f64) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie between 0 and 1")]
    let ppm = (share * 1_000_000.0).round() as u32;
    ppm
}

fn apply(report: &Report, now: &mut JobNow) {
    now.step = Some(report.step);
    if let Some(accuracy) = report.accuracy {
        now.accuracy_ppm = Some(ppm(accuracy));
    }
    if report.kind == ReportKind::Resumed {
        now.resumed_from_step = report.resumed_from_step;
    }
}

fn event(report: &Report, tenant: &Tenant, now: UnixMs) -> Event {
    let mut fields = vec![
        ("attempt", report.attempt.to_string()),
        ("step", report.step.to_string()),
        ("epoch", report.epoch.to_string()),
        ("pod", tenant.pod.id.to_string()),
    ];
    fields.extend(report.loss.map(|loss| ("loss", loss.to_string())));
    fields.extend(report.accuracy.map(|accuracy| ("accuracy", accuracy.to_string())));
    fields.extend(report.weights_sha256.map(|sha256| ("weights_sha256", sha256.to_string())));
    fields.extend(report.resumed_from_step.map(|step| ("resumed_from_step", step.to_string())));
    let said = report.message.as_deref().unwrap_or_default();
    let said: String = said.chars().filter(|c| !c.is_control()).collect();
    let message = match (said.is_empty(), report.kind) {
        (false, _) => said,
        (true, ReportKind::Resumed) => format!("resumed at step {}", report.step),
        (true, kind) => format!("{} (step {})", kind.word(), report.step),
    };
    job::event(now, report.kind.word(), message, &fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_limited_per_job() {
        let (meters, job) = (Meters::default(), JobId::from_random([250; 16]));
        let taken = |at| (0..1000).filter(|_| meters.count(job, ReportKind::Step, UnixMs(at)).is_some()).count();
        assert_eq!(taken(10_000), 200);
        assert_eq!(taken(11_000), 20);
    }

    #[test]
    fn no_kind_of_report_fills_the_store() {
        let (meters, job) = (Meters::default(), JobId::from_random([251; 16]));
        for kind in [ReportKind::Checkpoint, ReportKind::Step] {
            let kept = (0..2 * KEPT_MAX).filter(|n| meters.count(job, kind, UnixMs(n * 1000)) == Some(true)).count();
            assert_eq!(kept as u64, KEPT_MAX, "{kind:?}");
        }
    }

    #[test]
    fn shares_become_millionths() {
        assert_eq!([ppm(0.0), ppm(1.0), ppm(0.972_222_2)], [0, 1_000_000, 972_222]);
    }
}
