use super::*;
use proptest::prelude::*;

fn order(devices: u32, min: u32) -> Order {
    let mut order = Order::new();
    order.devices = devices;
    order.devices_open = devices;
    order.devices_min = min;
    order.duration_s = 100;
    order.posted_at = 1_000;
    order.fill_by = 1_060;
    order.fee_bps = 25;
    order.feed_uusd_per_atl = 250_000;
    order.price_cap_uusd = 2_200_000;
    order.models = [1, 0, 0, 0];
    order.rate_cap = rate(order.price_cap_uusd, order.feed_uusd_per_atl).unwrap();
    order.escrow = worst_case(order.rate_cap, devices, 100, 25).unwrap();
    order.escrow_initial = order.escrow;
    order
}

fn filled(order: &mut Order, first_slot: u16, count: u32, now: i64) -> Lease {
    let bits = ((1u64 << count) - 1).to_le_bytes();
    let slots = Slots::new(first_slot, &bits).unwrap();
    let mut lease = Lease::new();
    lease.mask = 1;
    lease.n = order.fill(count, now).unwrap();
    lease.open(order, slots, count, order.price_cap_uusd, now).unwrap();
    lease
}

fn leaf(device_seconds: u64, until: i64) -> Leaf {
    Leaf { lease: [0; 32], device_seconds, until, flags: 0, slots_root: [0; 32] }
}

#[test]
fn an_order_is_active_with_its_last_device() {
    let mut order = order(3, 3);
    let mut first = filled(&mut order, 0, 2, 1_010);
    first.begin(&order);
    assert_eq!((order.active_at, first.start, first.cap(2_000)), (0, 0, Ok(0)));
    let second = filled(&mut order, 5, 1, 1_020);
    assert_eq!((order.active_at, order.end, second.n), (1_020, 1_120, 1));
    first.begin(&order);
    assert_eq!(first.cap(1_030), Ok(20));
    assert_eq!(first.cap(9_999), Ok(200), "the cap ends with the lease");
    assert_eq!(order.fill(1, 1_030), Err(Error::OrderNotOpen));
}

#[test]
fn the_minimum_is_enough_at_fill_by_and_less_is_not() {
    let mut enough = order(3, 2);
    filled(&mut enough, 0, 2, 1_010);
    enough.ripen(1_059);
    assert_eq!(enough.active_at, 0);
    enough.ripen(1_070);
    assert_eq!((enough.active_at, enough.end), (1_060, 1_160));
    assert_eq!(enough.fill(1, 1_080), Ok(1), "the rest may still come");

    let mut short = order(3, 2);
    filled(&mut short, 0, 1, 1_010);
    assert_eq!(short.fill(1, 1_060), Err(Error::FillTooLate));
    assert!(short.is_over(1_060));
}

#[test]
fn a_refill_never_makes_the_order_dearer() {
    let mut order = order(2, 2);
    let mut lease = filled(&mut order, 0, 2, 1_000);
    let gone = Slots::new(0, &[1]).unwrap();
    assert_eq!(lease.release(&mut order, gone, Reason::Lost, 1_040, 1_050), Ok(1));
    assert_eq!(lease.cap_base, 40 + 50, "the lost one stops at its effective second, the other goes on");
    let refill = filled(&mut order, 9, 1, 1_060);
    assert_eq!((refill.n, refill.start, refill.end), (1, 1_060, 1_100));
    assert!(lease.cap(9_999).unwrap() + refill.cap(9_999).unwrap() <= 200);
    assert_eq!(lease.release(&mut order, gone, Reason::Lost, 0, 1_070), Err(Error::LeaseSlotsWrong));
}

#[test]
fn done_stops_the_order() {
    let mut order = order(1, 1);
    let mut lease = filled(&mut order, 0, 1, 1_000);
    lease.release(&mut order, Slots::new(0, &[1]).unwrap(), Reason::Done, 1_030, 1_030).unwrap();
    assert_eq!(order.fill(1, 1_031), Err(Error::OrderNotOpen));
    assert_eq!(lease.cap(9_999), Ok(30));
}

#[test]
fn leaves_are_refused_above_the_cap_and_when_stale() {
    let mut order = order(1, 1);
    let mut lease = filled(&mut order, 0, 1, 1_000);
    assert_eq!(lease.settle(&mut order, &leaf(51, 1_050), 1_050), Err(Error::AboveCap));
    assert_eq!(lease.settle(&mut order, &leaf(1, 1_000), 1_050), Err(Error::LeafStale), "an earlier order's leaf");
    assert_eq!(lease.settle(&mut order, &leaf(1, 1_051), 1_050), Err(Error::LeafStale), "from the future");
    lease.settle(&mut order, &leaf(50, 1_050), 1_050).unwrap();
    assert_eq!(lease.settle(&mut order, &leaf(49, 1_051), 1_060), Err(Error::LeafStale));
    assert_eq!(lease.settle(&mut order, &leaf(50, 1_049), 1_060), Err(Error::LeafStale));
    assert_eq!(lease.check_close(10, 9_999), Err(Error::LeaseStillLive));
    lease.release(&mut order, Slots::new(0, &[1]).unwrap(), Reason::Expired, 1_100, 1_130).unwrap();
    assert_eq!(lease.check_close(10, 1_139), Err(Error::LeaseUnsettled));
    assert_eq!(lease.check_close(10, 1_140), Ok(()), "stalled");
    lease.settle(&mut order, &leaf(100, 1_100), 1_139).unwrap();
    assert_eq!(lease.check_close(10, 1_139), Ok(()));
}

#[test]
fn reasons_belong_to_rights() {
    let order = order(1, 1);
    let lease = Lease::new();
    let check = |who: Releaser, reason, now| who.check(reason, &order, &lease, now).is_ok();
    assert!(check(Releaser::Solver, Reason::Lost, 1_000));
    assert!(check(Releaser::Solver, Reason::Done, 1_000));
    assert!(!check(Releaser::Solver, Reason::Leave, 1_000));
    assert!(!check(Releaser::Device, Reason::Lost, 1_000));
    assert!(check(Releaser::Renter, Reason::Done, 1_000));
    assert!(!check(Releaser::Anyone, Reason::Expired, 1_059));
    assert!(check(Releaser::Anyone, Reason::Expired, 1_060));
    assert!(!check(Releaser::Anyone, Reason::Lost, 9_999));
}

#[test]
fn slots_are_refused_for_a_reason() {
    let order = order(8, 8);
    let good = Slot { flags: SLOT_USED, model: 1, devices: 4, ask_uusd: 2_000_000, ..Slot::ZERO };
    let check = |slot: &Slot, mask, ask_max| order.check_slot(slot, mask, ask_max).err();
    assert_eq!(check(&good, 0b1111, u64::MAX), None);
    assert_eq!(check(&good, 0b1_0000, u64::MAX), Some(Error::SlotUnfit));
    assert_eq!(check(&good, 1, 1_999_999), Some(Error::AskTooHigh));
    assert_eq!(check(&Slot { ask_uusd: 2_200_001, ..good }, 1, u64::MAX), Some(Error::AskTooHigh));
    assert_eq!(check(&Slot { flags: 0, ..good }, 1, u64::MAX), Some(Error::SlotUnknown));
    assert_eq!(check(&Slot { flags: SLOT_USED | SLOT_DRAINING, ..good }, 1, u64::MAX), Some(Error::SlotSuspended));
    assert_eq!(check(&Slot { flags: SLOT_USED | SLOT_SUSPENDED, ..good }, 1, u64::MAX), Some(Error::SlotSuspended));
    assert_eq!(check(&Slot { model: 2, ..good }, 1, u64::MAX), Some(Error::SlotUnfit));
    assert_eq!(check(&Slot { lease_s_max: 99, ..good }, 1, u64::MAX), Some(Error::SlotUnfit));
    assert_eq!(check(&Slot { leased_mask: 0b10, ..good }, 0b11, u64::MAX), Some(Error::DevicesTaken));
    assert_eq!(order.check_mask(0), Err(Error::SlotUnfit));
}

proptest! {
    /// However leaves, releases and collections interleave, the books sum to what was escrowed, and the totals are those
    /// of one settlement of the last leaf.
    #[test]
    fn money_is_conserved_and_rounding_does_not_depend_on_the_path(
        steps in prop::collection::vec((0u64..40, 0u8..4), 1..12), price in 1u64..3_000_000,
    ) {
        let mut order = order(2, 2);
        order.price_cap_uusd = price;
        order.rate_cap = rate(price, order.feed_uusd_per_atl).unwrap();
        order.escrow = worst_case(order.rate_cap, 2, 100, 25).unwrap();
        order.escrow_initial = order.escrow;
        let mut lease = filled(&mut order, 0, 2, 1_000);
        let (mut paid, mut split) = (0, FeeSplit::default());
        let mut now = 1_001;
        for (served, what) in steps {
            now += 10;
            let said = (lease.device_seconds_paid + served).min(lease.cap(now).unwrap());
            lease.settle(&mut order, &leaf(said, now), now).unwrap();
            match what {
                0 => paid += lease.withdraw(&mut order).unwrap(),
                1 => {
                    let part = order.collect().unwrap();
                    split.burned += part.burned;
                    split.treasury += part.treasury;
                }
                2 if lease.devices_live == 2 => {
                    lease.release(&mut order, Slots::new(1, &[1]).unwrap(), Reason::Leave, now - 5, now).unwrap();
                }
                _ => {}
            }
            prop_assert_eq!(order.owed, lease.owed);
            prop_assert_eq!(order.vault().unwrap() + paid + split.burned + split.treasury, order.escrow_initial);
        }
        let total = Pay::of(lease.rate, lease.device_seconds_paid, 25).unwrap();
        prop_assert_eq!(paid + lease.owed, total.supplier());
        prop_assert_eq!(order.fees_collected + order.fees, total.fees().unwrap());
        prop_assert_eq!(order.escrow, order.escrow_initial - total.renter().unwrap());
        prop_assert_eq!(split, FeeSplit::of(order.fees_collected));
    }
}

#[test]
fn an_extension_pays_for_all_that_may_still_run_and_leases_follow_one_by_one() {
    let mut order = order(3, 2);
    let mut first = filled(&mut order, 0, 2, 1_010);
    assert_eq!(order.extend(50, 0, 1_020), Err(Error::OrderNotActive), "not active yet");
    order.ripen(1_060);
    let (escrow, initial) = (order.escrow, order.escrow_initial);
    assert_eq!(order.extend(0, 1, 1_070), Err(Error::ParameterOutOfRange));
    assert_eq!(
        order.extend(DURATION_S_MAX, order.extension(DURATION_S_MAX).unwrap(), 1_070),
        Err(Error::ParameterOutOfRange)
    );
    let added = order.extension(50).unwrap();
    assert_eq!(order.extend(50, added - 1, 1_070), Err(Error::ParameterOutOfRange));
    order.extend(50, added, 1_070).unwrap();
    assert_eq!(added, worst_case(order.rate_cap, 3, 50, 25).unwrap() + 1, "the open device may still come");
    assert_eq!((order.escrow, order.escrow_initial), (escrow + added, initial + added));
    first.begin(&order);
    assert_eq!((order.duration_s, order.end, first.end), (150, 1_210, 1_160), "begun late, it is not drawn along");

    let offered = Slot { ask_uusd: first.ask_uusd, ..Slot::ZERO };
    let dearer = Slot { ask_uusd: first.ask_uusd + 1, ..offered };
    let drains = Slot { flags: SLOT_DRAINING, ..offered };
    let shorter = Slot { lease_s_max: 149, ..offered };
    for (slot, refusal) in [(dearer, Error::AskTooHigh), (drains, Error::SlotSuspended), (shorter, Error::SlotUnfit)] {
        assert_eq!(first.extend(&order, &[offered, slot], 1_080), Err(refusal));
        assert_eq!(first.end, 1_160);
    }
    assert_eq!(first.clone().extend(&order, &[offered; 2], 1_160), Err(Error::LeaseEnded));
    first.extend(&order, &[offered, offered, dearer], 1_159).unwrap();
    assert_eq!((first.end, first.cap(9_999)), (1_210, Ok(300)));
    assert_eq!(first.extend(&order, &[offered; 2], 1_170), Err(Error::NothingToDo));
    assert_eq!(order.extend(50, added, 1_210), Err(Error::OrderNotActive), "it has ended");
}

#[test]
fn a_lease_that_does_not_follow_ends_and_its_devices_are_open_again() {
    let mut order = order(2, 2);
    let mut first = filled(&mut order, 0, 2, 1_010);
    order.extend(100, order.extension(100).unwrap(), 1_050).unwrap();
    let anyone = Releaser::Anyone;
    assert_eq!(anyone.check(Reason::Expired, &order, &first, 1_109), Err(Error::NotAuthorised));
    assert_eq!(anyone.check(Reason::Expired, &order, &first, 1_110), Ok(()));
    let all = [0b11];
    first.release(&mut order, Slots::new(0, &all).unwrap(), Reason::Expired, 1_120, 1_120).unwrap();
    assert_eq!((order.devices_open, first.cap(9_999), first.last_second()), (2, Ok(200), 1_110));
    let second = filled(&mut order, 4, 2, 1_120);
    assert_eq!((second.end, second.cap(9_999)), (1_210, Ok(180)));
    let pay = |seconds| Pay::of(order.rate_cap, seconds, 25).unwrap().renter().unwrap();
    assert!(pay(200) + pay(180) <= order.escrow);
}

proptest! {
    /// However an order is extended and however its time is shared out between leases, the escrow covers it.
    #[test]
    fn the_escrow_covers_every_extension(
        devices in 1u32..50, seconds in prop::collection::vec(1u32..5_000, 1..8), shares in prop::collection::vec(1u64..100, 1..8),
    ) {
        let mut order = order(devices, devices);
        filled(&mut order, 0, devices.min(50), 1_010);
        for (now, added) in (1_011..).zip(seconds) {
            order.extend(added, order.extension(added).unwrap(), now).unwrap();
        }
        let all = u64::from(devices) * u64::from(order.duration_s);
        let whole: u64 = shares.iter().sum();
        let spent: u64 =
            shares.iter().map(|share| Pay::of(order.rate_cap, all * share / whole, 25).unwrap().renter().unwrap()).sum();
        prop_assert!(spent <= order.escrow, "{spent} of {}", order.escrow);
    }
}
