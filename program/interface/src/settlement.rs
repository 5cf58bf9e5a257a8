//! Life and pay of orders and leases: what every instruction does to the books, as methods without I/O.
//!
//! **Invariant:** an order's vault holds `escrow + fees + owed`, and `owed` is the sum of its leases' `owed`. Every method
//! here moves amounts between these, or returns what leaves the vault.
//!
//! Pay and fees are computed from cumulative device-seconds and booked as differences. Rounding therefore does not depend
//! on how often a lease was settled, and a receipt recomputes every figure from the last leaf alone.

use crate::{
    Error,
    arithmetic::{add, fee, mul, rate, seconds_between, sub},
    fill::{Slots, bit, set_bit},
    layout::{
        LEASE_FINAL, LEASE_FROZEN, LEASE_JUDGED, LEASE_LOSS_BLAMED, Lease, ORDER_STOPPED, Order, SLOT_DRAINING,
        SLOT_SLASHED, SLOT_SUSPENDED, SLOT_USED, Slot,
    },
    merkle::{FLAG_FINAL, FLAG_LOSS_BLAMED, Leaf},
};

/// The longest an order may run: 366 days, in seconds.
pub const DURATION_S_MAX: u32 = 366 * 86_400;

/// What some device-seconds cost and who gets it, base units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pay {
    /// Rate times device-seconds.
    pub gross: u64,
    /// Fee taken from the supplier's side of `gross`.
    pub supplier_fee: u64,
    /// Fee that the renter pays on top of `gross`.
    pub renter_fee: u64,
}

impl Pay {
    /// Pay for cumulative device-seconds at a rate in base units per device-second.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the sum does not fit.
    pub const fn of(rate: u64, device_seconds: u64, fee_bps: u16) -> Result<Self, Error> {
        let gross = match mul(rate, device_seconds) {
            Ok(gross) => gross,
            Err(error) => return Err(error),
        };
        match fee(gross, fee_bps) {
            Ok(side) => Ok(Self { gross, supplier_fee: side, renter_fee: side }),
            Err(error) => Err(error),
        }
    }

    /// What the supplier receives.
    #[must_use]
    pub const fn supplier(self) -> u64 {
        self.gross.saturating_sub(self.supplier_fee)
    }

    /// What leaves the renter's escrow.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the sum does not fit.
    pub const fn renter(self) -> Result<u64, Error> {
        add(self.gross, self.renter_fee)
    }

    /// Both sides' fees.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the sum does not fit.
    pub const fn fees(self) -> Result<u64, Error> {
        add(self.supplier_fee, self.renter_fee)
    }
}

/// How cumulative fees divide: half is burned, rounded down, the rest goes to the treasury.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeeSplit {
    /// Base units burned.
    pub burned: u64,
    /// Base units for the treasury.
    pub treasury: u64,
}

impl FeeSplit {
    /// The split of all fees so far.
    #[must_use]
    pub const fn of(fees: u64) -> Self {
        Self { burned: fees / 2, treasury: fees - fees / 2 }
    }
}

/// The highest sum an order can cost, fee included: what post_order escrows.
///
/// # Errors
/// [`Error::Overflow`] when the sum does not fit.
pub fn worst_case(rate_cap: u64, devices: u32, duration_s: u32, fee_bps: u16) -> Result<u64, Error> {
    let device_seconds = mul(u64::from(devices), u64::from(duration_s))?;
    Pay::of(rate_cap, device_seconds, fee_bps)?.renter()
}

impl Order {
    /// Whether leases run or may run again: the order is active and not ended.
    #[must_use]
    pub const fn is_active(&self, now: i64) -> bool {
        self.active_at != 0 && now < self.end
    }

    /// Whether the order can never become active any more.
    #[must_use]
    pub const fn has_failed(&self, now: i64) -> bool {
        self.active_at == 0 && (now >= self.fill_by || self.flags & ORDER_STOPPED != 0)
    }

    /// Whether no lease of the order runs any more: it ended or failed.
    #[must_use]
    pub const fn is_over(&self, now: i64) -> bool {
        self.has_failed(now) || (self.active_at != 0 && now >= self.end)
    }

    /// Whether the renter stopped it: nothing is leased, and nothing is to be filled again.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.flags & ORDER_STOPPED != 0
    }

    /// Applies what time alone decides: at `fill_by` an order that holds its minimum of devices is active since then.
    ///
    /// Each instruction calls it first, so no transaction is needed for the change; readers of an account call it to see
    /// what the chain would.
    pub fn ripen(&mut self, now: i64) {
        if self.active_at == 0 && !self.is_stopped() && now >= self.fill_by && self.devices_live >= self.devices_min {
            self.activate(self.fill_by);
        }
    }

    fn activate(&mut self, at: i64) {
        self.active_at = at;
        self.end = at.saturating_add(i64::from(self.duration_s));
    }

    /// Books a new lease of `devices` devices; returns its number. The order becomes active with the last device.
    ///
    /// # Errors
    /// [`Error::OrderNotOpen`], [`Error::FillTooLate`], [`Error::TooManyDevices`].
    pub fn fill(&mut self, devices: u32, now: i64) -> Result<u16, Error> {
        self.ripen(now);
        if self.has_failed(now) && !self.is_stopped() {
            return Err(Error::FillTooLate);
        }
        if self.is_over(now) || self.is_stopped() || self.devices_open == 0 {
            return Err(Error::OrderNotOpen);
        }
        let open = self.devices_open.checked_sub(devices).ok_or(Error::TooManyDevices)?;
        let n = self.leases_made;
        self.leases_made = n.checked_add(1).ok_or(Error::Overflow)?;
        self.leases_open = self.leases_open.checked_add(1).ok_or(Error::Overflow)?;
        self.devices_live = self.devices_live.checked_add(devices).ok_or(Error::Overflow)?;
        self.devices_open = open;
        if self.active_at == 0 && open == 0 {
            self.activate(now);
        }
        Ok(n)
    }

    /// What the renter adds to the escrow for `seconds` more of the devices that the order holds or still lacks: the worst
    /// case of the added time, and one unit, since the fee on a sum can be one more than the sum of the fees.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the sum does not fit.
    pub fn extension(&self, seconds: u32) -> Result<u64, Error> {
        let devices = self.devices_live.checked_add(self.devices_open).ok_or(Error::Overflow)?;
        add(worst_case(self.rate_cap, devices, seconds, self.fee_bps)?, 1)
    }

    /// Lengthens the order; `escrow` is what the renter adds, exactly [`Order::extension`].
    ///
    /// # Errors
    /// [`Error::OrderNotActive`], [`Error::ParameterOutOfRange`] for no time, over [`DURATION_S_MAX`] in all, or another
    /// escrow, [`Error::Overflow`].
    pub fn extend(&mut self, seconds: u32, escrow: u64, now: i64) -> Result<(), Error> {
        self.ripen(now);
        if !self.is_active(now) || self.is_stopped() {
            return Err(Error::OrderNotActive);
        }
        let duration_s = self.duration_s.checked_add(seconds).ok_or(Error::ParameterOutOfRange)?;
        if seconds == 0 || duration_s > DURATION_S_MAX || escrow != self.extension(seconds)? {
            return Err(Error::ParameterOutOfRange);
        }
        self.escrow = add(self.escrow, escrow)?;
        self.escrow_initial = add(self.escrow_initial, escrow)?;
        self.duration_s = duration_s;
        self.extended_s = self.extended_s.checked_add(seconds).ok_or(Error::Overflow)?;
        self.end = self.end.checked_add(i64::from(seconds)).ok_or(Error::Overflow)?;
        Ok(())
    }

    /// Moves uncollected fees out of the books; returns what is to be burned and what goes to the treasury.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the total of collected fees does not fit.
    pub fn collect(&mut self) -> Result<FeeSplit, Error> {
        let before = FeeSplit::of(self.fees_collected);
        self.fees_collected = add(self.fees_collected, self.fees)?;
        self.fees = 0;
        let after = FeeSplit::of(self.fees_collected);
        Ok(FeeSplit { burned: after.burned - before.burned, treasury: after.treasury - before.treasury })
    }

    /// What the vault must hold.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the sum does not fit.
    pub fn vault(&self) -> Result<u64, Error> {
        add(add(self.escrow, self.fees)?, self.owed)
    }

    /// Whether close_order may refund and close: nothing is held any more, and the order is over, or its renter or a solver
    /// that the renter named asks. A solver can do no more harm with it than with [`Reason::Done`]: everything goes back
    /// to the renter, who orders again.
    ///
    /// # Errors
    /// [`Error::OrderStillHeld`] otherwise.
    pub fn check_close(&mut self, by_renter_or_solver: bool, now: i64) -> Result<(), Error> {
        self.ripen(now);
        let held = self.leases_open != 0 || self.fees != 0 || self.owed != 0;
        if held || !(by_renter_or_solver || self.is_stopped() || self.is_over(now)) {
            Err(Error::OrderStillHeld)
        } else {
            Ok(())
        }
    }

    /// Whether a slot may serve this order at an ask of at most `ask_max`; `mask` are the devices asked of it.
    ///
    /// # Errors
    /// The first reason found, in the order slot, suspension, ask, fitness, devices.
    pub fn check_slot(&self, slot: &Slot, mask: u16, ask_max: u64) -> Result<(), Error> {
        if slot.flags & SLOT_USED == 0 {
            return Err(Error::SlotUnknown);
        }
        if slot.flags & (SLOT_SUSPENDED | SLOT_DRAINING | SLOT_SLASHED) != 0 {
            return Err(Error::SlotSuspended);
        }
        if slot.ask_uusd > ask_max || slot.ask_uusd > self.price_cap_uusd {
            return Err(Error::AskTooHigh);
        }
        let [a, b, c, d] = self.models;
        let model = slot.model;
        let fits = (model == a || model == b || model == c || model == d)
            && (self.tier == 0 || self.tier == slot.tier)
            && slot.class >= self.class
            && slot.score_milli >= self.score_min_milli
            && self.wants_region(slot.region)
            && (slot.lease_s_max == 0 || self.duration_s <= slot.lease_s_max);
        if !fits || u32::from(mask) >> slot.devices != 0 {
            return Err(Error::SlotUnfit);
        }
        if slot.leased_mask & mask == 0 { Ok(()) } else { Err(Error::DevicesTaken) }
    }

    /// Whether a mask has the shape the order asks of every worker.
    ///
    /// # Errors
    /// [`Error::SlotUnfit`] otherwise.
    pub fn check_mask(&self, mask: u16) -> Result<(), Error> {
        let devices = mask.count_ones();
        let wanted = u32::from(self.devices_per_worker);
        if devices == 0 || (wanted != 0 && devices != wanted) { Err(Error::SlotUnfit) } else { Ok(()) }
    }
}

/// Why slots are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The supplier takes the devices back.
    Leave = 1,
    /// The supplier takes spot devices back after their notice.
    Reclaim = 2,
    /// The worker was lost: its slot is suspended until its device key clears that.
    Lost = 3,
    /// The renter needs them no longer: they are not filled again, and with the last one the order is stopped.
    Done = 4,
    /// The lease ended, or its order never became active.
    Expired = 5,
}

impl Reason {
    /// The reason of a number.
    ///
    /// # Errors
    /// [`Error::InstructionMalformed`] for an unknown number.
    pub const fn from_number(number: u8) -> Result<Self, Error> {
        Ok(match number {
            1 => Self::Leave,
            2 => Self::Reclaim,
            3 => Self::Lost,
            4 => Self::Done,
            5 => Self::Expired,
            _ => return Err(Error::InstructionMalformed),
        })
    }
}

/// In which right somebody releases slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Releaser {
    /// The supplier's wallet.
    Supplier,
    /// A device key: for its own slot only.
    Device,
    /// The renter's wallet or the order's budget key.
    Renter,
    /// A solver key of the order.
    Solver,
    /// Anyone, once the order is over.
    Anyone,
}

impl Releaser {
    /// Whether this right covers the reason.
    ///
    /// # Errors
    /// [`Error::NotAuthorised`] otherwise, [`Error::NoticeMissing`].
    pub fn check(self, reason: Reason, order: &Order, lease: &Lease, now: i64) -> Result<(), Error> {
        let allowed = match reason {
            Reason::Leave | Reason::Reclaim => matches!(self, Self::Supplier | Self::Device),
            Reason::Lost => matches!(self, Self::Renter | Self::Solver),
            // The solver too: a job that ends while its renter is offline must stop costing. It can do no more harm than
            // with `Lost`: pay for seconds not served goes back to the renter either way.
            Reason::Done => matches!(self, Self::Renter | Self::Solver),
            Reason::Expired => order.is_over(now) || (lease.end != 0 && now >= lease.end),
        };
        match reason {
            _ if !allowed => Err(Error::NotAuthorised),
            Reason::Reclaim => lease.check_reclaim(order, now),
            _ => Ok(()),
        }
    }
}

impl Lease {
    /// Starts the clock once the order is active. Called after [`Order::ripen`] by every instruction on a lease.
    pub fn begin(&mut self, order: &Order) {
        if self.start == 0 && order.active_at != 0 {
            self.start = order.active_at;
            self.cap_since = order.active_at;
            // What was added later needs each slot's consent: [`Lease::extend`].
            self.end = order.end.saturating_sub(i64::from(order.extended_s));
        }
    }

    /// Books a new lease: `rate` from the slots' ask, or from a spot order's bid, and the order's feed, the clock running when the order is active.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the rate does not fit.
    pub fn open(
        &mut self,
        order: &Order,
        slots: Slots<'_>,
        devices: u32,
        ask_uusd: u64,
        now: i64,
    ) -> Result<(), Error> {
        self.ask_uusd = order.price(ask_uusd);
        self.rate = rate(self.ask_uusd, order.feed_uusd_per_atl)?;
        self.devices_live = devices;
        self.share_milli = 1000;
        for slot in slots.iter() {
            set_bit(&mut self.bitmap, slot, true);
        }
        if order.active_at != 0 {
            self.start = now;
            self.cap_since = now;
            self.end = order.end;
        }
        Ok(())
    }

    /// Moves the end to the order's, if each slot still offers what the lease pays for so long. Called after
    /// [`Lease::begin`].
    ///
    /// # Errors
    /// [`Error::OrderNotActive`], [`Error::LeaseEnded`], [`Error::NothingToDo`] when it reaches as far already;
    /// [`Error::SlotSuspended`], [`Error::AskTooHigh`], [`Error::SlotUnfit`] for the first slot that does not go along.
    pub fn extend(&mut self, order: &Order, slots: &[Slot], now: i64) -> Result<(), Error> {
        if !order.is_active(now) || order.is_stopped() {
            return Err(Error::OrderNotActive);
        }
        if self.devices_live == 0 || now >= self.end {
            return Err(Error::LeaseEnded);
        }
        if self.end >= order.end {
            return Err(Error::NothingToDo);
        }
        let held = slots.iter().enumerate().filter(|(number, _)| bit(&self.bitmap, *number));
        for (_, slot) in held {
            if slot.flags & (SLOT_SUSPENDED | SLOT_DRAINING | SLOT_SLASHED) != 0 {
                return Err(Error::SlotSuspended);
            }
            if slot.ask_uusd > self.ask_uusd {
                return Err(Error::AskTooHigh);
            }
            if slot.lease_s_max != 0 && order.duration_s > slot.lease_s_max {
                return Err(Error::SlotUnfit);
            }
        }
        self.end = order.end;
        Ok(())
    }

    /// Device-seconds that can have been served up to `now`:
    /// `cap_base + devices_live * (min(now, end) - cap_since)`, less what verdicts of disputes found unserved.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the sum does not fit.
    pub fn cap(&self, now: i64) -> Result<u64, Error> {
        if self.start == 0 {
            return Ok(0);
        }
        let running = mul(u64::from(self.devices_live), seconds_between(self.cap_since, now.min(self.end)))?;
        Ok(add(self.cap_base, running)?.saturating_sub(self.unserved))
    }

    /// Releases slots: their cap stops at `effective_at` (kept between what is settled and now), the others' goes on.
    /// The devices return to the order's open count, except those the renter is done with; with the last of these the
    /// order is stopped. Returns how many devices became free. The caller clears the mask in the slots.
    ///
    /// # Errors
    /// [`Error::LeaseSlotsWrong`] when the lease does not hold one of the slots.
    pub fn release(
        &mut self,
        order: &mut Order,
        slots: Slots<'_>,
        reason: Reason,
        effective_at: i64,
        now: i64,
    ) -> Result<u32, Error> {
        let per_slot = self.mask.count_ones();
        let mut devices = 0u32;
        for slot in slots.iter() {
            if !bit(&self.bitmap, slot) {
                return Err(Error::LeaseSlotsWrong);
            }
            set_bit(&mut self.bitmap, slot, false);
            devices = devices.checked_add(per_slot).ok_or(Error::Overflow)?;
        }
        let rest = self.devices_live.checked_sub(devices).ok_or(Error::LeaseSlotsWrong)?;
        if self.start != 0 {
            let until = now.min(self.end).max(self.cap_since);
            let stopped = effective_at.max(self.settled_until).min(until);
            let kept = mul(u64::from(rest), seconds_between(self.cap_since, until))?;
            let left = mul(u64::from(devices), seconds_between(self.cap_since, stopped))?;
            self.cap_base = add(self.cap_base, add(kept, left)?)?;
            self.cap_since = until;
        }
        self.devices_live = rest;
        self.released_at = now;
        order.devices_live = order.devices_live.checked_sub(devices).ok_or(Error::LeaseSlotsWrong)?;
        if reason != Reason::Done {
            order.devices_open = order.devices_open.checked_add(devices).ok_or(Error::Overflow)?;
        } else if order.devices_live == 0 {
            order.devices_open = 0;
            order.flags |= ORDER_STOPPED;
        }
        Ok(devices)
    }

    /// Books a leaf: moves the difference between what it says and what was paid from escrow to `owed` and fees.
    ///
    /// # Errors
    /// [`Error::LeaseFrozen`] while a dispute is open, [`Error::LeafStale`] when it says less than was settled or is not
    /// of this lease's time, [`Error::AboveCap`] when it says more than can have been served, [`Error::EscrowShort`] when
    /// the books are broken.
    pub fn settle(&mut self, order: &mut Order, leaf: &Leaf, now: i64) -> Result<(), Error> {
        if self.flags & LEASE_FROZEN != 0 {
            return Err(Error::LeaseFrozen);
        }
        // A leaf reaches past the start of its lease: one of an earlier order at the same address does not.
        let stale = leaf.device_seconds < self.device_seconds_paid
            || leaf.until <= self.start.max(order.posted_at)
            || leaf.until < self.settled_until
            || (leaf.until == self.settled_until && self.flags & LEASE_JUDGED != 0)
            || leaf.until > now;
        if stale {
            return Err(Error::LeafStale);
        }
        if leaf.device_seconds > self.cap(now)? {
            return Err(Error::AboveCap);
        }
        self.book(order, leaf)
    }

    /// As [`Lease::settle`], once it is known that the leaf may be booked.
    pub(crate) fn book(&mut self, order: &mut Order, leaf: &Leaf) -> Result<(), Error> {
        self.book_pay(order, leaf.device_seconds)?;
        self.settled_until = leaf.until;
        if leaf.flags & FLAG_FINAL != 0 {
            self.flags |= LEASE_FINAL;
        }
        if leaf.flags & FLAG_LOSS_BLAMED != 0 {
            self.flags |= LEASE_LOSS_BLAMED;
        }
        Ok(())
    }

    /// Moves the difference between cumulative device-seconds and what was paid from escrow to `owed` and fees.
    pub(crate) fn book_pay(&mut self, order: &mut Order, device_seconds: u64) -> Result<(), Error> {
        let before = Pay::of(self.rate, self.device_seconds_paid, order.fee_bps)?;
        let after = Pay::of(self.rate, device_seconds, order.fee_bps)?;
        let earned = sub(after.supplier(), before.supplier())?;
        let spent = sub(after.renter()?, before.renter()?)?;
        let fees = sub(after.fees()?, before.fees()?)?;
        order.escrow = order.escrow.checked_sub(spent).ok_or(Error::EscrowShort)?;
        order.owed = add(order.owed, earned)?;
        order.fees = add(order.fees, fees)?;
        self.owed = add(self.owed, earned)?;
        self.device_seconds_paid = device_seconds;
        Ok(())
    }

    /// Takes what is owed out of the books; the caller moves it to the supplier.
    ///
    /// # Errors
    /// [`Error::EscrowShort`] when the order's books hold less.
    pub fn withdraw(&mut self, order: &mut Order) -> Result<u64, Error> {
        let amount = self.owed;
        order.owed = order.owed.checked_sub(amount).ok_or(Error::EscrowShort)?;
        self.owed = 0;
        Ok(amount)
    }

    /// When the last slot's service ended; meaningful once no device is live.
    #[must_use]
    pub fn last_second(&self) -> i64 {
        self.released_at.min(self.end)
    }

    /// Whether the lease may be closed: it holds no device, and its last second is settled, was never to be paid, or the
    /// stall time has passed since its release and since a dispute over it ended.
    ///
    /// # Errors
    /// [`Error::LeaseFrozen`], [`Error::LeaseStillLive`], [`Error::LeaseUnsettled`].
    pub fn check_close(&self, stall_s: u32, now: i64) -> Result<(), Error> {
        if self.flags & LEASE_FROZEN != 0 {
            return Err(Error::LeaseFrozen);
        }
        if self.devices_live != 0 {
            return Err(Error::LeaseStillLive);
        }
        let unpaid = self.cap_base == 0;
        let settled = self.settled_until >= self.last_second();
        let stalled = now >= self.released_at.max(self.thawed_at).saturating_add(i64::from(stall_s));
        if unpaid || settled || stalled { Ok(()) } else { Err(Error::LeaseUnsettled) }
    }
}

#[cfg(test)]
mod tests;
