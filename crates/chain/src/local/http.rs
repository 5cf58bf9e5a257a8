//! The local chain's listeners: bodies of JSON-RPC over HTTP, with bounds. Knows no method.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::methods::Fault;
use super::state::SLOT_MS;
use super::ws::{self, Sockets};
use super::{Answer, Call, Message, engine};

/// Most bytes of a request: a batch of 100 transactions of 1,232 bytes in base64, with room.
const BODY_BYTES_MAX: usize = 512 << 10;

/// How long a connection stays open whose answer is lost by a fault.
const LOST_MAX: Duration = Duration::from_secs(300);
/// Tries for a free port with a free one after it.
const PAIR_TRIES_MAX: usize = 32;
/// How often subscribers are told that time has passed: a quarter of a slot.
const TICK: Duration = Duration::from_millis(SLOT_MS / 4);

/// Listens for JSON-RPC, and on the next port for WebSockets, where clients of Solana look for them. Without the next
/// port it goes on: subscriptions are taken on the first one too.
pub(super) async fn bind(listen: SocketAddr) -> io::Result<(TcpListener, Option<TcpListener>)> {
    for _ in 0..PAIR_TRIES_MAX {
        let listener = TcpListener::bind(listen).await?;
        let mut next = listener.local_addr()?;
        if let Some(port) = next.port().checked_add(1) {
            next.set_port(port);
            if let Ok(ws) = TcpListener::bind(next).await {
                return Ok((listener, Some(ws)));
            }
        }
        if listen.port() != 0 {
            tracing::warn!(%next, "the port after the local chain's is taken: clients must be told that subscriptions are on its own");
            return Ok((listener, None));
        }
    }
    Ok((TcpListener::bind(listen).await?, None))
}

/// Answers until the task is dropped, or the chain's thread has ended.
pub(super) async fn serve(listener: TcpListener, ws: Option<TcpListener>, calls: mpsc::Sender<Message>) {
    let sockets = Sockets::new(calls.clone());
    let router = Router::new()
        .route("/", post(answer))
        .route("/health", get(|| async { "ok" }))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(calls.clone())
        .merge(Router::new().route("/", get(ws::upgrade)).with_state(sockets));
    let ended = || {
        let calls = calls.clone();
        async move { calls.closed().await }
    };
    let listen = async |listener: TcpListener| {
        if let Err(error) = axum::serve(listener, router.clone()).with_graceful_shutdown(ended()).await {
            tracing::error!(%error, "a listener of the local chain ended");
        }
    };
    let second = async {
        if let Some(ws) = ws {
            listen(ws).await;
        }
    };
    tokio::join!(listen(listener), second, tick(&calls));
}

/// Wakes the chain's thread, so that slots are told though nobody asks.
async fn tick(calls: &mpsc::Sender<Message>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !calls.is_closed() {
        ticks.tick().await;
        // With a full queue the thread is awake anyway.
        let _ = calls.try_send(Message::Wake);
    }
}

async fn answer(State(calls): State<mpsc::Sender<Message>>, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let fault = Fault::invalid(format!("a request has at most {BODY_BYTES_MAX} bytes"));
            return response(engine::refusal(StatusCode::PAYLOAD_TOO_LARGE.as_u16(), fault));
        }
        Err(rejection) => return rejection.into_response(),
    };
    let (reply, answer) = oneshot::channel();
    let answer = match calls.send(Message::Call(Call { body, reply })).await {
        Ok(()) => answer.await.unwrap_or_else(|_| engine::stopped()),
        Err(_) => engine::stopped(),
    };
    tokio::time::sleep(answer.wait).await;
    if answer.lost {
        // Whoever asked hears nothing; when it hangs up this is dropped.
        tokio::time::sleep(LOST_MAX).await;
        return StatusCode::GATEWAY_TIMEOUT.into_response();
    }
    response(answer)
}

fn response(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).expect("the engine answers with statuses of HTTP");
    (status, [("content-type", "application/json")], answer.body).into_response()
}
