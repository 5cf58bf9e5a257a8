//! What the local chain is, and how transactions, time and the faucet change it.
//!
//! Wraps litesvm, which executes; this module adds what a cluster adds: slots, blockhashes that expire, statuses, an
//! index of accounts by owner, and records for the log. Every change goes through [`State::apply`], at run time and in
//! replay alike. The cost of a transaction does not grow with the number of accounts or of past transactions.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use litesvm::LiteSVM;
use litesvm::types::{FailedTransactionMetadata, TransactionMetadata};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use solana_account::{Account, AccountSharedData, ReadableAccount as _};
use solana_clock::Clock;
use solana_transaction::versioned::VersionedTransaction;
use solana_transaction_error::TransactionError;

use super::detail::{self, Keys};
use super::engine::EngineConfig;
use super::feed::{Change, Feed};
use super::history::{Detail, HISTORY_BYTES_MAX, History, InnerCalls, Returned};
use super::log::{Genesis, Log, LogError, Opened, Record, StoredAccount};
use super::{LocalChainConfig, StartError, WallClock};
use crate::address::{Address, Hash, Signature};
use crate::keypair::Keypair;
use crate::rpc::Commitment;
use crate::{spl, transaction};

/// Milliseconds of a slot, as on Solana.
pub const SLOT_MS: u64 = 400;
/// Slots for which a blockhash may be used, as on Solana: 60 s.
pub const BLOCKHASH_SLOTS: u64 = 150;
/// Slots of an epoch of Solana's clock, as on mainnet.
pub const EPOCH_SLOTS: u64 = 432_000;
/// The first slot. litesvm's features and programs are of this slot, and programs are invisible before theirs.
pub const SLOT_FIRST: u64 = litesvm::MAINNET_DEFAULT_SLOT;
/// What the faucet has at first: 10^10 SOL, a hundred thousand of the largest airdrops.
const FAUCET_LAMPORTS: u64 = 10_000_000_000 * spl::LAMPORTS_PER_SOL;

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
    history: History,
    feed: Feed,
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
        let mut replay = Replay::new();
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
        let replay = Replay::new();
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
            history: replay.history,
            feed: Feed::default(),
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
            history: self.history.clone(),
            feed: Feed::default(),
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
            let hash = self.blockhash_of(slot);
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

    /// The hash of a slot's block; it follows from the slot's number.
    #[must_use]
    pub fn blockhash_of(&self, slot: u64) -> Hash {
        hash_of(b"atoll/local-blockhash/1\0", &[&self.genesis.hash.0, &slot.to_le_bytes()])
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

    /// What is remembered of transactions.
    #[must_use]
    pub const fn history(&self) -> &History {
        &self.history
    }

    /// All transactions that were ever processed.
    #[must_use]
    pub fn transaction_count(&self) -> u64 {
        self.statuses.len() as u64
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

    /// The newest slot that is settled so far.
    #[must_use]
    pub fn slot_at(&self, _: Commitment) -> u64 {
        self.now.slot
    }

    /// An account as it was at the newest slot that is settled so far.
    #[must_use]
    pub fn account_at(&self, address: &Address, _: Commitment) -> Option<AccountSharedData> {
        self.account(address).cloned()
    }

    /// The accounts of a program, by address, at the newest slot that is settled so far.
    pub fn accounts_of_at<'a>(
        &'a self,
        owner: &Address,
        _: Commitment,
    ) -> impl Iterator<Item = (Address, AccountSharedData)> + use<'a> {
        let owned = self.owned.get(owner).into_iter().flatten();
        owned.filter_map(|address| self.account(address).map(|account| (*address, account.clone())))
    }

    /// Runs a transaction without keeping anything. Signatures are not looked at.
    #[must_use]
    pub fn simulate(&self, transaction: VersionedTransaction) -> Run {
        match self.svm.simulate_transaction(transaction) {
            Ok(run) => Run {
                accounts: run.post_accounts.iter().map(|(key, account)| (from_svm(key), account.clone())).collect(),
                ..run_of(None, &run.meta)
            },
            Err(failed) => run_of(Some(&failed.err), &failed.meta),
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
        let (meta, error, accounts) = match self.svm.simulate_transaction(transaction.clone()) {
            Ok(run) => (run.meta, None, self.changes(&run.post_accounts)),
            Err(failed) if preflight == Preflight::Run => {
                return Sent::Refused(run_of(Some(&failed.err), &failed.meta));
            }
            Err(_) => match self.fail(transaction) {
                (failed, Some(payer)) => (failed.meta, Some(error_value(&failed.err)), vec![payer]),
                (failed, None) => return Sent::Refused(run_of(Some(&failed.err), &failed.meta)),
            },
        };
        let mut record = self.record(Some(signature), error, accounts);
        if let Err(error) = self.apply(&record) {
            // litesvm has executed these very accounts, so this is a fault of the chain and not of the transaction.
            return Sent::Refused(Run { error: Some(Value::String(error)), ..run_of(None, &meta) });
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

    /// Gives lamports to an address, by a transaction of the faucet that every local chain has. Two airdrops are never
    /// one transaction, even where all else in them is the same.
    ///
    /// # Errors
    /// Says why not: the balance would overflow, or would be too small for an account to exist.
    pub fn airdrop(&mut self, address: &Address, lamports: u64) -> Result<Signature, String> {
        let faucet = faucet();
        // More units than a transfer needs, and another number each time: so each has a signature of its own.
        let units = 10_000 + u32::try_from(self.statuses.len() % 1_000_000).unwrap_or_default();
        let give = [spl::compute_unit_limit(units), spl::system_transfer(faucet.address(), *address, lamports)];
        let signed = transaction::sign(&give, &faucet, &[], &self.blockhash()).map_err(|error| error.to_string())?;
        let read = wincode::deserialize_exact(signed.bytes()).map_err(|error| error.to_string())?;
        match self.send(read, signed.bytes().to_vec(), Preflight::Run) {
            Sent::Processed(signature) => Ok(signature),
            Sent::Refused(run) => Err(format!("the airdrop fails: {}", run.error.unwrap_or_default())),
        }
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
        Record { slot, unix_ms, warp_ms: self.warp_ms, signature, error, accounts, detail: None }
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
    let random = svm.airdrop_pubkey();
    let load = |error: litesvm::error::LiteSVMError| StartError::Load {
        what: "an empty genesis".to_owned(),
        why: error.to_string(),
    };
    svm.set_account(random, Account::default()).map_err(load)?;
    let rich = Account { lamports: FAUCET_LAMPORTS, ..Account::default() };
    svm.set_account(to_svm(&faucet().address()), rich).map_err(load)?;
    Ok(svm)
}

/// The faucet's key. Everybody may know it: it gives to everybody anyway.
fn faucet() -> Keypair {
    Keypair::from_seed(&hash_of(b"atoll/local-faucet/1\0", &[]).0)
}

fn genesis_hash(seed: &[u8; 32]) -> Hash {
    hash_of(b"atoll/local-genesis/1\0", &[seed])
}

/// What the log has told so far.
struct Replay {
    statuses: HashMap<Signature, Processed>,
    history: History,
    last: Option<(Moment, u64)>,
}

impl Replay {
    fn new() -> Self {
        Self { statuses: HashMap::new(), history: History::new(HISTORY_BYTES_MAX), last: None }
    }

    fn take(&mut self, svm: &mut LiteSVM, record: Record) -> Result<(), StartError> {
        let load = |why| StartError::Load { what: format!("the log's record of slot {}", record.slot), why };
        for account in by_load_order(&record.accounts) {
            write(svm, account).map_err(load)?;
        }
        self.last = Some((Moment { slot: record.slot, unix_ms: record.unix_ms }, record.warp_ms));
        if let Some(entry) = detail::entry(&record) {
            self.history.push(entry);
        }
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

fn run_of(error: Option<&TransactionError>, meta: &TransactionMetadata) -> Run {
    Run {
        error: error.map(error_value),
        log: meta.logs.clone(),
        units: meta.compute_units_consumed,
        fee: meta.fee,
        accounts: Vec::new(),
        inner: detail::inner(meta),
        returned: detail::returned(meta),
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
