//! The local chain's JSON-RPC methods: parameters in, results out, in Solana's words.
//!
//! Follows <https://solana.com/docs/rpc> for every field that clients read. Not here: subscriptions, blocks, votes,
//! `jsonParsed` (answered as base64, as the documentation allows). `atoll_warp` is this chain's own.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use solana_account::{AccountSharedData, ReadableAccount as _};
use solana_transaction::versioned::VersionedTransaction;

use super::state::{BLOCKHASH_SLOTS, Preflight, Run, SLOT_FIRST, Sent, State, from_svm};
use crate::address::{Address, Hash, Signature};
use crate::rpc::Filter;
use crate::spl::{LAMPORTS_PER_SOL, Mint, TOKEN_PROGRAM, TokenAccount};
use crate::transaction::TRANSACTION_BYTES_MAX;

/// Most addresses of one `getMultipleAccounts`, as on Solana.
const ACCOUNTS_MAX: usize = 100;
/// Most signatures of one `getSignatureStatuses`, as on Solana.
const SIGNATURES_MAX: usize = 256;
/// Most filters, and most bytes of one, as on Solana.
const FILTERS_MAX: usize = 4;
const FILTER_BYTES_MAX: usize = 128;
/// Most accounts, and bytes in them, of one `getProgramAccounts`.
const RESULTS_MAX: usize = 10_000;
const RESULT_BYTES_MAX: usize = 32 << 20;
/// Most lamports of one airdrop.
const AIRDROP_MAX: u64 = 100_000 * LAMPORTS_PER_SOL;
/// Longest single move of the clock: a year.
const WARP_S_MAX: u32 = 366 * 24 * 3600;
/// Largest account there can be.
const ACCOUNT_BYTES_MAX: u64 = 10 << 20;

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

    fn params(message: impl Into<String>) -> Self {
        Self::new(-32602, message)
    }

    pub(super) fn stopped() -> Self {
        Self::new(-32603, "the local chain has stopped; see its output for the reason and start it again")
    }

    fn preflight(run: Run) -> Self {
        let error = run.error.unwrap_or_default();
        Self {
            code: -32002,
            message: format!("Transaction simulation failed: {error}"),
            data: json!({ "err": error, "logs": run.log, "unitsConsumed": run.units, "accounts": null, "returnData": null }),
        }
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
        "getVersion" => {
            Ok(json!({ "solana-core": "4.2.2", "feature-set": 0, "atoll-local-chain": env!("CARGO_PKG_VERSION") }))
        }
        "getHealth" => Ok(json!("ok")),
        "getGenesisHash" => Ok(json!(state.genesis_hash())),
        "getSlot" => Ok(json!(state.now().slot)),
        "getBlockHeight" => Ok(json!(height(state))),
        "getBlockTime" => Ok(json!(state.block_time(params.number(0)?))),
        "getLatestBlockhash" => Ok(in_context(
            state,
            json!({ "blockhash": state.blockhash(), "lastValidBlockHeight": height(state) + BLOCKHASH_SLOTS }),
        )),
        "isBlockhashValid" => Ok(in_context(state, json!(state.blockhash_is_valid(&params.parsed::<Hash>(0)?)))),
        "getMinimumBalanceForRentExemption" => rent(state, &params),
        "getBalance" => {
            let lamports = state.account(&params.parsed(0)?).map_or(0, |account| account.lamports());
            Ok(in_context(state, json!(lamports)))
        }
        "getAccountInfo" => account_info(state, &params),
        "getMultipleAccounts" => multiple_accounts(state, &params),
        "getProgramAccounts" => program_accounts(state, &params),
        "getTokenAccountBalance" => token_account_balance(state, &params),
        "getTokenSupply" => token_supply(state, &params),
        "sendTransaction" => send_transaction(state, &params),
        "simulateTransaction" => simulate_transaction(state, &params),
        "getSignatureStatuses" => signature_statuses(state, &params),
        "getTransaction" => transaction(state, &params),
        "requestAirdrop" => airdrop(state, &params),
        "atoll_warp" => warp(state, &params),
        _ => Err(Fault::new(-32601, "this method is not known to the local chain")),
    }
}

/// A request's parameters, none of them trusted.
struct Params<'a>(&'a [Value]);

impl Params<'_> {
    fn get(&self, at: usize) -> &Value {
        self.0.get(at).unwrap_or(&Value::Null)
    }

    fn number(&self, at: usize) -> Result<u64, Fault> {
        self.get(at).as_u64().ok_or_else(|| Fault::params(format!("parameter {at} is a number from 0")))
    }

    fn parsed<T: std::str::FromStr>(&self, at: usize) -> Result<T, Fault> {
        parsed(self.get(at)).ok_or_else(|| Fault::params(format!("parameter {at} is base58 of the right length")))
    }

    fn list<T: std::str::FromStr>(&self, at: usize, max: usize) -> Result<Vec<T>, Fault> {
        let refused = || Fault::params(format!("parameter {at} is a list of at most {max} base58 texts"));
        let items = self.get(at).as_array().filter(|items| items.len() <= max).ok_or_else(refused)?;
        items.iter().map(|item| parsed(item).ok_or_else(refused)).collect()
    }
}

fn parsed<T: std::str::FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.parse().ok()
}

fn height(state: &State) -> u64 {
    state.now().slot - SLOT_FIRST
}

fn in_context(state: &State, value: Value) -> Value {
    json!({ "context": { "slot": state.now().slot, "apiVersion": "4.2.2" }, "value": value })
}

fn rent(state: &State, params: &Params<'_>) -> Answer {
    let bytes = params.number(0)?;
    let bytes = usize::try_from(bytes).ok().filter(|_| bytes <= ACCOUNT_BYTES_MAX);
    Ok(json!(state.rent(bytes.ok_or_else(|| Fault::params("an account has at most 10 MiB"))?)))
}

/// Refuses encodings that would be answered in another one.
fn check_encoding(config: &Value) -> Result<(), Fault> {
    match config["encoding"].as_str() {
        None | Some("base64" | "jsonParsed") if config["dataSlice"].is_null() => Ok(()),
        _ => Err(Fault::params("the local chain answers accounts whole and in base64: set \"encoding\": \"base64\"")),
    }
}

fn account_json(account: &AccountSharedData) -> Value {
    json!({
        "lamports": account.lamports(),
        "owner": from_svm(account.owner()),
        "data": [BASE64.encode(account.data()), "base64"],
        "executable": account.executable(),
        "rentEpoch": account.rent_epoch(),
        "space": account.data().len(),
    })
}

fn account_info(state: &State, params: &Params<'_>) -> Answer {
    check_encoding(params.get(1))?;
    Ok(in_context(state, json!(state.account(&params.parsed(0)?).map(account_json))))
}

fn multiple_accounts(state: &State, params: &Params<'_>) -> Answer {
    check_encoding(params.get(1))?;
    let addresses: Vec<Address> = params.list(0, ACCOUNTS_MAX)?;
    let accounts: Vec<_> = addresses.iter().map(|address| state.account(address).map(account_json)).collect();
    Ok(in_context(state, json!(accounts)))
}

fn read_filters(config: &Value) -> Result<Vec<Filter>, Fault> {
    let none = Vec::new();
    let filters = config["filters"].as_array().unwrap_or(&none);
    if filters.len() > FILTERS_MAX {
        return Err(Fault::params(format!("at most {FILTERS_MAX} filters")));
    }
    let refused = || {
        Fault::params(
            "a filter is {\"dataSize\": n} or {\"memcmp\": {\"offset\": n, \"bytes\": text, \"encoding\": \"base58\" or \"base64\"}} with at most 128 bytes",
        )
    };
    filters.iter().map(|filter| read_filter(filter).ok_or_else(refused)).collect()
}

fn read_filter(filter: &Value) -> Option<Filter> {
    let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
    if let Some(size) = number(&filter["dataSize"]) {
        return Some(Filter::DataSize(size));
    }
    let memcmp = &filter["memcmp"];
    // 128 bytes are at most 175 characters of base58; longer text is not decoded.
    let text = memcmp["bytes"].as_str().filter(|text| text.len() <= 2 * FILTER_BYTES_MAX)?;
    let bytes = match memcmp["encoding"].as_str() {
        None | Some("base58") => bs58::decode(text).into_vec().ok()?,
        Some("base64") => BASE64.decode(text).ok()?,
        Some(_) => return None,
    };
    (bytes.len() <= FILTER_BYTES_MAX).then_some(())?;
    Some(Filter::Bytes { offset: number(&memcmp["offset"])?, bytes })
}

fn program_accounts(state: &State, params: &Params<'_>) -> Answer {
    let config = params.get(1);
    check_encoding(config)?;
    let filters = read_filters(config)?;
    let (mut accounts, mut bytes) = (Vec::new(), 0);
    for (address, account) in state.accounts_of(&params.parsed(0)?) {
        if !filters.iter().all(|filter| filter.passes(account.data())) {
            continue;
        }
        bytes += account.data().len();
        if accounts.len() == RESULTS_MAX || bytes > RESULT_BYTES_MAX {
            return Err(Fault::params(format!("more than {RESULTS_MAX} accounts or 32 MiB: add a filter")));
        }
        accounts.push(json!({ "pubkey": address, "account": account_json(account) }));
    }
    let accounts = Value::Array(accounts);
    Ok(if config["withContext"] == json!(true) { in_context(state, accounts) } else { accounts })
}

/// A token amount in Solana's form. `uiAmount` is a float and deprecated; it stays empty.
fn amount_json(amount: u64, decimals: u8) -> Value {
    let digits = format!("{amount:0>width$}", width = usize::from(decimals) + 1);
    let (whole, part) = digits.split_at(digits.len() - usize::from(decimals));
    let part = part.trim_end_matches('0');
    let text = if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") };
    json!({ "amount": amount.to_string(), "decimals": decimals, "uiAmount": null, "uiAmountString": text })
}

fn read_mint(state: &State, address: &Address) -> Option<Mint> {
    let account = state.account(address).filter(|account| from_svm(account.owner()) == TOKEN_PROGRAM)?;
    Mint::read(account.data())
}

fn token_account_balance(state: &State, params: &Params<'_>) -> Answer {
    let account = state.account(&params.parsed(0)?).filter(|account| from_svm(account.owner()) == TOKEN_PROGRAM);
    let token = account.and_then(|account| TokenAccount::read(account.data()));
    let token = token.ok_or_else(|| Fault::params("Invalid param: could not find token account"))?;
    let mint = read_mint(state, &token.mint).ok_or_else(|| Fault::params("Invalid param: could not find mint"))?;
    Ok(in_context(state, amount_json(token.amount, mint.decimals)))
}

fn token_supply(state: &State, params: &Params<'_>) -> Answer {
    let mint =
        read_mint(state, &params.parsed(0)?).ok_or_else(|| Fault::params("Invalid param: could not find mint"))?;
    Ok(in_context(state, amount_json(mint.supply, mint.decimals)))
}

/// Reads a transaction; the virtual machine does not limit its size, so that is done here.
fn read_transaction(params: &Params<'_>) -> Result<(VersionedTransaction, Vec<u8>), Fault> {
    let too_large = || Fault::params(format!("a transaction has at most {TRANSACTION_BYTES_MAX} bytes"));
    let text = params.get(0).as_str().ok_or_else(|| Fault::params("parameter 0 is a transaction as text"))?;
    // The longer of both forms: base58 of 1,232 bytes is at most 1,683 characters.
    if text.len() > 1_683 {
        return Err(too_large());
    }
    let bytes = match params.get(1)["encoding"].as_str() {
        Some("base64") => BASE64.decode(text).ok(),
        None | Some("base58") => bs58::decode(text).into_vec().ok(),
        Some(_) => None,
    };
    let bytes = bytes.ok_or_else(|| {
        Fault::params("the transaction is no text of its encoding (base64, or base58 when none is named)")
    })?;
    if bytes.len() > TRANSACTION_BYTES_MAX {
        return Err(too_large());
    }
    let transaction = wincode::deserialize_exact(&bytes);
    Ok((transaction.map_err(|_| Fault::params("the bytes are no Solana transaction"))?, bytes))
}

fn send_transaction(state: &mut State, params: &Params<'_>) -> Answer {
    let (transaction, bytes) = read_transaction(params)?;
    let skip = params.get(1)["skipPreflight"] == json!(true);
    match state.send(transaction, bytes, if skip { Preflight::Skip } else { Preflight::Run }) {
        Sent::Processed(signature) => Ok(json!(signature)),
        Sent::Refused(run) => Err(Fault::preflight(run)),
    }
}

fn simulate_transaction(state: &State, params: &Params<'_>) -> Answer {
    let (transaction, _) = read_transaction(params)?;
    let config = params.get(1);
    let refusal = state.refusal(&transaction).filter(|error| match error {
        solana_transaction_error::TransactionError::SignatureFailure => config["sigVerify"] == json!(true),
        solana_transaction_error::TransactionError::BlockhashNotFound => {
            config["replaceRecentBlockhash"] != json!(true)
        }
        _ => true,
    });
    let run = match refusal {
        Some(error) => Run { error: Some(json!(error)), log: Vec::new(), units: 0 },
        None => state.simulate(transaction),
    };
    Ok(in_context(
        state,
        json!({ "err": run.error, "logs": run.log, "unitsConsumed": run.units, "accounts": null, "returnData": null }),
    ))
}

fn signature_statuses(state: &State, params: &Params<'_>) -> Answer {
    let signatures: Vec<Signature> = params.list(0, SIGNATURES_MAX)?;
    let status = |signature: &Signature| {
        let processed = state.processed(signature)?;
        let outcome = processed.error.as_ref().map_or_else(|| json!({ "Ok": null }), |error| json!({ "Err": error }));
        Some(json!({
            "slot": processed.slot,
            "confirmations": null,
            "err": processed.error,
            "status": outcome,
            "confirmationStatus": "finalized",
        }))
    };
    Ok(in_context(state, json!(signatures.iter().map(status).collect::<Vec<_>>())))
}

fn transaction(state: &State, params: &Params<'_>) -> Answer {
    let signature = params.parsed(0)?;
    let (Some(processed), Some(detail)) = (state.processed(&signature), state.detail(&signature)) else {
        return Ok(Value::Null);
    };
    Ok(json!({
        "slot": processed.slot,
        "blockTime": state.block_time(processed.slot),
        "transaction": [BASE64.encode(&detail.bytes), "base64"],
        "version": "legacy",
        "meta": {
            "err": processed.error,
            "fee": detail.fee,
            "computeUnitsConsumed": detail.units,
            "logMessages": detail.log,
        },
    }))
}

fn airdrop(state: &mut State, params: &Params<'_>) -> Answer {
    let address = params.parsed(0)?;
    let lamports = params.number(1)?;
    if lamports == 0 || lamports > AIRDROP_MAX {
        return Err(Fault::params(format!("an airdrop is 1 to {AIRDROP_MAX} lamports")));
    }
    state.airdrop(&address, lamports).map(|signature| json!(signature)).map_err(Fault::params)
}

fn warp(state: &mut State, params: &Params<'_>) -> Answer {
    let seconds = params.get(0)["seconds"].as_u64().and_then(|seconds| u32::try_from(seconds).ok());
    let seconds = seconds.filter(|seconds| (1..=WARP_S_MAX).contains(seconds));
    let seconds = seconds.ok_or_else(|| Fault::params(format!("parameter 0 is {{\"seconds\": 1 to {WARP_S_MAX}}}")))?;
    let moment = state.warp(seconds);
    Ok(json!({ "slot": moment.slot, "unixTimestamp": moment.unix_ms / 1000 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_their_text_form() {
        let text = |amount, decimals| amount_json(amount, decimals)["uiAmountString"].as_str().unwrap().to_owned();
        assert_eq!(text(0, 9), "0");
        assert_eq!(text(1, 9), "0.000000001");
        assert_eq!(text(1_500_000_000, 9), "1.5");
        assert_eq!(text(u64::MAX, 0), u64::MAX.to_string());
    }

    #[test]
    fn filters_are_bounded() {
        assert_eq!(read_filter(&json!({ "dataSize": 5 })), Some(Filter::DataSize(5)));
        let memcmp = |bytes: &str| json!({ "memcmp": { "offset": 1, "bytes": bytes } });
        assert_eq!(read_filter(&memcmp("2")), Some(Filter::Bytes { offset: 1, bytes: vec![1] }));
        for bad in
            [memcmp("0"), memcmp(&"1".repeat(129)), memcmp(&"1".repeat(100_000)), json!({}), json!({ "dataSize": -1 })]
        {
            assert_eq!(read_filter(&bad), None, "{bad}");
        }
    }
}
