//! What the local chain is, and how time, records and forks change it.
//!
//! Wraps litesvm, which executes; this module and its siblings add what a cluster adds: slots and blockhashes that expire
//! (`timeline`), reads of what is confirmed or final (`versions`), statuses, an index of accounts by owner, records for
//! the log. Every change of an account goes through [`State::put`], at run time and in replay alike. The cost of a
//! transaction (`execute`) does not grow with the number of accounts or of past transactions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use litesvm::LiteSVM;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use solana_account::{AccountSharedData, ReadableAccount as _};
use solana_clock::Clock;

use super::engine::{EngineConfig, Finality};
pub use super::execute::{Preflight, Run, Sent};
use super::feed::{Change, Feed};
use super::history::{Entry, HISTORY_BYTES_MAX, History};
use super::log::{Genesis, Log, LogError, Opened, Record, StoredAccount};
use super::machine::{by_load_order, gone, machine, stored, write};
pub(super) use super::machine::{from_svm, to_svm};
use super::settling::Settling;
pub use super::timeline::Moment;
use super::timeline::Timeline;
use super::versions::Versions;
use super::{LocalChainConfig, StartError, WallClock};
use crate::address::{Address, Hash, Signature};
use crate::rpc::Commitment;
use crate::spl::CLOCK_SYSVAR;

/// Milliseconds of a slot, as on Solana.
pub const SLOT_MS: u64 = 400;
/// Slots for which a blockhash may be used, as on Solana: 60 s.
pub const BLOCKHASH_SLOTS: u64 = 150;
/// Slots of an epoch of Solana's clock, as on mainnet.
pub const EPOCH_SLOTS: u64 = 432_000;
/// The first slot. litesvm's features and programs are of this slot, and programs are invisible before theirs.
pub const SLOT_FIRST: u64 = litesvm::MAINNET_DEFAULT_SLOT;

/// A running chain's state and its log.
pub struct State {
    pub(super) svm: LiteSVM,
    /// What a new chain has, by address: a snapshot leaves it out.
    pub(super) first: Arc<BTreeMap<Address, AccountSharedData>>,
    /// None in memory.
    log: Option<Log>,
    clock: Arc<dyn WallClock>,
    pub(super) genesis: Genesis,
    pub(super) time: Timeline,
    settling: Settling,
    versions: Versions<Address, Option<AccountSharedData>>,
    /// Of every transaction, for ever.
    pub(super) statuses: HashMap<Signature, Processed>,
    pub(super) transactions: u64,
    pub(super) history: History,
    feed: Feed,
    owned: BTreeMap<Address, BTreeSet<Address>>,
    /// Transactions taken in a halt.
    pub(super) shelved: Vec<Vec<u8>>,
}

/// A processed transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Processed {
    /// When.
    pub slot: u64,
    /// Solana's error value, when it failed.
    pub error: Option<Value>,
}

impl State {
    /// Opens the log and brings everything back. Also returns the bytes of an unfinished write that were cut off.
    ///
    /// # Errors
    /// [`StartError`] when the log or a program cannot be used.
    pub fn open(config: LocalChainConfig) -> Result<(Self, u64), StartError> {
        let LocalChainConfig { state_dir, genesis_seed, programs, clock, settings, listen: _, compact_bytes: _ } =
            config;
        let svm = machine(programs)?;
        let first = || (genesis_hash(&genesis_seed), clock.unix_ms());
        let Opened { log, genesis, torn_bytes, snapshot, records } = Log::open(&state_dir, first)?;
        // Nothing of the past is to be read as it was in between.
        let mut state = Self::new(svm, clock, genesis, Finality::default());
        if let Some(snapshot) = snapshot {
            state.restore(snapshot)?;
        }
        for record in records {
            state.replay(record)?;
        }
        // What was on disk was answered, some of it as final; a restart takes none of it back.
        state.settling = Settling::new(state.now().slot, settings.finality);
        state.versions = Versions::default();
        state.log = Some(log);
        state.set_clock();
        state.tick();
        Ok((state, torn_bytes))
    }

    /// A new chain without a log.
    ///
    /// # Errors
    /// [`StartError::Load`] when a program cannot be used.
    pub fn in_memory(config: EngineConfig) -> Result<Self, StartError> {
        let EngineConfig { genesis_seed, programs, clock, settings } = config;
        let genesis = Genesis::new(genesis_hash(&genesis_seed), clock.unix_ms());
        let mut state = Self::new(machine(programs)?, clock, genesis, settings.finality);
        state.set_clock();
        Ok(state)
    }

    fn new(svm: LiteSVM, clock: Arc<dyn WallClock>, genesis: Genesis, finality: Finality) -> Self {
        let accounts = &svm.accounts_db().inner;
        let first: BTreeMap<_, _> =
            accounts.iter().map(|(address, account)| (from_svm(address), account.clone())).collect();
        let mut owned = BTreeMap::<Address, BTreeSet<Address>>::new();
        for (address, account) in &first {
            owned.entry(from_svm(account.owner())).or_default().insert(*address);
        }
        Self {
            svm,
            first: Arc::new(first),
            log: None,
            clock,
            genesis,
            time: Timeline::new(genesis),
            settling: Settling::new(SLOT_FIRST, finality),
            versions: Versions::default(),
            statuses: HashMap::new(),
            transactions: 0,
            history: History::new(HISTORY_BYTES_MAX),
            feed: Feed::default(),
            owned,
            shelved: Vec::new(),
        }
    }

    /// The same chain once more, without a log, on its own from here on.
    #[must_use]
    pub fn fork(&self, clock: Arc<dyn WallClock>) -> Self {
        Self {
            svm: self.svm.clone(),
            first: Arc::clone(&self.first),
            log: None,
            clock,
            genesis: self.genesis,
            time: self.time.clone(),
            settling: self.settling,
            versions: self.versions.clone(),
            statuses: self.statuses.clone(),
            transactions: self.transactions,
            history: self.history.clone(),
            feed: Feed::default(),
            owned: self.owned.clone(),
            shelved: self.shelved.clone(),
        }
    }

    /// Lets time pass up to the wall clock; never back.
    pub fn tick(&mut self) {
        let tick = self.time.tick(self.clock.unix_ms());
        if tick.moved {
            self.settle();
            self.set_clock();
        }
        if tick.resumed {
            let anchor = self.time.past().anchors.last().copied();
            self.note(Record { anchor, ..self.record(None, None, Vec::new()) });
        }
    }

    fn settle(&mut self) {
        self.settling.advance(self.now().slot);
        self.versions.settle(self.settling.known_from);
    }

    fn set_clock(&mut self) {
        self.svm.set_sysvar(&self.clock_at(self.now().slot));
    }

    /// What programs and readers see of the time at a slot up to the current one.
    fn clock_at(&self, slot: u64) -> Clock {
        let now = self.now();
        let epoch = slot / EPOCH_SLOTS;
        let into_epoch_s = (slot % EPOCH_SLOTS) * SLOT_MS / 1000;
        let unix_ms = if slot == now.slot { now.unix_ms } else { self.time.slot_ms(slot).unwrap_or(now.unix_ms) };
        let unix_s = unix_ms / 1000;
        Clock {
            slot,
            epoch_start_timestamp: unix_s.saturating_sub(into_epoch_s).cast_signed(),
            epoch,
            leader_schedule_epoch: epoch + 1,
            unix_timestamp: unix_s.cast_signed(),
        }
    }

    /// Moves the chain's clock forward.
    pub fn warp(&mut self, seconds: u32) -> Moment {
        self.time.warp(u64::from(seconds) * 1000);
        self.tick();
        self.note(self.record(None, None, Vec::new()));
        self.now()
    }

    /// Stops slots and clock for so long on the wall clock. Transactions are taken and put aside meanwhile.
    pub(super) fn halt(&mut self, ms: u64) {
        self.time.halt(self.clock.unix_ms().saturating_add(ms));
    }

    /// From now on. What was confirmed or final already, stays so.
    pub(super) fn set_finality(&mut self, finality: Finality) {
        self.settling.finality = finality;
        self.settle();
    }

    /// From now on, reads may be of so many slots ago, and blockhashes are good for so many slots.
    pub(super) fn set_limits(&mut self, stale_slots_max: u64, blockhash_slots: Option<u64>) {
        self.settling.stale_slots_max = stale_slots_max;
        self.settling.blockhash_slots = blockhash_slots.unwrap_or(BLOCKHASH_SLOTS);
        self.settle();
    }

    /// From now on, reads are of a node that is so many slots behind.
    pub(super) fn set_lag(&mut self, slots: u64) {
        self.settling.lag_slots = slots;
    }

    /// Abandons the newest slots, as far as they are not final: their changes and transactions never were. Gives the
    /// transactions, oldest first.
    ///
    /// # Errors
    /// Says why not: litesvm does not take an account back that it had.
    pub(super) fn roll_back(&mut self, slots: u64) -> Result<Vec<Arc<Entry>>, String> {
        let now = self.now().slot;
        let base = now.saturating_sub(slots).max(self.settling.finalized);
        if base >= now || self.time.is_halted() {
            return Ok(Vec::new());
        }
        let lost = self.history.after(base);
        let restored = self.versions.roll_back(base);
        let accounts: Vec<_> = restored
            .iter()
            .map(|(address, before)| before.as_ref().map_or_else(|| gone(*address), |before| stored(*address, before)))
            .collect();
        let fork = Some(self.time.fork(base));
        let record = Record { fork, ..self.record(None, None, accounts) };
        self.take_back(base);
        self.put(&record)?;
        self.note(record);
        Ok(lost)
    }

    pub(super) fn take_back(&mut self, base: u64) {
        self.statuses.retain(|_, processed| processed.slot <= base);
        self.history.take_back_after(base);
    }

    /// The chain's time at the last [`State::tick`].
    #[must_use]
    pub const fn now(&self) -> Moment {
        self.time.now()
    }

    /// Whether slots and clock stand still.
    #[must_use]
    pub const fn is_halted(&self) -> bool {
        self.time.is_halted()
    }

    /// The first slot after the last halt; the first of all when there was none.
    pub(super) fn resumed_at(&self) -> u64 {
        self.time.past().anchors.last().map_or(SLOT_FIRST, |anchor| anchor.slot)
    }

    /// The hash that names the chain.
    #[must_use]
    pub const fn genesis_hash(&self) -> Hash {
        self.genesis.hash
    }

    /// When a slot began, in seconds since 1970; none for slots to come.
    #[must_use]
    pub fn block_time(&self, slot: u64) -> Option<u64> {
        (slot <= self.now().slot).then(|| self.time.slot_ms(slot))?.map(|ms| ms / 1000)
    }

    /// The newest blockhash.
    #[must_use]
    pub fn blockhash(&self) -> Hash {
        self.blockhash_of(self.now().slot)
    }

    /// The hash of a slot's block.
    #[must_use]
    pub fn blockhash_of(&self, slot: u64) -> Hash {
        self.time.blockhash_of(slot)
    }

    /// Whether a transaction with this blockhash may still be processed.
    #[must_use]
    pub fn blockhash_is_valid(&self, blockhash: &Hash) -> bool {
        self.time.blockhash_is_valid(blockhash, self.settling.blockhash_slots)
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

    /// The newest slot of a commitment, as the node that is asked sees it.
    #[must_use]
    pub fn slot_at(&self, commitment: Commitment) -> u64 {
        self.settling.slot_at(self.now().slot, commitment)
    }

    /// An account as it was at the end of the commitment's slot.
    #[must_use]
    pub fn account_at(&self, address: &Address, commitment: Commitment) -> Option<AccountSharedData> {
        let slot = self.slot_at(commitment);
        if *address == CLOCK_SYSVAR && slot < self.now().slot {
            let mut account = self.account(address)?.clone();
            account.set_data_from_slice(&wincode::serialize(&self.clock_at(slot)).ok()?);
            return Some(account);
        }
        match self.versions.at(address, slot) {
            Some(before) => before.clone(),
            None => self.account(address).cloned(),
        }
    }

    /// The accounts of a program, by address, as they were at the end of the commitment's slot.
    pub fn accounts_of_at<'a>(
        &'a self,
        owner: &Address,
        commitment: Commitment,
    ) -> impl Iterator<Item = (Address, AccountSharedData)> + use<'a> {
        let slot = self.slot_at(commitment);
        let owner = to_svm(owner);
        let now = self.owned.get(&from_svm(&owner)).into_iter().flatten().copied();
        // Those that had this owner then, and have it no more, are among those that changed since.
        let addresses: BTreeSet<Address> = now.chain(self.versions.changed_after(slot).into_keys()).collect();
        let accounts = addresses
            .into_iter()
            .filter_map(move |address| self.account_at(&address, commitment).map(|account| (address, account)));
        accounts.filter(move |(_, account)| *account.owner() == owner)
    }

    /// The lamports that keep an account of so many bytes alive.
    #[must_use]
    pub fn rent(&self, bytes: usize) -> u64 {
        self.svm.minimum_balance_for_rent_exemption(bytes)
    }

    /// A processed transaction, as far as the node that is asked has heard of it.
    #[must_use]
    pub fn processed(&self, signature: &Signature) -> Option<&Processed> {
        let newest = self.slot_at(Commitment::Processed);
        self.statuses.get(signature).filter(|processed| processed.slot <= newest)
    }

    /// What is remembered of transactions.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// All transactions that were ever processed, those of abandoned forks too.
    #[must_use]
    pub const fn transaction_count(&self) -> u64 {
        self.transactions
    }

    /// The one node's name. It signs nothing.
    #[must_use]
    pub fn identity(&self) -> Address {
        Address(hash_of(b"atoll/local-identity/1\0", &[&self.genesis.hash.0]).0)
    }

    /// Who listens to changes.
    pub const fn feed(&mut self) -> &mut Feed {
        &mut self.feed
    }

    /// Writes what has changed to disk.
    ///
    /// # Errors
    /// [`LogError`] when it cannot; nothing may be answered then.
    pub fn commit(&mut self) -> Result<(), LogError> {
        self.log.as_mut().map_or(Ok(()), Log::commit)
    }

    /// Replaces a log that is longer than this, and than twice its snapshot, by a snapshot.
    ///
    /// # Errors
    /// [`LogError`] when it cannot; the chain must then stop.
    pub fn compact(&mut self, bytes_max: u64) -> Result<(), LogError> {
        self.commit()?;
        let Some(genesis) = self.log.as_ref().filter(|log| log.is_long(bytes_max)).map(Log::next_genesis) else {
            return Ok(());
        };
        let snapshot = self.snapshot(genesis);
        if let Some(log) = &mut self.log {
            log.compact(&snapshot)?;
        }
        Ok(())
    }

    pub(super) fn note(&mut self, record: Record) {
        if let Some(log) = &mut self.log {
            log.push(record);
        }
    }

    pub(super) fn record(
        &self,
        signature: Option<Signature>,
        error: Option<Value>,
        accounts: Vec<StoredAccount>,
    ) -> Record {
        let Moment { slot, unix_ms } = self.now();
        let warp_ms = self.time.past().warp_ms;
        Record { slot, unix_ms, warp_ms, signature, error, accounts, detail: None, fork: None, anchor: None }
    }

    /// Takes up a transaction's changes.
    pub(super) fn apply(&mut self, record: &Record) -> Result<(), String> {
        if self.settling.window_slots() > 0 {
            for account in &record.accounts {
                let before = self.account(&account.address).cloned();
                self.versions.note(record.slot, account.address, before);
            }
        }
        self.put(record)?;
        if let Some(signature) = record.signature {
            self.statuses.insert(signature, Processed { slot: record.slot, error: record.error.clone() });
            self.transactions += 1;
        }
        Ok(())
    }

    /// Replaces an account's bytes.
    pub(super) fn put_data(&mut self, address: &Address, data: Vec<u8>) -> Result<(), String> {
        let account =
            self.account(address).map(|account| stored(*address, account)).ok_or("there is no such account")?;
        let record = self.record(None, None, vec![StoredAccount { data, ..account }]);
        self.apply(&record)?;
        self.note(record);
        Ok(())
    }

    /// Puts a record's accounts in their places.
    pub(super) fn put(&mut self, record: &Record) -> Result<(), String> {
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
        self.feed.push(|| Change {
            slot: record.slot,
            signature: record.signature,
            error: record.error.clone(),
            accounts: record.accounts.iter().map(|account| account.address).collect(),
        });
        Ok(())
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("genesis", &self.genesis).field("now", &self.now()).finish_non_exhaustive()
    }
}

fn genesis_hash(seed: &[u8; 32]) -> Hash {
    hash_of(b"atoll/local-genesis/1\0", &[seed])
}

pub(super) fn hash_of(domain: &[u8], parts: &[&[u8]]) -> Hash {
    let mut hash = Sha256::new_with_prefix(domain);
    for part in parts {
        hash.update(part);
    }
    Hash(hash.finalize().into())
}
