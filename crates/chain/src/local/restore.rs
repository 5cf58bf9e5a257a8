//! How the local chain's state comes back from disk, and how it gets there whole.

use std::collections::BTreeMap;

use solana_account::{AccountSharedData, ReadableAccount as _};

use super::StartError;
use super::detail;
use super::log::{Genesis, Record, StoredAccount};
use super::machine::{from_svm, gone, same, stored, to_svm};
use super::snapshot::{Snapshot, StoredEntry, StoredStatus};
use super::state::{Processed, State};
use super::timeline::{Moment, Timeline};
use crate::address::{Address, Signature};

impl State {
    pub(super) fn replay(&mut self, record: Record) -> Result<(), StartError> {
        let Record { slot, unix_ms, warp_ms, .. } = record;
        let load = |why| StartError::Load { what: format!("the log's record of slot {slot}"), why };
        self.time.seen(Moment { slot, unix_ms }, warp_ms);
        if let Some(anchor) = record.anchor {
            self.time.anchored(anchor);
        }
        if let Some(fork) = record.fork {
            self.time.forked(fork);
            self.take_back(fork.base);
        }
        self.apply(&record).map_err(load)?;
        if let Some(entry) = detail::entry(&record) {
            self.history.push(entry);
        }
        Ok(())
    }

    pub(super) fn restore(&mut self, snapshot: Snapshot) -> Result<(), StartError> {
        let load = |why| StartError::Load { what: "the snapshot".to_owned(), why };
        self.time = Timeline::restored(self.genesis, snapshot.past);
        let accounts = self.record(None, None, snapshot.accounts);
        self.put(&accounts).map_err(load)?;
        self.transactions = snapshot.transactions;
        for StoredStatus { signature, slot, error } in snapshot.statuses {
            self.statuses.insert(signature, Processed { slot, error });
        }
        for StoredEntry { signature, slot, error, detail } in snapshot.history {
            let record = Record { slot, detail: Some(detail), ..self.record(Some(signature), error, Vec::new()) };
            if let Some(entry) = detail::entry(&record) {
                self.history.push(entry);
            }
        }
        Ok(())
    }

    pub(super) fn snapshot(&self, genesis: Genesis) -> Snapshot {
        let sysvars = solana_address::Address::from_str_const("Sysvar1111111111111111111111111111111111111");
        let inner = &self.svm.accounts_db().inner;
        let as_at_first = |address: &Address, account: &AccountSharedData| {
            self.first.get(address).is_some_and(|first| same(first, account))
        };
        let changed: BTreeMap<Address, StoredAccount> = inner
            .iter()
            .filter(|(_, account)| *account.owner() != sysvars)
            .map(|(address, account)| (from_svm(address), account))
            .filter(|(address, account)| !as_at_first(address, account))
            .map(|(address, account)| (address, stored(address, account)))
            .collect();
        let lost = self.first.keys().filter(|address| !inner.contains_key(&to_svm(address))).map(|gone_| gone(*gone_));
        let statuses: BTreeMap<Signature, &Processed> =
            self.statuses.iter().map(|(signature, processed)| (*signature, processed)).collect();
        let statuses = statuses.into_iter().map(|(signature, processed)| StoredStatus {
            signature,
            slot: processed.slot,
            error: processed.error.clone(),
        });
        let history = self.history.entries().map(|entry| StoredEntry {
            signature: entry.signature,
            slot: entry.slot,
            error: entry.error.clone(),
            detail: entry.detail.clone(),
        });
        Snapshot {
            genesis,
            past: self.time.past().clone(),
            transactions: self.transactions,
            accounts: changed.into_values().chain(lost).collect(),
            statuses: statuses.collect(),
            history: history.collect(),
        }
    }
}
