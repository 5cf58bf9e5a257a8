//! An order's whole life on the real bytes, and the books at every step.

use atoll_interface::{
    ATL, Error, TOKEN_PROGRAM_ID,
    arithmetic::rate,
    instruction as ix,
    layout::{Lease, Order},
    settlement::{FeeSplit, Pay, Reason, worst_case},
};
use atoll_market_tests::{
    Party, World,
    calls::{ASK, DURATION_S, FEED, OPEN_S, STAKE, leaf},
    world::{PURSE, START},
};

/// What must hold after every transaction: no token appeared or vanished, and the vault holds what the order says.
#[track_caller]
fn conserved(world: &World, party: &Party, minted: u64) {
    assert_eq!(world.tokens_everywhere(), world.supply(), "tokens equal the supply");
    assert!(world.supply() <= minted);
    if world.data(party.order()).is_some() {
        let order: Order = world.read(party.order());
        assert_eq!(world.tokens(party.vault()), order.vault().unwrap(), "vault = escrow + fees + owed");
    }
}

#[test]
fn order_fill_epoch_settle_withdraw_close() {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 2);
    let minted = world.supply();
    let rents = world.lamports(world.node);

    world.must(&party.post(2));
    let escrow = worst_case(rate(2 * ASK, FEED).unwrap(), 2, DURATION_S, 25).unwrap();
    assert_eq!(world.tokens(party.purse), PURSE - escrow);
    conserved(&world, &party, minted);

    world.must(&party.fill(0, 0, &[0b11]));
    let order: Order = world.read(party.order());
    assert_eq!((order.active_at, order.end), (START, START + i64::from(DURATION_S)));
    let lease: Lease = world.read(party.lease(0));
    assert_eq!((lease.rate, lease.devices_live), (rate(ASK, FEED).unwrap(), 2), "pay is the ask, not the cap");

    let first = world.attest(&[leaf(party.lease(0), 19, START + 10)]);
    world.must(&first.settle(0, party.order()));
    conserved(&world, &party, minted);
    world.must(&party.withdraw(0));
    world.must(&party.collect());
    conserved(&world, &party, minted);
    world.refused(&party.withdraw(0), Error::NothingToDo);
    world.refused(&party.collect(), Error::NothingToDo);

    world.set_time(order.end + 1);
    let stranger = world.key("stranger");
    world.must(&party.release(stranger, 0, Reason::Expired, 0, &[0b11]));
    world.refused(&party.close_lease(0), Error::LeaseUnsettled);
    let last = world.attest(&[leaf([9; 32], 1, 2), leaf(party.lease(0), 187, order.end)]);
    world.must(&last.settle(1, party.order()));
    world.refused(&first.settle(0, party.order()), Error::LeafStale);
    world.must(&party.close_lease(0));
    conserved(&world, &party, minted);
    world.refused(&party.close_order(stranger), Error::OrderStillHeld);
    world.must(&party.collect());
    world.must(&party.close_order(stranger));
    conserved(&world, &party, minted);

    let pay = Pay::of(lease.rate, 187, 25).unwrap();
    let split = FeeSplit::of(pay.fees().unwrap());
    assert_eq!(world.tokens(party.supplier_purse), PURSE - 2 * STAKE + pay.supplier());
    assert_eq!(world.tokens(party.purse), PURSE - pay.renter().unwrap());
    assert_eq!(world.tokens(world.treasury), split.treasury);
    assert_eq!(minted - world.supply(), split.burned);
    assert!(split.burned > 0);
    for closed in [party.order(), party.vault(), party.lease(0)] {
        assert_eq!(world.data(closed), None);
    }
    // All rent is back: what is gone is the signature fees and the rent of the two epoch accounts, which stay.
    let spent = rents - world.lamports(world.node);
    let epochs = 2 * world.svm.minimum_balance_for_rent_exemption(160);
    assert!((epochs..epochs + 300_000).contains(&spent), "{spent}");
}

#[test]
fn a_lost_worker_is_released_and_replaced() {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 3);
    let minted = world.supply();
    world.must(&party.post(2));
    world.must(&party.fill(0, 0, &[0b11]));
    world.wait(30);
    world.refused(&party.release(party.supplier, 0, Reason::Done, 1, &[1]), Error::NotAuthorised);
    world.must(&party.release(world.node, 0, Reason::Lost, 1, &[1]));
    world.refused(&party.release(world.node, 0, Reason::Lost, 1, &[1]), Error::LeaseSlotsWrong);
    world.refused(&party.fill(1, 1, &[1]), Error::SlotSuspended);
    world.wait(5);
    world.must(&party.fill(1, 2, &[1]));
    let refill: Lease = world.read(party.lease(1));
    assert_eq!((refill.start, refill.end), (START + 35, START + i64::from(DURATION_S)));

    // The job is done early: the renter says so, or in its absence the solver that it named; each is paid for what it
    // served.
    world.wait(40);
    for (who, n, slot) in [(party.renter, 0, 0), (world.node, 1, 2)] {
        world.must(&party.release(who, n, Reason::Done, slot, &[1]));
    }
    let tree = world.attest(&[leaf(party.lease(0), 75 + 29, START + 75), leaf(party.lease(1), 40, START + 75)]);
    for n in 0..2 {
        world.must(&tree.settle(usize::from(n), party.order()));
        world.must(&party.close_lease(n));
        conserved(&world, &party, minted);
    }
    world.must(&party.collect());
    world.must(&party.close_order(party.renter));
    let rate = rate(ASK, FEED).unwrap();
    let pays = [Pay::of(rate, 104, 25).unwrap(), Pay::of(rate, 40, 25).unwrap()];
    assert_eq!(
        world.tokens(party.supplier_purse),
        PURSE - 3 * STAKE + pays[0].supplier() + pays[1].supplier(),
        "the dead worker is paid for what it served"
    );
    assert_eq!(world.tokens(party.purse), PURSE - pays.iter().map(|pay| pay.renter().unwrap()).sum::<u64>());
    conserved(&world, &party, minted);

    // Only its device key brings the suspended slot back.
    world.refused(&party.set_ask(party.supplier, 1, ix::RESUME, 0), Error::NotAuthorised);
    world.must(&party.set_ask(party.devices[1], 1, ix::RESUME, 0));
    let next = Party { nonce: 2, ..party };
    world.must(&next.post(1));
    world.must(&next.fill(0, 1, &[1]));
}

#[test]
fn an_order_that_never_fills_is_refunded() {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 1);
    let stranger = world.key("stranger");
    world.must(&party.post(2));
    world.must(&party.fill(0, 0, &[1]));
    world.refused(&party.release(stranger, 0, Reason::Expired, 0, &[1]), Error::NotAuthorised);
    world.refused(&party.close_order(stranger), Error::OrderStillHeld);
    world.wait(60);
    world.refused(&party.fill(1, 0, &[1]), Error::DevicesTaken);
    world.must(&party.release(stranger, 0, Reason::Expired, 0, &[1]));
    world.refused(&party.fill(1, 0, &[1]), Error::FillTooLate);
    world.must(&party.close_lease(0));
    world.must(&party.close_order(stranger));
    assert_eq!(world.tokens(party.purse), PURSE);
}

#[test]
fn a_solver_closes_an_order_that_holds_nothing_long_before_its_end() {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 1);
    let stranger = world.key("stranger");
    // The job ended with its only machine lost: nothing is leased, yet the order could be filled again for days.
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    world.wait(30);
    world.refused(&party.close_order(world.node), Error::OrderStillHeld);
    world.must(&party.release(world.node, 0, Reason::Lost, 0, &[1]));
    let tree = world.attest(&[leaf(party.lease(0), 20, START + 30)]);
    world.must(&tree.settle(0, party.order()));
    world.must(&party.close_lease(0));
    world.refused(&party.close_order(world.node), Error::OrderStillHeld);
    world.must(&party.collect());
    world.refused(&party.close_order(stranger), Error::OrderStillHeld);
    world.must(&party.close_order(world.node));
    let pay = Pay::of(rate(ASK, FEED).unwrap(), 20, 25).unwrap();
    assert_eq!(world.tokens(party.purse), PURSE - pay.renter().unwrap(), "the rest is the renter's again");

    // The job was stopped before anything was filled.
    let next = Party { nonce: 2, ..party };
    world.must(&next.post(1));
    world.refused(&next.close_order(stranger), Error::OrderStillHeld);
    world.must(&next.close_order(world.node));
    assert_eq!(world.tokens(next.purse), PURSE - pay.renter().unwrap());
}

#[test]
fn the_minimum_at_fill_by_makes_an_order_active() {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 2);
    world.must(&party.post_with(&ix::PostOrder { devices_min: 1, ..party.terms(2) }));
    world.must(&party.fill(0, 0, &[1]));
    world.wait(70);
    world.must(&party.fill(1, 1, &[1]));
    let order: Order = world.read(party.order());
    assert_eq!(order.active_at, START + 60);
    let tree = world.attest(&[leaf(party.lease(0), 25, START + 85), leaf(party.lease(1), 16, START + 85)]);
    world.must(&tree.settle(0, party.order()));
    world.refused(&tree.settle(1, party.order()), Error::AboveCap);
}

#[test]
fn filling_over_two_pages_and_transactions() {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 2);
    let far = world.poor_key("far");
    let mut call = party.register_on(1, far, ASK);
    world.must(&call);
    world.must(&party.post(3));
    let page = call.metas.remove(4).address;
    let lease = |n: u16| {
        atoll_market_tests::world::pda(&atoll_interface::seeds::lease(&party.order(), &page, &n.to_le_bytes()))
    };
    let data = atoll_market_tests::calls::fill_data(0, &[1]);
    world.refused(&party.fill_page(party.node, page, lease(0), &data), Error::StakeTooLow);
    world.must(&party.stake(STAKE));
    world.must(&party.fill_page(party.node, page, lease(0), &data));
    assert_eq!(world.read::<Order>(party.order()).active_at, 0);
    world.wait(5);
    world.must(&party.fill(1, 0, &[0b11]));
    assert_eq!(world.read::<Order>(party.order()).active_at, START + 5);
    let tree = world.attest(&[leaf(lease(0), 6, START + 11)]);
    world.must(&tree.settle(0, party.order()));
}

#[test]
fn after_the_window_anyone_fills_at_the_posted_ask() {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 1);
    let stranger = world.key("stranger");
    world.must(&party.post(1));
    let data = atoll_market_tests::calls::fill_data(0, &[1]);
    world.refused(&party.fill_as(stranger, 0, &data), Error::SolverWindow);
    world.wait(i64::from(OPEN_S));
    world.must(&party.fill_as(stranger, 0, &data));
    assert_eq!(world.read::<Lease>(party.lease(0)).ask_uusd, ASK, "not the order's cap");
}

#[test]
fn a_budget_key_posts_within_limits_and_refunds_go_back_to_its_vault() {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 1);
    let minted = world.supply();
    world.must(&party.set_budget(200 * ATL, 0, START + 1_000));
    assert_eq!(world.tokens(party.budget_vault()), 200 * ATL);
    // 10 h at 0.10 USD = 1 USD = 4 ATL a device: 30 devices are above the limit of one order.
    let long = ix::PostOrder { duration_s: 36_000, ..party.terms(30) };
    world.refused(&party.post_by_budget(&long), Error::BudgetExceeded);
    let fits = ix::PostOrder { duration_s: 36_000, ..party.terms(20) };
    world.must(&party.post_by_budget(&fits));
    conserved(&world, &party, minted);
    let next = Party { nonce: 2, ..party.clone() };
    world.refused(&next.post_by_budget(&ix::PostOrder { nonce: 2, ..fits }), Error::BudgetExceeded);
    world.refused(&party.close_order_to(party.session, party.purse, party.budget()), Error::AddressWrong);
    world.must(&party.close_order_to(party.session, party.budget_vault(), party.budget()));
    assert_eq!(world.tokens(party.budget_vault()), 200 * ATL);

    world.must(&party.set_budget(0, 50 * ATL, START + 1_000));
    assert_eq!(world.tokens(party.purse), PURSE - 150 * ATL);
    world.refused(&party.set_budget(0, 151 * ATL, START + 1_000), Error::FundsShort);
    world.set_time(START + 1_000);
    world.refused(&next.post_by_budget(&ix::PostOrder { nonce: 2, ..next.terms(1) }), Error::BudgetExpired);
    let set = ix::SetBudget {
        key: party.session,
        order_max: 1,
        day_max: 1,
        expires_at: i64::MAX,
        revoked: 1,
        deposit: 0,
        withdraw: 150 * ATL,
    };
    world.must(&party.set_budget_with(set));
    world.refused(&next.post_by_budget(&ix::PostOrder { nonce: 2, ..next.terms(1) }), Error::BudgetExpired);
    assert_eq!(world.tokens(party.purse), PURSE);
    conserved(&world, &party, minted);
}

#[test]
fn an_order_is_lengthened_and_its_leases_follow_or_end() {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 2);
    let minted = world.supply();
    let added = worst_case(rate(2 * ASK, FEED).unwrap(), 2, 60, 25).unwrap() + 1;
    world.refused(&party.extend_order(party.renter, 60, added), Error::AccountOwnerWrong);
    world.must(&party.post(2));
    world.refused(&party.extend_order(party.renter, 60, added), Error::OrderNotActive);
    world.must(&party.fill(0, 0, &[1]));
    world.must(&party.fill(1, 1, &[1]));
    let before: Order = world.read(party.order());
    let purse = world.tokens(party.purse);
    let stranger = world.key("stranger");
    world.refused(&party.extend_order(stranger, 60, added), Error::NotAuthorised);
    world.refused(&party.extend_order(party.renter, 0, 1), Error::ParameterOutOfRange);
    world.refused(&party.extend_order(party.renter, 60, added + 1), Error::ParameterOutOfRange);
    let rich = world.data(party.purse).unwrap();
    let mut poor = rich.clone();
    poor[64..72].copy_from_slice(&100u64.to_le_bytes());
    world.put(party.purse, TOKEN_PROGRAM_ID, poor);
    world.refused(&party.extend_order(party.renter, 60, added), Error::FundsShort);
    world.put(party.purse, TOKEN_PROGRAM_ID, rich);
    world.refused(&party.extend_lease(0), Error::NothingToDo);

    world.must(&party.extend_order(party.renter, 60, added));
    let order: Order = world.read(party.order());
    assert_eq!((order.end, world.tokens(party.purse)), (before.end + 60, purse - added));
    conserved(&world, &party, minted);

    // One slot goes along; the other asks more now, so its lease ends and its device is filled again.
    world.must(&party.set_ask(party.supplier, 1, ix::ASK, ASK + 1));
    world.must(&party.extend_lease(0));
    world.refused(&party.extend_lease(1), Error::AskTooHigh);
    world.refused(&party.release(stranger, 1, Reason::Expired, 1, &[1]), Error::NotAuthorised);
    world.set_time(before.end);
    world.refused(&party.extend_lease(1), Error::LeaseEnded);
    world.must(&party.release(stranger, 1, Reason::Expired, 1, &[1]));
    world.refused(&party.release(stranger, 0, Reason::Expired, 0, &[1]), Error::NotAuthorised);
    world.must(&party.fill(2, 1, &[1]));
    let (first, second): (Lease, Lease) = (world.read(party.lease(0)), world.read(party.lease(2)));
    assert_eq!((first.end, second.end, second.start), (order.end, order.end, before.end));

    world.set_time(order.end);
    let (whole, half) = (order.end - before.active_at, before.end - before.active_at);
    let seconds = [whole, half, 60].map(|seconds| u64::try_from(seconds).unwrap());
    for n in [0u16, 2] {
        world.must(&party.release(stranger, n, Reason::Expired, u16::from(n != 0), &[1]));
    }
    let leaves: Vec<_> = (0..3u16).map(|n| leaf(party.lease(n), seconds[usize::from(n)], order.end)).collect();
    let tree = world.attest(&leaves);
    for n in 0..3u16 {
        world.must(&tree.settle(usize::from(n), party.order()));
        world.must(&party.close_lease(n));
        conserved(&world, &party, minted);
    }
    world.must(&party.collect());
    world.must(&party.close_order(stranger));
    conserved(&world, &party, minted);
}
