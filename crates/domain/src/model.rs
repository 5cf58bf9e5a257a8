//! The market as its rules say it: a reference that the program's real bytes are held against. Only tests use it.
//!
//! Written a second time on purpose, without the sums of `interface`: in 128 bits, with what is leased read off the leases,
//! and with an order's money computed from all that was served instead of booked step by step. It knows one device model,
//! one page a supplier and wallets only: neither budgets nor fill roots, nor the votes behind a leaf.

mod order;
mod stake;

use std::collections::BTreeMap;

pub use order::{By, Lease, Order, Reason};
pub use stake::{Key, Offer, Supplier, Worker};

/// Number of a wallet.
pub type Who = usize;
/// An order: its renter and the renter's number for it.
pub type OrderId = (Who, u64);
/// A lease: its order and its number there.
pub type LeaseId = (OrderId, u16);

/// Why an act is refused, in words for whoever looks at a difference.
pub type Refused = &'static str;

/// Parameters of the network. Times in seconds, amounts in base units.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Fee on each side, basis points.
    pub fee_bps: u128,
    /// Stake for each device.
    pub stake_per_device: u128,
    /// The solvers' exclusive time.
    pub open_s: i64,
    /// After which a lease closes without its last leaf.
    pub stall_s: i64,
    /// For which leaving stake stays slashable.
    pub unbond_s: i64,
    /// For which co-stake counts after its owner asked to leave.
    pub exit_wait_s: i64,
    /// Bounty, basis points of a slash.
    pub bounty_bps: u128,
    /// The highest bounty.
    pub bounty_max: u128,
}

/// What somebody does. Slots are of the supplier's page 0, amounts in base units, times Unix seconds.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is the instruction of its name, and its fields are that one's")]
pub enum Act {
    Feed {
        uusd_per_atl: u128,
    },
    Register {
        supplier: Who,
        key: usize,
        devices: u8,
        ask: u128,
    },
    Ask {
        supplier: Who,
        slot: usize,
        ask: u128,
    },
    Drain {
        supplier: Who,
        slot: usize,
        on: bool,
    },
    /// By the slot's own device key, or by the wallet, which may not.
    Resume {
        supplier: Who,
        slot: usize,
        by_device: bool,
    },
    Rotate {
        supplier: Who,
        slot: usize,
        old: usize,
        new: usize,
    },
    Retire {
        supplier: Who,
        slot: usize,
        key: usize,
    },
    CloseKey {
        supplier: Who,
        key: usize,
    },
    Stake {
        supplier: Who,
        amount: u128,
    },
    Unstake {
        supplier: Who,
        amount: u128,
    },
    WithdrawStake {
        supplier: Who,
    },
    Offer {
        supplier: Who,
        n: u16,
        amount: u128,
    },
    Accept {
        supplier: Who,
        n: u16,
        staker: Who,
        amount: u128,
    },
    Exit {
        supplier: Who,
        n: u16,
        by: Who,
    },
    /// A whole case: opened by `opener` on what the key signs now, proven and executed.
    Slash {
        supplier: Who,
        key: usize,
        lease: Option<LeaseId>,
        opener: Who,
    },
    Post {
        order: OrderId,
        devices: u32,
        min: u32,
        per_worker: u32,
        ask_max: u128,
        duration_s: i64,
        fill_s: i64,
    },
    Fill {
        order: OrderId,
        supplier: Who,
        slots: Vec<usize>,
        mask: u16,
        by_solver: bool,
    },
    Extend {
        order: OrderId,
        seconds: i64,
        escrow: u128,
        by: Who,
    },
    Follow {
        lease: LeaseId,
    },
    Release {
        lease: LeaseId,
        slots: Vec<usize>,
        reason: Reason,
        by: By,
        effective_at: i64,
    },
    Settle {
        lease: LeaseId,
        device_seconds: u128,
        until: i64,
    },
    /// By the order's renter and the worker in `slot`.
    Cosign {
        lease: LeaseId,
        device_seconds: u128,
        until: i64,
        slot: usize,
    },
    Withdraw {
        lease: LeaseId,
    },
    CloseLease {
        lease: LeaseId,
    },
    Collect {
        order: OrderId,
    },
    /// By the renter, a solver, or a stranger.
    CloseOrder {
        order: OrderId,
        by: By,
    },
}

/// The whole market.
#[derive(Clone, Debug)]
pub struct Market {
    /// Parameters.
    pub terms: Terms,
    /// Chain time, Unix seconds.
    pub now: i64,
    /// Micro-USD per ATL.
    pub feed: u128,
    /// Base units ever minted.
    pub minted: u128,
    /// Base units ever burned.
    pub burned: u128,
    /// The treasury's balance.
    pub treasury: u128,
    /// Balance of each wallet.
    pub wallets: Vec<u128>,
    /// Who has workers or stake.
    pub suppliers: BTreeMap<Who, Supplier>,
    /// Device keys that have an account.
    pub keys: BTreeMap<usize, Key>,
    /// Orders that are not closed.
    pub orders: BTreeMap<OrderId, Order>,
    workers_made: u64,
}

impl Market {
    /// A market with nothing but wallets of `purse` base units each.
    #[must_use]
    pub fn new(terms: Terms, now: i64, wallets: usize, purse: u128) -> Self {
        let wallets = vec![purse; wallets];
        Self {
            terms,
            now,
            feed: 0,
            minted: wallets.iter().sum(),
            burned: 0,
            treasury: 0,
            wallets,
            suppliers: BTreeMap::new(),
            keys: BTreeMap::new(),
            orders: BTreeMap::new(),
            workers_made: 0,
        }
    }

    /// Does what somebody asks, or nothing.
    ///
    /// # Errors
    /// Why it is refused; nothing has changed then.
    pub fn act(&mut self, act: &Act) -> Result<(), Refused> {
        let mut next = self.clone();
        next.ripen();
        next.apply(act)?;
        *self = next;
        Ok(())
    }

    fn apply(&mut self, act: &Act) -> Result<(), Refused> {
        match *act {
            Act::Feed { uusd_per_atl } => {
                self.feed = uusd_per_atl;
                Ok(())
            }
            Act::Register { supplier, key, devices, ask } => self.register(supplier, key, devices, ask),
            Act::Ask { supplier, slot, ask } => self.worker(supplier, slot).map(|worker| worker.ask = ask),
            Act::Drain { supplier, slot, on } => self.worker(supplier, slot).map(|worker| worker.draining = on),
            Act::Resume { supplier, slot, by_device } => {
                let worker = self.worker(supplier, slot)?;
                by_device.then(|| worker.suspended = false).ok_or("only the device key resumes")
            }
            Act::Rotate { supplier, slot, old, new } => self.rotate(supplier, slot, old, new),
            Act::Retire { supplier, slot, key } => self.retire(supplier, slot, key),
            Act::CloseKey { supplier, key } => self.close_key(supplier, key),
            Act::Stake { supplier, amount } => self.stake(supplier, amount),
            Act::Unstake { supplier, amount } => self.unstake(supplier, amount),
            Act::WithdrawStake { supplier } => self.withdraw_stake(supplier),
            Act::Offer { supplier, n, amount } => self.offer(supplier, n, amount),
            Act::Accept { supplier, n, staker, amount } => self.accept(supplier, n, staker, amount),
            Act::Exit { supplier, n, by } => self.exit(supplier, n, by),
            Act::Slash { supplier, key, lease, opener } => self.slash(supplier, key, lease, opener),
            Act::Post { order, devices, min, per_worker, ask_max, duration_s, fill_s } => {
                self.post(order, (devices, min, per_worker), ask_max, (duration_s, fill_s))
            }
            Act::Fill { order, supplier, ref slots, mask, by_solver } => {
                self.fill(order, supplier, slots, mask, by_solver)
            }
            Act::Extend { order, seconds, escrow, by } => self.extend(order, seconds, escrow, by),
            Act::Follow { lease } => self.follow(lease),
            Act::Release { lease, ref slots, reason, by, effective_at } => {
                self.release(lease, slots, (reason, by), effective_at)
            }
            Act::Settle { lease, device_seconds, until } => self.settle(lease, device_seconds, until),
            Act::Cosign { lease, device_seconds, until, slot } => self.cosign(lease, device_seconds, until, slot),
            Act::Withdraw { lease } => self.withdraw(lease),
            Act::CloseLease { lease } => self.close_lease(lease),
            Act::Collect { order } => self.collect(order),
            Act::CloseOrder { order, by } => self.close_order(order, by),
        }
    }

    /// What must hold at any time.
    ///
    /// # Errors
    /// Which law is broken.
    pub fn check(&self) -> Result<(), String> {
        let orders: u128 = self.orders.values().map(|order| order.vault(self.terms.fee_bps)).sum();
        let stakes: u128 = self.suppliers.values().map(Supplier::staked).sum();
        let held = self.wallets.iter().sum::<u128>() + self.treasury + orders + stakes;
        if held + self.burned != self.minted {
            return Err(format!("{held} base units are held of {} minted and {} burned", self.minted, self.burned));
        }
        for (who, supplier) in &self.suppliers {
            for (slot, worker) in supplier.slots.iter().enumerate() {
                let masks = self.masks(*who, slot);
                let devices: u32 = masks.iter().map(|mask| mask.count_ones()).sum();
                let all = masks.iter().fold(0, |all, mask| all | mask);
                if devices != all.count_ones() {
                    return Err(format!("a device of slot {slot} of {who} is leased twice: {masks:?}"));
                }
                let has = worker.as_ref().map_or(0, |worker| worker.devices);
                if u32::from(all) >> has != 0 {
                    return Err(format!("slot {slot} of {who} leases devices that it does not have: {masks:?}"));
                }
            }
        }
        Ok(())
    }

    /// Masks of the leases that hold a slot.
    fn masks(&self, supplier: Who, slot: usize) -> Vec<u16> {
        let leases = self.orders.values().flat_map(|order| order.leases.values());
        let holding = leases.filter(|lease| lease.supplier == supplier && lease.holds(slot));
        holding.map(|lease| lease.mask).collect()
    }

    /// The devices of a slot that are leased, one bit each.
    #[must_use]
    pub fn leased(&self, supplier: Who, slot: usize) -> u16 {
        self.masks(supplier, slot).iter().fold(0, |all, mask| all | mask)
    }

    fn pay(&mut self, who: Who, amount: u128) {
        self.wallets[who] += amount;
    }

    fn take(&mut self, who: Who, amount: u128) -> Result<(), Refused> {
        self.wallets[who] = self.wallets[who].checked_sub(amount).ok_or("the wallet holds less")?;
        Ok(())
    }
}

/// Seconds from one time to a later one; none to an earlier one.
fn seconds(from: i64, to: i64) -> u128 {
    u128::try_from(to.saturating_sub(from)).unwrap_or(0)
}
