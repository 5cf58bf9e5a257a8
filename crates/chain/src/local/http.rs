//! The local chain's listener: bodies of JSON-RPC over HTTP, with bounds. Knows no method.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::methods::Fault;
use super::{Answer, Call, Message, engine};

/// Most bytes of a request: a batch of 100 transactions of 1,232 bytes in base64, with room.
const BODY_BYTES_MAX: usize = 512 << 10;

/// Answers until the task is dropped, or the chain's thread has ended.
pub(super) async fn serve(listener: TcpListener, calls: mpsc::Sender<Message>) {
    let router = Router::new()
        .route("/", post(answer))
        .route("/health", get(|| async { "ok" }))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(calls.clone());
    let ended = async move { calls.closed().await };
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(ended).await {
        tracing::error!(%error, "the local chain's listener ended");
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
    response(answer)
}

fn response(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).expect("the engine answers with statuses of HTTP");
    (status, [("content-type", "application/json")], answer.body).into_response()
}
