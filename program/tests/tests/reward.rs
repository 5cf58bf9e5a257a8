//! Rewards: what attestors may post, and who takes it.

use atoll_interface::{
    Error, emission,
    layout::{Attestor, Claim, Reward, Rules},
    seeds,
};
use atoll_market_tests::{
    Call, Party, World,
    calls::HOLD_S,
    pays::{Hour, claim},
    stakes::rules,
    world::pda,
};

/// Two suppliers, and a funded emission.
fn ready() -> (World, Party, Party) {
    let mut world = World::new();
    let (a, b) = (Party::ready(&mut world, "a", 1), Party::ready(&mut world, "b", 1));
    world.fill_emission(emission::TOTAL);
    (world, a, b)
}

#[test]
fn a_supplier_takes_what_it_earned_once() {
    let (mut world, a, b) = ready();
    let (before, supply) = (world.tokens(a.supplier_purse), world.supply());
    let first = world.reward(&[(a.page, 700), (b.page, 50)]);
    let call = a.claim(&first, 0);
    world.must(&call);
    assert_eq!(world.tokens(a.supplier_purse) - before, 700);
    world.refused(&call, Error::NothingToDo);
    // The next hour's leaf says everything: 100 more.
    let second = world.reward(&[(a.page, 800), (b.page, 60)]);
    world.must(&a.claim(&second, 0));
    assert_eq!(world.tokens(a.supplier_purse) - before, 800);
    for old in [&first, &second] {
        world.refused(&a.claim(old, 0), Error::NothingToDo);
    }
    // Who missed an hour misses nothing, and an older root pays as well as a newer.
    let purse = world.tokens(b.supplier_purse);
    world.must(&b.claim(&first, 1));
    world.must(&b.claim(&second, 1));
    assert_eq!(world.tokens(b.supplier_purse) - purse, 60);
    let books: Rules = world.read(rules());
    assert_eq!((books.rewards_claimed, books.rewards_total), (860, 860));
    let claimed: Claim = world.read(claim(a.page));
    assert_eq!((claimed.page, claimed.claimed, claimed.hour), (a.page, 800, second.hour));
    assert_eq!((world.supply(), world.tokens_everywhere()), (supply, supply));
}

#[test]
fn a_supplier_that_left_still_takes_what_it_earned() {
    let (mut world, a, _) = ready();
    let hour = world.reward(&[(a.page, 700)]);
    world.must(&a.retire(0, a.devices[0]));
    world.must(&a.unstake(atoll_market_tests::calls::STAKE));
    world.wait(atoll_market_tests::stakes::UNBOND_S);
    world.must(&a.unstake_withdraw());
    world.must(&a.close_page());
    let before = world.tokens(a.supplier_purse);
    world.must(&a.claim(&hour, 0));
    assert_eq!(world.tokens(a.supplier_purse) - before, 700);
    world.refused(&a.claim(&hour, 0), Error::NothingToDo);
}

#[test]
fn no_root_gives_more_than_the_table_up_to_its_hour() {
    let (mut world, a, _) = ready();
    let early = Hour::over(0, &[(a.page, 1)]);
    world.refused(&world.post_reward(world.attestor, &early), Error::HourNotOver);
    world.wait(3_599);
    world.refused(&world.post_reward(world.attestor, &early), Error::HourNotOver);
    world.wait(1);
    let most = emission::hour(0);
    let above = Hour::over(0, &[(a.page, most + 1)]);
    world.refused(&world.post_reward(world.attestor, &above), Error::AboveEmission);
    let all = Hour::over(0, &[(a.page, most)]);
    world.must(&world.post_reward(world.attestor, &all));
    world.wait(i64::from(HOLD_S));
    world.must(&a.claim(&all, 0));
    // Everything that there is, at the end of all months; not a unit more after it.
    world.wait(3_600 * i64::try_from(emission::MONTHS * emission::MONTH_H).unwrap());
    let last = world.last_hour();
    let above = Hour::over(last, &[(a.page, emission::TOTAL + 1)]);
    world.refused(&world.post_reward(world.attestor, &above), Error::AboveEmission);
    let all = Hour::over(last, &[(a.page, emission::TOTAL)]);
    world.must(&world.post_reward(world.attestor, &all));
    world.wait(i64::from(HOLD_S));
    world.must(&a.claim(&all, 0));
    assert_eq!(
        (world.tokens(atoll_market_tests::pays::emission()), world.read::<Rules>(rules()).rewards_claimed),
        (0, emission::TOTAL)
    );
}

/// Attestors whose leaves say more than their total: who comes first is paid, and all together get the total.
#[test]
fn leaves_above_their_total_pay_no_more_than_it() {
    let (mut world, a, b) = ready();
    world.wait(3_600);
    let mut hour = Hour::over(world.last_hour(), &[(a.page, 700), (b.page, 50)]);
    hour.total = 749;
    world.must(&world.post_reward(world.attestor, &hour));
    world.wait(i64::from(HOLD_S));
    world.must(&a.claim(&hour, 0));
    world.refused(&b.claim(&hour, 1), Error::AboveEmission);
}

#[test]
fn a_root_pays_when_it_is_final_and_out_of_its_hold() {
    let (mut world, a, b) = ready();
    world.wait(3_600);
    let hour = Hour::over(world.last_hour(), &[(a.page, 700), (b.page, 50)]);
    let post = world.post_reward(world.attestor, &hour);
    world.must(&post);
    world.refused(&post, Error::VoteRepeated);
    let other = Hour::over(hour.hour, &[(a.page, 701)]);
    world.refused(&world.post_reward(world.attestor, &other), Error::VoteRepeated);
    assert_eq!(world.read::<Attestor>(pda(&seeds::attestor(&world.attestor))).next_hour, hour.hour + 1);
    world.refused(&a.claim(&hour, 0), Error::RewardNotFinal);
    world.wait(i64::from(HOLD_S) - 1);
    world.refused(&a.claim(&hour, 0), Error::RewardNotFinal);
    world.wait(1);
    // Another's leaf, another's sum, another's place.
    let good = a.claim(&hour, 0);
    let with = |from: &Call| Call { data: from.data.clone(), ..good.clone() };
    world.refused(&with(&b.claim(&hour, 1)), Error::LeafPathWrong);
    let mut greedy = good.clone();
    greedy.data[1] ^= 1;
    world.refused(&greedy, Error::LeafPathWrong);
    // Another wallet with this page, and this wallet with another page.
    for (index, address) in [(1, b.supplier), (2, b.page)] {
        let mut call = good.clone();
        call.metas[index].address = address;
        world.refused(&call, Error::AddressWrong);
    }
    // To nobody else, and from nothing else.
    for (index, address) in [(6, b.supplier_purse), (6, world.treasury), (5, b.purse), (5, b.stake_vault())] {
        let mut call = good.clone();
        call.metas[index].address = address;
        world.refused(&call, Error::TokenAccountWrong);
    }
    world.must(&good);
}

#[test]
fn three_owners_decide_by_two_votes_and_nobody_takes_a_root_s_place() {
    let mut world = World::bare();
    let seats: Vec<[[u8; 32]; 2]> =
        (0..3).map(|n| [world.key(&format!("owner{n}")), world.key(&format!("voter{n}"))]).collect();
    let set: Vec<[u8; 64]> = seats.iter().map(|seat| seat.concat().try_into().unwrap()).collect();
    world.must(&world.init_with(2, &set));
    world.must(&world.set_catalogue(atoll_market_tests::calls::CPU));
    world.must(&world.set_feed(atoll_market_tests::calls::FEED));
    world.must(&world.set_rules());
    for (n, [owner, key]) in (0..).zip(&seats) {
        world.purse(*owner);
        world.must(&world.register_seat(n, *owner, *key));
    }
    let a = Party::ready(&mut world, "a", 1);
    world.fill_emission(1_000);
    world.wait(3_600);
    let hour = Hour::over(0, &[(a.page, 700)]);
    // One says another total of the same leaves: that is another root, and stands alone.
    let mut other = hour.clone();
    other.total = 800;
    world.must(&world.post_reward(seats[0][1], &other));
    let mut misplaced = world.post_reward(seats[1][1], &hour);
    misplaced.metas[3].address = other.address();
    world.refused(&misplaced, Error::AddressWrong);
    world.must(&world.post_reward(seats[1][1], &hour));
    assert_eq!(world.read::<Reward>(hour.address()).final_at, 0);
    world.wait(i64::from(HOLD_S));
    world.refused(&a.claim(&hour, 0), Error::RewardNotFinal);
    world.must(&world.post_reward(seats[2][1], &hour));
    assert_eq!(world.read::<Reward>(hour.address()).final_at, world.now());
    world.wait(i64::from(HOLD_S));
    world.must(&a.claim(&hour, 0));
    // A slashed key votes no more; a stranger never did.
    let prover = world.admin;
    world.purse(prover);
    world.must(&world.prove(prover, seats[0][1], [(7, [1; 32]), (7, [2; 32])]));
    world.wait(3_600);
    let next = Hour::over(1, &[(a.page, 900)]);
    world.refused(&world.post_reward(seats[0][1], &next), Error::AttestorSlashed);
    let mut strange = world.post_reward(seats[1][1], &next);
    strange.metas[0].address = world.admin;
    world.refused(&strange, Error::NotAuthorised);
}

#[test]
fn an_emission_that_is_short_pays_nothing_and_says_so() {
    let mut world = World::new();
    let a = Party::ready(&mut world, "a", 1);
    world.fill_emission(699);
    let hour = world.reward(&[(a.page, 700)]);
    world.refused(&a.claim(&hour, 0), Error::EmissionShort);
    world.fill_emission(700);
    world.must(&a.claim(&hour, 0));
}
