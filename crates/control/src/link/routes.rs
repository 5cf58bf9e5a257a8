//! The three paths of the link: the link itself, streams that were asked for, streams that pods open to their store.

use std::sync::Arc;

use atoll_api::link::{
    DEVICE_KEY_HEADER, FRAME_BYTES_MAX, LINK_PATH, PROOF_HEADER, STREAM_BYTES_MAX, STREAMS_PATH, store_stream_name,
    stream_proof,
};
use atoll_domain::id::{PodId, StreamId, WorkerId};
use atoll_domain::key::{PublicKey, Purpose, Signature};
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use serde::Deserialize;

use super::{ByteStream, connection};
use crate::control::Control;
use crate::error::{ApiError, Code};
use crate::http::extract::Asked;
use crate::pod_store;
use crate::tls::Peer;

/// Buffers per connection: a link carries small messages, and there may be many.
const BUFFER_BYTES: usize = 8 << 10;

/// The link's paths.
pub fn routes(control: &Arc<Control>) -> Router {
    Router::new()
        .route(LINK_PATH, get(link))
        .route(&format!("{STREAMS_PATH}/store"), get(store_stream))
        .route(&format!("{STREAMS_PATH}/{{stream}}"), get(stream))
        .with_state(Arc::clone(control))
}

fn bounded(upgrade: WebSocketUpgrade, message_bytes_max: usize) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(4 * message_bytes_max + BUFFER_BYTES)
        .max_message_size(message_bytes_max)
        .max_frame_size(message_bytes_max)
}

async fn link(
    State(control): State<Arc<Control>>,
    Extension(peer): Extension<Peer>,
    upgrade: WebSocketUpgrade,
) -> Response {
    let life = atoll_life::current();
    bounded(upgrade, FRAME_BYTES_MAX)
        .on_upgrade(move |socket| atoll_life::within(life, connection::run(control, peer, socket)))
}

/// The worker behind a dialled stream, proven for this very connection.
fn prove(headers: &HeaderMap, peer: &Peer, name: &str) -> Result<PublicKey, ApiError> {
    let refused = |why: String| ApiError::new(Code::LinkBadProof, format!("the stream is not proven: {why}"));
    let text = |header: &str| headers.get(header).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key: PublicKey =
        text(DEVICE_KEY_HEADER).parse().map_err(|_| refused(format!("`{DEVICE_KEY_HEADER}` is no key")))?;
    let proof: Signature =
        text(PROOF_HEADER).parse().map_err(|_| refused(format!("`{PROOF_HEADER}` is no signature")))?;
    key.verify(Purpose::Link, &stream_proof(&peer.exporter, name), &proof)
        .map_err(|error| refused(error.to_string()))?;
    Ok(key)
}

async fn stream(
    State(control): State<Arc<Control>>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let id: StreamId = name.parse().map_err(|_| ApiError::not_found("stream"))?;
    let worker = WorkerId::of_device_key(&prove(&headers, &peer, &name)?);
    let dialled = control.links.claim(id, worker).ok_or_else(|| ApiError::not_found("stream"))?;
    Ok(bounded(upgrade, STREAM_BYTES_MAX).on_upgrade(async move |socket| {
        // Whoever asked may have gone away meanwhile: then the stream is dropped, which closes it.
        drop(dialled.send(ByteStream::new(socket, peer)));
    }))
}

#[derive(Deserialize)]
struct StoreQuery {
    pod: String,
}

async fn store_stream(
    State(control): State<Arc<Control>>,
    Extension(peer): Extension<Peer>,
    Asked(query): Asked<StoreQuery>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Result<Response, ApiError> {
    let device = prove(&headers, &peer, &store_stream_name(&query.pod))?;
    let id: PodId = query.pod.parse().map_err(|_| ApiError::not_found("pod"))?;
    let pod = control.store.pod(id).await?.filter(|pod| pod.device_key == device && !pod.state.is_over());
    let pod = pod.ok_or_else(|| ApiError::not_found("pod"))?;
    let life = atoll_life::current();
    Ok(bounded(upgrade, STREAM_BYTES_MAX).on_upgrade(move |socket| {
        atoll_life::within(life, pod_store::serve(control, pod.id, ByteStream::new(socket, peer)))
    }))
}
