//! What the local chain remembers of its transactions, for whoever asks later: by signature, by address, by slot.
//!
//! The log carries a [`Detail`] with each transaction, so that a restart brings the history back. In memory it is
//! bounded by bytes: the oldest slots go first, as nodes of a cluster prune their ledgers, and
//! [`History::first_slot`] says where it begins. Statuses are kept elsewhere, for ever.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::log::base64_text;
use crate::address::{Address, Signature};

/// Most bytes of transactions in memory, and in a snapshot: some 25,000 usual ones.
pub const HISTORY_BYTES_MAX: usize = 64 << 20;
/// What an entry's indices take besides its content: signature, slot, and a number for each address.
const ENTRY_BYTES: usize = 400;

/// A processed transaction as its answer to `getTransaction` needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// The transaction's bytes.
    #[serde(with = "base64_text")]
    pub bytes: Vec<u8>,
    /// Its fee in lamports.
    pub fee: u64,
    /// The compute units it used.
    pub units: u64,
    /// Its log.
    pub log: Vec<String>,
    /// What it took from lookup tables: first those that it may write, then those that it reads.
    #[serde(default, skip_serializing_if = "Loaded::is_empty")]
    pub loaded: Loaded,
    /// The accounts before and after, in the order of the transaction's keys and then the loaded ones.
    pub before: Balances,
    /// See `before`.
    pub after: Balances,
    /// The calls that its instructions made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inner: Vec<InnerCalls>,
    /// What it returned: the program and its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub returned: Option<Returned>,
}

/// Addresses from lookup tables.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    /// Those that the transaction may change.
    pub writable: Vec<Address>,
    /// Those that it only reads.
    pub readonly: Vec<Address>,
}

impl Loaded {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.writable.is_empty() && self.readonly.is_empty()
    }
}

/// What the accounts of a transaction hold at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balances {
    /// Lamports, one for each account.
    pub lamports: Vec<u64>,
    /// Tokens, for those accounts that hold any kind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenBalance>,
}

/// The tokens of one account of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBalance {
    /// Which account, counted in the transaction's keys.
    pub index: usize,
    /// Whose tokens.
    pub mint: Address,
    /// Who may spend them.
    pub owner: Address,
    /// How many, in base units.
    pub amount: u64,
    /// The mint's decimals.
    pub decimals: u8,
    /// The token program.
    pub program: Address,
}

/// The calls that one instruction made, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InnerCalls {
    /// Which instruction of the transaction.
    pub index: usize,
    /// What it called.
    pub calls: Vec<InnerCall>,
}

/// One call from a program to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InnerCall {
    /// The program called, counted in the transaction's keys.
    pub program: u8,
    /// Its accounts, counted likewise.
    pub accounts: Vec<u8>,
    /// Its arguments.
    #[serde(with = "base64_text")]
    pub data: Vec<u8>,
    /// How deep the call is; a transaction's own instruction has 1.
    pub depth: u8,
}

/// What a program returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Returned {
    /// The program.
    pub program: Address,
    /// Its bytes.
    #[serde(with = "base64_text")]
    pub data: Vec<u8>,
}

impl Detail {
    fn bytes_held(&self) -> usize {
        let log: usize = self.log.iter().map(|line| line.len() + 24).sum();
        let tokens = (self.before.tokens.len() + self.after.tokens.len()) * size_of::<TokenBalance>();
        let inner: usize = self.inner.iter().flat_map(|calls| &calls.calls).map(|call| call.data.len() + 80).sum();
        let keys = self.before.lamports.len() * 16 + (self.loaded.writable.len() + self.loaded.readonly.len()) * 32;
        self.bytes.len() + log + tokens + inner + keys
    }
}

/// A transaction with its place in the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its name.
    pub signature: Signature,
    /// When.
    pub slot: u64,
    /// Solana's error value, when it failed.
    pub error: Option<Value>,
    /// All accounts that it names.
    pub accounts: Vec<Address>,
    /// What it was and did.
    pub detail: Detail,
}

/// A page of the transactions of one address.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Only those before this one.
    pub before: Option<Signature>,
    /// Only those after this one.
    pub until: Option<Signature>,
    /// At most so many.
    pub limit: usize,
    /// None of later slots.
    pub slot_max: u64,
}

/// The transactions that are remembered, oldest first. Clones share them.
#[derive(Debug, Clone)]
pub struct History {
    entries: VecDeque<Arc<Entry>>,
    /// The number of the oldest entry; each has one more than the one before it.
    first: u64,
    numbers: HashMap<Signature, u64>,
    by_address: BTreeMap<Address, VecDeque<u64>>,
    bytes: usize,
    bytes_max: usize,
    /// Up to which slot entries have been forgotten.
    forgotten: Option<u64>,
}

impl History {
    /// An empty one that holds at most so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            numbers: HashMap::new(),
            by_address: BTreeMap::new(),
            bytes: 0,
            bytes_max,
            forgotten: None,
        }
    }

    /// Adds the newest transaction; its slot is not before the last one's.
    pub fn push(&mut self, entry: Entry) {
        let number = self.first + self.entries.len() as u64;
        self.bytes += held(&entry);
        self.numbers.insert(entry.signature, number);
        for address in &entry.accounts {
            self.by_address.entry(*address).or_default().push_back(number);
        }
        self.entries.push_back(Arc::new(entry));
        while self.bytes > self.bytes_max && self.entries.len() > 1 {
            self.forget_oldest_slot();
        }
    }

    /// Takes back every transaction of slots after `slot`, as when a fork is abandoned.
    pub fn take_back_after(&mut self, slot: u64) {
        while let Some(entry) = self.entries.pop_back_if(|entry| entry.slot > slot) {
            self.bytes -= held(&entry);
            self.numbers.remove(&entry.signature);
            self.unindex(&entry, VecDeque::pop_back);
        }
    }

    /// Whole slots go, so that no block is shown with a part of its transactions.
    fn forget_oldest_slot(&mut self) {
        let Some(slot) = self.entries.front().map(|entry| entry.slot) else { return };
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.slot == slot) {
            self.bytes -= held(&entry);
            self.first += 1;
            self.numbers.remove(&entry.signature);
            self.unindex(&entry, VecDeque::pop_front);
        }
        self.forgotten = Some(slot);
    }

    fn unindex(&mut self, entry: &Entry, pop: fn(&mut VecDeque<u64>) -> Option<u64>) {
        for address in &entry.accounts {
            if let Some(numbers) = self.by_address.get_mut(address) {
                pop(numbers);
                if numbers.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
    }

    /// The first slot whose transactions are all here, when some have been forgotten.
    #[must_use]
    pub fn first_slot(&self) -> Option<u64> {
        self.forgotten.map(|slot| slot + 1)
    }

    /// A transaction; none when it is unknown or forgotten.
    #[must_use]
    pub fn get(&self, signature: &Signature) -> Option<&Entry> {
        self.entry(*self.numbers.get(signature)?)
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(number.checked_sub(self.first)?).ok()?).map(Arc::as_ref)
    }

    /// All that are remembered, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(Arc::as_ref)
    }

    /// Those of the slots after `slot`, oldest first.
    #[must_use]
    pub fn after(&self, slot: u64) -> Vec<Arc<Entry>> {
        let start = self.entries.partition_point(|entry| entry.slot <= slot);
        self.entries.range(start..).cloned().collect()
    }

    /// The transactions of a slot, in their order.
    pub fn in_slot(&self, slot: u64) -> impl Iterator<Item = &Entry> {
        let start = self.entries.partition_point(|entry| entry.slot < slot);
        self.entries.range(start..).map(Arc::as_ref).take_while(move |entry| entry.slot == slot)
    }

    /// The transactions that name an address, newest first. A `before` that is not remembered gives none; an `until`
    /// that is not remembered ends nothing, as on a cluster.
    pub fn of_address<'a>(&'a self, address: &Address, page: &Page) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let numbers = self.by_address.get(address);
        let end = match page.before {
            None => u64::MAX,
            Some(before) => self.numbers.get(&before).copied().unwrap_or(0),
        };
        let until = page.until.and_then(|until| self.numbers.get(&until).copied());
        let count = numbers.map_or(0, |numbers| numbers.partition_point(|number| *number < end));
        let slot_max = page.slot_max;
        let newest_first = numbers.into_iter().flat_map(move |numbers| numbers.range(..count).rev());
        newest_first
            .take_while(move |number| until.is_none_or(|until| **number > until))
            .filter_map(|number| self.entry(*number))
            .filter(move |entry| entry.slot <= slot_max)
            .take(page.limit)
    }
}

fn held(entry: &Entry) -> usize {
    ENTRY_BYTES + entry.accounts.len() * 40 + entry.detail.bytes_held()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(n: u8, slot: u64, accounts: &[u8]) -> Entry {
        Entry {
            signature: Signature([n; 64]),
            slot,
            error: None,
            accounts: accounts.iter().map(|account| Address([*account; 32])).collect(),
            detail: Detail {
                bytes: vec![0; 1000],
                fee: 5000,
                units: 0,
                log: Vec::new(),
                loaded: Loaded::default(),
                before: Balances::default(),
                after: Balances::default(),
                inner: Vec::new(),
                returned: None,
            },
        }
    }

    fn of(history: &History, address: u8, before: Option<u8>, until: Option<u8>, limit: usize) -> Vec<u8> {
        let name = |n: u8| Signature([n; 64]);
        let page = Page { before: before.map(name), until: until.map(name), limit, slot_max: u64::MAX };
        history.of_address(&Address([address; 32]), &page).map(|entry| entry.signature.0[0]).collect()
    }

    #[test]
    fn an_address_has_its_transactions_newest_first_in_pages() {
        let mut history = History::new(1 << 20);
        for n in 1..=9 {
            history.push(entry(n, u64::from(n) / 2, if n % 3 == 0 { &[1, 2] } else { &[1] }));
        }
        assert_eq!(of(&history, 1, None, None, 3), [9, 8, 7]);
        assert_eq!(of(&history, 1, Some(7), None, 3), [6, 5, 4]);
        assert_eq!(of(&history, 1, Some(7), Some(4), 9), [6, 5]);
        assert_eq!(of(&history, 2, None, None, 9), [9, 6, 3]);
        // Bounds may be transactions of other addresses.
        assert_eq!(of(&history, 2, Some(8), Some(4), 9), [6]);
        assert_eq!(of(&history, 2, Some(200), None, 9), [0; 0]);
        assert_eq!(of(&history, 2, None, Some(200), 9), [9, 6, 3]);
        assert_eq!(of(&history, 7, None, None, 9), [0; 0]);
        let slot: Vec<_> = history.in_slot(2).map(|entry| entry.signature.0[0]).collect();
        assert_eq!(slot, [4, 5]);
    }

    #[test]
    fn the_oldest_slots_are_forgotten_whole_and_the_newest_can_be_taken_back() {
        let mut history = History::new(5 * held(&entry(0, 0, &[1])));
        for n in 0..20 {
            history.push(entry(n, u64::from(n) / 2, &[1]));
        }
        assert_eq!(of(&history, 1, None, None, 99), [19, 18, 17, 16]);
        assert_eq!((history.first_slot(), history.get(&Signature([15; 64]))), (Some(8), None));
        history.take_back_after(8);
        assert_eq!(of(&history, 1, None, None, 99), [17, 16]);
        history.push(entry(30, 9, &[1]));
        assert_eq!(of(&history, 1, None, None, 99), [30, 17, 16]);
        assert_eq!(history.get(&Signature([30; 64])).map(|entry| entry.slot), Some(9));
        history.take_back_after(0);
        assert!(history.bytes == 0 && history.by_address.is_empty() && history.numbers.is_empty());
    }
}
