//! Hash, time and rent, from the runtime.

use super::Fault;
use atoll_interface::Hash;
use pinocchio::{
    Address,
    sysvars::{Sysvar, clock::CLOCK_ID, get_sysvar_unchecked, rent::Rent},
};

#[cfg(not(target_arch = "bpf"))]
pub(crate) use host::{find_address, sha256};

/// SHA-256 over the concatenated parts.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut hash = [0; 32];
    // SAFETY: the syscall reads a slice of byte slices, laid out as (pointer, length), and writes 32 bytes.
    unsafe {
        pinocchio::syscalls::sol_sha256(parts.as_ptr().cast(), parts.len() as u64, hash.as_mut_ptr());
    }
    hash
}

/// The canonical address of some seeds and its bump.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) fn find_address(program: &Address, seeds: &[&[u8]]) -> Option<(Address, u8)> {
    Address::try_find_program_address(seeds, program)
}

/// The host compiles the crate for lints only: the program runs on chain, and its tests run its real bytes.
#[cfg(not(target_arch = "bpf"))]
mod host {
    use super::{Address, Hash};

    pub(crate) fn sha256(_: &[&[u8]]) -> Hash {
        panic!("the program runs on chain only")
    }

    pub(crate) fn find_address(_: &Address, _: &[&[u8]]) -> Option<(Address, u8)> {
        panic!("the program runs on chain only")
    }
}

/// Chain time, Unix seconds.
pub(crate) fn now() -> Result<i64, Fault> {
    /// Offset of `unix_timestamp` in the clock sysvar, after slot, epoch start, epoch and leader schedule epoch.
    const UNIX_TIMESTAMP: usize = 32;
    let mut now = [0; 8];
    // SAFETY: `now` has room for the 8 bytes asked for.
    unsafe { get_sysvar_unchecked(now.as_mut_ptr(), &CLOCK_ID, UNIX_TIMESTAMP, 8)? };
    Ok(i64::from_le_bytes(now))
}

/// Lamports that keep an account of `bytes` alive.
pub(crate) fn rent(bytes: usize) -> Result<u64, Fault> {
    Ok(Rent::get()?.try_minimum_balance(bytes)?)
}
