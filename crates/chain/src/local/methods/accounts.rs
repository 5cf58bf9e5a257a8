//! Accounts: one, several, all of a program; filters.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use solana_account::ReadableAccount as _;

use super::encode::Encoding;
use super::parsed::AccountFilter;
use super::{AccountForm, Answer, Fault, Params, View, account_json};
use crate::address::Address;
use crate::local::state::State;
use crate::rpc::Filter;

/// Most addresses of one `getMultipleAccounts`, as on Solana.
const ACCOUNTS_MAX: usize = 100;
/// Most filters, and most bytes of one, as on Solana.
const FILTERS_MAX: usize = 4;
const FILTER_BYTES_MAX: usize = 128;
/// Most accounts, and bytes in them, of one `getProgramAccounts`.
pub(super) const RESULTS_MAX: usize = 10_000;
pub(super) const RESULT_BYTES_MAX: usize = 32 << 20;

pub(super) fn call(state: &mut State, method: &str, params: &Params<'_>) -> Option<Answer> {
    let state = &*state;
    Some(match method {
        "getBalance" => balance(state, params),
        "getAccountInfo" => account_info(state, params),
        "getMultipleAccounts" => multiple_accounts(state, params),
        "getProgramAccounts" => program_accounts(state, params),
        _ => return None,
    })
}

fn balance(state: &State, params: &Params<'_>) -> Answer {
    let address = params.parsed(0)?;
    let view = View::new(state, params.config(1)?)?;
    view.answer(json!(view.account(&address).map_or(0, |account| account.lamports())))
}

/// The form that accounts are asked for in; base58 without a name when none is.
pub(in crate::local) fn account_form(config: &Value) -> Result<AccountForm, Fault> {
    AccountForm::read(config, Encoding::Binary)
}

fn account_info(state: &State, params: &Params<'_>) -> Answer {
    let (address, config) = (params.parsed(0)?, params.config(1)?);
    let (view, form) = (View::new(state, config)?, account_form(config)?);
    let account = view.account(&address).map(|account| account_json(form, &account, &view)).transpose()?;
    view.answer(json!(account))
}

fn multiple_accounts(state: &State, params: &Params<'_>) -> Answer {
    let (addresses, config): (Vec<Address>, _) = (params.list(0, ACCOUNTS_MAX)?, params.config(1)?);
    let (view, form) = (View::new(state, config)?, AccountForm::read(config, Encoding::Base64)?);
    let account = |address| view.account(address).map(|account| account_json(form, &account, &view)).transpose();
    view.answer(json!(addresses.iter().map(account).collect::<Result<Vec<_>, _>>()?))
}

/// The filters that `config` names.
pub(in crate::local) fn read_filters(config: &Value) -> Result<Vec<AccountFilter>, Fault> {
    let filters = match &config["filters"] {
        Value::Null => return Ok(Vec::new()),
        Value::Array(filters) => filters,
        _ => return Err(Fault::params("Invalid params: filters is a list")),
    };
    if filters.len() > FILTERS_MAX {
        return Err(Fault::params(format!("Too many filters provided; max {FILTERS_MAX}")));
    }
    let refused = || {
        Fault::params(
            "Invalid params: a filter is {\"dataSize\": n}, {\"memcmp\": {\"offset\": n, \"bytes\": text, \"encoding\": \"base58\" or \"base64\"}} with at most 128 bytes, or \"tokenAccountState\"",
        )
    };
    filters.iter().map(|filter| read_filter(filter).ok_or_else(refused)).collect()
}

fn read_filter(filter: &Value) -> Option<AccountFilter> {
    let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
    if filter.as_str() == Some("tokenAccountState") {
        return Some(AccountFilter::TokenAccount);
    }
    if let Some(size) = number(&filter["dataSize"]) {
        return Some(AccountFilter::Data(Filter::DataSize(size)));
    }
    let memcmp = &filter["memcmp"];
    let bytes = filter_bytes(&memcmp["bytes"], &memcmp["encoding"])?;
    (bytes.len() <= FILTER_BYTES_MAX).then_some(())?;
    Some(AccountFilter::Data(Filter::Bytes { offset: number(&memcmp["offset"])?, bytes }))
}

fn filter_bytes(bytes: &Value, encoding: &Value) -> Option<Vec<u8>> {
    if let Value::Array(bytes) = bytes {
        let byte = |byte: &Value| byte.as_u64().and_then(|byte| u8::try_from(byte).ok());
        return (bytes.len() <= FILTER_BYTES_MAX).then(|| bytes.iter().map(byte).collect()).flatten();
    }
    // 128 bytes are at most 175 characters of base58; longer text is not decoded.
    let text = bytes.as_str().filter(|text| text.len() <= 2 * FILTER_BYTES_MAX)?;
    match encoding {
        Value::Null => bs58::decode(text).into_vec().ok(),
        Value::String(name) if name == "base58" => bs58::decode(text).into_vec().ok(),
        Value::String(name) if name == "base64" => BASE64.decode(text).ok(),
        _ => None,
    }
}

fn program_accounts(state: &State, params: &Params<'_>) -> Answer {
    let (program, config): (Address, _) = (params.parsed(0)?, params.config(1)?);
    let (view, form, filters) = (View::new(state, config)?, account_form(config)?, read_filters(config)?);
    let (mut accounts, mut bytes) = (Vec::new(), 0);
    for (address, account) in view.accounts_of(&program) {
        if !filters.iter().all(|filter| filter.passes(&account)) {
            continue;
        }
        bytes += account.data().len();
        if accounts.len() == RESULTS_MAX || bytes > RESULT_BYTES_MAX {
            return Err(Fault::params(format!("more than {RESULTS_MAX} accounts or 32 MiB: add a filter")));
        }
        accounts.push(json!({ "pubkey": address, "account": account_json(form, &account, &view)? }));
    }
    let accounts = Value::Array(accounts);
    if config["withContext"] == json!(true) { view.answer(accounts) } else { Ok(accounts) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_bounded() {
        let size = AccountFilter::Data(Filter::DataSize(5));
        assert_eq!(read_filter(&json!({ "dataSize": 5 })), Some(size));
        let memcmp = |bytes: Value| json!({ "memcmp": { "offset": 1, "bytes": bytes } });
        let one = AccountFilter::Data(Filter::Bytes { offset: 1, bytes: vec![1] });
        assert_eq!(read_filter(&memcmp(json!("2"))), Some(one.clone()));
        assert_eq!(read_filter(&memcmp(json!([1]))), Some(one));
        for bad in [
            memcmp(json!("0")),
            memcmp(json!("1".repeat(129))),
            memcmp(json!("1".repeat(100_000))),
            memcmp(json!(vec![1; 129])),
            memcmp(json!([256])),
            json!({}),
            json!({ "dataSize": -1 }),
        ] {
            assert_eq!(read_filter(&bad), None, "{bad}");
        }
    }
}
