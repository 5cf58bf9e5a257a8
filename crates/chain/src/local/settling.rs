//! Which slots of the local chain are confirmed, which are final, and how far back accounts can be read. Pure.

use super::engine::Finality;
use super::state::BLOCKHASH_SLOTS;
use crate::rpc::Commitment;

/// Which slots count for whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settling {
    pub(super) finality: Finality,
    /// How far behind the newest slot reads may have to go.
    pub(super) stale_slots_max: u64,
    /// How far behind the current request's are.
    pub(super) lag_slots: u64,
    /// For how many slots a blockhash is good.
    pub(super) blockhash_slots: u64,
    /// The newest slot that is confirmed, and final. Neither goes back, whatever finality becomes.
    confirmed: u64,
    pub(super) finalized: u64,
    /// The oldest slot whose accounts are known as they were.
    pub(super) known_from: u64,
}

impl Settling {
    pub(super) const fn new(slot: u64, finality: Finality) -> Self {
        Self {
            finality,
            stale_slots_max: 0,
            lag_slots: 0,
            blockhash_slots: BLOCKHASH_SLOTS,
            confirmed: slot,
            finalized: slot,
            known_from: slot,
        }
    }

    pub(super) fn window_slots(&self) -> u64 {
        self.finality.finalized_slots.max(self.stale_slots_max)
    }

    pub(super) fn advance(&mut self, now: u64) {
        self.confirmed = self.confirmed.max(now.saturating_sub(self.finality.confirmed_slots));
        self.finalized = self.finalized.max(now.saturating_sub(self.finality.finalized_slots));
        self.known_from = self.known_from.max(now.saturating_sub(self.window_slots()));
    }

    pub(super) fn slot_at(&self, now: u64, commitment: Commitment) -> u64 {
        let slot = match commitment {
            Commitment::Processed => now,
            Commitment::Confirmed => self.confirmed,
            Commitment::Finalized => self.finalized,
        };
        slot.saturating_sub(self.lag_slots).max(self.known_from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_settled_stays_so_and_reads_stay_within_what_is_known() {
        let mut settling = Settling::new(1000, Finality { confirmed_slots: 2, finalized_slots: 32 });
        let slots = |settling: &Settling, now| {
            [Commitment::Processed, Commitment::Confirmed, Commitment::Finalized].map(|at| settling.slot_at(now, at))
        };
        settling.advance(1001);
        assert_eq!(slots(&settling, 1001), [1001, 1000, 1000]);
        settling.advance(1100);
        assert_eq!(slots(&settling, 1100), [1100, 1098, 1068]);
        settling.lag_slots = 50;
        assert_eq!(slots(&settling, 1100), [1068, 1068, 1068]);
        (settling.lag_slots, settling.stale_slots_max) = (5, 40);
        // Known from now on; what was forgotten before, is not known again.
        settling.advance(1100);
        assert_eq!(slots(&settling, 1100), [1095, 1093, 1068]);
        settling.finality = Finality { confirmed_slots: 90, finalized_slots: 90 };
        settling.advance(1101);
        assert_eq!(slots(&settling, 1101), [1096, 1093, 1068]);
        settling.lag_slots = 0;
        settling.finality = Finality::default();
        settling.advance(1102);
        assert_eq!(slots(&settling, 1102), [1102, 1102, 1102]);
    }
}
