//! The HTTP API: one file per resource. A handler parses, authorises, calls a verb of `app`, renders.
//!
//! Rules live in `app`, SQL in `store`. The whole surface is described in `openapi.json` (OpenAPI 3.1), which a test
//! keeps fresh. How to add a path: `docs/adding-an-endpoint.md`.

mod blobs;
mod clusters;
mod devices;
pub(crate) mod extract;
mod health;
mod jobs;
mod limit;
mod network;
pub mod openapi;
mod orders;
mod quotes;
mod whoami;
mod workers;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::http::{Method, Uri};
use axum::routing::{any, get, post, put};

use crate::control::Control;
use crate::error::{ApiError, Code};
use crate::link;
use limit::Limits;

pub(crate) use limit::network as network_of;

/// What handlers are given.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) control: Arc<Control>,
    pub(crate) limits: Arc<Limits>,
}

impl FromRef<Api> for Arc<Control> {
    fn from_ref(api: &Api) -> Self {
        Arc::clone(&api.control)
    }
}

/// Every path of a control node.
pub fn router(control: &Arc<Control>) -> Router {
    let limits = Limits::new(control.config.requests_per_s, control.config.requests_burst);
    let api = Api { control: Arc::clone(control), limits: Arc::new(limits) };
    Router::new()
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/version", get(health::version))
        .route("/v1/network", get(network::show))
        .route("/v1/whoami", get(whoami::show))
        .route("/v1/devices", get(devices::list))
        .route("/v1/workers", get(workers::list))
        .route("/v1/quotes", post(quotes::quote))
        .route("/v1/blobs/{sha256}", put(blobs::put))
        .route("/v1/jobs", get(jobs::list).post(jobs::submit))
        .route("/v1/jobs/{job}", get(jobs::show))
        .route("/v1/jobs/{job}/stop", post(jobs::stop))
        .route("/v1/jobs/{job}/events", get(jobs::events))
        .route("/v1/jobs/{job}/logs", get(jobs::logs))
        .route("/v1/jobs/{job}/receipt", get(jobs::receipt))
        .route("/v1/orders/{order}/extend", post(orders::extend))
        .route("/v1/clusters/{cluster}/ray/{*path}", any(clusters::ray))
        .fallback(no_such_route)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(api)
        .merge(link::routes(control))
}

async fn no_such_route(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(
        Code::NoSuchRoute,
        format!("there is no {method} {path}: crates/control/openapi.json in Atoll's sources names all paths"),
    )
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(
        Code::MethodNotAllowed,
        format!("{path} does not take {method}; crates/control/openapi.json in Atoll's sources says what it takes"),
    )
}
