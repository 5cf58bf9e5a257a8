//! What accounts were at slots that are not settled yet, so that they can be read as they were and put back. Pure.
//!
//! Kept for a window of slots only: for each account that changed in it, what it was before each slot that changed it.
//! A chain whose slots settle at once keeps nothing.

use std::collections::{BTreeMap, VecDeque};

/// Values by key before the slots of a window.
#[derive(Debug, Clone)]
pub(super) struct Versions<K, V> {
    /// For each key, oldest first: a slot that changed it, and the value before that slot.
    before: BTreeMap<K, VecDeque<(u64, V)>>,
    /// For each slot, oldest first: the keys that it changed.
    changed: VecDeque<(u64, Vec<K>)>,
}

impl<K, V> Default for Versions<K, V> {
    fn default() -> Self {
        Self { before: BTreeMap::new(), changed: VecDeque::new() }
    }
}

impl<K: Ord + Copy, V> Versions<K, V> {
    /// Notes that `slot`, which is not before any noted so far, changes `key` from `before`.
    pub(super) fn note(&mut self, slot: u64, key: K, before: V) {
        let versions = self.before.entry(key).or_default();
        if versions.back().is_some_and(|(last, _)| *last == slot) {
            return;
        }
        versions.push_back((slot, before));
        match self.changed.back_mut() {
            Some((last, keys)) if *last == slot => keys.push(key),
            _ => self.changed.push_back((slot, vec![key])),
        }
    }

    /// What `key` was at the end of `slot`; none when it is today what it was then.
    pub(super) fn at(&self, key: &K, slot: u64) -> Option<&V> {
        let versions = self.before.get(key)?;
        let later = versions.partition_point(|(changed, _)| *changed <= slot);
        versions.get(later).map(|(_, before)| before)
    }

    /// The keys that changed after the end of `slot`, in order, with what they were then.
    pub(super) fn changed_after(&self, slot: u64) -> BTreeMap<K, &V> {
        let slots = self.changed.iter().rev().take_while(|(changed, _)| *changed > slot);
        let keys = slots.flat_map(|(_, keys)| keys);
        keys.filter_map(|key| self.at(key, slot).map(|before| (*key, before))).collect()
    }

    /// Forgets all slots after `slot`; gives what changed in them, as it was at its end.
    pub(super) fn roll_back(&mut self, slot: u64) -> BTreeMap<K, V> {
        let mut restored = BTreeMap::new();
        while let Some((_, keys)) = self.changed.pop_back_if(|(changed, _)| *changed > slot) {
            for key in keys {
                let versions = self.before.get_mut(&key);
                // The oldest of them is the last to come, and stays.
                if let Some((_, before)) = versions.and_then(VecDeque::pop_back) {
                    restored.insert(key, before);
                }
                self.drop_if_empty(&key);
            }
        }
        restored
    }

    /// Forgets what was before `slot` and the slots before it: nobody asks for their beginning any more.
    pub(super) fn settle(&mut self, slot: u64) {
        while let Some((_, keys)) = self.changed.pop_front_if(|(changed, _)| *changed <= slot) {
            for key in keys {
                if let Some(versions) = self.before.get_mut(&key) {
                    versions.pop_front();
                }
                self.drop_if_empty(&key);
            }
        }
    }

    fn drop_if_empty(&mut self, key: &K) {
        if self.before.get(key).is_some_and(VecDeque::is_empty) {
            self.before.remove(key);
        }
    }

    /// Whether nothing is kept.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.before.is_empty() && self.changed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is done to both, the versions and a model that keeps a copy of everything at the end of each slot.
    #[derive(Debug, Clone)]
    enum Step {
        Write { key: u8, value: u32 },
        Advance(u64),
        Settle { slots_ago: u64 },
        RollBack { slots_ago: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..5_u8, any::<u32>()).prop_map(|(key, value)| Step::Write { key, value }),
            3 => (1..4_u64).prop_map(Step::Advance),
            1 => (0..9_u64).prop_map(|slots_ago| Step::Settle { slots_ago }),
            1 => (0..9_u64).prop_map(|slots_ago| Step::RollBack { slots_ago }),
        ]
    }

    proptest! {
        #[test]
        fn versions_are_what_a_copy_of_every_slot_would_be(steps in prop::collection::vec(step(), 1..120)) {
            let mut versions = Versions::<u8, Option<u32>>::default();
            let mut now = BTreeMap::<u8, u32>::new();
            // The state at the end of each slot; the current one's is `now`.
            let mut ends = BTreeMap::<u64, BTreeMap<u8, u32>>::new();
            let (mut slot, mut floor) = (100_u64, 100_u64);
            ends.insert(slot, now.clone());
            for step in steps {
                match step {
                    Step::Write { key, value } => {
                        versions.note(slot, key, now.get(&key).copied());
                        now.insert(key, value);
                    }
                    Step::Advance(slots) => {
                        for passed in slot..slot + slots {
                            ends.insert(passed, now.clone());
                        }
                        slot += slots;
                    }
                    Step::Settle { slots_ago } => {
                        floor = floor.max(slot.saturating_sub(slots_ago));
                        versions.settle(floor);
                    }
                    Step::RollBack { slots_ago } => {
                        let to = slot.saturating_sub(slots_ago).max(floor);
                        for (key, before) in versions.roll_back(to) {
                            match before {
                                Some(value) => now.insert(key, value),
                                None => now.remove(&key),
                            };
                        }
                        if to < slot {
                            prop_assert_eq!(&now, &ends[&to]);
                            for passed in to..slot {
                                ends.insert(passed, now.clone());
                            }
                        }
                    }
                }
                ends.insert(slot, now.clone());
                for (at, then) in ends.range(floor..) {
                    for key in 0..5 {
                        let seen = versions.at(&key, *at).copied().unwrap_or_else(|| now.get(&key).copied());
                        prop_assert_eq!(seen, then.get(&key).copied(), "key {} at slot {} of {}", key, at, slot);
                    }
                    let mut read = now.clone();
                    for (key, before) in versions.changed_after(*at) {
                        match before {
                            Some(value) => read.insert(key, *value),
                            None => read.remove(&key),
                        };
                    }
                    prop_assert_eq!(&read, then);
                }
            }
            versions.settle(slot);
            prop_assert!(versions.is_empty());
        }
    }
}
