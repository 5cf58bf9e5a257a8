//! What a pod sees of the object store: HTTP over a byte stream that its worker dialled.
//!
//! The stream says which pod's worker speaks, the credential which pod: both must be the same pod, not over, of a job that
//! is not final. A pod reads its job's folder and what its job's pods wrote, and nothing else. A manifest or report of an
//! attempt that was given up is refused, so that it cannot overwrite its successor's work.

mod blobs;
mod checkpoints;
mod reports;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_domain::id::PodId;
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt as _;

use crate::app::pod_token;
use crate::control::Control;
use crate::error::{ApiError, Code};
use crate::http::extract;
use crate::store::rows::{Job, Pod};

/// The longest a request's head may take, and the longest a stream may be idle.
const HEAD_MAX: Duration = Duration::from_secs(30);
/// Streams of one pod at once.
const STREAMS_MAX: u32 = 64;

/// What a node counts of its tenants.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    /// Streams that serve each pod now.
    open: Mutex<BTreeMap<PodId, u32>>,
    meters: reports::Meters,
}

/// What the handlers are given.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    control: Arc<Control>,
    /// Whose stream this is.
    pod: PodId,
}

/// A pod whose credential was checked, and its job.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) pod: Pod,
    pub(crate) job: Job,
}

impl FromRequestParts<Door> for Tenant {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, door: &Door) -> Result<Self, ApiError> {
        let refused = |why: &str| {
            ApiError::new(Code::BadPodToken, format!("{why}: use ATOLL_TOKEN from this pod's own environment"))
        };
        let token = extract::bearer(&parts.headers).ok_or_else(|| refused("no credential is shown"))?;
        let pod = pod_token::check(&door.control.keys.pod_secret, token);
        if pod != Some(door.pod) {
            return Err(refused("the credential is not this pod's"));
        }
        let over = || ApiError::new(Code::BadPodToken, "this pod is over, and its credential with it");
        let later = || ApiError::new(Code::NotReady, "this node looks for what its store has forgotten: try again");
        if !door.control.caught_up.is_set() {
            return Err(later());
        }
        let pod = door.control.store.pod(door.pod).await?.filter(|pod| !pod.state.is_over()).ok_or_else(over)?;
        let job = door.control.store.job(pod.job).await?.filter(|job| !job.now.state.is_final()).ok_or_else(over)?;
        if job.now.adopting.is_some() {
            return Err(later());
        }
        Ok(Self { pod, job })
    }
}

impl Tenant {
    /// Refuses what another attempt than the current one says.
    pub(crate) fn check_attempt(&self, attempt: u32) -> Result<(), ApiError> {
        let current = self.job.now.attempt;
        if attempt == current {
            return Ok(());
        }
        let message = format!("attempt {attempt} was replaced by attempt {current}: this process should end");
        Err(ApiError::new(Code::StaleAttempt, message))
    }
}

/// The pod store's paths for one pod.
pub(crate) fn router(control: Arc<Control>, pod: PodId) -> Router {
    Router::new()
        .route("/v1/blobs/{sha256}", get(blobs::get).head(blobs::head).put(blobs::put))
        .route("/v1/checkpoints/latest", get(checkpoints::latest))
        .route("/v1/checkpoints/{step}", axum::routing::put(checkpoints::put))
        .route("/v1/report", post(reports::post))
        .fallback(no_such_route)
        .with_state(Door { control, pod })
}

async fn no_such_route(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(
        Code::NoSuchRoute,
        format!("the pod store has no {path}: blobs, checkpoints and report are all there is"),
    )
}

/// Serves one stream until it ends.
pub(crate) async fn serve(
    control: Arc<Control>,
    pod: PodId,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    let node = Arc::clone(&control);
    let Some(_place) = Place::take(&node.tenants, pod) else {
        tracing::warn!(%pod, "too many streams to the pod store; this one is dropped");
        return;
    };
    let router = router(control, pod);
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let request: Request = request.map(Body::new);
        router.clone().oneshot(request)
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_headers(32)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%pod, %error, "a pod store stream broke");
    }
}

/// A place among a pod's streams.
struct Place<'a>(&'a Tenants, PodId);

impl<'a> Place<'a> {
    fn take(tenants: &'a Tenants, pod: PodId) -> Option<Self> {
        let mut open = tenants.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(pod).or_default();
        if *count >= STREAMS_MAX {
            return None;
        }
        *count += 1;
        Some(Self(tenants, pod))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}
