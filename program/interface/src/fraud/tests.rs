use super::*;
use crate::layout::CoStake;
use proptest::prelude::*;

fn rules() -> Rules {
    Rules {
        unbond_s: 1_000,
        dispute_window_s: 300,
        case_s: 100,
        device_slash_bps: 10_000,
        bounty_bps: 1_000,
        bounty_max: 50,
        ..Rules::new()
    }
}

fn case(seed: u8, at: i64) -> FraudCase {
    FraudCase { device: [2; 32], seed: [seed; 32], at, ..FraudCase::new() }
}

fn statement(at: i64) -> Statement {
    Statement { network_root: [1; 32], device: [2; 32], seed: [3; 32], n: 64, root: [4; 32], at }
}

#[test]
fn a_statement_is_of_its_network_its_key_and_its_time() {
    let key = DeviceKey { key: [2; 32], ..DeviceKey::new() };
    let slot = Slot { registered_at: 800, ..Slot::ZERO };
    let check = |at, key: &DeviceKey| statement(at).check(&[1; 32], (key, Some(&slot)), &rules(), 1_000);
    assert_eq!(check(1_000, &key), Ok(()));
    assert_eq!(check(1_001, &key), Err(Error::CaseTooOld));
    assert_eq!(check(799, &key), Err(Error::CaseTooOld), "before it was registered");
    assert_eq!(statement(700).check(&[1; 32], (&key, None), &rules(), 1_000), Ok(()));
    assert_eq!(statement(699).check(&[1; 32], (&key, None), &rules(), 1_000), Err(Error::CaseTooOld));
    let retired = DeviceKey { retired_at: 900, ..key };
    assert_eq!(check(899, &retired), Ok(()));
    assert_eq!(check(900, &retired), Err(Error::CaseTooOld), "after it was retired");
    assert_eq!(check(900, &DeviceKey { key: [9; 32], ..key }), Err(Error::StatementWrong));
    assert_eq!(check(900, &DeviceKey { flags: DEVICE_SLASHED, ..key }), Err(Error::DeviceSlashed));
    assert_eq!(statement(900).check(&[9; 32], (&key, None), &rules(), 1_000), Err(Error::StatementWrong));
}

#[test]
fn three_wrong_elements_prove_and_no_row_or_column_counts_twice() {
    let mut case = case(1, 0);
    assert_eq!(case.check_execute(&rules(), 0), Err(Error::CaseStateWrong));
    assert_eq!(case.count((5, 6), None, &rules(), 1), Ok(Progress::Counted));
    assert_eq!(case.count((5, 7), None, &rules(), 1), Err(Error::ElementRepeated));
    assert_eq!(case.count((4, 6), None, &rules(), 1), Err(Error::ElementRepeated));
    // Zero is a row like others.
    assert_eq!(case.count((0, 0), None, &rules(), 1), Ok(Progress::Counted));
    assert_eq!(case.count((0, 9), None, &rules(), 1), Err(Error::ElementRepeated));
    assert_eq!(case.count((6, 5), None, &rules(), 7), Ok(Progress::Proven));
    assert_eq!((case.wrong, case.proven_at), (3, 7));
    assert_eq!(case.count((9, 9), None, &rules(), 8), Err(Error::CaseStateWrong));
    assert_eq!(case.check_execute(&rules(), 999), Ok(()));
    assert_eq!(case.check_execute(&rules(), 1_000), Err(Error::CaseTooOld));
}

#[test]
fn two_cases_count_together_within_a_day_and_never_one_challenge_twice() {
    let with = |wrong, seed, at| FraudCase { wrong, ..case(seed, at) };
    let join = |other: FraudCase| with(0, 1, 500).count((1, 1), Some(&other), &rules(), 1);
    assert_eq!(join(with(2, 2, 400)), Ok(Progress::Joined));
    assert_eq!(join(with(2, 2, 600)), Ok(Progress::Joined));
    assert_eq!(join(with(1, 2, 600)), Ok(Progress::Counted), "two are too few");
    assert_eq!(join(with(2, 2, 399)), Err(Error::CasesApart));
    assert_eq!(join(with(2, 2, 601)), Err(Error::CasesApart));
    assert_eq!(join(with(2, 1, 500)), Err(Error::CasesApart), "one seed is one challenge");
    assert_eq!(join(FraudCase { device: [9; 32], ..with(2, 2, 500) }), Err(Error::CasesApart));
    assert_eq!(join(FraudCase { flags: CASE_PROVEN, ..with(3, 2, 500) }), Err(Error::CaseStateWrong));
    // With three of its own the other is not spent; an empty one adds nothing.
    let mut full = with(2, 1, 500);
    (full.rows, full.columns) = ([7, 8, 0], [7, 8, 0]);
    assert_eq!(full.count((1, 1), Some(&with(2, 2, 500)), &rules(), 1), Ok(Progress::Proven));
    assert_eq!(join(with(0, 2, 500)), Ok(Progress::Counted));
}

#[test]
fn a_lease_is_harmed_only_if_it_ran_then() {
    let order = Order { fee_bps: 25, ..Order::new() };
    let lease = Lease { rate: 1_000, mask: 0b11, start: 100, end: 200, ..Lease::new() };
    assert_eq!(lease.harm(&order, 150, 160), Ok(2 * 60 * 1_000 + 300));
    assert_eq!(lease.harm(&order, 150, 900), Ok(2 * 100 * 1_000 + 500));
    assert_eq!(lease.harm(&order, 99, 160), Ok(0), "leased after the fault");
    assert_eq!(lease.harm(&order, 200, 260), Ok(0));
    assert_eq!(Lease { start: 0, ..lease }.harm(&order, 0, 160), Ok(0));
}

#[test]
fn a_key_and_its_worker_are_slashed_once() {
    let slot = Slot { flags: SLOT_USED, generation: 3, device_key: [2; 32], registered_at: 10, ..Slot::ZERO };
    let key = DeviceKey { key: [2; 32], generation: 3, ..DeviceKey::new() };
    let (mut now, mut place) = (key, slot);
    now.slash(Some(&mut place)).unwrap();
    assert_eq!((now.flags, place.flags), (DEVICE_SLASHED, SLOT_USED | SLOT_SLASHED));
    assert_eq!(now.slash(None), Err(Error::DeviceSlashed));
    // The old key of a rotation is of the same worker; so is the new one.
    let mut old = DeviceKey { key: [7; 32], retired_at: 50, ..key };
    assert_eq!(old.slash(Some(&mut place)), Err(Error::DeviceSlashed));
    // Another worker in its place is left alone: a later generation, or another on a page made anew.
    for mut other in [Slot { generation: 4, ..slot }, Slot { registered_at: 60, ..slot }, Slot { flags: 0, ..slot }] {
        let (before, mut old) = (other, old);
        old.slash(Some(&mut other)).unwrap();
        assert_eq!(other, before);
    }
}

proptest! {
    /// Whoever supplier, renter and accuser are in secret, together they get less than the supplier lost of its own, and
    /// nothing appears or vanishes.
    #[test]
    fn no_accusation_pays(
        own in 1u64..1_000_000, unbonding in 0u64..1_000_000, co in 0u64..1_000_000, stake in 0u64..3_000_000,
        harm in 0u64..3_000_000, bounty_max in 0u64..1_000_000, bounty_bps in 0u16..=10_000, slash_bps in 0u16..=10_000,
    ) {
        let mut page = FleetPage { own, unbonding, costake: co.min(own), ..FleetPage::new() };
        page.offers = 1;
        let held = CoStake { amount: page.costake, slash_index: page.index(), ..CoStake::new() };
        let before = page;
        let rules = Rules { bounty_max, bounty_bps, device_slash_bps: slash_bps, ..rules() };
        let slash = page.slash_device(&FraudCase { stake, harm, ..case(1, 0) }, &rules).unwrap();
        let lost = before.own + before.unbonding - page.own - page.unbonding;
        prop_assert!(slash.refund + slash.bounty <= lost);
        prop_assert!(slash.refund <= lost / 2 && slash.refund <= harm && slash.bounty <= bounty_max);
        let taken = slash.refund + slash.bounty + slash.burned;
        prop_assert_eq!(page.staked().unwrap() + taken, before.staked().unwrap());
        prop_assert!(taken <= stake);
        prop_assert!(held.worth(&page).unwrap() <= page.costake);
    }
}
