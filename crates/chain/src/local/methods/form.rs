//! The forms of a processed transaction: bytes, JSON, and JSON with the known instructions in words. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use solana_transaction::versioned::{TransactionVersion, VersionedTransaction};

use super::encode::{amount_json, returned_json};
use super::{CODE_VERSION_UNSUPPORTED, Fault, parsed};
use crate::address::{Address, Hash, Signature};
use crate::local::history::{Balances, Entry};
use crate::local::state::from_svm;

/// How a transaction is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Base58 alone, without its name.
    Binary,
    Base58,
    Base64,
    Json,
    JsonParsed,
}

/// How transactions are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    encoding: Encoding,
    /// The newest version that the client can read; none for those that know of no versions.
    version_max: Option<u64>,
}

impl Form {
    /// The form that `config` asks for: JSON when it says nothing.
    pub(super) fn read(config: &Value) -> Result<Self, Fault> {
        let encoding = match config["encoding"].as_str() {
            None if config["encoding"].is_null() => Encoding::Json,
            Some("json") => Encoding::Json,
            Some("jsonParsed") => Encoding::JsonParsed,
            Some("base64") => Encoding::Base64,
            Some("base58") => Encoding::Base58,
            Some("binary") => Encoding::Binary,
            _ => return Err(Fault::params("Invalid params: encoding is json, jsonParsed, base58 or base64")),
        };
        let version_max =
            match &config["maxSupportedTransactionVersion"] {
                Value::Null => None,
                version => Some(version.as_u64().ok_or_else(|| {
                    Fault::params("Invalid params: maxSupportedTransactionVersion is a number from 0")
                })?),
            };
        Ok(Self { encoding, version_max })
    }

    /// A transaction with what it did: the fields `transaction`, `meta`, and `version` for clients that know of versions.
    pub(super) fn whole(self, entry: &Entry) -> Result<Value, Fault> {
        let transaction = read(entry)?;
        let mut form = json!({ "transaction": self.transaction(entry, &transaction), "meta": self.meta(entry) });
        self.add_version(&mut form, &transaction)?;
        Ok(form)
    }

    /// A transaction with its accounts alone.
    pub(super) fn accounts(self, entry: &Entry) -> Result<Value, Fault> {
        let transaction = read(entry)?;
        let signatures = signatures(&transaction);
        let mut form = json!({
            "transaction": { "signatures": signatures, "accountKeys": keys_json(entry, &transaction) },
            "meta": balances_json(entry),
        });
        self.add_version(&mut form, &transaction)?;
        Ok(form)
    }

    fn add_version(self, form: &mut Value, transaction: &VersionedTransaction) -> Result<(), Fault> {
        let number = match transaction.version() {
            TransactionVersion::Legacy(_) => None,
            TransactionVersion::Number(number) => Some(u64::from(number)),
        };
        match (number, self.version_max) {
            (None, None) => {}
            (None, Some(_)) => form["version"] = json!("legacy"),
            (Some(number), Some(max)) if number <= max => form["version"] = json!(number),
            (Some(number), _) => {
                let why = format!(
                    "Transaction version ({number}) is not supported by the requesting client. Please try the request again with the following configuration parameter: \"maxSupportedTransactionVersion\": {number}"
                );
                return Err(Fault::new(CODE_VERSION_UNSUPPORTED, why));
            }
        }
        Ok(())
    }

    fn transaction(self, entry: &Entry, transaction: &VersionedTransaction) -> Value {
        let bytes = &entry.detail.bytes;
        match self.encoding {
            Encoding::Binary => json!(bs58::encode(bytes).into_string()),
            Encoding::Base58 => json!([bs58::encode(bytes).into_string(), "base58"]),
            Encoding::Base64 => json!([BASE64.encode(bytes), "base64"]),
            Encoding::Json => json!({ "signatures": signatures(transaction), "message": message(transaction) }),
            Encoding::JsonParsed => {
                json!({ "signatures": signatures(transaction), "message": parsed_message(entry, transaction) })
            }
        }
    }

    fn meta(self, entry: &Entry) -> Value {
        let detail = &entry.detail;
        let mut meta = balances_json(entry);
        let in_words = self.encoding == Encoding::JsonParsed;
        meta["innerInstructions"] = inner(entry, in_words);
        meta["logMessages"] = json!(detail.log);
        meta["rewards"] = json!([]);
        meta["computeUnitsConsumed"] = json!(detail.units);
        if !in_words {
            let loaded = &detail.loaded;
            meta["loadedAddresses"] = json!({ "writable": loaded.writable, "readonly": loaded.readonly });
        }
        if detail.returned.is_some() {
            meta["returnData"] = returned_json(detail.returned.as_ref());
        }
        meta
    }
}

fn read(entry: &Entry) -> Result<VersionedTransaction, Fault> {
    let read = wincode::deserialize_exact(&entry.detail.bytes);
    read.map_err(|_| Fault::new(-32603, "the chain's record of this transaction cannot be read"))
}

fn signatures(transaction: &VersionedTransaction) -> Value {
    transaction.signatures.iter().map(|signature| json!(Signature((*signature).into()))).collect()
}

fn balances_json(entry: &Entry) -> Value {
    let detail = &entry.detail;
    let status = entry.error.as_ref().map_or_else(|| json!({ "Ok": null }), |error| json!({ "Err": error }));
    json!({
        "err": entry.error,
        "status": status,
        "fee": detail.fee,
        "preBalances": detail.before.lamports,
        "postBalances": detail.after.lamports,
        "preTokenBalances": tokens_json(&detail.before),
        "postTokenBalances": tokens_json(&detail.after),
    })
}

fn tokens_json(balances: &Balances) -> Value {
    let token = |token: &crate::local::history::TokenBalance| {
        json!({
            "accountIndex": token.index,
            "mint": token.mint,
            "owner": token.owner,
            "programId": token.program,
            "uiTokenAmount": amount_json(token.amount, token.decimals),
        })
    };
    balances.tokens.iter().map(token).collect()
}

fn base58(data: &[u8]) -> String {
    bs58::encode(data).into_string()
}

fn message(transaction: &VersionedTransaction) -> Value {
    let message = &transaction.message;
    let header = message.header();
    let instruction = |program: u8, accounts: &[u8], data: &[u8]| json!({ "programIdIndex": program, "accounts": accounts, "data": base58(data), "stackHeight": 1 });
    let instructions = message.instructions().iter().map(|i| instruction(i.program_id_index, &i.accounts, &i.data));
    let keys: Vec<Address> = message.static_account_keys().iter().map(from_svm).collect();
    let mut json = json!({
        "header": {
            "numRequiredSignatures": header.num_required_signatures,
            "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
            "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
        },
        "accountKeys": keys,
        "recentBlockhash": Hash(message.recent_blockhash().to_bytes()),
        "instructions": instructions.collect::<Vec<_>>(),
    });
    if let Some(lookups) = lookups(transaction) {
        json["addressTableLookups"] = lookups;
    }
    json
}

fn lookups(transaction: &VersionedTransaction) -> Option<Value> {
    let lookups = transaction.message.address_table_lookups()?.iter().map(|lookup| {
        json!({
            "accountKey": from_svm(&lookup.account_key),
            "writableIndexes": lookup.writable_indexes,
            "readonlyIndexes": lookup.readonly_indexes,
        })
    });
    Some(lookups.collect())
}

fn parsed_message(entry: &Entry, transaction: &VersionedTransaction) -> Value {
    let instructions = transaction.message.instructions().iter();
    let instructions = instructions.map(|i| in_words(entry, i.program_id_index, &i.accounts, &i.data, 1));
    let mut json = json!({
        "accountKeys": keys_json(entry, transaction),
        "recentBlockhash": Hash(transaction.message.recent_blockhash().to_bytes()),
        "instructions": instructions.collect::<Vec<_>>(),
    });
    if let Some(lookups) = lookups(transaction) {
        json["addressTableLookups"] = lookups;
    }
    json
}

/// The accounts with what the transaction may do to them.
fn keys_json(entry: &Entry, transaction: &VersionedTransaction) -> Value {
    let header = transaction.message.header();
    let named = transaction.message.static_account_keys().len();
    let signers = usize::from(header.num_required_signatures);
    let written_signers = signers.saturating_sub(usize::from(header.num_readonly_signed_accounts));
    let written_named = named.saturating_sub(usize::from(header.num_readonly_unsigned_accounts));
    let written_loaded = named + entry.detail.loaded.writable.len();
    let key = |(at, address): (usize, &Address)| {
        let writable = match at {
            at if at < signers => at < written_signers,
            at if at < named => at < written_named,
            at => at < written_loaded,
        };
        let source = if at < named { "transaction" } else { "lookupTable" };
        json!({ "pubkey": address, "signer": at < signers, "writable": writable, "source": source })
    };
    entry.accounts.iter().enumerate().map(key).collect()
}

fn inner(entry: &Entry, words: bool) -> Value {
    let call = |call: &crate::local::history::InnerCall| {
        if words {
            in_words(entry, call.program, &call.accounts, &call.data, call.depth)
        } else {
            json!({
                "programIdIndex": call.program,
                "accounts": call.accounts,
                "data": base58(&call.data),
                "stackHeight": call.depth,
            })
        }
    };
    let calls =
        entry.detail.inner.iter().map(
            |calls| json!({ "index": calls.index, "instructions": calls.calls.iter().map(call).collect::<Vec<_>>() }),
        );
    calls.collect()
}

/// An instruction in words where its program is known, and with its accounts' addresses where it is not.
fn in_words(entry: &Entry, program: u8, accounts: &[u8], data: &[u8], depth: u8) -> Value {
    let key = |at: &u8| entry.accounts.get(usize::from(*at)).copied();
    let (program, accounts) = (key(&program), accounts.iter().filter_map(key).collect::<Vec<_>>());
    match program.and_then(|program| parsed::instruction(&program, &accounts, data)) {
        Some((name, parsed)) => {
            json!({ "program": name, "programId": program, "parsed": parsed, "stackHeight": depth })
        }
        None => json!({ "programId": program, "accounts": accounts, "data": base58(data), "stackHeight": depth }),
    }
}
