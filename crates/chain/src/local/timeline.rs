//! The local chain's time: slots, its clock, blockhashes, forks, halts. Pure: the wall clock is an argument.
//!
//! A slot is 400 ms of the wall clock, moved ahead by warps. A halt stops slots and clock; afterwards slots go on from
//! where they stood while the clock jumps to the wall's, as when a cluster is restarted. Every slot has a block. When a
//! fork is abandoned, its slots keep their numbers, and their blocks become those of the other fork: empty, with other
//! hashes. Neither slots nor clock ever go back.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::log::Genesis;
use super::state::{BLOCKHASH_SLOTS, SLOT_FIRST, SLOT_MS, hash_of};
use crate::address::Hash;

/// The chain's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The slot.
    pub slot: u64,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

/// Slots after `base` up to `end` that were abandoned, and stand again with other blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// The last slot that both forks have.
    pub base: u64,
    /// The slot in which the other fork won.
    pub end: u64,
}

/// Everything of a timeline that a restart must bring back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// When it was last seen.
    pub now: Moment,
    /// How far its clock is ahead of the wall's.
    pub warp_ms: u64,
    /// From which slots on slots are counted from which times; the genesis first.
    pub anchors: Vec<Moment>,
    /// Abandoned forks, oldest first.
    pub forks: Vec<Fork>,
}

/// A chain's time so far.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    genesis: Genesis,
    past: Past,
    /// On the wall clock.
    halted_until_ms: Option<u64>,
    /// The blockhashes of the newest slots, oldest first.
    blockhashes: VecDeque<(u64, Hash)>,
}

/// What a step of time came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tick {
    /// Whether slot or second are others than before.
    pub(super) moved: bool,
    /// Whether a halt ended.
    pub(super) resumed: bool,
}

impl Timeline {
    /// At the chain's first moment.
    pub(super) fn new(genesis: Genesis) -> Self {
        let first = Moment { slot: SLOT_FIRST, unix_ms: genesis.unix_ms };
        Self::restored(genesis, Past { now: first, warp_ms: 0, anchors: vec![first], forks: Vec::new() })
    }

    /// Where it was.
    pub(super) fn restored(genesis: Genesis, past: Past) -> Self {
        let mut timeline = Self { genesis, past, halted_until_ms: None, blockhashes: VecDeque::new() };
        timeline.fill_blockhashes();
        timeline
    }

    /// Lets time pass up to the wall clock.
    pub(super) fn tick(&mut self, wall_ms: u64) -> Tick {
        let unix_ms = wall_ms.saturating_add(self.past.warp_ms).max(self.past.now.unix_ms);
        let mut resumed = false;
        if let Some(until_ms) = self.halted_until_ms {
            if wall_ms < until_ms {
                return Tick { moved: false, resumed: false };
            }
            self.halted_until_ms = None;
            resumed = true;
            let resumed_ms = until_ms.saturating_add(self.past.warp_ms).clamp(self.past.now.unix_ms, unix_ms);
            self.past.anchors.push(Moment { slot: self.past.now.slot + 1, unix_ms: resumed_ms });
        }
        let anchor = *self.past.anchors.last().expect("the genesis is an anchor");
        let slot = anchor.slot + unix_ms.saturating_sub(anchor.unix_ms) / SLOT_MS;
        let before = self.past.now;
        self.past.now = Moment { slot: slot.max(before.slot), unix_ms };
        let moved = self.past.now.slot != before.slot || unix_ms / 1000 != before.unix_ms / 1000;
        if moved {
            self.fill_blockhashes();
        }
        Tick { moved, resumed }
    }

    /// Takes over what a record of the log says of the time.
    pub(super) fn seen(&mut self, now: Moment, warp_ms: u64) {
        let before = self.past.now;
        let now = Moment { slot: now.slot.max(before.slot), unix_ms: now.unix_ms.max(before.unix_ms) };
        (self.past.now, self.past.warp_ms) = (now, warp_ms);
        self.fill_blockhashes();
    }

    /// Takes over the end of a halt from the log.
    pub(super) fn anchored(&mut self, anchor: Moment) {
        self.past.anchors.push(anchor);
    }

    /// Moves the clock ahead; seen at the next tick.
    pub(super) fn warp(&mut self, ms: u64) {
        self.past.warp_ms = self.past.warp_ms.saturating_add(ms);
    }

    /// Stops slots and clock until the wall clock shows this.
    pub(super) fn halt(&mut self, until_wall_ms: u64) {
        self.halted_until_ms = Some(until_wall_ms);
    }

    /// Whether it stands still.
    pub(super) const fn is_halted(&self) -> bool {
        self.halted_until_ms.is_some()
    }

    /// Abandons the blocks after `base`.
    pub(super) fn fork(&mut self, base: u64) -> Fork {
        let fork = Fork { base, end: self.past.now.slot };
        self.forked(fork);
        fork
    }

    /// Takes over an abandoned fork from the log.
    pub(super) fn forked(&mut self, fork: Fork) {
        self.past.forks.push(fork);
        while self.blockhashes.pop_back_if(|(slot, _)| *slot > fork.base).is_some() {}
        self.fill_blockhashes();
    }

    pub(super) const fn now(&self) -> Moment {
        self.past.now
    }

    pub(super) const fn past(&self) -> &Past {
        &self.past
    }

    /// When a slot begins, in milliseconds since 1970; none before the first one.
    pub(super) fn slot_ms(&self, slot: u64) -> Option<u64> {
        let anchor = self.past.anchors.iter().rfind(|anchor| anchor.slot <= slot)?;
        Some(anchor.unix_ms + (slot - anchor.slot) * SLOT_MS)
    }

    /// The hash of a slot's block. It follows from the slot's number and the forks that were abandoned there, so that
    /// hashes given out before a restart stay good for their time.
    pub(super) fn blockhash_of(&self, slot: u64) -> Hash {
        let genesis = &self.genesis.hash.0;
        let abandoned = self.past.forks.iter().rposition(|fork| fork.base < slot && slot <= fork.end);
        match abandoned {
            None => hash_of(b"atoll/local-blockhash/1\0", &[genesis, &slot.to_le_bytes()]),
            Some(fork) => {
                let fork = (fork as u64).to_le_bytes();
                hash_of(b"atoll/local-blockhash-fork/1\0", &[genesis, &slot.to_le_bytes(), &fork])
            }
        }
    }

    /// Whether it is the hash of one of the newest `slots` blocks.
    pub(super) fn blockhash_is_valid(&self, blockhash: &Hash, slots: u64) -> bool {
        let oldest = self.past.now.slot.saturating_sub(slots);
        self.blockhashes.iter().any(|(slot, known)| *slot >= oldest && known == blockhash)
    }

    fn fill_blockhashes(&mut self) {
        let now = self.past.now.slot;
        let oldest = now.saturating_sub(BLOCKHASH_SLOTS).max(SLOT_FIRST);
        let next = self.blockhashes.back().map_or(oldest, |(last, _)| (last + 1).max(oldest));
        for slot in next..=now {
            self.blockhashes.push_back((slot, self.blockhash_of(slot)));
        }
        while self.blockhashes.pop_front_if(|(first, _)| *first < oldest).is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START_MS: u64 = 1_000_000;

    fn timeline() -> Timeline {
        Timeline::new(Genesis::new(Hash([1; 32]), START_MS))
    }

    #[test]
    fn a_halt_stops_slots_and_clock_and_only_the_clock_makes_up_for_it() {
        let mut time = timeline();
        time.tick(START_MS + 4000);
        let before = time.now();
        let hash = time.blockhash_of(before.slot);
        time.halt(START_MS + 4000 + 6 * 3_600_000);
        assert_eq!(time.tick(START_MS + 3_600_000), Tick { moved: false, resumed: false });
        assert_eq!((time.now(), time.is_halted()), (before, true));
        // Looked at late: the slots since its end are there all the same.
        assert_eq!(time.tick(START_MS + 4000 + 6 * 3_600_000 + 4000), Tick { moved: true, resumed: true });
        let after = time.now();
        assert_eq!(after.slot - before.slot, 11);
        assert_eq!(after.unix_ms - before.unix_ms, 6 * 3_600_000 + 4000);
        assert!(time.blockhash_is_valid(&hash, BLOCKHASH_SLOTS));
        assert_eq!(time.slot_ms(before.slot), Some(START_MS + 4000));
        assert_eq!(time.slot_ms(before.slot + 1), Some(START_MS + 4000 + 6 * 3_600_000));
        assert_eq!(time.slot_ms(SLOT_FIRST), Some(START_MS));
        assert_eq!(time.slot_ms(SLOT_FIRST - 1), None);
    }

    #[test]
    fn the_hashes_of_an_abandoned_fork_are_good_for_nothing() {
        let mut time = timeline();
        time.tick(START_MS + 20 * SLOT_MS);
        let now = time.now().slot;
        let hashes: Vec<_> = (SLOT_FIRST..=now).map(|slot| time.blockhash_of(slot)).collect();
        time.fork(now - 5);
        for (slot, hash) in (SLOT_FIRST..=now).zip(&hashes) {
            assert_eq!(time.blockhash_is_valid(hash, BLOCKHASH_SLOTS), slot <= now - 5);
            assert!(time.blockhash_is_valid(&time.blockhash_of(slot), BLOCKHASH_SLOTS));
        }
        // Abandoned again, partly: other hashes once more.
        let second = time.blockhash_of(now);
        time.fork(now - 2);
        assert_ne!(time.blockhash_of(now), second);
        let restored = Timeline::restored(time.genesis, time.past().clone());
        assert_eq!(restored.blockhashes, time.blockhashes);
        let mut replayed = timeline();
        replayed.seen(time.now(), 0);
        time.past().forks.iter().for_each(|fork| replayed.forked(*fork));
        assert_eq!(replayed.blockhashes, time.blockhashes);
    }

    proptest! {
        #[test]
        fn nothing_goes_back_and_every_slot_has_one_time(
            steps in prop::collection::vec((0..6_u8, 0..40_000_u64), 1..60)
        ) {
            let mut time = timeline();
            let mut wall = START_MS;
            for (kind, size) in steps {
                match kind {
                    0 => wall = wall.saturating_sub(size),
                    1 => time.warp(size),
                    2 => time.halt(wall + size),
                    _ => wall += size,
                }
                let before = time.now();
                time.tick(wall);
                let now = time.now();
                prop_assert!(now.slot >= before.slot && now.unix_ms >= before.unix_ms);
                prop_assert!(time.slot_ms(now.slot).is_some_and(|ms| ms <= now.unix_ms));
                prop_assert!(time.blockhash_is_valid(&time.blockhash_of(now.slot), 0));
                let times: Vec<_> = (SLOT_FIRST..=now.slot).rev().take(300).map(|slot| time.slot_ms(slot)).collect();
                prop_assert!(times.is_sorted_by(|later, earlier| later >= earlier));
                prop_assert!(time.blockhashes.len() as u64 <= BLOCKHASH_SLOTS + 1);
            }
        }
    }
}
