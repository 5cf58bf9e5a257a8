//! One operation for each syscall that the market program uses, to see that its arguments arrive.
//!
//! The linker of this target can drop a syscall's arguments without a word. A test runs these operations in litesvm and
//! compares what they wrote with what was to be written. The features `trap-*` plant the target's traps one by one; the
//! build guard's fixtures are made from them (docs/decisions/0002-program-toolchain.md).
#![cfg_attr(target_arch = "bpf", no_std)]

use pinocchio::{
    AccountView, Address, ProgramResult,
    cpi::{Seed, Signer, invoke, invoke_signed},
    entrypoint::process_entrypoint,
    error::ProgramError,
    instruction::{InstructionAccount, InstructionView},
    sysvars::{Sysvar, clock::Clock, rent::Rent},
};

const SYSTEM: Address = Address::new_from_array([0; 32]);

/// Called by the runtime.
///
/// # Safety
/// `input` is the runtime's serialised input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entrypoint(input: *mut u8) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { process_entrypoint::<4>(input, process) }
}

#[inline(always)]
fn process(program: &Address, accounts: &mut [AccountView], data: &[u8]) -> ProgramResult {
    let (op, rest) = data.split_first().ok_or(ProgramError::InvalidInstructionData)?;
    let probe = &mut Probe { program, accounts, rest };
    match op {
        0 => hash(probe),
        1 => find(probe),
        2 => sysvars(probe),
        3 => send(probe),
        4 => send_signed(probe),
        5 => index(probe),
        6 => curve(probe),
        _ => Err(ProgramError::InvalidInstructionData),
    }
}

/// One call. A struct because calls on this target pass five words.
struct Probe<'a> {
    program: &'a Address,
    accounts: &'a mut [AccountView],
    rest: &'a [u8],
}

fn write(account: &mut AccountView, at: usize, bytes: &[u8]) -> ProgramResult {
    let mut data = account.try_borrow_mut()?;
    let end = at.checked_add(bytes.len()).ok_or(ProgramError::InvalidArgument)?;
    data.get_mut(at..end).ok_or(ProgramError::AccountDataTooSmall)?.copy_from_slice(bytes);
    Ok(())
}

/// `sol_sha256` over two parts.
#[inline(never)]
fn hash(probe: &mut Probe<'_>) -> ProgramResult {
    let Probe { accounts: [out, ..], rest, .. } = probe else { return Err(ProgramError::NotEnoughAccountKeys) };
    let mut hash = [0; 32];
    #[cfg(target_arch = "bpf")]
    {
        let parts: [&[u8]; 2] = [b"probe", rest];
        // SAFETY: two byte slices, laid out as (pointer, length), and 32 bytes of room.
        unsafe { pinocchio::syscalls::sol_sha256(parts.as_ptr().cast(), 2, hash.as_mut_ptr()) };
    }
    hash[0] ^= u8::try_from(rest.len()).unwrap_or(0);
    write(out, 0, &hash)
}

/// `sol_try_find_program_address`.
#[inline(never)]
fn find(probe: &mut Probe<'_>) -> ProgramResult {
    let Probe { program, accounts: [out, ..], rest } = probe else { return Err(ProgramError::NotEnoughAccountKeys) };
    #[cfg(target_arch = "bpf")]
    {
        let (address, bump) =
            Address::try_find_program_address(&[b"probe", rest], program).ok_or(ProgramError::InvalidSeeds)?;
        write(out, 0, address.as_array())?;
        write(out, 32, &[bump])?;
    }
    write(out, 33, &rest[..rest.len().min(1)])?;
    write(out, 34, &program.as_array()[..1])
}

/// `sol_curve_validate_point` for the curve of ed25519.
#[inline(never)]
fn curve(probe: &mut Probe<'_>) -> ProgramResult {
    let Probe { accounts: [out, ..], rest, .. } = probe else { return Err(ProgramError::NotEnoughAccountKeys) };
    let point = rest.first_chunk::<32>().ok_or(ProgramError::InvalidInstructionData)?;
    #[cfg(target_arch = "bpf")]
    {
        let mut unused = [7; 32];
        // SAFETY: 32 bytes to read, and room for a result that this operation does not write.
        let said = unsafe { pinocchio::syscalls::sol_curve_validate_point(0, point.as_ptr(), unused.as_mut_ptr()) };
        write(out, 0, &said.to_le_bytes())?;
        write(out, 8, &unused[..1])?;
    }
    write(out, 9, &point[..1])
}

/// `sol_get_sysvar` for the clock and for rent.
#[inline(never)]
fn sysvars(probe: &mut Probe<'_>) -> ProgramResult {
    let Probe { accounts: [out, ..], .. } = probe else { return Err(ProgramError::NotEnoughAccountKeys) };
    let (clock, rent) = (Clock::get()?, Rent::get()?);
    write(out, 0, &clock.unix_timestamp.to_le_bytes())?;
    write(out, 8, &clock.slot.to_le_bytes())?;
    write(out, 16, &rent.try_minimum_balance(100)?.to_le_bytes())
}

fn transfer(lamports: &[u8]) -> [u8; 12] {
    let mut data = [0; 12];
    data[0] = 2;
    for (to, from) in data[4..].iter_mut().zip(lamports) {
        *to = *from;
    }
    data
}

/// `sol_invoke_signed_c` with a signature of the transaction.
#[inline(never)]
fn send(probe: &mut Probe<'_>) -> ProgramResult {
    let Probe { accounts: [_, from, to, ..], rest, .. } = probe else { return Err(ProgramError::NotEnoughAccountKeys) };
    let data = transfer(rest);
    let metas = [InstructionAccount::writable_signer(from.address()), InstructionAccount::writable(to.address())];
    invoke(&InstructionView { program_id: &SYSTEM, data: &data, accounts: &metas }, &[&*from, &*to])
}

/// `sol_invoke_signed_c` with seeds: the bump, then the lamports.
#[inline(never)]
fn send_signed(probe: &mut Probe<'_>) -> ProgramResult {
    let Probe { accounts: [_, from, to, ..], rest, .. } = probe else { return Err(ProgramError::NotEnoughAccountKeys) };
    let (bump, lamports) = rest.split_first_chunk::<1>().ok_or(ProgramError::InvalidInstructionData)?;
    let data = transfer(lamports);
    let metas = [InstructionAccount::writable_signer(from.address()), InstructionAccount::writable(to.address())];
    let seeds = [Seed::from(b"probe"), Seed::from(b"purse"), Seed::from(bump)];
    let signer = [Signer::from(&seeds)];
    invoke_signed(&InstructionView { program_id: &SYSTEM, data: &data, accounts: &metas }, &[&*from, &*to], &signer)
}

/// A bounds check: the panic path, `sol_log_` and `sol_panic_`. With a trap feature, also the trap.
#[inline(never)]
fn index(probe: &mut Probe<'_>) -> ProgramResult {
    let Probe { accounts: [out, ..], rest, .. } = probe else { return Err(ProgramError::NotEnoughAccountKeys) };
    let at = usize::from(rest[0]);
    write(out, 0, &[rest[at]])?;
    #[cfg(feature = "trap-pointer-table")]
    {
        static NAMES: [&[u8]; 3] = [b"one", b"three", b"seventeen"];
        write(out, 1, NAMES[at % 3])?;
    }
    #[cfg(feature = "trap-wide-multiply")]
    {
        let wide = (at as u64).checked_mul(out.lamports()).ok_or(ProgramError::ArithmeticOverflow)?;
        write(out, 1, &wide.to_le_bytes())?;
    }
    Ok(())
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: both pointers are to static bytes of the given lengths.
    unsafe {
        pinocchio::syscalls::sol_log_(b"panic".as_ptr(), 5);
        pinocchio::syscalls::sol_panic_(b"conformance".as_ptr(), 11, 0, 0)
    }
}
