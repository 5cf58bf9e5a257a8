//! Orders on the chain: lengthening one.

use std::sync::Arc;

use atoll_api::http::{ErrorBody, ExtensionView};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};

use super::extract;
use crate::app::auth::{self, Caller};
use crate::app::extension::{self, Request};
use crate::control::Control;
use crate::error::ApiError;

/// The largest body, in bytes: one transaction in base64.
const EXTEND_BYTES_MAX: usize = 8 << 10;

/// Lengthens the renter's order, this operator's or another's: takes on the renter's signed `extend_order`. A retry with
/// the same key is the same extension and says what became of it.
#[utoipa::path(post, path = "/v1/orders/{order}/extend", operation_id = "order_extend", tag = "orders", security(("api_key" = [])),
    params(("order" = String, Path)), request_body = atoll_api::http::ExtendOrder,
    responses((status = 202, body = ExtensionView), (status = 401, body = ErrorBody), (status = 402, body = ErrorBody),
        (status = 404, body = ErrorBody), (status = 409, body = ErrorBody), (status = 422, body = ErrorBody)))]
pub(crate) async fn extend(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path(order): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<ExtensionView>), ApiError> {
    let bytes = extract::body(body, EXTEND_BYTES_MAX).await?;
    let seal = extract::seal(&headers)?;
    auth::check_seal(&caller, &seal, "POST", uri.path(), &bytes, control.now())?;
    let idempotency_key = extract::idempotency_key(&headers)?;
    let (order, body) = (extract::id(&order, "open order")?, extract::json(&bytes)?);
    let view = extension::accept(&control, &Request { caller, seal, idempotency_key, order, body }).await?;
    Ok((StatusCode::ACCEPTED, Json(view)))
}
