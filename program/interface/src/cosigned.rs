//! Pay for what renter and worker agree on while the attestors are silent.
//!
//! A device key signs off chain how many device-seconds its lease has served; the renter signs the transaction that
//! carries it. Both are cumulative, as leaves are, so that a later leaf pays the difference and nothing twice. What they
//! sign never makes a lease closable: a worker's key could then cut short what attestors have yet to say of it.

use crate::{
    Address, Error, Hash,
    layout::{LEASE_FROZEN, Lease, Order},
};

/// Domain of a device's statement.
pub const USAGE_DOMAIN: &[u8] = b"atoll/usage/1\0";
/// Length of [`Usage::message`].
pub const USAGE_LEN: usize = USAGE_DOMAIN.len() + 32 + 32 + 8 + 8;

/// What a device key signs of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The network it is meant for.
    pub network_root: Hash,
    /// The lease's account.
    pub lease: Address,
    /// Device-seconds served since the lease's start.
    pub device_seconds: u64,
    /// Chain time of the statement, Unix seconds: a later lease at the same address began after it.
    pub until: i64,
}

impl Usage {
    /// The bytes to sign: (domain, network root, lease, device-seconds, until), integers little-endian.
    #[must_use]
    pub fn message(&self) -> [u8; USAGE_LEN] {
        let mut message = [0; USAGE_LEN];
        let (domain, rest) = message.split_at_mut(USAGE_DOMAIN.len());
        domain.copy_from_slice(USAGE_DOMAIN);
        rest[..32].copy_from_slice(&self.network_root);
        rest[32..64].copy_from_slice(&self.lease);
        rest[64..72].copy_from_slice(&self.device_seconds.to_le_bytes());
        rest[72..].copy_from_slice(&self.until.to_le_bytes());
        message
    }

    /// Reads what [`Usage::message`] wrote.
    ///
    /// # Errors
    /// [`Error::StatementWrong`] for another length or domain.
    pub fn parse(message: &[u8]) -> Result<Self, Error> {
        let rest = message.strip_prefix(USAGE_DOMAIN).ok_or(Error::StatementWrong)?;
        let (network_root, rest) = rest.split_first_chunk().ok_or(Error::StatementWrong)?;
        let (lease, rest) = rest.split_first_chunk().ok_or(Error::StatementWrong)?;
        let (device_seconds, rest) = rest.split_first_chunk().ok_or(Error::StatementWrong)?;
        let until = <[u8; 8]>::try_from(rest).map_err(|_| Error::StatementWrong)?;
        Ok(Self {
            network_root: *network_root,
            lease: *lease,
            device_seconds: u64::from_le_bytes(*device_seconds),
            until: i64::from_le_bytes(until),
        })
    }
}

impl Lease {
    /// From when on renter and worker may settle without attestors: nothing was attested of the lease for `stall_s`.
    #[must_use]
    pub fn stalled_at(&self, stall_s: u32) -> i64 {
        self.start.max(self.settled_until).saturating_add(i64::from(stall_s))
    }

    /// Books what renter and worker agree on. Called after [`Lease::begin`], with a statement of this lease's address.
    ///
    /// # Errors
    /// [`Error::LeaseFrozen`] while a dispute is open; [`Error::NotStalled`] while attestors speak, or before the lease
    /// began; [`Error::LeafStale`] when it says no more
    /// than was paid or is not of this lease's time; [`Error::AboveCap`] when it says more than can have been served.
    pub fn settle_cosigned(&mut self, order: &mut Order, usage: &Usage, stall_s: u32, now: i64) -> Result<(), Error> {
        if self.flags & LEASE_FROZEN != 0 {
            return Err(Error::LeaseFrozen);
        }
        if self.start == 0 || now < self.stalled_at(stall_s) {
            return Err(Error::NotStalled);
        }
        let stale = usage.device_seconds <= self.device_seconds_paid
            || usage.until <= self.start.max(order.posted_at)
            || usage.until > now;
        if stale {
            return Err(Error::LeafStale);
        }
        if usage.device_seconds > self.cap(now)? {
            return Err(Error::AboveCap);
        }
        self.book_pay(order, usage.device_seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::Leaf;
    use proptest::prelude::*;

    const STALL_S: u32 = 600;

    fn running() -> (Order, Lease) {
        let mut order = Order::new();
        (order.escrow, order.fee_bps, order.posted_at) = (1_000_000_000, 25, 1_000);
        let mut lease = Lease::new();
        (lease.start, lease.cap_since, lease.end) = (1_000, 1_000, 5_000);
        (lease.devices_live, lease.rate) = (2, 1_000);
        (order, lease)
    }

    fn usage(device_seconds: u64, until: i64) -> Usage {
        Usage { network_root: [1; 32], lease: [2; 32], device_seconds, until }
    }

    fn leaf(device_seconds: u64, until: i64) -> Leaf {
        Leaf { lease: [2; 32], device_seconds, until, flags: 0, slots_root: [0; 32] }
    }

    #[test]
    fn a_statement_is_laid_out_as_documented_and_read_back() {
        let said = usage(258, -2);
        let message = said.message();
        assert_eq!(
            message[USAGE_DOMAIN.len() + 64..],
            [2, 1, 0, 0, 0, 0, 0, 0, 254, 255, 255, 255, 255, 255, 255, 255]
        );
        assert_eq!(Usage::parse(&message), Ok(said));
        for wrong in [&message[1..], &message[..USAGE_LEN - 1], b"", &[0; USAGE_LEN]] {
            assert_eq!(Usage::parse(wrong), Err(Error::StatementWrong));
        }
    }

    #[test]
    fn it_waits_for_the_attestors_silence() {
        let (mut order, mut lease) = running();
        assert_eq!(lease.settle_cosigned(&mut order, &usage(10, 1_599), STALL_S, 1_599), Err(Error::NotStalled));
        lease.settle_cosigned(&mut order, &usage(10, 1_600), STALL_S, 1_600).unwrap();
        // A leaf is heard, and the waiting begins anew.
        lease.settle(&mut order, &leaf(700, 1_650), 1_700).unwrap();
        assert_eq!(lease.settle_cosigned(&mut order, &usage(800, 2_000), STALL_S, 2_249), Err(Error::NotStalled));
        lease.settle_cosigned(&mut order, &usage(800, 2_000), STALL_S, 2_250).unwrap();
        assert_eq!(lease.settled_until, 1_650, "what the two sign says nothing of the last second");
        lease.flags |= LEASE_FROZEN;
        assert_eq!(lease.settle_cosigned(&mut order, &usage(900, 2_900), STALL_S, 2_900), Err(Error::LeaseFrozen));
        let (mut order, mut unbegun) = (Order::new(), Lease::new());
        assert_eq!(unbegun.settle_cosigned(&mut order, &usage(1, 1), 0, 2), Err(Error::NotStalled));
    }

    #[test]
    fn it_is_of_this_lease_s_time_and_below_its_cap() {
        let (mut order, mut lease) = running();
        order.posted_at = 1_100;
        for until in [1_000, 1_100, 2_001] {
            assert_eq!(lease.settle_cosigned(&mut order, &usage(9, until), STALL_S, 2_000), Err(Error::LeafStale));
        }
        assert_eq!(lease.settle_cosigned(&mut order, &usage(2_001, 1_900), STALL_S, 2_000), Err(Error::AboveCap));
        lease.settle_cosigned(&mut order, &usage(2_000, 1_900), STALL_S, 2_000).unwrap();
        assert_eq!(lease.settle_cosigned(&mut order, &usage(2_000, 1_900), STALL_S, 2_000), Err(Error::LeafStale));
    }

    proptest! {
        /// However statements and leaves follow each other, each device-second is paid once.
        #[test]
        fn nothing_is_paid_twice(steps in prop::collection::vec((any::<bool>(), 0u64..9_000, 0i64..400), 1..40)) {
            let (mut order, mut lease) = running();
            let (escrow, mut now) = (order.escrow, 1_600);
            for (attested, device_seconds, wait) in steps {
                now += wait;
                let before = (order, lease);
                let done = if attested {
                    lease.settle(&mut order, &leaf(device_seconds, now), now)
                } else {
                    lease.settle_cosigned(&mut order, &usage(device_seconds, now), STALL_S, now)
                };
                prop_assert!(done.is_ok() || (order, lease) == before);
                let pay = crate::settlement::Pay::of(lease.rate, lease.device_seconds_paid, order.fee_bps).unwrap();
                prop_assert_eq!(lease.owed, pay.supplier());
                prop_assert_eq!(escrow - order.escrow, pay.renter().unwrap());
                prop_assert!(lease.device_seconds_paid <= lease.cap(now).unwrap());
            }
        }
    }
}
