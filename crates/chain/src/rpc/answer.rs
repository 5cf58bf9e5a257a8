//! Reading a node's answers, each checked before it is believed. Pure.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use super::{Account, Commitment, RpcError, Status};
use crate::address::Address;

/// Largest account there can be: Solana's limit of 10 MiB.
const ACCOUNT_BYTES_MAX: usize = 10 << 20;
/// Most log lines kept.
const LOG_LINES_MAX: usize = 1000;

pub(super) fn malformed(method: &'static str, why: &str) -> RpcError {
    RpcError::Malformed { method, why: why.to_owned() }
}

/// The `value` of an answer that comes with the slot it was read at.
pub(super) fn value(mut answer: Value, method: &'static str) -> Result<Value, RpcError> {
    if answer["context"]["slot"].is_u64()
        && let Some(value) = answer.get_mut("value")
    {
        return Ok(value.take());
    }
    Err(malformed(method, "it lacks context and value"))
}

/// Text in base58: a hash, a signature or an address.
pub(super) fn text<T: FromStr>(value: Value, method: &'static str) -> Result<T, RpcError> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| malformed(method, "a hash or signature is not base58 of the right length"))
}

pub(super) fn number(value: &Value, method: &'static str) -> Result<u64, RpcError> {
    value.as_u64().ok_or_else(|| malformed(method, "a number is missing or negative"))
}

/// A token amount: base units, as text because JSON numbers lose bits.
pub(super) fn amount(value: &Value, method: &'static str) -> Result<u64, RpcError> {
    let parsed = value["amount"].as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| malformed(method, "the amount is no number"))
}

/// A list of exactly `len` items.
pub(super) fn list<T>(
    value: Value,
    len: usize,
    method: &'static str,
    mut read: impl FnMut(Value, &'static str) -> Result<T, RpcError>,
) -> Result<Vec<T>, RpcError> {
    match value {
        Value::Array(items) if items.len() == len => items.into_iter().map(|item| read(item, method)).collect(),
        _ => Err(malformed(method, "its list has another length than the question")),
    }
}

pub(super) fn status(value: Value, method: &'static str) -> Result<Option<Status>, RpcError> {
    if value.is_null() {
        return Ok(None);
    }
    let commitment = match value["confirmationStatus"].as_str() {
        Some("processed") => Commitment::Processed,
        Some("confirmed") => Commitment::Confirmed,
        Some("finalized") => Commitment::Finalized,
        _ => return Err(malformed(method, "a confirmation status is unknown")),
    };
    let error = value.get("err").filter(|error| !error.is_null()).cloned();
    Ok(Some(Status { slot: number(&value["slot"], method)?, commitment, error }))
}

pub(super) fn account(address: Address, value: Value, method: &'static str) -> Result<Option<Account>, RpcError> {
    if value.is_null() { Ok(None) } else { some_account(address, &value, method).map(Some) }
}

pub(super) fn keyed_accounts(answer: Value, method: &'static str) -> Result<Vec<Account>, RpcError> {
    let Value::Array(items) = answer else { return Err(malformed(method, "it is no list")) };
    items
        .into_iter()
        .map(|mut item| some_account(text(item["pubkey"].take(), method)?, &item["account"], method))
        .collect()
}

fn some_account(address: Address, value: &Value, method: &'static str) -> Result<Account, RpcError> {
    let data = match (value["data"][0].as_str(), value["data"][1].as_str()) {
        (Some(text), Some("base64")) => BASE64.decode(text).ok().filter(|data| data.len() <= ACCOUNT_BYTES_MAX),
        _ => None,
    };
    Ok(Account {
        address,
        owner: text(value["owner"].clone(), method)?,
        lamports: number(&value["lamports"], method)?,
        data: data.ok_or_else(|| malformed(method, "an account's data is no base64 of at most 10 MiB"))?,
        executable: value["executable"].as_bool().ok_or_else(|| malformed(method, "an account lacks `executable`"))?,
    })
}

/// Log lines; anything else is no log.
pub(super) fn log_lines(value: &Value) -> Vec<String> {
    let lines = value.as_array().map(Vec::as_slice).unwrap_or_default();
    lines.iter().take(LOG_LINES_MAX).filter_map(|line| line.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn accounts_are_read_and_hostile_ones_refused() {
        let good = json!({"owner": "11111111111111111111111111111111", "lamports": 5, "data": ["AAE=", "base64"],
            "executable": false, "rentEpoch": 0, "space": 2});
        let read = |value: &Value| account(Address([1; 32]), value.clone(), "getAccountInfo");
        assert_eq!(read(&good).unwrap().unwrap().data, [0, 1]);
        assert_eq!(read(&Value::Null).unwrap(), None);
        for (field, bad) in [
            ("owner", json!("1111")),
            ("owner", json!(null)),
            ("lamports", json!(-1)),
            ("lamports", json!(1.5)),
            ("data", json!("AAE=")),
            ("data", json!(["!", "base64"])),
            ("data", json!(["AAE=", "base58"])),
            ("executable", json!(0)),
        ] {
            let mut value = good.clone();
            value[field] = bad;
            assert!(read(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn lists_of_another_length_are_refused() {
        assert!(list(json!([1, 2]), 2, "m", |v, m| number(&v, m)).is_ok());
        assert!(list(json!([1]), 2, "m", |v, m| number(&v, m)).is_err());
        assert!(list(json!({}), 0, "m", |v, m| number(&v, m)).is_err());
    }

    #[test]
    fn statuses_are_read() {
        let failed =
            json!({"slot": 3, "confirmationStatus": "confirmed", "err": {"InstructionError": [0, {"Custom": 1}]}});
        let read = status(failed, "m").unwrap().unwrap();
        assert_eq!((read.slot, read.commitment, read.error.is_some()), (3, Commitment::Confirmed, true));
        assert!(status(json!({"slot": 3, "confirmationStatus": "maybe"}), "m").is_err());
        assert_eq!(amount(&json!({"amount": "18446744073709551615"}), "m").unwrap(), u64::MAX);
        assert!(amount(&json!({"amount": 5}), "m").is_err());
    }
}
