//! Transactions: sending, trying, finding.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use solana_account::AccountSharedData;
use solana_transaction::versioned::VersionedTransaction;
use solana_transaction_error::TransactionError;

use super::encode::{Encoding, returned_json};
use super::form::Form;
use super::{AccountForm, Answer, Fault, Params, View, account_json, list, parsed};
use crate::address::{Address, Signature};
use crate::local::history::{InnerCalls, Page};
use crate::local::state::{BLOCKHASH_SLOTS, Preflight, Run, Sent, State};
use crate::rpc::Commitment;
use crate::spl::LAMPORTS_PER_SOL;
use crate::transaction::TRANSACTION_BYTES_MAX;

/// Most signatures of one `getSignatureStatuses`, as on Solana.
const SIGNATURES_MAX: usize = 256;
/// Most signatures of one `getSignaturesForAddress`, as on Solana.
const PAGE_MAX: usize = 1000;
/// Most accounts that one `simulateTransaction` shows; a transaction has no more.
const SHOWN_MAX: usize = 256;
/// Most lamports of one airdrop.
const AIRDROP_MAX: u64 = 100_000 * LAMPORTS_PER_SOL;
/// Slots for which a status is found without a search of the history, as on Solana.
const RECENT_SLOTS: u64 = 2 * BLOCKHASH_SLOTS;
/// Longest text of a transaction: base58 of 1,232 bytes is at most 1,683 characters, base64 of them 1,644.
const TEXT_CHARS_MAX: usize = 1_683;

pub(super) fn call(state: &mut State, method: &str, params: &Params<'_>) -> Option<Answer> {
    let state = &*state;
    Some(match method {
        "simulateTransaction" => simulate(state, params),
        "getSignatureStatuses" => signature_statuses(state, params),
        "getTransaction" => transaction(state, params),
        "getSignaturesForAddress" => signatures_for_address(state, params),
        _ => return None,
    })
}

/// Reads a transaction; the virtual machine does not limit its size, so that is done here.
fn read_transaction(params: &Params<'_>) -> Result<(VersionedTransaction, Vec<u8>), Fault> {
    let too_large = || Fault::params(format!("a transaction has at most {TRANSACTION_BYTES_MAX} bytes"));
    let text = params.text(0)?;
    if text.len() > TEXT_CHARS_MAX {
        return Err(too_large());
    }
    let bytes = match &params.config(1)?["encoding"] {
        Value::Null => bs58::decode(text).into_vec().ok(),
        Value::String(name) if name == "base58" => bs58::decode(text).into_vec().ok(),
        Value::String(name) if name == "base64" => BASE64.decode(text).ok(),
        _ => None,
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

/// `maxRetries` and `preflightCommitment` are accepted: a transaction is taken at once or not at all.
pub(super) fn send(state: &mut State, params: &Params<'_>) -> Answer {
    let (transaction, bytes) = read_transaction(params)?;
    let config = params.config(1)?;
    View::new(state, config)?;
    let skip = config["skipPreflight"] == json!(true);
    match state.send(transaction, bytes, if skip { Preflight::Skip } else { Preflight::Run }) {
        Sent::Processed(signature) => Ok(json!(signature)),
        Sent::Refused(run) => Err(Fault::refused(run)),
    }
}

fn simulate(state: &State, params: &Params<'_>) -> Answer {
    let (transaction, _) = read_transaction(params)?;
    let config = params.config(1)?;
    let (verify, replace) = (config["sigVerify"] == json!(true), config["replaceRecentBlockhash"] == json!(true));
    if verify && replace {
        return Err(Fault::params("sigVerify may not be used with replaceRecentBlockhash"));
    }
    let view = View::new(state, config)?;
    let shown = shown_accounts(&config["accounts"])?;
    let refusal = state.refusal(&transaction, verify).filter(|error| match error {
        TransactionError::BlockhashNotFound => !replace,
        _ => true,
    });
    let run = match refusal {
        Some(TransactionError::SignatureFailure) => {
            return Err(Fault::refused(Run::failed(&TransactionError::SignatureFailure)));
        }
        Some(error) => Run::failed(&error),
        None => state.simulate(transaction),
    };
    let inner = if config["innerInstructions"] == json!(true) { inner_json(&run.inner) } else { Value::Null };
    let replacement =
        json!({ "blockhash": state.blockhash(), "lastValidBlockHeight": view.height() + BLOCKHASH_SLOTS });
    view.answer(json!({
        "err": run.error,
        "logs": run.log,
        "unitsConsumed": run.units,
        "fee": run.fee,
        "accounts": accounts_after(&view, &run, shown)?,
        "returnData": returned_json(run.returned.as_ref()),
        "innerInstructions": inner,
        "replacementBlockhash": if replace { replacement } else { Value::Null },
    }))
}

/// Which accounts a simulation shows, and how.
fn shown_accounts(config: &Value) -> Result<Option<(Vec<Address>, AccountForm)>, Fault> {
    if config.is_null() {
        return Ok(None);
    }
    let form = AccountForm::read(config, Encoding::Base64)?;
    if matches!(form.encoding, Encoding::Binary | Encoding::Base58) {
        return Err(Fault::params("base58 encoding not supported"));
    }
    Ok(Some((list(&config["addresses"], SHOWN_MAX)?, form)))
}

fn accounts_after(view: &View<'_>, run: &Run, shown: Option<(Vec<Address>, AccountForm)>) -> Answer {
    let Some((addresses, form)) = shown else { return Ok(Value::Null) };
    let after = |address: &Address| -> Option<AccountSharedData> {
        run.error.is_none().then_some(())?;
        let changed = run.accounts.iter().find(|(key, _)| key == address).map(|(_, account)| account.clone());
        changed.or_else(|| view.account(address))
    };
    let account = |address| after(address).map(|account| account_json(form, &account, view)).transpose();
    Ok(json!(addresses.iter().map(account).collect::<Result<Vec<_>, _>>()?))
}

fn inner_json(inner: &[InnerCalls]) -> Value {
    let call = |call: &crate::local::history::InnerCall| {
        json!({
            "programIdIndex": call.program,
            "accounts": call.accounts,
            "data": bs58::encode(&call.data).into_string(),
            "stackHeight": call.depth,
        })
    };
    let calls = |calls: &InnerCalls| json!({ "index": calls.index, "instructions": calls.calls.iter().map(call).collect::<Vec<_>>() });
    inner.iter().map(calls).collect()
}

fn status_name(state: &State, slot: u64) -> &'static str {
    [(Commitment::Finalized, "finalized"), (Commitment::Confirmed, "confirmed")]
        .into_iter()
        .find(|(commitment, _)| state.slot_at(*commitment) >= slot)
        .map_or("processed", |(_, name)| name)
}

fn signature_statuses(state: &State, params: &Params<'_>) -> Answer {
    let signatures: Vec<Signature> = params.list(0, SIGNATURES_MAX)?;
    let search = params.config(1)?["searchTransactionHistory"] == json!(true);
    let now = state.now().slot;
    let status = |signature: &Signature| {
        let processed = state.processed(signature)?;
        if !search && processed.slot.saturating_add(RECENT_SLOTS) < now {
            return None;
        }
        let outcome = processed.error.as_ref().map_or_else(|| json!({ "Ok": null }), |error| json!({ "Err": error }));
        let name = status_name(state, processed.slot);
        let confirmations = (name != "finalized").then(|| now - processed.slot);
        Some(json!({
            "slot": processed.slot,
            "confirmations": confirmations,
            "err": processed.error,
            "status": outcome,
            "confirmationStatus": name,
        }))
    };
    let statuses = signatures.iter().map(status).collect::<Vec<_>>();
    View::at(state, Commitment::Processed).answer(json!(statuses))
}

fn transaction(state: &State, params: &Params<'_>) -> Answer {
    let signature: Signature = params.parsed(0)?;
    // The second parameter was once the encoding alone.
    let short = json!({ "encoding": params.get(1) });
    let config = if params.get(1).is_string() { &short } else { params.config(1)? };
    let (view, form) = (View::settled(state, config)?, Form::read(config)?);
    let Some(entry) = state.history().get(&signature).filter(|entry| entry.slot <= view.slot()) else {
        return Ok(Value::Null);
    };
    let mut answer = form.whole(entry)?;
    answer["slot"] = json!(entry.slot);
    answer["blockTime"] = json!(state.block_time(entry.slot));
    Ok(answer)
}

fn signatures_for_address(state: &State, params: &Params<'_>) -> Answer {
    let (address, config): (Address, _) = (params.parsed(0)?, params.config(1)?);
    let view = View::settled(state, config)?;
    let bound = |name: &str| match &config[name] {
        Value::Null => Ok(None),
        text => parsed(text).map(Some).ok_or_else(|| Fault::params(format!("Invalid param: {name} is a signature"))),
    };
    let limit = match &config["limit"] {
        Value::Null => Some(PAGE_MAX),
        limit => limit.as_u64().and_then(|limit| usize::try_from(limit).ok()),
    };
    let limit = limit.filter(|limit| (1..=PAGE_MAX).contains(limit));
    let limit = limit.ok_or_else(|| Fault::params(format!("Invalid limit; max {PAGE_MAX}")))?;
    let page = Page { before: bound("before")?, until: bound("until")?, limit, slot_max: view.slot() };
    let entries = state.history().of_address(&address, &page).map(|entry| {
        json!({
            "signature": entry.signature,
            "slot": entry.slot,
            "err": entry.error,
            "memo": null,
            "blockTime": state.block_time(entry.slot),
            "confirmationStatus": status_name(state, entry.slot),
        })
    });
    Ok(entries.collect())
}

pub(super) fn airdrop(state: &mut State, params: &Params<'_>) -> Answer {
    let address = params.parsed(0)?;
    let lamports = params.number(1)?;
    params.config(2)?;
    if lamports == 0 || lamports > AIRDROP_MAX {
        return Err(Fault::params(format!("an airdrop is 1 to {AIRDROP_MAX} lamports")));
    }
    state.airdrop(&address, lamports).map(|signature| json!(signature)).map_err(Fault::params)
}
