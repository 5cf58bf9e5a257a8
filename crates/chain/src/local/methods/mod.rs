//! The local chain's JSON-RPC methods: parameters in, results out, in Solana's words.
//!
//! Follows <https://solana.com/docs/rpc> for every field that clients read; what the documentation leaves open is as
//! agave answers it, and the clients in `tests/clients` hold it to that. Not here: votes and stakes, inflation, the
//! supply's total, `jsonParsed` of programs that no client needs (answered as base64, as the documentation allows).
//! Subscriptions are in `pubsub`. `atoll_warp` is this chain's own.
//!
//! One file for each noun: [`accounts`], [`tokens`], [`slots`], [`blocks`], [`transactions`]. [`view`] is what a request
//! may see; [`encode`], [`form`] and [`parsed`] are the forms of accounts and transactions.

mod accounts;
mod blocks;
mod encode;
mod fees;
mod form;
mod parsed;
mod slots;
mod tokens;
mod transactions;
mod view;

use serde_json::{Value, json};
use solana_transaction_error::TransactionError;

use super::state::{Run, State};

pub(super) use accounts::{account_form, read_filters};
pub(super) use encode::{AccountForm, account_json};
pub(super) use parsed::{AccountFilter, token_account, token_mint};
pub(super) use view::{View, commitment};

/// A method's own errors, as agave numbers them.
const CODE_PREFLIGHT: i64 = -32002;
const CODE_SIGNATURE: i64 = -32003;
const CODE_BLOCK_CLEANED_UP: i64 = -32001;
const CODE_BLOCK_NOT_AVAILABLE: i64 = -32004;
const CODE_VERSION_UNSUPPORTED: i64 = -32015;
const CODE_CONTEXT_SLOT: i64 = -32016;

/// A JSON-RPC error.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub(super) code: i64,
    pub(super) message: String,
    pub(super) data: Value,
}

impl Fault {
    fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: Value::Null }
    }

    pub(super) fn parse() -> Self {
        Self::new(-32700, "the request is no JSON")
    }

    pub(super) fn invalid(message: String) -> Self {
        Self::new(-32600, message)
    }

    pub(super) fn params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }

    pub(super) fn unknown(method: &str) -> Self {
        // Hostile names are not echoed at length.
        let shown: String = method.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect();
        Self::new(-32601, format!("Method not found: the local chain knows no {shown:?}"))
    }

    pub(super) fn stopped() -> Self {
        Self::new(-32603, "the local chain has stopped; see its output for the reason and start it again")
    }

    /// A transaction that was not taken: by its signatures, or by its run before it was sent.
    fn refused(run: Run) -> Self {
        let error = run.error.clone().unwrap_or_default();
        let read: Option<TransactionError> = serde_json::from_value(error.clone()).ok();
        let words = read.as_ref().map_or_else(|| error.to_string(), ToString::to_string);
        let (code, message) = match read {
            Some(TransactionError::SignatureFailure) => {
                (CODE_SIGNATURE, "Transaction signature verification failure".to_owned())
            }
            _ => (CODE_PREFLIGHT, format!("Transaction simulation failed: {words}")),
        };
        let data = json!({
            "err": error,
            "logs": run.log,
            "unitsConsumed": run.units,
            "accounts": null,
            "returnData": encode::returned_json(run.returned.as_ref()),
            "innerInstructions": null,
            "replacementBlockhash": null,
        });
        Self { code, message, data }
    }
}

type Answer = Result<Value, Fault>;

/// Answers one request.
pub(super) fn call(state: &mut State, method: &str, params: &Value) -> Answer {
    state.tick();
    let no_params = Vec::new();
    let params = match params {
        Value::Array(params) => params,
        Value::Null => &no_params,
        _ => return Err(Fault::params("params is a list")),
    };
    let params = Params(params);
    match method {
        "sendTransaction" => return transactions::send(state, &params),
        "requestAirdrop" => return transactions::airdrop(state, &params),
        "atoll_warp" => return slots::warp(state, &params),
        _ => {}
    }
    [slots::call, accounts::call, tokens::call, transactions::call, blocks::call, fees::call]
        .into_iter()
        .find_map(|family| family(state, method, &params))
        .unwrap_or_else(|| Err(Fault::unknown(method)))
}

/// A request's parameters, none of them trusted.
#[derive(Clone, Copy)]
pub(super) struct Params<'a>(pub(super) &'a [Value]);

impl<'a> Params<'a> {
    pub(super) fn get(&self, at: usize) -> &'a Value {
        self.0.get(at).unwrap_or(&Value::Null)
    }

    /// The object at this place; nothing there is an empty one.
    pub(super) fn config(&self, at: usize) -> Result<&'a Value, Fault> {
        match self.get(at) {
            config @ (Value::Object(_) | Value::Null) => Ok(config),
            _ => Err(Fault::params(format!("Invalid params: parameter {at} is a configuration object"))),
        }
    }

    pub(super) fn text(&self, at: usize) -> Result<&'a str, Fault> {
        self.get(at).as_str().ok_or_else(|| Fault::params(format!("Invalid params: parameter {at} is a text")))
    }

    fn number(&self, at: usize) -> Result<u64, Fault> {
        let refused = || Fault::params(format!("Invalid params: parameter {at} is a number from 0"));
        self.get(at).as_u64().ok_or_else(refused)
    }

    pub(super) fn parsed<T: std::str::FromStr>(&self, at: usize) -> Result<T, Fault> {
        let refused = || Fault::params(format!("Invalid param: parameter {at} is base58 of the right length"));
        parsed(self.get(at)).ok_or_else(refused)
    }

    fn list<T: std::str::FromStr>(&self, at: usize, max: usize) -> Result<Vec<T>, Fault> {
        list(self.get(at), max)
    }
}

fn list<T: std::str::FromStr>(value: &Value, max: usize) -> Result<Vec<T>, Fault> {
    let refused = || Fault::params(format!("Too many inputs provided; max {max}, each base58 of the right length"));
    let items = value.as_array().filter(|items| items.len() <= max).ok_or_else(refused)?;
    items.iter().map(|item| parsed(item).ok_or_else(refused)).collect()
}

pub(super) fn parsed<T: std::str::FromStr>(value: &Value) -> Option<T> {
    // The longest is a signature of 64 bytes: 88 characters. Decoding takes time that grows with the square.
    value.as_str().filter(|text| text.len() <= 88)?.parse().ok()
}
