//! Faults that the program judges alone.

use atoll_interface::{
    ATL, Error, instruction as ix,
    layout::Attestor,
    network::vote_message,
    seeds,
    signature::{ED25519_ID, signed},
};
use atoll_market_tests::{Call, Refusal, World, world::pda};

fn ready() -> (World, [u8; 32]) {
    let mut world = World::new();
    let prover = world.key("prover");
    world.purse(prover);
    (world, prover)
}

#[test]
fn two_roots_of_one_epoch_cost_the_attestors_stake() {
    let (mut world, prover) = ready();
    let key = world.attestor;
    let call = world.prove(prover, key, [(7, [1; 32]), (7, [2; 32])]);
    let (supply, purse) = (world.supply(), world.tokens(call.metas[4].address));
    world.must(&call);
    assert_eq!(world.tokens(call.metas[2].address), 0);
    assert_eq!(world.tokens(call.metas[4].address), purse + ATL, "the bounty is bounded");
    assert_eq!(world.supply(), supply - 99 * ATL);
    assert_eq!(world.tokens_everywhere(), world.supply());
    assert_eq!(world.read::<Attestor>(pda(&seeds::attestor(&key))).stake, 0);
    world.refused(&call, Error::AttestorSlashed);
    world.wait(10);
    world.refused(&world.post_epoch(key, 0, [1; 32]), Error::AttestorSlashed);
}

#[test]
fn what_is_no_equivocation_costs_nothing() {
    let (mut world, prover) = ready();
    let (key, other) = (world.attestor, world.key("other"));
    for votes in [[(7, [1; 32]), (7, [1; 32])], [(7, [1; 32]), (8, [2; 32])]] {
        world.refused(&world.prove(prover, key, votes), Error::NotEquivocation);
    }
    // Votes of another key, of another network, of no form; and no votes at all.
    let good = world.prove(prover, key, [(7, [1; 32]), (7, [2; 32])]);
    let foreign = world.prove(prover, other, [(7, [1; 32]), (7, [2; 32])]);
    world.refused(&Call { checks: foreign.checks, ..good.clone() }, Error::NotEquivocation);
    let elsewhere = [1, 2].map(|root| world.check(&key, &vote_message(&[9; 32], 7, &[root; 32])));
    world.refused(&world.prove_by(prover, key, elsewhere), Error::StatementWrong);
    let words = [b"a".as_slice(), b"b"].map(|words| world.check(&key, words));
    world.refused(&world.prove_by(prover, key, words), Error::StatementWrong);
    world.refused(&Call { checks: vec![], ..good.clone() }, Error::SignatureMissing);
    let one = Call { checks: good.checks[..1].to_vec(), ..good.clone() };
    world.refused(&one, Error::SignatureMissing);
    let mut forged = good.clone();
    forged.checks[0][20] ^= 1;
    assert!(world.try_call(&forged).is_err(), "the runtime checks the signature itself");
    world.must(&good);
}

#[test]
fn a_forged_list_of_instructions_proves_nothing() {
    let (mut world, prover) = ready();
    let good = world.prove(prover, world.attestor, [(7, [1; 32]), (7, [2; 32])]);
    // What the runtime would show of the two checks, but in an account of somebody's own and never checked.
    let body = |data: &Vec<u8>| {
        let len = u16::try_from(data.len()).unwrap().to_le_bytes();
        [&[0, 0][..], &ED25519_ID, &len, data].concat()
    };
    let bodies = [0, 1].map(|index: usize| body(&good.checks[index]));
    let second = 6 + u16::try_from(bodies[0].len()).unwrap();
    let forged = [&[2, 0, 6, 0][..], &second.to_le_bytes(), &bodies[0], &bodies[1]].concat();
    assert!(signed(&forged, 0).is_ok() && signed(&forged, 1).is_ok());
    let at = world.key("forged");
    world.put(at, prover, forged);
    let mut call = Call { checks: vec![], ..good };
    call.metas[7].address = at;
    world.refused(&call, Error::AddressWrong);
}

#[test]
fn no_signer_and_no_account_of_the_proof_can_be_another() {
    let (mut world, prover) = ready();
    let good = world.prove(prover, world.attestor, [(7, [1; 32]), (7, [2; 32])]);
    world.try_call(&good).unwrap();
    let stranger = world.key("stranger");
    let purse = world.purse(stranger);
    for index in 0..good.metas.len() - 1 {
        for address in [stranger, purse, good.metas[(index + 1) % 8].address, good.metas[(index + 3) % 8].address] {
            let mut call = good.clone();
            call.metas[index].address = address;
            let signs = index == 0 && address != stranger;
            assert!(signs || world.try_call(&call).is_err(), "account {index} swapped");
        }
        let mut call = good.clone();
        let meta = &mut call.metas[index];
        let wanted = match (meta.signer, meta.writable) {
            (true, _) => Error::SignerMissing,
            (_, true) => Error::NotWritable,
            _ => continue,
        };
        (meta.signer, meta.writable) = (false, false);
        assert_eq!(world.try_call(&call), Err(Refusal::Market(wanted)), "account {index}");
    }
    let mut cut = good.clone();
    cut.data.pop();
    world.refused(&cut, Error::InstructionMalformed);
    let mut same = good.clone();
    same.data = ix::ProveEquivocation { first: 0, second: 0 }.encode().unwrap().as_slice().to_vec();
    world.refused(&same, Error::NotEquivocation);
    same.data = ix::ProveEquivocation { first: 2, second: 1 }.encode().unwrap().as_slice().to_vec();
    world.refused(&same, Error::SignatureMissing);
}
