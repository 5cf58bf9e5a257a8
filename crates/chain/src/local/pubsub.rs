//! Subscriptions: who wants to be told of what, and what they are told. Knows no socket.
//!
//! Follows <https://solana.com/docs/rpc/websocket>: `account`, `program`, `signature` and `slot`, each with its
//! unsubscribe. The chain's thread owns one [`Hub`]: it hands in what sockets send, and after every commit what changed.
//! Several changes of one account in one commit are one notification, of the last state. A connection whose client
//! reads more slowly than it is told is cut: nothing is left out silently.

mod outbox;
mod topic;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};
use solana_account::ReadableAccount as _;

pub(super) use outbox::{Outbox, Queue, outbox};
use topic::{Details, Topic};

use super::feed::Change;
use super::methods::{Fault, Params, View, account_json};
use super::state::{State, from_svm};
use crate::address::Address;
use crate::rpc::Commitment;

/// Most subscriptions of one connection.
pub(super) const SUBSCRIPTIONS_MAX: usize = 500;
/// Most requests of one batch.
const BATCH_MAX: usize = 100;
/// Most slots that are told one by one; of a longer jump of the clock only the last is.
const SLOTS_TOLD_MAX: u64 = 32;
const LEVELS: [Commitment; 3] = [Commitment::Processed, Commitment::Confirmed, Commitment::Finalized];

/// A connection's number.
pub(super) type ConnectionId = u64;
/// A subscription's number, told to the client; no two of a chain are the same.
type SubscriptionId = u64;

/// What a socket has for the hub.
#[derive(Debug)]
pub(super) enum Command {
    /// A client has come; this is how it is told.
    Open(ConnectionId, Outbox),
    /// It sent a text.
    Text(ConnectionId, String),
    /// It has gone.
    Close(ConnectionId),
}

/// One client.
#[derive(Debug)]
struct Connection {
    outbox: Outbox,
    subscriptions: BTreeMap<SubscriptionId, (Topic, Details)>,
}

/// Everybody who is told.
#[derive(Debug, Default)]
pub(super) struct Hub {
    connections: BTreeMap<ConnectionId, Connection>,
    listeners: BTreeMap<Topic, BTreeSet<(ConnectionId, SubscriptionId)>>,
    last: SubscriptionId,
    /// For each level, the changes that it has not reached.
    pending: [VecDeque<Arc<Change>>; 3],
    slot: Option<u64>,
}

impl Hub {
    /// Takes what a socket has. Only to be called with everything on disk that the state shows.
    pub(super) fn take(&mut self, command: Command, state: &mut State) {
        match command {
            Command::Open(id, outbox) => {
                self.connections.insert(id, Connection { outbox, subscriptions: BTreeMap::new() });
            }
            Command::Text(id, text) => self.receive(id, &text, state),
            Command::Close(id) => self.close(id),
        }
        let listening = !self.listeners.is_empty();
        state.feed().listen(listening);
        if !listening {
            self.pending = <[VecDeque<_>; 3]>::default();
        }
    }

    fn close(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        for (subscription, (topic, _)) in connection.subscriptions {
            self.forget(topic, id, subscription);
        }
    }

    fn forget(&mut self, topic: Topic, id: ConnectionId, subscription: SubscriptionId) {
        if let Some(listeners) = self.listeners.get_mut(&topic) {
            listeners.remove(&(id, subscription));
            if listeners.is_empty() {
                self.listeners.remove(&topic);
            }
        }
    }

    /// Sends a text, or cuts the connection when its client does not keep up.
    fn tell(&mut self, id: ConnectionId, message: &Value) {
        let Some(connection) = self.connections.get(&id) else { return };
        if !connection.outbox.put(message.to_string()) {
            self.close(id);
        }
    }

    fn receive(&mut self, id: ConnectionId, text: &str, state: &State) {
        let mut after = Vec::new();
        let answer = match serde_json::from_str(text) {
            Err(_) => Some(envelope(&Value::Null, Err(Fault::parse()))),
            Ok(Value::Array(requests)) if requests.is_empty() || requests.len() > BATCH_MAX => {
                let why = format!("a batch has 1 to {BATCH_MAX} requests");
                Some(envelope(&Value::Null, Err(Fault::invalid(why))))
            }
            Ok(Value::Array(requests)) => {
                let answers: Vec<_> =
                    requests.iter().filter_map(|request| self.request(id, request, state, &mut after)).collect();
                (!answers.is_empty()).then_some(Value::Array(answers))
            }
            Ok(request) => self.request(id, &request, state, &mut after),
        };
        if let Some(answer) = answer {
            self.tell(id, &answer);
        }
        // A signature that is settled already is told at once, but after the number of its subscription.
        for (topic, subscription) in after {
            self.tell_signature(topic, Some((id, subscription)), state);
        }
    }

    /// One request. Without an id it is a notification and gets no answer, as the pings of some clients.
    fn request(
        &mut self,
        id: ConnectionId,
        request: &Value,
        state: &State,
        after: &mut Vec<(Topic, SubscriptionId)>,
    ) -> Option<Value> {
        let name = request.get("id");
        let Some(method) = request["method"].as_str() else {
            let why = "a request is {\"jsonrpc\", \"id\", \"method\", \"params\"}".to_owned();
            return Some(envelope(name.unwrap_or(&Value::Null), Err(Fault::invalid(why))));
        };
        let none = Vec::new();
        let params = Params(request["params"].as_array().unwrap_or(&none));
        let result = match method.strip_suffix("Unsubscribe") {
            Some(kind) if topic::is_kind(kind) => self.unsubscribe(id, &params),
            _ => self.subscribe(id, method, &params).map(|(topic, subscription)| {
                let known = matches!(topic, Topic::Signature(_, signature) if state.processed(&signature).is_some());
                if known {
                    after.push((topic, subscription));
                }
                json!(subscription)
            }),
        };
        name.map(|name| envelope(name, result))
    }

    fn subscribe(
        &mut self,
        id: ConnectionId,
        method: &str,
        params: &Params<'_>,
    ) -> Result<(Topic, SubscriptionId), Fault> {
        let (topic, details) = topic::read(method, params)?;
        let connection = self.connections.get_mut(&id).ok_or_else(Fault::stopped)?;
        if connection.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(Fault::invalid(format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions")));
        }
        self.last += 1;
        connection.subscriptions.insert(self.last, (topic, details));
        self.listeners.entry(topic).or_default().insert((id, self.last));
        Ok((topic, self.last))
    }

    fn unsubscribe(&mut self, id: ConnectionId, params: &Params<'_>) -> Result<Value, Fault> {
        let number = params.get(0).as_u64();
        let connection = self.connections.get_mut(&id).ok_or_else(Fault::stopped)?;
        let removed =
            number.and_then(|number| connection.subscriptions.remove(&number).map(|(topic, _)| (topic, number)));
        let (topic, number) = removed.ok_or_else(|| Fault::params("Invalid subscription id."))?;
        self.forget(topic, id, number);
        Ok(json!(true))
    }

    /// Tells everybody what changed since the last time, and what is settled by now. Only to be called with everything
    /// on disk that the state shows.
    pub(super) fn publish(&mut self, state: &mut State) {
        for change in state.feed().drain().into_iter().map(Arc::new) {
            self.pending.iter_mut().for_each(|pending| pending.push_back(Arc::clone(&change)));
        }
        self.tell_slots(state);
        for (at, level) in LEVELS.into_iter().enumerate() {
            let slot = state.slot_at(level);
            let reached = self.pending[at].partition_point(|change| change.slot <= slot);
            let changes: Vec<_> = self.pending[at].drain(..reached).collect();
            if !changes.is_empty() {
                self.tell_changes(&changes, &View::at(state, level), level, state);
            }
        }
    }

    fn tell_slots(&mut self, state: &State) {
        let now = state.slot_at(Commitment::Processed);
        let told = self.slot.replace(now).unwrap_or(now);
        let Some(listeners) = self.listeners.get(&Topic::Slot).cloned() else { return };
        let first = if now - told > SLOTS_TOLD_MAX { now } else { told + 1 };
        let root = state.slot_at(Commitment::Finalized);
        for slot in first..=now {
            let result = json!({ "slot": slot, "parent": slot.saturating_sub(1), "root": root.min(slot) });
            for (id, subscription) in &listeners {
                self.tell(*id, &notification("slot", &result, *subscription));
            }
        }
    }

    fn tell_changes(&mut self, changes: &[Arc<Change>], view: &View<'_>, level: Commitment, state: &State) {
        for change in changes {
            let Some(signature) = change.signature else { continue };
            if level == Commitment::Processed {
                self.tell_received(Topic::Signature(level, signature), state);
            }
            self.tell_signature(Topic::Signature(level, signature), None, state);
        }
        let changed: BTreeSet<Address> = changes.iter().flat_map(|change| change.accounts.iter().copied()).collect();
        for address in changed {
            self.tell_account(address, view, level);
        }
    }

    /// Tells those who want to hear that a transaction has come, of whatever commitment they wait for.
    fn tell_received(&mut self, topic: Topic, state: &State) {
        let Topic::Signature(_, signature) = topic else { return };
        let Some(slot) = state.processed(&signature).map(|processed| processed.slot) else { return };
        let topics = LEVELS.map(|level| Topic::Signature(level, signature));
        let listeners: Vec<_> =
            topics.iter().filter_map(|topic| self.listeners.get(topic)).flatten().copied().collect();
        for (id, subscription) in listeners {
            if self.details(id, subscription).is_some_and(|details| matches!(details, Details::Received)) {
                let result = json!({ "context": { "slot": slot }, "value": "receivedSignature" });
                self.tell(id, &notification("signature", &result, subscription));
            }
        }
    }

    /// Tells the outcome of a transaction, once, and ends the subscriptions. Of all its listeners, or one.
    fn tell_signature(&mut self, topic: Topic, only: Option<(ConnectionId, SubscriptionId)>, state: &State) {
        let Topic::Signature(level, signature) = topic else { return };
        let Some(processed) = state.processed(&signature).filter(|processed| processed.slot <= state.slot_at(level))
        else {
            return;
        };
        let result = json!({ "context": { "slot": processed.slot }, "value": { "err": processed.error } });
        let listeners: Vec<_> = match only {
            Some(one) => vec![one],
            None => self.listeners.get(&topic).into_iter().flatten().copied().collect(),
        };
        for (id, subscription) in listeners {
            self.tell(id, &notification("signature", &result, subscription));
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.subscriptions.remove(&subscription);
            }
            self.forget(topic, id, subscription);
        }
    }

    /// Tells an account to those who watch it, and to those who watch its program.
    fn tell_account(&mut self, address: Address, view: &View<'_>, level: Commitment) {
        // An account that is gone is told as one that holds nothing.
        let account = view.account(&address).unwrap_or_default();
        let context = view.context();
        let watchers = |hub: &Self, topic| hub.listeners.get(&topic).into_iter().flatten().copied().collect::<Vec<_>>();
        for (id, subscription) in watchers(self, Topic::Account(level, address)) {
            let Some(Details::Account(form)) = self.details(id, subscription) else { continue };
            match account_json(*form, &account, view) {
                Ok(value) => {
                    let result = json!({ "context": context, "value": value });
                    self.tell(id, &notification("account", &result, subscription));
                }
                // It cannot be shown in the form that was asked for; nothing is left out silently.
                Err(_) => self.close(id),
            }
        }
        let program = from_svm(account.owner());
        for (id, subscription) in watchers(self, Topic::Program(level, program)) {
            let Some(Details::Program(form, filters)) = self.details(id, subscription) else { continue };
            if account.lamports() == 0 || !filters.iter().all(|filter| filter.passes(&account)) {
                continue;
            }
            match account_json(*form, &account, view) {
                Ok(value) => {
                    let value = json!({ "pubkey": address, "account": value });
                    let result = json!({ "context": context, "value": value });
                    self.tell(id, &notification("program", &result, subscription));
                }
                Err(_) => self.close(id),
            }
        }
    }

    fn details(&self, id: ConnectionId, subscription: SubscriptionId) -> Option<&Details> {
        Some(&self.connections.get(&id)?.subscriptions.get(&subscription)?.1)
    }
}

fn notification(kind: &str, result: &Value, subscription: SubscriptionId) -> Value {
    json!({
        "jsonrpc": "2.0",
        "method": format!("{kind}Notification"),
        "params": { "result": result, "subscription": subscription },
    })
}

fn envelope(id: &Value, result: Result<Value, Fault>) -> Value {
    super::engine::envelope(id, result)
}
