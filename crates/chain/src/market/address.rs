//! Where the market's accounts are: the interface's seeds, with the bump searched for. Pure.

use atoll_interface::seeds;

use super::PROGRAM_ID;
use crate::address::{Address, Hash};
use crate::spl::associated_token_address;

fn find(seeds: &[&[u8]]) -> Address {
    Address::find_program_address(seeds, &PROGRAM_ID)
        .expect("the interface's seeds are few and at most 32 bytes each")
        .0
}

/// The network's parameters.
#[must_use]
pub fn config() -> Address {
    find(&seeds::config())
}

/// The device models.
#[must_use]
pub fn catalogue() -> Address {
    find(&seeds::catalogue())
}

/// The price of ATL.
#[must_use]
pub fn feed() -> Address {
    find(&seeds::feed())
}

/// A page of a supplier's workers; page 0 is the supplier.
#[must_use]
pub fn page(supplier: &Address, page_no: u16) -> Address {
    find(&seeds::page(&supplier.0, &page_no.to_le_bytes()))
}

/// The token account of a supplier's stake; `first_page` is the supplier's page 0.
#[must_use]
pub fn stake_vault(first_page: &Address) -> Address {
    find(&seeds::stake_vault(&first_page.0))
}

/// The account that makes a device key unique.
#[must_use]
pub fn device(key: &Address) -> Address {
    find(&seeds::device(&key.0))
}

/// An order; `nonce` is the renter's number for it.
#[must_use]
pub fn order(renter: &Address, nonce: u64) -> Address {
    find(&seeds::order(&renter.0, &nonce.to_le_bytes()))
}

/// The token account of an order's escrow, fees and debts.
#[must_use]
pub fn order_vault(order: &Address) -> Address {
    find(&seeds::order_vault(&order.0))
}

/// A lease: the `n`th of its order.
#[must_use]
pub fn lease(order: &Address, page: &Address, n: u16) -> Address {
    find(&seeds::lease(&order.0, &page.0, &n.to_le_bytes()))
}

/// A session key's account.
#[must_use]
pub fn budget(renter: &Address, key: &Address) -> Address {
    find(&seeds::budget(&renter.0, &key.0))
}

/// The token account of a session key.
#[must_use]
pub fn budget_vault(budget: &Address) -> Address {
    find(&seeds::budget_vault(&budget.0))
}

/// An attestor's account.
#[must_use]
pub fn attestor(key: &Address) -> Address {
    find(&seeds::attestor(&key.0))
}

/// The token account of an attestor's stake.
#[must_use]
pub fn attestor_vault(attestor: &Address) -> Address {
    find(&seeds::attestor_vault(&attestor.0))
}

/// One root proposed for one epoch.
#[must_use]
pub fn epoch(index: u64, root: &Hash) -> Address {
    find(&seeds::epoch(&index.to_le_bytes(), &root.0))
}

/// The account of the rules of stake, faults, rewards and votes.
#[must_use]
pub fn rules() -> Address {
    find(&seeds::rules())
}

/// The token account from which rewards are paid: the rules' own, at its usual address. The program takes any other of the
/// rules' too; the genesis of our networks fills this one.
#[must_use]
pub fn emission(mint: &Address) -> Address {
    associated_token_address(&rules(), mint)
}

/// A key to which a supplier gave its asks.
#[must_use]
pub fn ask_key(supplier: &Address, key: &Address) -> Address {
    find(&seeds::ask_key(&supplier.0, &key.0))
}

/// An offer of co-stake; `first_page` is the supplier's page 0, `n` the number of the offer.
#[must_use]
pub fn costake(first_page: &Address, n: u16) -> Address {
    find(&seeds::costake(&first_page.0, &n.to_le_bytes()))
}

/// A case of capacity fraud; `statement` is the hash of what the device signed.
#[must_use]
pub fn fraud(device: &Address, statement: &Hash) -> Address {
    find(&seeds::fraud(&device.0, &statement.0))
}
