//! Spot: notices of reclaim; and what a budget's key may spend. Methods without I/O.
//!
//! A notice lapses: a supplier that gives one at the start of every lease cannot take devices back without a warning later.

use crate::{
    Error,
    arithmetic::{add, seconds_between},
    layout::{BUDGET_REVOKED, Budget, Lease, Order},
    settlement::DURATION_S_MAX,
};

/// Seconds of the day over which a budget's limit counts.
const DAY_S: u64 = 86_400;

impl Order {
    /// Takes over the terms of [`crate::instruction::PostOrderSpot`].
    ///
    /// # Errors
    /// [`Error::ParameterOutOfRange`] for a notice longer than any order.
    pub fn narrow(&mut self, notice_s: u32, region_mask: u64, score_min_milli: u16) -> Result<(), Error> {
        if notice_s > DURATION_S_MAX {
            return Err(Error::ParameterOutOfRange);
        }
        (self.notice_s, self.region_mask, self.score_min_milli) = (notice_s, region_mask, score_min_milli);
        Ok(())
    }

    /// What a slot that asks so much is paid, micro-USD per device-hour: its ask, or a spot order's bid.
    #[must_use]
    pub const fn price(&self, ask_uusd: u64) -> u64 {
        if self.notice_s == 0 { ask_uusd } else { self.price_cap_uusd }
    }

    /// Whether a region is one of those wanted.
    #[must_use]
    pub const fn wants_region(&self, region: u16) -> bool {
        let named = self.region == 0 || self.region == region;
        named && (self.region_mask == 0 || (region < 64 && (self.region_mask >> region) & 1 == 1))
    }
}

impl Lease {
    /// Gives notice. Called after [`Lease::begin`].
    ///
    /// # Errors
    /// [`Error::NotSpot`], [`Error::LeaseEnded`], [`Error::NothingToDo`] while an earlier notice holds.
    pub fn notice(&mut self, order: &Order, now: i64) -> Result<(), Error> {
        if order.notice_s == 0 {
            return Err(Error::NotSpot);
        }
        if self.devices_live == 0 || (self.end != 0 && now >= self.end) {
            return Err(Error::LeaseEnded);
        }
        let notice_s = i64::from(order.notice_s);
        if self.reclaim_at != 0 && now < self.reclaim_at.saturating_add(notice_s) {
            return Err(Error::NothingToDo);
        }
        self.reclaim_at = now.saturating_add(notice_s);
        Ok(())
    }

    /// Whether its devices may be taken back now: a notice is over, and has not lapsed.
    ///
    /// # Errors
    /// [`Error::NoticeMissing`] otherwise.
    pub fn check_reclaim(&self, order: &Order, now: i64) -> Result<(), Error> {
        let lapses = self.reclaim_at.saturating_add(i64::from(order.notice_s));
        if self.reclaim_at != 0 && (self.reclaim_at..lapses).contains(&now) {
            Ok(())
        } else {
            Err(Error::NoticeMissing)
        }
    }
}

impl Budget {
    /// Books an escrow of an order that holds `before` of this budget already.
    ///
    /// # Errors
    /// [`Error::BudgetExpired`], [`Error::BudgetExceeded`].
    pub fn spend(&mut self, before: u64, escrow: u64, now: i64) -> Result<(), Error> {
        if self.flags & BUDGET_REVOKED != 0 || now >= self.expires_at {
            return Err(Error::BudgetExpired);
        }
        let day = seconds_between(0, now) / DAY_S;
        if self.day != day {
            (self.day, self.day_spent) = (day, 0);
        }
        self.day_spent = add(self.day_spent, escrow)?;
        if add(before, escrow)? > self.order_max || self.day_spent > self.day_max {
            return Err(Error::BudgetExceeded);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot() -> (Order, Lease) {
        let (mut order, mut lease) = (Order::new(), Lease::new());
        (order.price_cap_uusd, order.notice_s) = (90, 30);
        (lease.devices_live, lease.start, lease.end) = (1, 1_000, 2_000);
        (order, lease)
    }

    #[test]
    fn a_notice_has_its_time_and_lapses() {
        let (order, mut lease) = spot();
        assert_eq!(lease.check_reclaim(&order, 1_500), Err(Error::NoticeMissing));
        lease.notice(&order, 1_100).unwrap();
        assert_eq!(lease.check_reclaim(&order, 1_129), Err(Error::NoticeMissing));
        assert_eq!(lease.check_reclaim(&order, 1_130), Ok(()));
        assert_eq!(lease.notice(&order, 1_159), Err(Error::NothingToDo));
        assert_eq!(lease.check_reclaim(&order, 1_159), Ok(()));
        assert_eq!(lease.check_reclaim(&order, 1_160), Err(Error::NoticeMissing));
        lease.notice(&order, 1_160).unwrap();
        assert_eq!(lease.check_reclaim(&order, 1_190), Ok(()));
        assert_eq!(lease.notice(&order, 2_000), Err(Error::LeaseEnded));
        assert_eq!(lease.notice(&Order::new(), 1_300), Err(Error::NotSpot));
    }

    #[test]
    fn a_spot_order_pays_its_bid_and_another_the_ask() {
        let (mut order, _) = spot();
        assert_eq!(order.price(50), 90);
        order.notice_s = 0;
        assert_eq!(order.price(50), 50);
        assert_eq!(order.narrow(DURATION_S_MAX + 1, 0, 0), Err(Error::ParameterOutOfRange));
    }

    #[test]
    fn regions_are_named_one_by_one_or_by_mask() {
        let mut order = Order::new();
        assert!(order.wants_region(3) && order.wants_region(999));
        order.region_mask = 1 << 3 | 1 << 63;
        assert_eq!(
            [0, 3, 63, 64, 67, u16::MAX].map(|region| order.wants_region(region)),
            [false, true, true, false, false, false]
        );
        order.region = 3;
        assert!(order.wants_region(3) && !order.wants_region(63));
    }

    #[test]
    fn a_budget_bounds_one_order_with_all_its_extensions() {
        let mut budget = Budget::new();
        (budget.order_max, budget.day_max, budget.expires_at) = (100, 150, 1_000_000);
        budget.spend(0, 60, 10).unwrap();
        budget.spend(60, 40, 10).unwrap();
        assert_eq!(budget.clone().spend(60, 41, 86_400), Err(Error::BudgetExceeded));
        assert_eq!(budget.clone().spend(0, 51, 10), Err(Error::BudgetExceeded));
        budget.spend(0, 51, 86_400).unwrap();
        assert_eq!(budget.spend(0, 1, 1_000_000), Err(Error::BudgetExpired));
    }
}
