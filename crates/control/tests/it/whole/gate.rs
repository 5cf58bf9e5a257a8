//! What stands between a node and its chain: a provider of RPC that is away, throttles, loses what it was given, or has
//! another cluster behind the same URL.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use atoll_chain::SignedTransaction;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use serde_json::{Value, json};

/// How requests fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// They pass.
    Open,
    /// The connection breaks.
    Away,
    /// HTTP 429.
    TooMany,
    /// Transactions are taken, and given to nobody. Everything else passes.
    Swallows,
    /// Each transaction's trial run fails. Everything else passes.
    Denies,
    /// It lags: no transaction's blockhash is known to it yet. Everything else passes.
    Lags,
    /// It shows no list of accounts, and of what is watched no account. Everything else passes.
    Hides,
    /// The node has no history. Everything else passes.
    Forgets,
}

impl Way {
    /// What it answers itself to a call; none when that passes.
    fn answer(self, call: &Value, watched: Option<&str>) -> Option<Value> {
        let error = |code: i64, message: &str, data: Value| json!({ "jsonrpc": "2.0", "id": call["id"], "error": { "code": code, "message": message, "data": data } });
        match (self, call["method"].as_str()?) {
            (Self::Denies, "sendTransaction") => {
                let data = json!({ "err": { "InstructionError": [0, { "Custom": 1 }] }, "logs": [] });
                Some(error(-32002, "Transaction simulation failed", data))
            }
            (Self::Lags, "sendTransaction") => {
                let data = json!({ "err": "BlockhashNotFound", "logs": [] });
                Some(error(-32002, "Transaction simulation failed: Blockhash not found", data))
            }
            (Self::Hides, "getProgramAccounts") => Some(json!({ "jsonrpc": "2.0", "id": call["id"], "result": [] })),
            (Self::Hides, "getAccountInfo") if watched.is_some_and(|it| call["params"][0] == *it) => {
                let result = json!({ "context": { "slot": 1 }, "value": null });
                Some(json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }))
            }
            (Self::Forgets, "getSignaturesForAddress" | "getTransaction") => {
                Some(error(-32011, "Transaction history is not available from this node", Value::Null))
            }
            _ => None,
        }
    }
}

#[derive(Clone)]
pub(crate) struct Gate(Arc<Inner>);

struct Inner {
    url: String,
    state: Mutex<State>,
    http: reqwest::Client,
}

struct State {
    to: String,
    way: Way,
    /// Requests that did not pass.
    refused: u32,
    /// Transactions that were swallowed.
    swallowed: Vec<SignedTransaction>,
    /// What is looked for in requests.
    watched: Option<String>,
    /// Requests since it is looked for: all, and those that name it.
    asked: (u32, u32),
}

impl Gate {
    pub(super) async fn to(to: &str) -> Self {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            to: to.to_owned(),
            way: Way::Open,
            refused: 0,
            swallowed: Vec::new(),
            watched: None,
            asked: (0, 0),
        };
        let state = Mutex::new(state);
        let gate = Self(Arc::new(Inner { url, state, http: reqwest::Client::new() }));
        let handler = {
            let gate = gate.clone();
            move |body: Bytes| {
                let gate = gate.clone();
                async move { gate.pass(body).await }
            }
        };
        let router = axum::Router::new().route("/", axum::routing::post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        gate
    }

    pub(crate) fn url(&self) -> &str {
        &self.0.url
    }

    pub(crate) fn set(&self, way: Way) {
        let mut state = self.0.state.lock().unwrap();
        (state.way, state.refused) = (way, 0);
    }

    /// Puts another cluster behind the same URL; gives the one before.
    pub(crate) fn lead(&self, to: &str) -> String {
        std::mem::replace(&mut self.0.state.lock().unwrap().to, to.to_owned())
    }

    /// From now on requests are counted, and those that name this.
    pub(crate) fn watch(&self, name: &str) {
        let mut state = self.0.state.lock().unwrap();
        (state.watched, state.asked) = (Some(name.to_owned()), (0, 0));
    }

    /// Requests since then: all, and those that name it.
    pub(crate) fn asked(&self) -> (u32, u32) {
        self.0.state.lock().unwrap().asked
    }

    /// Requests that did not pass since the way was set.
    pub(crate) fn refused(&self) -> u32 {
        self.0.state.lock().unwrap().refused
    }

    /// What was swallowed, in order, each as often as it was sent.
    pub(crate) fn swallowed(&self) -> Vec<SignedTransaction> {
        self.0.state.lock().unwrap().swallowed.clone()
    }

    async fn pass(&self, body: Bytes) -> Response {
        let (to, way, watched) = {
            let mut state = self.0.state.lock().unwrap();
            let watched = state.watched.clone();
            let names = watched.as_ref().is_some_and(|name| String::from_utf8_lossy(&body).contains(name));
            state.asked = (state.asked.0 + 1, state.asked.1 + u32::from(names));
            if matches!(state.way, Way::Away | Way::TooMany) {
                state.refused += 1;
            }
            (state.to.clone(), state.way, watched)
        };
        let swallowed = if way == Way::Swallows { self.swallow(&body) } else { None };
        if let Some(answer) = swallowed {
            return answer;
        }
        let call = serde_json::from_slice(&body).ok();
        if let Some(answer) = call.and_then(|call| way.answer(&call, watched.as_deref())) {
            self.0.state.lock().unwrap().refused += 1;
            return axum::Json(answer).into_response();
        }
        match way {
            Way::Away => Body::from_stream(futures_util::stream::once(async {
                Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
            }))
            .into_response(),
            Way::TooMany => axum::http::StatusCode::TOO_MANY_REQUESTS.into_response(),
            Way::Open | Way::Swallows | Way::Denies | Way::Lags | Way::Hides | Way::Forgets => {
                let passed = self.0.http.post(&to).header("content-type", "application/json").body(body);
                let Ok(answer) = passed.send().await else {
                    return axum::http::StatusCode::BAD_GATEWAY.into_response();
                };
                let status = answer.status();
                answer.bytes().await.map_or_else(
                    |_| axum::http::StatusCode::BAD_GATEWAY.into_response(),
                    |bytes| (status, bytes).into_response(),
                )
            }
        }
    }

    /// Takes a transaction as a node does that forwards it to nobody; none when it is none.
    fn swallow(&self, body: &[u8]) -> Option<Response> {
        let call: Value = serde_json::from_slice(body).unwrap();
        if call["method"] != "sendTransaction" {
            return None;
        }
        let bytes = base64::engine::general_purpose::STANDARD.decode(call["params"][0].as_str().unwrap()).unwrap();
        let transaction = SignedTransaction::from_bytes(bytes).unwrap();
        let answer = json!({ "jsonrpc": "2.0", "id": call["id"], "result": transaction.signature().to_string() });
        self.0.state.lock().unwrap().swallowed.push(transaction);
        Some(axum::Json(answer).into_response())
    }
}
