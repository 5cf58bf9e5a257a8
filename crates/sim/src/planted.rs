//! Bugs planted on purpose, to see that the laws find them and how soon.
//!
//! Each swaps a part at a seam for a broken one: a store that answers wrongly, a chain whose program does one thing more
//! than it should. Production code knows nothing of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atoll_chain::Address;
use atoll_chain::local::Engine;
use atoll_chain::market::layout::{FleetPage, Lease, Order, Record as _, Slot, Table as _};
use atoll_chain::market::{self, PROGRAM_ID};
use atoll_chain::spl::TOKEN_PROGRAM;
use atoll_control::store::rows::{Job, Pod};
use atoll_domain::job::JobState;
use atoll_interface::fill;

use crate::genesis::People;
use crate::seed::Options;
use crate::store::Tamper;
use crate::trace::Telling;
use crate::world::{self, Planted};

/// Where the amount stands in a token account.
const AMOUNT: std::ops::Range<usize> = 64..72;
/// Length of the worlds in which planted bugs are looked for.
pub const LENGTH: Duration = Duration::from_secs(60);

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Releasing one lease of a slot frees the devices of all.
    DoubleLease,
    /// What a supplier is paid is paid once more, out of the renter's purse.
    DoublePay,
    /// What an order returns at its end goes to the treasury.
    LostRefund,
    /// What a supplier is paid is there once more, out of nothing.
    Minted,
    /// What fees bring the treasury is taken from the renter once more.
    DoubleFee,
    /// A pod's meter and the operator's own observation both say half a minute too much.
    UnservedTime,
    /// A vault loses one base unit to the treasury when its order is posted.
    LeakyVault,
    /// What a lease is owed grows by one base unit that its order does not know of.
    OwedTwice,
    /// A job is nowhere to be found once it runs.
    ForgottenJob,
    /// A job is called over as soon as its command is, and nobody settles it.
    NeverClosed,
    /// Two operators vote with one key, each as if it had it alone.
    TwoRoots,
}

/// All of them.
pub const BUGS: [Bug; 11] = [
    Bug::DoubleLease,
    Bug::DoublePay,
    Bug::LostRefund,
    Bug::Minted,
    Bug::DoubleFee,
    Bug::UnservedTime,
    Bug::LeakyVault,
    Bug::OwedTwice,
    Bug::ForgottenJob,
    Bug::NeverClosed,
    Bug::TwoRoots,
];

impl Bug {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DoubleLease => "double lease",
            Self::DoublePay => "double pay",
            Self::LostRefund => "lost refund",
            Self::Minted => "minted",
            Self::DoubleFee => "double fee",
            Self::UnservedTime => "paid unserved time",
            Self::LeakyVault => "leaky vault",
            Self::OwedTwice => "owed twice",
            Self::ForgottenJob => "forgotten job",
            Self::NeverClosed => "never closed",
            Self::TwoRoots => "two roots",
        }
    }

    /// Words of the law that it breaks.
    const fn breaks(self) -> &'static str {
        match self {
            Self::DoubleLease => "slot ",
            Self::DoublePay => "for work worth",
            Self::LostRefund | Self::DoubleFee => "of fees were taken",
            Self::Minted => "base units are in accounts",
            Self::UnservedTime => "device-seconds, and",
            Self::LeakyVault => "the vault of order",
            Self::OwedTwice => "owes",
            Self::ForgottenJob => "was acknowledged and is not there any more",
            Self::NeverClosed => "was never closed",
            Self::TwoRoots => "signed two roots",
        }
    }

    /// What has to be put into a world to have it.
    #[must_use]
    pub fn plant(self, people: &People) -> Planted {
        let renter = people.tokens(&people.renter);
        let treasury = people.tokens(&people.admin);
        let suppliers = || people.suppliers.iter().map(|wallet| people.tokens(wallet)).collect();
        match self {
            Self::DoubleLease => on_chain(free_whole_slots()),
            Self::DoublePay => on_chain(when_more(suppliers(), renter, Move::ToWhoGot)),
            Self::Minted => on_chain(when_more(suppliers(), renter, Move::FromNothing)),
            Self::DoubleFee => on_chain(when_more(vec![treasury], renter, Move::ToWhoGot)),
            Self::LostRefund => on_chain(when_more(vec![renter], treasury, Move::ToTheOther)),
            Self::UnservedTime => in_store(Generous),
            Self::LeakyVault => on_chain(leak(treasury)),
            Self::OwedTwice => on_chain(owe_more()),
            Self::ForgottenJob => in_store(Forgetful),
            Self::NeverClosed => in_store(Hasty),
            Self::TwoRoots => Planted { no_turns: true, ..Planted::default() },
        }
    }

    /// Runs seeds until one finds it by the law that it breaks; gives that one and what was broken.
    #[must_use]
    pub fn hunt(self, seeds: std::ops::Range<u64>) -> Option<(u64, String)> {
        seeds.into_iter().find_map(|seed| {
            let options = Options::draw(seed, LENGTH);
            let planted = self.plant(&People::new(options.workers));
            let verdict = world::run(&options, planted, Telling::default());
            verdict.broken.into_iter().find(|broken| broken.contains(self.breaks())).map(|broken| (seed, broken))
        })
    }
}

fn replace(engine: &mut Engine, address: &Address, data: Vec<u8>) {
    engine.put_data(address, data).expect("the account is there");
}

type Change = Box<dyn Fn(&mut Engine) + Send>;

fn on_chain(change: Change) -> Planted {
    Planted { on_chain: Some(change), ..Planted::default() }
}

fn in_store(tamper: impl Tamper + 'static) -> Planted {
    Planted { tamper: Some(Arc::new(tamper)), ..Planted::default() }
}

/// The amount in a token account's bytes; 0 where there are none.
fn amount_in(data: Option<&Vec<u8>>) -> u64 {
    let bytes = data.and_then(|data| data.get(AMOUNT)).and_then(|bytes| bytes.try_into().ok());
    u64::from_le_bytes(bytes.unwrap_or_default())
}

fn with_amount(data: &[u8], amount: u64) -> Vec<u8> {
    let mut data = data.to_vec();
    data[AMOUNT].copy_from_slice(&amount.to_le_bytes());
    data
}

/// When an order is first seen, one base unit of its vault is the treasury's.
fn leak(treasury: Address) -> Change {
    let seen: Mutex<BTreeSet<Address>> = Mutex::default();
    Box::new(move |engine| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (order, data) in engine.accounts_of(&PROGRAM_ID) {
            if Order::read(&data).is_err() || !seen.insert(order) {
                continue;
            }
            let vault = market::address::order_vault(&order);
            let tokens: BTreeMap<Address, Vec<u8>> = engine.accounts_of(&TOKEN_PROGRAM).into_iter().collect();
            let after = |account: &Address, by: i64| {
                let amount = amount_in(tokens.get(account)).saturating_add_signed(by);
                with_amount(&tokens[account], amount)
            };
            let (less, more) = (after(&vault, -1), after(&treasury, 1));
            replace(engine, &vault, less);
            replace(engine, &treasury, more);
        }
    })
}

/// When a lease is first owed something, it is owed one base unit more.
fn owe_more() -> Change {
    let seen: Mutex<BTreeSet<Address>> = Mutex::default();
    Box::new(move |engine| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (address, mut data) in engine.accounts_of(&PROGRAM_ID) {
            let Ok(lease) = Lease::read(&data) else { continue };
            if lease.owed > 0 && seen.insert(address) {
                let at = std::mem::offset_of!(Lease, owed);
                data[at..at + 8].copy_from_slice(&(lease.owed + 1).to_le_bytes());
                replace(engine, &address, data);
            }
        }
    })
}

/// Whenever a lease gave up a slot, the slot says that none of its devices is leased.
fn free_whole_slots() -> Change {
    let before: Mutex<BTreeMap<Address, Lease>> = Mutex::default();
    Box::new(move |engine| {
        let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
        let accounts = engine.accounts_of(&PROGRAM_ID);
        let leases: BTreeMap<Address, Lease> =
            accounts.iter().filter_map(|(address, data)| Some((*address, Lease::read(data).ok()?))).collect();
        for (address, data) in &accounts {
            let Ok(header) = FleetPage::read(data) else { continue };
            let mut changed = data.clone();
            for number in 0..header.count() {
                let gave_up = |(lease, now): (&Address, &Lease)| {
                    let had = before.get(lease).is_some_and(|then| fill::bit(&then.bitmap, number));
                    now.page == address.0 && had && !fill::bit(&now.bitmap, number)
                };
                if leases.iter().any(gave_up) {
                    let at =
                        size_of::<FleetPage>() + number * size_of::<Slot>() + std::mem::offset_of!(Slot, leased_mask);
                    changed[at..at + 2].fill(0);
                }
            }
            if changed != *data {
                replace(engine, address, changed);
            }
        }
        *before = leases;
    })
}

/// Which way a sum goes once more.
#[derive(Clone, Copy)]
enum Move {
    /// Whoever got something gets it once more, and the other account loses it.
    ToWhoGot,
    /// Whoever got something gets it once more, and nobody loses it.
    FromNothing,
    /// Whoever got something loses it to the other account.
    ToTheOther,
}

/// Whenever one of these token accounts has more than before, as much moves between it and another one.
fn when_more(accounts: Vec<Address>, other: Address, direction: Move) -> Change {
    let before: Mutex<BTreeMap<Address, u64>> = Mutex::default();
    Box::new(move |engine| {
        let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens: BTreeMap<Address, Vec<u8>> = engine.accounts_of(&TOKEN_PROGRAM).into_iter().collect();
        let amount = |address: &Address| amount_in(tokens.get(address));
        let put = |engine: &mut Engine, address: &Address, value: u64| {
            replace(engine, address, with_amount(&tokens[address], value));
        };
        for account in &accounts {
            let (now, then) = (amount(account), before.get(account).copied());
            let more = now.saturating_sub(then.unwrap_or(now));
            let after = match direction {
                Move::ToWhoGot => (now + more, amount(&other).saturating_sub(more)),
                Move::FromNothing => (now + more, amount(&other)),
                Move::ToTheOther => (now - more, amount(&other) + more),
            };
            if more > 0 {
                put(engine, account, after.0);
                put(engine, &other, after.1);
            }
            before.insert(*account, after.0);
        }
    })
}

/// Adds half a minute to what is known of every pod that has served at all.
#[derive(Debug)]
struct Generous;

impl Tamper for Generous {
    fn pods_of(&self, pods: &mut Vec<Pod>) {
        for pod in pods {
            if let Some(usage) = &mut pod.usage {
                usage.statement.served_ms += 30_000;
                pod.observation.observed_ms += 30_000;
            }
        }
    }
}

/// Does not know jobs that run or have run.
#[derive(Debug)]
struct Forgetful;

impl Tamper for Forgetful {
    fn job(&self, job: Job) -> Option<Job> {
        (job.now.state < JobState::Running).then_some(job)
    }
}

/// Takes a job whose command is over for one that is.
#[derive(Debug)]
struct Hasty;

impl Tamper for Hasty {
    fn job(&self, mut job: Job) -> Option<Job> {
        if job.now.state == JobState::Settling {
            job.now.state = JobState::Succeeded;
        }
        Some(job)
    }
}
