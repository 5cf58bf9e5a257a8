//! Keys, signatures and digests as plain values, and the one way to sign and verify.
//!
//! Every signature in Atoll is ed25519 over `domain separator ‖ message`, so that bytes signed for one purpose never
//! count for another. Verification is strict (small-order keys and non-canonical encodings are refused), because two
//! parties must never disagree about one signature.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::Signer as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// A public key or account address: 32 bytes, shown in base58 as on Solana.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// An account's address on the chain; the same 32 bytes as a key, often derived and on no curve.
pub type Address = PublicKey;

/// An ed25519 signature: 64 bytes, shown in base58.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

/// A SHA-256 digest: 32 bytes, shown in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

/// Why text or bytes are not a key, a signature or a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text does not decode to the right number of bytes.
    #[error("not a {what}: expected {bytes} bytes in {encoding}")]
    Malformed { what: &'static str, bytes: usize, encoding: &'static str },
    /// The signature does not belong to this key and message.
    #[error("the signature does not match key {key}")]
    BadSignature { key: PublicKey },
}

/// What a signature is for. The separator is part of every signed message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A renter agrees to run a job specification.
    JobSpec,
    /// A client's HTTP request that moves money or leases.
    Request,
    /// A worker vouches for a pod's overlay key.
    PodKey,
    /// A worker's usage statement.
    Meter,
    /// A worker proves its device key on one TLS session.
    Link,
    /// An operator's receipt.
    Receipt,
}

impl Purpose {
    /// The bytes put before the message.
    #[must_use]
    pub const fn separator(self) -> &'static [u8] {
        match self {
            Self::JobSpec => b"atoll/jobspec-sig/1\0",
            Self::Request => b"atoll/request/1\0",
            Self::PodKey => b"atoll/podkey/1\0",
            Self::Meter => b"atoll/meter/1\0",
            Self::Link => b"atoll/link/1\0",
            Self::Receipt => b"atoll/receipt/1\0",
        }
    }
}

/// A secret signing key. Not printable; erased when dropped.
pub struct SecretKey(ed25519_dalek::SigningKey);

impl SecretKey {
    /// The key of a 32-byte seed, which comes from the caller's source of randomness.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs `message` for one purpose.
    #[must_use]
    pub fn sign(&self, purpose: Purpose, message: &[u8]) -> Signature {
        self.sign_raw(&[purpose.separator(), message].concat())
    }

    /// Signs bytes that bring their own separation, as a Solana transaction message does.
    #[must_use]
    pub fn sign_raw(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }

    /// The seed, for writing the key to its file; nothing else needs it.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

impl PublicKey {
    /// Checks a signature made for one purpose.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`] when it is another key's, another message's or another purpose's.
    pub fn verify(&self, purpose: Purpose, message: &[u8], signature: &Signature) -> Result<(), KeyError> {
        self.verify_raw(&[purpose.separator(), message].concat(), signature)
    }

    /// Checks a signature over bytes that bring their own separation.
    ///
    /// # Errors
    /// [`KeyError::BadSignature`] when the key is not a point or the signature is not its.
    pub fn verify_raw(&self, message: &[u8], signature: &Signature) -> Result<(), KeyError> {
        let refused = KeyError::BadSignature { key: *self };
        let key = ed25519_dalek::VerifyingKey::from_bytes(&self.0).map_err(|_| refused.clone())?;
        key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0)).map_err(|_| refused)
    }
}

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The digest of several parts, one after the other.
    #[must_use]
    pub fn of_parts(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// SHA-256 in the shape that `interface` takes as an argument.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    Digest::of_parts(parts).0
}

macro_rules! text_form {
    ($type:ident, $what:literal, $bytes:literal, $encoding:literal, $show:expr, $parse:expr) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let show: fn(&[u8]) -> String = $show;
                f.write_str(&show(&self.0))
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
        impl FromStr for $type {
            type Err = KeyError;
            fn from_str(text: &str) -> Result<Self, KeyError> {
                let malformed = || KeyError::Malformed { what: $what, bytes: $bytes, encoding: $encoding };
                // Base58 costs the square of its length: refuse long text before decoding.
                if text.len() > 2 * $bytes {
                    return Err(malformed());
                }
                let parse: fn(&str) -> Option<Vec<u8>> = $parse;
                let bytes = parse(text).ok_or_else(malformed)?;
                Ok(Self(bytes.try_into().map_err(|_| malformed())?))
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

text_form!(PublicKey, "key", 32, "base58", |b| bs58::encode(b).into_string(), |t| bs58::decode(t).into_vec().ok());
text_form!(Signature, "signature", 64, "base58", |b| bs58::encode(b).into_string(), |t| bs58::decode(t)
    .into_vec()
    .ok());
text_form!(Digest, "digest", 32, "hexadecimal", |b| hex::encode(b), |t| hex::decode(t).ok());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_counts_for_its_purpose_and_key_only() {
        let (key, other) = (SecretKey::from_seed(&[1; 32]), SecretKey::from_seed(&[2; 32]));
        let signature = key.sign(Purpose::JobSpec, b"spec");
        assert!(key.public().verify(Purpose::JobSpec, b"spec", &signature).is_ok());
        assert!(key.public().verify(Purpose::Request, b"spec", &signature).is_err());
        assert!(key.public().verify(Purpose::JobSpec, b"spec2", &signature).is_err());
        assert!(other.public().verify(Purpose::JobSpec, b"spec", &signature).is_err());
    }

    #[test]
    fn text_forms_round_trip_and_refuse_garbage() {
        let key = SecretKey::from_seed(&[7; 32]).public();
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(Digest::of(b"x").to_string().parse(), Ok(Digest::of(b"x")));
        for bad in ["", "0OIl", "abc", &"1".repeat(100_000)] {
            assert!(bad.parse::<PublicKey>().is_err(), "{}", bad.len());
            assert!(bad.parse::<Digest>().is_err(), "{}", bad.len());
        }
    }

    #[test]
    fn a_secret_key_does_not_print_its_seed() {
        let shown = format!("{:?}", SecretKey::from_seed(&[9; 32]));
        assert!(!shown.contains(&hex::encode([9; 32])) && !shown.contains("9, 9"));
    }
}
