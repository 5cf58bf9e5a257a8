//! What the program refuses by rule, each seen on the real bytes.

use atoll_interface::{
    Error, Hashes,
    fill::{Slots, group_hash},
    instruction as ix,
    layout::{LEASE_FINAL, LEASE_LOSS_BLAMED, Lease, Order},
    merkle::{Leaf, node},
    settlement::Reason,
};
use atoll_market_tests::{
    Party, Refusal, World,
    calls::{ASK, Attested, CPU, HOLD_S, STAKE, STALL_S, fill_data, leaf},
    sha256,
    world::START,
};

fn ready() -> (World, Party) {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 2);
    (world, party)
}

#[test]
fn orders_out_of_range_are_refused_and_nothing_is_charged() {
    let (mut world, party) = ready();
    let good = party.terms(2);
    let before = world.tokens(party.purse);
    for (terms, why) in [
        (ix::PostOrder { devices: 0, ..good }, Error::ParameterOutOfRange),
        (ix::PostOrder { devices: 1_000_000_000, ..good }, Error::ParameterOutOfRange),
        (ix::PostOrder { devices_min: 3, ..good }, Error::ParameterOutOfRange),
        (ix::PostOrder { devices_min: 0, ..good }, Error::ParameterOutOfRange),
        (ix::PostOrder { devices: 3, devices_per_worker: 2, ..good }, Error::ParameterOutOfRange),
        (ix::PostOrder { duration_s: 0, ..good }, Error::ParameterOutOfRange),
        (ix::PostOrder { duration_s: u32::MAX, ..good }, Error::ParameterOutOfRange),
        (ix::PostOrder { fill_s: 601, ..good }, Error::ParameterOutOfRange),
        (ix::PostOrder { price_cap_uusd: 0, ..good }, Error::ParameterOutOfRange),
        (ix::PostOrder { price_cap_uusd: u64::MAX, ..good }, Error::Overflow),
        (ix::PostOrder { models: [0; 4], ..good }, Error::ModelUnknown),
        (ix::PostOrder { models: [CPU, 77, 0, 0], ..good }, Error::ModelUnknown),
        (ix::PostOrder { devices: 1 << 20, devices_min: 1, duration_s: 31_000_000, ..good }, Error::FundsShort),
    ] {
        world.refused(&party.post_with(&terms), why);
    }
    assert_eq!(world.tokens(party.purse), before);
    assert_eq!(world.data(party.order()), None);
    world.must(&party.post(2));
    world.refused(&party.post(2), Error::AlreadyInitialised);
}

#[test]
fn a_stale_feed_refuses_orders() {
    let (mut world, party) = ready();
    world.wait(1_000_001);
    world.refused(&party.post(1), Error::FeedStale);
    world.must(&world.set_feed(300_000));
    world.must(&party.post(1));
}

#[test]
fn a_mask_is_leased_once() {
    let (mut world, party) = ready();
    world.must(&party.post(2));
    let next = Party { nonce: 2, ..party.clone() };
    world.must(&next.post(2));
    world.must(&party.fill(0, 0, &[1]));
    world.refused(&next.fill(0, 0, &[1]), Error::DevicesTaken);
    world.refused(&next.fill(0, 0, &[0b11]), Error::DevicesTaken);
    world.refused(&party.fill(1, 0, &[1]), Error::DevicesTaken);
    world.must(&next.fill(0, 1, &[1]));
}

#[test]
fn fills_must_fit_the_order_and_the_slots() {
    let (mut world, party) = ready();
    world.must(&party.post(1));
    world.refused(&party.fill(0, 0, &[0b11]), Error::TooManyDevices);
    world.refused(&party.fill(0, 2, &[1]), Error::SlotUnknown);
    world.refused(&party.fill(0, 0, &[0]), Error::InstructionMalformed);
    let data = fill_data(0, &[1]);
    world.refused(&party.fill_as(party.node, 0, &ix::FillOrder { mask: 0b10, ..data }), Error::SlotUnfit);
    world.refused(&party.fill_as(party.node, 0, &ix::FillOrder { mask: 0b11, ..data }), Error::SlotUnfit);
    world.refused(&party.fill_as(party.node, 0, &ix::FillOrder { ask_max: ASK - 1, ..data }), Error::AskTooHigh);
    world.must(&party.set_ask(party.supplier, 0, ix::ASK, 2 * ASK + 1));
    world.refused(&party.fill(0, 0, &[1]), Error::AskTooHigh);
    world.must(&party.set_ask(party.supplier, 1, ix::DRAIN, 0));
    world.refused(&party.fill(0, 1, &[1]), Error::SlotSuspended);
    world.must(&party.set_ask(party.devices[1], 1, ix::UNDRAIN, 0));
    world.refused(&party.fill(1, 1, &[1]), Error::AddressWrong);
    world.must(&party.fill(0, 1, &[1]));
    world.refused(&party.fill(1, 0, &[1]), Error::AskTooHigh);
    world.must(&party.set_ask(party.supplier, 0, ix::ASK, ASK));
    world.refused(&party.fill(1, 0, &[1]), Error::OrderNotOpen);
}

#[test]
fn slots_of_one_group_share_one_ask() {
    let (mut world, party) = ready();
    world.must(&party.set_ask(party.supplier, 1, ix::ASK, ASK + 1));
    world.must(&party.post(2));
    world.refused(&party.fill(0, 0, &[0b11]), Error::AskUnequal);
    world.must(&party.fill(0, 0, &[0b01]));
    world.must(&party.fill(1, 0, &[0b10]));
}

#[test]
fn too_little_stake_takes_no_fill() {
    let mut world = World::new();
    let party = Party::new(&mut world, "a");
    world.must(&party.register(0));
    world.must(&party.stake(STAKE - 1));
    world.must(&party.post(1));
    world.refused(&party.fill(0, 0, &[1]), Error::StakeTooLow);
    world.must(&party.stake(1));
    world.must(&party.fill(0, 0, &[1]));
}

#[test]
fn a_device_key_registers_once() {
    let (mut world, party) = ready();
    let mut other = Party::new(&mut world, "b");
    other.devices = party.devices.clone();
    world.refused(&other.register(0), Error::AlreadyInitialised);
    world.refused(&party.register(0), Error::AlreadyInitialised);
}

#[test]
fn with_a_fill_root_only_the_chosen_groups_fill_at_their_price() {
    let (mut world, party) = ready();
    let bits = [1];
    let group = |first| group_hash(sha256, &party.page, ASK, 1, Slots::new(first, &bits).unwrap());
    let root = node(sha256, &group(0), &[4; 32]);
    world.must(&party.post_with(&ix::PostOrder { fill_root: root, ..party.terms(1) }));
    let path = [[4; 32]];
    let chosen = ix::FillOrder { ask_max: ASK, group_path: Hashes::new(&path), ..fill_data(0, &bits) };
    world.refused(&party.fill(0, 0, &bits), Error::FillPathWrong);
    world.refused(&party.fill_as(party.node, 0, &ix::FillOrder { first_slot: 1, ..chosen }), Error::FillPathWrong);
    world.refused(&party.fill_as(party.node, 0, &ix::FillOrder { ask_max: 2 * ASK, ..chosen }), Error::FillPathWrong);
    world.refused(&party.fill_as(party.node, 0, &ix::FillOrder { group_index: 1, ..chosen }), Error::FillPathWrong);
    world.must(&party.fill_as(party.node, 0, &chosen));
}

#[test]
fn a_root_pays_after_its_hold_and_no_leaf_above_the_cap() {
    let (mut world, party) = ready();
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    world.wait(10);
    let until = world.now();
    let tree = Attested::over(world.last_epoch(), &[leaf(party.lease(0), 10, until)]);
    world.must(&world.post_epoch(world.attestor, tree.index, tree.root));
    world.refused(&tree.settle(0, party.order()), Error::EpochNotFinal);
    world.wait(i64::from(HOLD_S) - 1);
    world.refused(&tree.settle(0, party.order()), Error::EpochNotFinal);
    world.wait(1);
    let mut forged = tree.settle(0, party.order());
    forged.data[1] = 11;
    world.refused(&forged, Error::LeafPathWrong);
    world.must(&tree.settle(0, party.order()));

    // Whatever attestors sign, nobody is paid for more time than has passed.
    let until = world.now();
    let greedy = world.attest(&[leaf(party.lease(0), 1_000, until)]);
    world.refused(&greedy.settle(0, party.order()), Error::AboveCap);
    let future = world.attest(&[leaf(party.lease(0), 12, until + 1_000)]);
    world.refused(&future.settle(0, party.order()), Error::LeafStale);
}

#[test]
fn two_of_three_seats_make_a_root_final() {
    let mut world = World::bare();
    let owners: Vec<_> = (0..3).map(|i| world.key(&format!("owner{i}"))).collect();
    let keys: Vec<_> = (0..3).map(|i| world.poor_key(&format!("attestor{i}"))).collect();
    let seats: Vec<[u8; 64]> =
        owners.iter().zip(&keys).map(|(owner, key)| [*owner, *key].concat().try_into().unwrap()).collect();
    world.must(&world.init_with(2, &seats));
    for (index, (owner, key)) in owners.iter().zip(&keys).enumerate() {
        world.purse(*owner);
        world.must(&world.register_seat(u16::try_from(index).unwrap(), *owner, *key));
    }
    world.wait(10);
    let epoch = |root| atoll_market_tests::calls::epoch(0, root);
    let read = |world: &World, root| world.read::<atoll_interface::layout::Epoch>(epoch(root));
    world.must(&world.post_epoch(keys[0], 0, [1; 32]));
    world.must(&world.post_epoch(keys[1], 0, [2; 32]));
    assert_eq!(read(&world, &[1; 32]).final_at, 0);
    world.must(&world.post_epoch(keys[2], 0, [2; 32]));
    assert_eq!(read(&world, &[2; 32]).final_at, START + 10);
    assert_eq!((read(&world, &[1; 32]).final_at, read(&world, &[2; 32]).votes[0]), (0, 0b110));
}

#[test]
fn a_leaf_of_an_earlier_order_pays_nothing_to_a_later_one_at_its_address() {
    let (mut world, party) = ready();
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    world.wait(20);
    world.must(&party.release(party.renter, 0, Reason::Done, 0, &[1]));
    let until = world.now();
    let old = world.attest(&[leaf(party.lease(0), 20, until)]);
    world.must(&old.settle(0, party.order()));
    world.must(&party.close_lease(0));
    world.must(&party.collect());
    world.must(&party.close_order(party.renter));
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    world.wait(60);
    world.refused(&old.settle(0, party.order()), Error::LeafStale);
}

#[test]
fn a_lease_without_a_root_closes_after_the_stall_time() {
    let (mut world, party) = ready();
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    world.refused(&party.close_lease(0), Error::LeaseStillLive);
    world.wait(20);
    world.must(&party.release(party.supplier, 0, Reason::Leave, 0, &[1]));
    world.wait(i64::from(STALL_S) - 1);
    world.refused(&party.close_lease(0), Error::LeaseUnsettled);
    world.wait(1);
    world.must(&party.close_lease(0));
}

#[test]
fn releases_belong_to_those_with_the_right() {
    let (mut world, party) = ready();
    let stranger = world.key("stranger");
    world.must(&party.post(2));
    world.must(&party.fill(0, 0, &[0b11]));
    world.wait(10);
    for (who, reason) in [
        (stranger, Reason::Lost),
        (stranger, Reason::Leave),
        (stranger, Reason::Expired),
        (party.node, Reason::Leave),
        (party.supplier, Reason::Lost),
        (party.supplier, Reason::Done),
        (party.renter, Reason::Leave),
        (party.devices[0], Reason::Leave),
    ] {
        let slot = u16::from(who == party.devices[0]);
        world.refused(&party.release(who, 0, reason, slot, &[1]), Error::NotAuthorised);
    }
    world.refused(&party.release(party.devices[0], 0, Reason::Leave, 0, &[0b11]), Error::NotAuthorised);
    world.must(&party.release_at(party.devices[0], 0, Reason::Leave, 0, &[1], START + 4));
    let lease: Lease = world.read(party.lease(0));
    assert_eq!((lease.cap_base, lease.devices_live), (4 + 10, 1), "its own effective second binds the supplier");
    assert_eq!(world.read::<Order>(party.order()).devices_open, 1);
    world.must(&party.release_at(party.renter, 0, Reason::Done, 1, &[1], START));
    assert_eq!(world.read::<Lease>(party.lease(0)).cap_base, 14, "the renter cannot cut what was served");
}

#[test]
fn lamports_sent_ahead_do_not_block_an_address() {
    let (mut world, party) = ready();
    for at in [party.order(), party.vault(), party.lease(0)] {
        world.svm.airdrop(&at.into(), 1_000_000).unwrap();
    }
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
}

#[test]
fn tokens_sent_to_a_vault_by_mistake_go_to_the_renter() {
    let (mut world, party) = ready();
    world.must(&party.post(1));
    let escrow = world.tokens(party.vault());
    let before = world.tokens(party.purse);
    let mut vault = world.svm.get_account(&party.vault().into()).unwrap();
    vault.data[64..72].copy_from_slice(&(escrow + 5).to_le_bytes());
    world.svm.set_account(party.vault().into(), vault).unwrap();
    world.must(&party.close_order(party.renter));
    assert_eq!(world.tokens(party.purse), before + escrow + 5);
}

#[test]
fn unknown_and_empty_instructions_are_refused() {
    let (world, party) = ready();
    let mut call = party.post(1);
    call.data = vec![];
    assert_eq!(world.try_call(&call), Err(Refusal::Market(Error::InstructionMalformed)));
    call.data = vec![200];
    assert_eq!(world.try_call(&call), Err(Refusal::Market(Error::InstructionUnknown)));
}

#[test]
fn final_and_blame_flags_of_a_leaf_are_kept() {
    let (mut world, party) = ready();
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    world.wait(10);
    let until = world.now();
    let said = Leaf { flags: 3, ..leaf(party.lease(0), 10, until) };
    let tree = world.attest(&[said]);
    world.must(&tree.settle(0, party.order()));
    assert_eq!(world.read::<Lease>(party.lease(0)).flags & (LEASE_FINAL | LEASE_LOSS_BLAMED), 3);
}
