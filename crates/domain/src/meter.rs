//! Served time: the worker's signed meter, the operator's own observation, and where they agree.
//!
//! *Served* is a word for what both saw. It says nothing of the work's correctness; until something verifies that,
//! receipts say "time: metered; work: not checked".

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::PodId;
use crate::key::{Address, Digest, KeyError, PublicKey, Purpose, SecretKey, Signature};
use crate::time::UnixMs;

/// The longest silence between two heartbeats that still counts as seen: 10 missed beats of 1 s.
///
/// Short enough that a worker which was away is not paid for it, long enough for a reconnect to another node.
pub const OBSERVED_GAP_MAX: Duration = Duration::from_secs(10);

/// What a worker says it has served in one pod so far. Cumulative: a later statement replaces an earlier one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageStatement {
    /// The pod.
    pub pod: PodId,
    /// Its lease.
    pub lease: Address,
    /// Number of records in the supervisor's chain.
    pub records: u64,
    /// Time the tenant's program has run, in milliseconds.
    pub served_ms: u64,
    /// When the last record was written, on the worker's clock.
    pub until: UnixMs,
    /// CPU time of the pod, in milliseconds.
    pub cpu_ms: u64,
    /// Head of the supervisor's hash chain.
    pub head: Digest,
}

/// A statement under its worker's device key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedUsage {
    /// What is said.
    pub statement: UsageStatement,
    /// By the device key that the lease's slot names.
    pub signature: Signature,
}

impl UsageStatement {
    /// The bytes that are signed: fields in order, integers little-endian.
    fn message(&self) -> Vec<u8> {
        let mut bytes = self.pod.to_string().into_bytes();
        bytes.extend(self.lease.0);
        for number in [self.records, self.served_ms, self.until.0, self.cpu_ms] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(self.head.0);
        bytes
    }

    /// Signs with the device key.
    #[must_use]
    pub fn sign(self, device: &SecretKey) -> SignedUsage {
        SignedUsage { statement: self, signature: device.sign(Purpose::Meter, &self.message()) }
    }
}

impl SignedUsage {
    /// Checks the signature.
    ///
    /// # Errors
    /// [`KeyError`] when it is not `device`'s.
    pub fn verify(&self, device: &PublicKey) -> Result<UsageStatement, KeyError> {
        device.verify(Purpose::Meter, &self.statement.message(), &self.signature)?;
        Ok(self.statement)
    }
}

/// What the operator itself saw of a pod: how long its heartbeats came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Observation {
    /// Time covered by heartbeats, in milliseconds.
    pub observed_ms: u64,
    /// The last one, if any came.
    pub last_seen: Option<UnixMs>,
}

impl Observation {
    /// Adds one heartbeat that says the pod runs. A gap longer than [`OBSERVED_GAP_MAX`] is not counted. A clock that
    /// was set back by more than that counts on from its new time; by less, it waits until it is there again.
    #[must_use]
    pub fn beat(self, now: UnixMs) -> Self {
        let Some(last) = self.last_seen else { return Self { last_seen: Some(now), ..self } };
        let gap = now.since(last);
        let counted = if gap <= OBSERVED_GAP_MAX { gap } else { Duration::ZERO };
        let counted_ms = u64::try_from(counted.as_millis()).unwrap_or(0);
        let last_seen = if last.since(now) > OBSERVED_GAP_MAX { now } else { last.max(now) };
        Self { observed_ms: self.observed_ms.saturating_add(counted_ms), last_seen: Some(last_seen) }
    }

    /// Of what two nodes saw of one pod, or a node's memory and the store, the one that got further.
    #[must_use]
    pub fn later(self, other: Self) -> Self {
        if (other.observed_ms, other.last_seen) > (self.observed_ms, self.last_seen) { other } else { self }
    }
}

/// Whole seconds that count: the smaller of what the worker claims and what the operator saw, never more than `cap`.
#[must_use]
pub const fn served_seconds(claimed_ms: u64, observed_ms: u64, cap: u64) -> u64 {
    let agreed = if claimed_ms < observed_ms { claimed_ms } else { observed_ms } / 1000;
    if agreed < cap { agreed } else { cap }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_both_saw_counts() {
        assert_eq!(served_seconds(10_999, 12_000, 100), 10);
        assert_eq!(served_seconds(99_000, 12_000, 100), 12);
        assert_eq!(served_seconds(99_000, 120_000, 60), 60);
    }

    #[test]
    fn silence_is_not_served() {
        let at = |ms| UnixMs(ms);
        let seen = Observation::default().beat(at(1_000)).beat(at(2_000)).beat(at(60_000)).beat(at(61_000));
        assert_eq!(seen, Observation { observed_ms: 2_000, last_seen: Some(at(61_000)) });
        // A clock that jumps back adds nothing and forgets nothing.
        assert_eq!(seen.beat(at(60_500)), seen);
    }

    #[test]
    fn a_clock_set_back_counts_on() {
        let at = |ms| UnixMs(ms);
        let seen = Observation { observed_ms: 2_000, last_seen: Some(at(3_600_000)) }.beat(at(5_000)).beat(at(6_000));
        assert_eq!(seen, Observation { observed_ms: 3_000, last_seen: Some(at(6_000)) });
    }

    #[test]
    fn a_worker_that_moves_between_nodes_loses_nothing() {
        let (here, there) = (
            Observation { observed_ms: 5_000, last_seen: Some(UnixMs(5_000)) },
            Observation { observed_ms: 60_000, last_seen: Some(UnixMs(60_000)) },
        );
        assert_eq!(here.later(there).beat(UnixMs(61_000)).observed_ms, 61_000);
        assert_eq!(there.later(here), there);
        assert_eq!(here.later(Observation::default()), here);
    }

    #[test]
    fn a_statement_is_its_devices_own() {
        let (device, other) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let statement = UsageStatement {
            pod: PodId::from_random([1; 16]),
            lease: PublicKey([2; 32]),
            records: 3,
            served_ms: 3_000,
            until: UnixMs(9),
            cpu_ms: 1,
            head: Digest::of(b"head"),
        };
        let signed = statement.sign(&device);
        assert_eq!(signed.verify(&device.public()), Ok(statement));
        assert!(signed.verify(&other.public()).is_err());
        let padded = SignedUsage { statement: UsageStatement { served_ms: 4_000, ..statement }, ..signed };
        assert!(padded.verify(&device.public()).is_err());
    }
}
