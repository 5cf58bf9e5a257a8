//! Cases of capacity fraud: what opens one, what counts in it, and what it costs, as methods without I/O.
//!
//! A case costs stake only through what a device itself signed and the program computed again: nothing here follows from
//! absence, so an outage of anybody slashes nobody.
//!
//! **What a fraud pays, and to whom.** A device's stake is taken from own, unbonding and co-stake in one proportion. The
//! harmed renter is paid first, then who opened the case; the rest is burned. Both payments come out of the supplier's own
//! part, and the renter's is at most half of that part. So a supplier that accuses itself, rents from itself or does both
//! gets back less than it lost: it cannot turn its co-stakers' money into its own, nor shelter its stake behind an order of
//! its own.

use crate::{
    Error, Hash,
    arithmetic::{BPS, add, mul, mul_div, seconds_between, sub},
    capacity::{Statement, WRONG_MIN},
    layout::{
        CASE_PROVEN, DEVICE_SLASHED, DeviceKey, FleetPage, FraudCase, Lease, Order, Rules, SLOT_SLASHED, SLOT_USED,
        Slot,
    },
    settlement::Pay,
    stake::Slash,
};

impl Statement {
    /// Whether a case may be opened on it now; `slot` is the worker's, if it still has one. What a key signed before it was
    /// registered or after it was retired says nothing of the device.
    ///
    /// # Errors
    /// [`Error::StatementWrong`] of another network or key, [`Error::DeviceSlashed`], [`Error::CaseTooOld`].
    pub fn check(
        &self,
        network_root: &Hash,
        (key, slot): (&DeviceKey, Option<&Slot>),
        rules: &Rules,
        now: i64,
    ) -> Result<(), Error> {
        if self.network_root != *network_root || self.device != key.key {
            return Err(Error::StatementWrong);
        }
        if key.flags & DEVICE_SLASHED != 0 {
            return Err(Error::DeviceSlashed);
        }
        let oldest = now.saturating_sub(i64::from(rules.dispute_window_s));
        let retired = key.retired_at != 0 && self.at >= key.retired_at;
        let early = slot.is_some_and(|slot| self.at < slot.registered_at);
        if retired || early || self.at > now || self.at < oldest { Err(Error::CaseTooOld) } else { Ok(()) }
    }
}

impl DeviceKey {
    /// Whether a slot holds the key's worker now, under this key or a later one. Generations begin anew on a page that was
    /// closed and made again; its slots were registered after the key was retired.
    #[must_use]
    pub fn is_of_worker(&self, slot: &Slot) -> bool {
        let same = slot.flags & SLOT_USED != 0 && slot.generation == self.generation;
        same && (self.key == slot.device_key || slot.registered_at < self.retired_at)
    }

    /// Marks the key, and its worker's slot if it still has one, as slashed.
    ///
    /// # Errors
    /// [`Error::DeviceSlashed`] when key or worker was slashed before.
    pub fn slash(&mut self, slot: Option<&mut Slot>) -> Result<(), Error> {
        if self.flags & DEVICE_SLASHED != 0 {
            return Err(Error::DeviceSlashed);
        }
        if let Some(slot) = slot.filter(|slot| self.is_of_worker(slot)) {
            if slot.flags & SLOT_SLASHED != 0 {
                return Err(Error::DeviceSlashed);
            }
            slot.flags |= SLOT_SLASHED;
        }
        self.flags |= DEVICE_SLASHED;
        Ok(())
    }
}

impl Lease {
    /// What its renter can have paid by now for the devices of one slot, base units: 0 unless the lease ran at `at`, so that
    /// nobody leases a device for what it signed before.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the sum does not fit.
    pub fn harm(&self, order: &Order, at: i64, now: i64) -> Result<u64, Error> {
        if self.start == 0 || at < self.start || at >= self.end {
            return Ok(0);
        }
        let seconds = seconds_between(self.start, now.min(self.end));
        Pay::of(self.rate, mul(u64::from(self.mask.count_ones()), seconds)?, order.fee_bps)?.renter()
    }
}

/// What one more wrong element made of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is counted; the case is not proven yet.
    Counted,
    /// The case is proven by its own elements.
    Proven,
    /// The case is proven together with the other one, which is spent.
    Joined,
}

impl FraudCase {
    /// Counts a wrong element, and those of another case with it.
    ///
    /// # Errors
    /// [`Error::CaseStateWrong`] when one of the cases is proven, [`Error::ElementRepeated`] for a row or column that is
    /// counted, [`Error::CasesApart`] when the other case is not of this device, another seed, and [`Rules::case_s`].
    pub fn count(
        &mut self,
        (row, column): (u32, u32),
        other: Option<&Self>,
        rules: &Rules,
        now: i64,
    ) -> Result<Progress, Error> {
        if self.flags & CASE_PROVEN != 0 {
            return Err(Error::CaseStateWrong);
        }
        let wrong = usize::from(self.wrong);
        if self.rows.iter().take(wrong).any(|counted| *counted == row)
            || self.columns.iter().take(wrong).any(|counted| *counted == column)
        {
            return Err(Error::ElementRepeated);
        }
        let beside = other.map_or(Ok(0), |other| self.joins(other, rules))?;
        let places = (self.rows.get_mut(wrong), self.columns.get_mut(wrong));
        let (Some(row_place), Some(column_place)) = places else { return Err(Error::CaseStateWrong) };
        (*row_place, *column_place) = (row, column);
        self.wrong = self.wrong.checked_add(1).ok_or(Error::Overflow)?;
        let progress = if self.wrong >= WRONG_MIN {
            Progress::Proven
        } else if beside > 0 && self.wrong.saturating_add(beside) >= WRONG_MIN {
            Progress::Joined
        } else {
            return Ok(Progress::Counted);
        };
        self.flags |= CASE_PROVEN;
        self.proven_at = now;
        Ok(progress)
    }

    /// Wrong elements of another case that count with this one's. Two statements on one seed are one challenge: what failed
    /// once is in both.
    fn joins(&self, other: &Self, rules: &Rules) -> Result<u16, Error> {
        if other.flags & CASE_PROVEN != 0 {
            return Err(Error::CaseStateWrong);
        }
        let apart = seconds_between(self.at, other.at).max(seconds_between(other.at, self.at));
        if other.device != self.device || other.seed == self.seed || apart > u64::from(rules.case_s) {
            return Err(Error::CasesApart);
        }
        Ok(other.wrong)
    }

    /// Whether the stake may be slashed now: later, the stake that was there at the time may have left, and another's would
    /// pay.
    ///
    /// # Errors
    /// [`Error::CaseStateWrong`] when it is not proven, [`Error::CaseTooOld`].
    pub fn check_execute(&self, rules: &Rules, now: i64) -> Result<(), Error> {
        if self.flags & CASE_PROVEN == 0 {
            return Err(Error::CaseStateWrong);
        }
        if now >= self.at.saturating_add(i64::from(rules.unbond_s)) { Err(Error::CaseTooOld) } else { Ok(()) }
    }
}

impl FleetPage {
    /// Takes what a proven case puts at risk out of everything that is staked; the caller moves what is returned.
    ///
    /// # Errors
    /// [`Error::Overflow`] when a sum does not fit.
    pub fn slash_device(&mut self, case: &FraudCase, rules: &Rules) -> Result<Slash, Error> {
        let before = add(self.own, self.unbonding)?;
        let taken = self.slash(mul_div(case.stake, u64::from(rules.device_slash_bps), BPS)?)?;
        let own = before.saturating_sub(add(self.own, self.unbonding)?);
        let refund = case.harm.min(own / 2);
        let bounty = mul_div(taken, u64::from(rules.bounty_bps), BPS)?.min(rules.bounty_max).min(own - refund);
        Ok(Slash { refund, bounty, burned: sub(taken, add(refund, bounty)?)? })
    }
}

#[cfg(test)]
mod tests;
