//! What one request may see of the chain: its commitment, and the slot that this commitment stands at.

use serde_json::{Value, json};
use solana_account::AccountSharedData;

use super::{Answer, CODE_CONTEXT_SLOT, Fault};
use crate::address::Address;
use crate::local::state::{SLOT_FIRST, State};
use crate::rpc::Commitment;

/// The version of agave whose answers these are.
pub(super) const VERSION: &str = "4.2.2";

/// The chain at one commitment.
#[derive(Debug, Clone, Copy)]
pub(in crate::local) struct View<'a> {
    pub(super) state: &'a State,
    commitment: Commitment,
}

impl<'a> View<'a> {
    /// The chain at a commitment.
    pub(in crate::local) const fn at(state: &'a State, commitment: Commitment) -> Self {
        Self { state, commitment }
    }

    /// The chain as `config` wants it; refused when its `minContextSlot` has not come.
    pub(super) fn new(state: &'a State, config: &Value) -> Result<Self, Fault> {
        let view = Self { state, commitment: commitment(config)? };
        match &config["minContextSlot"] {
            Value::Null => Ok(view),
            least => {
                let least = least.as_u64().ok_or_else(|| Fault::params("Invalid params: minContextSlot is a slot"))?;
                if view.slot() >= least {
                    return Ok(view);
                }
                let mut fault = Fault::new(CODE_CONTEXT_SLOT, "Minimum context slot has not been reached");
                fault.data = json!({ "contextSlot": view.slot() });
                Err(fault)
            }
        }
    }

    /// As [`View::new`], for what is only kept of slots that are at least confirmed.
    pub(super) fn settled(state: &'a State, config: &Value) -> Result<Self, Fault> {
        let view = Self::new(state, config)?;
        if view.commitment == Commitment::Processed {
            return Err(Fault::params("Method does not support commitment below `confirmed`"));
        }
        Ok(view)
    }

    /// The newest slot of this commitment.
    pub(in crate::local) fn slot(&self) -> u64 {
        self.state.slot_at(self.commitment)
    }

    /// The newest slot of this commitment that gets no more transactions: the current one may.
    pub(super) fn last_whole(&self) -> u64 {
        self.slot().min(self.state.now().slot.saturating_sub(1))
    }

    /// Blocks up to this commitment's slot.
    pub(super) fn height(&self) -> u64 {
        height(self.slot())
    }

    /// An account; none when there is nothing.
    pub(in crate::local) fn account(&self, address: &Address) -> Option<AccountSharedData> {
        self.state.account_at(address, self.commitment)
    }

    /// The accounts of a program, by address.
    pub(super) fn accounts_of(&self, owner: &Address) -> impl Iterator<Item = (Address, AccountSharedData)> + use<'a> {
        self.state.accounts_of_at(owner, self.commitment)
    }

    /// An answer together with the slot that it was read at.
    pub(super) fn with_context(&self, value: Value) -> Value {
        json!({ "context": self.context(), "value": value })
    }

    /// The slot that something was read at.
    pub(in crate::local) fn context(&self) -> Value {
        json!({ "slot": self.slot(), "apiVersion": VERSION })
    }

    /// As [`View::with_context`], as an answer.
    pub(super) fn answer(&self, value: Value) -> Answer {
        Ok(self.with_context(value))
    }
}

/// Blocks up to a slot. Every slot of this chain has a block.
pub(super) const fn height(slot: u64) -> u64 {
    slot.saturating_sub(SLOT_FIRST)
}

/// The commitment that `config` names; `finalized` when it names none, as on a cluster.
pub(in crate::local) fn commitment(config: &Value) -> Result<Commitment, Fault> {
    match &config["commitment"] {
        Value::Null => Ok(Commitment::Finalized),
        Value::String(name) if name == "processed" => Ok(Commitment::Processed),
        Value::String(name) if name == "confirmed" => Ok(Commitment::Confirmed),
        Value::String(name) if name == "finalized" => Ok(Commitment::Finalized),
        _ => Err(Fault::params("Invalid params: commitment is processed, confirmed or finalized")),
    }
}
