//! Renter and worker settle while the attestors are silent.

use atoll_interface::{
    ATL, Error,
    cosigned::Usage,
    layout::{Lease, Order},
    settlement::Reason,
};
use atoll_market_tests::{
    Call, Party, World,
    calls::{DURATION_S, STALL_S, leaf},
};

/// An order of two devices for a thousand seconds, one lease a worker, and the attestors silent for the stall time.
fn ready() -> (World, Party) {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 2);
    let mut terms = party.terms(2);
    terms.duration_s = 1_000;
    world.must(&party.post_with(&terms));
    for n in 0..2 {
        world.must(&party.fill(n, n, &[1]));
    }
    world.wait(i64::from(STALL_S));
    (world, party)
}

fn paid(world: &World, party: &Party, n: u16) -> u64 {
    world.read::<Lease>(party.lease(n)).device_seconds_paid
}

#[test]
fn it_waits_for_the_stall_time_and_pays_what_a_leaf_would() {
    let (mut world, party) = ready();
    world.wait(-1);
    let early = party.cosign(&world, 0, 10, world.now());
    world.refused(&early, Error::NotStalled);
    world.wait(1);
    world.must(&party.cosign(&world, 0, 500, world.now()));
    let (order, lease): (Order, Lease) = (world.read(party.order()), world.read(party.lease(0)));
    assert_eq!(order.vault(), Ok(world.tokens(party.vault())), "booked, and no token moved");
    assert_eq!((lease.device_seconds_paid, lease.settled_until), (500, 0));
    let before = world.tokens(party.supplier_purse);
    world.must(&party.withdraw(0));
    assert_eq!(world.tokens(party.supplier_purse) - before, lease.owed);

    // The other lease gets a leaf of as many seconds: as much is owed.
    let until = world.now();
    let tree = world.attest(&[leaf(party.lease(1), 500, until)]);
    world.must(&tree.settle(0, party.order()));
    assert_eq!(world.read::<Lease>(party.lease(1)).owed, lease.owed);
    // Of that lease the attestors speak: the two wait again.
    world.refused(&party.cosign(&world, 1, 501, world.now()), Error::NotStalled);
}

#[test]
fn a_later_leaf_pays_the_difference_and_no_more() {
    let (mut world, party) = ready();
    world.must(&party.cosign(&world, 0, 500, world.now()));
    let first = world.read::<Lease>(party.lease(0)).owed;
    let until = world.now();
    let less = world.attest(&[leaf(party.lease(0), 499, until)]);
    world.refused(&less.settle(0, party.order()), Error::LeafStale);
    let same = world.attest(&[leaf(party.lease(0), 500, until)]);
    world.must(&same.settle(0, party.order()));
    assert_eq!(world.read::<Lease>(party.lease(0)).owed, first);
    let more = world.attest(&[leaf(party.lease(0), 600, until)]);
    world.must(&more.settle(0, party.order()));
    let lease: Lease = world.read(party.lease(0));
    assert!(lease.device_seconds_paid == 600 && lease.owed > first);
    assert!(lease.owed <= first * 6 / 5 + 1);
}

#[test]
fn what_is_not_this_lease_s_word_is_refused() {
    let (mut world, party) = ready();
    let now = world.now();
    let good = party.cosign(&world, 0, 300, now);
    let with = |world: &World, device: usize, usage: Usage| {
        let check = world.check(&party.devices[device], &usage.message());
        Call { checks: vec![check], ..good.clone() }
    };
    let usage = party.usage(&world, 0, 300, now);
    // Of another lease, of another network, of another device; of no form; of no key at all.
    for other in [party.usage(&world, 1, 300, now), Usage { network_root: [9; 32], ..usage }] {
        world.refused(&with(&world, 0, other), Error::StatementWrong);
    }
    world.refused(&with(&world, 1, usage), Error::NotAuthorised);
    world.refused(&with(&world, 2, usage), Error::NotAuthorised);
    let words = Call { checks: vec![world.check(&party.devices[0], b"words")], ..good.clone() };
    world.refused(&words, Error::StatementWrong);
    world.refused(&Call { checks: vec![], ..good.clone() }, Error::SignatureMissing);
    let mut forged = good.clone();
    forged.checks[0][20] ^= 1;
    assert!(world.try_call(&forged).is_err(), "the runtime checks the signature itself");
    // The worker of the other lease, in its own name.
    let foreign = Call { checks: vec![world.check(&party.devices[1], &usage.message())], ..good.clone() };
    let in_its_name = Call { data: party.cosign_by(party.renter, 0, 1).data, ..foreign };
    world.refused(&in_its_name, Error::NotAuthorised);
    let nobody = Call { data: party.cosign_by(party.renter, 0, 9).data, ..good.clone() };
    world.refused(&nobody, Error::SlotUnknown);
    // Without the renter, the worker moves nothing.
    for stranger in [party.supplier, party.node] {
        let call = Call { metas: party.cosign_by(stranger, 0, 0).metas, ..good.clone() };
        world.refused(&call, Error::NotAuthorised);
    }
    // More than can have been served, from the future, before the lease began.
    for (seconds, until, why) in [
        (u64::from(STALL_S) + 1, now, Error::AboveCap),
        (u64::MAX, now, Error::AboveCap),
        (300, now + 1, Error::LeafStale),
        (300, now - i64::from(STALL_S), Error::LeafStale),
    ] {
        world.refused(&party.cosign(&world, 0, seconds, until), why);
    }
    world.must(&good);
    world.refused(&good, Error::LeafStale);
    assert_eq!(paid(&world, &party, 0), 300);
}

/// A lease's address returns with its order's nonce; what was signed of the old one does not pay the new one.
#[test]
fn what_was_signed_of_an_earlier_order_at_the_same_address_pays_nothing() {
    let (mut world, party) = ready();
    let old = party.cosign(&world, 0, 300, world.now());
    world.wait(2_000);
    for n in 0..2 {
        world.must(&party.release(party.node, n, Reason::Expired, n, &[1]));
    }
    world.wait(i64::from(STALL_S));
    for n in 0..2 {
        world.must(&party.close_lease(n));
    }
    world.must(&party.close_order(party.renter));
    world.must(&party.post(2));
    for n in 0..2 {
        world.must(&party.fill(n, n, &[1]));
    }
    world.wait(i64::from(STALL_S));
    world.refused(&old, Error::LeafStale);
    world.must(&party.cosign(&world, 0, u64::from(DURATION_S), world.now()));
}

#[test]
fn the_last_words_of_a_lease_that_is_over_are_paid_and_do_not_close_it() {
    let (mut world, party) = ready();
    world.wait(500);
    for n in 0..2 {
        world.must(&party.release(party.renter, n, Reason::Expired, n, &[1]));
    }
    world.must(&party.cosign(&world, 0, 1_000, world.now()));
    world.refused(&party.cosign(&world, 1, 1_001, world.now()), Error::AboveCap);
    world.refused(&party.close_lease(0), Error::LeaseUnsettled);
    world.wait(i64::from(STALL_S));
    world.must(&party.close_lease(0));
    world.must(&party.close_lease(1));
    assert_eq!(world.tokens_everywhere(), world.supply());
}

#[test]
fn a_budget_s_key_signs_as_its_renter_while_it_lives() {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 1);
    let until = world.now() + i64::from(STALL_S) + 1;
    world.must(&party.set_budget(50 * ATL, 0, until));
    world.must(&party.post_by_budget(&party.terms(1)));
    world.must(&party.fill(0, 0, &[1]));
    world.wait(i64::from(STALL_S));
    let by_session = |world: &World, seconds| {
        let call = party.cosign(world, 0, seconds, world.now());
        Call { metas: party.cosign_by(party.session, 0, 0).metas, ..call }
    };
    world.must(&by_session(&world, 50));
    let mut other = by_session(&world, 60);
    other.metas[4].address = party.order();
    world.refused(&other, Error::NotAuthorised);
    other.metas[4].address = party.page;
    world.refused(&other, Error::AddressWrong);
    world.wait(1);
    world.refused(&by_session(&world, 60), Error::NotAuthorised);
    // The wallet may at any time.
    world.must(&party.cosign(&world, 0, 60, world.now()));
    assert_eq!(paid(&world, &party, 0), 60);
}
