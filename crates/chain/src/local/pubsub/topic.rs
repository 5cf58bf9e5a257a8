//! What can be subscribed to. Pure.

use serde_json::json;

use crate::address::{Address, Signature};
use crate::local::methods::{AccountFilter, AccountForm, Fault, Params, account_form, commitment, read_filters};
use crate::rpc::Commitment;

/// What somebody wants to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    /// An account that changes.
    Account(Commitment, Address),
    /// Accounts of a program that change.
    Program(Commitment, Address),
    /// What becomes of a transaction, once.
    Signature(Commitment, Signature),
    /// Slots that begin.
    Slot,
}

/// How it is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Details {
    Plain,
    /// Of a signature: also when it comes.
    Received,
    Account(AccountForm),
    Program(AccountForm, Vec<AccountFilter>),
}

/// Whether there are subscriptions of this kind.
pub(super) fn is_kind(kind: &str) -> bool {
    matches!(kind, "account" | "program" | "signature" | "slot")
}

/// What a method subscribes to.
pub(super) fn read(method: &str, params: &Params<'_>) -> Result<(Topic, Details), Fault> {
    Ok(match method {
        "accountSubscribe" => {
            let (address, config) = (params.parsed(0)?, params.config(1)?);
            (Topic::Account(commitment(config)?, address), Details::Account(account_form(config)?))
        }
        "programSubscribe" => {
            let (program, config) = (params.parsed(0)?, params.config(1)?);
            let details = Details::Program(account_form(config)?, read_filters(config)?);
            (Topic::Program(commitment(config)?, program), details)
        }
        "signatureSubscribe" => {
            let (signature, config) = (params.parsed(0)?, params.config(1)?);
            let received = config["enableReceivedNotification"] == json!(true);
            let details = if received { Details::Received } else { Details::Plain };
            (Topic::Signature(commitment(config)?, signature), details)
        }
        "slotSubscribe" => (Topic::Slot, Details::Plain),
        _ => return Err(Fault::unknown(method)),
    })
}
