//! Stake, co-stake and slashes: what they do to a supplier's books, as methods without I/O.
//!
//! **Invariant:** a stake vault holds `own + unbonding + costake + costake_leaving` of its page 0, and no co-stakers' worth
//! together is above the last two. A slash takes from all four in the same proportion; co-stake follows by an index, so that
//! no account of a co-staker need be named.

use crate::{
    ATL, Error, NO_ADDRESS,
    arithmetic::{BPS, add, mul, mul_div, mul_wide, sub},
    instruction::SetRules,
    layout::{
        ATTESTOR_SLASHED, Attestor, CO_STAKE_HELD, CO_STAKE_LEAVING, CO_STAKE_OFFERED, CO_STAKE_WAITING, CoStake,
        Config, DeviceKey, FleetPage, GpuModel, Rules, Slot,
    },
};

/// The slash index of a supplier that was never slashed.
pub const WHOLE: u64 = 1_000_000_000_000_000_000;
/// How an index of zero is written: 0 is whole.
const NOTHING: u64 = u64::MAX;
/// Below this index nobody can co-stake any more: rounding would show.
const INDEX_MIN: u64 = 1_000_000_000;
/// Offers of co-stake a supplier may have at once.
pub const OFFERS_MAX: u16 = 16;
/// Weight of a model below which stake is not lowered, thousandths.
const MULTIPLIER_MILLI_MIN: u32 = 1_000;
/// Seconds of a day.
const DAY_S: u32 = 86_400;
/// The longest of any of the rules' times: a year, in seconds.
pub(crate) const TIME_S_MAX: u32 = 366 * 86_400;

/// Stake that some devices of a model require: `stake_per_device * devices * max(1, multiplier)`.
///
/// # Errors
/// [`Error::Overflow`] when the sum does not fit.
pub fn required(config: &Config, model: &GpuModel, devices: u8) -> Result<u64, Error> {
    let weight = model.multiplier_milli.max(MULTIPLIER_MILLI_MIN);
    mul_div(mul(config.stake_per_device, u64::from(devices))?, u64::from(weight), 1_000)
}

impl Slot {
    /// Stake that its devices hold bound. Slots of before this was kept answer by today's parameters.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the sum does not fit.
    pub fn bound(&self, config: &Config, model: Option<&GpuModel>) -> Result<u64, Error> {
        match (self.required, model) {
            (0, Some(model)) => required(config, model, self.devices),
            (0, None) => mul(config.stake_per_device, u64::from(self.devices)),
            (bound, _) => Ok(bound),
        }
    }
}

/// The default rules; every one may be changed.
pub const DEFAULT_RULES: SetRules = SetRules {
    guardian: NO_ADDRESS,
    unbond_s: 14 * DAY_S,
    exit_wait_s: 7 * DAY_S,
    // 3 + 2 + 7 days are below the 14 for which stake that leaves is held.
    dispute_window_s: 3 * DAY_S,
    voting_s: 2 * DAY_S,
    appeal_s: 7 * DAY_S,
    case_s: DAY_S,
    proposal_s: 5 * DAY_S,
    timelock_s: 2 * DAY_S,
    device_slash_bps: 10_000,
    attestor_slash_bps: 10_000,
    bounty_bps: 1_000,
    // 4% of what circulates, the usual quorum of votes by token: stake is a part of the supply, and those who vote of it.
    quorum_bps: 400,
    surcharge_bps: 200,
    feed_width_bps: 200,
    hired_cap_bps: 5_000,
    enterprise_bps: 9_500,
    bounty_max: 100 * ATL,
    dispute_bond: 50 * ATL,
    proposal_stake: 10_000 * ATL,
};

/// As [`DEFAULT_RULES`], with times for a network whose epochs last seconds: a local one.
pub const LOCAL_RULES: SetRules = SetRules {
    unbond_s: 120,
    exit_wait_s: 60,
    dispute_window_s: 60,
    voting_s: 20,
    appeal_s: 30,
    case_s: 60,
    proposal_s: 60,
    timelock_s: 10,
    ..DEFAULT_RULES
};

impl Rules {
    /// Takes over what an instruction sets; [`Rules::check`] says whether that is in range.
    pub const fn set(&mut self, set: &SetRules) {
        self.guardian = set.guardian;
        self.unbond_s = set.unbond_s;
        self.exit_wait_s = set.exit_wait_s;
        self.dispute_window_s = set.dispute_window_s;
        self.voting_s = set.voting_s;
        self.appeal_s = set.appeal_s;
        self.case_s = set.case_s;
        self.proposal_s = set.proposal_s;
        self.timelock_s = set.timelock_s;
        self.device_slash_bps = set.device_slash_bps;
        self.attestor_slash_bps = set.attestor_slash_bps;
        self.bounty_bps = set.bounty_bps;
        self.quorum_bps = set.quorum_bps;
        self.surcharge_bps = set.surcharge_bps;
        self.feed_width_bps = set.feed_width_bps;
        self.hired_cap_bps = set.hired_cap_bps;
        self.enterprise_bps = set.enterprise_bps;
        self.bounty_max = set.bounty_max;
        self.dispute_bond = set.dispute_bond;
        self.proposal_stake = set.proposal_stake;
    }

    /// Whether the values are in range: nobody gets back what a fault could still cost.
    ///
    /// # Errors
    /// [`Error::ParameterOutOfRange`] otherwise.
    pub fn check(&self) -> Result<(), Error> {
        let times = [
            self.unbond_s,
            self.exit_wait_s,
            self.dispute_window_s,
            self.voting_s,
            self.appeal_s,
            self.case_s,
            self.proposal_s,
            self.timelock_s,
        ];
        let parts = [
            self.device_slash_bps,
            self.attestor_slash_bps,
            self.bounty_bps,
            self.quorum_bps,
            self.surcharge_bps,
            self.feed_width_bps,
            self.hired_cap_bps,
            self.enterprise_bps,
        ];
        let fault_s = u64::from(self.dispute_window_s) + u64::from(self.voting_s) + u64::from(self.appeal_s);
        let votes = self.proposal_s > 0 && self.quorum_bps > 0;
        let in_range = times.iter().all(|seconds| *seconds <= TIME_S_MAX)
            && votes
            && parts.iter().all(|part| u64::from(*part) <= BPS)
            && fault_s < u64::from(self.unbond_s);
        if in_range { Ok(()) } else { Err(Error::ParameterOutOfRange) }
    }
}

impl DeviceKey {
    /// Whether the key stands for the worker in a slot now.
    #[must_use]
    pub fn is_of(&self, slot: &Slot) -> bool {
        self.retired_at == 0 && self.key == slot.device_key && self.generation == slot.generation
    }

    /// Whether the account may be closed.
    ///
    /// # Errors
    /// [`Error::DeviceKeyKept`] otherwise.
    pub fn check_close(&self, rules: &Rules, now: i64) -> Result<(), Error> {
        if self.retired_at == 0 || now < self.retired_at.saturating_add(i64::from(rules.unbond_s)) {
            return Err(Error::DeviceKeyKept);
        }
        Ok(())
    }
}

impl FleetPage {
    /// What slashes left of one unit of co-stake, in [`WHOLE`]ths.
    #[must_use]
    pub const fn index(&self) -> u64 {
        match self.slash_index {
            0 => WHOLE,
            NOTHING => 0,
            index => index,
        }
    }

    /// What the stake vault must hold.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the sum does not fit.
    pub fn staked(&self) -> Result<u64, Error> {
        add(add(self.own, self.unbonding)?, add(self.costake, self.costake_leaving)?)
    }

    /// Books own stake that came in.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the sum does not fit.
    pub fn stake(&mut self, amount: u64, now: i64) -> Result<(), Error> {
        if self.own == 0 {
            self.stake_since = now;
        }
        self.own = add(self.own, amount)?;
        self.raised_at = now;
        Ok(())
    }

    /// Starts the waiting time of some own stake.
    ///
    /// # Errors
    /// [`Error::NothingToDo`] for nothing, [`Error::StakeBound`] while votes bind it, [`Error::StakeTooLow`] when devices
    /// require it, [`Error::CoStakeTooHigh`] when co-stake would be more than half.
    pub fn unstake(&mut self, amount: u64, rules: &Rules, now: i64) -> Result<(), Error> {
        if amount == 0 {
            return Err(Error::NothingToDo);
        }
        if self.votes_open != 0 {
            return Err(Error::StakeBound);
        }
        let own = self.own.checked_sub(amount).ok_or(Error::StakeTooLow)?;
        if add(own, self.costake)? < self.required {
            return Err(Error::StakeTooLow);
        }
        if self.costake > own {
            return Err(Error::CoStakeTooHigh);
        }
        self.own = own;
        self.unbonding = add(self.unbonding, amount)?;
        self.unbond_at = now.saturating_add(i64::from(rules.unbond_s));
        Ok(())
    }

    /// Takes unbonded stake out of the books; the caller moves it to the supplier.
    ///
    /// # Errors
    /// [`Error::NothingToDo`] when none is on its way, [`Error::StakeBound`] before its time is over.
    pub const fn withdraw(&mut self, now: i64) -> Result<u64, Error> {
        if self.unbonding == 0 {
            return Err(Error::NothingToDo);
        }
        if now < self.unbond_at {
            return Err(Error::StakeBound);
        }
        let amount = self.unbonding;
        self.unbonding = 0;
        Ok(amount)
    }

    /// Takes up to `amount` out of everything that is staked, in proportion; returns what was taken, which the caller moves
    /// out of the vault.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the sum does not fit.
    pub fn slash(&mut self, amount: u64) -> Result<u64, Error> {
        let total = self.staked()?;
        let taken = amount.min(total);
        if taken == 0 {
            return Ok(0);
        }
        let kept = total - taken;
        self.slash_index = match mul_div(self.index(), kept, total)? {
            0 => NOTHING,
            index => index,
        };
        self.unbonding = mul_div(self.unbonding, kept, total)?;
        // Rounded up, slash after slash: what all co-stakers are worth, fractions too, is never above these.
        self.costake = mul_div_up(self.costake, kept, total)?;
        self.costake_leaving = mul_div_up(self.costake_leaving, kept, total)?;
        let others = add(self.unbonding, add(self.costake, self.costake_leaving)?)?;
        self.own = kept.saturating_sub(others);
        // Where the supplier has nothing of its own, rounding up twice spares a unit.
        Ok(total - add(self.own, others)?)
    }

    /// Whether nothing is left on the page; on page 0, no stake either.
    ///
    /// # Errors
    /// [`Error::PageInUse`] otherwise.
    pub fn check_close(&self) -> Result<(), Error> {
        let counted = self.flags & crate::layout::PAGE_COUNTED != 0;
        let empty =
            self.free_slots == self.slot_count && self.leases_open == 0 && self.offers == 0 && self.votes_open == 0;
        if counted && empty && self.required == 0 && self.staked()? == 0 { Ok(()) } else { Err(Error::PageInUse) }
    }
}

fn mul_div_up(a: u64, b: u64, divisor: u64) -> Result<u64, Error> {
    let down = mul_div(a, b, divisor)?;
    if mul_wide(down, divisor) == mul_wide(a, b) { Ok(down) } else { add(down, 1) }
}

impl CoStake {
    /// What it is worth after its supplier's slashes, base units.
    ///
    /// # Errors
    /// [`Error::Overflow`] when it was never accepted.
    pub fn worth(&self, page: &FleetPage) -> Result<u64, Error> {
        // Of nothing there is no proportion: it may have been slashed to nothing before it began to leave.
        if self.amount == 0 { Ok(0) } else { mul_div(self.amount, page.index(), self.slash_index) }
    }

    /// Books an accepted offer.
    ///
    /// # Errors
    /// [`Error::CoStakeStateWrong`] when it was accepted before, [`Error::OfferChanged`] for other terms,
    /// [`Error::CoStakeTooHigh`] when co-stake would be more than half, or the supplier was slashed to almost nothing.
    pub fn accept(
        &mut self,
        page: &mut FleetPage,
        staker: &crate::Address,
        terms: (u64, u16),
        now: i64,
    ) -> Result<(), Error> {
        if self.state != CO_STAKE_OFFERED {
            return Err(Error::CoStakeStateWrong);
        }
        if terms != (self.amount, self.reward_bps) {
            return Err(Error::OfferChanged);
        }
        let costake = add(page.costake, self.amount)?;
        if costake > page.own || page.index() < INDEX_MIN {
            return Err(Error::CoStakeTooHigh);
        }
        page.costake = costake;
        self.state = CO_STAKE_HELD;
        self.staker = *staker;
        self.slash_index = page.index();
        self.accepted_at = now;
        Ok(())
    }

    /// The co-staker asks to leave: it counts for the waiting time.
    ///
    /// # Errors
    /// [`Error::CoStakeStateWrong`] when it is not held, [`Error::StakeBound`] while its votes bind it.
    pub fn wait(&mut self, rules: &Rules, now: i64) -> Result<(), Error> {
        if self.state != CO_STAKE_HELD {
            return Err(Error::CoStakeStateWrong);
        }
        if self.votes_open != 0 {
            return Err(Error::StakeBound);
        }
        self.state = CO_STAKE_WAITING;
        self.until = now.saturating_add(i64::from(rules.exit_wait_s));
        Ok(())
    }

    /// It counts no more, and stays slashable for the time of unbonding.
    ///
    /// # Errors
    /// [`Error::CoStakeStateWrong`], [`Error::StakeBound`] before its time.
    pub fn leave(&mut self, page: &mut FleetPage, rules: &Rules, now: i64) -> Result<(), Error> {
        if self.state != CO_STAKE_WAITING {
            return Err(Error::CoStakeStateWrong);
        }
        if now < self.until {
            return Err(Error::StakeBound);
        }
        let worth = self.worth(page)?;
        page.costake = sub(page.costake, worth)?;
        page.costake_leaving = add(page.costake_leaving, worth)?;
        (self.amount, self.slash_index) = (worth, page.index());
        self.state = CO_STAKE_LEAVING;
        self.until = now.saturating_add(i64::from(rules.unbond_s));
        Ok(())
    }

    /// Takes it out of the books; the caller moves it to the co-staker and closes the account.
    ///
    /// # Errors
    /// [`Error::CoStakeStateWrong`], [`Error::StakeBound`] before its time.
    pub fn pay_out(&self, page: &mut FleetPage, now: i64) -> Result<u64, Error> {
        if self.state != CO_STAKE_LEAVING {
            return Err(Error::CoStakeStateWrong);
        }
        if now < self.until {
            return Err(Error::StakeBound);
        }
        let worth = self.worth(page)?;
        page.costake_leaving = sub(page.costake_leaving, worth)?;
        self.forget(page)?;
        Ok(worth)
    }

    /// Books that the offer is gone. With the last one, what slashes rounded down goes to the supplier's own stake, and the
    /// index is whole again.
    ///
    /// # Errors
    /// [`Error::Overflow`] when the page counts none.
    pub fn forget(&self, page: &mut FleetPage) -> Result<(), Error> {
        page.offers = page.offers.checked_sub(1).ok_or(Error::Overflow)?;
        if page.offers == 0 {
            page.own = add(page.own, add(page.costake, page.costake_leaving)?)?;
            (page.costake, page.costake_leaving, page.slash_index) = (0, 0, 0);
        }
        Ok(())
    }
}

/// Where slashed stake goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slash {
    /// To the harmed renter, base units.
    pub refund: u64,
    /// To who proved the fault, base units.
    pub bounty: u64,
    /// Base units burned.
    pub burned: u64,
}

impl Attestor {
    /// Takes an attestor's stake for two roots of one epoch; its key votes no more. The caller moves what is returned.
    ///
    /// # Errors
    /// [`Error::AttestorSlashed`] when it was slashed before.
    pub fn slash(&mut self, rules: &Rules) -> Result<Slash, Error> {
        if self.flags & ATTESTOR_SLASHED != 0 {
            return Err(Error::AttestorSlashed);
        }
        let taken = mul_div(self.stake, u64::from(rules.attestor_slash_bps), BPS)?;
        let bounty = mul_div(taken, u64::from(rules.bounty_bps), BPS)?.min(rules.bounty_max);
        self.stake = sub(self.stake, taken)?;
        self.flags |= ATTESTOR_SLASHED;
        Ok(Slash { refund: 0, bounty, burned: sub(taken, bounty)? })
    }
}

#[cfg(test)]
mod tests;
