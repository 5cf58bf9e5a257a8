//! The API's description, OpenAPI 3.1, committed as `openapi.json`.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

/// The description.
#[derive(Debug, OpenApi)]
#[openapi(
    info(title = "Atoll", description = "The HTTP API of an Atoll control plane. Requests that move money or leases also carry a wallet's seal (headers atoll-signer, atoll-expires, atoll-nonce, atoll-signature) and an Idempotency-Key."),
    paths(
        super::health::livez, super::health::readyz, super::health::version, super::network::show, super::whoami::show,
        super::devices::list, super::workers::list, super::quotes::quote, super::blobs::put, super::jobs::submit,
        super::jobs::list, super::jobs::show, super::jobs::stop, super::jobs::events, super::jobs::logs,
        super::jobs::receipt, super::orders::extend, super::clusters::ray,
    ),
    modifiers(&ApiKey)
)]
pub struct Description;

#[derive(Debug)]
struct ApiKey;

impl Modify for ApiKey {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("atoll_<id>_<secret>").build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

/// The description as it is committed.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn text() -> Result<String, serde_json::Error> {
    Description::openapi().to_pretty_json().map(|text| text + "\n")
}
