//! The market's instructions, ready to be signed. Pure.
//!
//! One function an instruction: it takes the interface's data, the addresses that only the caller knows, and derives the
//! rest. Who signs is said by each function; the interface's account tables decide flags and order.

use atoll_interface::instruction::{self as interface, Meta};
use atoll_interface::{Data, Error};

use super::{PROGRAM_ID, address};
use crate::address::{Address, Hash};
use crate::transaction::{AccountMeta, Instruction};

pub(super) fn build<const N: usize>(metas: [Meta; N], data: &Data) -> Instruction {
    let account =
        |meta: Meta| AccountMeta { address: Address(meta.address), signer: meta.signer, writable: meta.writable };
    Instruction {
        program: PROGRAM_ID,
        accounts: metas.into_iter().map(account).collect(),
        data: data.as_slice().to_vec(),
    }
}

/// For data without lists: at most 300 bytes, so encoding it cannot fail.
pub(super) fn build_fixed<const N: usize>(metas: [Meta; N], data: Result<Data, Error>) -> Instruction {
    build(metas, &data.expect("instruction data without lists fits in a transaction"))
}

/// Makes the network. Signs: `admin`, who pays.
///
/// # Errors
/// [`Error::InstructionMalformed`] when the seats do not fit in a transaction.
pub fn init(
    admin: Address,
    mint: Address,
    treasury: Address,
    data: &interface::Init<'_>,
) -> Result<Instruction, Error> {
    let accounts = interface::InitAccounts {
        admin: admin.0,
        config: address::config().0,
        catalogue: address::catalogue().0,
        feed: address::feed().0,
        mint: mint.0,
        treasury: treasury.0,
    };
    Ok(build(accounts.metas(), &data.encode()?))
}

/// Adds or changes a device model. Signs: `admin`, who pays.
#[must_use]
pub fn set_catalogue(admin: Address, data: &interface::SetCatalogue) -> Instruction {
    let accounts = interface::SetCatalogueAccounts {
        admin: admin.0,
        config: address::config().0,
        catalogue: address::catalogue().0,
    };
    build_fixed(accounts.metas(), data.encode())
}

/// Sets the price of ATL. Signs: `admin`.
#[must_use]
pub fn set_feed(admin: Address, data: &interface::SetFeed) -> Instruction {
    let accounts = interface::SetFeedAccounts { admin: admin.0, config: address::config().0, feed: address::feed().0 };
    build_fixed(accounts.metas(), data.encode())
}

/// Registers a worker. Sign: `supplier`, who pays, and `device`.
#[must_use]
pub fn register_worker(supplier: Address, device: Address, data: &interface::RegisterWorker) -> Instruction {
    let accounts = interface::RegisterWorkerAccounts {
        supplier: supplier.0,
        device: device.0,
        config: address::config().0,
        catalogue: address::catalogue().0,
        page: address::page(&supplier, data.page_no).0,
        first_page: address::page(&supplier, 0).0,
        device_key: address::device(&device).0,
    };
    build_fixed(accounts.metas(), data.encode())
}

/// Adds to a supplier's own stake, from its token account `source`. Signs: `supplier`, who pays.
#[must_use]
pub fn stake(supplier: Address, source: Address, mint: Address, amount: u64) -> Instruction {
    let first_page = address::page(&supplier, 0);
    let accounts = interface::StakeAccounts {
        supplier: supplier.0,
        first_page: first_page.0,
        vault: address::stake_vault(&first_page).0,
        source: source.0,
        mint: mint.0,
        config: address::config().0,
    };
    build_fixed(accounts.metas(), interface::Stake { amount }.encode())
}

/// Changes a slot's terms. Signs: `authority`, the supplier's wallet or the slot's device key.
#[must_use]
pub fn set_ask(authority: Address, page: Address, data: &interface::SetAsk) -> Instruction {
    let accounts = interface::SetAskAccounts { authority: authority.0, page: page.0 };
    build_fixed(accounts.metas(), data.encode())
}

/// Makes or changes a session key, and moves funds between its vault and the wallet's token account. Signs: `renter`,
/// who pays.
#[must_use]
pub fn set_budget(renter: Address, wallet_token: Address, mint: Address, data: &interface::SetBudget) -> Instruction {
    let budget = address::budget(&renter, &Address(data.key));
    let accounts = interface::SetBudgetAccounts {
        renter: renter.0,
        budget: budget.0,
        vault: address::budget_vault(&budget).0,
        wallet_token: wallet_token.0,
        mint: mint.0,
        config: address::config().0,
    };
    build_fixed(accounts.metas(), data.encode())
}

/// With whose right a renter's instruction is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renter {
    /// The wallet itself.
    Wallet(Address),
    /// A session key of the wallet.
    Budget {
        /// The wallet.
        wallet: Address,
        /// The session key, which signs.
        key: Address,
    },
}

impl Renter {
    /// The renter's wallet.
    #[must_use]
    pub const fn wallet(&self) -> Address {
        match self {
            Self::Wallet(wallet) | Self::Budget { wallet, .. } => *wallet,
        }
    }

    /// The key that signs.
    #[must_use]
    pub const fn authority(&self) -> Address {
        match self {
            Self::Wallet(wallet) => *wallet,
            Self::Budget { key, .. } => *key,
        }
    }

    /// The budget's account, when a session key signs.
    #[must_use]
    pub fn budget(&self) -> Option<Address> {
        match self {
            Self::Wallet(_) => None,
            Self::Budget { wallet, key } => Some(address::budget(wallet, key)),
        }
    }
}

/// Posts an order. `source` is a token account of the wallet; with a session key the budget's vault pays instead.
/// Sign: the renter's authority, and `payer`, who pays the rent.
#[must_use]
pub fn post_order(
    renter: Renter,
    payer: Address,
    source: Address,
    mint: Address,
    data: &interface::PostOrder,
) -> Instruction {
    let order = address::order(&renter.wallet(), data.nonce);
    let budget = renter.budget();
    let accounts = interface::PostOrderAccounts {
        authority: renter.authority().0,
        payer: payer.0,
        order: order.0,
        vault: address::order_vault(&order).0,
        source: budget.map_or(source, |budget| address::budget_vault(&budget)).0,
        budget: budget.unwrap_or(order).0,
        config: address::config().0,
        catalogue: address::catalogue().0,
        feed: address::feed().0,
        mint: mint.0,
    };
    build_fixed(accounts.metas(), data.encode())
}

/// Where a lease is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The order.
    pub order: Address,
    /// The supplier's wallet.
    pub supplier: Address,
    /// The number of the supplier's page.
    pub page_no: u16,
    /// The order's `leases_made`: the number that this lease will have.
    pub n: u16,
}

impl Place {
    /// The page's account.
    #[must_use]
    pub fn page(&self) -> Address {
        address::page(&self.supplier, self.page_no)
    }

    /// The lease's account.
    #[must_use]
    pub fn lease(&self) -> Address {
        address::lease(&self.order, &self.page(), self.n)
    }
}

/// Gives slots of one page to an order. Sign: `filler`, and `payer`, who pays the rent.
///
/// # Errors
/// [`Error::InstructionMalformed`] when bitmap and path do not fit in a transaction.
pub fn fill_order(
    filler: Address,
    payer: Address,
    place: Place,
    data: &interface::FillOrder<'_>,
) -> Result<Instruction, Error> {
    let accounts = interface::FillOrderAccounts {
        filler: filler.0,
        payer: payer.0,
        order: place.order.0,
        page: place.page().0,
        first_page: address::page(&place.supplier, 0).0,
        lease: place.lease().0,
        config: address::config().0,
    };
    Ok(build(accounts.metas(), &data.encode()?))
}

/// Lengthens an order, paid from the wallet's token account `source`. Signs: `renter`.
#[must_use]
pub fn extend_order(renter: Address, order: Address, source: Address, data: &interface::ExtendOrder) -> Instruction {
    let accounts = interface::ExtendOrderAccounts {
        renter: renter.0,
        order: order.0,
        vault: address::order_vault(&order).0,
        source: source.0,
    };
    build_fixed(accounts.metas(), data.encode())
}

/// Moves a lease's end to its order's. Nobody needs to sign.
#[must_use]
pub fn extend_lease(order: Address, lease: Address, page: Address) -> Instruction {
    let accounts = interface::ExtendLeaseAccounts { order: order.0, lease: lease.0, page: page.0 };
    build_fixed(accounts.metas(), interface::ExtendLease {}.encode())
}

/// Frees slots of a lease. `budget` is the order's budget when its key signs. Signs: `authority`.
///
/// # Errors
/// [`Error::InstructionMalformed`] when the bitmap does not fit in a transaction.
pub fn release_lease(
    authority: Address,
    order: Address,
    lease: Address,
    page: Address,
    budget: Option<Address>,
    data: &interface::ReleaseLease<'_>,
) -> Result<Instruction, Error> {
    let accounts = interface::ReleaseLeaseAccounts {
        authority: authority.0,
        order: order.0,
        lease: lease.0,
        page: page.0,
        budget: budget.unwrap_or(order).0,
    };
    Ok(build(accounts.metas(), &data.encode()?))
}

/// Stakes for a seat of the attestor set, from the owner's token account `source`. Sign: `owner`, who pays, and `key`.
#[must_use]
pub fn register_attestor(owner: Address, key: Address, source: Address, mint: Address, seat: u16) -> Instruction {
    let attestor = address::attestor(&key);
    let accounts = interface::RegisterAttestorAccounts {
        owner: owner.0,
        key: key.0,
        attestor: attestor.0,
        vault: address::attestor_vault(&attestor).0,
        source: source.0,
        mint: mint.0,
        config: address::config().0,
    };
    build_fixed(accounts.metas(), interface::RegisterAttestor { seat }.encode())
}

/// Votes for a root. Sign: the attestor's `key`, and `payer`, who pays the rent.
#[must_use]
pub fn post_epoch(key: Address, payer: Address, index: u64, root: Hash) -> Instruction {
    let accounts = interface::PostEpochAccounts {
        key: key.0,
        payer: payer.0,
        attestor: address::attestor(&key).0,
        epoch: address::epoch(index, &root).0,
        config: address::config().0,
    };
    build_fixed(accounts.metas(), interface::PostEpoch { index, root: root.0 }.encode())
}

/// Books a lease's leaf under the final root in `epoch`. Nobody needs to sign.
///
/// # Errors
/// [`Error::InstructionMalformed`] when the path does not fit in a transaction.
pub fn settle_lease(
    order: Address,
    lease: Address,
    epoch: Address,
    data: &interface::SettleLease<'_>,
) -> Result<Instruction, Error> {
    let accounts =
        interface::SettleLeaseAccounts { order: order.0, lease: lease.0, epoch: epoch.0, config: address::config().0 };
    Ok(build(accounts.metas(), &data.encode()?))
}

/// Books neighbouring leaves of one order under the final root in `epoch`; `leases` are theirs, in the order of the leaves.
/// Nobody needs to sign.
///
/// # Errors
/// [`Error::InstructionMalformed`] when there is not one lease a leaf, or leaves and path do not fit in a transaction.
pub fn settle_batch(
    order: Address,
    epoch: Address,
    leases: &[Address],
    data: &interface::SettleBatch<'_>,
) -> Result<Instruction, Error> {
    if leases.len() != data.leaves.len() {
        return Err(Error::InstructionMalformed);
    }
    let accounts = interface::SettleBatchAccounts { order: order.0, epoch: epoch.0, config: address::config().0 };
    let mut batch = build(accounts.metas(), &data.encode()?);
    batch.accounts.extend(leases.iter().map(|lease| AccountMeta::write(*lease)));
    Ok(batch)
}

/// Books neighbouring leaves of several orders under the final root in `epoch`; `held` are order and lease of each, in the
/// order of the leaves. Nobody needs to sign.
///
/// # Errors
/// [`Error::InstructionMalformed`] when there is not one lease a leaf, or leaves and path do not fit in a transaction.
pub fn settle_mixed(
    epoch: Address,
    held: &[(Address, Address)],
    data: &interface::SettleMixed<'_>,
) -> Result<Instruction, Error> {
    if held.len() != data.leaves.len() {
        return Err(Error::InstructionMalformed);
    }
    let accounts = interface::SettleMixedAccounts { epoch: epoch.0, config: address::config().0 };
    let mut mixed = build(accounts.metas(), &data.encode()?);
    let (orders, leases): (Vec<Address>, Vec<Address>) = held.iter().copied().unzip();
    mixed.accounts.extend(orders.into_iter().chain(leases).map(AccountMeta::write));
    Ok(mixed)
}

/// Moves what a lease is owed to `destination`, a token account of its supplier. Nobody needs to sign.
#[must_use]
pub fn withdraw_owed(order: Address, lease: Address, page: Address, destination: Address) -> Instruction {
    let accounts = interface::WithdrawOwedAccounts {
        order: order.0,
        lease: lease.0,
        page: page.0,
        vault: address::order_vault(&order).0,
        destination: destination.0,
    };
    build_fixed(accounts.metas(), interface::WithdrawOwed {}.encode())
}

/// Pays what is owed to `destination`, a token account of the supplier, and closes the lease; its rent goes back to
/// `rent_payer`. Nobody needs to sign.
#[must_use]
pub fn close_lease(
    order: Address,
    lease: Address,
    page: Address,
    destination: Address,
    rent_payer: Address,
) -> Instruction {
    let accounts = interface::CloseLeaseAccounts {
        order: order.0,
        lease: lease.0,
        page: page.0,
        vault: address::order_vault(&order).0,
        destination: destination.0,
        rent_payer: rent_payer.0,
        config: address::config().0,
    };
    build_fixed(accounts.metas(), interface::CloseLease {}.encode())
}

/// Refunds the rest of the escrow to `refund` (a token account of the wallet, or the budget's vault) and closes the
/// order; its rent goes back to `rent_payer`. Signs: `authority`.
#[must_use]
pub fn close_order(
    authority: Address,
    order: Address,
    refund: Address,
    rent_payer: Address,
    budget: Option<Address>,
) -> Instruction {
    let accounts = interface::CloseOrderAccounts {
        authority: authority.0,
        order: order.0,
        vault: address::order_vault(&order).0,
        refund: refund.0,
        rent_payer: rent_payer.0,
        budget: budget.unwrap_or(order).0,
    };
    build_fixed(accounts.metas(), interface::CloseOrder {}.encode())
}

/// Burns half of an order's fees and sends the rest to the treasury. Nobody needs to sign.
#[must_use]
pub fn collect_fees(order: Address, mint: Address, treasury: Address) -> Instruction {
    let accounts = interface::CollectFeesAccounts {
        order: order.0,
        vault: address::order_vault(&order).0,
        mint: mint.0,
        treasury: treasury.0,
        config: address::config().0,
    };
    build_fixed(accounts.metas(), interface::CollectFees {}.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renter_signs_with_the_wallet_or_a_budget_key() {
        let (wallet, key, other) = (Address([1; 32]), Address([2; 32]), Address([3; 32]));
        let data = interface::PostOrder {
            nonce: 5,
            models: [1, 0, 0, 0],
            devices: 3,
            devices_min: 3,
            devices_per_worker: 0,
            tier: 0,
            class: 1,
            region: 0,
            price_cap_uusd: 1_000_000,
            duration_s: 3600,
            fill_s: 60,
            spec_root: [7; 32],
            fill_root: [0; 32],
            solvers: [[0; 32]; 3],
        };
        let order = address::order(&wallet, 5);
        let by_wallet = post_order(Renter::Wallet(wallet), other, Address([4; 32]), Address([5; 32]), &data);
        assert_eq!(by_wallet.accounts[0], AccountMeta::sign(wallet));
        assert_eq!(by_wallet.accounts[1], AccountMeta::sign_write(other));
        assert_eq!(by_wallet.accounts[2], AccountMeta::write(order));
        assert_eq!(by_wallet.accounts[4], AccountMeta::write(Address([4; 32])));
        assert_eq!(by_wallet.accounts[5].address, order);

        let by_budget = post_order(Renter::Budget { wallet, key }, other, Address([4; 32]), Address([5; 32]), &data);
        let budget = address::budget(&wallet, &key);
        assert_eq!(by_budget.accounts[0], AccountMeta::sign(key));
        assert_eq!(by_budget.accounts[2], AccountMeta::write(order));
        assert_eq!(by_budget.accounts[4], AccountMeta::write(address::budget_vault(&budget)));
        assert_eq!(by_budget.accounts[5].address, budget);
        assert!(matches!(
            interface::Instruction::decode(&by_budget.data),
            Ok(interface::Instruction::PostOrder(decoded)) if decoded == data
        ));
    }

    #[test]
    fn data_that_does_not_fit_is_refused() {
        let path = [[0; 32]; 40];
        let data = interface::SettleLease {
            device_seconds: 0,
            until: 0,
            flags: 0,
            slots_root: [0; 32],
            leaf_index: 0,
            path: atoll_interface::Hashes::new(&path),
        };
        let at = Address([1; 32]);
        assert_eq!(settle_lease(at, at, at, &data), Err(Error::InstructionMalformed));
    }
}
