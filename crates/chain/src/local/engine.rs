//! The chain without listener, thread or disk of its own: JSON-RPC bodies in, answers out, one after the other.
//!
//! Deterministic: the same engine, clock and bodies give the same answers, byte for byte. The server's thread drives one
//! over a log on disk; the simulation drives one in memory. What a method does is said in `methods`; who waits for an
//! answer, and how it travels, is the caller's.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::log::LogError;
use super::methods::{self, Fault};
use super::state::State;
use super::{LocalChainConfig, StartError, WallClock};
use crate::address::Address;

/// Most requests of one batch.
const BATCH_MAX: usize = 100;
const OK: u16 = 200;

/// What a chain in memory is made of.
pub struct EngineConfig {
    /// Randomness for the genesis hash.
    pub genesis_seed: [u8; 32],
    /// Programs and their ELF bytes.
    pub programs: Vec<(Address, Vec<u8>)>,
    /// Where its time comes from.
    pub clock: Arc<dyn WallClock>,
    /// How it behaves.
    pub settings: Settings,
}

impl std::fmt::Debug for EngineConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineConfig").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// How a chain behaves, apart from faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// When what was processed counts.
    pub finality: Finality,
}

/// How many slots later a processed transaction is confirmed, and final. The default is at once for both, as
/// `atoll dev` runs; a cluster of Solana is near 2 and 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Finality {
    /// Slots until it is confirmed.
    pub confirmed_slots: u64,
    /// Slots until it is final; at least those until it is confirmed.
    pub finalized_slots: u64,
}

/// What goes back to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// JSON, in UTF-8.
    pub body: Vec<u8>,
    /// How long it is on its way; zero without faults.
    pub wait: Duration,
    /// Whether it never arrives: who asked hears nothing, whatever was done.
    pub lost: bool,
}

/// A chain that answers.
#[derive(Debug)]
pub struct Engine {
    state: State,
}

impl Engine {
    /// A new chain that is nowhere on disk.
    ///
    /// # Errors
    /// [`StartError::Load`] when a program cannot be used.
    pub fn in_memory(config: EngineConfig) -> Result<Self, StartError> {
        Ok(Self { state: State::in_memory(config)? })
    }

    /// The chain of a folder. Also gives the bytes of an unfinished write that were cut off its log.
    ///
    /// # Errors
    /// [`StartError`] when the log or a program cannot be used.
    pub fn open(config: LocalChainConfig) -> Result<(Self, u64), StartError> {
        let (state, torn_bytes) = State::open(config)?;
        Ok((Self { state }, torn_bytes))
    }

    /// The same chain once more, in memory, on its own from here on. Accounts share their bytes until they change.
    #[must_use]
    pub fn fork(&self, clock: Arc<dyn WallClock>) -> Self {
        Self { state: self.state.fork(clock) }
    }

    /// Answers one JSON-RPC body: a request, or a batch of them. Over a log it must not be given out before
    /// [`Engine::commit`].
    pub fn answer(&mut self, body: &[u8]) -> Answer {
        let answer = match serde_json::from_slice(body) {
            Err(_) => envelope(&Value::Null, Err(Fault::parse())),
            Ok(Value::Array(requests)) => self.batch(requests),
            Ok(request) => self.single(request),
        };
        Answer { status: OK, body: answer.to_string().into_bytes(), wait: Duration::ZERO, lost: false }
    }

    fn batch(&mut self, requests: Vec<Value>) -> Value {
        if requests.is_empty() || requests.len() > BATCH_MAX {
            return envelope(&Value::Null, Err(Fault::invalid(format!("a batch has 1 to {BATCH_MAX} requests"))));
        }
        requests.into_iter().map(|request| self.single(request)).collect()
    }

    fn single(&mut self, request: Value) -> Value {
        #[derive(Deserialize)]
        struct Request {
            #[serde(default)]
            id: Value,
            method: String,
            #[serde(default)]
            params: Value,
        }
        let Ok(Request { id, method, params }) = serde_json::from_value(request) else {
            let why = "a request is {\"jsonrpc\", \"id\", \"method\", \"params\"}".to_owned();
            return envelope(&Value::Null, Err(Fault::invalid(why)));
        };
        envelope(&id, methods::call(&mut self.state, &method, &params))
    }

    /// Writes what has changed to disk, where the chain has one.
    ///
    /// # Errors
    /// [`LogError`] when it cannot; nothing may be answered then.
    pub fn commit(&mut self) -> Result<(), LogError> {
        self.state.commit()
    }
}

/// A JSON-RPC answer.
pub(super) fn envelope(id: &Value, result: Result<Value, Fault>) -> Value {
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

/// What is answered when the chain's thread is gone.
pub(super) fn stopped() -> Answer {
    refusal(OK, Fault::stopped())
}

/// A refusal of a whole body.
pub(super) fn refusal(status: u16, fault: Fault) -> Answer {
    let body = envelope(&Value::Null, Err(fault)).to_string().into_bytes();
    Answer { status, body, wait: Duration::ZERO, lost: false }
}
