//! Uploads: the folders of jobs, packed.

use std::sync::Arc;

use atoll_api::http::ErrorBody;
use atoll_domain::job::BUNDLE_BYTES_MAX;
use atoll_domain::key::Digest;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use crate::app::auth::Caller;
use crate::control::Control;
use crate::error::{ApiError, Code};
use crate::objects::Owner;

/// Keeps the body under its SHA-256; doing it again is harmless.
#[utoipa::path(put, path = "/v1/blobs/{sha256}", operation_id = "blob_put", tag = "jobs", security(("api_key" = [])), params(("sha256" = String, Path, description = "lower-case hexadecimal")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204, description = "kept"), (status = 413, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(crate) async fn put(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(sha256): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let sha256: Digest = sha256.parse().map_err(|_| {
        ApiError::new(Code::BadRequest, "the path must end in a SHA-256: 64 lower-case hexadecimal digits")
    })?;
    let owner = Owner::User(caller.user.id);
    control.objects.put_blob(owner, sha256, BUNDLE_BYTES_MAX, body.into_data_stream()).await?;
    Ok(StatusCode::NO_CONTENT)
}
