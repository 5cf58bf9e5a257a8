//! What the chain says of an order: the only thing that a worker believes about who may run what on it.
//!
//! The types and the questions asked of them are pure; [`Reader`] fetches them over RPC at `confirmed`. What follows
//! from an answer is decided in [`crate::world`].

mod read;

use std::collections::BTreeSet;

use atoll_domain::key::{Address, Digest, PublicKey};
use atoll_domain::worker::SlotRef;

pub use read::{ReadError, Reader, SlotView, key, rpc_config, wire};

/// An order and its leases at one moment of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderView {
    /// Who pays.
    pub renter: PublicKey,
    /// The account of the session key that posted it; none when the wallet did.
    pub budget: Option<Address>,
    /// What may run.
    pub spec_root: Digest,
    /// Its leases that are not closed.
    pub leases: Vec<LeaseView>,
    /// The chain's clock when this was read, in Unix seconds.
    pub now_s: i64,
}

/// A lease: slots of one page with one device mask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Its account.
    pub lease: Address,
    /// The fleet page.
    pub page: Address,
    /// Devices of each slot.
    pub mask: u16,
    /// End by the chain's clock, in Unix seconds; 0 until the order is active.
    pub end_s: i64,
    /// The slots that are not released, each with the device key that stands in it now.
    pub slots: Vec<(u16, PublicKey)>,
}

/// A device key and the lease of the order that it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Authorised {
    /// The key.
    pub device_key: PublicKey,
    /// The lease.
    pub lease: Address,
}

/// What a lease means for one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It holds this worker's devices until then (chain time, Unix seconds).
    Holds {
        /// The devices.
        mask: u16,
        /// The end.
        end_s: i64,
    },
    /// The order has no such lease, or not yet.
    Unknown,
    /// It holds other slots.
    NotHere,
    /// It held this slot and does no longer.
    Released,
    /// The order is not active yet.
    NotActive,
    /// Its end is over.
    Ended,
}

impl OrderView {
    /// What `lease` means for the worker at `at` with `device_key`.
    #[must_use]
    pub fn standing(&self, lease: &Address, at: SlotRef, device_key: &PublicKey) -> Standing {
        let Some(found) = self.leases.iter().find(|one| one.lease == *lease) else { return Standing::Unknown };
        if found.page != at.page {
            return Standing::NotHere;
        }
        match found.slots.iter().find(|(slot, _)| *slot == at.slot) {
            None if found.slots.is_empty() => Standing::Released,
            None => Standing::NotHere,
            Some((_, key)) if key != device_key => Standing::NotHere,
            Some(_) if found.end_s == 0 => Standing::NotActive,
            Some(_) if found.end_s <= self.now_s => Standing::Ended,
            Some(_) => Standing::Holds { mask: found.mask, end_s: found.end_s },
        }
    }

    /// Every device key that may vouch for a pod of this order now, with its lease.
    #[must_use]
    pub fn authorised(&self) -> BTreeSet<Authorised> {
        let live = self.leases.iter().filter(|lease| lease.end_s > self.now_s);
        let keys = |lease: &LeaseView| {
            let lease_address = lease.lease;
            let of = move |&(_, device_key): &(u16, PublicKey)| Authorised { device_key, lease: lease_address };
            lease.slots.iter().map(of).collect::<Vec<_>>()
        };
        live.flat_map(keys).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> PublicKey {
        PublicKey([n; 32])
    }

    fn view() -> OrderView {
        let lease = |n: u8, end_s, slots| LeaseView { lease: key(n), page: key(50), mask: 1, end_s, slots };
        OrderView {
            renter: key(1),
            budget: None,
            spec_root: Digest([2; 32]),
            leases: vec![
                lease(10, 100, vec![(0, key(30)), (3, key(33))]),
                lease(11, 100, vec![]),
                lease(12, 0, vec![(0, key(30))]),
                lease(13, 40, vec![(0, key(30))]),
            ],
            now_s: 40,
        }
    }

    #[test]
    fn a_lease_holds_its_own_slot_and_key_until_its_end() {
        let at = |page, slot| SlotRef { page: key(page), slot };
        let standing = |lease, page, slot, device| view().standing(&key(lease), at(page, slot), &key(device));
        assert_eq!(standing(10, 50, 3, 33), Standing::Holds { mask: 1, end_s: 100 });
        assert_eq!(standing(10, 50, 3, 30), Standing::NotHere);
        assert_eq!(standing(10, 50, 1, 33), Standing::NotHere);
        assert_eq!(standing(10, 51, 3, 33), Standing::NotHere);
        assert_eq!(standing(11, 50, 0, 30), Standing::Released);
        assert_eq!(standing(12, 50, 0, 30), Standing::NotActive);
        assert_eq!(standing(13, 50, 0, 30), Standing::Ended);
        assert_eq!(standing(99, 50, 0, 30), Standing::Unknown);
    }

    #[test]
    fn only_live_slots_vouch() {
        let pairs: Vec<(u8, u8)> =
            view().authorised().iter().map(|one| (one.device_key.0[0], one.lease.0[0])).collect();
        assert_eq!(pairs, [(30, 10), (33, 10)]);
    }
}
