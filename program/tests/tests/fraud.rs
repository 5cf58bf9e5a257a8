//! Capacity fraud: what proves it, whom it pays, and what it never costs, on the real bytes.

use atoll_interface::{
    ATL, Error, instruction as ix,
    layout::{CASE_PROVEN, DEVICE_SLASHED, DeviceKey, FleetPage, FraudCase, SLOT_SLASHED, Slot, Table},
    seeds,
    settlement::Reason,
};
use atoll_market_tests::{
    Call, Party, World,
    calls::{ASK, STAKE, fill_data},
    frauds::Answer,
    stakes::{UNBOND_S, device_key},
    world::{PURSE, pda},
};

const DISPUTE_WINDOW_S: i64 = 300;
const CASE_S: i64 = 100;

fn ready(workers: usize) -> (World, Party, [u8; 32]) {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", workers);
    let opener = world.key("opener");
    world.purse(opener);
    (world, party, opener)
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
fn three_wrong_elements_cost_the_devices_stake_and_pay_the_harmed_renter_first() {
    let (mut world, party, opener) = ready(2);
    world.must(&party.offer(0, STAKE));
    let staker = Party::new(&mut world, "b");
    world.must(&party.accept_as(staker.renter, staker.purse, 0, STAKE));
    world.must(&party.unstake(STAKE / 2));
    world.must(&party.post(2));
    world.must(&party.fill(0, 0, &[0b11]));
    world.wait(50);
    let answer = party.prove_fraud(&mut world, opener, 0, Some(0));
    let case: FraudCase = world.read(answer.case());
    assert_eq!((case.flags, case.stake, case.renter), (CASE_PROVEN, STAKE, party.renter));
    // 50 s of one device at 55,555 base units a second and 0.25%.
    assert_eq!(case.harm, 50 * 55_555 + 6_944);

    // Nobody else takes bounty and rent, with a token account of its own; nor the renter's refund.
    world.refused(&party.execute_slash(party.renter, &answer, Some(party.purse)), Error::AddressWrong);
    world.refused(&party.execute_slash(opener, &answer, Some(staker.purse)), Error::TokenAccountWrong);
    let (supply, rents) = (world.supply(), world.lamports(opener));
    let purses = [party.purse, pda_purse(&opener)].map(|at| world.tokens(at));
    world.must(&party.execute_slash(opener, &answer, Some(party.purse)));
    let page: FleetPage = world.read(party.page);
    // Of own 15, unbonding 5 and co-stake 10 a third each.
    assert_eq!((page.own, page.unbonding, page.costake), (STAKE, STAKE / 3, 2 * STAKE / 3 + 1));
    assert_eq!(world.tokens(party.purse), purses[0] + case.harm);
    assert_eq!(world.tokens(pda_purse(&opener)), purses[1] + ATL, "the bounty is bounded");
    assert_eq!(world.supply(), supply - (STAKE - case.harm - ATL));
    assert!(world.lamports(opener) > rents, "the rent is back");
    conserved(&world, &party);

    // Once: neither the case, nor the device, nor the slot.
    assert_eq!(world.data(answer.case()), None);
    assert_eq!(world.read::<DeviceKey>(device_key(party.devices[0])).flags, DEVICE_SLASHED);
    assert_eq!(slot(&world, &party, 0).flags & SLOT_SLASHED, SLOT_SLASHED);
    assert_eq!(slot(&world, &party, 1).flags & SLOT_SLASHED, 0);
    world.refused(&party.open_fraud(&world, opener, &answer, Some(0)), Error::DeviceSlashed);
    world.refused(&party.execute_slash(opener, &answer, Some(party.purse)), Error::AccountOwnerWrong);
    world.refused(&party.rotate(0, party.devices[0], party.devices[2]), Error::DeviceSlashed);
    world.must(&party.release(party.renter, 0, Reason::Done, 0, &[1]));
    let next = Party { nonce: 2, ..party.clone() };
    world.must(&next.post(1));
    world.must(&party.stake(2 * STAKE));
    world.refused(&next.fill(0, 0, &[1]), Error::SlotSuspended);
    world.must(&party.retire(0, party.devices[0]));
    assert_eq!(world.read::<FleetPage>(party.page).required, STAKE);
}

fn pda_purse(owner: &[u8; 32]) -> [u8; 32] {
    atoll_market_tests::sha256(&[b"purse", owner])
}

#[test]
fn what_is_right_committed_otherwise_or_counted_proves_nothing() {
    let (mut world, party, opener) = ready(1);
    let answer = Answer::with_wrong(&world, party.devices[0], 1, &[(0, 0), (0, 1), (1, 0), (2, 2)]);
    world.must(&party.open_fraud(&world, opener, &answer, None));
    world.refused(&answer.show((3, 3), None), Error::ElementRight);
    world.refused(&party.execute_slash(opener, &answer, None), Error::CaseStateWrong);
    let with = |change: fn(&mut ix::AddFraudElement<'_>)| {
        let good = answer.show((0, 0), None);
        let mut data = ix::AddFraudElement::decode(&good.data[1..]).unwrap();
        change(&mut data);
        Call { data: data.encode().unwrap().as_slice().to_vec(), ..good.clone() }
    };
    world.refused(&with(|data| data.row = 1), Error::LeafPathWrong);
    world.refused(&with(|data| data.leaf[0] ^= 2), Error::LeafPathWrong);
    world.refused(&with(|data| data.row = 32), Error::ParameterOutOfRange);
    world.refused(&with(|data| data.column = u32::MAX), Error::ParameterOutOfRange);
    world.refused(&with(|data| data.path = atoll_interface::Hashes::new(&[])), Error::LeafPathWrong);
    world.must(&answer.show((0, 0), None));
    world.refused(&answer.show((0, 0), None), Error::ElementRepeated);
    world.refused(&answer.show((0, 1), None), Error::ElementRepeated);
    world.refused(&answer.show((1, 0), None), Error::ElementRepeated);
    world.must(&answer.show((2, 2), None));
    world.refused(&party.execute_slash(opener, &answer, None), Error::CaseStateWrong);
    world.wait(10 * UNBOND_S);
    assert_eq!(world.tokens(party.stake_vault()), STAKE, "an unproven case costs nothing, however long it lies");
}

#[test]
fn only_what_the_device_itself_signed_for_this_network_and_in_time_opens_a_case() {
    let (mut world, party, opener) = ready(2);
    let [device, other] = [party.devices[0], party.devices[1]];
    let answer = Answer::with_wrong(&world, device, 1, &[(0, 0)]);
    let good = party.open_fraud(&world, opener, &answer, None);
    world.refused(&Call { checks: vec![], ..good.clone() }, Error::SignatureMissing);
    let by_other = world.check(&other, &answer.message());
    world.refused(&Call { checks: vec![by_other], ..good.clone() }, Error::StatementWrong);
    let by_opener = world.check(&opener, &answer.message());
    world.refused(&Call { checks: vec![by_opener], ..good.clone() }, Error::StatementWrong);
    let said = |statement| {
        let mut other = answer.clone();
        other.statement = statement;
        party.open_fraud(&world, opener, &other, None)
    };
    let now = world.now();
    let elsewhere = said(atoll_interface::capacity::Statement { network_root: [9; 32], ..answer.statement });
    let from_future = said(atoll_interface::capacity::Statement { at: now + 1, ..answer.statement });
    let odd = said(atoll_interface::capacity::Statement { n: 33, ..answer.statement });
    let early = said(atoll_interface::capacity::Statement { at: now - 1, ..answer.statement });
    world.refused(&elsewhere, Error::StatementWrong);
    world.refused(&from_future, Error::CaseTooOld);
    world.refused(&odd, Error::StatementWrong);
    world.refused(&early, Error::CaseTooOld);
    world.wait(DISPUTE_WINDOW_S + 1);
    world.refused(&good, Error::CaseTooOld);
    world.set_time(now + DISPUTE_WINDOW_S);
    world.must(&good);
    world.refused(&good, Error::AlreadyInitialised);
}

#[test]
fn two_cases_of_one_day_count_together() {
    let (mut world, party, opener) = ready(1);
    let second_opener = world.key("second");
    let device = party.devices[0];
    let first = Answer::with_wrong(&world, device, 1, &[(0, 0), (1, 1)]);
    world.must(&party.open_fraud(&world, opener, &first, None));
    world.must(&first.show((0, 0), None));
    world.must(&first.show((1, 1), None));
    world.wait(1);
    let again = Answer::with_wrong(&world, device, 1, &[(4, 4)]);
    world.must(&party.open_fraud(&world, second_opener, &again, None));
    world.refused(&again.show((4, 4), Some((&first, opener))), Error::CasesApart);
    world.wait(CASE_S);
    let late = Answer::with_wrong(&world, device, 3, &[(4, 4)]);
    world.must(&party.open_fraud(&world, second_opener, &late, None));
    world.refused(&late.show((4, 4), Some((&first, opener))), Error::CasesApart);
    world.set_time(first.statement.at + CASE_S);
    let second = Answer::with_wrong(&world, device, 2, &[(9, 9), (8, 8)]);
    world.must(&party.open_fraud(&world, second_opener, &second, None));
    world.refused(&second.show((9, 9), Some((&first, second_opener))), Error::AddressWrong);
    let rents = world.lamports(opener);
    world.must(&second.show((9, 9), Some((&first, opener))));
    assert!(world.lamports(opener) > rents, "who opened the spent case has its rent back");
    assert_eq!(world.data(first.case()), None);
    world.refused(&second.show((8, 8), None), Error::CaseStateWrong);
    world.purse(second_opener);
    world.must(&party.execute_slash(second_opener, &second, None));
    assert_eq!(world.tokens(party.stake_vault()), 0);
    conserved(&world, &party);
}

#[test]
fn a_supplier_does_not_escape_by_leaving() {
    let (mut world, party, opener) = ready(1);
    let second = pda(&seeds::page(&party.supplier, &1u16.to_le_bytes()));
    world.must(&party.register_on(1, party.devices[1], ASK));
    world.must(&party.stake(STAKE));
    let answer = Answer::with_wrong(&world, party.devices[1], 1, &[(0, 0), (1, 1), (2, 2)]);
    world.wait(1);
    // It retires the worker, closes its page and takes its stake out, as fast as it can.
    world.must(&party.retire_on(1, 0, party.devices[1]));
    world.must(&party.close_page_at(second, second, second));
    world.must(&party.unstake(STAKE));
    let mut open = party.open_fraud(&world, opener, &answer, None);
    for index in [3, 5, 6] {
        open.metas[index].address = second;
    }
    let page_no = |number| ix::OpenFraud { check: 0, page_no: number }.encode().unwrap().as_slice().to_vec();
    open.data = page_no(2);
    world.refused(&open, Error::AddressWrong);
    open.data = page_no(1);
    let other = Party::ready(&mut world, "b", 1);
    let mut forged = open.clone();
    forged.metas[4].address = other.page;
    world.refused(&forged, Error::AddressWrong);
    world.must(&open);
    for place in [(0, 0), (1, 1), (2, 2)] {
        world.must(&answer.show(place, None));
    }
    let mut execute = party.execute_slash(opener, &answer, None);
    execute.metas[3].address = second;
    let mut forged = execute.clone();
    (forged.metas[4].address, forged.metas[5].address) = (other.page, other.stake_vault());
    forged.metas[8].address = other.stake_vault();
    world.refused(&forged, Error::AddressWrong);
    let early = world.now();
    world.set_time(answer.statement.at + UNBOND_S);
    world.refused(&execute, Error::CaseTooOld);
    world.set_time(early);
    world.must(&execute);
    let page: FleetPage = world.read(party.page);
    assert_eq!((page.own, page.unbonding), (STAKE / 2, STAKE / 2), "half of what was there");
    conserved(&world, &party);
}

#[test]
fn a_new_key_does_not_free_the_worker_and_who_takes_its_slot_is_not_slashed() {
    let (mut world, party, opener) = ready(1);
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    world.wait(1);
    let wrong = [(0, 0), (1, 1), (2, 2)];
    let [old, new] = [party.devices[0], party.devices[1]];
    let by_old = Answer::with_wrong(&world, old, 1, &wrong);
    world.wait(1);
    world.must(&party.rotate(0, old, new));
    let late = Answer::with_wrong(&world, old, 2, &wrong);
    world.refused(&party.open_fraud(&world, opener, &late, Some(0)), Error::CaseTooOld);
    let by_new = Answer::with_wrong(&world, new, 3, &wrong);
    world.refused(&party.open_fraud(&world, opener, &by_new, None), Error::HarmedRenterMissing);
    for answer in [&by_old, &by_new] {
        world.must(&party.open_fraud(&world, opener, answer, Some(0)));
        for place in wrong {
            world.must(&answer.show(place, None));
        }
    }
    world.must(&party.execute_slash(opener, &by_old, Some(party.purse)));
    world.refused(&party.execute_slash(opener, &by_new, Some(party.purse)), Error::DeviceSlashed);

    // Another worker in the slot: its devices did nothing.
    let (mut world, party, opener) = ready(1);
    let answer = party.prove_fraud(&mut world, opener, 0, None);
    world.must(&party.retire(0, party.devices[0]));
    world.must(&party.register(1));
    world.must(&party.execute_slash(opener, &answer, None));
    assert_eq!(slot(&world, &party, 0).flags & SLOT_SLASHED, 0);
    assert_eq!(world.read::<FleetPage>(party.page).own, 0);
}

#[test]
fn a_lease_is_named_by_who_accuses_and_one_taken_after_the_fault_is_paid_nothing() {
    let (mut world, party, opener) = ready(2);
    let answer = Answer::with_wrong(&world, party.devices[0], 1, &[(0, 0)]);
    world.wait(1);
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    let next = Party { nonce: 2, ..party.clone() };
    world.must(&next.post(1));
    world.must(&next.fill(0, 1, &[1]));
    world.wait(10);
    world.refused(&party.open_fraud(&world, opener, &answer, None), Error::HarmedRenterMissing);
    world.refused(&next.open_fraud(&world, opener, &answer, Some(0)), Error::AddressWrong);
    let mut mixed = party.open_fraud(&world, opener, &answer, Some(0));
    mixed.metas[6].address = next.order();
    world.refused(&mixed, Error::AddressWrong);
    world.must(&party.open_fraud(&world, opener, &answer, Some(0)));
    let case: FraudCase = world.read(answer.case());
    assert_eq!((case.renter, case.lease, case.harm), (party.renter, party.lease(0), 0));
}

/// A supplier that is its own renter and its own accuser, at any price, with another's co-stake beside its own.
#[test]
fn accusing_oneself_never_pays() {
    for ask in [ASK, 1_000 * ASK, 30_000_000_000] {
        let mut world = World::new();
        let mut party = Party::ready(&mut world, "a", 1);
        world.must(&party.stake(STAKE));
        let staker = Party::new(&mut world, "b");
        world.must(&party.offer(0, 2 * STAKE));
        world.must(&party.accept_as(staker.renter, staker.purse, 0, 2 * STAKE));
        // The supplier's wallet rents, accuses and is paid, all on one purse.
        (party.renter, party.purse) = (party.supplier, party.supplier_purse);
        world.must(&party.set_ask(party.supplier, 0, ix::ASK, ask));
        let terms = ix::PostOrder { price_cap_uusd: ask, ..party.terms(1) };
        world.must(&party.post_with(&terms));
        world.must(&party.fill_as(party.node, 0, &fill_data(0, &[1])));
        world.wait(60);
        let answer = party.prove_fraud(&mut world, party.supplier, 0, Some(0));
        let staked = world.tokens(party.stake_vault());
        world.must(&party.execute_slash(party.supplier, &answer, Some(party.purse)));
        assert_eq!(staked - world.tokens(party.stake_vault()), STAKE);
        // Everything it has now or can still have: its purse, its order's vault, its own stake.
        let page: FleetPage = world.read(party.page);
        let has = world.tokens(party.purse) + world.tokens(party.vault()) + page.own + page.unbonding;
        let lost = PURSE - has;
        // Half of its own part is burned, whatever it hides behind, but for the bounty of one ATL.
        assert!(lost >= STAKE / 4 - ATL, "at an ask of {ask} it loses {lost}");
        conserved(&world, &party);
    }
}

/// Relay, control plane and attestors away for the whole time of a lease and long after: no stake changes.
#[test]
fn an_outage_slashes_nobody() {
    let (mut world, party, opener) = ready(1);
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    let answer = Answer::with_wrong(&world, party.devices[0], 1, &[]);
    world.must(&party.open_fraud(&world, opener, &answer, Some(0)));
    for place in [(0, 0), (1, 1), (2, 2)] {
        world.refused(&answer.show(place, None), Error::ElementRight);
    }
    world.must(&party.release(party.node, 0, Reason::Lost, 0, &[1]));
    world.wait(2 * UNBOND_S);
    world.must(&party.close_lease(0));
    world.refused(&party.execute_slash(opener, &answer, Some(party.purse)), Error::CaseStateWrong);
    let page: FleetPage = world.read(party.page);
    assert_eq!((page.own, page.strikes, world.tokens(party.stake_vault())), (STAKE, 0, STAKE));
}
