//! Blobs: read the job's folder and what its pods wrote, write by digest.

use atoll_api::pod::BLOB_BYTES_MAX;
use atoll_domain::key::Digest;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::{Door, Tenant};
use crate::app::job;
use crate::error::{ApiError, Code};
use crate::objects::Owner;

fn digest(text: &str) -> Result<Digest, ApiError> {
    let bad = || ApiError::new(Code::BadRequest, "a blob goes by its SHA-256: 64 lower-case hexadecimal digits");
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(bad());
    }
    text.parse().map_err(|_| bad())
}

/// Where a blob of this digest would be for this tenant: the job's folder was uploaded by its user.
fn owner(tenant: &Tenant, sha256: &Digest) -> Result<Owner, ApiError> {
    let spec = job::spec_of(&tenant.job)?;
    let bundle = spec.bundle.sha256 == *sha256;
    Ok(if bundle { Owner::User(tenant.job.user) } else { Owner::Job(tenant.job.id) })
}

fn absent(sha256: &Digest) -> ApiError {
    ApiError::new(Code::NotFound, format!("this job has no blob {sha256}"))
}

pub(super) async fn get(
    State(door): State<Door>,
    tenant: Tenant,
    Path(sha256): Path<String>,
) -> Result<Response, ApiError> {
    let sha256 = digest(&sha256)?;
    let blob = door.control.objects.blob(owner(&tenant, &sha256)?, &sha256).await?.ok_or_else(|| absent(&sha256))?;
    let mut answer = Response::new(Body::from_stream(blob.content));
    answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(blob.bytes));
    Ok(answer)
}

pub(super) async fn head(
    State(door): State<Door>,
    tenant: Tenant,
    Path(sha256): Path<String>,
) -> Result<Response, ApiError> {
    let sha256 = digest(&sha256)?;
    let bytes =
        door.control.objects.blob_bytes(owner(&tenant, &sha256)?, &sha256).await?.ok_or_else(|| absent(&sha256))?;
    let mut answer = StatusCode::OK.into_response();
    answer.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    Ok(answer)
}

pub(super) async fn put(
    State(door): State<Door>,
    tenant: Tenant,
    Path(sha256): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let sha256 = digest(&sha256)?;
    door.control.objects.put_blob(Owner::Job(tenant.job.id), sha256, BLOB_BYTES_MAX, body.into_data_stream()).await?;
    Ok(StatusCode::NO_CONTENT)
}
