//! What must always hold, whatever fails; and what must come to pass once nothing fails any more.
//!
//! Looked at after every transaction of the chain and every second of the world. The chain's accounts are read directly;
//! what pods really ran is known to [`Truth`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_chain::local::Engine;
use atoll_chain::market::PROGRAM_ID;
use atoll_chain::market::layout::{FleetPage, Lease, Order, Record as _, SLOT_USED, Table as _};
use atoll_chain::spl::{MINT_BYTES, Mint, TOKEN_PROGRAM, TokenAccount};
use atoll_chain::{Address, market};
use atoll_domain::id::PodId;
use atoll_domain::key::PublicKey;
use atoll_domain::time::UnixMs;
use atoll_interface::fill;

use crate::genesis::People;
use crate::truth::Truth;
use crate::votes::Votes;

/// Rounding of one lease: whole seconds of each of its pods.
const ROUNDING_MS: u64 = 1_000;

/// How long a pod goes on after its lease, when nobody can be asked.
const GRACE: Duration = Duration::from_secs(30);
/// How much later a worker may think the lease ends: whole seconds, an answer on its way, one from a node that lags.
const NOTICED_WITHIN: Duration = Duration::from_secs(12);
/// How long a supervisor takes to see that time has leapt.
const GUARDED_WITHIN: Duration = Duration::from_secs(3);

/// Fees of both sides together, basis points.
const FEES_BPS: u64 = 50;

/// The laws of one world and what was seen broken. Clones are the same.
#[derive(Clone, Debug)]
pub struct Laws {
    truth: Truth,
    votes: Votes,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Every lease that was ever seen: whose page it is on, and its rate.
    leases: BTreeMap<Address, Seen>,
    /// Every order that was ever seen.
    orders: BTreeSet<Address>,
    /// Token accounts of suppliers, and what was in them at the beginning.
    suppliers: BTreeMap<Address, Purse>,
    renter: Purse,
    treasury: Purse,
    supply: u64,
    /// When each lease ends or would have ended, as far as it ever had an end: it may be closed long before its pods
    /// notice, and they may run until then.
    ends: BTreeMap<Address, UnixMs>,
    /// Pods that ran although their lease and grace were over, and since when.
    overdue: BTreeMap<PodId, Duration>,
    broken: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    page: Address,
    rate: u64,
}

#[derive(Clone, Copy, Debug)]
struct Purse {
    tokens: Address,
    page: Address,
    began_with: u64,
}

/// What the chain holds, read at once.
struct Accounts {
    pages: BTreeMap<Address, Vec<u8>>,
    orders: BTreeMap<Address, Order>,
    leases: BTreeMap<Address, Lease>,
    tokens: BTreeMap<Address, TokenAccount>,
    supply: u64,
}

impl Accounts {
    fn read(engine: &Engine) -> Self {
        let (mut pages, mut orders, mut leases) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (address, data) in engine.accounts_of(&PROGRAM_ID) {
            if let Ok(lease) = Lease::read(&data) {
                leases.insert(address, lease);
            } else if let Ok(order) = Order::read(&data) {
                orders.insert(address, order);
            } else if FleetPage::read(&data).is_ok() {
                pages.insert(address, data);
            }
        }
        let (mut tokens, mut supply) = (BTreeMap::new(), 0);
        for (address, data) in engine.accounts_of(&TOKEN_PROGRAM) {
            if data.len() as u64 == MINT_BYTES {
                supply += Mint::read(&data).map_or(0, |mint| mint.supply);
            } else if let Some(token) = TokenAccount::read(&data) {
                tokens.insert(address, token);
            }
        }
        Self { pages, orders, leases, tokens, supply }
    }

    fn amount(&self, tokens: &Address) -> u64 {
        self.tokens.get(tokens).map_or(0, |account| account.amount)
    }
}

impl Laws {
    /// The laws over a chain on which nothing was rented yet.
    #[must_use]
    pub fn new(people: &People, engine: &mut Engine, truth: &Truth, votes: &Votes) -> Self {
        let accounts = Accounts::read(engine);
        let purse = |wallet| {
            let tokens = people.tokens(wallet);
            let page = market::address::page(&wallet.address(), 0);
            Purse { tokens, page, began_with: accounts.amount(&tokens) }
        };
        let suppliers = people.suppliers.iter().map(|wallet| (wallet.address(), purse(wallet))).collect();
        let state = State {
            leases: BTreeMap::new(),
            orders: BTreeSet::new(),
            suppliers,
            renter: purse(&people.renter),
            treasury: purse(&people.admin),
            supply: accounts.supply,
            ends: BTreeMap::new(),
            overdue: BTreeMap::new(),
            broken: BTreeSet::new(),
        };
        Self { truth: truth.clone(), votes: votes.clone(), state: Arc::new(Mutex::new(state)) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes that something is broken.
    pub fn break_(&self, what: String) {
        self.with(|state| state.broken.insert(what));
    }

    /// Everything that was seen broken.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        self.with(|state| state.broken.iter().cloned().collect())
    }

    /// Base units that suppliers have received.
    pub fn paid(&self, engine: &Engine) -> u64 {
        let accounts = Accounts::read(engine);
        self.with(|state| {
            let gained = |purse: &Purse| accounts.amount(&purse.tokens).saturating_sub(purse.began_with);
            state.suppliers.values().map(gained).sum()
        })
    }

    /// Looks at everything that must hold now.
    pub fn check(&self, engine: &mut Engine) {
        let accounts = Accounts::read(engine);
        self.with(|state| {
            let lease = |lease: &Lease| Seen { page: Address(lease.page), rate: lease.rate };
            state.leases.extend(accounts.leases.iter().map(|(address, it)| (*address, lease(it))));
            state.orders.extend(accounts.orders.keys());
            let mut broken = Vec::new();
            devices(&accounts, &mut broken);
            money(&accounts, &mut broken);
            self.served(state, &accounts, &mut broken);
            self.in_time(state, &accounts, &mut broken);
            broken.extend(self.truth.broken());
            broken.extend(self.votes.broken());
            state.broken.extend(broken);
        });
    }

    /// Nobody is paid for time that was not served: neither what a lease has booked, nor what a supplier has received.
    fn served(&self, state: &State, accounts: &Accounts, broken: &mut Vec<String>) {
        let mut earned: BTreeMap<Address, u64> = BTreeMap::new();
        for (address, seen) in &state.leases {
            let ran_ms = self.truth.device_ms(&PublicKey(address.0)) + ROUNDING_MS;
            if let Some(lease) = accounts.leases.get(address)
                && lease.device_seconds_paid * 1000 > ran_ms
            {
                let paid = lease.device_seconds_paid;
                broken.push(format!("lease {address} is paid {paid} device-seconds, and {ran_ms} ms were served"));
            }
            *earned.entry(seen.page).or_default() += seen.rate * ran_ms.div_ceil(1000);
        }
        for purse in state.suppliers.values() {
            let gained = accounts.amount(&purse.tokens).saturating_sub(purse.began_with);
            let earned = earned.get(&purse.page).copied().unwrap_or(0);
            if gained > earned {
                broken.push(format!("the supplier of page {} got {gained} for work worth {earned}", purse.page));
            }
        }
    }

    /// No pod runs for longer than its lease and the grace, by the chain's clock, whoever can be reached.
    fn in_time(&self, state: &mut State, accounts: &Accounts, broken: &mut Vec<String>) {
        let (elapsed, now) = (self.truth.time().elapsed(), self.truth.time().now());
        let end = |lease: &Address| Some((*lease, ends_at(accounts, lease, now)?));
        state.ends.extend(accounts.leases.keys().filter_map(end));
        let mut overdue = BTreeMap::new();
        for (pod, run) in self.truth.runs().into_iter().filter(|(_, run)| run.until.is_none()) {
            let ends = state.ends.get(&Address(run.lease.0));
            if ends.is_some_and(|ends| now > ends.after(GRACE + NOTICED_WITHIN)) {
                let since = state.overdue.get(&pod).copied().unwrap_or(elapsed);
                overdue.insert(pod, since);
                if elapsed > since + GUARDED_WITHIN {
                    broken.push(format!("{}: {pod} runs after its lease and grace", run.machine));
                }
            }
        }
        state.overdue = overdue;
    }

    /// What must hold once every job has ended.
    pub fn check_end(&self, engine: &mut Engine) {
        self.check(engine);
        let accounts = Accounts::read(engine);
        self.with(|state| {
            for order in accounts.orders.keys() {
                state.broken.insert(format!("order {order} was never closed"));
            }
            // Where money can be: purses, stakes of those who were there before. What the renter lacks, others have.
            let gained = |purse: &Purse| accounts.amount(&purse.tokens).saturating_sub(purse.began_with);
            let paid: u64 = state.suppliers.values().map(gained).sum();
            let burned = state.supply.saturating_sub(accounts.supply);
            let spent = state.renter.began_with.saturating_sub(accounts.amount(&state.renter.tokens));
            let found = paid + gained(&state.treasury) + burned;
            if spent != found {
                state.broken.insert(format!("the renter spent {spent}, and {found} arrived anywhere"));
            }
            // Both sides' fees are a share of what was paid, rounded up once for each lease and side.
            let (fees, leases) = (gained(&state.treasury) + burned, state.leases.len() as u64);
            let fees_max = (paid + fees) * FEES_BPS / 10_000 + 2 * leases;
            if fees > fees_max {
                state.broken.insert(format!("{fees} of fees were taken of {paid} paid: more than {fees_max}"));
            }
        });
    }
}

/// Whether an order is on the chain.
pub fn is_open(engine: &Engine, order: &Address) -> bool {
    engine.accounts_of(&PROGRAM_ID).iter().any(|(address, _)| address == order)
}

/// When a lease ends, as any reader of the chain has to find it; none while it has not begun, or is closed.
fn ends_at(accounts: &Accounts, lease: &Address, now: UnixMs) -> Option<UnixMs> {
    let mut lease = *accounts.leases.get(lease)?;
    let mut order = *accounts.orders.get(&Address(lease.order))?;
    order.ripen(i64::try_from(now.secs()).ok()?);
    lease.begin(&order);
    (lease.end != 0).then(|| UnixMs(u64::try_from(lease.end).unwrap_or(0) * 1000))
}

/// No device is leased twice: the masks of a slot's leases do not overlap, and together are what the slot says.
fn devices(accounts: &Accounts, broken: &mut Vec<String>) {
    for (address, data) in &accounts.pages {
        let Ok(header) = FleetPage::read(data) else { continue };
        for number in 0..header.count() {
            let Ok(Some(slot)) = FleetPage::read_row(data, number) else { continue };
            if slot.flags & SLOT_USED == 0 {
                continue;
            }
            let mut held = 0_u16;
            for (lease, it) in
                accounts.leases.iter().filter(|(_, it)| it.page == address.0 && fill::bit(&it.bitmap, number))
            {
                if held & it.mask != 0 {
                    broken.push(format!("slot {number} of page {address}: lease {lease} holds devices of another"));
                }
                held |= it.mask;
            }
            if held != slot.leased_mask {
                let said = slot.leased_mask;
                broken.push(format!("slot {number} of page {address} says {said:#b} is leased, its leases {held:#b}"));
            }
        }
    }
}

/// Money is neither made nor lost: all accounts together are the supply, every vault holds what its order says.
fn money(accounts: &Accounts, broken: &mut Vec<String>) {
    let all: u64 = accounts.tokens.values().map(|account| account.amount).sum();
    if all != accounts.supply {
        broken.push(format!("{all} base units are in accounts, and {} exist", accounts.supply));
    }
    for (address, order) in &accounts.orders {
        let vault = accounts.amount(&market::address::order_vault(address));
        let said = order.escrow + order.fees + order.owed;
        if vault != said {
            broken.push(format!("the vault of order {address} holds {vault}, and its order says {said}"));
        }
        let of_order = |lease: &&Lease| lease.order == address.0;
        let owed: u64 = accounts.leases.values().filter(of_order).map(|lease| lease.owed).sum();
        if owed != order.owed {
            broken.push(format!("order {address} owes {}, its leases {owed}", order.owed));
        }
    }
}
