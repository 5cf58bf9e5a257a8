//! A token bucket per API key, or per address where nobody has shown a key yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use atoll_domain::id::ApiKeyId;
use atoll_domain::time::UnixMs;

/// The most buckets kept of addresses, and as many of keys; full ones are forgotten first.
const BUCKETS_MAX: usize = 65_536;

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    /// An API key's.
    Key(ApiKeyId),
    /// An address's.
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Thousandths of requests that may be made.
    milli: u64,
    at: UnixMs,
}

/// All buckets of this node.
#[derive(Debug)]
pub(crate) struct Limits {
    per_s: u64,
    burst_milli: u64,
    /// Of keys and of addresses apart: whoever has many addresses must not keep those out who have a key.
    buckets: [Mutex<BTreeMap<Whose, Bucket>>; 2],
}

impl Limits {
    pub(crate) fn new(per_s: u32, burst: u32) -> Self {
        Self { per_s: u64::from(per_s), burst_milli: u64::from(burst) * 1000, buckets: Default::default() }
    }

    /// Takes one request out of a bucket; false when it is empty.
    pub(crate) fn take(&self, whose: Whose, now: UnixMs) -> bool {
        let (kind, whose) = match whose {
            Whose::Key(_) => (0, whose),
            Whose::Address(address) => (1, Whose::Address(network(address))),
        };
        let mut buckets = self.buckets[kind].lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&whose) {
            buckets.retain(|_, bucket| self.filled(*bucket, now) < self.burst_milli);
            if buckets.len() >= BUCKETS_MAX {
                return false;
            }
        }
        let bucket = buckets.entry(whose).or_insert(Bucket { milli: self.burst_milli, at: now });
        let milli = self.filled(*bucket, now);
        let left = milli.checked_sub(1000);
        *bucket = Bucket { milli: left.unwrap_or(milli), at: now };
        left.is_some()
    }

    /// One request a second is one thousandth a millisecond.
    fn filled(&self, bucket: Bucket, now: UnixMs) -> u64 {
        let passed = now.0.saturating_sub(bucket.at.0);
        bucket.milli.saturating_add(passed.saturating_mul(self.per_s)).min(self.burst_milli)
    }
}

/// Whom an address belongs to, as far as it shows: an IPv6 subscriber has at least a /64.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_addresses_of_one_network_are_one_and_keep_no_key_out() {
        let limits = Limits::new(1, 2);
        let address = |n: u128| Whose::Address(IpAddr::V6((0x2001_0db8_u128 << 96 | n).into()));
        let taken = (0..100).filter(|n| limits.take(address(*n), UnixMs(1000))).count();
        assert_eq!(taken, 2);
        for n in 0..=BUCKETS_MAX as u128 {
            limits.take(address(n << 64), UnixMs(1000));
        }
        assert!(!limits.take(address(1 << 90), UnixMs(1000)), "the table is bounded");
        assert!(limits.take(Whose::Key(ApiKeyId::from_random([1; 16])), UnixMs(1000)));
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let limits = Limits::new(10, 20);
        let (mine, other) = (Whose::Key(ApiKeyId::from_random([1; 16])), Whose::Address(IpAddr::from([1, 2, 3, 4])));
        let taken = |whose, at| (0..100).filter(|_| limits.take(whose, UnixMs(at))).count();
        assert_eq!(taken(mine, 1000), 20);
        assert_eq!(taken(other, 1000), 20);
        assert_eq!(taken(mine, 1500), 5);
        assert_eq!(taken(mine, 1400), 0, "a clock that goes back gives nothing");
        assert_eq!(taken(mine, 1_000_000), 20);
    }
}
