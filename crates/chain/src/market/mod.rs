//! The market program as its clients see it: addresses, instructions, typed accounts, errors.
//!
//! The bytes are `atoll-interface`'s: its types are used as they are ([`layout`], [`data`], [`settlement`], [`merkle`]),
//! and this module adds what the interface leaves out: the search for a bump ([`address`]), the accounts that an
//! instruction needs ([`instruction`]), what a renter's transaction adds to an order, and reading accounts over RPC without believing them ([`Market`]).

pub mod address;
mod extension;
pub mod fault;
pub mod instruction;
pub mod leaving;
mod reader;

pub use atoll_interface::instruction as data;
pub use atoll_interface::{
    Error as MarketError, arithmetic, capacity, emission, fill, fraud, layout, merkle, network, settlement, stake,
};
pub use extension::{EXTENSION_S_MIN, Extension, Shorter, extensions, is_in_vain, stay_behind};
pub use reader::{At, Market, Network, ReadError, Table, made, read, read_table};

use crate::address::Address;

/// Where the market program lives.
pub const PROGRAM_ID: Address = Address(atoll_interface::PROGRAM_ID);

/// SHA-256 over the concatenated parts, in the shape that the interface takes as an argument.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The market's error of a custom error number.
#[must_use]
pub const fn error_of_code(code: u32) -> Option<MarketError> {
    MarketError::from_code(code)
}

pub(crate) fn error_words(code: u32) -> Option<String> {
    MarketError::from_code(code).map(|error| format!("{} ({error:?})", error.words()))
}
