//! The conformance program's real bytes: every syscall the programs use gets the arguments it was given.
//!
//! The linker of this target can drop arguments without a word, and a syscall then succeeds with wrong content. So what
//! each operation wrote is compared with what it must write, computed here.

use atoll_interface::{Address, PROGRAM_ID, instruction::Meta};
use atoll_market_tests::{Call, Refusal, World, sha256, world::pda};
use solana_clock::Clock;
use std::path::Path;

struct Probe {
    world: World,
    out: Address,
    purse: Address,
}

impl Probe {
    fn new() -> Self {
        let mut world = World::with_program(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance.so"));
        let out = sha256(&[b"out"]);
        world.put(out, PROGRAM_ID, vec![0; 64]);
        let purse = pda(&[b"probe", b"purse"]);
        world.svm.airdrop(&purse.into(), 10_000_000_000).unwrap();
        Self { world, out, purse }
    }

    fn call(&self, op: u8, rest: &[u8], others: &[Meta]) -> Call {
        let out = Meta { address: self.out, signer: false, writable: true };
        Call { name: "probe", metas: [&[out], others].concat(), data: [&[op], rest].concat(), checks: vec![] }
    }

    fn run(&mut self, op: u8, rest: &[u8], others: &[Meta]) -> Vec<u8> {
        let call = self.call(op, rest, others);
        self.world.must(&call);
        self.world.data(self.out).unwrap()
    }
}

fn meta(address: Address, signer: bool) -> Meta {
    Meta { address, signer, writable: true }
}

#[test]
fn sol_sha256_hashes_both_parts() {
    let rest = b"some bytes of an instruction";
    let mut expected = sha256(&[b"probe", rest]);
    expected[0] ^= u8::try_from(rest.len()).unwrap();
    assert_eq!(Probe::new().run(0, rest, &[])[..32], expected);
}

#[test]
fn sol_try_find_program_address_takes_all_seeds_and_the_program() {
    let seed = [5; 32];
    let (address, bump) = solana_address::Address::find_program_address(&[b"probe", &seed], &PROGRAM_ID.into());
    let out = Probe::new().run(1, &seed, &[]);
    assert_eq!((&out[..32], out[32]), (&address.to_bytes()[..], bump));
    assert_eq!(out[33..35], [5, PROGRAM_ID[0]]);
}

#[test]
fn sol_curve_validate_point_tells_keys_from_addresses() {
    let mut probe = Probe::new();
    for n in 0..64u8 {
        let bytes = sha256(&[b"point", &[n]]);
        let out = probe.run(6, &bytes, &[]);
        let refused = u64::from(!solana_address::Address::from(bytes).is_on_curve());
        assert_eq!((&out[..8], out[8], out[9]), (&refused.to_le_bytes()[..], 7, bytes[0]), "{n}");
    }
    let key = probe.world.key("somebody");
    assert_eq!(probe.run(6, &key, &[])[..8], [0; 8]);
    assert_eq!(probe.run(6, &pda(&[b"probe", b"purse"]), &[])[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn sol_get_sysvar_reads_clock_and_rent() {
    let mut probe = Probe::new();
    let mut clock = probe.world.svm.get_sysvar::<Clock>();
    (clock.unix_timestamp, clock.slot) = (1_234_567_890_123, 77);
    probe.world.svm.set_sysvar(&clock);
    let out = probe.run(2, &[], &[]);
    let number = |at: usize| i64::from_le_bytes(out[at..at + 8].try_into().unwrap());
    let rent = probe.world.svm.minimum_balance_for_rent_exemption(100);
    assert_eq!((number(0), number(8), number(16)), (1_234_567_890_123, 77, i64::try_from(rent).unwrap()));
}

#[test]
fn sol_invoke_signed_c_moves_exactly_what_it_was_told_from_whom_it_was_told() {
    let mut probe = Probe::new();
    let giver = probe.world.key("giver");
    let taker = sha256(&[b"taker"]);
    let before = probe.world.lamports(giver);
    let accounts = [meta(giver, true), meta(taker, false), meta([0; 32], false)].map(|mut account| {
        account.writable = account.address != [0; 32];
        account
    });
    probe.run(3, &3_000_000_001u64.to_le_bytes(), &accounts);
    assert_eq!((before - probe.world.lamports(giver), probe.world.lamports(taker)), (3_000_000_001, 3_000_000_001));
    let mut unsigned = probe.call(3, &1u64.to_le_bytes(), &accounts);
    unsigned.metas[1].signer = false;
    assert_eq!(probe.world.send(&unsigned), Err(Refusal::Runtime));
}

#[test]
fn sol_invoke_signed_c_signs_with_its_seeds_and_with_no_others() {
    let mut probe = Probe::new();
    let taker = sha256(&[b"taker"]);
    let (_, bump) = solana_address::Address::find_program_address(&[b"probe", b"purse"], &PROGRAM_ID.into());
    let system = Meta { address: [0; 32], signer: false, writable: false };
    let accounts = [meta(probe.purse, false), meta(taker, false), system];
    let rest = |bump: u8| [&[bump][..], &2_000_000_007u64.to_le_bytes()].concat();
    probe.run(4, &rest(bump), &accounts);
    assert_eq!(probe.world.lamports(taker), 2_000_000_007);
    assert_eq!(probe.world.lamports(probe.purse), 8_000_000_000 - 7);
    let wrong = probe.call(4, &rest(bump.wrapping_sub(1)), &accounts);
    assert_eq!(probe.world.send(&wrong), Err(Refusal::Runtime));
}

#[test]
fn sol_log_and_sol_panic_tell_of_a_panic_and_fail_the_transaction() {
    let mut probe = Probe::new();
    assert_eq!(probe.run(5, &[2, 8, 9], &[])[0], 9);
    let call = probe.call(5, &[3, 8, 9], &[]);
    let logs = probe.world.logs_of_failure(&call);
    assert!(logs.iter().any(|line| line == "Program log: panic"), "{logs:?}");
    assert!(
        logs.iter()
            .any(|line| line.contains("panicked in conformance at 0:0")
                || line.contains("Panicked in conformance at 0:0")),
        "{logs:?}"
    );
}
