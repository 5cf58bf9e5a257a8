//! Lengthening orders: what a renter's signed transaction adds, and which leases can go along.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use atoll_interface::Error;
use atoll_interface::fill::bit;
use atoll_interface::instruction::{ExtendOrderAccounts, Instruction};
use atoll_interface::layout::{Lease, Order};

use super::{Market, ReadError};
use crate::address::Address;
use crate::transaction::Decoded;

/// Places in the accounts of `extend_order`, in the order that `interface` declares them.
const RENTER: usize = 0;
const ORDER: usize = 1;
const VAULT: usize = 2;
const SOURCE: usize = 3;

/// The least seconds that clients and operators add at once. The program takes less; but each addition costs every lease of
/// the order a transaction.
pub const EXTENSION_S_MIN: u32 = 60;

/// One `extend_order`, signed by its renter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    /// The renter's wallet, which signed.
    pub renter: Address,
    /// The order.
    pub order: Address,
    /// The order's vault, as the transaction names it.
    pub vault: Address,
    /// The token account that pays.
    pub source: Address,
    /// Seconds added.
    pub seconds: u32,
    /// Base units added to the escrow.
    pub escrow: u64,
}

/// Every extension by this market program in a transaction whose signatures were verified, in its order.
#[must_use]
pub fn extensions(transaction: &Decoded, program: &Address) -> Vec<Extension> {
    let of_market = transaction.instructions.iter().filter(|instruction| instruction.program == *program);
    of_market
        .filter_map(|instruction| {
            let Ok(Instruction::ExtendOrder(extend)) = Instruction::decode(&instruction.data) else { return None };
            if instruction.accounts.len() < ExtendOrderAccounts::FLAGS.len() || !instruction.accounts[RENTER].signer {
                return None;
            }
            let account = |at: usize| instruction.accounts[at].address;
            Some(Extension {
                renter: account(RENTER),
                order: account(ORDER),
                vault: account(VAULT),
                source: account(SOURCE),
                seconds: extend.seconds,
                escrow: extend.escrow,
            })
        })
        .collect()
}

/// A lease with devices that ends before its order does.
#[derive(Debug, Clone)]
pub struct Shorter {
    /// Its account.
    pub address: Address,
    /// As the program would see it now.
    pub lease: Lease,
    /// The device keys in its slots.
    pub devices: Vec<Address>,
    /// Whether `extend_lease` would move its end now.
    pub goes_along: Result<(), Error>,
}

/// Every device whose lease does not go along, and why, for people.
#[must_use]
pub fn stay_behind(leases: &[Shorter]) -> Vec<(Address, String)> {
    let of = |shorter: &Shorter| {
        let why = shorter.goes_along.err().map(|error| format!("stays behind: {}", why_shorter(error)));
        why.into_iter()
            .flat_map(|why| shorter.devices.iter().map(move |device| (*device, why.clone())))
            .collect::<Vec<_>>()
    };
    leases.iter().flat_map(of).collect()
}

/// Whether nothing is gained by lengthening an order whose leases these are: all of them stay behind, and no device is
/// open, whose next lease would have the new end.
#[must_use]
pub fn is_in_vain(order: &Order, leases: &[Shorter]) -> bool {
    order.devices_open == 0 && leases.iter().all(|lease| lease.goes_along.is_err())
}

const fn why_shorter(error: Error) -> &'static str {
    match error {
        Error::AskTooHigh => "it asks more now than its lease pays",
        Error::SlotSuspended => "it drains or is suspended",
        Error::SlotUnfit => "it does not lease for so long",
        Error::LeaseEnded => "its lease has ended",
        other => other.words(),
    }
}

impl Market {
    /// The leases of an order that end before it does, by number. `order` is as the program would see it at `now`, or will
    /// once it is lengthened.
    ///
    /// # Errors
    /// [`ReadError`], as every method of this reader.
    pub async fn shorter_leases(&self, address: &Address, order: &Order, now: i64) -> Result<Vec<Shorter>, ReadError> {
        let mut pages = BTreeMap::new();
        let mut found = Vec::new();
        for at in self.leases_of(address).await? {
            let mut lease = at.value;
            lease.begin(order);
            if lease.devices_live == 0 || lease.end >= order.end {
                continue;
            }
            let page = Address(lease.page);
            let rows = match pages.entry(page) {
                Entry::Occupied(rows) => rows.into_mut(),
                Entry::Vacant(place) => {
                    let missing = || ReadError::Foreign { address: page, expected: "FleetPage" };
                    place.insert(self.page(&page).await?.ok_or_else(missing)?.value.rows)
                }
            };
            let held = rows.iter().enumerate().filter(|(slot, _)| bit(&lease.bitmap, *slot));
            let devices = held.map(|(_, row)| Address(row.device_key)).collect();
            let goes_along = lease.clone().extend(order, rows, now);
            found.push(Shorter { address: at.address, lease, devices, goes_along });
        }
        found.sort_by_key(|shorter| shorter.lease.n);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use atoll_interface::instruction::ExtendOrder;

    use super::*;
    use crate::market::{PROGRAM_ID, address, instruction};
    use crate::transaction::{decode, sign};
    use crate::{Hash, Keypair};

    #[test]
    fn an_extension_is_in_vain_when_nobody_goes_along_and_no_device_is_open() {
        let lease = |goes_along| {
            let (address, devices) = (Address([8; 32]), vec![Address([5; 32]), Address([6; 32])]);
            Shorter { address, lease: Lease::new(), devices, goes_along }
        };
        let (goes, stays) = (lease(Ok(())), lease(Err(Error::AskTooHigh)));
        let all = [goes.clone(), stays.clone()];
        let why = "stays behind: it asks more now than its lease pays".to_owned();
        assert_eq!(stay_behind(&all), [(Address([5; 32]), why.clone()), (Address([6; 32]), why)]);
        let order = |devices_open| Order { devices_open, ..Order::new() };
        assert!(is_in_vain(&order(0), std::slice::from_ref(&stays)));
        assert!(!is_in_vain(&order(0), &all), "one goes along");
        assert!(!is_in_vain(&order(1), &[stays]), "the next lease has the new end");
        assert!(!is_in_vain(&order(1), &[]), "nobody's lease is there to be asked, and the next one has the new end");
    }

    #[test]
    fn what_a_renter_signed_is_read_and_nothing_else() {
        let renter = Keypair::from_seed(&[1; 32]);
        let (order, source) = (Address([2; 32]), Address([3; 32]));
        let extend = |seconds| {
            let data = ExtendOrder { seconds, escrow: 7 };
            instruction::extend_order(renter.address(), order, source, &data)
        };
        let read = |instructions: &[crate::Instruction]| {
            extensions(&decode(sign(instructions, &renter, &[], &Hash([4; 32])).unwrap().bytes()).unwrap(), &PROGRAM_ID)
        };
        let one = Extension {
            renter: renter.address(),
            order,
            vault: address::order_vault(&order),
            source,
            seconds: 60,
            escrow: 7,
        };
        assert_eq!(read(&[extend(60), extend(61)]), [one, Extension { seconds: 61, ..one }]);
        let mut cut = extend(60);
        cut.accounts.truncate(3);
        let mut unsigned = extend(60);
        unsigned.accounts[0] = crate::AccountMeta::read(Address([9; 32]));
        let mut elsewhere = extend(60);
        elsewhere.program = Address([9; 32]);
        assert_eq!(read(&[cut, unsigned, elsewhere]), []);
    }
}
