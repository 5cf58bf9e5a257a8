//! Addresses, signatures and blockhashes of Solana as plain values, and the derivation of program addresses.
//!
//! Only the 32 and 64 bytes and their base58 text live here. What an address means is told by [`crate::market`] and
//! [`crate::spl`]; secret keys are in [`crate::keypair`].

use std::fmt;
use std::str::FromStr;

use curve25519_dalek::edwards::CompressedEdwardsY;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// Most seeds of a program address, the bump included (Solana's `MAX_SEEDS`).
const SEEDS_MAX: usize = 16;
/// Longest seed in bytes (Solana's `MAX_SEED_LEN`).
const SEED_BYTES_MAX: usize = 32;

/// An account's address or a public key: 32 bytes, shown in base58.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 32]);

/// An ed25519 signature: 64 bytes, shown in base58. The first one of a transaction is also the transaction's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 64]);

/// A hash that the cluster draws: a blockhash (which bounds a transaction's life) or the genesis hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

/// Text that is not an address, a signature or a hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: expected {bytes} bytes in base58")]
pub struct ParseError {
    what: &'static str,
    bytes: usize,
}

/// Why no program address exists for a set of seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SeedError {
    /// More than 15 seeds, or one longer than 32 bytes.
    #[error("a program address takes at most 15 seeds of at most 32 bytes")]
    Bounds,
    /// The bytes lie on the curve, or no bump puts them off it.
    #[error("these seeds give no address off the curve")]
    OnCurve,
}

macro_rules! text_form {
    ($type:ident, $what:literal, $bytes:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&bs58::encode(&self.0).into_string())
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
        impl FromStr for $type {
            type Err = ParseError;
            fn from_str(text: &str) -> Result<Self, ParseError> {
                let mut bytes = [0; $bytes];
                // Base58 costs the square of its length: refuse long text before decoding.
                let decoded = if text.len() > 2 * $bytes { None } else { bs58::decode(text).onto(&mut bytes).ok() };
                match decoded {
                    Some($bytes) => Ok(Self(bytes)),
                    _ => Err(ParseError { what: $what, bytes: $bytes }),
                }
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
        impl From<[u8; $bytes]> for $type {
            fn from(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }
        }
        impl AsRef<[u8]> for $type {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
    };
}

text_form!(Address, "an address", 32);
text_form!(Signature, "a signature", 64);
text_form!(Hash, "a blockhash", 32);

impl Address {
    /// The address that `seeds` and `program` give without a bump.
    ///
    /// # Errors
    /// [`SeedError`] when the seeds are out of bounds or the result lies on the curve.
    pub fn create_program_address(seeds: &[&[u8]], program: &Self) -> Result<Self, SeedError> {
        if seeds.len() > SEEDS_MAX || seeds.iter().any(|seed| seed.len() > SEED_BYTES_MAX) {
            return Err(SeedError::Bounds);
        }
        let mut hash = Sha256::new();
        for seed in seeds {
            hash.update(seed);
        }
        hash.update(program.0);
        hash.update(b"ProgramDerivedAddress");
        let address = Self(hash.finalize().into());
        if address.is_on_curve() { Err(SeedError::OnCurve) } else { Ok(address) }
    }

    /// The canonical program address of `seeds` and its bump: the highest bump that gives an address off the curve.
    ///
    /// # Errors
    /// [`SeedError`] when the seeds are out of bounds (or, with probability 2^-256, no bump fits).
    pub fn find_program_address(seeds: &[&[u8]], program: &Self) -> Result<(Self, u8), SeedError> {
        if seeds.len() >= SEEDS_MAX {
            return Err(SeedError::Bounds);
        }
        for bump in (0..=u8::MAX).rev() {
            let bump_seed = [bump];
            let with_bump = [seeds, &[&bump_seed[..]]].concat();
            match Self::create_program_address(&with_bump, program) {
                Err(SeedError::OnCurve) => {}
                Ok(address) => return Ok((address, bump)),
                Err(bounds) => return Err(bounds),
            }
        }
        Err(SeedError::OnCurve)
    }

    /// Whether the bytes are a point of the curve, so that somebody may hold a key for them.
    #[must_use]
    pub fn is_on_curve(&self) -> bool {
        CompressedEdwardsY(self.0).decompress().is_some()
    }

    /// Checks a signature by this key, strictly: small-order keys and non-canonical encodings are refused.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        ed25519_dalek::VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok())
    }

    /// An address from base58 text in the source code.
    ///
    /// Panics at compile time when the text is not 32 bytes.
    #[must_use]
    pub const fn constant(text: &str) -> Self {
        Self(bs58_constant(text.as_bytes()))
    }
}

/// Base58 at compile time; only for well-known addresses.
const fn bs58_constant(text: &[u8]) -> [u8; 32] {
    const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut bytes = [0_u8; 32];
    let mut at = 0;
    while at < text.len() {
        let mut digit = 0;
        while ALPHABET[digit] != text[at] {
            digit += 1;
        }
        let mut carry = digit;
        let mut byte = bytes.len();
        while byte > 0 {
            byte -= 1;
            carry += bytes[byte] as usize * 58;
            // The low byte stays, the rest is carried on.
            bytes[byte] = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        assert!(carry == 0, "more than 32 bytes");
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip_and_refuse_garbage() {
        let address = Address([7; 32]);
        assert_eq!(address.to_string().parse(), Ok(address));
        assert_eq!(Signature([9; 64]).to_string().parse(), Ok(Signature([9; 64])));
        for bad in ["", "0OIl", "abc", &"1".repeat(33), &"z".repeat(44), &"1".repeat(1_000_000)] {
            assert!(bad.parse::<Address>().is_err(), "{}", bad.len());
            assert!(bad.parse::<Signature>().is_err(), "{}", bad.len());
        }
    }

    #[test]
    fn constants_equal_parsed_text() {
        for text in ["11111111111111111111111111111111", "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"] {
            assert_eq!(Ok(Address::constant(text)), text.parse());
        }
    }

    /// Vectors: the associated token account derivation of Solana's own tools and `solana-address`'s unit test.
    #[test]
    fn program_addresses_agree_with_solana() {
        let program = Address::constant("BPFLoaderUpgradeab1e11111111111111111111111");
        let key = Address::constant("SeedPubey1111111111111111111111111111111111");
        let expect = |text: &str, seeds: &[&[u8]]| {
            assert_eq!(Address::create_program_address(seeds, &program), Ok(text.parse().unwrap()), "{seeds:?}");
        };
        expect("BwqrghZA2htAcqq8dzP1WDAhTXYTYWj7CHxF5j7TDBAe", &[b"", &[1]]);
        expect("13yWmRpaTR4r5nAktwLqMpRNr28tnVUZw26rTvPSSB19", &["\u{2609}".as_bytes(), &[0]]);
        expect("2fnQrngrQT4SeLcdToJAD96phoEjNL2man2kfRLCASVk", &[b"Talking", b"Squirrels"]);
        expect("976ymqVnfE32QFe6NfGDctSvVa36LWnvYxhU6G2232YL", &[key.as_ref(), &[1]]);
        let (address, bump) = Address::find_program_address(&[b"Lil'", b"Bits"], &program).unwrap();
        assert_eq!(Address::create_program_address(&[b"Lil'", b"Bits", &[bump]], &program), Ok(address));
        assert!(!address.is_on_curve());
        assert_eq!(Address::create_program_address(&[&[0; 33]], &program), Err(SeedError::Bounds));
        assert_eq!(Address::find_program_address(&[&[0][..]; 16], &program), Err(SeedError::Bounds));
    }
}
