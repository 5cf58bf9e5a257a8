//! Random sequences of many actors' instructions against the reference of `atoll_domain::model`.
//!
//! `ATOLL_MODEL_STEPS` asks for more than 10,000 instructions, `ATOLL_MODEL_SEED` for other ones; what fails names its seed.

use atoll_domain::model::{Act, By, Lease, LeaseId, OrderId, Reason, Supplier, Who};
use atoll_fuzz::Rng;
use atoll_market_tests::{
    calls::{ASK, FEED, STAKE, STALL_S},
    reference::{KEYS, Pair, STRANGER, SUPPLIERS, WALLETS},
};
use std::collections::BTreeMap;

/// Instructions of one world: enough for its orders to be posted, ended and posted again.
const WORLD: u64 = 2_500;
/// Orders of one renter at once.
const NONCES: usize = 2;

/// Draws what happens next, mostly what can happen.
struct Actors {
    rng: Rng,
}

impl Actors {
    fn below(&mut self, end: usize) -> usize {
        self.rng.below(end)
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len())).copied()
    }

    fn wallet(&mut self) -> Who {
        self.below(WALLETS)
    }

    fn supplier(&mut self) -> Who {
        self.below(SUPPLIERS)
    }

    /// A slot of the supplier's, sometimes one that it does not have.
    fn slot(&mut self, pair: &Pair, supplier: Who) -> usize {
        let slots = pair.market.suppliers.get(&supplier).map_or(0, |books| books.slots.len());
        let beyond = usize::from(self.one_in(10));
        self.below(slots + beyond)
    }

    fn key(&mut self, supplier: Who) -> usize {
        // Sometimes another's.
        let of = if self.one_in(20) { self.supplier() } else { supplier };
        of * KEYS + self.below(KEYS)
    }

    /// The key of the worker in a slot, sometimes any.
    fn key_in(&mut self, pair: &Pair, supplier: Who, slot: usize) -> usize {
        let worker = pair.market.suppliers.get(&supplier).and_then(|books| books.slots.get(slot)?.as_ref());
        let any = self.key(supplier);
        if self.one_in(10) { any } else { worker.map_or(any, |worker| worker.key) }
    }

    fn order(&mut self, pair: &Pair) -> OrderId {
        let all: Vec<OrderId> = pair.market.orders.keys().copied().collect();
        let any = (self.below(STRANGER), self.below(NONCES) as u64);
        if self.one_in(20) { any } else { self.pick(&all).unwrap_or(any) }
    }

    fn lease(&mut self, pair: &Pair, order: OrderId) -> LeaseId {
        let open = pair.market.orders.get(&order).into_iter().flat_map(|order| &order.leases);
        let open: Vec<u16> = open.filter(|(_, lease)| !lease.closed).map(|(n, _)| *n).collect();
        (order, if self.one_in(20) { 9 } else { self.pick(&open).unwrap_or(0) })
    }

    /// An order that still lacks devices.
    fn lacking(&mut self, pair: &Pair) -> Option<OrderId> {
        let lacking = pair.market.orders.iter().filter(|(_, books)| books.open > 0);
        let lacking: Vec<OrderId> = lacking.map(|(id, _)| *id).collect();
        self.pick(&lacking)
    }

    /// Devices of a slot, mostly free ones, as many as the order lacks.
    fn mask(&mut self, pair: &Pair, order: OrderId, (supplier, slot): (Who, usize)) -> u16 {
        let any = u16::try_from(self.below(64)).expect("few");
        let worker = pair.market.suppliers.get(&supplier).and_then(|books| books.slots.get(slot)?.as_ref());
        let Some(worker) = worker.filter(|_| !self.one_in(10)) else { return any };
        let open = pair.market.orders.get(&order).map_or(0, |books| books.open);
        let free = if self.one_in(3) { u16::MAX } else { !pair.market.leased(supplier, slot) };
        let mut mask = 0u16;
        for device in (0..worker.devices).filter(|device| free & (1 << device) != 0) {
            if mask.count_ones() < open && !self.one_in(4) {
                mask |= 1 << device;
            }
        }
        mask
    }

    fn ask(&mut self) -> u128 {
        // The last: what is paid soon is more than the stake.
        u128::from([ASK, ASK, ASK, ASK + 1_000, 2 * ASK, 20_000 * ASK][self.below(6)])
    }

    fn amount(&mut self) -> u128 {
        let stake = u128::from(STAKE);
        [0, 1, 7, stake / 3, stake, 2 * stake, 3 * stake + 1][self.below(7)]
    }

    fn supply(&mut self, pair: &Pair) -> (&'static str, Act) {
        let supplier = self.supplier();
        let slot = self.slot(pair, supplier);
        match self.below(40) {
            0..22 => {
                let (key, ask) = (self.key(supplier), self.ask());
                let devices = u8::try_from(self.below(6)).expect("few");
                ("register_worker", Act::Register { supplier, key, devices, ask })
            }
            22..25 => ("set_ask", Act::Ask { supplier, slot, ask: self.ask() }),
            25 | 26 => ("drain", Act::Drain { supplier, slot, on: self.one_in(3) }),
            27..31 => ("resume", Act::Resume { supplier, slot, by_device: !self.one_in(5) }),
            31 => {
                let old = self.key_in(pair, supplier, slot);
                ("rotate_device_key", Act::Rotate { supplier, slot, old, new: self.key(supplier) })
            }
            // Mostly who was slashed, and serves nobody.
            32..35 => {
                let books = pair.market.suppliers.get(&supplier);
                let slashed = |books: &Supplier| {
                    books.slots.iter().position(|worker| worker.as_ref().is_some_and(|worker| worker.slashed))
                };
                let ruin = books.and_then(slashed);
                let slot = if self.one_in(4) { slot } else { ruin.unwrap_or(usize::MAX >> 48) };
                ("retire_worker", Act::Retire { supplier, slot, key: self.key_in(pair, supplier, slot) })
            }
            35..38 => ("close_device_key", Act::CloseKey { supplier, key: self.key(supplier) }),
            _ => ("set_feed", Act::Feed { uusd_per_atl: u128::from([FEED, FEED / 2, 3 * FEED + 1][self.below(3)]) }),
        }
    }

    fn stake(&mut self, pair: &Pair) -> (&'static str, Act) {
        let (supplier, amount) = (self.supplier(), self.amount());
        let n = u16::try_from(self.below(3)).expect("few");
        let short = pair
            .market
            .suppliers
            .get(&supplier)
            .map_or(0, |books| books.required(STAKE.into()).saturating_sub(books.own + books.costake));
        match self.below(30) {
            0..8 => ("stake", Act::Stake { supplier, amount }),
            8..20 => ("stake", Act::Stake { supplier, amount: short }),
            20 => ("unstake_request", Act::Unstake { supplier, amount }),
            21 => ("unstake_withdraw", Act::WithdrawStake { supplier }),
            22 => ("costake_offer", Act::Offer { supplier, n, amount }),
            23..26 => {
                let books = pair.market.suppliers.get(&supplier).and_then(|books| books.offers.get(&n));
                let amount = if self.one_in(5) { amount } else { books.map_or(0, |offer| offer.amount) };
                ("costake_accept", Act::Accept { supplier, n, staker: self.wallet(), amount })
            }
            26..29 => ("costake_exit", Act::Exit { supplier, n, by: self.wallet() }),
            // A supplier that never staked has no vault, and a case against it waits until there is one.
            _ => {
                let staked = pair.market.suppliers.get(&supplier).is_some_and(|books| books.staked() > 0);
                if !staked {
                    return ("stake", Act::Stake { supplier, amount });
                }
                let slot = self.slot(pair, supplier);
                let key = self.key_in(pair, supplier, slot);
                let orders = pair.market.orders.iter();
                let leases =
                    orders.flat_map(|(order, books)| books.leases.iter().map(|(n, lease)| (*order, *n, lease)));
                let at = pair.market.suppliers.get(&supplier).and_then(|books| {
                    books.slots.iter().position(|worker| worker.as_ref().is_some_and(|worker| worker.key == key))
                });
                let holding = leases
                    .filter(|(_, _, lease)| lease.supplier == supplier && at.is_some_and(|slot| lease.holds(slot)));
                let holding: Vec<LeaseId> = holding.map(|(order, n, _)| (order, n)).collect();
                let lease = self.pick(&holding);
                ("fraud", Act::Slash { supplier, key, lease, opener: self.wallet() })
            }
        }
    }

    fn rent(&mut self, pair: &Pair) -> (&'static str, Act) {
        let order = self.order(pair);
        match self.below(20) {
            0..3 => {
                let order = (self.below(STRANGER), self.below(NONCES) as u64);
                let few = |actors: &mut Self, end| u32::try_from(actors.below(end)).expect("few");
                let devices = few(self, 5) + u32::from(!self.one_in(5));
                let min = few(self, 5).min(devices).max(u32::from(!self.one_in(9)));
                let per_worker = if self.one_in(3) { few(self, 4) } else { 0 };
                let duration_s = [100, 300, 1_000][self.below(3)];
                let ask_max = 2 * self.ask();
                ("post_order", Act::Post { order, devices, min, per_worker, ask_max, duration_s, fill_s: 60 })
            }
            3..10 => {
                let order = self.lacking(pair).unwrap_or(order);
                let supplier = self.supplier();
                let first = self.slot(pair, supplier);
                let slots = (first..=first + usize::from(self.one_in(4))).collect();
                let mask = self.mask(pair, order, (supplier, first));
                let by_solver = !self.one_in(5);
                ("fill_order", Act::Fill { order, supplier, slots, mask, by_solver })
            }
            10 | 11 => {
                let seconds = [0, 1, 50, 400][self.below(4)];
                let fee_bps = pair.market.terms.fee_bps;
                let price = pair.market.orders.get(&order).map_or(0, |books| books.extension(seconds, fee_bps));
                let by = if self.one_in(10) { self.wallet() } else { order.0 };
                ("extend_order", Act::Extend { order, seconds, escrow: price + u128::from(self.one_in(10)), by })
            }
            12 | 13 => {
                let orders = pair.market.orders.iter();
                let leases =
                    orders.flat_map(|(id, books)| books.leases.iter().map(move |(n, lease)| (*id, *n, lease, books)));
                let short: Vec<LeaseId> = leases
                    .filter(|(.., lease, books)| lease.live() > 0 && lease.end < books.end())
                    .map(|(id, n, ..)| (id, n))
                    .collect();
                let any = self.lease(pair, order);
                ("extend_lease", Act::Follow { lease: self.pick(&short).unwrap_or(any) })
            }
            _ => self.release(pair, order),
        }
    }

    fn release(&mut self, pair: &Pair, order: OrderId) -> (&'static str, Act) {
        let lease = self.lease(pair, order);
        let books = pair.market.orders.get(&order).and_then(|books| books.leases.get(&lease.1));
        let held: Vec<usize> = books.into_iter().flat_map(|lease| lease.held()).collect();
        let one = self.pick(&held).unwrap_or(0);
        let slots = if self.one_in(3) && !held.is_empty() { held } else { vec![one + usize::from(self.one_in(20))] };
        let reasons = [Reason::Leave, Reason::Reclaim, Reason::Lost, Reason::Done, Reason::Expired];
        let reason = reasons[self.below(5)];
        let right = match reason {
            Reason::Leave | Reason::Reclaim => [By::Supplier, By::Device(one)][self.below(2)],
            Reason::Lost | Reason::Done => [By::Renter, By::Solver][self.below(2)],
            Reason::Expired => By::Stranger,
        };
        let any = [By::Supplier, By::Device(one), By::Renter, By::Solver, By::Stranger][self.below(5)];
        let by = if self.one_in(6) { any } else { right };
        let effective_at = pair.market.now + [-20, -1, 0, 5, i64::MAX / 2][self.below(5)];
        ("release_lease", Act::Release { lease, slots, reason, by, effective_at })
    }

    fn settle(&mut self, pair: &Pair) -> Option<(&'static str, Act)> {
        let order = self.order(pair);
        Some(match self.below(14) {
            12 | 13 => return self.cosign(pair),
            0..5 => {
                let leaves = pair.leaves();
                let (lease, device_seconds, until) = self.pick(&leaves)?;
                ("settle_lease", Act::Settle { lease, device_seconds, until })
            }
            5 => ("withdraw_owed", Act::Withdraw { lease: self.lease(pair, order) }),
            6..8 => ("close_lease", Act::CloseLease { lease: self.lease(pair, order) }),
            8..10 => ("collect_fees", Act::Collect { order }),
            _ => {
                let now = self.one_in(6);
                let by = if now { [By::Renter, By::Solver][self.below(2)] } else { By::Stranger };
                ("close_order", Act::CloseOrder { order, by })
            }
        })
    }

    /// Renter and worker settle a lease of which nothing was attested for long, sometimes any other, or wrongly.
    fn cosign(&mut self, pair: &Pair) -> Option<(&'static str, Act)> {
        let now = pair.market.now;
        let orders = pair.market.orders.iter();
        let leases = orders.flat_map(|(id, books)| books.leases.iter().map(move |(n, lease)| ((*id, *n), lease)));
        let open: Vec<(LeaseId, &Lease)> = leases.filter(|(_, lease)| !lease.closed).collect();
        let silent: Vec<(LeaseId, &Lease)> = open
            .iter()
            .copied()
            .filter(|(_, lease)| lease.cap(now) > lease.paid && lease.silent(now, i64::from(STALL_S)))
            .collect();
        let any = self.pick(&open)?;
        let (lease, books) = self.pick(&silent).filter(|_| !self.one_in(5)).unwrap_or(any);
        let held = books.held().next().unwrap_or(0);
        let slot = if self.one_in(6) { self.slot(pair, books.supplier) } else { held };
        let (cap, paid) = (books.cap(now), books.paid);
        let device_seconds = [cap, cap, cap, paid + cap.saturating_sub(paid) / 2, paid, cap + 1][self.below(6)];
        let until = now + [0, 0, 0, -1, -1_000, 1][self.below(6)];
        Some(("settle_cosigned", Act::Cosign { lease, device_seconds, until, slot }))
    }

    /// Attestors say of every open lease all that it can have served, a part, nothing new, or more than it can.
    fn attest(&mut self, pair: &mut Pair) {
        let now = pair.market.now;
        let orders = pair.market.orders.iter();
        let leases = orders.flat_map(|(order, books)| books.leases.iter().map(|(n, lease)| ((*order, *n), lease)));
        let open: Vec<(LeaseId, u128, u128)> =
            leases.filter(|(_, lease)| !lease.closed).map(|(id, lease)| (id, lease.cap(now), lease.paid)).collect();
        let mut say = |cap: u128, paid: u128| match self.below(12) {
            0..8 => cap,
            8 => paid + (cap - paid) / 2,
            9 => paid,
            10 => cap + 1_000_000,
            _ => paid.saturating_sub(1),
        };
        let says: Vec<(LeaseId, u128)> = open.into_iter().map(|(id, cap, paid)| (id, say(cap, paid))).collect();
        pair.attest(&says);
    }

    fn step(&mut self, pair: &mut Pair) {
        let drawn = match self.below(40) {
            0 => return self.attest(pair),
            1..4 => {
                let seconds = if self.one_in(30) { 1_000 } else { [1, 1, 2, 5, 30][self.below(5)] };
                return pair.wait(seconds);
            }
            4..9 => Some(self.supply(pair)),
            9..13 => Some(self.stake(pair)),
            13..30 => Some(self.rent(pair)),
            _ => self.settle(pair),
        };
        if let Some((name, act)) = drawn {
            pair.act(name, &act);
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

type Tally = BTreeMap<&'static str, (u64, u64)>;

fn world(seed: u64) -> (u64, Tally) {
    let (mut pair, mut actors) = (Pair::new(), Actors { rng: Rng::new(seed) });
    while pair.sent < WORLD {
        actors.step(&mut pair);
    }
    (pair.sent, pair.tally)
}

#[test]
fn random_sequences_end_as_the_reference_says() {
    let steps = number("ATOLL_MODEL_STEPS").unwrap_or(10_000);
    let first = number("ATOLL_MODEL_SEED").unwrap_or_default();
    let (mut sent, mut tally) = (0, Tally::new());
    let together = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let mut seed = first;
    while sent < steps {
        let start = |seed: u64| {
            // A thread's name stands before what it panics with.
            let builder = std::thread::Builder::new().name(format!("ATOLL_MODEL_SEED={seed}"));
            builder.spawn(move || world(seed)).expect("a thread starts")
        };
        let worlds: Vec<_> = (seed..seed + together).map(start).collect();
        seed += together;
        for world in worlds {
            let (more, acts) = world.join().expect("a world ends as the reference says");
            sent += more;
            for (name, (through, refused)) in acts {
                let sum = tally.entry(name).or_default();
                *sum = (sum.0 + through, sum.1 + refused);
            }
        }
    }
    println!("{sent} instructions, seeds {first}..{seed}\n{:<18} {:>9} {:>9}", "", "through", "refused");
    for (name, (through, refused)) in &tally {
        println!("{name:<18} {through:>9} {refused:>9}");
    }
    let idle: Vec<_> = tally.iter().filter(|(_, sum)| sum.0 == 0).map(|(name, _)| name).collect();
    assert!(idle.is_empty(), "these never went through: {idle:?}");
    assert!(tally.len() >= 25, "only these were drawn: {:?}", tally.keys());
}
