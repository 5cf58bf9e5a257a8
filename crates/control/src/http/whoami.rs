//! Who the caller is.

use atoll_api::http::{ErrorBody, Whoami};
use axum::Json;

use crate::app::auth::Caller;

/// The user behind the API key.
#[utoipa::path(get, path = "/v1/whoami", operation_id = "whoami", tag = "users", security(("api_key" = [])), responses((status = 200, body = Whoami), (status = 401, body = ErrorBody)))]
pub(crate) async fn show(caller: Caller) -> Json<Whoami> {
    Json(Whoami { user: caller.user.name, key: caller.key.to_string(), wallet: caller.user.wallet })
}
