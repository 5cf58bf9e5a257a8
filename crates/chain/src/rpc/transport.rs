//! One JSON-RPC request over a [`Wire`]: bounds, repetition. Knows no method.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::wire::{Http, Posted, Wire, WireError, shown};
use super::{RpcConfig, RpcError, answer};
use crate::failure::Failure;

/// JSON-RPC code of a transaction that the preflight run refused.
const CODE_PREFLIGHT_FAILED: i64 = -32002;
/// Longest message of a node that is passed on, in characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// Whether a request may be sent again when nobody knows if it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    OnTransportErrors,
    Never,
}

#[derive(Debug)]
pub(super) struct Transport {
    wire: Box<dyn Wire>,
    config: RpcConfig,
    endpoint: String,
    next_id: AtomicU64,
    jitter: AtomicU64,
}

#[derive(Deserialize)]
struct Envelope {
    id: Value,
    #[serde(default)]
    result: Value,
    error: Option<NodeError>,
}

#[derive(Deserialize)]
struct NodeError {
    code: i64,
    message: String,
    #[serde(default)]
    data: Value,
}

/// What one try came to.
enum Try {
    Answer(Vec<u8>),
    /// Nothing useful came back; another try may do better.
    Transport(String),
    Final(RpcError),
}

impl Transport {
    pub(super) fn new(config: RpcConfig) -> Result<Self, RpcError> {
        let wire = Http::new(&config.url, config.timeout)?;
        Ok(Self::over(Box::new(wire), config))
    }

    pub(super) fn over(wire: Box<dyn Wire>, config: RpcConfig) -> Self {
        let endpoint = shown(&config.url);
        let jitter = AtomicU64::new(config.jitter_seed | 1);
        Self { wire, config, endpoint, next_id: AtomicU64::new(1), jitter }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) async fn call(&self, method: &'static str, params: Value, repeat: Repeat) -> Result<Value, RpcError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
        let tries_max = if repeat == Repeat::Never { 1 } else { self.config.tries_max.max(1) };
        let mut tries = 1;
        loop {
            match self.try_once(method, &body).await {
                Try::Answer(bytes) => return read_envelope(method, id, &bytes),
                Try::Final(error) => return Err(error),
                Try::Transport(why) if tries >= tries_max => {
                    return Err(RpcError::Unreachable { endpoint: self.endpoint.clone(), method, tries, why });
                }
                Try::Transport(why) => {
                    tracing::debug!(method, tries, why, "the chain did not answer, trying again");
                    tokio::time::sleep(self.pause(tries)).await;
                    tries += 1;
                }
            }
        }
    }

    async fn try_once(&self, method: &'static str, body: &str) -> Try {
        let limit = self.config.answer_bytes_max;
        match self.wire.post(body.to_owned(), limit).await {
            // Overload and a proxy without its node: the request was not processed. JSON-RPC errors come with 200, and
            // from some nodes with 4xx; their body says more than the status.
            Ok(Posted { status: status @ (429 | 500..=599), .. }) => Try::Transport(format!("HTTP {status}")),
            Ok(posted) => Try::Answer(posted.body),
            Err(WireError::Broken(why)) => Try::Transport(why),
            Err(WireError::TooLarge) => Try::Final(RpcError::TooLarge { method, limit }),
        }
    }

    /// Full jitter: evenly between nothing and a bound that doubles each time.
    fn pause(&self, tries: u32) -> Duration {
        let bound = self.config.pause.saturating_mul(1 << (tries - 1).min(10)).min(self.config.timeout);
        let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX).max(1);
        let state = self.jitter.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        Duration::from_millis(mix(state) % bound_ms)
    }
}

/// The finaliser of splitmix64: spreads a counter over all 64 bits.
const fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

fn read_envelope(method: &'static str, id: u64, bytes: &[u8]) -> Result<Value, RpcError> {
    let envelope: Envelope =
        serde_json::from_slice(bytes).map_err(|_| answer::malformed(method, "it is no JSON-RPC answer"))?;
    if let Some(error) = envelope.error {
        return Err(node_error(method, error));
    }
    if envelope.id != json!(id) {
        return Err(answer::malformed(method, "it answers another request"));
    }
    Ok(envelope.result)
}

fn node_error(method: &'static str, error: NodeError) -> RpcError {
    if error.code == CODE_PREFLIGHT_FAILED && !error.data["err"].is_null() {
        let log = answer::log_lines(&error.data["logs"]);
        return RpcError::Failed(Box::new(Failure::read(&error.data["err"], &log, &[])));
    }
    let message = error.message.chars().filter(|c| !c.is_control()).take(MESSAGE_CHARS_MAX).collect();
    RpcError::Refused { method, code: error.code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_the_url_are_never_shown() {
        let transport =
            Transport::new(RpcConfig::new("https://user:pass@rpc.example/v1/secret?key=secret", 1)).unwrap();
        assert_eq!(transport.endpoint(), "rpc.example:443");
        for bad in ["", "localhost", "ftp://x", "unix:/x", "http://"] {
            let error = Transport::new(RpcConfig::new(bad, 1)).unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:8899"), "{error}");
        }
    }

    #[test]
    fn pauses_stay_under_a_doubling_bound_and_differ() {
        let transport = Transport::new(RpcConfig::new("http://127.0.0.1:1", 7)).unwrap();
        let pauses: Vec<_> = (0..100).map(|_| transport.pause(3)).collect();
        assert!(pauses.iter().all(|pause| *pause < Duration::from_millis(400)));
        assert!(pauses.iter().any(|pause| *pause > Duration::from_millis(200)));
        assert!(pauses.iter().any(|pause| *pause < Duration::from_millis(100)));
    }

    #[test]
    fn envelopes_are_checked() {
        let read = |text: &str| read_envelope("getSlot", 5, text.as_bytes());
        assert_eq!(read(r#"{"jsonrpc":"2.0","id":5,"result":7}"#).unwrap(), json!(7));
        assert!(matches!(read(r#"{"id":6,"result":7}"#), Err(RpcError::Malformed { .. })));
        for bad in ["", "[]", "<html>", "{}", r#"{"result":1}"#] {
            assert!(matches!(read(bad), Err(RpcError::Malformed { .. })), "{bad}");
        }
        let long = format!(r#"{{"id":5,"error":{{"code":-32602,"message":"{}\n"}}}}"#, "x".repeat(5000).as_str());
        assert!(read(&long.replace("\\n", "")).unwrap_err().to_string().len() < 400);
        let failed = r#"{"id":5,"error":{"code":-32002,"message":"m","data":{"err":"BlockhashNotFound","logs":[]}}}"#;
        assert!(matches!(read(failed), Err(RpcError::Failed(_))));
    }
}
