//! What the chain and the network must agree on: account layouts, instruction encoding, error codes, address seeds,
//! settlement arithmetic, Merkle trees and the network root.
//!
//! Everything here is a pure function of its arguments. The crate has no dependency, allocates nothing and hashes through
//! a function that the caller passes in (a syscall on chain, `sha2` outside), so that the Solana program and the network
//! run the very same sums. It leaves signing, sending and the search for an address's bump to `atoll-chain`, and the
//! moving of lamports and tokens to the market program.
//!
//! On chain a checked 64-bit multiply, a `u128` multiply or division and a signed division do not link; this crate
//! therefore multiplies through [`arithmetic::mul_wide`] and its `clippy.toml` bans the rest.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(test)]
extern crate std;

pub mod arithmetic;
pub mod capacity;
pub mod cosigned;
pub mod dispute;
pub mod emission;
pub mod error;
pub mod fill;
pub mod fraud;
pub mod govern;
pub mod instruction;
pub mod layout;
pub mod merkle;
pub mod network;
pub mod reward;
pub mod seeds;
pub mod settlement;
pub mod signature;
pub mod spot;
pub mod stake;
pub mod vesting;
pub mod votes;
mod wire;

pub use error::Error;
pub use wire::{Data, Hashes, Wire};

/// An account address or an ed25519 public key, 32 bytes.
pub type Address = [u8; 32];

/// A SHA-256 digest.
pub type Hash = [u8; 32];

/// The all-zero address: "none" wherever an address is optional.
pub const NO_ADDRESS: Address = [0; 32];

/// Decimals of ATL, the one mint of the market.
pub const ATL_DECIMALS: u8 = 9;

/// Base units of one ATL: 10^[`ATL_DECIMALS`].
pub const ATL: u64 = 1_000_000_000;

/// Address of the market program on local networks: SHA-256 of `atoll/program/local/1`.
///
/// Nobody holds a key for it; a local chain loads the committed `market.so` there at start.
pub const PROGRAM_ID: Address = [
    0x0e, 0xe3, 0x87, 0x80, 0x4d, 0x75, 0x8e, 0x67, 0xa7, 0xc0, 0x1c, 0x36, 0x7f, 0x04, 0xdb, 0x7a, 0xb8, 0x52, 0x35,
    0xc7, 0x23, 0x20, 0x83, 0xec, 0xab, 0x43, 0x8a, 0xdc, 0x8e, 0x00, 0xd3, 0x07,
];

/// Address of the SPL token program, `TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA`.
pub const TOKEN_PROGRAM_ID: Address = [
    6, 221, 246, 225, 215, 101, 161, 147, 217, 203, 225, 70, 206, 235, 121, 172, 28, 180, 133, 237, 95, 91, 55, 145,
    58, 140, 245, 133, 126, 255, 0, 169,
];

/// Address of the system program, `11111111111111111111111111111111`.
pub const SYSTEM_PROGRAM_ID: Address = [0; 32];

#[cfg(test)]
pub(crate) mod test {
    use sha2::{Digest, Sha256};

    /// SHA-256 over the concatenated parts.
    pub(crate) fn sha256(parts: &[&[u8]]) -> crate::Hash {
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    #[test]
    fn the_local_program_id_is_the_hash_it_says() {
        assert_eq!(crate::PROGRAM_ID, sha256(&[b"atoll/program/local/1"]));
    }
}
