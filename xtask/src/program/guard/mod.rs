//! The build guard: refuses what the toolchain miscompiles without a word.
//!
//! Four traps of this target were met. A: the linker takes a syscall for a local function and drops its arguments. B:
//! calls out of cold sections keep a raw offset. C: pointers inside constants are never relocated. D: some arithmetic has
//! no instruction and no library function. A, C and D are seen in the module that the linker optimised ([`ir`]), B in the
//! bytes ([`elf`]). Each is planted once, as a fixture, and seen refused; no toolchain is needed for that.

pub(crate) mod elf;
pub(crate) mod ir;

/// The syscalls that the programs may use: each has an operation in the conformance program, whose test proves that its
/// arguments arrive. To use another one, add its operation there first.
pub(crate) const SYSCALLS: [&str; 7] = [
    "sol_curve_validate_point",
    "sol_get_sysvar",
    "sol_invoke_signed_c",
    "sol_log_",
    "sol_panic_",
    "sol_sha256",
    "sol_try_find_program_address",
];

/// The number under which the runtime knows a syscall: MurmurHash3 (32 bits, seed 0) of its name.
pub(crate) fn syscall_number(name: &str) -> u32 {
    let scramble = |word: u32| word.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let (words, rest) = name.as_bytes().as_chunks::<4>();
    let mut hash = 0u32;
    for word in words {
        hash = (hash ^ scramble(u32::from_le_bytes(*word))).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let mut tail = [0; 4];
    tail[..rest.len()].copy_from_slice(rest);
    hash ^= scramble(u32::from_le_bytes(tail));
    hash ^= u32::try_from(name.len()).unwrap_or(u32::MAX);
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::{SYSCALLS, elf, ir, syscall_number};

    const SOUND_MODULE: &str = include_str!("../../../tests/fixtures/program/sound.ll");
    const SOUND_BYTES: &[u8] = include_bytes!("../../../../program/conformance.so");
    const MARKET: &[u8] = include_bytes!("../../../../program/market.so");

    #[track_caller]
    fn refused(found: anyhow::Result<()>, words: &str) {
        let error = found.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn sound_programs_pass() {
        ir::check(SOUND_MODULE).unwrap();
        elf::check(SOUND_BYTES).unwrap();
        elf::check(MARKET).unwrap();
    }

    #[test]
    fn trap_a_a_syscall_taken_for_a_local_function() {
        let module = include_str!("../../../tests/fixtures/program/trap-a-syscall-internalised.ll");
        refused(ir::check(module), "sol_log_");
        let one = format!("{SOUND_MODULE}\ndeclare internal fastcc void @sol_sha256() unnamed_addr #1\n");
        refused(ir::check(&one), "sol_sha256");
        let foreign = format!("{SOUND_MODULE}\ndeclare i64 @sol_blake3(ptr, i64, ptr)\n");
        refused(ir::check(&foreign), "sol_blake3");
        let unknown = SOUND_MODULE.replace("i64 301243782 to ptr)(", "i64 77 to ptr)(");
        assert_ne!(unknown, SOUND_MODULE);
        refused(ir::check(&unknown), "77");
    }

    #[test]
    fn trap_b_a_call_out_of_a_cold_section() {
        let bytes = include_bytes!("../../../tests/fixtures/program/trap-b-cold-call.so");
        refused(elf::check(bytes), "raw offset");
    }

    #[test]
    fn trap_c_a_pointer_inside_a_constant() {
        let module = include_str!("../../../tests/fixtures/program/trap-c-pointer-table.ll");
        refused(ir::check(module), "NAMES");
    }

    #[test]
    fn trap_d_arithmetic_that_does_not_link() {
        let module = include_str!("../../../tests/fixtures/program/trap-d-wide-multiply.ll");
        refused(ir::check(module), "umul.with.overflow");
    }

    #[test]
    fn an_empty_or_broken_file_is_refused() {
        assert!(ir::check("").is_err());
        assert!(elf::check(&[]).is_err());
        assert!(elf::check(b"\x7fELF").is_err());
        // Cut anywhere, the bytes are refused or still sound; the guard never panics on them.
        for len in (0..SOUND_BYTES.len()).step_by(7) {
            let _ = elf::check(&SOUND_BYTES[..len]);
        }
        refused(elf::check(&SOUND_BYTES[..SOUND_BYTES.len() / 2]), "");
    }

    #[test]
    fn a_call_moved_by_one_instruction_is_refused() {
        let mut bytes = SOUND_BYTES.to_vec();
        let call = elf::local_calls(&bytes).unwrap()[0];
        bytes[call.offset + 4] = bytes[call.offset + 4].wrapping_add(1);
        refused(elf::check(&bytes), "no function");
    }

    #[test]
    fn syscalls_have_the_runtimes_numbers() {
        assert_eq!(
            SYSCALLS.map(syscall_number),
            [2_854_619_082, 331_461_893, 2_720_767_109, 544_561_597, 1_751_159_739, 301_243_782, 1_213_221_432]
        );
    }
}
