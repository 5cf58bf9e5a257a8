//! What changed since somebody last looked, for subscriptions.

use serde_json::Value;

use crate::address::{Address, Signature};

/// One change of the chain.
#[derive(Debug, Clone)]
pub struct Change {
    /// The slot of the change.
    pub slot: u64,
    /// The transaction, when it was one.
    pub signature: Option<Signature>,
    /// Solana's error value, when it failed.
    pub error: Option<Value>,
    /// The accounts that changed.
    pub accounts: Vec<Address>,
}

/// Collects changes while somebody listens, and nothing otherwise. Who listens drains it after every commit.
#[derive(Debug, Default)]
pub struct Feed(Option<Vec<Change>>);

impl Feed {
    /// Begins to collect, or stops and forgets.
    pub fn listen(&mut self, on: bool) {
        match (on, &self.0) {
            (true, None) => self.0 = Some(Vec::new()),
            (false, Some(_)) => self.0 = None,
            _ => {}
        }
    }

    /// Notes a change, when somebody listens.
    pub fn push(&mut self, change: impl FnOnce() -> Change) {
        if let Some(changes) = &mut self.0 {
            changes.push(change());
        }
    }

    /// Everything since the last time, oldest first.
    pub fn drain(&mut self) -> Vec<Change> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
