//! The program's own accounts: viewing, making, growing and closing them.

use super::{Fault, address, runtime::rent};
use atoll_interface::{Error, SYSTEM_PROGRAM_ID, layout::Record};
use core::mem::MaybeUninit;
use pinocchio::{
    AccountView, Address, Resize,
    account::{Ref, RefMut},
    cpi::{Seed, Signer, invoke, invoke_signed},
    instruction::{InstructionAccount, InstructionView},
};

const SYSTEM: Address = Address::new_from_array(SYSTEM_PROGRAM_ID);

/// Longest list of seeds, the bump included.
const SEEDS_MAX: usize = 5;

/// # Errors
/// [`Error::AccountOwnerWrong`] when the account is not the program's.
#[inline(always)]
pub(crate) fn expect_owned(program: &Address, account: &AccountView) -> Result<(), Fault> {
    // The runtime keeps the owner in the account's header; compared by words.
    if address::same(account.owner().as_array(), program.as_array()) {
        Ok(())
    } else {
        Err(Error::AccountOwnerWrong.into())
    }
}

/// Views one of the program's accounts.
#[inline(always)]
pub(crate) fn view<'a, T: Record>(program: &Address, account: &'a AccountView) -> Result<Ref<'a, T>, Fault> {
    expect_owned(program, account)?;
    Ref::try_map(account.try_borrow()?, |data| T::view(data)).map_err(|(_, error)| error.into())
}

/// Views one of the program's accounts for changing it.
#[inline(always)]
pub(crate) fn view_mut<'a, T: Record>(program: &Address, account: &'a mut AccountView) -> Result<RefMut<'a, T>, Fault> {
    expect_owned(program, account)?;
    RefMut::try_map(account.try_borrow_mut()?, |data| T::view_mut(data)).map_err(|(_, error)| error.into())
}

/// The bytes of one of the program's accounts, for viewing it as a table.
#[inline(always)]
pub(crate) fn bytes<'a>(program: &Address, account: &'a AccountView) -> Result<Ref<'a, [u8]>, Fault> {
    expect_owned(program, account)?;
    Ok(account.try_borrow()?)
}

/// The bytes of one of the program's accounts, for viewing it as a table and changing it.
#[inline(always)]
pub(crate) fn bytes_mut<'a>(program: &Address, account: &'a mut AccountView) -> Result<RefMut<'a, [u8]>, Fault> {
    expect_owned(program, account)?;
    Ok(account.try_borrow_mut()?)
}

/// Whether nothing was made at this address yet. Lamports may lie there: anyone can send some.
pub(crate) fn is_vacant(account: &AccountView) -> bool {
    account.is_data_empty() && account.owned_by(&SYSTEM)
}

/// An account to be made at the canonical address of some seeds. A struct because calls on this target pass five words.
pub(crate) struct Make<'a> {
    pub(crate) program: &'a Address,
    pub(crate) payer: &'a AccountView,
    pub(crate) account: &'a AccountView,
    pub(crate) seeds: &'a [&'a [u8]],
    pub(crate) space: usize,
    pub(crate) owner: &'a Address,
}

/// Makes an account of zero bytes; returns the bump.
///
/// # Errors
/// [`Error::AddressWrong`] when it is not there, [`Error::AlreadyInitialised`] when something was made there before.
#[inline(never)]
pub(crate) fn make(new: &Make<'_>) -> Result<u8, Fault> {
    let &Make { program, payer, account, seeds, space, owner } = new;
    let bump = address::find(program, account, seeds)?;
    if !is_vacant(account) {
        return Err(Error::AlreadyInitialised.into());
    }
    let bump_seed = [bump];
    let mut list: [MaybeUninit<Seed<'_>>; SEEDS_MAX] = [const { MaybeUninit::uninit() }; SEEDS_MAX];
    let mut count: usize = 0;
    for (room, seed) in list.iter_mut().zip(seeds.iter().copied().chain([&bump_seed[..]])) {
        room.write(Seed::from(seed));
        count = count.wrapping_add(1);
    }
    // SAFETY: the first `count` entries are written.
    let list: &[Seed<'_>] = unsafe { core::slice::from_raw_parts(list.as_ptr().cast(), count) };
    let signer = [Signer::from(list)];
    let lamports = rent(space)?;
    if account.lamports() == 0 {
        create(new, lamports, &signer)?;
    } else {
        let missing = lamports.saturating_sub(account.lamports());
        if missing > 0 {
            pay(payer, account, missing)?;
        }
        allocate(account, space, &signer)?;
        assign(account, owner, &signer)?;
    }
    Ok(bump)
}

/// Marks a newly made account as a record; its other bytes are zero.
#[inline(always)]
pub(crate) fn fresh<T: Record>(account: &mut AccountView) -> Result<RefMut<'_, T>, Fault> {
    let mut data = account.try_borrow_mut()?;
    let (kind, rest) = data.split_first_mut().ok_or(Error::AccountKindWrong)?;
    let version = rest.first_mut().ok_or(Error::AccountKindWrong)?;
    (*kind, *version) = (T::KIND as u8, T::VERSION);
    RefMut::try_map(data, |data| T::view_mut(data)).map_err(|(_, error)| error.into())
}

/// Grows one of the program's accounts to `space` bytes; the payer adds the rent.
#[inline(never)]
pub(crate) fn grow(payer: &AccountView, account: &mut AccountView, space: usize) -> Result<(), Fault> {
    let missing = rent(space)?.saturating_sub(account.lamports());
    if missing > 0 {
        pay(payer, account, missing)?;
    }
    account.resize(space)?;
    Ok(())
}

/// Closes one of the program's accounts; its lamports go to `to`.
pub(crate) fn close(account: &mut AccountView, to: &mut AccountView) -> Result<(), Fault> {
    let sum = to.lamports().checked_add(account.lamports()).ok_or(Error::Overflow)?;
    to.set_lamports(sum);
    account.set_lamports(0);
    account.close()?;
    Ok(())
}

fn create(new: &Make<'_>, lamports: u64, signer: &[Signer<'_, '_>]) -> Result<(), Fault> {
    let &Make { payer, account, space, owner, .. } = new;
    let mut data = [0; 52];
    data[4..12].copy_from_slice(&lamports.to_le_bytes());
    data[12..20].copy_from_slice(&(space as u64).to_le_bytes());
    data[20..].copy_from_slice(owner.as_array());
    let accounts =
        [InstructionAccount::writable_signer(payer.address()), InstructionAccount::writable_signer(account.address())];
    let instruction = InstructionView { program_id: &SYSTEM, data: &data, accounts: &accounts };
    Ok(invoke_signed(&instruction, &[payer, account], signer)?)
}

fn pay(from: &AccountView, to: &AccountView, lamports: u64) -> Result<(), Fault> {
    let mut data = [0; 12];
    data[0] = 2;
    data[4..].copy_from_slice(&lamports.to_le_bytes());
    let accounts = [InstructionAccount::writable_signer(from.address()), InstructionAccount::writable(to.address())];
    let instruction = InstructionView { program_id: &SYSTEM, data: &data, accounts: &accounts };
    Ok(invoke(&instruction, &[from, to])?)
}

fn allocate(account: &AccountView, space: usize, signer: &[Signer<'_, '_>]) -> Result<(), Fault> {
    let mut data = [0; 12];
    data[0] = 8;
    data[4..].copy_from_slice(&(space as u64).to_le_bytes());
    let accounts = [InstructionAccount::writable_signer(account.address())];
    let instruction = InstructionView { program_id: &SYSTEM, data: &data, accounts: &accounts };
    Ok(invoke_signed(&instruction, &[account], signer)?)
}

fn assign(account: &AccountView, owner: &Address, signer: &[Signer<'_, '_>]) -> Result<(), Fault> {
    let mut data = [0; 36];
    data[0] = 1;
    data[4..].copy_from_slice(owner.as_array());
    let accounts = [InstructionAccount::writable_signer(account.address())];
    let instruction = InstructionView { program_id: &SYSTEM, data: &data, accounts: &accounts };
    Ok(invoke_signed(&instruction, &[account], signer)?)
}
