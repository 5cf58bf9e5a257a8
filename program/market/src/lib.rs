//! The market program: escrow, leases and settlement on Solana.
//!
//! Acts thinly. Each file under `instruction` checks who is who, calls the pure sums of `atoll-interface`, and moves
//! lamports and tokens. Layouts, encodings, errors and arithmetic live there; the search for prices, matches and served
//! seconds is the network's.
//!
//! **Invariants.** An order's vault holds `escrow + fees + owed`. A device is in at most one live lease. Nothing but
//! `withdraw_owed` and `close_lease` pays a supplier, and only to a token account of its wallet. Refunds go to the wallet
//! or the budget that paid.
//!
//! The bytes come from `cargo xtask program build`; the target's traps are in `docs/decisions/0002-program-toolchain.md`.
#![cfg_attr(any(target_os = "solana", target_arch = "bpf"), no_std)]

mod entrypoint;
mod instruction;
mod shared;

/// Says so in the log and fails the transaction. The default handler would print a location, which is a pointer in a
/// constant: the linker does not relocate those.
#[cfg(any(target_os = "solana", target_arch = "bpf"))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: both pointers are to static bytes of the given lengths.
    unsafe {
        pinocchio::syscalls::sol_log_(b"panic".as_ptr(), 5);
        pinocchio::syscalls::sol_panic_(b"market".as_ptr(), 6, 0, 0)
    }
}
