use super::*;
use crate::{
    arithmetic::rate,
    fill::Slots,
    instruction::{FOR_LEAF, FOR_OPENER},
    settlement::worst_case,
    stake::DEFAULT_RULES,
    test::sha256,
};
use proptest::prelude::*;
use std::vec::Vec;

const NOW: i64 = 1_000_000;

fn rules() -> Rules {
    let mut rules = Rules::new();
    rules.set(&DEFAULT_RULES);
    rules
}

fn seats(count: u8) -> Vec<Seat> {
    (1..=count).map(|n| Seat { owner: [n; 32], key: [0x80 | n; 32] }).collect()
}

fn dispute() -> Dispute {
    let mut dispute = Dispute::new();
    (dispute.opener, dispute.renter, dispute.supplier) = ([201; 32], [202; 32], [203; 32]);
    (dispute.claimed, dispute.ceiling, dispute.cap_at, dispute.until) = (80, 50, 90, NOW - 10);
    dispute.begin(&rules(), 7, NOW);
    dispute
}

fn drawn(count: u8) -> (Dispute, Vec<Seat>) {
    let (mut dispute, seats) = (dispute(), seats(count));
    dispute.draw(sha256, (&[1; 32], &[2; 32]), &seats, NOW).unwrap();
    (dispute, seats)
}

fn members(of: &Seats) -> Vec<usize> {
    (0..SEATS_MAX).filter(|seat| holds(of, *seat)).collect()
}

/// Lets seats of the voting panel vote, in its order.
fn votes(dispute: &mut Dispute, seats: &[Seat], choices: &[u8], now: i64) {
    for (seat, choice) in members(&dispute.panel).into_iter().zip(choices) {
        dispute.vote((seat, &seats[seat]), *choice, now).unwrap();
    }
}

#[test]
fn the_slot_that_draws_is_fixed_and_so_are_those_after_it() {
    assert_eq!(due_slot(100, 0, 99), Err(Error::DrawTooEarly));
    assert_eq!(due_slot(100, 0, 100), Ok(100));
    assert_eq!(due_slot(100, 100, 611), Ok(100));
    // The hash is gone: the next one is 512 slots on, for as long.
    assert_eq!(due_slot(100, 101, 611), Err(Error::DrawTooEarly));
    assert_eq!(due_slot(100, 101, 612), Ok(612));
    assert_eq!(due_slot(100, 612, 1_123), Ok(612));
    assert_eq!(due_slot(100, 613, 1_124), Ok(1_124));
    assert_eq!(due_slot(u64::MAX, 0, u64::MAX), Ok(u64::MAX));
    assert_eq!(due_slot(u64::MAX - 1, u64::MAX, u64::MAX), Err(Error::DrawTooEarly));
}

#[test]
fn no_party_sits_on_a_panel() {
    let mut seats = seats(9);
    seats[0].owner = [201; 32];
    seats[1].key = [202; 32];
    seats[2].owner = [203; 32];
    let mut dispute = dispute();
    dispute.draw(sha256, (&[1; 32], &[2; 32]), &seats, NOW).unwrap();
    assert_eq!(dispute.panel_count, 5);
    assert!(members(&dispute.panel).iter().all(|seat| *seat > 2));
    let late = dispute.vote_until;
    dispute.appeal(&[7; 32], &seats, late).unwrap();
    assert_eq!(members(&dispute.panel), [3, 4, 5, 7, 8], "who appeals does not judge: its seat is 6");
    // A seat that a party took over after the panel was made.
    let taken = Seat { owner: [203; 32], key: [0; 32] };
    assert_eq!(dispute.vote((3, &taken), FOR_LEAF, late), Err(Error::NotOnPanel));
    assert_eq!(dispute.vote((6, &seats[6]), FOR_LEAF, late), Err(Error::NotOnPanel));
}

#[test]
fn every_seat_is_drawn_and_each_draw_is_another() {
    let all = seats(20);
    let mut times = [0u32; 20];
    for hash in 0..=255u8 {
        let mut dispute = dispute();
        dispute.draw(sha256, (&[hash; 32], &[2; 32]), &all, NOW).unwrap();
        let members = members(&dispute.panel);
        assert_eq!(members.len(), 5);
        members.iter().for_each(|seat| times[*seat] += 1);
    }
    // 256 draws of 5 of 20: 64 each, and a deviation of 7.
    assert!(times.iter().all(|times| (36..=92).contains(times)), "{times:?}");
    let (one, _) = drawn(3);
    assert_eq!(one.panel_count, 3);
    let (mut none, _) = drawn(0);
    assert_eq!((none.panel_count, none.said()), (0, Outcome::NoQuorum));
    assert_eq!(none.draw(sha256, (&[1; 32], &[2; 32]), &all, NOW), Err(Error::NothingToDo));
}

#[test]
fn votes_have_their_time_and_count_once() {
    let (mut dispute, seats) = drawn(5);
    assert_eq!(dispute.vote((0, &seats[0]), 3, NOW), Err(Error::InstructionMalformed));
    dispute.vote((0, &seats[0]), FOR_OPENER, NOW).unwrap();
    for choice in [FOR_OPENER, FOR_LEAF] {
        assert_eq!(dispute.vote((0, &seats[0]), choice, NOW), Err(Error::PanelVoteRepeated));
    }
    let end = dispute.vote_until;
    assert_eq!(dispute.vote((1, &seats[1]), FOR_LEAF, end), Err(Error::DisputeStageWrong));
    assert_eq!(dispute.appeal(&[9; 32], &seats, end - 1), Err(Error::DisputeStageWrong));
    let file_until = dispute.file_until();
    assert_eq!(dispute.check_close(file_until - 1), Err(Error::DisputeStageWrong));
    assert_eq!(dispute.clone().appeal(&[9; 32], &seats, file_until), Err(Error::DisputeStageWrong));
    dispute.appeal(&[9; 32], &seats, end).unwrap();
    assert_eq!(dispute.appeal(&[9; 32], &seats, end), Err(Error::DisputeStageWrong));
    let last = dispute.appeal_until;
    assert_eq!(dispute.check_close(last - 1), Err(Error::DisputeStageWrong));
    dispute.vote((0, &seats[0]), FOR_LEAF, last - 1).unwrap();
    assert_eq!(dispute.vote((1, &seats[1]), FOR_LEAF, last), Err(Error::DisputeStageWrong));
    assert_eq!(dispute.check_close(last), Ok(()));
}

/// (votes of the panel of 5, votes on appeal, verdict, opener's, appellant's, supplier's and burned part) in 50ths of the
/// bonds of 50 and 100 ATL.
#[test]
fn what_each_verdict_makes_of_the_bonds() {
    const O: u8 = FOR_OPENER;
    const L: u8 = FOR_LEAF;
    type Case = (&'static [u8], Option<&'static [u8]>, Outcome, [u64; 4]);
    let cases: &[Case] = &[
        (&[O, O, O], None, Outcome::Opener, [50, 0, 0, 0]),
        (&[L, L, O], None, Outcome::Leaf, [0, 0, 25, 25]),
        (&[O, O], None, Outcome::NoQuorum, [50, 0, 0, 0]),
        (&[O, O, L, L], None, Outcome::NoQuorum, [50, 0, 0, 0]),
        // Who appeals and loses.
        (&[O, O, O], Some(&[O, O, O, O, O]), Outcome::Opener, [100, 0, 0, 50]),
        (&[L, L, L], Some(&[L, L, L, L, L]), Outcome::Leaf, [0, 0, 75, 75]),
        (&[], Some(&[L, L, L, L, O]), Outcome::Leaf, [0, 0, 75, 75]),
        // Who appeals and wins.
        (&[O, O, O], Some(&[L, L, L, L, L]), Outcome::Leaf, [0, 100, 25, 25]),
        (&[L, L, L], Some(&[O, O, O, O, O]), Outcome::Opener, [50, 100, 0, 0]),
        (&[], Some(&[O, O, O, O, O]), Outcome::Opener, [50, 100, 0, 0]),
        // An appeal that says nothing.
        (&[O, O, O], Some(&[L, L, L]), Outcome::Opener, [50, 100, 0, 0]),
        (&[L, L, L], Some(&[]), Outcome::Leaf, [0, 100, 25, 25]),
        (&[], Some(&[O, L, O, L]), Outcome::NoQuorum, [50, 100, 0, 0]),
    ];
    for (first, appeal, verdict, [opener, appellant, supplier, burned]) in cases {
        let (mut dispute, seats) = if appeal.is_none() { drawn(5) } else { drawn(9) };
        let mut held = dispute.bond;
        votes(&mut dispute, &seats, first, NOW);
        if let Some(choices) = appeal {
            let end = dispute.vote_until;
            held += dispute.appeal(&[90; 32], &seats, end).unwrap();
            assert_eq!(dispute.panel_count, 9);
            votes(&mut dispute, &seats, choices, end);
        }
        assert_eq!(dispute.verdict(), *verdict, "{first:?} {appeal:?}");
        let wanted = [opener, appellant, supplier, burned].map(|part| part * crate::ATL);
        let bonds = dispute.bonds(held).unwrap();
        assert_eq!([bonds.opener, bonds.appellant, bonds.supplier, bonds.burned], wanted, "{first:?} {appeal:?}");
    }
}

fn leased() -> (Order, Lease) {
    let mut order = Order::new();
    (order.devices, order.devices_open, order.devices_min) = (2, 2, 2);
    (order.duration_s, order.posted_at, order.fill_by) = (1_000, NOW - 100, NOW);
    (order.fee_bps, order.feed_uusd_per_atl, order.price_cap_uusd) = (25, 250_000, 2_200_000);
    order.rate_cap = rate(order.price_cap_uusd, order.feed_uusd_per_atl).unwrap();
    order.escrow = worst_case(order.rate_cap, 2, 1_000, 25).unwrap();
    let mut lease = Lease::new();
    lease.mask = 1;
    lease.n = order.fill(2, NOW - 60).unwrap();
    lease.open(&order, Slots::new(0, &[0b11]).unwrap(), 2, order.price_cap_uusd, NOW - 60).unwrap();
    lease.begin(&order);
    (order, lease)
}

fn leaf(device_seconds: u64, until: i64) -> Leaf {
    Leaf { lease: [0; 32], device_seconds, until, flags: 0, slots_root: [0; 32] }
}

/// A dispute on 80 device-seconds of 100 possible ones, of which 50 are true.
fn frozen() -> (Order, Lease, Dispute) {
    let (order, mut lease) = leased();
    let mut dispute = dispute();
    dispute.cap_at = lease.freeze(&order, &leaf(80, NOW - 10), 50, NOW).unwrap();
    assert_eq!(dispute.cap_at, 100);
    (order, lease, dispute)
}

#[test]
fn only_what_would_be_booked_is_disputed() {
    let (order, lease) = leased();
    let freeze = |said, until, ceiling| lease.clone().freeze(&order, &leaf(said, until), ceiling, NOW);
    assert_eq!(freeze(80, NOW - 10, 80), Err(Error::CeilingWrong));
    assert_eq!(freeze(80, NOW + 1, 50), Err(Error::LeafStale));
    assert_eq!(freeze(121, NOW, 50), Err(Error::AboveCap));
    let (mut books, mut paid) = (order, lease);
    paid.settle(&mut books, &leaf(60, NOW - 20), NOW).unwrap();
    assert_eq!(paid.clone().freeze(&books, &leaf(80, NOW - 10), 59, NOW), Err(Error::CeilingWrong));
    assert_eq!(paid.clone().freeze(&books, &leaf(60, NOW - 10), 50, NOW), Err(Error::CeilingWrong));
    paid.freeze(&books, &leaf(80, NOW - 10), 60, NOW).unwrap();
    assert_eq!(paid.freeze(&books, &leaf(80, NOW - 10), 60, NOW), Err(Error::LeaseFrozen));
    assert_eq!(paid.settle(&mut books, &leaf(80, NOW - 10), NOW), Err(Error::LeaseFrozen));
    assert_eq!(paid.check_close(0, NOW), Err(Error::LeaseFrozen));
}

#[test]
fn a_verdict_is_a_ceiling_for_that_time_and_stays_one() {
    let (mut order, mut lease, mut dispute) = frozen();
    let seats = seats(1);
    dispute.draw(sha256, (&[1; 32], &[2; 32]), &seats, NOW).unwrap();
    votes(&mut dispute, &seats, &[FOR_OPENER], NOW);
    let end = NOW + 100;
    lease.thaw(&mut order, &dispute, end).unwrap();
    assert_eq!((lease.device_seconds_paid, lease.settled_until, lease.unserved), (50, NOW - 10, 50));
    // The false leaf again, now that the lease has served more; and what later leaves can say at most.
    assert_eq!(lease.settle(&mut order, &leaf(80, NOW - 10), end), Err(Error::LeafStale));
    assert_eq!(lease.cap(NOW), Ok(70));
    assert_eq!(lease.settle(&mut order, &leaf(71, NOW), NOW), Err(Error::AboveCap));
    lease.settle(&mut order, &leaf(70, NOW), NOW).unwrap();
}

#[test]
fn a_leaf_that_stands_is_booked_and_the_stall_begins_anew() {
    let (mut order, mut lease, dispute) = frozen();
    let slots = Slots::new(0, &[0b11]).unwrap();
    lease.release(&mut order, slots, crate::settlement::Reason::Lost, NOW, NOW + 1).unwrap();
    let end = NOW + 100_000;
    lease.thaw(&mut order, &dispute, end).unwrap();
    assert_eq!((lease.device_seconds_paid, lease.flags, lease.unserved), (80, 0, 0));
    // Longer than the stall after the release, the supplier still has it to settle what came meanwhile.
    assert_eq!(lease.check_close(600, end + 599), Err(Error::LeaseUnsettled));
    assert_eq!(lease.check_close(600, end + 600), Ok(()));
}

#[test]
fn a_supplier_that_leaves_as_of_an_earlier_time_holds_nothing_up() {
    let (mut order, mut lease, dispute) = frozen();
    let slots = Slots::new(0, &[0b11]).unwrap();
    lease.release(&mut order, slots, crate::settlement::Reason::Leave, NOW - 55, NOW + 1).unwrap();
    lease.thaw(&mut order, &dispute, NOW + 100_000).unwrap();
    assert_eq!(lease.device_seconds_paid, 10);
}

proptest! {
    /// Whoever holds every role but the panel's gets no more of the bonds than it put in, and loses when the panel decides
    /// against a leaf's or an opener's side that had a bond; nothing but the bonds is paid.
    #[test]
    fn nobody_earns_by_disputing_with_itself(
        count in 0u8..12,
        first in prop::collection::vec(1u8..=2, 0..6),
        appeal in prop::option::of(prop::collection::vec(1u8..=2, 0..12)),
        surplus in 0u64..1_000,
    ) {
        let (mut dispute, seats) = drawn(count);
        let mut held = dispute.bond + surplus;
        votes(&mut dispute, &seats, &first, NOW);
        let end = dispute.vote_until;
        if let Some(choices) = &appeal {
            held += dispute.appeal(&[90; 32], &seats, end).unwrap();
            votes(&mut dispute, &seats, choices, end);
        }
        let bonds = dispute.bonds(held).unwrap();
        let paid = bonds.opener + bonds.appellant + bonds.supplier;
        prop_assert_eq!(paid + bonds.burned, held);
        prop_assert!(paid <= held - surplus);
        prop_assert!(dispute.check_close(dispute.appeal_until).is_ok());
    }

    /// A dispute never leads to more than the leaf said, nor takes what was settled; the books stay whole.
    #[test]
    fn a_dispute_takes_only_what_the_leaf_claimed(
        settled in 0u64..60, more in 1u64..60, said in 0u64..120, vote in 0u8..3, back_s in 0i64..70, kept in 0i64..100,
    ) {
        let (mut order, mut lease) = leased();
        let whole = order.vault().unwrap();
        lease.settle(&mut order, &leaf(settled, NOW - 20), NOW).unwrap();
        let claimed = leaf(settled + more, NOW - 10);
        let before = lease;
        let Ok(cap_at) = lease.freeze(&order, &claimed, said, NOW) else {
            prop_assert!(said >= claimed.device_seconds || said < settled);
            prop_assert_eq!(lease, before);
            return Ok(());
        };
        let (mut dispute, seats) = (dispute(), seats(1));
        (dispute.claimed, dispute.ceiling, dispute.cap_at) = (claimed.device_seconds, said, cap_at);
        dispute.draw(sha256, (&[1; 32], &[2; 32]), &seats, NOW).unwrap();
        if vote > 0 {
            votes(&mut dispute, &seats, &[vote], NOW);
        }
        if kept < 70 {
            let slots = Slots::new(0, &[0b01]).unwrap();
            lease.release(&mut order, slots, crate::settlement::Reason::Leave, NOW - back_s, NOW + kept).unwrap();
        }
        lease.thaw(&mut order, &dispute, NOW + 200).unwrap();
        prop_assert!((settled..=claimed.device_seconds).contains(&lease.device_seconds_paid));
        if vote == 1 {
            prop_assert!(lease.device_seconds_paid <= said);
        }
        prop_assert_eq!(order.vault().unwrap(), whole);
        prop_assert_eq!(order.owed, lease.owed);
    }
}
