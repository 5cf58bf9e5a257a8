//! Orders and leases.

use std::collections::BTreeMap;

use super::{LeaseId, Market, OrderId, Refused, Who, seconds};

/// Longest time of an order, seconds.
const DURATION_S_MAX: i64 = 366 * 86_400;
/// Base units of one ATL.
const ATL: u128 = 1_000_000_000;

/// Why slots are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as the chain's own")]
pub enum Reason {
    Leave,
    Reclaim,
    Lost,
    Done,
    Expired,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The supplier's wallet.
    Supplier,
    /// The device key of a slot.
    Device(usize),
    /// The renter's wallet.
    Renter,
    /// The order's solver.
    Solver,
    /// Anybody else.
    Stranger,
}

/// What device-seconds cost.
struct Cost {
    gross: u128,
    /// Of each side.
    fee: u128,
}

impl Cost {
    const fn of(rate: u128, device_seconds: u128, fee_bps: u128) -> Self {
        let gross = rate * device_seconds;
        Self { gross, fee: gross * fee_bps / 10_000 }
    }

    const fn renter(&self) -> u128 {
        self.gross + self.fee
    }

    const fn supplier(&self) -> u128 {
        self.gross - self.fee
    }
}

/// A lease, open or closed.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Whose slots.
    pub supplier: Who,
    /// Devices of each slot.
    pub mask: u16,
    /// Start of pay; none before the order is active.
    pub start: Option<i64>,
    /// Its end; 0 before the order is active.
    pub end: i64,
    /// Device-seconds settled.
    pub paid: u128,
    /// It is closed.
    pub closed: bool,
    /// Each slot, and when its service stopped.
    slots: BTreeMap<usize, Option<i64>>,
    ask: u128,
    rate: u128,
    /// When its slots last changed: what was over then stays.
    changed_at: i64,
    settled_until: i64,
    released_at: i64,
    withdrawn: u128,
}

impl Lease {
    /// Whether a slot is leased by it now.
    #[must_use]
    pub fn holds(&self, slot: usize) -> bool {
        self.slots.get(&slot).is_some_and(Option::is_none)
    }

    /// The slots that it holds.
    pub fn held(&self) -> impl Iterator<Item = usize> + '_ {
        self.slots.iter().filter(|(_, stopped)| stopped.is_none()).map(|(slot, _)| *slot)
    }

    /// Devices that it holds.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.held().map(|_| self.mask.count_ones()).sum()
    }

    /// Device-seconds that can have been served by a time.
    #[must_use]
    pub fn cap(&self, now: i64) -> u128 {
        let Some(start) = self.start else { return 0 };
        let until = self.slots.values().map(|stopped| stopped.unwrap_or(now).min(now).min(self.end));
        until.map(|until| u128::from(self.mask.count_ones()) * seconds(start, until)).sum()
    }

    /// What its supplier is owed.
    #[must_use]
    pub fn owed(&self, fee_bps: u128) -> u128 {
        Cost::of(self.rate, self.paid, fee_bps).supplier() - self.withdrawn
    }

    /// Whether the attestors said nothing of it for a time.
    #[must_use]
    pub fn silent(&self, now: i64, stall_s: i64) -> bool {
        self.start.is_some_and(|start| now >= start.max(self.settled_until) + stall_s)
    }

    fn begin(&mut self, at: i64, end: i64) {
        (self.start, self.end, self.changed_at) = (Some(at), end, at);
    }
}

/// An order.
#[derive(Clone, Debug)]
pub struct Order {
    /// Its leases by number.
    pub leases: BTreeMap<u16, Lease>,
    /// Devices that it still lacks.
    pub open: u32,
    /// When it became active.
    pub active_at: Option<i64>,
    /// Its renter stopped it.
    pub stopped: bool,
    /// Everything that its renter paid in.
    deposit: u128,
    collected: u128,
    feed: u128,
    ask_max: u128,
    min: u32,
    per_worker: u32,
    duration_s: i64,
    posted_at: i64,
    open_at: i64,
    fill_by: i64,
}

impl Order {
    /// Devices leased now.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.leases.values().map(Lease::live).sum()
    }

    /// When its leases end; 0 before it is active.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.active_at.map_or(0, |at| at + self.duration_s)
    }

    fn costs(&self, fee_bps: u128) -> impl Iterator<Item = Cost> {
        self.leases.values().map(move |lease| Cost::of(lease.rate, lease.paid, fee_bps))
    }

    /// What is not spent of its escrow.
    #[must_use]
    pub fn escrow(&self, fee_bps: u128) -> u128 {
        let spent: u128 = self.costs(fee_bps).map(|cost| cost.renter()).sum();
        self.deposit.checked_sub(spent).expect("an order never costs more than its worst case")
    }

    /// Fees not collected.
    #[must_use]
    pub fn fees(&self, fee_bps: u128) -> u128 {
        self.costs(fee_bps).map(|cost| 2 * cost.fee).sum::<u128>() - self.collected
    }

    /// What its suppliers are owed.
    #[must_use]
    pub fn owed(&self, fee_bps: u128) -> u128 {
        self.leases.values().map(|lease| lease.owed(fee_bps)).sum()
    }

    /// What its vault holds.
    #[must_use]
    pub fn vault(&self, fee_bps: u128) -> u128 {
        self.escrow(fee_bps) + self.fees(fee_bps) + self.owed(fee_bps)
    }

    /// What an extension costs now: the worst case of the added time, and one unit.
    #[must_use]
    pub fn extension(&self, seconds: i64, fee_bps: u128) -> u128 {
        let device_seconds = u128::from(self.live() + self.open) * u128::try_from(seconds).unwrap_or(0);
        Cost::of(rate(self.ask_max, self.feed), device_seconds, fee_bps).renter() + 1
    }

    fn failed(&self, now: i64) -> bool {
        self.active_at.is_none() && (now >= self.fill_by || self.stopped)
    }

    fn over(&self, now: i64) -> bool {
        self.failed(now) || (self.active_at.is_some() && now >= self.end())
    }

    fn activate(&mut self, at: i64) {
        self.active_at = Some(at);
        let end = self.end();
        for lease in self.leases.values_mut() {
            lease.begin(at, end);
        }
    }
}

/// Base units per device-second of an ask.
const fn rate(ask: u128, feed: u128) -> u128 {
    ask * ATL / (feed * 3_600)
}

impl Market {
    /// Applies what time alone decides: an order that holds its minimum at the end of its time to fill is active since then.
    pub fn ripen(&mut self) {
        for order in self.orders.values_mut() {
            let due = order.active_at.is_none() && !order.stopped && self.now >= order.fill_by;
            if due && order.live() >= order.min {
                order.activate(order.fill_by);
            }
        }
    }

    fn order(&mut self, id: OrderId) -> Result<&mut Order, Refused> {
        self.orders.get_mut(&id).ok_or("there is no such order")
    }

    fn lease(&mut self, (order, n): LeaseId) -> Result<&mut Lease, Refused> {
        let leases = &mut self.order(order)?.leases;
        leases.get_mut(&n).filter(|lease| !lease.closed).ok_or("there is no such lease")
    }

    pub(super) fn post(
        &mut self,
        id: OrderId,
        (devices, min, per_worker): (u32, u32, u32),
        ask_max: u128,
        (duration_s, fill_s): (i64, i64),
    ) -> Result<(), Refused> {
        let shape = (1..=devices).contains(&min) && (per_worker == 0 || devices.is_multiple_of(per_worker));
        if !shape || rate(ask_max, self.feed) == 0 || self.orders.contains_key(&id) {
            return Err("the order is out of range, or there already");
        }
        let device_seconds = u128::from(devices) * u128::try_from(duration_s).unwrap_or(0);
        let deposit = Cost::of(rate(ask_max, self.feed), device_seconds, self.terms.fee_bps).renter();
        self.take(id.0, deposit)?;
        let order = Order {
            leases: BTreeMap::new(),
            open: devices,
            active_at: None,
            stopped: false,
            deposit,
            collected: 0,
            feed: self.feed,
            ask_max,
            min,
            per_worker,
            duration_s,
            posted_at: self.now,
            open_at: self.now + self.terms.open_s,
            fill_by: self.now + fill_s,
        };
        self.orders.insert(id, order);
        Ok(())
    }

    pub(super) fn fill(
        &mut self,
        id: OrderId,
        who: Who,
        slots: &[usize],
        mask: u16,
        by_solver: bool,
    ) -> Result<(), Refused> {
        let (now, each) = (self.now, self.terms.stake_per_device);
        let supplier = self.suppliers.get(&who).ok_or("there is no such supplier")?;
        if supplier.own + supplier.costake < supplier.required(each) {
            return Err("too little stake");
        }
        let order = self.orders.get(&id).ok_or("there is no such order")?;
        if now < order.open_at && !by_solver {
            return Err("the solvers' time is not over");
        }
        if mask == 0 || (order.per_worker != 0 && mask.count_ones() != order.per_worker) {
            return Err("the mask is not as the order wants");
        }
        let mut ask = None;
        for slot in slots {
            let worker = supplier.slots.get(*slot).and_then(Option::as_ref).ok_or("the slot holds no worker")?;
            let able = !worker.draining && !worker.suspended && !worker.slashed;
            let fits = worker.ask <= order.ask_max && u32::from(mask) >> worker.devices == 0;
            if !able || !fits || self.leased(who, *slot) & mask != 0 {
                return Err("a worker does not fit, or its devices are leased");
            }
            if *ask.get_or_insert(worker.ask) != worker.ask {
                return Err("the asks are not one");
            }
        }
        let ask = ask.ok_or("a fill names slots")?;
        let devices = u32::try_from(slots.len()).unwrap_or(u32::MAX).saturating_mul(mask.count_ones());
        let order = self.order(id)?;
        if order.over(now) || order.stopped {
            return Err("the order takes no fills");
        }
        order.open = order.open.checked_sub(devices).ok_or("more devices than it lacks")?;
        let mut lease = Lease {
            supplier: who,
            mask,
            start: None,
            end: 0,
            paid: 0,
            closed: false,
            slots: slots.iter().map(|slot| (*slot, None)).collect(),
            ask,
            rate: rate(ask, order.feed),
            changed_at: 0,
            settled_until: 0,
            released_at: 0,
            withdrawn: 0,
        };
        if order.active_at.is_some() {
            lease.begin(now, order.end());
        }
        let n = u16::try_from(order.leases.len()).map_err(|_| "too many leases")?;
        order.leases.insert(n, lease);
        if order.active_at.is_none() && order.open == 0 {
            order.activate(now);
        }
        Ok(())
    }

    pub(super) fn extend(&mut self, id: OrderId, seconds: i64, escrow: u128, by: Who) -> Result<(), Refused> {
        let (now, fee_bps) = (self.now, self.terms.fee_bps);
        self.take(by, escrow)?;
        let order = self.order(id)?;
        if order.active_at.is_none() || now >= order.end() || order.stopped || by != id.0 {
            return Err("the order does not run, or is another's");
        }
        if seconds <= 0 || order.duration_s + seconds > DURATION_S_MAX || escrow != order.extension(seconds, fee_bps) {
            return Err("the extension is out of range or not its price");
        }
        order.duration_s += seconds;
        order.deposit += escrow;
        Ok(())
    }

    pub(super) fn follow(&mut self, id: LeaseId) -> Result<(), Refused> {
        let now = self.now;
        let lease = self.lease(id)?.clone();
        let order = self.order(id.0)?;
        let end = order.end();
        if order.active_at.is_none() || now >= end || order.stopped {
            return Err("the order does not run");
        }
        if lease.live() == 0 || now >= lease.end || lease.end >= end {
            return Err("the lease has ended, or reaches as far");
        }
        for slot in lease.held() {
            let worker = self.worker(lease.supplier, slot)?;
            if worker.draining || worker.suspended || worker.slashed || worker.ask > lease.ask {
                return Err("a worker does not go along");
            }
        }
        self.lease(id)?.end = end;
        Ok(())
    }

    pub(super) fn release(
        &mut self,
        id: LeaseId,
        slots: &[usize],
        (reason, by): (Reason, By),
        effective_at: i64,
    ) -> Result<(), Refused> {
        let now = self.now;
        let order_over = self.order(id.0)?.over(now);
        let lease = self.lease(id)?;
        let own_slot = |slot: usize| slots.iter().all(|named| *named == slot);
        // One wallet may be both.
        let (renter, supplier) = (id.0.0, lease.supplier);
        let is_renter = by == By::Renter || (by == By::Supplier && supplier == renter);
        let is_supplier = by == By::Supplier || (by == By::Renter && supplier == renter);
        let may = match reason {
            Reason::Expired => order_over || (lease.start.is_some() && now >= lease.end),
            Reason::Leave => is_supplier || matches!(by, By::Device(slot) if own_slot(slot)),
            // No order here is spot.
            Reason::Reclaim => false,
            Reason::Lost | Reason::Done => is_renter || by == By::Solver,
        };
        if !may || slots.is_empty() || !slots.iter().all(|slot| lease.holds(*slot)) {
            return Err("it has no such right, or the lease no such slot");
        }
        let said = if reason == Reason::Leave { effective_at } else { now };
        let (stopped, until) = match lease.start {
            None => (now, lease.changed_at),
            Some(_) => {
                let until = now.min(lease.end).max(lease.changed_at);
                (said.max(lease.settled_until).min(until).max(lease.changed_at), until)
            }
        };
        lease.slots.extend(slots.iter().map(|slot| (*slot, Some(stopped))));
        (lease.changed_at, lease.released_at) = (until, now);
        let devices = u32::try_from(slots.len()).unwrap_or(u32::MAX).saturating_mul(lease.mask.count_ones());
        if reason == Reason::Lost {
            for slot in slots {
                self.worker(supplier, *slot)?.suspended = true;
            }
        }
        let order = self.order(id.0)?;
        if reason != Reason::Done {
            order.open += devices;
        } else if order.live() == 0 {
            (order.open, order.stopped) = (0, true);
        }
        Ok(())
    }

    pub(super) fn settle(&mut self, id: LeaseId, device_seconds: u128, until: i64) -> Result<(), Refused> {
        let now = self.now;
        let posted_at = self.order(id.0)?.posted_at;
        let lease = self.lease(id)?;
        let begun = lease.start.unwrap_or(0).max(posted_at);
        let stale = device_seconds < lease.paid || until <= begun || until < lease.settled_until || until > now;
        if stale || device_seconds > lease.cap(now) {
            return Err("the leaf is stale, or above what can have been served");
        }
        (lease.paid, lease.settled_until) = (device_seconds, until);
        Ok(())
    }

    /// Renter and a worker agree on what was served, after the attestors' silence. `slot` is the worker's that signed.
    pub(super) fn cosign(&mut self, id: LeaseId, device_seconds: u128, until: i64, slot: usize) -> Result<(), Refused> {
        let (now, stall_s) = (self.now, self.terms.stall_s);
        let posted_at = self.order(id.0)?.posted_at;
        let lease = self.lease(id)?.clone();
        self.worker(lease.supplier, slot)?;
        if lease.live() > 0 && !lease.holds(slot) {
            return Err("the worker is not of the lease");
        }
        let start = lease.start.ok_or("the lease has not begun")?;
        if !lease.silent(now, stall_s) {
            return Err("the attestors are not silent");
        }
        let new = device_seconds > lease.paid && until > start.max(posted_at) && until <= now;
        if !new || device_seconds > lease.cap(now) {
            return Err("nothing new of this lease, or above what can have been served");
        }
        self.lease(id)?.paid = device_seconds;
        Ok(())
    }

    fn pay_out(&mut self, id: LeaseId) -> Result<u128, Refused> {
        let fee_bps = self.terms.fee_bps;
        let lease = self.lease(id)?;
        let (amount, supplier) = (lease.owed(fee_bps), lease.supplier);
        lease.withdrawn += amount;
        self.pay(supplier, amount);
        Ok(amount)
    }

    pub(super) fn withdraw(&mut self, id: LeaseId) -> Result<(), Refused> {
        if self.pay_out(id)? == 0 { Err("nothing is owed") } else { Ok(()) }
    }

    pub(super) fn close_lease(&mut self, id: LeaseId) -> Result<(), Refused> {
        let (now, stall_s) = (self.now, self.terms.stall_s);
        let lease = self.lease(id)?;
        let settled = lease.settled_until >= lease.released_at.min(lease.end);
        let done = lease.cap(now) == 0 || settled || now >= lease.released_at + stall_s;
        if lease.live() != 0 || !done {
            return Err("it holds devices, or waits for its last leaf");
        }
        self.pay_out(id)?;
        self.lease(id)?.closed = true;
        Ok(())
    }

    pub(super) fn collect(&mut self, id: OrderId) -> Result<(), Refused> {
        let fee_bps = self.terms.fee_bps;
        let order = self.order(id)?;
        let (before, fees) = (order.collected, order.fees(fee_bps));
        if fees == 0 {
            return Err("there are no fees");
        }
        order.collected += fees;
        let burned = order.collected / 2 - before / 2;
        self.burned += burned;
        self.treasury += fees - burned;
        Ok(())
    }

    pub(super) fn close_order(&mut self, id: OrderId, by: By) -> Result<(), Refused> {
        let (now, fee_bps) = (self.now, self.terms.fee_bps);
        let order = self.order(id)?;
        let held = order.leases.values().any(|lease| !lease.closed) || order.fees(fee_bps) != 0;
        let may = matches!(by, By::Renter | By::Solver) || order.stopped || order.over(now);
        if held || !may {
            return Err("it is held, or runs");
        }
        let rest = order.vault(fee_bps);
        self.orders.remove(&id);
        self.pay(id.0, rest);
        Ok(())
    }

    /// Renter of a lease that holds a slot, and what it can have paid for that slot's devices.
    pub(super) fn harm(&mut self, id: LeaseId, who: Who, slot: usize) -> Result<(Who, u128), Refused> {
        let (now, fee_bps) = (self.now, self.terms.fee_bps);
        let lease = self.lease(id)?;
        if lease.supplier != who || !lease.holds(slot) {
            return Err("the lease does not hold the worker");
        }
        let Some(start) = lease.start.filter(|start| *start <= now && now < lease.end) else { return Ok((id.0.0, 0)) };
        let device_seconds = u128::from(lease.mask.count_ones()) * seconds(start, now);
        Ok((id.0.0, Cost::of(lease.rate, device_seconds, fee_bps).renter()))
    }
}
