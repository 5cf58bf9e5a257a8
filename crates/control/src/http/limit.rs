//! A token bucket per API key, or per address where nobody has shown a key yet.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use atoll_domain::id::ApiKeyId;
use atoll_domain::time::UnixMs;

/// The most buckets kept; full ones are forgotten first.
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
    buckets: Mutex<BTreeMap<Whose, Bucket>>,
}

impl Limits {
    pub(crate) fn new(per_s: u32, burst: u32) -> Self {
        Self { per_s: u64::from(per_s), burst_milli: u64::from(burst) * 1000, buckets: Mutex::default() }
    }

    /// Takes one request out of a bucket; false when it is empty.
    pub(crate) fn take(&self, whose: Whose, now: UnixMs) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
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

#[cfg(test)]
mod tests {
    use super::*;

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
