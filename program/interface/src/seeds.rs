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

/// Seeds of [`crate::layout::Rules`].
#[must_use]
pub const fn rules() -> [&'static [u8]; 1] {
    [b"rules"]
}

/// Seeds of [`crate::layout::AskKey`].
#[must_use]
pub const fn ask_key<'a>(supplier: &'a Address, key: &'a Address) -> [&'a [u8]; 3] {
    [b"asks", supplier, key]
}

/// Seeds of [`crate::layout::CoStake`]; `page` is the supplier's page 0, `n` a u16.
#[must_use]
pub const fn costake<'a>(page: &'a Address, n: &'a [u8; 2]) -> [&'a [u8]; 3] {
    [b"costake", page, n]
}

/// Seeds of [`crate::layout::FraudCase`]; `statement` is the SHA-256 of what the device signed.
#[must_use]
pub const fn fraud<'a>(device: &'a Address, statement: &'a Hash) -> [&'a [u8]; 3] {
    [b"fraud", device, statement]
}

/// Seeds of [`crate::layout::Dispute`]; `index` is the epoch's, a u64.
#[must_use]
pub const fn dispute<'a>(lease: &'a Address, index: &'a [u8; 8]) -> [&'a [u8]; 3] {
    [b"dispute", lease, index]
}

/// Seeds of the token account that holds a dispute's bonds; the dispute is the token owner.
#[must_use]
pub const fn dispute_vault(dispute: &Address) -> [&[u8]; 2] {
    [b"pledge", dispute]
}

/// Seeds of [`crate::layout::Proposal`]; `n` is a u64.
#[must_use]
pub const fn proposal(n: &[u8; 8]) -> [&[u8]; 2] {
    [b"proposal", n]
}

/// Seeds of [`crate::layout::Vote`]; `page` is the supplier's page 0.
#[must_use]
pub const fn vote<'a>(proposal: &'a Address, page: &'a Address) -> [&'a [u8]; 3] {
    [b"vote", proposal, page]
}

/// Seeds of [`crate::layout::Reward`]; `hour` and `total` are u64. The total too, so that nobody takes a root's place with
/// another.
#[must_use]
pub const fn reward<'a>(hour: &'a [u8; 8], root: &'a Hash, total: &'a [u8; 8]) -> [&'a [u8]; 4] {
    [b"reward", hour, root, total]
}

/// Seeds of [`crate::layout::Claim`]; `page` is the supplier's page 0.
#[must_use]
pub const fn claim(page: &Address) -> [&[u8]; 2] {
    [b"claim", page]
}

/// Seeds of [`crate::layout::Vesting`]; `n` is a u16.
#[must_use]
pub const fn vesting<'a>(beneficiary: &'a Address, n: &'a [u8; 2]) -> [&'a [u8]; 3] {
    [b"vesting", beneficiary, n]
}

/// Seeds of the token account that holds what a vesting has not paid yet; the vesting is the token owner.
#[must_use]
pub const fn vesting_vault(vesting: &Address) -> [&[u8]; 2] {
    [b"lock", vesting]
}
