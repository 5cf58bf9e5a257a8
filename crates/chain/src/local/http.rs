//! The local chain's listener: JSON-RPC 2.0 over HTTP, single or batched, with bounds. Knows no method.

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::methods::Fault;
use super::{Call, Message};

/// Most bytes of a request: a batch of 100 transactions of 1,232 bytes in base64, with room.
const BODY_BYTES_MAX: usize = 512 << 10;
/// Most requests of one batch.
const BATCH_MAX: usize = 100;

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

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    id: Value,
    method: String,
    #[serde(default)]
    params: Value,
}

async fn answer(State(calls): State<mpsc::Sender<Message>>, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            let fault = Fault::invalid(format!("a request has at most {BODY_BYTES_MAX} bytes"));
            return json_response(StatusCode::PAYLOAD_TOO_LARGE, &envelope(&Value::Null, Err(fault)));
        }
        Err(rejection) => return rejection.into_response(),
    };
    let answer = match serde_json::from_slice(&body) {
        Err(_) => envelope(&Value::Null, Err(Fault::parse())),
        Ok(Value::Array(requests)) => batch(&calls, requests).await,
        Ok(request) => single(&calls, request).await,
    };
    json_response(StatusCode::OK, &answer)
}

async fn batch(calls: &mpsc::Sender<Message>, requests: Vec<Value>) -> Value {
    if requests.is_empty() || requests.len() > BATCH_MAX {
        return envelope(&Value::Null, Err(Fault::invalid(format!("a batch has 1 to {BATCH_MAX} requests"))));
    }
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        answers.push(single(calls, request).await);
    }
    Value::Array(answers)
}

async fn single(calls: &mpsc::Sender<Message>, request: Value) -> Value {
    let Ok(Request { id, method, params }) = serde_json::from_value(request) else {
        return envelope(
            &Value::Null,
            Err(Fault::invalid("a request is {\"jsonrpc\", \"id\", \"method\", \"params\"}".to_owned())),
        );
    };
    let (reply, answer) = oneshot::channel();
    let sent = calls.send(Message::Call(Call { method, params, reply })).await;
    let result = match sent {
        Ok(()) => answer.await.unwrap_or_else(|_| Err(Fault::stopped())),
        Err(_) => Err(Fault::stopped()),
    };
    envelope(&id, result)
}

fn envelope(id: &Value, result: Result<Value, Fault>) -> Value {
    match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(Fault { code, message, data }) => {
            let mut error = json!({ "code": code, "message": message });
            if !data.is_null() {
                error["data"] = data;
            }
            json!({ "jsonrpc": "2.0", "id": id, "error": error })
        }
    }
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [("content-type", "application/json")], body.to_string()).into_response()
}
