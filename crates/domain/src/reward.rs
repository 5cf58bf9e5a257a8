//! What an hour's work earns each supplier: the sums under the root that attestors post for it.
//!
//! The hour's amount of the emission table divides between the tiers, and within a tier by device-seconds that were served
//! and checked, times the model's weight. Of each tier's part, hired time earns a bonus first; what is left is the base,
//! for hired and unhired time alike.
//!
//! **Invariant:** a lease's bonuses never come to more than half of the fees that it burned. Who hires itself pays all of
//! its fees to get back at most a quarter of them; and where no fees burn, hiring takes nothing from anybody's base.
//! [`selfdeal`] works out what is left of it.
//!
//! Pure: who served, what was checked and which fees were burned is for its caller to know, from meters, challenges and
//! the chain.

pub mod selfdeal;

use std::collections::BTreeMap;

use atoll_interface::{
    Address,
    arithmetic::BPS,
    layout::{Rules, TIER_ENTERPRISE},
};

/// Of an hour's part of a tier, bonuses take at most half; what is due beyond waits for later hours.
const BONUS_SHARE: u128 = 2;

/// How an hour's amount divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The enterprise tier's part, basis points; the rest is the community's.
    pub enterprise_bps: u16,
    /// Part of a lease's burned fees that its bonuses may come to, basis points.
    pub hired_cap_bps: u16,
    /// What a hired second counts beside its base, thousandths of an unhired one.
    pub hired_extra_milli: u32,
}

impl Terms {
    /// What a hired second counts beside its base: as much again.
    pub const HIRED_EXTRA_MILLI: u32 = 1_000;

    /// The terms that the chain's rules set.
    #[must_use]
    pub const fn of(rules: &Rules) -> Self {
        Self {
            enterprise_bps: rules.enterprise_bps,
            hired_cap_bps: rules.hired_cap_bps,
            hired_extra_milli: Self::HIRED_EXTRA_MILLI,
        }
    }
}

/// What one worker's devices did in an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// Page 0 of its supplier.
    pub page: Address,
    /// Tier of its model, as in the catalogue.
    pub tier: u8,
    /// Weight of its model, thousandths.
    pub multiplier_milli: u32,
    /// Device-seconds served and checked, hired or not.
    pub checked_s: u64,
    /// Of these, device-seconds of each lease; all together no more than `checked_s`, what is above does not count.
    pub hired_s: BTreeMap<Address, u64>,
}

/// A lease's bonuses.
#[derive(Clone, Debug, Default)]
struct Hiring {
    page: Address,
    /// What its hired time would have earned so far, by tier: community, enterprise.
    wanted: [u128; 2],
    given: [u128; 2],
    burned: u64,
}

/// What every supplier has earned since the beginning.
#[derive(Clone, Debug, Default)]
pub struct Books {
    sums: BTreeMap<Address, u64>,
    hirings: BTreeMap<Address, Hiring>,
}

impl Books {
    /// Books an hour that gives `pool` base units. `burned` are the fees that each lease burned on the chain up to the end
    /// of the hour, base units of ATL. What nobody earned is given to nobody.
    pub fn hour(&mut self, pool: u64, terms: &Terms, work: &[Work], burned: &BTreeMap<Address, u64>) {
        for (lease, burned) in burned {
            let hiring = self.hirings.entry(*lease).or_default();
            hiring.burned = hiring.burned.max(*burned);
        }
        let enterprise = u128::from(pool) * u128::from(terms.enterprise_bps) / u128::from(BPS);
        for (tier, pool) in [u128::from(pool).saturating_sub(enterprise), enterprise].into_iter().enumerate() {
            self.tier(tier, pool, terms, work);
        }
    }

    fn tier(&mut self, tier: usize, pool: u128, terms: &Terms, work: &[Work]) {
        let work: Vec<&Work> = work.iter().filter(|work| usize::from(work.tier == TIER_ENTERPRISE) == tier).collect();
        // Thousandths of thousandths, so that nothing is rounded before it is divided.
        let weight = |work: &Work, seconds: u64| u128::from(seconds) * u128::from(work.multiplier_milli);
        let base: u128 = work.iter().map(|work| weight(work, work.checked_s)).sum();
        if base == 0 {
            return;
        }
        let extra = u128::from(terms.hired_extra_milli);
        let mut hired: Vec<(Address, Address, u128)> = Vec::new();
        for work in &work {
            let mut rest = work.checked_s;
            for (lease, seconds) in &work.hired_s {
                let seconds = rest.min(*seconds);
                rest -= seconds;
                hired.push((*lease, work.page, weight(work, seconds) * extra));
            }
        }
        let all = base * 1_000 + hired.iter().map(|(.., points)| points).sum::<u128>();
        for (lease, page, points) in hired {
            let hiring = self.hirings.entry(lease).or_default();
            hiring.page = page;
            hiring.wanted[tier] += pool * points / all;
        }
        let left = pool - self.bonuses(tier, pool / BONUS_SHARE, terms);
        for work in work {
            self.pay(work.page, left * weight(work, work.checked_s) / base);
        }
    }

    /// Pays what is due of bonuses, at most `limit`; returns how much that was.
    fn bonuses(&mut self, tier: usize, limit: u128, terms: &Terms) -> u128 {
        let due = |hiring: &Hiring| {
            let cap = u128::from(hiring.burned) * u128::from(terms.hired_cap_bps) / u128::from(BPS);
            let room = cap.saturating_sub(hiring.given.iter().sum());
            room.min(hiring.wanted[tier].saturating_sub(hiring.given[tier]))
        };
        let all: u128 = self.hirings.values().map(due).sum();
        let mut paid = 0;
        let mut pays = Vec::new();
        for hiring in self.hirings.values_mut() {
            let amount = if all > limit { due(hiring) * limit / all } else { due(hiring) };
            hiring.given[tier] += amount;
            paid += amount;
            pays.push((hiring.page, amount));
        }
        for (page, amount) in pays {
            self.pay(page, amount);
        }
        paid
    }

    fn pay(&mut self, page: Address, amount: u128) {
        if amount > 0 {
            let amount = u64::try_from(amount).expect("a part of an hour's amount, which has 64 bits");
            *self.sums.entry(page).or_default() += amount;
        }
    }

    /// Forgets a lease that is closed, with what was due to it.
    pub fn forget(&mut self, lease: &Address) {
        self.hirings.remove(lease);
    }

    /// (page 0, sum so far) of every supplier that earned anything, by page: the leaves of the newest root.
    pub fn leaves(&self) -> impl Iterator<Item = (Address, u64)> + '_ {
        self.sums.iter().map(|(page, sum)| (*page, *sum))
    }

    /// Sum of all leaves, base units.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.sums.values().sum()
    }

    /// What one supplier has earned, base units.
    #[must_use]
    pub fn earned(&self, page: &Address) -> u64 {
        self.sums.get(page).copied().unwrap_or_default()
    }

    /// What a lease's bonuses came to, base units.
    #[must_use]
    pub fn bonus(&self, lease: &Address) -> u128 {
        self.hirings.get(lease).map_or(0, |hiring| hiring.given.iter().sum())
    }
}

#[cfg(test)]
mod tests;
