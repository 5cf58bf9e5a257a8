//! How the local chain's state processes transactions: what a run shows, what it changes, what is kept of it.

use litesvm::types::{FailedTransactionMetadata, TransactionMetadata};
use serde_json::Value;
use solana_account::AccountSharedData;
use solana_transaction::versioned::VersionedTransaction;
use solana_transaction_error::TransactionError;

use super::detail::{self, Keys};
use super::history::{Detail, InnerCalls, Returned};
use super::log::StoredAccount;
use super::machine::{faucet, from_svm, same, stored, to_svm, write};
use super::state::State;
use crate::address::{Address, Hash, Signature};
use crate::{spl, transaction};

/// Most transactions that are kept in a halt to be tried after it.
const SHELVED_MAX: usize = 1000;

/// What a run of a transaction showed.
#[derive(Debug, Clone)]
pub struct Run {
    /// Solana's error value, when it fails.
    pub error: Option<Value>,
    /// Its log.
    pub log: Vec<String>,
    /// The compute units it uses.
    pub units: u64,
    /// Its fee in lamports; 0 when it cannot be charged.
    pub fee: u64,
    /// The accounts after it; empty when it fails.
    pub accounts: Vec<(Address, AccountSharedData)>,
    /// The calls that its instructions make.
    pub inner: Vec<InnerCalls>,
    /// What it returns.
    pub returned: Option<Returned>,
}

impl Run {
    /// Of a transaction that is not even run.
    #[must_use]
    pub fn failed(error: &TransactionError) -> Self {
        let error = Some(error_value(error));
        Self { error, log: Vec::new(), units: 0, fee: 0, accounts: Vec::new(), inner: Vec::new(), returned: None }
    }

    fn of(error: Option<&TransactionError>, meta: &TransactionMetadata) -> Self {
        Self {
            error: error.map(error_value),
            log: meta.logs.clone(),
            units: meta.compute_units_consumed,
            fee: meta.fee,
            accounts: Vec::new(),
            inner: detail::inner(meta),
            returned: detail::returned(meta),
        }
    }
}

/// What became of a transaction that was sent.
#[derive(Debug, Clone)]
pub enum Sent {
    /// Processed now, or processed before; in a halt, only taken.
    Processed(Signature),
    /// Refused: nothing was charged, nothing is kept.
    Refused(Run),
}

/// Whether a transaction is tried before it is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preflight {
    /// Tried: a failing one is refused.
    Run,
    /// Not tried: a failing one costs its fee.
    Skip,
}

impl State {
    /// Runs a transaction without keeping anything. Signatures are not looked at.
    #[must_use]
    pub fn simulate(&self, transaction: VersionedTransaction) -> Run {
        match self.svm.simulate_transaction(transaction) {
            Ok(run) => Run {
                accounts: run.post_accounts.iter().map(|(key, account)| (from_svm(key), account.clone())).collect(),
                ..Run::of(None, &run.meta)
            },
            Err(failed) => Run::of(Some(&failed.err), &failed.meta),
        }
    }

    /// Why a transaction may not be processed at all: signatures, where they are to be verified; blockhash.
    #[must_use]
    pub fn refusal(&self, transaction: &VersionedTransaction, verify: bool) -> Option<TransactionError> {
        if transaction.sanitize().is_err() {
            return Some(TransactionError::SanitizeFailure);
        }
        if verify && !transaction.verify_with_results().iter().all(|verified| *verified) {
            return Some(TransactionError::SignatureFailure);
        }
        let blockhash = Hash(transaction.message.recent_blockhash().to_bytes());
        (!self.blockhash_is_valid(&blockhash)).then_some(TransactionError::BlockhashNotFound)
    }

    /// Processes a transaction. One that was processed before is answered as it was then. With `preflight`, one that
    /// fails is refused and not charged; without it, it fails on the chain and its fee is spent.
    pub fn send(&mut self, transaction: VersionedTransaction, bytes: Vec<u8>, preflight: Preflight) -> Sent {
        let signature = transaction.signatures.first().map_or(Signature([0; 64]), |first| Signature((*first).into()));
        if self.statuses.contains_key(&signature) {
            return Sent::Processed(signature);
        }
        if let Some(error) = self.refusal(&transaction, true) {
            return Sent::Refused(Run::failed(&error));
        }
        let Keys { all: keys, loaded } = detail::keys(&transaction, |address| self.account(address));
        let before = detail::balances(&keys, |address| self.account(address));
        let ran = self.svm.simulate_transaction(transaction.clone());
        if let (Err(failed), Preflight::Run) = (&ran, preflight) {
            return Sent::Refused(Run::of(Some(&failed.err), &failed.meta));
        }
        if self.time.is_halted() {
            // The node forwards it to leaders, and none of them makes a block.
            if self.shelved.len() < SHELVED_MAX {
                self.shelved.push(bytes);
            }
            return Sent::Processed(signature);
        }
        let (meta, error, accounts) = match ran {
            Ok(run) => (run.meta, None, self.changes(&run.post_accounts)),
            Err(_) => match self.fail(transaction) {
                (failed, Some(payer)) => (failed.meta, Some(error_value(&failed.err)), vec![payer]),
                (failed, None) => return Sent::Refused(Run::of(Some(&failed.err), &failed.meta)),
            },
        };
        let mut record = self.record(Some(signature), error, accounts);
        if let Err(error) = self.apply(&record) {
            // litesvm has executed these very accounts, so this is a fault of the chain and not of the transaction.
            return Sent::Refused(Run { error: Some(Value::String(error)), ..Run::of(None, &meta) });
        }
        record.detail = Some(Detail {
            bytes,
            fee: meta.fee,
            units: meta.compute_units_consumed,
            loaded,
            before,
            after: detail::balances(&keys, |address| self.account(address)),
            inner: detail::inner(&meta),
            returned: detail::returned(&meta),
            log: meta.logs,
        });
        if let Some(entry) = detail::entry(&record) {
            self.history.push(entry);
        }
        self.note(record);
        Sent::Processed(signature)
    }

    /// Tries the bytes of a transaction that was sent before, as a leader does that hears of it late.
    pub(super) fn send_late(&mut self, bytes: Vec<u8>) {
        if let Ok(transaction) = wincode::deserialize_exact(&bytes) {
            // Whoever sent it is told nothing, whatever becomes of it.
            let _ = self.send(transaction, bytes, Preflight::Skip);
        }
    }

    /// How a transaction fails on the chain: the payer's account after its fee; none when the payer has no fee to give
    /// and nothing happens. Changes nothing yet.
    fn fail(&mut self, transaction: VersionedTransaction) -> (FailedTransactionMetadata, Option<StoredAccount>) {
        let payer = from_svm(&transaction.message.static_account_keys()[0]);
        let before = self.account(&payer).map(|account| stored(payer, account));
        let failed = self.svm.send_transaction(transaction).expect_err("the same transaction just failed in a dry run");
        let after = self.svm.accounts_db().get_account_ref(&to_svm(&payer)).map(|account| stored(payer, account));
        if before == after {
            return (failed, None);
        }
        // Put back: what changes, changes where all changes are seen.
        let before = before.expect("a payer that was charged had an account");
        write(&mut self.svm, &before).expect("the account was there a moment ago");
        (failed, after)
    }

    /// Gives lamports to an address, by a transaction of the faucet that every local chain has. Two airdrops are never
    /// one transaction, even where all else in them is the same.
    ///
    /// # Errors
    /// Says why not: the balance would overflow, or would be too small for an account to exist.
    pub fn airdrop(&mut self, address: &Address, lamports: u64) -> Result<Signature, String> {
        let faucet = faucet();
        // More units than a transfer needs, and another number each time: so each has a signature of its own.
        let units = 10_000 + u32::try_from(self.transaction_count() % 1_000_000).unwrap_or_default();
        let give = [spl::compute_unit_limit(units), spl::system_transfer(faucet.address(), *address, lamports)];
        let signed = transaction::sign(&give, &faucet, &[], &self.blockhash()).map_err(|error| error.to_string())?;
        let read = wincode::deserialize_exact(signed.bytes()).map_err(|error| error.to_string())?;
        match self.send(read, signed.bytes().to_vec(), Preflight::Run) {
            Sent::Processed(signature) => Ok(signature),
            Sent::Refused(run) => Err(format!("the airdrop fails: {}", run.error.unwrap_or_default())),
        }
    }

    /// The accounts that differ from what is stored.
    fn changes(&self, after: &[(solana_address::Address, AccountSharedData)]) -> Vec<StoredAccount> {
        let absent = AccountSharedData::default();
        let before = |address| self.svm.accounts_db().get_account_ref(address).unwrap_or(&absent);
        let changed = after.iter().filter(|(address, account)| !same(before(address), account));
        changed.map(|(address, account)| stored(from_svm(address), account)).collect()
    }
}

fn error_value(error: &TransactionError) -> Value {
    serde_json::to_value(error).expect("Solana's transaction errors have a JSON form")
}
