//! What was promised at genesis: how much may be promised, and what of it is due.
//!
//! Nothing is due before the cliff; from it on the part of the time that is over, counted from the start; at the end all
//! of it, to the unit. A vesting is never taken back or changed: the program has no instruction for that.

use crate::{
    ATL, Error, NO_ADDRESS,
    arithmetic::{add, mul_div, seconds_between, sub},
    emission,
    instruction::GrantVesting,
    layout::{Rules, Vesting},
};

/// All ATL that there can ever be, base units: what is promised at genesis, and [`emission::TOTAL`].
pub const CAP: u64 = 800_000_000 * ATL;
/// What all vestings together may promise, base units.
pub const GENESIS: u64 = CAP - emission::TOTAL;
/// The longest vesting, and how far its start may lie from the day on which it is made: 20 years of 365 days, in seconds, as
/// long as rewards are given. A date that was mistyped would lock the tokens for ever.
pub const SECONDS_MAX: u64 = 20 * 365 * 86_400;

impl GrantVesting {
    /// Whether it can be promised at the second `now`.
    ///
    /// # Errors
    /// [`Error::NothingToDo`] for nothing, [`Error::ParameterOutOfRange`] for nobody, times out of range, or a cliff after
    /// the end.
    pub fn check(&self, now: i64) -> Result<(), Error> {
        if self.total == 0 {
            return Err(Error::NothingToDo);
        }
        let away = seconds_between(self.start, now).max(seconds_between(now, self.start));
        let in_range = self.beneficiary != NO_ADDRESS
            && self.duration_s > 0
            && self.duration_s <= SECONDS_MAX
            && self.cliff_s <= self.duration_s
            && away <= SECONDS_MAX;
        if in_range { Ok(()) } else { Err(Error::ParameterOutOfRange) }
    }
}

impl Rules {
    /// Books a new promise. `supply` is what was minted less what was burned, `emission` what lies in the account from which
    /// rewards are paid: what it lacks for the rewards that are still to come will be minted, and counts as if it were.
    ///
    /// # Errors
    /// [`Error::AboveSupplyCap`] when all vestings promise more than [`GENESIS`], or when what exists and what rewards still
    /// need is more than [`CAP`].
    pub fn promise(&mut self, total: u64, supply: u64, emission: u64) -> Result<(), Error> {
        let to_come = sub(emission::TOTAL, self.rewards_claimed)?.saturating_sub(emission);
        let promised = add(self.vesting_total, total)?;
        if promised > GENESIS || add(supply, to_come)? > CAP {
            return Err(Error::AboveSupplyCap);
        }
        self.vesting_total = promised;
        self.vesting_held = add(self.vesting_held, total)?;
        Ok(())
    }

    /// What circulates of `supply`, base units: neither what vestings hold, nor what waits to be given as rewards in the
    /// account of which `emission` is the balance.
    #[must_use]
    pub const fn circulating(&self, supply: u64, emission: u64) -> u64 {
        supply.saturating_sub(self.vesting_held).saturating_sub(emission)
    }
}

impl Vesting {
    /// Writes the terms of a promise.
    pub const fn open(&mut self, grant: &GrantVesting) {
        self.n = grant.n;
        self.beneficiary = grant.beneficiary;
        self.total = grant.total;
        self.start = grant.start;
        self.cliff_s = grant.cliff_s;
        self.duration_s = grant.duration_s;
        self.name = grant.name;
    }

    /// What is due at the second `now`, paid or not, base units.
    ///
    /// # Errors
    /// [`Error::Overflow`] never, for terms that [`GrantVesting::check`] let in.
    pub fn due(&self, now: i64) -> Result<u64, Error> {
        let elapsed = seconds_between(self.start, now);
        if elapsed < self.cliff_s {
            return Ok(0);
        }
        if elapsed >= self.duration_s {
            return Ok(self.total);
        }
        mul_div(self.total, elapsed, self.duration_s)
    }

    /// Books that what is due and was not paid is paid; returns it, base units.
    ///
    /// # Errors
    /// [`Error::NothingToDo`] when nothing is due that was not paid.
    pub fn claim(&mut self, rules: &mut Rules, now: i64) -> Result<u64, Error> {
        let due = self.due(now)?;
        // A clock that was set back makes less due than was paid.
        if due <= self.claimed {
            return Err(Error::NothingToDo);
        }
        let amount = sub(due, self.claimed)?;
        rules.vesting_held = sub(rules.vesting_held, amount)?;
        self.claimed = due;
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400;

    fn grant() -> GrantVesting {
        GrantVesting {
            beneficiary: [1; 32],
            n: 3,
            total: 1_000,
            start: 100,
            cliff_s: 250,
            duration_s: 1_000,
            name: [0; 32],
        }
    }

    fn vesting(grant: &GrantVesting) -> Vesting {
        let mut vesting = Vesting::new();
        vesting.open(grant);
        vesting
    }

    #[test]
    fn nothing_before_the_cliff_all_of_it_at_the_end() {
        let vesting = vesting(&grant());
        for (now, due) in [
            (i64::MIN, 0),
            (99, 0),
            (100, 0),
            (349, 0),
            (350, 250),
            (351, 251),
            (1_099, 999),
            (1_100, 1_000),
            (i64::MAX, 1_000),
        ] {
            assert_eq!(vesting.due(now), Ok(due), "at {now}");
        }
        let odd = Vesting { total: 10, cliff_s: 0, duration_s: 3, ..vesting };
        assert_eq!([100, 101, 102, 103].map(|now| odd.due(now).unwrap()), [0, 3, 6, 10]);
        let largest = Vesting { total: GENESIS, start: 0, cliff_s: 0, duration_s: SECONDS_MAX, ..vesting };
        assert_eq!(largest.due(i64::try_from(SECONDS_MAX).unwrap() - 1), Ok(GENESIS - GENESIS.div_ceil(SECONDS_MAX)));
    }

    #[test]
    fn a_cliff_at_the_end_gives_all_at_once() {
        let vesting = vesting(&GrantVesting { cliff_s: 1_000, ..grant() });
        assert_eq!((vesting.due(1_099), vesting.due(1_100)), (Ok(0), Ok(1_000)));
    }

    #[test]
    fn promises_out_of_range_are_refused() {
        let now = 1_800_000_000;
        let good = GrantVesting { start: now, ..grant() };
        let most = i64::try_from(SECONDS_MAX).unwrap();
        for (grant, outcome) in [
            (good, Ok(())),
            (GrantVesting { total: 0, ..good }, Err(Error::NothingToDo)),
            (GrantVesting { beneficiary: NO_ADDRESS, ..good }, Err(Error::ParameterOutOfRange)),
            (GrantVesting { cliff_s: 0, duration_s: 0, ..good }, Err(Error::ParameterOutOfRange)),
            (GrantVesting { cliff_s: 0, duration_s: 1, ..good }, Ok(())),
            (GrantVesting { cliff_s: 1_001, ..good }, Err(Error::ParameterOutOfRange)),
            (GrantVesting { cliff_s: 4 * DAY, duration_s: SECONDS_MAX, ..good }, Ok(())),
            (GrantVesting { duration_s: SECONDS_MAX + 1, ..good }, Err(Error::ParameterOutOfRange)),
            (GrantVesting { start: now + most, ..good }, Ok(())),
            (GrantVesting { start: now + most + 1, ..good }, Err(Error::ParameterOutOfRange)),
            (GrantVesting { start: now - most, ..good }, Ok(())),
            (GrantVesting { start: now - most - 1, ..good }, Err(Error::ParameterOutOfRange)),
            (GrantVesting { start: i64::MAX, ..good }, Err(Error::ParameterOutOfRange)),
            (GrantVesting { start: i64::MIN, ..good }, Err(Error::ParameterOutOfRange)),
        ] {
            assert_eq!(grant.check(now), outcome, "{grant:?}");
        }
    }

    #[test]
    fn there_is_never_more_than_the_cap() {
        let promise = |rules: &mut Rules, total, supply, emission| rules.promise(total, supply, emission);
        let above = Err(Error::AboveSupplyCap);
        // All minted at genesis, rewards among it.
        let mut rules = Rules::new();
        assert_eq!(promise(&mut rules, GENESIS, CAP + 1, emission::TOTAL), above);
        assert_eq!(promise(&mut rules, GENESIS + 1, CAP, emission::TOTAL), above);
        assert_eq!(promise(&mut rules, GENESIS, CAP, emission::TOTAL), Ok(()));
        assert_eq!((rules.vesting_total, rules.vesting_held), (GENESIS, GENESIS));
        assert_eq!(promise(&mut rules, 1, CAP, emission::TOTAL), above);
        // What is paid may not be promised once more.
        rules.vesting_held = 0;
        assert_eq!(promise(&mut rules, 1, CAP, emission::TOTAL), above);
        // Rewards that are not minted yet count as if they were.
        let mut rules = Rules::new();
        assert_eq!(promise(&mut rules, 1, GENESIS + 1, 0), above);
        assert_eq!(promise(&mut rules, 1, GENESIS + 1, 1), Ok(()));
        // Rewards that were given are among what exists.
        rules.rewards_claimed = emission::TOTAL;
        assert_eq!(promise(&mut rules, 1, CAP, 0), Ok(()));
        // Somebody gave the rewards' account more than the table gives: that circulates no more, and makes no room.
        assert_eq!(promise(&mut rules, 1, CAP + 1, 2), above);
        assert_eq!(promise(&mut rules, u64::MAX, CAP, 0), Err(Error::Overflow));
    }

    #[test]
    fn what_is_held_and_what_waits_does_not_circulate() {
        let mut rules = Rules::new();
        rules.vesting_held = 60;
        assert_eq!(rules.circulating(100, 30), 10);
        assert_eq!(rules.circulating(100, 41), 0);
        assert_eq!(rules.circulating(50, 0), 0);
    }

    proptest! {
        /// Whenever it is asked, whatever the clock does: what was paid is what was due at the latest second seen, all of it
        /// after the end, and the rules hold the rest.
        #[test]
        fn nothing_is_paid_twice_and_nothing_is_lost(
            total in 1..=GENESIS,
            duration_s in 1u64..=SECONDS_MAX,
            cliff in 0u64..=1_000,
            asked in prop::collection::vec(0u64..=1_200, 1..30),
        ) {
            let cliff_s = mul_div(duration_s, cliff, 1_000).unwrap();
            let mut held = vesting(&GrantVesting { total, duration_s, cliff_s, ..grant() });
            let mut rules = Rules::new();
            rules.promise(total, 0, emission::TOTAL).unwrap();
            let (mut paid, mut latest) = (0, 0);
            let end = 100 + i64::try_from(duration_s).unwrap();
            let times = asked.iter().map(|part| 100 + i64::try_from(mul_div(duration_s, *part, 1_000).unwrap()).unwrap());
            for now in times.chain([end]) {
                match held.claim(&mut rules, now) {
                    Ok(amount) => paid += amount,
                    Err(error) => prop_assert_eq!(error, Error::NothingToDo),
                }
                latest = latest.max(held.due(now).unwrap());
                prop_assert_eq!((held.claimed, rules.vesting_held), (paid, total - paid));
                prop_assert_eq!(paid, latest);
            }
            prop_assert_eq!(paid, total);
            prop_assert_eq!(held.claim(&mut rules, i64::MAX), Err(Error::NothingToDo));
        }
    }
}
