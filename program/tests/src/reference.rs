//! The program's bytes and the reference of `atoll_domain::model` side by side: what one takes the other takes, and after
//! every act all balances, books and masks are the same.

use crate::{
    Call, Party, Refusal, World,
    calls::{Attested, CPU, EPOCH_S, FEED, HOLD_S, OPEN_S, STAKE, STALL_S, catalogue, config},
    frauds::Answer,
    stakes::{EXIT_WAIT_S, UNBOND_S, device_key, rule_values, rules},
    world::{PURSE, pda},
};
use atoll_domain::model::{Act, By, Lease as ModelLease, LeaseId, Market, Order as ModelOrder, OrderId, Terms, Who};
use atoll_interface::{
    Address, Hashes, instruction as ix,
    layout::{
        DEVICE_SLASHED, DeviceKey, FleetPage, Lease, ORDER_STOPPED, Order, Record as _, SLOT_DRAINING, SLOT_SLASHED,
        SLOT_SUSPENDED, SLOT_USED, Slot, Table as _,
    },
    merkle::Leaf,
    seeds,
    settlement::Reason,
};
use std::collections::BTreeMap;

/// Wallets: each may supply, rent, co-stake and accuse.
pub const WALLETS: usize = 7;
/// Of these the first are those that register workers.
pub const SUPPLIERS: usize = 3;
/// Device keys of each supplier.
pub const KEYS: usize = 10;
/// The last wallet rents nothing: no right to any order or lease is its own.
pub const STRANGER: Who = WALLETS - 1;

struct Wallet {
    address: Address,
    purse: Address,
    page: Address,
    vault: Address,
}

/// A leaf under a root that pays, and its lease.
struct Said {
    tree: usize,
    at: usize,
    lease: LeaseId,
    leaf: Leaf,
}

/// One chain and the reference beside it.
pub struct Pair {
    pub world: World,
    pub market: Market,
    wallets: Vec<Wallet>,
    keys: Vec<Address>,
    /// Accounts of the keys.
    key_accounts: Vec<Address>,
    addresses: BTreeMap<OrderId, (Address, Address)>,
    leases: BTreeMap<(Who, LeaseId), Address>,
    trees: Vec<Attested>,
    said: Vec<Said>,
    supply: u64,
    seed: u8,
    /// Acts that went through and that were refused, by name.
    pub tally: BTreeMap<&'static str, (u64, u64)>,
    /// Instructions sent.
    pub sent: u64,
}

fn terms() -> Terms {
    let rules = rule_values();
    Terms {
        fee_bps: 25,
        stake_per_device: STAKE.into(),
        open_s: OPEN_S.into(),
        stall_s: STALL_S.into(),
        unbond_s: UNBOND_S,
        exit_wait_s: EXIT_WAIT_S,
        bounty_bps: rules.bounty_bps.into(),
        bounty_max: rules.bounty_max.into(),
    }
}

fn small(amount: u128) -> u64 {
    u64::try_from(amount).expect("the reference stays within 64 bits here")
}

/// First slot and bitmap of some slots, ascending.
fn bits(slots: &[usize]) -> (u16, Vec<u8>) {
    let first = slots.iter().copied().min().unwrap_or(0);
    let last = slots.iter().copied().max().unwrap_or(0);
    let mut bytes = vec![0; (last - first) / 8 + 1];
    for slot in slots {
        bytes[(slot - first) / 8] |= 1 << ((slot - first) % 8);
    }
    (u16::try_from(first).expect("a slot's number"), bytes)
}

impl Pair {
    pub fn new() -> Self {
        let mut world = World::new();
        let wallets: Vec<Wallet> = (0..WALLETS)
            .map(|who| {
                let address = world.key(&format!("wallet{who}"));
                let page = pda(&seeds::page(&address, &[0, 0]));
                Wallet { address, purse: world.purse(address), page, vault: pda(&seeds::stake_vault(&page)) }
            })
            .collect();
        let keys: Vec<Address> = (0..SUPPLIERS * KEYS).map(|key| world.poor_key(&format!("device{key}"))).collect();
        let key_accounts = keys.iter().map(|key| device_key(*key)).collect();
        let mut market = Market::new(terms(), world.now(), WALLETS, PURSE.into());
        market.feed = FEED.into();
        let supply = world.supply();
        Self {
            world,
            market,
            wallets,
            keys,
            key_accounts,
            addresses: BTreeMap::new(),
            leases: BTreeMap::new(),
            trees: vec![],
            said: vec![],
            supply,
            seed: 0,
            tally: BTreeMap::new(),
            sent: 0,
        }
    }

    /// Time passes.
    pub fn wait(&mut self, seconds: i64) {
        self.world.wait(seconds);
        self.market.now = self.world.now();
    }

    /// Leaves that were attested and may be settled, the oldest first.
    pub fn leaves(&self) -> Vec<(LeaseId, u128, i64)> {
        let all = self.said.iter();
        all.map(|said| (said.lease, said.leaf.device_seconds.into(), said.leaf.until)).collect()
    }

    /// Lets attestors say some device-seconds of some leases up to now; forgets all but the last three roots.
    pub fn attest(&mut self, says: &[(LeaseId, u128)]) {
        let until = self.world.now();
        let leaf = |&(id, seconds): &(LeaseId, u128)| {
            let (supplier, _) = self.lease(id)?;
            let lease = *self.leases.get(&(supplier, id))?;
            Some((id, Leaf { lease, device_seconds: small(seconds), until, flags: 0, slots_root: [0; 32] }))
        };
        let leaves: Vec<(LeaseId, Leaf)> = says.iter().filter_map(leaf).collect();
        if leaves.is_empty() {
            return self.wait(i64::from(EPOCH_S + HOLD_S));
        }
        let only: Vec<Leaf> = leaves.iter().map(|(_, leaf)| *leaf).collect();
        let tree = self.trees.len();
        let attested = self.world.attest(&only);
        self.trees.push(attested);
        self.said.retain(|said| said.tree + 3 > tree);
        self.said.extend(leaves.into_iter().enumerate().map(|(at, (lease, leaf))| Said { tree, at, lease, leaf }));
        self.sent += 1;
        self.market.now = self.world.now();
    }

    fn lease(&self, (order, n): LeaseId) -> Option<(Who, &ModelLease)> {
        let lease = self.market.orders.get(&order)?.leases.get(&n)?;
        Some((lease.supplier, lease))
    }

    fn party(&self, supplier: Who, (renter, nonce): OrderId) -> Party {
        let (supplier, renter) = (&self.wallets[supplier], &self.wallets[renter]);
        Party {
            renter: renter.address,
            purse: renter.purse,
            supplier: supplier.address,
            supplier_purse: supplier.purse,
            devices: vec![],
            page: supplier.page,
            session: [0; 32],
            nonce,
            mint: self.world.mint,
            treasury: self.world.treasury,
            node: self.world.node,
        }
    }

    fn of(&self, supplier: Who) -> Party {
        self.party(supplier, (STRANGER, 0))
    }

    /// The party of a lease; of one that there is not, the first supplier's.
    fn of_lease(&self, id: LeaseId) -> Party {
        self.party(self.lease(id).map_or(0, |(supplier, _)| supplier), id.0)
    }

    fn authority(&self, by: By, party: &Party) -> Address {
        match by {
            By::Supplier => party.supplier,
            By::Device(slot) => self.device(party, slot),
            By::Renter => party.renter,
            By::Solver => self.world.node,
            By::Stranger => self.wallets[STRANGER].address,
        }
    }

    /// Key of the worker in a slot; the stranger's where there is none.
    fn device(&self, party: &Party, slot: usize) -> Address {
        let who = self.wallets.iter().position(|wallet| wallet.page == party.page);
        let worker = who.and_then(|who| self.market.suppliers.get(&who)?.slots.get(slot)?.as_ref());
        worker.map_or(self.wallets[STRANGER].address, |worker| self.keys[worker.key])
    }

    fn register(&self, supplier: Who, key: usize, devices: u8, ask: u128) -> Call {
        let (wallet, device) = (&self.wallets[supplier], self.keys[key]);
        let accounts = ix::RegisterWorkerAccounts {
            supplier: wallet.address,
            device,
            config: config(),
            catalogue: catalogue(),
            page: wallet.page,
            first_page: wallet.page,
            device_key: device_key(device),
        };
        let ask_uusd = small(ask);
        let data =
            ix::RegisterWorker { page_no: 0, model: CPU, region: 1, devices, class: 1, ask_uusd, lease_s_max: 0 };
        Call::new("register_worker", &accounts.metas(), data.encode().expect("it fits"))
    }

    /// The call of an act; a case's is its first.
    fn call(&self, act: &Act) -> Call {
        let number = |slot: usize| u16::try_from(slot).expect("a slot's number");
        match *act {
            Act::Feed { uusd_per_atl } => self.world.set_feed(small(uusd_per_atl)),
            Act::Register { supplier, key, devices, ask } => self.register(supplier, key, devices, ask),
            Act::Ask { supplier, slot, ask } => {
                let party = self.of(supplier);
                party.set_ask(party.supplier, number(slot), ix::ASK, small(ask))
            }
            Act::Drain { supplier, slot, on } => {
                let party = self.of(supplier);
                party.set_ask(party.supplier, number(slot), if on { ix::DRAIN } else { ix::UNDRAIN }, 0)
            }
            Act::Resume { supplier, slot, by_device } => {
                let party = self.of(supplier);
                let authority = if by_device { self.device(&party, slot) } else { party.supplier };
                party.set_ask(authority, number(slot), ix::RESUME, 0)
            }
            Act::Rotate { supplier, slot, old, new } => {
                self.of(supplier).rotate(number(slot), self.keys[old], self.keys[new])
            }
            Act::Retire { supplier, slot, key } => self.of(supplier).retire(number(slot), self.keys[key]),
            Act::CloseKey { supplier, key } => self.of(supplier).close_device_key(0, self.keys[key]),
            Act::Stake { supplier, amount } => self.of(supplier).stake(small(amount)),
            Act::Unstake { supplier, amount } => self.of(supplier).unstake(small(amount)),
            Act::WithdrawStake { supplier } => self.of(supplier).unstake_withdraw(),
            Act::Offer { supplier, n, amount } => self.of(supplier).offer(n, small(amount)),
            Act::Accept { supplier, n, staker, amount } => {
                let staker = &self.wallets[staker];
                self.of(supplier).accept_as(staker.address, staker.purse, n, small(amount))
            }
            Act::Exit { supplier, n, by } => {
                let (party, by) = (self.of(supplier), self.wallets[by].address);
                let paid = self.market.suppliers.get(&supplier).and_then(|books| books.last_step(n));
                match paid {
                    Some((staker, 1..)) => {
                        party.exit_to(by, n, self.wallets[supplier].vault, self.wallets[staker].purse)
                    }
                    _ => party.exit(by, n),
                }
            }
            Act::Slash { supplier, key, lease, opener } => {
                let answer = self.answer(key);
                let party = lease.map_or_else(|| self.of(supplier), |lease| self.party(supplier, lease.0));
                party.open_fraud(&self.world, self.wallets[opener].address, &answer, lease.map(|lease| lease.1))
            }
            Act::Post { order, devices, min, per_worker, ask_max, duration_s, fill_s } => {
                let party = self.party(0, order);
                party.post_with(&ix::PostOrder {
                    devices_min: min,
                    devices_per_worker: u8::try_from(per_worker).expect("few"),
                    price_cap_uusd: small(ask_max),
                    duration_s: u32::try_from(duration_s).expect("some seconds"),
                    fill_s: u32::try_from(fill_s).expect("some seconds"),
                    ..party.terms(devices)
                })
            }
            Act::Fill { order, supplier, ref slots, mask, by_solver } => {
                let party = self.party(supplier, order);
                let made = self.market.orders.get(&order).map_or(0, |order| order.leases.len());
                let (first_slot, bits) = bits(slots);
                let path = Hashes::new(&[]);
                let data = ix::FillOrder {
                    mask,
                    ask_max: u64::MAX,
                    first_slot,
                    bits: &bits,
                    group_index: 0,
                    group_path: path,
                };
                party.fill_as(
                    self.authority(if by_solver { By::Solver } else { By::Stranger }, &party),
                    number(made),
                    &data,
                )
            }
            Act::Extend { order, seconds, escrow, by } => {
                let by = &self.wallets[by];
                let party = Party { purse: by.purse, ..self.party(0, order) };
                party.extend_order(by.address, u32::try_from(seconds).expect("some seconds"), small(escrow))
            }
            Act::Follow { lease } => self.of_lease(lease).extend_lease(lease.1),
            Act::Release { lease, ref slots, reason, by, effective_at } => {
                let party = self.of_lease(lease);
                let (first, bits) = bits(slots);
                let reason = Reason::from_number(reason as u8 + 1).expect("the same reasons in the same order");
                party.release_at(self.authority(by, &party), lease.1, reason, first, &bits, effective_at)
            }
            Act::Settle { lease, device_seconds, until } => {
                let same = |said: &&Said| {
                    said.lease == lease
                        && u128::from(said.leaf.device_seconds) == device_seconds
                        && said.leaf.until == until
                };
                let said = self.said.iter().find(same).expect("a leaf that was attested");
                self.trees[said.tree].settle(said.at, self.party(0, lease.0).order())
            }
            Act::Cosign { lease, device_seconds, until, slot } => {
                let party = self.of_lease(lease);
                let said = party.usage(&self.world, lease.1, small(device_seconds), until).message();
                let check = self.world.check(&self.device(&party, slot), &said);
                Call { checks: vec![check], ..party.cosign_by(party.renter, lease.1, number(slot)) }
            }
            Act::Withdraw { lease } => self.of_lease(lease).withdraw(lease.1),
            Act::CloseLease { lease } => self.of_lease(lease).close_lease(lease.1),
            Act::Collect { order } => self.party(0, order).collect(),
            Act::CloseOrder { order, by } => {
                let party = self.party(0, order);
                party.close_order(self.authority(by, &party))
            }
        }
    }

    fn answer(&self, key: usize) -> Answer {
        Answer::with_wrong(&self.world, self.keys[key], self.seed, &[(0, 0), (5, 6), (31, 31)])
    }

    /// Sends the rest of a case that was opened.
    fn prove(&mut self, act: &Act) {
        let Act::Slash { supplier, key, lease, opener } = *act else { return };
        let answer = self.answer(key);
        for place in [(0, 0), (5, 6), (31, 31)] {
            self.world.must(&answer.show(place, None));
        }
        // Which account to name, as a client finds out.
        let mut page: FleetPage = self.world.read(self.wallets[supplier].page);
        let slash = page.slash_device(&self.world.read(answer.case()), &self.world.read(rules())).expect("it fits");
        let refund = lease.filter(|_| slash.refund > 0).map(|lease| self.wallets[lease.0.0].purse);
        let execute = self.of(supplier).execute_slash(self.wallets[opener].address, &answer, refund);
        self.world.must(&execute);
        self.seed = self.seed.wrapping_add(1);
        self.sent += 4;
    }

    /// Does one act on both, and compares.
    ///
    /// # Panics
    /// Where they differ.
    pub fn act(&mut self, name: &'static str, act: &Act) {
        let call = self.call(act);
        let wanted = self.market.act(act);
        let got = self.world.send(&call);
        self.sent += 1;
        let tally = self.tally.entry(name).or_default();
        match (&wanted, &got) {
            (Ok(()), Ok(_)) => tally.0 += 1,
            (Err(_), Err(Refusal::Market(_))) => tally.1 += 1,
            _ => panic!("{act:?}\nthe reference says {wanted:?}, the program {got:?}"),
        }
        if got.is_ok() {
            self.prove(act);
            if let Act::Fill { order, supplier, .. } = *act {
                let n = u16::try_from(self.market.orders[&order].leases.len() - 1).expect("few leases");
                let lease = self.party(supplier, order).lease(n);
                self.leases.insert((supplier, (order, n)), lease);
            }
        }
        if let Act::Post { order, .. } = *act {
            let party = self.party(0, order);
            self.addresses.entry(order).or_insert_with(|| (party.order(), party.vault()));
        }
        self.market.ripen();
        let differences = self.differences();
        assert!(differences.is_empty(), "after {act:?} ({wanted:?}):\n{}", differences.join("\n"));
        self.market.check().unwrap_or_else(|law| panic!("after {act:?}: {law}"));
    }

    /// Where chain and reference differ.
    fn differences(&self) -> Vec<String> {
        let mut found = Differences(vec![]);
        let (world, market) = (&self.world, &self.market);
        found.same("burned", u128::from(self.supply - world.supply()), market.burned);
        found.same("treasury", world.tokens(world.treasury).into(), market.treasury);
        for (who, wallet) in self.wallets.iter().enumerate() {
            found.same(&format!("wallet {who}"), world.tokens(wallet.purse).into(), market.wallets[who]);
            let books = market.suppliers.get(&who);
            match (world.data(wallet.page), books) {
                (None, None) => {}
                (Some(data), Some(_)) => self.supplier(&mut found, who, &data),
                (chain, _) => found.same(&format!("page of {who}"), chain.is_some(), books.is_some()),
            }
        }
        for (id, (order, _)) in &self.addresses {
            match (world.data(*order), market.orders.get(id)) {
                (None, None) => {}
                (Some(_), Some(books)) => self.order(&mut found, *id, books),
                (chain, books) => found.same(&format!("order {id:?}"), chain.is_some(), books.is_some()),
            }
        }
        for (key, address) in self.key_accounts.iter().enumerate() {
            let chain = world.data(*address).map(|data| DeviceKey::read(&data).expect("a device key"));
            let chain = chain.map(|key| (key.retired_at, key.flags & DEVICE_SLASHED != 0));
            let books = market.keys.get(&key).map(|key| (key.retired_at.unwrap_or(0), key.slashed));
            found.same(&format!("key {key}"), chain, books);
        }
        found.0
    }

    fn supplier(&self, found: &mut Differences, who: Who, data: &[u8]) {
        let (world, books) = (&self.world, &self.market.suppliers[&who]);
        let page = FleetPage::read(data).expect("a page");
        let chain = [page.own, page.unbonding, page.costake, page.costake_leaving, page.required].map(u128::from);
        let required = books.required(STAKE.into());
        let wanted = [books.own, books.unbonding, books.costake, books.leaving, required];
        found.same(&format!("stake of {who}"), chain, wanted);
        found.same(&format!("vault of {who}"), world.tokens(self.wallets[who].vault).into(), books.staked());
        found.same(&format!("slots of {who}"), usize::from(page.slot_count), books.slots.len());
        for (number, worker) in books.slots.iter().enumerate() {
            let Some(slot) = FleetPage::read_row(data, number).expect("a page") else { continue };
            let flags = |slot: &Slot| [SLOT_DRAINING, SLOT_SUSPENDED, SLOT_SLASHED].map(|flag| slot.flags & flag != 0);
            let chain = (slot.flags & SLOT_USED != 0).then(|| (u128::from(slot.ask_uusd), slot.devices, flags(&slot)));
            let wanted = worker
                .as_ref()
                .map(|worker| (worker.ask, worker.devices, [worker.draining, worker.suspended, worker.slashed]));
            found.same(&format!("slot {number} of {who}"), chain, wanted);
            found.same(&format!("mask of slot {number} of {who}"), slot.leased_mask, self.market.leased(who, number));
        }
    }

    fn order(&self, found: &mut Differences, id: OrderId, books: &ModelOrder) {
        let (world, now, fee_bps) = (&self.world, self.market.now, self.market.terms.fee_bps);
        let (address, vault) = self.addresses[&id];
        let mut order: Order = world.read(address);
        order.ripen(now);
        let chain = [order.escrow, order.fees, order.owed, world.tokens(vault)].map(u128::from);
        let wanted = [books.escrow(fee_bps), books.fees(fee_bps), books.owed(fee_bps), books.vault(fee_bps)];
        found.same(&format!("money of order {id:?}"), chain, wanted);
        let chain =
            (order.devices_open, order.devices_live, order.flags & ORDER_STOPPED != 0, order.active_at, order.end);
        let wanted = (books.open, books.live(), books.stopped, books.active_at.unwrap_or(0), books.end());
        found.same(&format!("state of order {id:?}"), chain, wanted);
        for (n, lease) in &books.leases {
            let at = self.leases[&(lease.supplier, (id, *n))];
            if lease.closed {
                found.same(&format!("closed lease {n} of {id:?}"), world.data(at), None);
                continue;
            }
            let mut chain: Lease = world.read(at);
            chain.begin(&order);
            let cap = chain.cap(now).expect("it fits");
            let chain = ([chain.device_seconds_paid, chain.owed, cap].map(u128::from), chain.start, chain.end);
            let wanted = ([lease.paid, lease.owed(fee_bps), lease.cap(now)], lease.start.unwrap_or(0), lease.end);
            found.same(&format!("lease {n} of {id:?}"), chain, wanted);
        }
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

struct Differences(Vec<String>);

impl Differences {
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, chain: T, books: T) {
        if chain != books {
            self.0.push(format!("{what}: the chain has {chain:?}, the reference {books:?}"));
        }
    }
}
