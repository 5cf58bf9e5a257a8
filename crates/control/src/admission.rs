//! Admission: how many callers may be between their first byte and the end of their TLS handshake at once.
//!
//! A handshake costs some hundred microseconds of processor; ten thousand begun together would all end late, after most
//! callers have given up and come again. So few are under way at once, first come first served, and the rest wait as sockets,
//! which cost nothing. One that has waited too long is hung up on before anything was computed for it. A caller that has
//! sent nothing has no turn to hold, one that stops in the middle loses it after a moment, and no address has more than a
//! share of them: silence keeps nobody out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::http::network_of;

/// Handshakes under way: enough for round trips of 50 ms at a thousand a second.
const AT_ONCE: usize = 64;
/// Of these, one address's.
const SHARE: usize = AT_ONCE / 4;
/// How long a caller may say nothing.
const SILENT_MAX: Duration = Duration::from_secs(10);
/// How long a caller waits for its turn. A worker gives up after 10 s, and has its own part to do by then.
const WAIT_MAX: Duration = Duration::from_secs(6);
/// How long a handshake holds its turn: some round trips. It may go on without.
const TURN_MAX: Duration = Duration::from_secs(1);

/// Turns of all callers. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    all: Arc<Semaphore>,
    of: Addresses,
}

type Addresses = Arc<Mutex<BTreeMap<IpAddr, Arc<Semaphore>>>>;

/// One handshake's turn.
#[derive(Debug)]
pub(crate) struct Turn {
    _all: OwnedSemaphorePermit,
    _share: OwnedSemaphorePermit,
    _here: Here,
}

/// Somebody of this address waits or has a turn. The address is forgotten with the last one.
#[derive(Debug)]
struct Here {
    address: IpAddr,
    of: Addresses,
}

impl Admission {
    pub(crate) fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(AT_ONCE)), of: Arc::default() }
    }

    /// Waits until a caller has begun to speak and has its turn; none when that took too long or it has gone.
    pub(crate) async fn admit(&self, tcp: &TcpStream, address: IpAddr) -> Option<Turn> {
        timeout(SILENT_MAX, tcp.readable()).await.ok()?.ok()?;
        let turn = timeout(WAIT_MAX, self.turn(address)).await.ok()??;
        // It may have given up meanwhile: nothing is computed for it then.
        let is_there = tcp.ready(Interest::READABLE).await.is_ok_and(|ready| !ready.is_read_closed());
        is_there.then_some(turn)
    }

    /// First among its address's, then among all: a crowd at one address waits for itself.
    async fn turn(&self, address: IpAddr) -> Option<Turn> {
        let here = Here { address: network_of(address), of: Arc::clone(&self.of) };
        let own = Arc::clone(here.lock().entry(here.address).or_insert_with(|| Arc::new(Semaphore::new(SHARE))));
        let share = own.acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Turn { _all: all, _share: share, _here: here })
    }
}

impl Turn {
    /// Waits for a handshake; the turn is over with it, or before when it is slow.
    pub(crate) async fn spend<T>(self, handshake: impl Future<Output = T>) -> T {
        let mut handshake = pin!(handshake);
        if let Ok(done) = timeout(TURN_MAX, handshake.as_mut()).await {
            return done;
        }
        drop(self);
        handshake.await
    }
}

impl Here {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, Arc<Semaphore>>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut of = self.lock();
        if of.get(&self.address).is_some_and(|own| Arc::strong_count(own) == 1) {
            of.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_at_one_address_keeps_nobody_else_out() {
        let admission = Admission::new();
        let mut turns = Vec::new();
        while let Ok(turn) = timeout(WAIT_MAX, admission.turn(address(1))).await {
            turns.push(turn.unwrap());
        }
        assert_eq!(turns.len(), SHARE);
        let crowd: Vec<_> = (0..1_000)
            .map(|_| {
                let admission = admission.clone();
                atoll_life::spawn(async move { drop(admission.turn(address(1)).await) })
            })
            .collect();
        tokio::task::yield_now().await;
        let other = timeout(Duration::ZERO, admission.turn(address(2))).await;
        assert!(other.is_ok(), "another address waits behind the crowd");
        drop((other, turns));
        for waits in crowd {
            waits.await.unwrap();
        }
        assert!(admission.of.lock().unwrap().is_empty(), "addresses are forgotten");
        assert_eq!(admission.all.available_permits(), AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_stops_in_the_middle_loses_its_turn_and_goes_on() {
        let admission = Admission::new();
        let turn = admission.turn(address(1)).await.unwrap();
        let slow = atoll_life::spawn(turn.spend(tokio::time::sleep(2 * TURN_MAX)));
        tokio::time::sleep(TURN_MAX / 2).await;
        assert_eq!(admission.all.available_permits(), AT_ONCE - 1);
        tokio::time::sleep(TURN_MAX).await;
        assert_eq!(admission.all.available_permits(), AT_ONCE);
        slow.await.unwrap();
    }
}
