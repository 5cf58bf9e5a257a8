//! Typed, prefixed ids: `job_…`, `clu_…`, `wrk_…`, `key_…`, `cmd_…`, `nod_…`.
//!
//! 128 bits in Crockford base 32 (26 characters), drawn from randomness that the caller brings, or derived from a key.
//! They cannot be enumerated. Orders, leases and budgets are accounts on the chain and go by their [`Address`].
//!
//! [`Address`]: crate::key::Address

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::key::{Digest, PublicKey};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TEXT_LEN: usize = 26;

/// Text that is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of a {kind}: expected `{prefix}_` and 26 characters")]
pub struct IdError {
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The text before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// An id of 16 random bytes.
            #[must_use]
            pub const fn from_random(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, encode(self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(decode)
                    .map(Self)
                    .ok_or(IdError { kind: $kind, prefix: $prefix })
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

ids! {
    /// A job: something run to completion on a cluster.
    JobId = "job", "job";
    /// A cluster: leases joined by one overlay with one runtime.
    ClusterId = "clu", "cluster";
    /// A worker: one machine running the agent.
    WorkerId = "wrk", "worker";
    /// A pod: what runs on one worker for its part of a lease.
    PodId = "pod", "pod";
    /// An API key of a user.
    ApiKeyId = "key", "API key";
    /// A user of one operator.
    UserId = "usr", "user";
    /// A command from the control plane to a worker.
    CommandId = "cmd", "command";
    /// A control node, from its start to its end: one that starts again is another.
    NodeId = "nod", "node";
    /// A byte stream that a worker dials on request.
    StreamId = "str", "stream";
}

impl WorkerId {
    /// The id of the worker that owns a device key: the first 16 bytes of the key's SHA-256.
    #[must_use]
    pub fn of_device_key(key: &PublicKey) -> Self {
        let digest = Digest::of(&key.0).0;
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self::from_random(bytes)
    }
}

fn encode(value: u128) -> String {
    (0..TEXT_LEN).rev().map(|digit| char::from(ALPHABET[(value >> (5 * digit)) as usize & 31])).collect()
}

fn decode(text: &str) -> Option<u128> {
    if text.len() != TEXT_LEN {
        return None;
    }
    text.bytes().try_fold(0_u128, |value, byte| {
        let digit = ALPHABET.iter().position(|&letter| letter == byte)?;
        // 26 digits hold 130 bits: the first may only use three.
        let shifted = value.checked_mul(32)?;
        shifted.checked_add(digit as u128)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_do_not_mix() {
        let job = JobId::from_random([0xff; 16]);
        assert_eq!(job.to_string().parse(), Ok(job));
        assert!(job.to_string().parse::<ClusterId>().is_err());
        assert_eq!(JobId::from_random([0; 16]).to_string(), "job_00000000000000000000000000");
    }

    #[test]
    fn garbage_is_no_id() {
        for bad in [
            "",
            "job_",
            "job_0",
            "job_zzzzzzzzzzzzzzzzzzzzzzzzzz",
            "job_0000000000000000000000000I",
            "job-00000000000000000000000000",
        ] {
            assert!(bad.parse::<JobId>().is_err(), "{bad}");
        }
    }
}
