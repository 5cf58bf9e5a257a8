//! Whether the node lives, whether it can work, and what it is.

use std::sync::Arc;

use atoll_api::http::{ErrorBody, Version};
use axum::Json;
use axum::extract::State;

use super::extract;
use crate::control::Control;
use crate::error::{ApiError, Code};

/// The process answers.
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "node", responses((status = 200, description = "it lives")))]
pub(crate) async fn livez() -> &'static str {
    "ok\n"
}

/// Store and chain answer.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "node", responses((status = 200, description = "it can work"), (status = 503, body = ErrorBody)))]
pub(crate) async fn readyz(State(control): State<Arc<Control>>) -> Result<&'static str, ApiError> {
    control.store.ping().await.map_err(|error| ApiError {
        context: Some(error.into()),
        ..ApiError::new(Code::NotReady, "the store does not answer")
    })?;
    extract::market(&control)?;
    Ok("ok\n")
}

/// The server's build.
#[utoipa::path(get, path = "/version", operation_id = "version", tag = "node", responses((status = 200, body = Version)))]
pub(crate) async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION").to_owned() })
}
