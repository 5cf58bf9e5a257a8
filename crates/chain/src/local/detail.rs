//! What is kept of a run of a transaction: its accounts with their balances, the calls in it, what it returned. Pure.

use litesvm::types::TransactionMetadata;
use solana_account::{AccountSharedData, ReadableAccount};
use solana_transaction::versioned::VersionedTransaction;

use super::history::{Balances, Entry, InnerCall, InnerCalls, Loaded, Returned, TokenBalance};
use super::log::Record;
use super::methods::{token_account, token_mint};
use super::state::from_svm;
use crate::address::Address;

/// Bytes of a lookup table before its addresses (`LOOKUP_TABLE_META_SIZE` of the lookup table program).
const TABLE_HEAD_BYTES: usize = 56;

/// The accounts of a transaction, in the order in which its instructions count them.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    /// All of them.
    pub(super) all: Vec<Address>,
    /// Those from lookup tables, which stand last.
    pub(super) loaded: Loaded,
}

/// The accounts of a transaction; `account` is the chain before its run.
pub(super) fn keys<'a>(
    transaction: &VersionedTransaction,
    account: impl Fn(&Address) -> Option<&'a AccountSharedData>,
) -> Keys {
    let mut loaded = Loaded::default();
    for lookup in transaction.message.address_table_lookups().unwrap_or_default() {
        let table = account(&from_svm(&lookup.account_key)).map_or(&[][..], |table| table.data());
        // A table that is too short fails the transaction, which is then answered without it.
        let entry = |index: &u8| {
            let at = TABLE_HEAD_BYTES + usize::from(*index) * 32;
            table.get(at..at + 32)?.try_into().ok().map(Address)
        };
        loaded.writable.extend(lookup.writable_indexes.iter().filter_map(entry));
        loaded.readonly.extend(lookup.readonly_indexes.iter().filter_map(entry));
    }
    let named = transaction.message.static_account_keys().iter().map(from_svm);
    let all = named.chain(loaded.writable.iter().copied()).chain(loaded.readonly.iter().copied()).collect();
    Keys { all, loaded }
}

/// What these accounts hold.
pub(super) fn balances<'a>(keys: &[Address], account: impl Fn(&Address) -> Option<&'a AccountSharedData>) -> Balances {
    let lamports = keys.iter().map(|key| account(key).map_or(0, ReadableAccount::lamports)).collect();
    let tokens = keys.iter().enumerate().filter_map(|(index, key)| {
        let holder = account(key)?;
        let token = token_account(holder)?;
        let decimals = token_mint(account(&token.mint)?)?.decimals;
        let program = from_svm(holder.owner());
        Some(TokenBalance { index, mint: token.mint, owner: token.owner, amount: token.amount, decimals, program })
    });
    Balances { lamports, tokens: tokens.collect() }
}

/// The calls that instructions made.
pub(super) fn inner(meta: &TransactionMetadata) -> Vec<InnerCalls> {
    let made = meta.inner_instructions.iter().enumerate().filter(|(_, calls)| !calls.is_empty());
    made.map(|(index, calls)| {
        let calls = calls.iter().map(|call| InnerCall {
            program: call.instruction.program_id_index,
            accounts: call.instruction.accounts.clone(),
            data: call.instruction.data.clone(),
            depth: call.stack_height,
        });
        InnerCalls { index, calls: calls.collect() }
    })
    .collect()
}

/// What the last program returned that returned anything.
pub(super) fn returned(meta: &TransactionMetadata) -> Option<Returned> {
    let data = &meta.return_data.data;
    (!data.is_empty()).then(|| Returned { program: from_svm(&meta.return_data.program_id), data: data.clone() })
}

/// The history's entry of a record; none for records that are no transactions, or of builds that kept no detail.
pub(super) fn entry(record: &Record) -> Option<Entry> {
    let (signature, detail) = (record.signature?, record.detail.clone()?);
    let transaction: VersionedTransaction = wincode::deserialize_exact(&detail.bytes).ok()?;
    let named = transaction.message.static_account_keys().iter().map(from_svm);
    let loaded = detail.loaded.writable.iter().chain(&detail.loaded.readonly).copied();
    let accounts = named.chain(loaded).collect();
    Some(Entry { signature, slot: record.slot, error: record.error.clone(), accounts, detail })
}
