//! Which server of an operator is dialled next. Pure but for the randomness that it is given.
//!
//! A link that breaks moves on at once, to any of the others: the workers of a server that died spread evenly over those
//! that are left. Every server is tried once before any is tried again, so two dead ones of three cost two attempts.

use crate::outside::{Outside, below};

/// The servers in the order of this round.
#[derive(Debug)]
pub(super) struct Route {
    order: Vec<usize>,
    /// Where in `order` the link is, or is tried.
    at: usize,
    /// Rounds in which nobody was reached.
    rounds: u32,
}

impl Route {
    /// A route over servers 0 to `servers` - 1; it begins anywhere.
    pub(super) fn new(servers: usize, outside: &dyn Outside) -> Self {
        let mut route = Self { order: (0..servers.max(1)).collect(), at: 0, rounds: 0 };
        route.shuffle(0, outside);
        route
    }

    /// The server to dial now.
    pub(super) fn server(&self) -> usize {
        self.order[self.at]
    }

    /// A link stands.
    pub(super) fn stands(&mut self) {
        // A round of its own begins after it: all others first, then this one.
        self.order.swap(0, self.at);
        (self.at, self.rounds) = (0, 0);
    }

    /// The link, or the attempt, has failed: turns to the next server. Gives how often all were tried in vain.
    pub(super) fn move_on(&mut self, outside: &dyn Outside) -> u32 {
        if self.at == 0 {
            self.shuffle(1, outside);
        }
        let rounds = self.rounds;
        self.at += 1;
        if self.at == self.order.len() {
            (self.at, self.rounds) = (0, self.rounds.saturating_add(1));
        }
        rounds
    }

    /// Shuffles the servers from a place on (Fisher and Yates).
    fn shuffle(&mut self, from: usize, outside: &dyn Outside) {
        for last in (from + 1..self.order.len()).rev() {
            let other = from + below(outside, last - from + 1);
            self.order.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::outside::still::Still;
    use atoll_domain::key::Digest;
    use atoll_domain::time::UnixMs;

    /// Well mixed, and the same every time.
    #[derive(Debug, Default)]
    struct Hashed(std::sync::atomic::AtomicU64);

    impl Outside for Hashed {
        fn now(&self) -> UnixMs {
            UnixMs(0)
        }

        fn fill(&self, bytes: &mut [u8]) {
            let turn = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let drawn = Digest::of(&turn.to_le_bytes()).0;
            bytes.iter_mut().zip(drawn).for_each(|(byte, drawn)| *byte = drawn);
        }
    }

    #[test]
    fn all_are_tried_before_one_is_tried_again_and_the_one_that_broke_comes_last() {
        let outside = Still::at(0);
        let mut route = Route::new(4, &outside);
        for _ in 0..20 {
            route.stands();
            let broken = route.server();
            let mut tried = vec![];
            for _ in 0..4 {
                assert_eq!(route.move_on(&outside), 0);
                tried.push(route.server());
            }
            assert_eq!(tried[3], broken);
            tried.sort_unstable();
            assert_eq!(tried, [0, 1, 2, 3]);
            assert_eq!(route.move_on(&outside), 1, "the pause grows with the rounds");
            route.stands();
        }
    }

    #[test]
    fn the_workers_of_a_dead_server_spread_over_the_others() {
        let outside = Hashed::default();
        let mut next: BTreeMap<usize, usize> = BTreeMap::new();
        for _ in 0..3_000 {
            let mut route = Route { order: vec![0, 1, 2, 3], at: 0, rounds: 0 };
            route.stands();
            route.move_on(&outside);
            *next.entry(route.server()).or_default() += 1;
        }
        assert_eq!(next.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        assert!(next.values().all(|count| (900..1_100).contains(count)), "{next:?}");
    }

    #[test]
    fn one_server_is_dialled_again_and_again() {
        let outside = Still::at(0);
        let mut route = Route::new(1, &outside);
        let rounds: Vec<u32> = (0..3).map(|_| route.move_on(&outside)).collect();
        assert_eq!((rounds, route.server()), (vec![0, 1, 2], 0));
    }
}
