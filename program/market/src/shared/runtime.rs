//! Hash, time and rent, from the runtime.

use super::Fault;
use atoll_interface::Hash;
use pinocchio::{
    Address,
    sysvars::{Sysvar, clock::CLOCK_ID, get_sysvar_unchecked, rent::Rent},
};

#[cfg(not(any(target_os = "solana", target_arch = "bpf")))]
pub(crate) use host::{find_address, sha256};

/// SHA-256 over the concatenated parts.
#[cfg(any(target_os = "solana", target_arch = "bpf"))]
#[inline(always)]
pub(crate) fn sha256(parts: &[&[u8]]) -> Hash {
    let mut hash = [0; 32];
    // SAFETY: the syscall reads a slice of byte slices, laid out as (pointer, length), and writes 32 bytes.
    unsafe {
        pinocchio::syscalls::sol_sha256(parts.as_ptr().cast(), parts.len() as u64, hash.as_mut_ptr());
    }
    hash
}

/// Seeds of an address at most, without the bump.
#[cfg(any(target_os = "solana", target_arch = "bpf"))]
const SEEDS_MAX: usize = 4;

/// The canonical address of some seeds and its bump: the first hash, from bump 255 down, that is no point of the curve.
///
/// The runtime's own search takes 1,500 compute units a try. A hash and the curve's check, which are what it does, take
/// less than a third of that.
#[cfg(any(target_os = "solana", target_arch = "bpf"))]
#[inline(never)]
pub(crate) fn find_address(program: &Address, seeds: &[&[u8]]) -> Option<(Address, u8)> {
    let marker: &[u8] = core::hint::black_box(b"ProgramDerivedAddress");
    let mut parts: [&[u8]; SEEDS_MAX + 3] = [marker; SEEDS_MAX + 3];
    parts.get_mut(..seeds.len())?.copy_from_slice(seeds);
    let count = seeds.len().checked_add(3).filter(|count| *count <= parts.len())?;
    *parts.get_mut(count.wrapping_sub(2))? = program.as_array();
    let mut bump = u8::MAX;
    loop {
        let tried = [bump];
        let mut parts = parts;
        *parts.get_mut(seeds.len())? = &tried;
        let hash = sha256(parts.get(..count)?);
        if !is_on_curve(&hash) {
            return Some((Address::new_from_array(hash), bump));
        }
        bump = bump.checked_sub(1)?;
    }
}

/// Whether 32 bytes are a point of ed25519's curve, so that somebody may hold a key for them.
#[cfg(any(target_os = "solana", target_arch = "bpf"))]
#[inline(always)]
fn is_on_curve(bytes: &Hash) -> bool {
    const EDWARDS: u64 = 0;
    let mut unused = [0; 32];
    // SAFETY: the syscall reads 32 bytes; the place for a result is not written by this operation.
    unsafe { pinocchio::syscalls::sol_curve_validate_point(EDWARDS, bytes.as_ptr(), unused.as_mut_ptr()) == 0 }
}

/// The host compiles the crate for lints only: the program runs on chain, and its tests run its real bytes.
#[cfg(not(any(target_os = "solana", target_arch = "bpf")))]
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
