//! What the local chain is, and how transactions, time and the faucet change it.
//!
//! Wraps litesvm, which executes; this module adds what a cluster adds: slots, blockhashes that expire, statuses, an
//! index of accounts by owner, and records for the log. Every change goes through [`State::apply`], at run time and in
//! replay alike. The cost of a transaction does not grow with the number of accounts or of past transactions.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use litesvm::LiteSVM;
use litesvm::types::FailedTransactionMetadata;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use solana_account::{Account, AccountSharedData, ReadableAccount as _};
use solana_clock::Clock;
use solana_transaction::versioned::VersionedTransaction;
use solana_transaction_error::TransactionError;

use super::engine::EngineConfig;
use super::log::{Genesis, Log, LogError, Opened, Record, StoredAccount};
use super::{LocalChainConfig, StartError, WallClock};
use crate::address::{Address, Hash, Signature};

/// Milliseconds of a slot, as on Solana.
pub const SLOT_MS: u64 = 400;
/// Slots for which a blockhash may be used, as on Solana: 60 s.
pub const BLOCKHASH_SLOTS: u64 = 150;
/// Slots of an epoch of Solana's clock, as on mainnet.
const EPOCH_SLOTS: u64 = 432_000;
/// The first slot. litesvm's features and programs are of this slot, and programs are invisible before theirs.
pub const SLOT_FIRST: u64 = litesvm::MAINNET_DEFAULT_SLOT;
/// Transactions whose log and bytes are kept until the chain stops.
pub const DETAILS_MAX: usize = 2048;

/// A running chain's state and its log.
pub struct State {
    svm: LiteSVM,
    /// None in memory.
    log: Option<Log>,
    clock: Arc<dyn WallClock>,
    genesis: Genesis,
    now: Moment,
    warp_ms: u64,
    blockhashes: VecDeque<(u64, Hash)>,
    statuses: HashMap<Signature, Processed>,
    details: BTreeMap<Signature, Detail>,
    detail_order: VecDeque<Signature>,
    owned: BTreeMap<Address, BTreeSet<Address>>,
}

/// The chain's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The slot.
    pub slot: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// A processed transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Processed {
    /// When.
    pub slot: u64,
    /// Solana's error value, when it failed.
    pub error: Option<Value>,
}

/// What is kept of a recent transaction for whoever asks.
#[derive(Debug, Clone)]
pub struct Detail {
    /// Its log.
    pub log: Vec<String>,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its fee in lamports.
    pub fee: u64,
    /// The compute units it used.
    pub units: u64,
}

/// What a run of a transaction showed.
#[derive(Debug, Clone)]
pub struct Run {
    /// Solana's error value, when it fails.
    pub error: Option<Value>,
    /// Its log.
    pub log: Vec<String>,
    /// The compute units it uses.
    pub units: u64,
}

/// What became of a transaction that was sent.
#[derive(Debug, Clone)]
pub enum Sent {
    /// Processed now, or processed before.
    Processed(Signature),
    /// Refused: nothing was charged, nothing is kept.
    Refused(Run),
}

impl State {
    /// Opens the log and brings everything back. Also returns the bytes of an unfinished write that were cut off.
    ///
    /// # Errors
    /// [`StartError`] when the log or a program cannot be used.
    pub fn open(config: LocalChainConfig) -> Result<(Self, u64), StartError> {
        let LocalChainConfig { state_dir, genesis_seed, programs, clock, listen: _ } = config;
        let mut svm = machine(programs)?;
        let mut replay = Replay { statuses: HashMap::new(), last: None };
        let genesis = || (genesis_hash(&genesis_seed), clock.unix_ms());
        let Opened { log, genesis, torn_bytes } =
            Log::open(&state_dir, genesis, |record| replay.take(&mut svm, record))?;
        Ok((Self::new(svm, Some(log), clock, genesis, replay), torn_bytes))
    }

    /// A new chain without a log.
    ///
    /// # Errors
    /// [`StartError::Load`] when a program cannot be used.
    pub fn in_memory(config: EngineConfig) -> Result<Self, StartError> {
        let EngineConfig { genesis_seed, programs, clock, settings: _ } = config;
        let genesis = Genesis::new(genesis_hash(&genesis_seed), clock.unix_ms());
        let replay = Replay { statuses: HashMap::new(), last: None };
        Ok(Self::new(machine(programs)?, None, clock, genesis, replay))
    }

    fn new(svm: LiteSVM, log: Option<Log>, clock: Arc<dyn WallClock>, genesis: Genesis, replay: Replay) -> Self {
        let (now, warp_ms) = replay.last.unwrap_or((Moment { slot: SLOT_FIRST, unix_ms: genesis.unix_ms }, 0));
        let mut owned = BTreeMap::<Address, BTreeSet<Address>>::new();
        for (address, account) in &svm.accounts_db().inner {
            owned.entry(from_svm(account.owner())).or_default().insert(from_svm(address));
        }
        let mut state = Self {
            svm,
            log,
            clock,
            genesis,
            now,
            warp_ms,
            blockhashes: VecDeque::new(),
            statuses: replay.statuses,
            details: BTreeMap::new(),
            detail_order: VecDeque::new(),
            owned,
        };
        state.set_clock();
        state.tick();
        state
    }

    /// The same chain once more, without a log, on its own from here on.
    #[must_use]
    pub fn fork(&self, clock: Arc<dyn WallClock>) -> Self {
        Self {
            svm: self.svm.clone(),
            log: None,
            clock,
            genesis: self.genesis,
            now: self.now,
            warp_ms: self.warp_ms,
            blockhashes: self.blockhashes.clone(),
            statuses: self.statuses.clone(),
            details: self.details.clone(),
            detail_order: self.detail_order.clone(),
            owned: self.owned.clone(),
        }
    }

    /// Lets time pass up to the wall clock; never back.
    pub fn tick(&mut self) {
        let unix_ms = self.clock.unix_ms().saturating_add(self.warp_ms).max(self.now.unix_ms);
        let slot = SLOT_FIRST + unix_ms.saturating_sub(self.genesis.unix_ms) / SLOT_MS;
        let slot = slot.max(self.now.slot);
        let moved = slot != self.now.slot || unix_ms / 1000 != self.now.unix_ms / 1000;
        self.now = Moment { slot, unix_ms };
        if moved || self.blockhashes.is_empty() {
            self.set_clock();
        }
    }

    fn set_clock(&mut self) {
        let Moment { slot, unix_ms } = self.now;
        let epoch = slot / EPOCH_SLOTS;
        let into_epoch_s = (slot % EPOCH_SLOTS) * SLOT_MS / 1000;
        let unix_s = unix_ms / 1000;
        self.svm.set_sysvar(&Clock {
            slot,
            epoch_start_timestamp: unix_s.saturating_sub(into_epoch_s).cast_signed(),
            epoch,
            leader_schedule_epoch: epoch + 1,
            unix_timestamp: unix_s.cast_signed(),
        });
        // A slot's hash follows from its number, so that hashes given out before a restart stay good for their time.
        let oldest = slot.saturating_sub(BLOCKHASH_SLOTS).max(SLOT_FIRST);
        let next = self.blockhashes.back().map_or(oldest, |(last, _)| (last + 1).max(oldest));
        for slot in next..=slot {
            let hash = hash_of(b"atoll/local-blockhash/1\0", &[&self.genesis.hash.0, &slot.to_le_bytes()]);
            self.blockhashes.push_back((slot, hash));
        }
        while self.blockhashes.front().is_some_and(|(first, _)| *first < oldest) {
            self.blockhashes.pop_front();
        }
    }

    /// Moves the chain's clock forward.
    pub fn warp(&mut self, seconds: u32) -> Moment {
        self.warp_ms = self.warp_ms.saturating_add(u64::from(seconds) * 1000);
        self.tick();
        self.note(self.record(None, None, Vec::new()));
        self.now
    }

    /// The chain's time at the last [`State::tick`].
    #[must_use]
    pub const fn now(&self) -> Moment {
        self.now
    }

    /// The hash that names the chain.
    #[must_use]
    pub const fn genesis_hash(&self) -> Hash {
        self.genesis.hash
    }

    /// When a slot began, in seconds since 1970; none for slots to come.
    #[must_use]
    pub fn block_time(&self, slot: u64) -> Option<u64> {
        let since_first = slot.checked_sub(SLOT_FIRST).filter(|_| slot <= self.now.slot)?;
        Some((self.genesis.unix_ms + since_first * SLOT_MS) / 1000)
    }

    /// The newest blockhash.
    #[must_use]
    pub fn blockhash(&self) -> Hash {
        self.blockhashes.back().expect("set_clock leaves at least the current slot's").1
    }

    /// Whether a transaction with this blockhash may still be processed.
    #[must_use]
    pub fn blockhash_is_valid(&self, blockhash: &Hash) -> bool {
        self.blockhashes.iter().any(|(_, known)| known == blockhash)
    }

    /// An account; none when there is nothing.
    #[must_use]
    pub fn account(&self, address: &Address) -> Option<&AccountSharedData> {
        self.svm.accounts_db().get_account_ref(&to_svm(address)).filter(|account| account.lamports() > 0)
    }

    /// The accounts of a program, by address.
    pub fn accounts_of(&self, owner: &Address) -> impl Iterator<Item = (Address, &AccountSharedData)> {
        let owned = self.owned.get(owner).into_iter().flatten();
        owned.filter_map(|address| self.account(address).map(|account| (*address, account)))
    }

    /// The lamports that keep an account of so many bytes alive.
    #[must_use]
    pub fn rent(&self, bytes: usize) -> u64 {
        self.svm.minimum_balance_for_rent_exemption(bytes)
    }

    /// A processed transaction.
    #[must_use]
    pub fn processed(&self, signature: &Signature) -> Option<&Processed> {
        self.statuses.get(signature)
    }

    /// What is kept of a recent transaction.
    #[must_use]
    pub fn detail(&self, signature: &Signature) -> Option<&Detail> {
        self.details.get(signature)
    }

    /// Runs a transaction without keeping anything. Signatures are not looked at.
    #[must_use]
    pub fn simulate(&self, transaction: VersionedTransaction) -> Run {
        match self.svm.simulate_transaction(transaction) {
            Ok(run) => Run { error: None, log: run.meta.logs, units: run.meta.compute_units_consumed },
            Err(failed) => run_of(&failed),
        }
    }

    /// Why a transaction may not be processed at all: signatures, blockhash.
    #[must_use]
    pub fn refusal(&self, transaction: &VersionedTransaction) -> Option<TransactionError> {
        if transaction.sanitize().is_err() {
            return Some(TransactionError::SanitizeFailure);
        }
        if !transaction.verify_with_results().iter().all(|verified| *verified) {
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
        if let Some(error) = self.refusal(&transaction) {
            return Sent::Refused(Run { error: Some(error_value(&error)), log: Vec::new(), units: 0 });
        }
        let (meta, error, accounts) = match self.svm.simulate_transaction(transaction.clone()) {
            Ok(run) => (run.meta, None, self.changes(&run.post_accounts)),
            Err(failed) if preflight == Preflight::Run => return Sent::Refused(run_of(&failed)),
            Err(_) => match self.fail(transaction) {
                (failed, Some(payer)) => (failed.meta, Some(error_value(&failed.err)), vec![payer]),
                (failed, None) => return Sent::Refused(run_of(&failed)),
            },
        };
        let record = self.record(Some(signature), error, accounts);
        if let Err(error) = self.apply(&record) {
            // litesvm has executed these very accounts, so this is a fault of the chain and not of the transaction.
            return Sent::Refused(Run { error: Some(Value::String(error)), log: meta.logs, units: 0 });
        }
        self.note(record);
        let units = meta.compute_units_consumed;
        self.remember(signature, Detail { log: meta.logs, bytes, fee: meta.fee, units });
        Sent::Processed(signature)
    }

    /// Lets a transaction fail on the chain. Its fee is spent, and the payer's account is given as it now is; none when
    /// the payer has no fee to give and nothing has happened.
    fn fail(&mut self, transaction: VersionedTransaction) -> (FailedTransactionMetadata, Option<StoredAccount>) {
        let payer = transaction.message.static_account_keys()[0];
        let before = self.svm.get_balance(&payer);
        let failed = self.svm.send_transaction(transaction).expect_err("the same transaction just failed in a dry run");
        let charged = self.svm.get_balance(&payer) != before;
        let after = self.svm.accounts_db().get_account_ref(&payer).filter(|_| charged);
        let payer = after.map(|account| stored(from_svm(&payer), account));
        (failed, payer)
    }

    /// Gives lamports to an address out of nothing, as the faucet of a test cluster does.
    ///
    /// # Errors
    /// Says why not: the balance would overflow.
    pub fn airdrop(&mut self, address: &Address, lamports: u64) -> Result<Signature, String> {
        let mut account = self.account(address).map_or_else(
            || StoredAccount {
                address: *address,
                lamports: 0,
                owner: crate::spl::SYSTEM_PROGRAM,
                executable: false,
                data: Vec::new(),
            },
            |account| stored(*address, account),
        );
        account.lamports = account.lamports.checked_add(lamports).ok_or("the balance would leave 64 bits")?;
        // No key signs an airdrop; its name only has to be one of its own. Every airdrop adds a status, also in the log.
        let count = self.statuses.len() as u64;
        let drop = [&self.genesis.hash.0[..], &address.0, &count.to_le_bytes()];
        let (low, high) = (hash_of(b"atoll/local-airdrop/1\0", &drop), hash_of(b"atoll/local-airdrop/2\0", &drop));
        let mut signature = Signature([0; 64]);
        signature.0[..32].copy_from_slice(&low.0);
        signature.0[32..].copy_from_slice(&high.0);
        let record = self.record(Some(signature), None, vec![account]);
        self.apply(&record)?;
        self.note(record);
        Ok(signature)
    }

    /// Writes what has changed to disk.
    ///
    /// # Errors
    /// [`LogError`] when it cannot; nothing may be answered then.
    pub fn commit(&mut self) -> Result<(), LogError> {
        self.log.as_mut().map_or(Ok(()), Log::commit)
    }

    fn note(&mut self, record: Record) {
        if let Some(log) = &mut self.log {
            log.push(record);
        }
    }

    fn record(&self, signature: Option<Signature>, error: Option<Value>, accounts: Vec<StoredAccount>) -> Record {
        let Moment { slot, unix_ms } = self.now;
        Record { slot, unix_ms, warp_ms: self.warp_ms, signature, error, accounts }
    }

    /// The accounts that differ from what is stored.
    fn changes(&self, after: &[(solana_address::Address, AccountSharedData)]) -> Vec<StoredAccount> {
        let absent = AccountSharedData::default();
        let before = |address| self.svm.accounts_db().get_account_ref(address).unwrap_or(&absent);
        let changed = after.iter().filter(|(address, account)| !same(before(address), account));
        changed.map(|(address, account)| stored(from_svm(address), account)).collect()
    }

    fn apply(&mut self, record: &Record) -> Result<(), String> {
        for account in by_load_order(&record.accounts) {
            let before = self.account(&account.address).map(|before| from_svm(before.owner()));
            write(&mut self.svm, account)?;
            if let Some(owned) = before.and_then(|owner| self.owned.get_mut(&owner)) {
                owned.remove(&account.address);
            }
            if account.lamports > 0 {
                self.owned.entry(account.owner).or_default().insert(account.address);
            }
        }
        if let Some(signature) = record.signature {
            self.statuses.insert(signature, Processed { slot: record.slot, error: record.error.clone() });
        }
        Ok(())
    }

    fn remember(&mut self, signature: Signature, detail: Detail) {
        self.details.insert(signature, detail);
        self.detail_order.push_back(signature);
        if self.detail_order.len() > DETAILS_MAX
            && let Some(oldest) = self.detail_order.pop_front()
        {
            self.details.remove(&oldest);
        }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("genesis", &self.genesis).field("now", &self.now).finish_non_exhaustive()
    }
}

/// Whether a transaction is tried before it is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preflight {
    /// Tried: a failing one is refused.
    Run,
    /// Not tried: a failing one costs its fee.
    Skip,
}

/// litesvm with the programs, and without what it draws by chance.
fn machine(programs: Vec<(Address, Vec<u8>)>) -> Result<LiteSVM, StartError> {
    // Signatures and blockhashes are checked here, statuses kept here: litesvm only remembers the newest of each.
    let mut svm = LiteSVM::new().with_sigverify(false).with_blockhash_check(false).with_transaction_history(0);
    for (address, elf) in programs {
        let load = |error: litesvm::error::LiteSVMError| StartError::Load {
            what: format!("the program {address}"),
            why: error.to_string(),
        };
        svm.add_program(to_svm(&address), &elf).map_err(load)?;
    }
    // litesvm's own faucet has a random key, which two chains of one seed would show to whoever lists accounts.
    let faucet = svm.airdrop_pubkey();
    let load = |error: litesvm::error::LiteSVMError| StartError::Load {
        what: "an empty genesis".to_owned(),
        why: error.to_string(),
    };
    svm.set_account(faucet, Account::default()).map_err(load)?;
    Ok(svm)
}

fn genesis_hash(seed: &[u8; 32]) -> Hash {
    hash_of(b"atoll/local-genesis/1\0", &[seed])
}

/// What the log has told so far.
struct Replay {
    statuses: HashMap<Signature, Processed>,
    last: Option<(Moment, u64)>,
}

impl Replay {
    fn take(&mut self, svm: &mut LiteSVM, record: Record) -> Result<(), StartError> {
        let load = |why| StartError::Load { what: format!("the log's record of slot {}", record.slot), why };
        for account in by_load_order(&record.accounts) {
            write(svm, account).map_err(load)?;
        }
        self.last = Some((Moment { slot: record.slot, unix_ms: record.unix_ms }, record.warp_ms));
        if let Some(signature) = record.signature {
            self.statuses.insert(signature, Processed { slot: record.slot, error: record.error });
        }
        Ok(())
    }
}

/// Programs last: they are loaded from accounts that must be there first.
fn by_load_order(accounts: &[StoredAccount]) -> Vec<&StoredAccount> {
    let mut ordered: Vec<_> = accounts.iter().collect();
    ordered.sort_by_key(|account| account.executable);
    ordered
}

fn write(svm: &mut LiteSVM, account: &StoredAccount) -> Result<(), String> {
    let StoredAccount { address, lamports, owner, executable, data } = account;
    let value = Account {
        lamports: *lamports,
        data: data.clone(),
        owner: to_svm(owner),
        executable: *executable,
        // Rent is never due: every account is above the minimum.
        rent_epoch: u64::MAX,
    };
    svm.set_account(to_svm(address), value).map_err(|error| error.to_string())
}

fn stored(address: Address, account: &AccountSharedData) -> StoredAccount {
    StoredAccount {
        address,
        lamports: account.lamports(),
        owner: from_svm(account.owner()),
        executable: account.executable(),
        data: account.data().to_vec(),
    }
}

fn same(before: &AccountSharedData, after: &AccountSharedData) -> bool {
    before.lamports() == after.lamports()
        && before.owner() == after.owner()
        && before.executable() == after.executable()
        && before.data() == after.data()
}

fn run_of(failed: &FailedTransactionMetadata) -> Run {
    Run {
        error: Some(error_value(&failed.err)),
        log: failed.meta.logs.clone(),
        units: failed.meta.compute_units_consumed,
    }
}

fn error_value(error: &TransactionError) -> Value {
    serde_json::to_value(error).expect("Solana's transaction errors have a JSON form")
}

fn hash_of(domain: &[u8], parts: &[&[u8]]) -> Hash {
    let mut hash = Sha256::new_with_prefix(domain);
    for part in parts {
        hash.update(part);
    }
    Hash(hash.finalize().into())
}

pub(super) fn to_svm(address: &Address) -> solana_address::Address {
    solana_address::Address::new_from_array(address.0)
}

pub(super) fn from_svm(address: &solana_address::Address) -> Address {
    Address(address.to_bytes())
}
