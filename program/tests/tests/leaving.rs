//! How workers, keys, pages and stake leave: each rule on the real bytes.

use atoll_interface::{
    Error, instruction as ix,
    layout::{CO_STAKE_HELD, CoStake, DeviceKey, FleetPage, Slot, Table},
    seeds,
    settlement::Reason,
};
use atoll_market_tests::{
    Party, World,
    calls::{ASK, DURATION_S, STAKE, leaf},
    stakes::{EXIT_WAIT_S, UNBOND_S, device_key, rule_values},
    world::{PURSE, START, pda},
};

fn ready(workers: usize) -> (World, Party) {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", workers);
    (world, party)
}

fn slot(world: &World, party: &Party, number: usize) -> Slot {
    FleetPage::read_row(&world.data(party.page).unwrap(), number).unwrap().unwrap()
}

/// The vault holds what the supplier's books say, and no token appeared or vanished.
#[track_caller]
fn conserved(world: &World, party: &Party) {
    assert_eq!(world.tokens_everywhere(), world.supply());
    assert_eq!(world.tokens(party.stake_vault()), world.read::<FleetPage>(party.page).staked().unwrap());
}

#[test]
fn rules_out_of_range_are_refused_and_change_nothing() {
    let mut world = World::new();
    let before = world.data(pda(&seeds::rules())).unwrap();
    let good = rule_values();
    for wrong in [
        ix::SetRules { unbond_s: 900, ..good },
        ix::SetRules { exit_wait_s: u32::MAX, ..good },
        ix::SetRules { bounty_bps: 10_001, ..good },
    ] {
        world.refused(&world.set_rules_to(&wrong), Error::ParameterOutOfRange);
    }
    assert_eq!(world.data(pda(&seeds::rules())).unwrap(), before);
}

#[test]
fn asks_and_drains_of_many_slots_by_wallet_delegate_or_device() {
    let (mut world, party) = ready(2);
    let stranger = world.key("stranger");
    world.refused(&party.set_asks(stranger, 1, 0, &[1]), Error::NotAuthorised);
    world.refused(&party.set_asks(party.devices[0], 1, 0, &[1]), Error::NotAuthorised);
    world.refused(&party.set_drain(party.devices[0], 1, 0, &[0b11]), Error::NotAuthorised);
    world.refused(&party.set_drain(party.supplier, 1, 1, &[0b11]), Error::SlotUnknown);
    world.refused(&party.set_drain(party.supplier, 2, 0, &[1]), Error::InstructionMalformed);
    world.refused(&party.delegate(party.session, START), Error::NothingToDo);
    world.must(&party.delegate(party.session, START + 10));
    world.must(&party.set_asks(party.session, 7, 0, &[0b11]));
    assert_eq!([0, 1].map(|number| slot(&world, &party, number).ask_uusd), [7, 7]);
    world.must(&party.set_drain(party.devices[1], 1, 1, &[1]));
    world.must(&party.post(1));
    world.refused(&party.fill(0, 1, &[1]), Error::SlotSuspended);
    world.must(&party.set_drain(party.session, 0, 1, &[1]));
    world.must(&party.fill(0, 1, &[1]));
    world.wait(10);
    world.refused(&party.set_asks(party.session, 8, 0, &[1]), Error::AskKeyExpired);
    let rents = world.lamports(party.supplier);
    world.must(&party.delegate(party.session, 0));
    assert!(world.lamports(party.supplier) > rents, "its rent is back");
    world.refused(&party.set_asks(party.session, 8, 0, &[1]), Error::AccountOwnerWrong);
}

#[test]
fn a_key_is_rotated_by_the_wallet_and_the_old_one_is_spent() {
    let (mut world, party) = ready(2);
    let [first, second, new] = [0, 1, 2].map(|index| party.devices[index]);
    world.refused(&party.rotate(1, first, new), Error::SlotUnknown);
    world.refused(&party.rotate(0, first, second), Error::AlreadyInitialised);
    world.must(&party.rotate(0, first, new));
    assert_eq!(slot(&world, &party, 0).device_key, new);
    let (old, now): (DeviceKey, DeviceKey) = (world.read(device_key(first)), world.read(device_key(new)));
    assert_eq!((old.retired_at, now.retired_at, now.stake), (START, 0, STAKE));
    world.refused(&party.rotate(0, first, party.devices[3]), Error::SlotUnknown);
    world.refused(&party.set_drain(first, 1, 0, &[1]), Error::NotAuthorised);
    world.must(&party.set_drain(new, 1, 0, &[1]));
    // The old key is nobody's until its time is over; then it may be registered again.
    world.refused(&party.register(0), Error::AlreadyInitialised);
    world.refused(&party.close_device_key(0, new), Error::DeviceKeyKept);
    world.wait(UNBOND_S - 1);
    world.refused(&party.close_device_key(0, first), Error::DeviceKeyKept);
    world.wait(1);
    world.refused(&party.close_device_key(1, first), Error::NotAuthorised);
    world.must(&party.close_device_key(0, first));
    world.must(&party.register(0));
}

#[test]
fn a_worker_retires_without_leases_and_its_slot_is_given_again() {
    let (mut world, party) = ready(2);
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    world.refused(&party.retire(0, party.devices[0]), Error::SlotLeased);
    world.refused(&party.retire(1, party.devices[0]), Error::SlotUnknown);
    world.refused(&party.retire(2, party.devices[1]), Error::SlotUnknown);
    world.must(&party.retire(1, party.devices[1]));
    let page: FleetPage = world.read(party.page);
    assert_eq!((page.free_slots, page.required, page.leases_open), (1, STAKE, 1));
    world.refused(&party.retire(1, party.devices[1]), Error::SlotUnknown);
    let next = Party { nonce: 2, ..party.clone() };
    world.must(&next.post(1));
    world.refused(&next.fill(0, 1, &[1]), Error::SlotUnknown);
    world.must(&party.register(2));
    let taken = slot(&world, &party, 1);
    assert_eq!((taken.device_key, taken.generation), (party.devices[2], 1));
    let page: FleetPage = world.read(party.page);
    assert_eq!((page.slot_count, page.free_slots, page.required), (2, 0, 2 * STAKE));
    assert_eq!(world.read::<DeviceKey>(device_key(party.devices[2])).generation, 1);
    world.must(&next.fill(0, 1, &[1]));
}

#[test]
fn stake_leaves_above_what_devices_require_and_after_its_time() {
    let (mut world, party) = ready(2);
    world.must(&party.stake(5));
    world.refused(&party.unstake(6), Error::StakeTooLow);
    world.must(&party.unstake(5));
    world.must(&party.retire(1, party.devices[1]));
    world.must(&party.unstake(STAKE));
    conserved(&world, &party);
    world.wait(UNBOND_S - 1);
    world.refused(&party.unstake_withdraw(), Error::StakeBound);
    world.wait(1);
    world.must(&party.unstake_withdraw());
    conserved(&world, &party);
    world.refused(&party.unstake_withdraw(), Error::NothingToDo);
    assert_eq!(world.tokens(party.supplier_purse), PURSE - STAKE);
}

#[test]
fn co_stake_from_offer_to_payment() {
    let (mut world, party) = ready(1);
    world.refused(&party.offer(16, STAKE), Error::OffersFull);
    world.refused(&party.offer(0, 0), Error::ParameterOutOfRange);
    world.must(&party.offer(0, STAKE));
    world.refused(&party.offer(0, STAKE), Error::AlreadyInitialised);
    world.refused(&party.accept(0, STAKE - 1), Error::OfferChanged);
    world.refused(&party.accept_as(party.supplier, party.supplier_purse, 0, STAKE), Error::NotAuthorised);
    world.must(&party.accept(0, STAKE));
    conserved(&world, &party);
    world.refused(&party.accept(0, STAKE), Error::CoStakeStateWrong);
    world.must(&party.offer(1, 1));
    world.refused(&party.accept(1, 1), Error::CoStakeTooHigh);
    world.refused(&party.unstake(1), Error::CoStakeTooHigh);

    // It carries a second device while it counts.
    world.must(&party.register(1));
    world.must(&party.post(2));
    world.must(&party.fill(0, 0, &[0b11]));
    let stranger = world.key("stranger");
    world.refused(&party.exit(stranger, 0), Error::NotAuthorised);
    world.must(&party.exit(party.renter, 0));
    world.refused(&party.exit(party.renter, 0), Error::StakeBound);
    let next = Party { nonce: 2, ..party.clone() };
    world.must(&next.post(1));
    world.wait(EXIT_WAIT_S);
    world.must(&party.exit(stranger, 0));
    let page: FleetPage = world.read(party.page);
    assert_eq!((page.costake, page.costake_leaving), (0, STAKE));
    world.refused(&party.exit(stranger, 0), Error::StakeBound);
    let late = Party { nonce: 3, ..party.clone() };
    world.must(&late.post(1));
    world.refused(&late.fill(0, 0, &[1]), Error::StakeTooLow);
    world.wait(UNBOND_S);
    let before = world.tokens(party.purse);
    world.refused(&party.exit_to(stranger, 0, party.stake_vault(), party.supplier_purse), Error::TokenAccountWrong);
    world.must(&party.exit_paid(stranger, 0));
    assert_eq!(world.tokens(party.purse), before + STAKE);
    assert_eq!(world.data(party.costake(0)), None);
    conserved(&world, &party);
}

#[test]
fn an_offer_that_nobody_accepted_is_taken_back() {
    let (mut world, party) = ready(1);
    world.must(&party.offer(0, STAKE));
    assert_eq!(world.read::<CoStake>(party.costake(0)).reward_bps, atoll_market_tests::stakes::REWARD_BPS);
    world.must(&party.exit(party.supplier, 0));
    assert_eq!(world.read::<FleetPage>(party.page).offers, 0);
    world.must(&party.offer(0, STAKE));
    world.must(&party.accept(0, STAKE));
    assert_eq!(world.read::<CoStake>(party.costake(0)).state, CO_STAKE_HELD);
    world.refused(&party.exit(party.supplier, 0), Error::NotAuthorised);
}

#[test]
fn a_page_closes_when_nothing_is_on_it_any_more() {
    let (mut world, party) = ready(1);
    let second = pda(&seeds::page(&party.supplier, &1u16.to_le_bytes()));
    world.must(&party.register_on(1, party.devices[1], ASK));
    world.must(&party.stake(STAKE));
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    world.refused(&party.close_page(), Error::PageInUse);
    world.refused(&party.close_page_at(second, second, second), Error::PageInUse);
    world.must(&party.retire_on(1, 0, party.devices[1]));
    world.must(&party.close_page_at(second, second, second));
    assert_eq!(world.data(second), None);

    world.set_time(START + i64::from(DURATION_S));
    world.must(&party.release(party.node, 0, Reason::Expired, 0, &[1]));
    world.must(&party.retire(0, party.devices[0]));
    world.must(&party.unstake(2 * STAKE));
    world.wait(UNBOND_S);
    world.must(&party.unstake_withdraw());
    // A lease that is not closed still needs the page: its supplier is paid by it, and the renter's rest waits for that.
    world.refused(&party.close_page(), Error::PageInUse);
    let tree = world.attest(&[leaf(party.lease(0), 100, START + i64::from(DURATION_S))]);
    world.must(&tree.settle(0, party.order()));
    world.must(&party.close_lease(0));
    world.must(&party.offer(0, 1));
    world.refused(&party.close_page(), Error::PageInUse);
    world.must(&party.exit(party.supplier, 0));
    world.must(&party.close_page());
    assert_eq!([party.page, party.stake_vault()].map(|at| world.data(at)), [None, None]);
    // Who comes back begins anew, with another key until the old one's time is over.
    world.must(&party.register(3));
    world.must(&party.stake(STAKE));
    let page: FleetPage = world.read(party.page);
    assert_eq!((page.own, page.required, page.slot_count), (STAKE, STAKE, 1));
}
