//! Jobs: submit, list, show, stop, events, output, receipt.

use std::sync::Arc;
use std::time::Duration;

use atoll_api::http::{ErrorBody, JobEvents, JobView, SubmitJob};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::extract::{self, Asked};
use crate::app::auth::{self, Caller};
use crate::app::jobs::{self, Submission};
use crate::control::Control;
use crate::error::{ApiError, Code};

/// The largest submission, in bytes: specification, transaction, base64.
const SUBMIT_BYTES_MAX: usize = 128 << 10;
/// The largest body of the other verbs.
const SMALL_BYTES_MAX: usize = 4 << 10;
/// The longest a call may wait for events.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Submits a job: a signed specification and the renter's signed order. A retry with the same key gives the same job.
#[utoipa::path(post, path = "/v1/jobs", operation_id = "job_submit", tag = "jobs", security(("api_key" = [])), request_body = SubmitJob,
    responses((status = 201, body = JobView), (status = 401, body = ErrorBody), (status = 402, body = ErrorBody),
        (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(crate) async fn submit(
    State(control): State<Arc<Control>>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<JobView>), ApiError> {
    let body = extract::body(body, SUBMIT_BYTES_MAX).await?;
    let seal = extract::seal(&headers)?;
    auth::check_sealed(&seal, "POST", uri.path(), &body, control.now())?;
    let idempotency_key = extract::idempotency_key(&headers)?;
    let request: SubmitJob = extract::json(&body)?;
    let view = extract::market(&control)?;
    let submission = Submission { caller, seal, idempotency_key, request, body };
    let job = jobs::submit(&control, &view, submission).await?;
    Ok((StatusCode::CREATED, Json(jobs::render(&control, &job).await?)))
}

/// The caller's jobs, newest first.
#[utoipa::path(get, path = "/v1/jobs", operation_id = "jobs_list", tag = "jobs", security(("api_key" = [])), responses((status = 200, body = Vec<JobView>), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(State(control): State<Arc<Control>>, caller: Caller) -> Result<Json<Vec<JobView>>, ApiError> {
    let mut views = Vec::new();
    for job in control.store.jobs_of(caller.user.id, 100).await? {
        views.push(jobs::render(&control, &job).await?);
    }
    Ok(Json(views))
}

/// One job.
#[utoipa::path(get, path = "/v1/jobs/{job}", operation_id = "job_show", tag = "jobs", security(("api_key" = [])), params(("job" = String, Path)),
    responses((status = 200, body = JobView), (status = 404, body = ErrorBody)))]
pub(crate) async fn show(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(job): Path<String>,
) -> Result<Json<JobView>, ApiError> {
    let job = jobs::owned(&control, &caller, extract::id(&job, "job")?).await?;
    Ok(Json(jobs::render(&control, &job).await?))
}

/// Stops a job; what was served is paid, the rest refunded.
#[utoipa::path(post, path = "/v1/jobs/{job}/stop", operation_id = "job_stop", tag = "jobs", security(("api_key" = [])), params(("job" = String, Path)),
    responses((status = 200, body = JobView), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody)))]
pub(crate) async fn stop(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(job): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<JobView>, ApiError> {
    let body = extract::body(body, SMALL_BYTES_MAX).await?;
    let seal = extract::seal(&headers)?;
    auth::check_sealed(&seal, "POST", uri.path(), &body, control.now())?;
    let job = jobs::owned(&control, &caller, extract::id(&job, "job")?).await?;
    auth::check_sealer(&caller, &seal, jobs::budget(&job)?)?;
    let job = jobs::stop(&control, job, &seal).await?;
    Ok(Json(jobs::render(&control, &job).await?))
}

/// Which events.
#[derive(Debug, Deserialize)]
pub(crate) struct EventsQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_s: u64,
}

/// Events after a number; waits up to `wait_s` seconds (at most 30) for the first.
#[utoipa::path(get, path = "/v1/jobs/{job}/events", operation_id = "job_events", tag = "jobs", security(("api_key" = [])),
    params(("job" = String, Path), ("after" = Option<u64>, Query), ("wait_s" = Option<u64>, Query)),
    responses((status = 200, body = JobEvents), (status = 404, body = ErrorBody)))]
pub(crate) async fn events(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(job): Path<String>,
    Asked(query): Asked<EventsQuery>,
) -> Result<Json<JobEvents>, ApiError> {
    let job = jobs::owned(&control, &caller, extract::id(&job, "job")?).await?;
    let wait = Duration::from_secs(query.wait_s).min(WAIT_MAX);
    Ok(Json(jobs::events(&control, job.id, query.after, wait).await?))
}

/// Which output.
#[derive(Debug, Deserialize)]
pub(crate) struct LogsQuery {
    #[serde(default)]
    from: u64,
    #[serde(default)]
    follow: bool,
}

/// The job's output from a byte offset; with `follow` until the job has ended and all is sent.
#[utoipa::path(get, path = "/v1/jobs/{job}/logs", operation_id = "job_logs", tag = "jobs", security(("api_key" = [])),
    params(("job" = String, Path), ("from" = Option<u64>, Query), ("follow" = Option<bool>, Query)),
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = 404, body = ErrorBody)))]
pub(crate) async fn logs(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(job): Path<String>,
    Asked(query): Asked<LogsQuery>,
) -> Result<Response, ApiError> {
    let job = jobs::owned(&control, &caller, extract::id(&job, "job")?).await?;
    let output = jobs::output(control, job.id, query.from, query.follow);
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(output)).into_response())
}

/// The job's receipt, as this operator signed it.
#[utoipa::path(get, path = "/v1/jobs/{job}/receipt", operation_id = "job_receipt", tag = "jobs", security(("api_key" = [])), params(("job" = String, Path)),
    responses((status = 200, body = Object), (status = 404, body = ErrorBody)))]
pub(crate) async fn receipt(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(job): Path<String>,
) -> Result<Response, ApiError> {
    let job = jobs::owned(&control, &caller, extract::id(&job, "job")?).await?;
    let Some(receipt) = control.store.receipt(job.id).await? else {
        let message = format!("{} is {}: its receipt is written once everything is settled", job.id, job.now.state);
        return Err(ApiError::new(Code::NotSettled, message));
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], receipt).into_response())
}
