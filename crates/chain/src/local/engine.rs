//! The chain without listener, thread or disk of its own: JSON-RPC bodies in, answers out, one after the other.
//!
//! Deterministic: the same engine, clock and bodies give the same answers, byte for byte. The server's thread drives one
//! over a log on disk; the simulation drives one in memory. What a method does is said in `methods`; who waits for an
//! answer, and how it travels, is the caller's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use solana_account::ReadableAccount as _;

use super::faults::{Done, Draw, Fate, Faults, Halt, HaltSends, Order, RollBack, Share};
use super::log::LogError;
use super::methods::{self, Fault};
use super::state::State;
use super::{LocalChainConfig, StartError, WallClock};
use crate::address::{Address, Signature};

/// Most requests of one batch.
const BATCH_MAX: usize = 100;
const OK: u16 = 200;
/// The method that says what goes wrong; see [`Order`].
const FAULTS: &str = "atoll_faults";
/// The methods that bring transactions.
const SENDS: [&str; 2] = ["sendTransaction", "requestAirdrop"];
/// Within how many slots a transaction is tried again that a fork or a halt has lost.
const LAND_SLOTS: u64 = 8;
/// Most bodies and transactions that are to arrive later.
const LATER_MAX: usize = 10_000;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
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
    faults: Faults,
    draw: Draw,
    halt: Halt,
    /// What arrives at later slots, and in which order.
    later: BTreeMap<(u64, u64), Later>,
    later_count: u64,
}

/// Something that arrives later.
#[derive(Debug, Clone)]
enum Later {
    /// A body, whose answer nobody waits for.
    Body(Vec<u8>),
    /// The bytes of a transaction.
    Transaction(Vec<u8>),
}

impl Engine {
    /// A new chain that is nowhere on disk.
    ///
    /// # Errors
    /// [`StartError::Load`] when a program cannot be used.
    pub fn in_memory(config: EngineConfig) -> Result<Self, StartError> {
        Ok(Self::of(State::in_memory(config)?))
    }

    /// The chain of a folder. Also gives the bytes of an unfinished write that were cut off its log.
    ///
    /// # Errors
    /// [`StartError`] when the log or a program cannot be used.
    pub fn open(config: LocalChainConfig) -> Result<(Self, u64), StartError> {
        let (state, torn_bytes) = State::open(config)?;
        Ok((Self::of(state), torn_bytes))
    }

    fn of(state: State) -> Self {
        let halt = Halt { ms: 0, sends: HaltSends::Accept, land: Share::NONE };
        let (faults, draw) = (Faults::default(), Draw::new(0));
        Self { state, faults, draw, halt, later: BTreeMap::new(), later_count: 0 }
    }

    /// The same chain once more, in memory, on its own from here on. Accounts share their bytes until they change.
    #[must_use]
    pub fn fork(&self, clock: Arc<dyn WallClock>) -> Self {
        let state = self.state.fork(clock);
        let (draw, later) = (self.draw.clone(), self.later.clone());
        Self { state, faults: self.faults, draw, halt: self.halt, later, later_count: self.later_count }
    }

    /// Answers one JSON-RPC body: a request, or a batch of them. Over a log it must not be given out before
    /// [`Engine::commit`].
    pub fn answer(&mut self, body: &[u8]) -> Answer {
        self.tick();
        let Ok(requests) = serde_json::from_slice::<Value>(body) else {
            return refusal(OK, Fault::parse());
        };
        let asks_for = |methods: &[&str]| match &requests {
            Value::Array(requests) => requests.iter().any(|request| is_of(request, methods)),
            request => is_of(request, methods),
        };
        let sends = asks_for(&SENDS);
        if sends && self.state.is_halted() && self.halt.sends == HaltSends::Hang {
            return Answer::lost();
        }
        let exempt = asks_for(&[FAULTS, "atoll_warp"]);
        let fate = if exempt { Fate::Done(Done::default()) } else { self.faults.fate(&mut self.draw, sends) };
        match fate {
            Fate::Lost => Answer::lost(),
            Fate::Refused(status) => {
                Answer { status, body: b"the node is overloaded".to_vec(), wait: Duration::ZERO, lost: false }
            }
            Fate::Late { slots } => {
                self.defer(slots, Later::Body(body.to_vec()));
                Answer::lost()
            }
            Fate::Done(done) => self.do_now(body, requests, done),
        }
    }

    fn do_now(&mut self, body: &[u8], requests: Value, done: Done) -> Answer {
        if let Some(slots) = done.again_after_slots {
            self.defer(slots, Later::Body(body.to_vec()));
        }
        self.state.set_lag(done.stale_slots);
        let answer = self.respond(requests);
        self.state.set_lag(0);
        Answer { status: OK, body: answer.to_string().into_bytes(), wait: done.wait, lost: done.answer_lost }
    }

    fn respond(&mut self, requests: Value) -> Value {
        match requests {
            Value::Array(requests) => self.batch(requests),
            request => self.single(request),
        }
    }

    /// Lets time pass, and what was to arrive by now arrive. Every answer does so first; a chain that nobody asks has to
    /// be told.
    pub fn tick(&mut self) {
        self.state.tick();
        if !self.state.is_halted() {
            let resumed_at = self.state.resumed_at();
            for bytes in std::mem::take(&mut self.state.shelved) {
                if self.draw.hits(self.halt.land) {
                    let slot = resumed_at + self.draw.below(LAND_SLOTS);
                    self.defer_to(slot, Later::Transaction(bytes));
                }
            }
        }
        while let Some(first) = self.later.first_entry().filter(|first| first.key().0 <= self.state.now().slot) {
            match first.remove() {
                Later::Transaction(bytes) => self.state.send_late(bytes),
                Later::Body(body) => {
                    let requests = serde_json::from_slice(&body).expect("it was read when it was deferred");
                    // Whoever sent it has gone.
                    let _ = self.respond(requests);
                }
            }
        }
    }

    fn defer(&mut self, slots: u64, later: Later) {
        self.defer_to(self.state.now().slot + slots, later);
    }

    fn defer_to(&mut self, slot: u64, later: Later) {
        if self.later.len() < LATER_MAX {
            self.later_count += 1;
            self.later.insert((slot, self.later_count), later);
        }
    }

    /// From now on these faults, instead of those so far.
    pub fn set_faults(&mut self, faults: Faults) {
        self.state.tick();
        self.state.set_limits(faults.stale_slots_max, faults.blockhash_slots);
        (self.faults, self.draw) = (faults, Draw::new(faults.seed));
    }

    /// From now on. What was confirmed or final already, stays so.
    pub fn set_finality(&mut self, finality: Finality) {
        self.state.tick();
        self.state.set_finality(finality);
    }

    /// Stops slots, clock and transactions.
    pub fn halt(&mut self, halt: Halt) {
        self.tick();
        self.halt = halt;
        self.state.halt(halt.ms);
    }

    /// Abandons the newest slots; gives the transactions that were in them, oldest first.
    ///
    /// # Errors
    /// Says why not; the chain is then of no use any more.
    pub fn roll_back(&mut self, roll_back: RollBack) -> Result<Vec<Signature>, String> {
        self.tick();
        let lost = self.state.roll_back(roll_back.slots)?;
        for entry in &lost {
            if self.draw.hits(roll_back.land) {
                let slots = 1 + self.draw.below(LAND_SLOTS);
                self.defer(slots, Later::Transaction(entry.detail.bytes.clone()));
            }
        }
        Ok(lost.iter().map(|entry| entry.signature).collect())
    }

    /// The accounts of a program as they are now, by address, with their bytes.
    #[must_use]
    pub fn accounts_of(&self, owner: &Address) -> Vec<(Address, Vec<u8>)> {
        self.state.accounts_of(owner).map(|(address, account)| (address, account.data().to_vec())).collect()
    }

    /// Replaces the bytes of an account, past all programs: what a bug in one could do.
    ///
    /// # Errors
    /// Says why not: there is no such account, or it would be a program that does not load.
    pub fn put_data(&mut self, address: &Address, data: Vec<u8>) -> Result<(), String> {
        self.state.put_data(address, data)
    }

    fn order(&mut self, params: &Value) -> Result<Value, Fault> {
        let refused = |why: String| Fault { code: -32602, message: why, data: Value::Null };
        let order: Order = serde_json::from_value(params[0].clone())
            .map_err(|error| refused(format!("parameter 0 is no order of faults: {error}")))?;
        if let Some(why) = order.refusal() {
            return Err(refused(why));
        }
        if let Some(finality) = order.finality {
            self.set_finality(finality);
        }
        if let Some(faults) = order.faults {
            self.set_faults(faults);
        }
        let rolled_back = order.roll_back.map(|roll_back| self.roll_back(roll_back)).transpose().map_err(refused)?;
        if let Some(halt) = order.halt {
            self.halt(halt);
        }
        Ok(json!({ "slot": self.state.now().slot, "rolledBack": rolled_back.unwrap_or_default() }))
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
        let result = match method.as_str() {
            FAULTS => self.order(&params),
            method if SENDS.contains(&method) && self.state.is_halted() && self.halt.sends == HaltSends::Refuse => {
                Err(Fault {
                    code: -32005,
                    message: "Node is behind".to_owned(),
                    data: json!({ "numSlotsBehind": null }),
                })
            }
            method => methods::call(&mut self.state, method, &params),
        };
        envelope(&id, result)
    }

    /// The chain itself, for who tells what happens on it.
    pub(super) const fn state(&mut self) -> &mut State {
        &mut self.state
    }

    /// Writes what has changed to disk, where the chain has one.
    ///
    /// # Errors
    /// [`LogError`] when it cannot; nothing may be answered then.
    pub fn commit(&mut self) -> Result<(), LogError> {
        self.state.commit()
    }

    /// Replaces a log that has grown longer than this, in bytes, by a snapshot, where the chain has one.
    ///
    /// # Errors
    /// [`LogError`] when it cannot; the chain must then stop.
    pub fn compact(&mut self, bytes_max: u64) -> Result<(), LogError> {
        self.state.compact(bytes_max)
    }
}

impl Answer {
    const fn lost() -> Self {
        Self { status: OK, body: Vec::new(), wait: Duration::ZERO, lost: true }
    }
}

fn is_of(request: &Value, methods: &[&str]) -> bool {
    request["method"].as_str().is_some_and(|method| methods.contains(&method))
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
