//! Addresses: comparison and derivation.

use super::{
    Fault,
    runtime::{self, sha256},
};
use atoll_interface::{Address as Bytes, Error};
use core::hint::black_box;
use pinocchio::{AccountView, Address};

/// Whether two addresses are equal: four words instead of the target's byte loop.
#[inline(always)]
pub(crate) fn same(a: &Bytes, b: &Bytes) -> bool {
    let words = |address: &Bytes| {
        let (words, _) = address.as_chunks::<8>();
        [
            u64::from_le_bytes(words[0]),
            u64::from_le_bytes(words[1]),
            u64::from_le_bytes(words[2]),
            u64::from_le_bytes(words[3]),
        ]
    };
    let (a, b) = (words(a), words(b));
    a[0] == b[0] && a[1] == b[1] && a[2] == b[2] && a[3] == b[3]
}

/// Whether an account is at an address.
#[inline(always)]
pub(crate) fn is(account: &AccountView, address: &Bytes) -> bool {
    same(account.address().as_array(), address)
}

/// # Errors
/// [`Error::AddressWrong`] when the account is not at the address.
#[inline(always)]
pub(crate) fn expect(account: &AccountView, address: &Bytes) -> Result<(), Fault> {
    if is(account, address) { Ok(()) } else { Err(Error::AddressWrong.into()) }
}

/// Finds the canonical bump of some seeds and checks that the account is there.
#[inline(never)]
pub(crate) fn find(program: &Address, account: &AccountView, seeds: &[&[u8]]) -> Result<u8, Fault> {
    let (found, bump) = runtime::find_address(program, seeds).ok_or(Error::AddressWrong)?;
    expect(account, found.as_array())?;
    Ok(bump)
}

/// Checks that an account is at the address of (prefix, of, bump), where the bump was found at its making.
///
/// One hash instead of the syscall that also checks the curve: ten times cheaper.
#[inline(never)]
pub(crate) fn expect_derived(
    program: &Address,
    account: &AccountView,
    seeds: [&[u8]; 2],
    bump: u8,
) -> Result<(), Fault> {
    let bump = [bump];
    let marker: &[u8] = black_box(b"ProgramDerivedAddress");
    let [prefix, of] = seeds;
    expect(account, &sha256(&[prefix, of, &bump, program.as_array(), marker]))
}
