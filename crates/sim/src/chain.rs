//! The chain and the way to it: the local chain's engine behind a network that loses, delays and doubles requests.
//!
//! What a cluster does wrong by itself (stale reads, transactions that were processed and then dropped) is the engine's,
//! told from here; here is what happens on the way, and halts: for their length no answer comes, and the clocks of the world may have
//! leapt when it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atoll_chain::local::faults::{Faults, RollBack, Share};
use atoll_chain::local::{Engine, Finality};
use atoll_chain::rpc::{Posted, Posting, Wire, WireError};
use atoll_chain::{Rpc, RpcConfig};

use crate::net::{Arrival, Net, Place};
use crate::trace::Trace;
use crate::votes::Votes;

/// The longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What looks at the chain after each transaction.
pub type Watcher = Box<dyn Fn(&mut Engine) + Send>;

/// The chain. Clones are the same.
#[derive(Clone)]
pub struct Chain(Arc<Shared>);

struct Shared {
    net: Net,
    place: Place,
    trace: Trace,
    votes: Votes,
    state: Mutex<State>,
}

struct State {
    engine: Engine,
    halted: bool,
    /// Answers in a thousand that are "try again later".
    busy_per_mille: u64,
    watcher: Option<Watcher>,
    /// Slots until something is confirmed.
    confirmed_slots: u64,
    transactions: u64,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Chain")
    }
}

impl Chain {
    /// A chain; what attestors send to it is noted in `votes`.
    #[must_use]
    pub fn new(mut engine: Engine, finality: Finality, net: &Net, votes: &Votes, trace: &Trace) -> Self {
        engine.set_finality(finality);
        let confirmed_slots = finality.confirmed_slots;
        let state = State { engine, halted: false, busy_per_mille: 0, watcher: None, confirmed_slots, transactions: 0 };
        Self(Arc::new(Shared {
            net: net.clone(),
            place: "chain".into(),
            trace: trace.clone(),
            votes: votes.clone(),
            state: Mutex::new(state),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// Has `watcher` look after every transaction, at once.
    pub fn watch(&self, watcher: Watcher) {
        self.state().watcher = Some(watcher);
    }

    /// Whatever else there is to do with the engine.
    pub fn with<T>(&self, act: impl FnOnce(&mut Engine) -> T) -> T {
        act(&mut self.state().engine)
    }

    /// Transactions sent so far.
    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.state().transactions
    }

    /// From now on nobody is answered, or again everybody.
    pub fn halt(&self, halted: bool) {
        self.state().halted = halted;
    }

    /// So many answers in a thousand are "too many requests".
    pub fn busy(&self, per_mille: u64) {
        self.state().busy_per_mille = per_mille;
    }

    /// One answer in three comes from a node that is up to so many slots behind; 0: none any more.
    pub fn lag(&self, slots: u64) {
        let share = if slots == 0 { Share::NONE } else { Share::of_thousand(333) };
        let faults = Faults { seed: slots, stale: share, stale_slots_max: slots, ..Faults::default() };
        self.state().engine.set_faults(faults);
    }

    /// The newest slots never were, as far as they are not confirmed: half of their transactions are tried again later.
    pub fn fork(&self, slots: u64) {
        let mut state = self.state();
        let slots = slots.min(state.confirmed_slots);
        let lost = state.engine.roll_back(RollBack { slots, land: Share::of_thousand(500) });
        let lost = lost.expect("what was processed can be undone");
        let State { engine, watcher, .. } = &mut *state;
        if let Some(watcher) = watcher {
            watcher(engine);
        }
        drop(state);
        self.0.trace.line("chain", &format!("a fork of {slots} slots: {} transactions never were", lost.len()));
    }

    /// A client at a place, with settings of the caller's.
    #[must_use]
    pub fn rpc(&self, from: &Place, config: impl FnOnce(&str) -> RpcConfig) -> Rpc {
        let wire = Way { chain: self.clone(), from: Arc::clone(from) };
        Rpc::over(Box::new(wire), config("http://chain:8899"))
    }

    /// Answers a body; none when the answer is lost.
    fn answer(&self, body: &str) -> Option<(Posted, Duration)> {
        let mut state = self.state();
        if state.halted {
            return None;
        }
        if self.0.net.happens(state.busy_per_mille) {
            return Some((Posted { status: 429, body: Vec::new() }, Duration::ZERO));
        }
        let answer = state.engine.answer(body.as_bytes());
        if body.contains("\"sendTransaction\"") {
            state.transactions += 1;
            let State { engine, watcher, .. } = &mut *state;
            if let Some(watcher) = watcher {
                watcher(engine);
            }
        }
        drop(state);
        self.0.trace.event("chain", body.as_bytes());
        self.0.trace.event("chain", &answer.body);
        (!answer.lost).then_some((Posted { status: answer.status, body: answer.body }, answer.wait))
    }
}

/// The way from a place to the chain.
#[derive(Debug)]
struct Way {
    chain: Chain,
    from: Place,
}

impl Way {
    async fn exchange(&self, body: String) -> Posted {
        let Shared { net, place, votes, .. } = &*self.chain.0;
        votes.leaves(&body);
        let arrival = net.leg(&self.from, place).await;
        let mut answered = self.chain.answer(&body);
        if arrival == Arrival::Twice {
            answered = self.chain.answer(&body).or(answered);
        }
        let Some((posted, wait)) = answered else { return std::future::pending().await };
        tokio::time::sleep(wait).await;
        net.leg(place, &self.from).await;
        posted
    }
}

impl Wire for Way {
    fn post(&self, body: String, bytes_max: usize) -> Posting<'_> {
        Box::pin(async move {
            let posted = tokio::time::timeout(ANSWER_MAX, self.exchange(body)).await;
            let posted = posted.map_err(|_| WireError::Broken("no answer in time".to_owned()))?;
            if posted.body.len() > bytes_max { Err(WireError::TooLarge) } else { Ok(posted) }
        })
    }
}
