//! The market program as its clients see it: addresses, typed accounts, instructions, errors.
use crate::address::Address;

/// Where the market program lives.
pub const PROGRAM_ID: Address = Address(atoll_interface::PROGRAM_ID);

/// An error of the market program.
pub use atoll_interface::Error as MarketError;

/// The market's error of a custom error number.
#[must_use]
pub const fn error_of_code(code: u32) -> Option<MarketError> {
    MarketError::from_code(code)
}

pub(crate) fn error_words(code: u32) -> Option<String> {
    MarketError::from_code(code).map(|error| format!("{} ({error:?})", error.words()))
}
