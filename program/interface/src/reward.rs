//! Rewards of suppliers: what attestors may say of an hour, and what a supplier takes of it.
//!
//! A leaf says what a supplier has earned since the beginning, so that the newest says everything and a claim is one
//! number. How much an hour's work earns is the network's to work out (`atoll_domain::reward`); the chain holds the sum to
//! the table of [`crate::emission`].

use crate::{
    Address, Error, Hash,
    arithmetic::{HOUR_S, add, seconds_between, sub},
    emission,
    layout::{Attestor, Claim, Reward, Rules},
    merkle::LEAF,
    votes,
};

/// SHA-256(0x00 ‖ page ‖ sum): a supplier's page 0 and what it has earned so far in base units, little-endian.
pub fn leaf_hash(sha256: impl Fn(&[&[u8]]) -> Hash, page: &Address, sum: u64) -> Hash {
    let mut bytes = [LEAF; 1 + 32 + 8];
    bytes[1..33].copy_from_slice(page);
    bytes[33..].copy_from_slice(&sum.to_le_bytes());
    sha256(&[&bytes])
}

impl Rules {
    /// How many hours of rewards are over.
    #[must_use]
    pub fn reward_hours(&self, now: i64) -> u64 {
        if self.reward_zero == 0 { 0 } else { seconds_between(self.reward_zero, now) / HOUR_S }
    }

    /// Whether attestors may say of an hour that it earned `total` in all so far.
    ///
    /// # Errors
    /// [`Error::HourNotOver`], [`Error::AboveEmission`].
    pub fn check_reward(&self, hour: u64, total: u64, now: i64) -> Result<(), Error> {
        if hour >= self.reward_hours(now) {
            return Err(Error::HourNotOver);
        }
        if total > emission::given(hour.saturating_add(1)) { Err(Error::AboveEmission) } else { Ok(()) }
    }
}

impl Attestor {
    /// Takes note that the key votes for an hour, which it does for rising ones only.
    ///
    /// # Errors
    /// [`Error::VoteRepeated`] for an hour that is not above all earlier ones.
    pub fn vote_hour(&mut self, hour: u64) -> Result<(), Error> {
        if hour < self.next_hour {
            return Err(Error::VoteRepeated);
        }
        self.next_hour = add(hour, 1)?;
        Ok(())
    }
}

impl Reward {
    /// Counts a seat's vote.
    ///
    /// # Errors
    /// As [`votes::cast`].
    pub fn vote(&mut self, seat: u16, threshold: u16, now: i64) -> Result<(), Error> {
        votes::cast(&mut self.votes, &mut self.vote_count, seat)?;
        if self.final_at == 0 && self.vote_count >= threshold {
            self.final_at = now;
        }
        Ok(())
    }

    /// Whether its leaves pay.
    ///
    /// # Errors
    /// [`Error::RewardNotFinal`] before it is final and out of its hold.
    pub fn check_pays(&self, hold_s: u32, now: i64) -> Result<(), Error> {
        if self.final_at == 0 || now < self.final_at.saturating_add(i64::from(hold_s)) {
            return Err(Error::RewardNotFinal);
        }
        Ok(())
    }
}

impl Claim {
    /// Books that the supplier takes what a leaf under `reward` says, `sum`, less what it took before; returns the
    /// difference. All suppliers together take no more than the highest total that a root they used says.
    ///
    /// # Errors
    /// [`Error::NothingToDo`] when it took as much, [`Error::AboveEmission`] when the leaves say more than the total.
    pub fn take(&mut self, rules: &mut Rules, reward: &Reward, sum: u64) -> Result<u64, Error> {
        if sum <= self.claimed {
            return Err(Error::NothingToDo);
        }
        let amount = sub(sum, self.claimed)?;
        rules.rewards_total = rules.rewards_total.max(reward.total);
        rules.rewards_claimed = add(rules.rewards_claimed, amount)?;
        if rules.rewards_claimed > rules.rewards_total {
            return Err(Error::AboveEmission);
        }
        self.claimed = sum;
        self.hour = self.hour.max(reward.hour);
        Ok(amount)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::sha256;
    use proptest::prelude::*;

    fn rules() -> Rules {
        let mut rules = Rules::new();
        rules.reward_zero = 1_000;
        rules
    }

    #[test]
    fn a_leaf_hashes_page_and_sum() {
        assert_eq!(leaf_hash(sha256, &[7; 32], 258), sha256(&[&[0], &[7; 32], &[2, 1, 0, 0, 0, 0, 0, 0]]));
    }

    #[test]
    fn an_hour_is_over_when_it_is_and_gives_what_the_table_says() {
        let rules = rules();
        let check = |hour, total, now| rules.check_reward(hour, total, now);
        assert_eq!(check(0, 0, 4_599), Err(Error::HourNotOver));
        assert_eq!(check(0, emission::hour(0), 4_600), Ok(()));
        assert_eq!(check(0, emission::hour(0) + 1, 4_600), Err(Error::AboveEmission));
        assert_eq!(check(1, 0, 4_600), Err(Error::HourNotOver));
        let late = 1_000 + 3_600 * 200_000;
        assert_eq!(check(199_999, emission::TOTAL, late), Ok(()));
        assert_eq!(check(199_999, emission::TOTAL + 1, late), Err(Error::AboveEmission));
        assert_eq!(check(u64::MAX, 0, i64::MAX), Err(Error::HourNotOver));
        assert_eq!(Rules::new().check_reward(0, 0, i64::MAX), Err(Error::HourNotOver), "before rewards begin");
    }

    #[test]
    fn a_key_votes_for_rising_hours_and_a_root_pays_after_its_hold() {
        let mut attestor = Attestor::new();
        assert_eq!(attestor.vote_hour(3), Ok(()));
        assert_eq!(attestor.vote_hour(3), Err(Error::VoteRepeated));
        assert_eq!(attestor.vote_hour(0), Err(Error::VoteRepeated));
        assert_eq!(attestor.vote_hour(4), Ok(()));
        let mut reward = Reward::new();
        assert_eq!(reward.vote(0, 2, 10), Ok(()));
        assert_eq!(reward.check_pays(5, i64::MAX), Err(Error::RewardNotFinal));
        assert_eq!(reward.vote(0, 2, 11), Err(Error::VoteRepeated));
        assert_eq!(reward.vote(1, 2, 12), Ok(()));
        assert_eq!(reward.vote(2, 2, 13), Ok(()));
        assert_eq!((reward.check_pays(5, 16), reward.check_pays(5, 17)), (Err(Error::RewardNotFinal), Ok(())));
    }

    proptest! {
        /// Any leaves under any roots, in any order: nobody takes twice, and all no more than a root said.
        #[test]
        fn nothing_is_taken_twice(claims in prop::collection::vec((0usize..3, 0u64..100, 0u64..200), 1..40)) {
            let (mut rules, mut books, mut taken, mut highest) = (rules(), [Claim::new(); 3], [0; 3], 0);
            for (who, sum, total) in claims {
                let mut reward = Reward::new();
                reward.total = total;
                let before = (rules, books);
                match books[who].take(&mut rules, &reward, sum) {
                    Ok(amount) => {
                        taken[who] += amount;
                        highest = highest.max(total);
                        prop_assert!(amount > 0 && taken[who] == sum);
                    }
                    Err(Error::NothingToDo) => prop_assert!(sum <= taken[who]),
                    // The program undoes what a refused instruction wrote.
                    Err(_) => {
                        prop_assert!(taken.iter().sum::<u64>() - taken[who] + sum > highest.max(total));
                        (rules, books) = before;
                    }
                }
                prop_assert_eq!(rules.rewards_claimed, taken.iter().sum::<u64>());
                prop_assert!(rules.rewards_claimed <= highest);
            }
        }
    }
}
