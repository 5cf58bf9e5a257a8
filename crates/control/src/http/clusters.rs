//! A cluster's own runtime, reached through the control plane: `ray job submit` and Ray's dashboard API.
//!
//! The caller's key is checked here and never passed on; the cluster's token is added here and never shown. Bodies
//! stream both ways, WebSockets (log tails) are spliced.

use std::sync::Arc;

use atoll_api::http::ErrorBody;
use atoll_domain::id::ClusterId;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::extract;
use crate::app::auth::Caller;
use crate::app::jobs;
use crate::control::Control;
use crate::error::{ApiError, Code};
use crate::link::Target;
use crate::neighbours::{self, PASSED_HEADER, Stream};
use crate::ray::DASHBOARD_PORT;

/// Request headers that belong to one connection, or to the caller and this node. With them goes whatever `Connection`
/// names, and all that begins with [`OURS`].
const NOT_FORWARDED: [&str; 15] = [
    "authorization",
    "connection",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "origin",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Seals and device proofs.
const OURS: &str = "atoll-";
/// The only headers that come back: the head is a tenant's program, and its answers come from the operator's own origin.
/// No cookies, no redirects, no permissions for other origins, no new places for this one.
const BROUGHT_BACK: [HeaderName; 9] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::ETAG,
    header::LAST_MODIFIED,
    header::RETRY_AFTER,
    header::SEC_WEBSOCKET_ACCEPT,
    header::SEC_WEBSOCKET_PROTOCOL,
];
/// What a browser may do with an answer of a tenant's: show it, and nothing in the operator's name.
const CONFINED: [(HeaderName, HeaderValue); 3] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Any call of Ray's dashboard and jobs API, on the cluster's head.
#[utoipa::path(get, path = "/v1/clusters/{cluster}/ray/{path}", operation_id = "cluster_ray", tag = "clusters", security(("api_key" = [])),
    params(("cluster" = String, Path), ("path" = String, Path, description = "the path at the head, for example `api/jobs/`")),
    responses((status = 200, description = "Ray's own answer, whatever its status"), (status = 404, body = ErrorBody), (status = 502, body = ErrorBody)))]
pub(crate) async fn ray(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Path((cluster, path)): Path<(String, String)>,
    mut request: Request,
) -> Result<Response, ApiError> {
    let cluster: ClusterId = extract::id(&cluster, "cluster")?;
    let job = control.store.job_by_cluster(cluster).await?.filter(|job| job.user == caller.user.id);
    let job = job.ok_or_else(|| ApiError::not_found("cluster"))?;
    let head = jobs::head(&control, &job).await?;
    let head = head.ok_or_else(|| unreachable(format!("the job is {} and has no head now", job.now.state)))?;
    if let Some(node) = control.links.holder(head.worker).filter(|_| !control.links.is_here(head.worker)) {
        return pass_on(&control, &node, request).await;
    }
    let stream = control.links.open_stream(head.worker, head.id, Target::Port(DASHBOARD_PORT)).await;
    let stream = stream.map_err(|error| unreachable(error.to_string()))?;
    let upgrade = outgoing(&mut request, &path, &job.now.runtime_token)?;
    forward(Box::new(stream), request, upgrade).await
}

fn unreachable(why: impl std::fmt::Display) -> ApiError {
    ApiError::new(Code::HeadUnreachable, format!("the cluster's head cannot be reached: {why}"))
}

/// Hands the request as it is to the node that holds the head's link, which checks the caller anew.
async fn pass_on(control: &Control, node: &str, mut request: Request) -> Result<Response, ApiError> {
    if request.headers().contains_key(PASSED_HEADER) {
        return Err(unreachable("its worker changes nodes now, try again in a second"));
    }
    let stream = control.neighbours.dial(node).await;
    let stream = stream.map_err(|error| unreachable(format!("the node that its worker is linked to: {error}")))?;
    let caller = request.headers().get(header::AUTHORIZATION).cloned();
    let upgrade = strip(request.headers_mut());
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("node"));
    headers.extend(caller.map(|caller| (header::AUTHORIZATION, caller)));
    headers.insert(PASSED_HEADER, HeaderValue::from_static("1"));
    forward(stream, request, upgrade).await
}

/// The request as the head shall see it; whether it asks for a WebSocket.
fn outgoing(request: &mut Request, path: &str, token: &str) -> Result<bool, ApiError> {
    let bad = |_| ApiError::new(Code::BadRequest, "the path cannot be passed on");
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    *request.uri_mut() = format!("/{}{query}", encoded(path)).parse::<Uri>().map_err(bad)?;
    let upgrade = strip(request.headers_mut());
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("ray"));
    let token = HeaderValue::try_from(format!("Bearer {token}")).map_err(ApiError::internal)?;
    headers.insert(header::AUTHORIZATION, token);
    Ok(upgrade)
}

/// Takes out what stays here; whether the request asks for a WebSocket.
fn strip(headers: &mut HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    for name in private(headers) {
        headers.remove(name);
    }
    if upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    upgrade
}

/// The names of a request's headers that stay here.
fn private(headers: &HeaderMap) -> Vec<HeaderName> {
    let nominated = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let nominated: Vec<String> =
        nominated.flat_map(|names| names.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let stays = |name: &&HeaderName| {
        let name = name.as_str();
        NOT_FORWARDED.contains(&name) || name.starts_with(OURS) || nominated.iter().any(|one| one == name)
    };
    headers.keys().filter(stays).cloned().collect()
}

/// The router has decoded the path; what is not plain is encoded again.
fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

async fn forward(stream: Box<dyn Stream>, mut request: Request, upgrade: bool) -> Result<Response, ApiError> {
    let ours = request.extensions_mut().remove::<OnUpgrade>();
    let broken = |error: hyper::Error| unreachable(format!("it broke the connection: {error}"));
    let mut answer = neighbours::send(stream, request).await.map_err(broken)?;
    if let (StatusCode::SWITCHING_PROTOCOLS, true, Some(ours)) = (answer.status(), upgrade, ours) {
        let theirs = hyper::upgrade::on(&mut answer);
        atoll_life::spawn(splice(ours, theirs));
        let mut headers = brought_back(answer.headers());
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        return Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response());
    }
    let (mut parts, body) = answer.into_parts();
    parts.headers = brought_back(&parts.headers);
    parts.headers.extend(CONFINED);
    Ok(Response::from_parts(parts, Body::new(body)))
}

fn brought_back(headers: &HeaderMap) -> HeaderMap {
    let wanted = headers.iter().filter(|(name, _)| BROUGHT_BACK.contains(name));
    wanted.map(|(name, value)| (name.clone(), value.clone())).collect()
}

async fn splice(ours: OnUpgrade, theirs: OnUpgrade) {
    let (Ok(ours), Ok(theirs)) = (ours.await, theirs.await) else { return };
    let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
    if let Err(error) = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await {
        tracing::debug!(%error, "a spliced WebSocket broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_sees_the_cluster_s_token_and_not_the_caller_s() {
        let request = Request::builder()
            .uri("/v1/clusters/x/ray/api/jobs/a%20b?x=1")
            .header("authorization", "Bearer atoll_secret")
            .header("cookie", "c")
            .header("proxy-authorization", "Bearer atoll_secret")
            .header("atoll-seal-signature", "s")
            .header("connection", "keep-alive, X-Hop")
            .header("x-hop", "h")
            .header("content-type", "application/json");
        let mut request = request.body(Body::empty()).unwrap();
        assert!(!outgoing(&mut request, "api/jobs/a b", "cluster").unwrap());
        assert_eq!(request.uri(), "/api/jobs/a%20b?x=1");
        assert_eq!(request.headers()["authorization"], "Bearer cluster");
        assert_eq!(request.headers()["content-type"], "application/json");
        let names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "host", "authorization"]);
    }
}
