//! Places for connections: so many for all together, and a quarter of them for one address.
//!
//! All wait for a place when none is left. An address that has its share already is hung up on at once, so that one
//! machine cannot keep workers and renters out by holding connections open.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::network_of;

/// One address's share is one of so many. A site with hundreds of workers behind one address fits in.
const SHARES: u32 = 4;
/// The least an address may have, however few places there are.
const SHARE_MIN: u32 = 16;

/// All places of a node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    share: u32,
    taken: Arc<Mutex<BTreeMap<IpAddr, u32>>>,
}

/// A place for one connection.
#[derive(Debug)]
pub struct Place {
    _all: OwnedSemaphorePermit,
    address: IpAddr,
    taken: Arc<Mutex<BTreeMap<IpAddr, u32>>>,
}

impl Places {
    /// This many.
    #[must_use]
    pub fn new(most: u32) -> Self {
        let share = (most / SHARES).max(SHARE_MIN);
        Self { all: Arc::new(Semaphore::new(most as usize)), share, taken: Arc::default() }
    }

    /// Waits until one more connection may be accepted; none when nothing is accepted any more.
    pub(crate) async fn any(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// Gives the place to a connection from this address; none when it has its share.
    pub(crate) fn of(&self, permit: OwnedSemaphorePermit, address: IpAddr) -> Option<Place> {
        let address = network_of(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let held = taken.entry(address).or_default();
        if *held >= self.share {
            return None;
        }
        *held += 1;
        Some(Place { _all: permit, address, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = taken.get_mut(&self.address) {
            *held -= 1;
            if *held == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_address_never_holds_all_places() {
        let places = Places::new(100);
        let mut held = Vec::new();
        while let Some(place) = places.of(places.any().await.unwrap(), IpAddr::from([192, 0, 2, 1])) {
            held.push(place);
        }
        assert_eq!(held.len(), 25);
        assert!(places.of(places.any().await.unwrap(), IpAddr::from([192, 0, 2, 2])).is_some());
        held.pop();
        assert!(places.of(places.any().await.unwrap(), IpAddr::from([192, 0, 2, 1])).is_some());
        drop(held);
        assert!(places.taken.lock().unwrap().is_empty(), "addresses are forgotten");
        assert_eq!(places.all.available_permits(), 100);
    }
}
