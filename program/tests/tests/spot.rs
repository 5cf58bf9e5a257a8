//! Spot orders, further terms of orders, and extensions by a budget's key.

use atoll_interface::{
    ATL, Error, instruction as ix,
    layout::{Budget, Lease, Order, Slot},
    settlement::Reason,
};
use atoll_market_tests::{
    Party, World,
    calls::{ASK, STALL_S, leaf},
    spot::NOTICE_S,
};

const NOTICE: i64 = NOTICE_S as i64;

fn ready() -> (World, Party) {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 1);
    (world, party)
}

#[test]
fn a_reclaim_after_its_notice_costs_nothing_and_refunds_the_unserved_part() {
    let (mut world, party) = ready();
    let (purse, staked) = (world.tokens(party.purse), world.tokens(party.stake_vault()));
    world.must(&party.post_spot(1));
    world.must(&party.fill(0, 0, &[1]));
    let order: Order = world.read(party.order());
    let lease: Lease = world.read(party.lease(0));
    assert_eq!((lease.ask_uusd, lease.rate), (2 * ASK, order.rate_cap), "the bid is paid, not the ask");
    let reclaim = party.release(party.supplier, 0, Reason::Reclaim, 0, &[1]);
    world.refused(&reclaim, Error::NoticeMissing);
    world.wait(10);
    world.must(&party.notice(0));
    world.refused(&party.notice(0), Error::NothingToDo);
    world.wait(NOTICE - 1);
    world.refused(&reclaim, Error::NoticeMissing);
    // A notice that lapsed is none.
    let mut later = world.copy();
    later.wait(1 + NOTICE);
    later.refused(&reclaim, Error::NoticeMissing);
    later.must(&party.notice(0));
    later.wait(NOTICE);
    later.must(&reclaim);
    world.wait(1);
    world.must(&party.release(party.devices[0], 0, Reason::Reclaim, 0, &[1]));
    let served = 10 + u64::from(NOTICE_S);
    let tree = world.attest(&[leaf(party.lease(0), served, world.now())]);
    world.must(&tree.settle(0, party.order()));
    world.must(&party.close_lease(0));
    world.must(&party.collect());
    world.must(&party.close_order(party.renter));
    let pay = lease.rate * served;
    assert_eq!(world.tokens(party.purse), purse - pay - pay * 25 / 10_000);
    assert_eq!(world.tokens(party.stake_vault()), staked, "nothing is slashed");
}

#[test]
fn only_the_supplier_of_a_living_spot_lease_gives_notice() {
    let (mut world, party) = ready();
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    world.refused(&party.notice(0), Error::NotSpot);
    world.refused(&party.release(party.supplier, 0, Reason::Reclaim, 0, &[1]), Error::NoticeMissing);
    world.must(&party.release(party.renter, 0, Reason::Done, 0, &[1]));
    let spot = Party { nonce: 2, ..party.clone() };
    world.must(&spot.post_spot(1));
    // Below the slot's ask no bid is taken.
    world.must(&party.set_ask(party.supplier, 0, ix::ASK, 2 * ASK + 1));
    world.refused(&spot.fill(0, 0, &[1]), Error::AskTooHigh);
    world.must(&party.set_ask(party.supplier, 0, ix::ASK, 2 * ASK));
    world.must(&spot.fill(0, 0, &[1]));
    for stranger in [party.renter, party.node, world.admin] {
        let mut forged = spot.notice(0);
        forged.metas[0].address = stranger;
        world.refused(&forged, Error::NotAuthorised);
        world.refused(&spot.release(stranger, 0, Reason::Reclaim, 0, &[1]), Error::NotAuthorised);
    }
    world.must(&spot.release(party.renter, 0, Reason::Done, 0, &[1]));
    world.refused(&spot.notice(0), Error::LeaseEnded);
    let long = ix::PostOrderSpot { notice_s: u32::MAX, region_mask: 0, score_min_milli: 0, order: &[] };
    let next = Party { nonce: 3, ..party };
    world.refused(&next.post_further(&next.terms(1), long), Error::ParameterOutOfRange);
}

#[test]
fn regions_and_scores_narrow_an_order() {
    let (mut world, party) = ready();
    let with =
        |region_mask, score_min_milli| ix::PostOrderSpot { notice_s: 0, region_mask, score_min_milli, order: &[] };
    // The worker stands in region 1 and has no score.
    for (nonce, further, fits) in
        [(1, with(1 << 2, 0), false), (2, with(0, 1), false), (3, with(1 << 1 | 1 << 9, 0), true)]
    {
        let party = Party { nonce, ..party.clone() };
        world.must(&party.post_further(&party.terms(1), further));
        if fits {
            world.must(&party.fill(0, 0, &[1]));
            assert_eq!(world.read::<Lease>(party.lease(0)).ask_uusd, ASK, "not spot: the ask is paid");
        } else {
            world.refused(&party.fill(0, 0, &[1]), Error::SlotUnfit);
        }
    }
    let scored = Party { nonce: 2, ..party };
    world.must(&Party { nonce: 3, ..scored.clone() }.release(scored.renter, 0, Reason::Done, 0, &[1]));
    let mut page = world.data(scored.page).unwrap();
    let at = 136 + core::mem::offset_of!(Slot, score_milli);
    page[at..at + 2].copy_from_slice(&1u16.to_le_bytes());
    world.put(scored.page, atoll_interface::PROGRAM_ID, page);
    world.must(&scored.fill(0, 0, &[1]));
}

#[test]
fn a_budgets_key_lengthens_its_orders_within_its_limits() {
    let (mut world, party) = ready();
    let until = world.now() + 10_000;
    let values = |order_max, expires_at| ix::SetBudget {
        key: party.session,
        order_max,
        day_max: 150 * ATL,
        expires_at,
        revoked: 0,
        deposit: 0,
        withdraw: 0,
    };
    world.must(&party.set_budget(50 * ATL, 0, until));
    world.must(&party.post_by_budget(&party.terms(1)));
    world.must(&party.fill(0, 0, &[1]));
    let (order, held): (Order, u64) = (world.read(party.order()), world.tokens(party.budget_vault()));
    let added = party.extension(&world, 50);
    world.refused(&party.extend_by_budget(50, added - 1), Error::ParameterOutOfRange);
    world.must(&party.set_budget_with(values(order.escrow_initial + added - 1, until)));
    world.refused(&party.extend_by_budget(50, added), Error::BudgetExceeded);
    world.must(&party.set_budget_with(values(order.escrow_initial + added, until)));
    world.must(&party.extend_by_budget(50, added));
    assert_eq!(world.tokens(party.budget_vault()), held - added);
    let longer: Order = world.read(party.order());
    assert_eq!((longer.end, longer.vault().unwrap()), (order.end + 50, world.tokens(party.vault())));
    assert_eq!(world.read::<Budget>(party.budget()).day_spent, order.escrow_initial + added);
    world.refused(&party.extend_by_budget(50, party.extension(&world, 50)), Error::BudgetExceeded);
    world.must(&party.extend_lease(0));
    // The key of another order's budget, and the wallet's own order.
    let own = Party { nonce: 2, ..party.clone() };
    world.must(&party.set_budget_with(values(100 * ATL, until)));
    world.must(&own.post(1));
    world.refused(&own.extend_by_budget(50, 1), Error::NotAuthorised);
    world.must(&party.set_budget_with(values(100 * ATL, world.now())));
    world.refused(&party.extend_by_budget(50, party.extension(&world, 50)), Error::BudgetExpired);
    world.wait(i64::from(STALL_S));
    world.must(&party.set_budget_with(values(100 * ATL, until)));
    world.refused(&party.extend_by_budget(50, party.extension(&world, 50)), Error::OrderNotActive);
}
