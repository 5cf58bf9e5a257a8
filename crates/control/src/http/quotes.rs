//! What a job would cost now.

use std::sync::Arc;

use atoll_api::http::{ErrorBody, Quote, QuoteRequest};
use axum::Json;
use axum::body::Body;
use axum::extract::State;

use super::extract;
use crate::app::auth::Caller;
use crate::app::quotes;
use crate::control::Control;
use crate::error::ApiError;

/// The largest request, in bytes.
const BODY_BYTES_MAX: usize = 16 << 10;

/// Price, fit and every refusal. Nothing is reserved.
#[utoipa::path(post, path = "/v1/quotes", operation_id = "quote", tag = "market", security(("api_key" = [])), request_body = QuoteRequest,
    responses((status = 200, body = Quote), (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn quote(State(control): State<Arc<Control>>, _: Caller, body: Body) -> Result<Json<Quote>, ApiError> {
    let request: QuoteRequest = extract::json(&extract::body(body, BODY_BYTES_MAX).await?)?;
    let view = extract::market(&control)?;
    Ok(Json(quotes::quote(&control, &view, &request).await?))
}
