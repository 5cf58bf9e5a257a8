//! Stake, keys, asks, co-stake and session keys over RPC on the committed program, as the builders make them.

use atoll_chain::market::instruction::{self, Place, Renter};
use atoll_chain::market::layout::{CO_STAKE_HELD, CO_STAKE_LEAVING, SLOT_DRAINING};
use atoll_chain::market::leaving::{self, Asker};
use atoll_chain::market::settlement::Reason;
use atoll_chain::market::stake::LOCAL_RULES;
use atoll_chain::market::{MarketError, address, data, merkle};
use atoll_interface::{ATL, Hashes};

use crate::market::{ASK_UUSD, HOLD_S, PURSE, STAKE, World, fill, leaf, order_terms};
use crate::support::{key, run};

async fn ruled() -> World {
    let world = World::new().await;
    run(&world.rpc, &[leaving::set_rules(world.admin.address(), &LOCAL_RULES)], &world.admin, &[]).await;
    world
}

#[tokio::test]
async fn a_workers_whole_way_out() {
    let world = ruled().await;
    let (supplier, device, delegate) = (&world.suppliers[0], key(20), key(30));
    let wallet = supplier.address();
    world.worker(supplier, &device).await;
    let page = address::page(&wallet, 0);

    // A key with the asks sets them and drains; nobody else does.
    world.rpc.airdrop(&delegate.address(), 1_000_000_000).await.unwrap();
    let until = world.now().await + 1000;
    let grant = data::DelegateAskKey { key: delegate.address().0, until };
    run(&world.rpc, &[leaving::delegate_ask_key(wallet, &grant)], supplier, &[]).await;
    assert_eq!(world.market.ask_keys_of(&wallet).await.unwrap()[0].value.key, delegate.address().0);
    let asks = data::SetAsks { ask_uusd: 2 * ASK_UUSD, lease_s_max: 60, first_slot: 0, bits: &[1] };
    let drain = data::SetDrain { drain: 1, first_slot: 0, bits: &[1] };
    let asker = Asker::Delegate { supplier: wallet, key: delegate.address() };
    let by_key = [leaving::set_asks(asker, page, &asks).unwrap(), leaving::set_drain(asker, page, &drain).unwrap()];
    run(&world.rpc, &by_key, &delegate, &[]).await;
    let foreign = leaving::set_drain(Asker::Own(delegate.address()), page, &drain).unwrap();
    assert_eq!(world.refusal(foreign, &delegate).await, MarketError::NotAuthorised);
    let slot = world.market.page(&page).await.unwrap().unwrap().value.rows[0];
    assert_eq!((slot.ask_uusd, slot.lease_s_max, slot.flags & SLOT_DRAINING), (2 * ASK_UUSD, 60, SLOT_DRAINING));

    // Another key, then off the slot; the stake waits, and so does the account of the key.
    let newer = key(21);
    let rotate = leaving::rotate_device_key(wallet, page, 0, device.address(), newer.address());
    run(&world.rpc, &[rotate], supplier, &[&newer]).await;
    let early = leaving::unstake_request(wallet, STAKE);
    assert_eq!(world.refusal(early, supplier).await, MarketError::StakeTooLow);
    let leave = [leaving::retire_worker(wallet, 0, 0, newer.address()), leaving::unstake_request(wallet, STAKE)];
    run(&world.rpc, &leave, supplier, &[]).await;
    world.wait(1).await;
    let withdraw = || leaving::unstake_withdraw(wallet, world.purse(supplier));
    assert_eq!(world.refusal(withdraw(), &world.node).await, MarketError::StakeBound);
    assert_eq!(
        world.refusal(leaving::close_device_key(wallet, 0, newer.address()), supplier).await,
        MarketError::DeviceKeyKept
    );
    world.wait(LOCAL_RULES.unbond_s).await;
    world.node(&[withdraw()]).await;
    let close = [device, newer].map(|key| leaving::close_device_key(wallet, 0, key.address()));
    run(&world.rpc, &close, supplier, &[]).await;
    let page_over = leaving::close_page(wallet, 0, Some(world.purse(supplier)));
    run(&world.rpc, &[page_over], supplier, &[]).await;
    assert_eq!(world.market.page(&page).await.unwrap(), None);
    assert_eq!(world.rpc.token_balance(&world.purse(supplier)).await.unwrap(), PURSE);
}

#[tokio::test]
async fn co_stake_comes_and_goes_step_by_step() {
    let world = ruled().await;
    let [supplier, staker] = &world.suppliers;
    let (wallet, page) = (supplier.address(), address::page(&supplier.address(), 0));
    world.worker(supplier, &key(20)).await;
    let offer = data::CostakeOffer { n: 3, amount: STAKE / 2, reward_bps: 4_000 };
    run(&world.rpc, &[leaving::costake_offer(wallet, &offer)], supplier, &[]).await;
    let accept = |reward_bps| {
        let terms = data::CostakeAccept { amount: STAKE / 2, reward_bps };
        leaving::costake_accept(staker.address(), wallet, 3, world.purse(staker), &terms)
    };
    assert_eq!(world.refusal(accept(5_000), staker).await, MarketError::OfferChanged);
    run(&world.rpc, &[accept(4_000)], staker, &[]).await;
    let state = || async { world.market.costake(&page, 3).await.unwrap().map(|at| at.value.state) };
    assert_eq!(state().await, Some(CO_STAKE_HELD));
    assert_eq!(world.market.costakes_of(&page).await.unwrap(), world.market.costakes().await.unwrap());

    run(&world.rpc, &[leaving::costake_exit(staker.address(), wallet, 3, None)], staker, &[]).await;
    let step = |destination| leaving::costake_exit(world.node.address(), wallet, 3, destination);
    world.wait(LOCAL_RULES.exit_wait_s).await;
    world.node(&[step(None)]).await;
    assert_eq!(state().await, Some(CO_STAKE_LEAVING));
    world.wait(LOCAL_RULES.unbond_s).await;
    world.node(&[step(Some(world.purse(staker)))]).await;
    assert_eq!(state().await, None);
    assert_eq!(world.rpc.token_balance(&world.purse(staker)).await.unwrap(), PURSE);
}

#[tokio::test]
async fn a_session_key_posts_within_its_limits_and_two_leases_are_settled_at_once() {
    let world = ruled().await;
    let (renter, session, node) = (world.renter.address(), key(40), world.node.address());
    let supplier = &world.suppliers[0];
    for device in [key(20), key(21)] {
        world.worker(supplier, &device).await;
    }
    world.rpc.airdrop(&session.address(), 1_000_000_000).await.unwrap();
    let (order_max, day_max) = (ATL, ATL + ATL / 2);
    let limits = data::SetBudget {
        key: session.address().0,
        order_max,
        day_max,
        expires_at: i64::MAX,
        revoked: 0,
        deposit: 10 * ATL,
        withdraw: 0,
    };
    let source = world.purse(&world.renter);
    run(&world.rpc, &[instruction::set_budget(renter, source, world.mint, &limits)], &world.renter, &[]).await;
    assert_eq!(world.market.budgets_of(&renter).await.unwrap()[0].value.day_max, day_max);

    let by = Renter::Budget { wallet: renter, key: session.address() };
    let post = |nonce, duration_s| {
        let terms = data::PostOrder { nonce, duration_s, ..order_terms(node) };
        instruction::post_order(by, session.address(), source, world.mint, &terms)
    };
    assert_eq!(world.refusal(post(1, 100_000), &session).await, MarketError::BudgetExceeded, "for one order");
    run(&world.rpc, &[post(1, 100)], &session, &[]).await;
    let order = address::order(&renter, 1);
    let posted = world.market.order(&order).await.unwrap().unwrap().value;
    assert_eq!(posted.budget, by.budget().unwrap().0);

    // One lease a slot, their leaves side by side, settled in one instruction.
    let places = [0, 1].map(|n| Place { order, supplier: supplier.address(), page_no: 0, n });
    let fills = [fill(node, places[0], &[1]), fill(node, places[1], &[0b10])];
    for one in &fills {
        world.node(std::slice::from_ref(one)).await;
    }
    world.wait(30).await;
    let until = world.now().await;
    let leaves = places.map(|place| leaf(place.lease(), 25, until, 0));
    let (epoch, paths) = world.attest(&leaves).await;
    let said = leaves.map(|leaf| data::said(&leaf));
    let batch = data::SettleBatch { first_leaf: 0, leaves: &said, path: Hashes::new(&paths[0][1..]) };
    let leases = places.map(|place| place.lease());
    let settle = || instruction::settle_batch(order, epoch, &leases, &batch).unwrap();
    assert_eq!(world.refusal(settle(), &world.node).await, MarketError::EpochNotFinal);
    world.wait(HOLD_S).await;
    world.node(&[settle()]).await;
    for place in places {
        let lease = world.market.lease(&place.lease()).await.unwrap().unwrap().value;
        assert_eq!((lease.device_seconds_paid, lease.settled_until), (25, until));
    }
    assert!(instruction::settle_batch(order, epoch, &leases[1..], &batch).is_err(), "a lease is missing");

    // Its refund goes back to where it came from: the session key's vault, whoever closes.
    let done = data::ReleaseLease { reason: Reason::Done as u8, effective_at: 0, first_slot: 0, bits: &[0b1] };
    let bits = [[0b1], [0b10]];
    for (place, bits) in places.iter().zip(&bits) {
        let done = data::ReleaseLease { bits, ..done };
        let release =
            instruction::release_lease(session.address(), order, place.lease(), place.page(), by.budget(), &done);
        run(&world.rpc, &[release.unwrap()], &session, &[]).await;
    }
    let at_end = world.now().await;
    let finals = places.map(|place| leaf(place.lease(), 30, at_end, merkle::FLAG_FINAL));
    let (epoch, paths) = world.attest(&finals).await;
    let said = finals.map(|leaf| data::said(&leaf));
    world.wait(HOLD_S).await;
    // The same two leaves once more, as if they were of two orders.
    let mixed = data::SettleMixed { first_leaf: 0, leaves: &said, path: Hashes::new(&paths[0][1..]) };
    let held = leases.map(|lease| (order, lease));
    assert!(instruction::settle_mixed(epoch, &held[1..], &mixed).is_err(), "a lease is missing");
    world.node(&[instruction::settle_mixed(epoch, &held, &mixed).unwrap()]).await;
    for place in places {
        let close = instruction::close_lease(order, place.lease(), place.page(), world.purse(supplier), node);
        world.node(&[close]).await;
    }
    let treasury = atoll_chain::Address(world.market.config().await.unwrap().value.header.treasury);
    world.node(&[instruction::collect_fees(order, world.mint, treasury)]).await;
    let vault = address::budget_vault(&by.budget().unwrap());
    let refund = instruction::close_order(session.address(), order, vault, session.address(), by.budget());
    let spent = posted.escrow_initial;
    let before = world.rpc.token_balance(&vault).await.unwrap();
    assert_eq!(before, 10 * ATL - spent);
    run(&world.rpc, &[refund], &session, &[]).await;
    assert!(world.rpc.token_balance(&vault).await.unwrap() > before);
    world.conserved().await;
}
