//! The instructions of supply and stake that came after the first market: terms of many slots, keys, how workers and stake
//! leave, and co-stake. Pure, as [`super::instruction`].

use atoll_interface::Error;
use atoll_interface::instruction as interface;

use super::address;
use super::instruction::{build, build_fixed};
use crate::address::Address;
use crate::transaction::Instruction;

/// Makes or changes the rules. Signs: `admin`, who pays.
#[must_use]
pub fn set_rules(admin: Address, data: &interface::SetRules) -> Instruction {
    let accounts =
        interface::SetRulesAccounts { admin: admin.0, config: address::config().0, rules: address::rules().0 };
    build_fixed(accounts.metas(), data.encode())
}

/// Who sets asks and drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The supplier's wallet, or for drains the device key of the one slot.
    Own(Address),
    /// A key that the supplier's wallet gave its asks to.
    Delegate {
        /// The supplier's wallet.
        supplier: Address,
        /// The key.
        key: Address,
    },
}

impl Asker {
    /// Who signs, and what stands in the place of the key's account.
    fn parts(self, page: Address) -> (Address, Address) {
        match self {
            Self::Own(authority) => (authority, page),
            Self::Delegate { supplier, key } => (key, address::ask_key(&supplier, &key)),
        }
    }
}

/// Lets slots take no new lease, or take them again. Signs: the asker.
///
/// # Errors
/// [`Error::InstructionMalformed`] when the bitmap does not fit in a transaction.
pub fn set_drain(asker: Asker, page: Address, data: &interface::SetDrain<'_>) -> Result<Instruction, Error> {
    let (authority, ask_key) = asker.parts(page);
    let accounts = interface::SetDrainAccounts { authority: authority.0, page: page.0, ask_key: ask_key.0 };
    Ok(build(accounts.metas(), &data.encode()?))
}

/// Sets one ask for some slots. Signs: the asker.
///
/// # Errors
/// [`Error::InstructionMalformed`] when the bitmap does not fit in a transaction.
pub fn set_asks(asker: Asker, page: Address, data: &interface::SetAsks<'_>) -> Result<Instruction, Error> {
    let (authority, ask_key) = asker.parts(page);
    let accounts = interface::SetAsksAccounts { authority: authority.0, page: page.0, ask_key: ask_key.0 };
    Ok(build(accounts.metas(), &data.encode()?))
}

/// Gives a key the supplier's asks, or takes them away. Signs: `supplier`, who pays the rent and gets it back.
#[must_use]
pub fn delegate_ask_key(supplier: Address, data: &interface::DelegateAskKey) -> Instruction {
    let ask_key = address::ask_key(&supplier, &Address(data.key));
    let accounts = interface::DelegateAskKeyAccounts { supplier: supplier.0, ask_key: ask_key.0 };
    build_fixed(accounts.metas(), data.encode())
}

/// Gives a worker another device key. Sign: `supplier`, who pays, and `new`.
#[must_use]
pub fn rotate_device_key(supplier: Address, page: Address, slot: u16, old: Address, new: Address) -> Instruction {
    let accounts = interface::RotateDeviceKeyAccounts {
        supplier: supplier.0,
        device: new.0,
        page: page.0,
        old_key: address::device(&old).0,
        new_key: address::device(&new).0,
    };
    build_fixed(accounts.metas(), interface::RotateDeviceKey { slot }.encode())
}

/// Takes a worker off its slot. Signs: `supplier`.
#[must_use]
pub fn retire_worker(supplier: Address, page_no: u16, slot: u16, device: Address) -> Instruction {
    let accounts = interface::RetireWorkerAccounts {
        supplier: supplier.0,
        page: address::page(&supplier, page_no).0,
        first_page: address::page(&supplier, 0).0,
        device_key: address::device(&device).0,
        config: address::config().0,
        catalogue: address::catalogue().0,
    };
    build_fixed(accounts.metas(), interface::RetireWorker { slot }.encode())
}

/// Closes the account of a retired device key. Signs: `supplier`, who gets the rent.
#[must_use]
pub fn close_device_key(supplier: Address, page_no: u16, device: Address) -> Instruction {
    let accounts = interface::CloseDeviceKeyAccounts {
        supplier: supplier.0,
        device_key: address::device(&device).0,
        rules: address::rules().0,
    };
    build_fixed(accounts.metas(), interface::CloseDeviceKey { page_no }.encode())
}

/// Closes a page that holds nothing; `stake` is the supplier's token account when a stake vault closes with page 0, `None`
/// for other pages and for a supplier that never staked. Signs: `supplier`, who gets the rent.
#[must_use]
pub fn close_page(supplier: Address, page_no: u16, stake: Option<Address>) -> Instruction {
    let page = address::page(&supplier, page_no);
    let (vault, destination) = stake.map_or((page, page), |tokens| (address::stake_vault(&page), tokens));
    let accounts =
        interface::ClosePageAccounts { supplier: supplier.0, page: page.0, vault: vault.0, destination: destination.0 };
    build_fixed(accounts.metas(), interface::ClosePage {}.encode())
}

/// Starts the waiting time of some stake. Signs: `supplier`.
#[must_use]
pub fn unstake_request(supplier: Address, amount: u64) -> Instruction {
    let accounts = interface::UnstakeRequestAccounts {
        supplier: supplier.0,
        first_page: address::page(&supplier, 0).0,
        rules: address::rules().0,
    };
    build_fixed(accounts.metas(), interface::UnstakeRequest { amount }.encode())
}

/// Pays out stake whose waiting time is over, to `destination`, a token account of the supplier. Nobody signs.
#[must_use]
pub fn unstake_withdraw(supplier: Address, destination: Address) -> Instruction {
    let first_page = address::page(&supplier, 0);
    let accounts = interface::UnstakeWithdrawAccounts {
        first_page: first_page.0,
        vault: address::stake_vault(&first_page).0,
        destination: destination.0,
    };
    build_fixed(accounts.metas(), interface::UnstakeWithdraw {}.encode())
}

/// Offers to take co-stake. Signs: `supplier`, who pays the rent and gets it back.
#[must_use]
pub fn costake_offer(supplier: Address, data: &interface::CostakeOffer) -> Instruction {
    let first_page = address::page(&supplier, 0);
    let accounts = interface::CostakeOfferAccounts {
        supplier: supplier.0,
        first_page: first_page.0,
        costake: address::costake(&first_page, data.n).0,
    };
    build_fixed(accounts.metas(), data.encode())
}

/// Accepts the offer `n` of a supplier, paying from `source`. Signs: `staker`.
#[must_use]
pub fn costake_accept(
    staker: Address,
    supplier: Address,
    n: u16,
    source: Address,
    data: &interface::CostakeAccept,
) -> Instruction {
    let first_page = address::page(&supplier, 0);
    let accounts = interface::CostakeAcceptAccounts {
        staker: staker.0,
        first_page: first_page.0,
        costake: address::costake(&first_page, n).0,
        vault: address::stake_vault(&first_page).0,
        source: source.0,
    };
    build_fixed(accounts.metas(), data.encode())
}

/// The next step of an offer's end; `destination` is the co-staker's token account for the last one, which pays, else
/// `None`. Signs: `authority`.
#[must_use]
pub fn costake_exit(authority: Address, supplier: Address, n: u16, destination: Option<Address>) -> Instruction {
    let page = address::page(&supplier, 0);
    let (vault, destination) = destination.map_or((page, page), |tokens| (address::stake_vault(&page), tokens));
    let accounts = interface::CostakeExitAccounts {
        authority: authority.0,
        first_page: page.0,
        costake: address::costake(&page, n).0,
        supplier: supplier.0,
        vault: vault.0,
        destination: destination.0,
        rules: address::rules().0,
    };
    build_fixed(accounts.metas(), interface::CostakeExit {}.encode())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::AccountMeta;

    #[test]
    fn a_delegate_shows_its_account_and_a_wallet_the_page_again() {
        let (supplier, key, page) = (Address([1; 32]), Address([2; 32]), Address([3; 32]));
        let data = interface::SetDrain { drain: 1, first_slot: 0, bits: &[1] };
        let by_wallet = set_drain(Asker::Own(supplier), page, &data).unwrap();
        assert_eq!(by_wallet.accounts[0], AccountMeta::sign(supplier));
        assert_eq!(by_wallet.accounts[2].address, page);
        let by_key = set_drain(Asker::Delegate { supplier, key }, page, &data).unwrap();
        assert_eq!(by_key.accounts[0], AccountMeta::sign(key));
        assert_eq!(by_key.accounts[2].address, address::ask_key(&supplier, &key));
    }

    #[test]
    fn only_what_pays_names_the_vault() {
        let (supplier, tokens) = (Address([1; 32]), Address([2; 32]));
        let page = address::page(&supplier, 0);
        assert_eq!(close_page(supplier, 0, None).accounts[2], AccountMeta::write(page));
        let vault = AccountMeta::write(address::stake_vault(&page));
        assert_eq!(close_page(supplier, 0, Some(tokens)).accounts[2], vault);
        assert_eq!(costake_exit(supplier, supplier, 1, Some(tokens)).accounts[4], vault);
        assert_eq!(costake_exit(supplier, supplier, 1, None).accounts[5], AccountMeta::write(page));
    }
}
