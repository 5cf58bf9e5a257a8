//! The local chain's WebSockets: connections and their bounds. What is said over them is in `pubsub`.
//!
//! A node of a cluster has them on the port after that of its JSON-RPC, and clients derive it so; this chain takes them
//! on both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade, close_code};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use super::Message;
use super::pubsub::{Command, Queue, outbox};

/// Most connections at once.
pub(super) const CONNECTIONS_MAX: usize = 128;
/// Most bytes of a message from a client: a hundred subscriptions with four filters each.
const MESSAGE_BYTES_MAX: usize = 128 << 10;
/// Longest wait for a client to take a message.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// How often a client is asked whether it is there, and how long it may be silent: three such questions.
const PING: Duration = Duration::from_secs(20);
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What every connection needs.
#[derive(Debug, Clone)]
pub(super) struct Sockets {
    calls: mpsc::Sender<Message>,
    places: Arc<Semaphore>,
    last: Arc<AtomicU64>,
}

impl Sockets {
    pub(super) fn new(calls: mpsc::Sender<Message>) -> Self {
        Self { calls, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)), last: Arc::default() }
    }
}

/// Takes a client's WebSocket, when there is a place for it.
pub(super) async fn upgrade(
    State(sockets): State<Sockets>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(_) => {
            let why = "JSON-RPC is a POST; subscriptions are a WebSocket";
            return (StatusCode::METHOD_NOT_ALLOWED, [("allow", "POST")], why).into_response();
        }
    };
    let Ok(place) = Arc::clone(&sockets.places).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("at most {CONNECTIONS_MAX} connections")).into_response();
    };
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| connection(sockets, socket, place))
}

/// One connection, from its first message to its last.
async fn connection(sockets: Sockets, mut socket: WebSocket, _place: OwnedSemaphorePermit) {
    let id = sockets.last.fetch_add(1, Ordering::Relaxed);
    let (outbox, queue) = outbox();
    if sockets.calls.send(Message::Socket(Command::Open(id, outbox))).await.is_err() {
        return;
    }
    let reason = talk(&sockets.calls, id, &mut socket, queue).await;
    // A chain that has stopped forgets its clients anyway.
    let _ = sockets.calls.send(Message::Socket(Command::Close(id))).await;
    if let Some(reason) = reason {
        let close = CloseFrame { code: close_code::POLICY, reason: reason.into() };
        // Who does not read does not read this either.
        let _ = timeout(WRITE_MAX, socket.send(Frame::Close(Some(close)))).await;
    }
}

/// Carries messages both ways until one side ends it; says why when that is this side.
async fn talk(
    calls: &mpsc::Sender<Message>,
    id: u64,
    socket: &mut WebSocket,
    mut queue: Queue,
) -> Option<&'static str> {
    let mut heard = Instant::now();
    let mut ping = tokio::time::interval_at(heard + PING, PING);
    loop {
        let frame = tokio::select! {
            biased;
            message = queue.next() => match message {
                Some(message) => Frame::Text(message.into()),
                None => return Some("the client reads too slowly, or the chain has stopped"),
            },
            received = socket.recv() => {
                heard = Instant::now();
                match received {
                    Some(Ok(Frame::Text(text))) => {
                        calls.send(Message::Socket(Command::Text(id, text.to_string()))).await.ok()?;
                        continue;
                    }
                    Some(Ok(Frame::Binary(_))) => return Some("messages are texts"),
                    Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => continue,
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => return None,
                }
            }
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    return Some("the client is silent");
                }
                Frame::Ping(Vec::new().into())
            }
        };
        match timeout(WRITE_MAX, socket.send(frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => return Some("the client reads too slowly"),
        }
    }
}
