//! Seeds of the program's addresses. The search for the bump is the caller's: `atoll-chain` off chain, a syscall on chain.
//!
//! Numbers go in as their little-endian bytes, which the caller keeps alive.

use crate::{Address, Hash};

/// Seeds of [`crate::layout::Config`].
#[must_use]
pub const fn config() -> [&'static [u8]; 1] {
    [b"config"]
}

/// Seeds of [`crate::layout::Catalogue`].
#[must_use]
pub const fn catalogue() -> [&'static [u8]; 1] {
    [b"catalogue"]
}

/// Seeds of [`crate::layout::PriceFeed`].
#[must_use]
pub const fn feed() -> [&'static [u8]; 1] {
    [b"feed"]
}

/// Seeds of [`crate::layout::FleetPage`]; `page_no` is a u16.
#[must_use]
pub const fn page<'a>(supplier: &'a Address, page_no: &'a [u8; 2]) -> [&'a [u8]; 3] {
    [b"page", supplier, page_no]
}

/// Seeds of the token account that holds a supplier's stake; `page` is its page 0, which is also the token owner.
#[must_use]
pub const fn stake_vault(page: &Address) -> [&[u8]; 2] {
    [b"stake", page]
}

/// Seeds of [`crate::layout::DeviceKey`].
#[must_use]
pub const fn device(key: &Address) -> [&[u8]; 2] {
    [b"device", key]
}

/// Seeds of [`crate::layout::Order`]; `nonce` is a u64 of the renter's choice.
#[must_use]
pub const fn order<'a>(renter: &'a Address, nonce: &'a [u8; 8]) -> [&'a [u8]; 3] {
    [b"order", renter, nonce]
}

/// Seeds of the token account that holds an order's escrow, fees and debts; the order is the token owner.
#[must_use]
pub const fn order_vault(order: &Address) -> [&[u8]; 2] {
    [b"vault", order]
}

/// Seeds of [`crate::layout::Lease`]; `n` is a u16.
#[must_use]
pub const fn lease<'a>(order: &'a Address, page: &'a Address, n: &'a [u8; 2]) -> [&'a [u8]; 4] {
    [b"lease", order, page, n]
}

/// Seeds of [`crate::layout::Budget`].
#[must_use]
pub const fn budget<'a>(renter: &'a Address, key: &'a Address) -> [&'a [u8]; 3] {
    [b"budget", renter, key]
}

/// Seeds of the token account of a budget; the budget is the token owner.
#[must_use]
pub const fn budget_vault(budget: &Address) -> [&[u8]; 2] {
    [b"purse", budget]
}

/// Seeds of [`crate::layout::Attestor`].
#[must_use]
pub const fn attestor(key: &Address) -> [&[u8]; 2] {
    [b"attestor", key]
}

/// Seeds of the token account that holds an attestor's stake; the attestor account is the token owner.
#[must_use]
pub const fn attestor_vault(attestor: &Address) -> [&[u8]; 2] {
    [b"bond", attestor]
}

/// Seeds of [`crate::layout::Epoch`]; `index` is a u64.
#[must_use]
pub const fn epoch<'a>(index: &'a [u8; 8], root: &'a Hash) -> [&'a [u8]; 3] {
    [b"epoch", index, root]
}
