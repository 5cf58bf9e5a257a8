//! Many leases settled at once, and that it is the same as one by one.

use atoll_interface::{
    Address, Error, Hashes, instruction as ix,
    layout::{Lease, Order},
    merkle::Leaf,
};
use atoll_market_tests::{
    Call, Party, World,
    calls::{Attested, HOLD_S, fill_data, leaf},
};

/// Eight leases of one order on one worker of eight devices each, and a root with their leaves from place 8 on.
fn ready() -> (World, Party, Attested) {
    let mut world = World::new();
    let party = Party::new(&mut world, "a");
    let mut register = party.register(0);
    let mut data = ix::RegisterWorker::decode(&register.data[1..]).unwrap();
    data.devices = 8;
    register.data = data.encode().unwrap().as_slice().to_vec();
    world.must(&register);
    world.must(&party.stake(8 * atoll_market_tests::calls::STAKE));
    world.must(&party.post(8));
    for n in 0..8 {
        let fill = ix::FillOrder { mask: 1 << n, ..fill_data(0, &[1]) };
        world.must(&party.fill_as(party.node, n, &fill));
    }
    world.wait(50);
    let until = world.now();
    let mut leaves = vec![leaf([9; 32], 1, until); 8];
    leaves.extend((0..8u16).map(|n| leaf(party.lease(n), u64::from(n) + 20, until)));
    leaves.extend([leaf([9; 32], 1, until); 4]);
    let tree = world.attest(&leaves);
    (world, party, tree)
}

#[test]
fn a_batch_books_what_its_leaves_book_one_by_one() {
    let (mut one, party, tree) = ready();
    for n in 0..8 {
        one.must(&tree.settle(8 + n, party.order()));
    }
    let wanted: Vec<Lease> = (0..8).map(|n| one.read(party.lease(n))).collect();
    let order: Order = one.read(party.order());
    for count in [1usize, 2, 4, 8] {
        let (mut world, party, tree) = ready();
        let (before, vault) = (world.read::<Order>(party.order()), world.tokens(party.vault()));
        for first in (8..16).step_by(count) {
            world.must(&tree.settle_batch(first, count, party.order()));
        }
        let got: Vec<Lease> = (0..8).map(|n| world.read(party.lease(n))).collect();
        assert_eq!((got, world.read::<Order>(party.order())), (wanted.clone(), order), "{count} at once");
        assert!(order.escrow < before.escrow && order.vault() == Ok(vault), "booked, and no token moved");
    }
}

#[test]
fn a_batch_is_whole_aligned_and_of_one_order() {
    let (mut world, party, tree) = ready();
    let good = tree.settle_batch(8, 4, party.order());
    let with = |change: &dyn Fn(&mut ix::SettleBatch<'_>)| {
        let mut data = ix::SettleBatch::decode(&good.data[1..]).unwrap();
        change(&mut data);
        Call { data: data.encode().unwrap().as_slice().to_vec(), ..good.clone() }
    };
    // Another place, also one that shares the node above; three, none and sixteen leaves; another's words.
    for first_leaf in [0, 4, 9, 10, 12, u32::MAX] {
        world.refused(&with(&|data| data.first_leaf = first_leaf), Error::LeafPathWrong);
    }
    static SAID: [[u8; ix::SAID_LEN]; 16] = [[0; ix::SAID_LEN]; 16];
    for count in [0, 3, 5, 16] {
        let odd = with(&|data| (data.leaves, data.path) = (&SAID[..count], Hashes::new(&[])));
        world.refused(&odd, Error::InstructionMalformed);
    }
    world.refused(&with(&|data| data.leaves = &SAID[..4]), Error::LeafPathWrong);
    world.refused(&with(&|data| data.leaves = &SAID[..8]), Error::AccountsMissing);
    world.refused(&with(&|data| data.path = Hashes::new(&[])), Error::LeafPathWrong);
    for index in 3..7 {
        let mut call = good.clone();
        call.metas[index].writable = false;
        world.refused(&call, Error::NotWritable);
        let mut call = good.clone();
        call.metas[index].address = party.lease(7);
        world.refused(&call, Error::LeafPathWrong);
    }
    let mut fewer = good.clone();
    fewer.metas.pop();
    world.refused(&fewer, Error::AccountsMissing);

    // One leaf above its cap, or of another order, and nothing of its batch is booked.
    let until = world.now();
    let other = Party::ready(&mut world, "b", 1);
    world.must(&other.post(1));
    world.must(&other.fill(0, 0, &[1]));
    let greedy = leaf(party.lease(1), 1_000_000, until);
    for (bad, why) in [(greedy, Error::AboveCap), (leaf(other.lease(0), 0, until), Error::AddressWrong)] {
        let tree = world.attest(&[leaf(party.lease(0), 21, until), bad]);
        let before: Lease = world.read(party.lease(0));
        world.refused(&tree.settle_batch(0, 2, party.order()), why);
        assert_eq!(world.read::<Lease>(party.lease(0)), before);
    }

    // A root pays after its hold; a leaf is not booked before.
    world.wait(10);
    let early = Attested::over(world.last_epoch(), &[leaf(party.lease(0), 21, until), leaf(party.lease(1), 21, until)]);
    world.must(&world.post_epoch(world.attestor, early.index, early.root));
    world.refused(&early.settle_batch(0, 2, party.order()), Error::EpochNotFinal);
    world.wait(i64::from(HOLD_S));
    world.must(&early.settle_batch(0, 2, party.order()));
    assert_eq!(world.read::<Lease>(party.lease(1)).device_seconds_paid, 21);
    let stale = Leaf { device_seconds: 20, ..leaf(party.lease(1), 0, until) };
    let tree = world.attest(&[leaf(party.lease(0), 21, until), stale]);
    world.refused(&tree.settle_batch(0, 2, party.order()), Error::LeafStale);
}

/// Four orders of one renter each, with a lease on a supplier of its own, and a root with their leaves from place 4 on.
fn mixed() -> (World, Vec<Party>, Attested) {
    let mut world = World::new();
    let parties: Vec<Party> = ["a", "b", "c", "d"].map(|name| Party::ready(&mut world, name, 1)).into();
    for party in &parties {
        world.must(&party.post(1));
        world.must(&party.fill(0, 0, &[1]));
    }
    world.wait(50);
    let until = world.now();
    let mut leaves = vec![leaf([9; 32], 1, until); 4];
    leaves.extend((20..).zip(&parties).map(|(seconds, party)| leaf(party.lease(0), seconds, until)));
    leaves.extend([leaf([9; 32], 1, until); 3]);
    let tree = world.attest(&leaves);
    (world, parties, tree)
}

fn books(world: &World, parties: &[Party]) -> Vec<(Order, Lease)> {
    parties.iter().map(|party| (world.read(party.order()), world.read(party.lease(0)))).collect()
}

#[test]
fn a_batch_of_several_orders_books_what_its_leaves_book_one_by_one() {
    let (mut world, parties, tree) = mixed();
    for (at, party) in (4..).zip(&parties) {
        world.must(&tree.settle(at, party.order()));
    }
    let wanted = books(&world, &parties);
    for count in [1, 2, 4] {
        let (mut world, parties, tree) = mixed();
        let orders: Vec<Address> = parties.iter().map(Party::order).collect();
        for (first, orders) in (4..).step_by(count).zip(orders.chunks(count)) {
            world.must(&tree.settle_mixed(first, orders));
        }
        assert_eq!(books(&world, &parties), wanted, "{count} at once");
    }
}

#[test]
fn in_a_batch_of_several_orders_each_pays_for_its_own_leases_only() {
    let (mut world, parties, tree) = mixed();
    let orders: Vec<Address> = parties.iter().map(Party::order).collect();
    let before = books(&world, &parties);
    let good = tree.settle_mixed(4, &orders);
    // Orders swapped, one for all, too few, not writable; an odd or too large number of leaves.
    let swapped = [orders[1], orders[0], orders[2], orders[3]];
    for wrong in [swapped, [orders[0]; 4]] {
        world.refused(&tree.settle_mixed(4, &wrong), Error::AddressWrong);
    }
    for at in 2..10 {
        let mut call = good.clone();
        call.metas[at].writable = false;
        world.refused(&call, Error::NotWritable);
    }
    for keep in [9, 5, 2] {
        let mut call = good.clone();
        call.metas.truncate(keep);
        world.refused(&call, Error::AccountsMissing);
    }
    static SAID: [[u8; ix::SAID_LEN]; 8] = [[0; ix::SAID_LEN]; 8];
    for count in [0, 3, 8] {
        let data = ix::SettleMixed { first_leaf: 4, leaves: &SAID[..count], path: Hashes::new(&[]) };
        let odd = Call { data: data.encode().unwrap().as_slice().to_vec(), ..good.clone() };
        world.refused(&odd, Error::InstructionMalformed);
    }
    assert_eq!(books(&world, &parties), before);
    world.must(&good);
}
