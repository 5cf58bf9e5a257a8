//! Workers, keys and stake.

use std::collections::BTreeMap;

use super::{LeaseId, Market, Refused, Who};

/// The slash index of a supplier that was never slashed.
const WHOLE: u128 = 1_000_000_000_000_000_000;
/// Below this index nobody co-stakes any more.
const INDEX_MIN: u128 = 1_000_000_000;
/// Offers that a supplier may have.
const OFFERS_MAX: u16 = 16;

/// One worker in its slot.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Its number among all that ever were: another key of it is still of it.
    pub id: u64,
    /// Its present key.
    pub key: usize,
    /// Devices.
    pub devices: u8,
    /// Micro-USD per device-hour.
    pub ask: u128,
    /// It takes no new lease.
    pub draining: bool,
    /// It was lost, and did not come back.
    pub suspended: bool,
    /// It was slashed.
    pub slashed: bool,
}

/// A device key's account.
#[derive(Clone, Debug)]
pub struct Key {
    /// Whose it is.
    pub supplier: Who,
    /// The worker that it is or was of.
    pub worker: u64,
    /// When it was retired.
    pub retired_at: Option<i64>,
    /// It was slashed.
    pub slashed: bool,
    /// Stake that its fault costs.
    pub stake: u128,
}

/// Where co-stake stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Offered,
    Held,
    Waiting,
    Leaving,
}

/// An offer of co-stake.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Base units, at the slash index of when it was written.
    pub amount: u128,
    index: u128,
    stage: Stage,
    staker: Who,
    until: i64,
}

/// A supplier: its page and what is staked for it.
#[derive(Clone, Debug)]
pub struct Supplier {
    /// Slots, used or free.
    pub slots: Vec<Option<Worker>>,
    /// Own stake.
    pub own: u128,
    /// Own stake on its way out.
    pub unbonding: u128,
    /// Co-stake that counts.
    pub costake: u128,
    /// Co-stake on its way out.
    pub leaving: u128,
    /// Offers of co-stake by number.
    pub offers: BTreeMap<u16, Offer>,
    unbond_at: i64,
    index: u128,
}

impl Default for Supplier {
    fn default() -> Self {
        Self {
            slots: vec![],
            own: 0,
            unbonding: 0,
            costake: 0,
            leaving: 0,
            offers: BTreeMap::new(),
            unbond_at: 0,
            index: WHOLE,
        }
    }
}

impl Supplier {
    /// Everything in its stake vault.
    #[must_use]
    pub const fn staked(&self) -> u128 {
        self.own + self.unbonding + self.costake + self.leaving
    }

    /// What its workers require.
    #[must_use]
    pub fn required(&self, stake_per_device: u128) -> u128 {
        self.slots.iter().flatten().map(|worker| u128::from(worker.devices) * stake_per_device).sum()
    }

    /// Takes up to `amount` from all parts alike; co-stake is rounded for the staker. Returns what was taken.
    fn cut(&mut self, amount: u128) -> u128 {
        let total = self.staked();
        let kept = total - amount.min(total);
        if kept == total {
            return 0;
        }
        self.index = self.index * kept / total;
        self.unbonding = self.unbonding * kept / total;
        self.costake = (self.costake * kept).div_ceil(total);
        self.leaving = (self.leaving * kept).div_ceil(total);
        self.own = kept.saturating_sub(self.unbonding + self.costake + self.leaving);
        total - self.staked()
    }

    /// Who is paid how much when an offer takes its last step; `None` before.
    #[must_use]
    pub fn last_step(&self, n: u16) -> Option<(Who, u128)> {
        let offer = self.offers.get(&n).filter(|offer| offer.stage == Stage::Leaving)?;
        Some((offer.staker, self.worth(offer)))
    }

    fn worth(&self, offer: &Offer) -> u128 {
        if offer.amount == 0 { 0 } else { offer.amount * self.index / offer.index }
    }

    fn forget(&mut self, n: u16) {
        self.offers.remove(&n);
        if self.offers.is_empty() {
            self.own += self.costake + self.leaving;
            (self.costake, self.leaving, self.index) = (0, 0, WHOLE);
        }
    }
}

impl Market {
    fn supplier(&mut self, who: Who) -> Result<&mut Supplier, Refused> {
        self.suppliers.get_mut(&who).ok_or("there is no such supplier")
    }

    pub(super) fn worker(&mut self, who: Who, slot: usize) -> Result<&mut Worker, Refused> {
        self.supplier(who)?.slots.get_mut(slot).and_then(Option::as_mut).ok_or("the slot holds no worker")
    }

    pub(super) fn register(&mut self, who: Who, key: usize, devices: u8, ask: u128) -> Result<(), Refused> {
        if self.keys.contains_key(&key) {
            return Err("the key is or was somebody's");
        }
        if !(1..=16).contains(&devices) {
            return Err("a worker has 1 to 16 devices");
        }
        let id = self.workers_made;
        self.workers_made += 1;
        let worker = Worker { id, key, devices, ask, draining: false, suspended: false, slashed: false };
        let slots = &mut self.suppliers.entry(who).or_default().slots;
        match slots.iter().position(Option::is_none) {
            Some(free) => slots[free] = Some(worker),
            None => slots.push(Some(worker)),
        }
        let stake = u128::from(devices) * self.terms.stake_per_device;
        self.keys.insert(key, Key { supplier: who, worker: id, retired_at: None, slashed: false, stake });
        Ok(())
    }

    pub(super) fn rotate(&mut self, who: Who, slot: usize, old: usize, new: usize) -> Result<(), Refused> {
        let now = self.now;
        let worker = self.worker(who, slot)?;
        if worker.key != old {
            return Err("the key is not of this worker");
        }
        worker.key = new;
        let record = self.keys.get_mut(&old).ok_or("there is no such key")?;
        if record.slashed {
            return Err("a slashed key is not replaced");
        }
        let next = record.clone();
        record.retired_at = Some(now);
        if self.keys.insert(new, next).is_some() {
            return Err("the new key is or was somebody's");
        }
        Ok(())
    }

    pub(super) fn retire(&mut self, who: Who, slot: usize, key: usize) -> Result<(), Refused> {
        if self.worker(who, slot)?.key != key {
            return Err("the key is not of this worker");
        }
        if self.leased(who, slot) != 0 {
            return Err("the worker is leased");
        }
        self.supplier(who)?.slots[slot] = None;
        self.keys.get_mut(&key).ok_or("there is no such key")?.retired_at = Some(self.now);
        Ok(())
    }

    pub(super) fn close_key(&mut self, who: Who, key: usize) -> Result<(), Refused> {
        let record = self.keys.get(&key).filter(|record| record.supplier == who).ok_or("it has no such key")?;
        let until = record.retired_at.ok_or("the key is in use")? + self.terms.unbond_s;
        if self.now < until {
            return Err("the key was retired too recently");
        }
        self.keys.remove(&key);
        Ok(())
    }

    pub(super) fn stake(&mut self, who: Who, amount: u128) -> Result<(), Refused> {
        if amount == 0 {
            return Err("nothing to stake");
        }
        self.take(who, amount)?;
        self.supplier(who)?.own += amount;
        Ok(())
    }

    pub(super) fn unstake(&mut self, who: Who, amount: u128) -> Result<(), Refused> {
        let (until, each) = (self.now + self.terms.unbond_s, self.terms.stake_per_device);
        let supplier = self.supplier(who)?;
        let own = supplier.own.checked_sub(amount).ok_or("it has staked less")?;
        if amount == 0 || own + supplier.costake < supplier.required(each) || supplier.costake > own {
            return Err("nothing, or what devices or co-stakers need");
        }
        supplier.own = own;
        supplier.unbonding += amount;
        supplier.unbond_at = until;
        Ok(())
    }

    pub(super) fn withdraw_stake(&mut self, who: Who) -> Result<(), Refused> {
        let now = self.now;
        let supplier = self.supplier(who)?;
        if supplier.unbonding == 0 || now < supplier.unbond_at {
            return Err("nothing to withdraw yet");
        }
        let amount = std::mem::take(&mut supplier.unbonding);
        self.pay(who, amount);
        Ok(())
    }

    pub(super) fn offer(&mut self, who: Who, n: u16, amount: u128) -> Result<(), Refused> {
        let supplier = self.supplier(who)?;
        if n >= OFFERS_MAX || amount == 0 || supplier.offers.contains_key(&n) {
            return Err("the offer is out of range or made already");
        }
        supplier.offers.insert(n, Offer { amount, index: 0, stage: Stage::Offered, staker: who, until: 0 });
        Ok(())
    }

    pub(super) fn accept(&mut self, who: Who, n: u16, staker: Who, amount: u128) -> Result<(), Refused> {
        self.take(staker, amount)?;
        let supplier = self.supplier(who)?;
        let (own, index, costake) = (supplier.own, supplier.index, supplier.costake);
        let offer = supplier.offers.get_mut(&n).ok_or("there is no such offer")?;
        if offer.stage != Stage::Offered || offer.amount != amount || staker == who {
            return Err("it is not offered, or on other terms, or to oneself");
        }
        if costake + amount > own || index < INDEX_MIN {
            return Err("co-stake would be more than half");
        }
        (offer.stage, offer.staker, offer.index) = (Stage::Held, staker, index);
        supplier.costake += amount;
        Ok(())
    }

    pub(super) fn exit(&mut self, who: Who, n: u16, by: Who) -> Result<(), Refused> {
        let (now, wait_s, unbond_s) = (self.now, self.terms.exit_wait_s, self.terms.unbond_s);
        let supplier = self.supplier(who)?;
        let mut offer = supplier.offers.get(&n).ok_or("there is no such offer")?.clone();
        match offer.stage {
            Stage::Offered if by == who => {
                supplier.forget(n);
                return Ok(());
            }
            Stage::Held if by == offer.staker => (offer.stage, offer.until) = (Stage::Waiting, now + wait_s),
            Stage::Offered | Stage::Held => return Err("it is another's to end"),
            Stage::Waiting | Stage::Leaving if now < offer.until => return Err("its time is not over"),
            Stage::Waiting => {
                let worth = supplier.worth(&offer);
                supplier.costake = supplier.costake.checked_sub(worth).ok_or("the books hold less")?;
                supplier.leaving += worth;
                (offer.amount, offer.index) = (worth, supplier.index);
                (offer.stage, offer.until) = (Stage::Leaving, now + unbond_s);
            }
            Stage::Leaving => {
                let worth = supplier.worth(&offer);
                supplier.leaving = supplier.leaving.checked_sub(worth).ok_or("the books hold less")?;
                supplier.forget(n);
                self.pay(offer.staker, worth);
                return Ok(());
            }
        }
        supplier.offers.insert(n, offer);
        Ok(())
    }

    pub(super) fn slash(&mut self, who: Who, key: usize, lease: Option<LeaseId>, opener: Who) -> Result<(), Refused> {
        let record = self.keys.get_mut(&key).filter(|record| record.supplier == who).ok_or("it has no such key")?;
        if record.slashed || record.retired_at.is_some() {
            return Err("the key is slashed or retired");
        }
        record.slashed = true;
        let (id, stake) = (record.worker, record.stake);
        let slots = &mut self.suppliers.get_mut(&who).ok_or("there is no such supplier")?.slots;
        let at = slots.iter().position(|worker| worker.as_ref().is_some_and(|worker| worker.id == id));
        let slot = at.ok_or("its worker has gone")?;
        if let Some(worker) = slots[slot].as_mut() {
            worker.slashed = true;
        }
        let harm = match lease {
            None if self.leased(who, slot) == 0 => None,
            None => return Err("the harmed renter must be named"),
            Some(lease) => Some(self.harm(lease, who, slot)?),
        };
        let (bounty_bps, bounty_max) = (self.terms.bounty_bps, self.terms.bounty_max);
        let supplier = self.supplier(who)?;
        let before = supplier.own + supplier.unbonding;
        let taken = supplier.cut(stake);
        let own = before.saturating_sub(supplier.own + supplier.unbonding);
        let refund = harm.map_or(0, |(_, harm)| harm.min(own / 2));
        let bounty = (taken * bounty_bps / 10_000).min(bounty_max).min(own - refund);
        if let Some((renter, _)) = harm {
            self.pay(renter, refund);
        }
        self.pay(opener, bounty);
        self.burned += taken - refund - bounty;
        Ok(())
    }
}
