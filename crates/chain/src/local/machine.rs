//! litesvm as the local chain begins with it, and accounts in its form and in the log's.

use litesvm::LiteSVM;
use solana_account::{Account, AccountSharedData, ReadableAccount as _};

use super::StartError;
use super::log::StoredAccount;
use super::state::hash_of;
use crate::address::Address;
use crate::keypair::Keypair;
use crate::spl;

/// What the faucet has at first: 10^10 SOL, a hundred thousand of the largest airdrops.
const FAUCET_LAMPORTS: u64 = 10_000_000_000 * spl::LAMPORTS_PER_SOL;

/// litesvm with the programs and the faucet, and without what it draws by chance.
pub(super) fn machine(programs: Vec<(Address, Vec<u8>)>) -> Result<LiteSVM, StartError> {
    // Signatures and blockhashes are checked here, statuses kept here: litesvm only remembers the newest of each.
    let mut svm = LiteSVM::new().with_sigverify(false).with_blockhash_check(false).with_transaction_history(0);
    for (address, elf) in programs {
        let load = |error: litesvm::error::LiteSVMError| StartError::Load {
            what: format!("the program {address}"),
            why: error.to_string(),
        };
        svm.add_program(to_svm(&address), &elf).map_err(load)?;
    }
    // litesvm's own faucet has a random key, which two chains of one seed would show to whoever lists accounts.
    let random = svm.airdrop_pubkey();
    let load = |error: litesvm::error::LiteSVMError| StartError::Load {
        what: "an empty genesis".to_owned(),
        why: error.to_string(),
    };
    svm.set_account(random, Account::default()).map_err(load)?;
    let rich = Account { lamports: FAUCET_LAMPORTS, ..Account::default() };
    svm.set_account(to_svm(&faucet().address()), rich).map_err(load)?;
    Ok(svm)
}

/// The faucet's key. Everybody may know it: it gives to everybody anyway.
pub(super) fn faucet() -> Keypair {
    Keypair::from_seed(&hash_of(b"atoll/local-faucet/1\0", &[]).0)
}

/// Programs last: they are loaded from accounts that must be there first.
pub(super) fn by_load_order(accounts: &[StoredAccount]) -> Vec<&StoredAccount> {
    let mut ordered: Vec<_> = accounts.iter().collect();
    ordered.sort_by_key(|account| account.executable);
    ordered
}

pub(super) fn write(svm: &mut LiteSVM, account: &StoredAccount) -> Result<(), String> {
    let StoredAccount { address, lamports, owner, executable, data } = account;
    let value = Account {
        lamports: *lamports,
        data: data.clone(),
        owner: to_svm(owner),
        executable: *executable,
        // Rent is never due: every account is above the minimum.
        rent_epoch: u64::MAX,
    };
    svm.set_account(to_svm(address), value).map_err(|error| error.to_string())
}

pub(super) fn stored(address: Address, account: &AccountSharedData) -> StoredAccount {
    StoredAccount {
        address,
        lamports: account.lamports(),
        owner: from_svm(account.owner()),
        executable: account.executable(),
        data: account.data().to_vec(),
    }
}

/// An account that is no longer there.
pub(super) const fn gone(address: Address) -> StoredAccount {
    StoredAccount { address, lamports: 0, owner: spl::SYSTEM_PROGRAM, executable: false, data: Vec::new() }
}

pub(super) fn same(before: &AccountSharedData, after: &AccountSharedData) -> bool {
    before.lamports() == after.lamports()
        && before.owner() == after.owner()
        && before.executable() == after.executable()
        && before.data() == after.data()
}

pub(super) fn to_svm(address: &Address) -> solana_address::Address {
    solana_address::Address::new_from_array(address.0)
}

pub(super) fn from_svm(address: &solana_address::Address) -> Address {
    Address(address.to_bytes())
}
