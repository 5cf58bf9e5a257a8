//! Votes of stakers, what they change, and what the guardian may: each rule on the real bytes.

use atoll_interface::{
    ATL, Error,
    govern::{
        ACTION_CATALOGUE, ACTION_GOVERN, ACTION_PARAMETERS, ACTION_RULES, ACTION_SEAT, ACTION_TREASURY, ACTION_UPGRADE,
        EXECUTE_S, PAUSE_REST_S, PAUSE_S_MAX, Parameters, SetSeat,
    },
    instruction as ix,
    layout::{
        Catalogue, Config, Epoch, FleetPage, PROPOSAL_EXECUTED, PROPOSAL_FAILED, PROPOSAL_QUEUED, Proposal, Rules,
        Seat, Table, VOTE_AGAINST, VOTE_FOR,
    },
    network::set_hash,
    settlement::Reason,
};
use atoll_market_tests::{
    Party, World,
    calls::{CPU, EPOCH_S, STAKE, catalogue, config, epoch, leaf},
    governs::{PROPOSAL_S, TIMELOCK_S, WEIGHT, ballot, proposal, seat, token_of},
    pays::Hour,
    sha256,
    stakes::{EXIT_WAIT_S, UNBOND_S, rule_values, rules},
    world::PURSE,
};

/// A world whose party `a` decides alone.
fn ready() -> (World, Party) {
    let mut world = World::new();
    let party = Party::weighty(&mut world, "a");
    (world, party)
}

fn rules_payload(values: &ix::SetRules) -> Vec<u8> {
    values.encode().unwrap().as_slice()[1..].to_vec()
}

fn parameters() -> Parameters {
    Parameters {
        fee_bps: 50,
        epoch_hold_s: 6,
        stall_s: 700,
        open_s: 31,
        fill_s_max: 601,
        feed_age_s_max: 1_000_001,
        stake_per_device: 2 * STAKE,
        attestor_stake: 200 * ATL,
    }
}

#[test]
fn a_vote_changes_the_fee_once_and_after_its_timelock() {
    let (mut world, party) = ready();
    let payload = parameters().encode().unwrap();
    world.refused(&party.propose(1, ACTION_PARAMETERS, payload.as_slice(), [0; 32]), Error::AddressWrong);
    world.must(&party.propose(0, ACTION_PARAMETERS, payload.as_slice(), [0; 32]));
    world.refused(&world.queue(0), Error::ProposalTooEarly);
    world.refused(&world.execute(0), Error::ProposalStateWrong);
    for wrong in [3, 255] {
        world.refused(&party.vote(0, wrong), Error::InstructionMalformed);
    }
    world.must(&party.vote(0, VOTE_FOR));
    for again in [VOTE_FOR, VOTE_AGAINST] {
        world.refused(&party.vote(0, again), Error::AlreadyInitialised);
    }
    world.refused(&party.vote(0, 0), Error::ProposalTooEarly);
    let record: Proposal = world.read(proposal(0));
    let stake = WEIGHT + STAKE;
    assert_eq!((record.stake_for, record.stake_against, record.quorum), (stake, 0, world.supply() / 5));
    world.wait(PROPOSAL_S - 1);
    world.refused(&world.queue(0), Error::ProposalTooEarly);
    world.wait(1);
    world.must(&world.queue(0));
    world.refused(&world.queue(0), Error::ProposalTooEarly);
    world.wait(TIMELOCK_S - 1);
    world.refused(&world.execute(0), Error::ProposalTooEarly);
    assert_eq!(world.read::<Config>(config()).fee_bps, 25);
    world.wait(1);
    world.must(&world.execute(0));
    let now: Config = world.read(config());
    assert_eq!(
        (now.fee_bps, now.stall_s, now.open_s, now.fill_s_max, now.stake_per_device, now.epoch_s),
        (50, 700, 31, 601, 2 * STAKE, EPOCH_S)
    );
    // Executed is final: neither a second execution nor another count does anything.
    for over in [0, i64::from(EXECUTE_S)] {
        world.wait(over);
        world.refused(&world.execute(0), Error::ProposalStateWrong);
        world.refused(&world.queue(0), Error::ProposalStateWrong);
    }
    assert_eq!(world.read::<Proposal>(proposal(0)).state, PROPOSAL_EXECUTED);
    // An order pays the fee that stood when it was posted; the next one the new fee.
    world.must(&world.set_feed(250_000));
    world.must(&party.post(1));
    assert_eq!(world.read::<atoll_interface::layout::Order>(party.order()).fee_bps, 50);
}

#[test]
fn a_flash_of_stake_neither_proposes_nor_votes() {
    let (mut world, party) = ready();
    let flash = Party::ready(&mut world, "b", 1);
    world.wait(1);
    let payload = parameters().encode().unwrap();
    world.refused(&flash.propose(0, ACTION_PARAMETERS, payload.as_slice(), [0; 32]), Error::StakeTooLow);
    // Raised and used in one second, as in one transaction.
    let propose = flash.propose(0, ACTION_PARAMETERS, payload.as_slice(), [0; 32]);
    assert_eq!(
        world.send_all(&[&flash.stake(WEIGHT), &propose]).map(|_| ()),
        Err(atoll_market_tests::Refusal::Market(Error::StakeTooNew))
    );
    world.must(&party.propose(0, ACTION_PARAMETERS, payload.as_slice(), [0; 32]));
    world.must(&flash.stake(1));
    world.refused(&flash.vote(0, VOTE_FOR), Error::StakeTooNew);
    world.wait(PROPOSAL_S - 1);
    world.refused(&flash.vote(0, VOTE_FOR), Error::StakeTooNew);
    world.wait(1);
    world.refused(&party.vote(0, VOTE_FOR), Error::ProposalStateWrong);
    // Nobody voted in time.
    world.must(&world.queue(0));
    assert_eq!(world.read::<Proposal>(proposal(0)).state, PROPOSAL_FAILED);
    world.refused(&world.execute(0), Error::ProposalStateWrong);
    // It votes on the next one.
    world.must(&party.propose(1, ACTION_PARAMETERS, payload.as_slice(), [0; 32]));
    world.must(&flash.vote(1, VOTE_FOR));
}

#[test]
fn stake_that_voted_stays_and_never_votes_from_another_page() {
    let mut world = World::new();
    let party = Party::weighty(&mut world, "a");
    let second = Party::ready(&mut world, "b", 1);
    world.wait(1);
    // Unbonding when the proposal comes, back under a second wallet before its votes end.
    world.must(&world.set_rules_to(&ix::SetRules { proposal_s: 3_000, ..rule_values() }));
    world.must(&party.unstake(WEIGHT / 2));
    let payload = parameters().encode().unwrap();
    world.must(&party.propose(0, ACTION_PARAMETERS, payload.as_slice(), [0; 32]));
    world.must(&party.vote(0, VOTE_FOR));
    assert_eq!(world.read::<Proposal>(proposal(0)).stake_for, WEIGHT / 2 + STAKE, "what leaves does not vote");
    world.refused(&party.unstake(1), Error::StakeBound);
    world.wait(UNBOND_S);
    world.must(&party.unstake_withdraw());
    let moved = world.tokens(party.supplier_purse);
    assert_eq!(moved, PURSE - WEIGHT / 2 - STAKE);
    let mut stake = second.stake(WEIGHT / 2);
    stake.metas[3].address = second.supplier_purse;
    world.must(&stake);
    world.refused(&second.vote(0, VOTE_FOR), Error::StakeTooNew);
    world.refused(&party.unstake(1), Error::StakeBound);
    world.wait(3_000 - UNBOND_S);
    // Over, and still bound until the votes are counted and the vote is given back.
    world.refused(&party.unstake(1), Error::StakeBound);
    world.refused(&party.vote(0, 0), Error::ProposalTooEarly);
    world.must(&world.queue(0));
    world.must(&party.vote(0, 0));
    assert_eq!(world.data(ballot(0, party.page)), None);
    assert_eq!(world.read::<FleetPage>(party.page).votes_open, 0);
    // Given back, it cannot be cast or given back again.
    world.refused(&party.vote(0, VOTE_FOR), Error::ProposalStateWrong);
    world.refused(&party.vote(0, 0), Error::AccountOwnerWrong);
    world.must(&party.unstake(1));
    assert_eq!(world.tokens_everywhere(), world.supply());
}

#[test]
fn a_co_staker_votes_with_its_own_and_stays_until_the_end() {
    let (mut world, party) = ready();
    world.must(&party.offer(0, WEIGHT / 2));
    world.must(&party.accept(0, WEIGHT / 2));
    let payload = parameters().encode().unwrap();
    world.must(&party.propose(0, ACTION_PARAMETERS, payload.as_slice(), [0; 32]));
    world.refused(&party.vote_by_costake(0, 0, VOTE_AGAINST), Error::StakeTooNew);
    world.wait(1);
    world.must(&party.propose(1, ACTION_PARAMETERS, payload.as_slice(), [0; 32]));
    world.refused(&party.vote_as(party.supplier, party.costake(0), 1, VOTE_FOR), Error::NotAuthorised);
    world.refused(&party.vote_as(party.renter, party.page, 1, VOTE_FOR), Error::NotAuthorised);
    world.must(&party.vote_by_costake(0, 1, VOTE_AGAINST));
    world.must(&party.vote(1, VOTE_FOR));
    let record: Proposal = world.read(proposal(1));
    assert_eq!((record.stake_for, record.stake_against), (WEIGHT + STAKE, WEIGHT / 2));
    world.refused(&party.exit(party.renter, 0), Error::StakeBound);
    world.wait(PROPOSAL_S);
    world.must(&world.queue(1));
    world.must(&party.vote_by_costake(0, 1, 0));
    world.must(&party.exit(party.renter, 0));
    world.must(&world.queue(0));
    // Who is leaving has no say any more.
    world.must(&party.propose(2, ACTION_PARAMETERS, payload.as_slice(), [0; 32]));
    world.refused(&party.vote_by_costake(0, 2, VOTE_FOR), Error::CoStakeStateWrong);
    world.wait(EXIT_WAIT_S);
    world.must(&party.exit(party.renter, 0));
}

#[test]
fn a_proposal_fails_below_its_quorum_or_by_a_tie_and_stays_so() {
    let mut world = World::new();
    let (a, b) = (Party::weighty(&mut world, "a"), Party::weighty(&mut world, "b"));
    let payload = parameters().encode().unwrap();
    for n in 0..2 {
        world.must(&a.propose(n, ACTION_PARAMETERS, payload.as_slice(), [0; 32]));
        world.must(&a.vote(n, VOTE_FOR));
    }
    // One of the two is below the quorum; both of them reach it, and then it is a tie.
    world.must(&b.vote(1, VOTE_AGAINST));
    let record: Proposal = world.read(proposal(0));
    assert!(record.stake_for < record.quorum && record.quorum < 2 * record.stake_for, "{record:?}");
    world.wait(PROPOSAL_S);
    for n in 0..2 {
        world.must(&world.queue(n));
        assert_eq!(world.read::<Proposal>(proposal(n)).state, PROPOSAL_FAILED, "{n}");
        world.wait(TIMELOCK_S);
        world.refused(&world.execute(n), Error::ProposalStateWrong);
        world.refused(&world.queue(n), Error::ProposalStateWrong);
        world.must(&a.vote(n, 0));
    }
    assert_eq!(world.read::<Config>(config()).fee_bps, 25);
}

#[test]
fn an_accepted_proposal_that_nobody_executes_in_time_has_failed() {
    let (mut world, party) = ready();
    let n = world.accept(&party, ACTION_GOVERN, &[]);
    world.wait(i64::from(EXECUTE_S) - 1);
    world.refused(&world.queue(n), Error::ProposalTooEarly);
    world.wait(1);
    world.refused(&world.execute(n), Error::ProposalStateWrong);
    world.must(&world.queue(n));
    assert_eq!(world.read::<Proposal>(proposal(n)).state, PROPOSAL_FAILED);
    world.must(&world.set_rules());
}

#[test]
fn rules_catalogue_treasury_and_an_upgrade_change_by_vote() {
    let (mut world, party) = ready();
    let values = ix::SetRules { dispute_bond: 51 * ATL, guardian: [9; 32], ..rule_values() };
    let n = world.accept(&party, ACTION_RULES, &rules_payload(&values));
    world.must(&world.execute(n));
    let now: Rules = world.read(rules());
    assert_eq!((now.dispute_bond, now.guardian, now.proposals), (51 * ATL, [9; 32], 1));

    for id in [CPU, 2] {
        let row =
            ix::SetCatalogue { id, tier: 2, flags: 0, memory_mib: 81_920, multiplier_milli: 3_000, name: [b'h'; 32] };
        let n = world.accept(&party, ACTION_CATALOGUE, &row.encode().unwrap().as_slice()[1..]);
        world.must(&world.execute(n));
    }
    let data = world.data(catalogue()).unwrap();
    assert_eq!(Catalogue::read_row(&data, 1).unwrap().unwrap().multiplier_milli, 3_000);
    assert_eq!(Catalogue::read_row(&data, 2).unwrap(), None);

    let treasury = token_of(&mut world, "treasury 2", party.renter);
    let n = world.accept(&party, ACTION_TREASURY, &treasury);
    world.refused(&world.execute(n), Error::AddressWrong);
    world.refused(&world.execute_with(n, world.treasury), Error::AddressWrong);
    world.must(&world.execute_with(n, treasury));
    assert_eq!(world.read::<Config>(config()).treasury, treasury);
    // What is no token account of the mint would lock every order's fees, and with them its refund.
    let n = world.accept(&party, ACTION_TREASURY, &party.renter);
    world.refused(&world.execute_with(n, party.renter), Error::TokenAccountWrong);

    let n = world.accept(&party, ACTION_UPGRADE, &[]);
    let before = [config(), rules(), catalogue()].map(|at| world.data(at));
    world.must(&world.execute(n));
    assert_eq!([config(), rules(), catalogue()].map(|at| world.data(at)), before);
    let record: Proposal = world.read(proposal(n));
    assert_eq!((record.state, record.payload_hash, record.executed_at), (PROPOSAL_EXECUTED, [7; 32], world.now()));
}

#[test]
fn what_is_out_of_range_is_not_proposed() {
    let (mut world, party) = ready();
    let good = rule_values();
    let bad_rules = [
        // What a fault may take must end before stake has left.
        ix::SetRules { unbond_s: good.dispute_window_s + good.voting_s + good.appeal_s, ..good },
        ix::SetRules { proposal_s: 0, ..good },
        ix::SetRules { quorum_bps: 0, ..good },
        ix::SetRules { quorum_bps: 10_001, ..good },
        ix::SetRules { timelock_s: u32::MAX, ..good },
    ];
    for values in bad_rules {
        let call = party.propose(0, ACTION_RULES, &rules_payload(&values), [0; 32]);
        world.refused(&call, Error::ParameterOutOfRange);
        world.refused(&world.set_rules_to(&values), Error::ParameterOutOfRange);
    }
    let good = parameters();
    let bad_parameters = [
        Parameters { fee_bps: 1_001, ..good },
        Parameters { fill_s_max: 0, ..good },
        Parameters { epoch_hold_s: u32::MAX, ..good },
        Parameters { stall_s: 6, ..good },
    ];
    for values in bad_parameters {
        let call = party.propose(0, ACTION_PARAMETERS, values.encode().unwrap().as_slice(), [0; 32]);
        world.refused(&call, Error::ParameterOutOfRange);
    }
    let row = ix::SetCatalogue { id: 0, tier: 1, flags: 0, memory_mib: 1, multiplier_milli: 1, name: [0; 32] };
    let row = row.encode().unwrap().as_slice()[1..].to_vec();
    let half = SetSeat { seat: 0, threshold: 1, owner: [0; 32], key: [1; 32] }.encode().unwrap();
    for (action, payload, hash, why) in [
        (ACTION_CATALOGUE, &row[..], [0; 32], Error::ParameterOutOfRange),
        (ACTION_CATALOGUE, &row[1..], [0; 32], Error::InstructionMalformed),
        (ACTION_SEAT, half.as_slice(), [0; 32], Error::ParameterOutOfRange),
        (ACTION_TREASURY, &[0; 32], [0; 32], Error::ParameterOutOfRange),
        (ACTION_TREASURY, &[1; 33], [0; 32], Error::InstructionMalformed),
        (ACTION_UPGRADE, &[], [0; 32], Error::ParameterOutOfRange),
        (ACTION_GOVERN, &[1], [0; 32], Error::InstructionMalformed),
        (0, &[], [0; 32], Error::InstructionMalformed),
        (8, &[], [0; 32], Error::InstructionMalformed),
    ] {
        world.refused(&party.propose(0, action, payload, hash), why);
    }
    // In range by itself, and not with this network's epochs: refused when it is executed, and it changes nothing.
    let values = Parameters { epoch_hold_s: 100, stall_s: 105, ..good };
    let n = world.accept(&party, ACTION_PARAMETERS, values.encode().unwrap().as_slice());
    world.refused(&world.execute(n), Error::ParameterOutOfRange);
    assert_eq!(world.read::<Proposal>(proposal(n)).state, PROPOSAL_QUEUED);
    assert_eq!(world.read::<Config>(config()).stall_s, 600);
}

#[test]
fn once_votes_decide_the_admin_keeps_the_feed_alone() {
    let (mut world, party) = ready();
    world.must(&world.set_rules());
    world.must(&world.set_catalogue(3));
    let n = world.accept(&party, ACTION_GOVERN, &[]);
    world.must(&world.execute(n));
    world.refused(&world.set_rules(), Error::NotAuthorised);
    world.refused(&world.set_catalogue(3), Error::NotAuthorised);
    world.refused(&world.set_catalogue(4), Error::NotAuthorised);
    world.must(&world.set_feed(250_000));
    let n = world.accept(&party, ACTION_RULES, &rules_payload(&ix::SetRules { case_s: 99, ..rule_values() }));
    world.must(&world.execute(n));
    assert_eq!(world.read::<Rules>(rules()).case_s, 99);
}

fn row(world: &World, number: usize) -> Option<Seat> {
    Config::read_row(&world.data(config()).unwrap(), number).unwrap()
}

#[test]
fn seats_come_change_and_go_and_their_hashes_are_one_chain() {
    let (mut world, party) = ready();
    let root = world.read::<Config>(config()).network_root;
    let first = row(&world, 0).unwrap();
    let (b, c) = (seat(&mut world, 1, 2, "b"), seat(&mut world, 0, 2, "c"));
    world.change_seat(&party, &b);
    let first = SetSeat { seat: 0, threshold: 1, owner: first.owner, key: first.key };
    let seats = [first.row(), b.row()];
    let one = set_hash(|parts: &[&[u8]]| sha256(parts), &root, &root, (1, 2), &seats);
    let now: Config = world.read(config());
    assert_eq!((now.set_no, now.threshold, now.seat_count), (1, 2, 2));
    assert_eq!(world.read::<Rules>(rules()).set_hash, one);
    assert_eq!(world.read::<Proposal>(proposal(0)).set_no, 1);
    world.must(&world.register_seat(1, b.owner, b.key));

    world.change_seat(&party, &c);
    let seats = [c.row(), b.row()];
    let two = set_hash(|parts: &[&[u8]]| sha256(parts), &root, &one, (2, 2), &seats);
    assert_eq!(world.read::<Rules>(rules()).set_hash, two);
    // The key that lost its seat votes no more; both of the new set make a root final.
    world.must(&world.register_seat(0, c.owner, c.key));
    world.wait(i64::from(EPOCH_S));
    let index = world.last_epoch();
    world.refused(&world.post_epoch(world.attestor, index, [1; 32]), Error::SeatUnknown);
    world.must(&world.post_epoch(b.key, index, [1; 32]));
    assert_eq!(world.read::<Epoch>(epoch(index, &[1; 32])).final_at, 0);
    world.must(&world.post_epoch(c.key, index, [1; 32]));
    assert_eq!(world.read::<Epoch>(epoch(index, &[1; 32])).final_at, world.now());

    let gone = SetSeat { seat: 1, threshold: 1, owner: [0; 32], key: [0; 32] };
    world.change_seat(&party, &gone);
    assert_eq!((row(&world, 0).unwrap().key, row(&world, 1)), (c.key, None));
    world.wait(i64::from(EPOCH_S));
    world.refused(&world.post_epoch(b.key, world.last_epoch(), [1; 32]), Error::SeatUnknown);
    // Nobody's seat, a set without a majority, and twins are never executed.
    let twin = SetSeat { seat: 1, threshold: 2, owner: c.owner, key: b.key };
    for (seat, why) in [
        (SetSeat { seat: 2, threshold: 2, ..b }, Error::SeatUnknown),
        (SetSeat { threshold: 1, ..gone }, Error::SeatUnknown),
        (SetSeat { seat: 0, ..gone }, Error::ParameterOutOfRange),
        (SetSeat { seat: 1, threshold: 1, ..b }, Error::ParameterOutOfRange),
        (SetSeat { seat: 1, threshold: 3, ..b }, Error::ParameterOutOfRange),
        (twin, Error::ParameterOutOfRange),
    ] {
        let n = world.accept(&party, ACTION_SEAT, seat.encode().unwrap().as_slice());
        let before = world.data(config());
        world.refused(&world.execute(n), why);
        assert_eq!(world.data(config()), before);
    }
}

/// With the seats of two sets, two roots of one epoch could both have their majority.
#[test]
fn no_epoch_takes_votes_of_two_sets() {
    let (mut world, party) = ready();
    let (b, c) = (seat(&mut world, 0, 1, "b"), seat(&mut world, 1, 2, "c"));
    let n = world.accept(&party, ACTION_SEAT, b.encode().unwrap().as_slice());
    let old = world.last_epoch();
    world.must(&world.post_epoch(world.attestor, old, [1; 32]));
    assert_ne!(world.read::<Epoch>(epoch(old, &[1; 32])).final_at, 0);
    world.must(&world.execute(n));
    world.must(&world.register_seat(0, b.owner, b.key));
    world.refused(&world.post_epoch(b.key, old, [2; 32]), Error::EpochClosed);
    world.refused(&world.post_epoch(world.attestor, old, [2; 32]), Error::EpochClosed);
    // The epoch that ran at the change is the new set's alone.
    world.wait(i64::from(EPOCH_S));
    world.must(&world.post_epoch(b.key, old + 1, [2; 32]));
    world.wait(3_600);
    let [hour, another] = [1, 2].map(|sum| Hour::over(world.last_hour(), &[(party.page, sum)]));
    world.refused(&world.post_reward(world.attestor, &hour), Error::SeatUnknown);
    world.must(&world.post_reward(b.key, &hour));
    world.change_seat(&party, &c);
    world.must(&world.register_seat(1, c.owner, c.key));
    world.refused(&world.post_epoch(c.key, old + 1, [3; 32]), Error::EpochClosed);
    world.refused(&world.post_reward(c.key, &another), Error::EpochClosed);
}

#[test]
fn a_pause_stops_orders_and_fills_and_nothing_that_pays() {
    let mut world = World::new();
    let party = Party::ready(&mut world, "a", 2);
    let guardian = world.key("guardian");
    world.refused(&world.pause(guardian, 1), Error::NotAuthorised);
    world.refused(&world.pause(world.admin, 1), Error::NotAuthorised);
    world.must(&world.set_guardian(guardian));
    world.refused(&world.pause(world.admin, 1), Error::NotAuthorised);
    world.refused(&world.pause(guardian, PAUSE_S_MAX + 1), Error::ParameterOutOfRange);
    world.refused(&world.pause(guardian, 0), Error::NothingToDo);
    world.must(&party.post(1));
    world.must(&party.fill(0, 0, &[1]));
    let waiting = Party { nonce: 2, ..party.clone() };
    world.must(&waiting.post(1));
    world.must(&world.pause(guardian, PAUSE_S_MAX));
    let later = Party { nonce: 3, ..party.clone() };
    world.refused(&later.post(1), Error::Paused);
    world.refused(&waiting.fill(0, 1, &[1]), Error::Paused);
    world.refused(&world.pause(guardian, 1), Error::PauseTooSoon);
    // What runs is released, settled, paid and refunded as ever, and stake leaves.
    world.wait(50);
    world.must(&party.release(party.renter, 0, Reason::Done, 0, &[1]));
    let tree = world.attest(&[leaf(party.lease(0), 50, world.now())]);
    world.must(&tree.settle(0, party.order()));
    world.must(&party.withdraw(0));
    world.must(&party.collect());
    world.must(&party.close_lease(0));
    world.wait(100);
    world.must(&party.close_order(party.renter));
    world.must(&waiting.close_order(party.renter));
    world.must(&party.retire(0, party.devices[0]));
    world.must(&party.unstake(STAKE));
    world.wait(UNBOND_S);
    world.must(&party.unstake_withdraw());
    // It ends by itself, and the next one waits.
    let end = world.read::<Config>(config()).paused_until;
    world.set_time(end - 1);
    world.refused(&later.post(1), Error::Paused);
    world.set_time(end);
    world.must(&world.set_feed(250_000));
    world.must(&later.post(1));
    world.set_time(end + i64::from(PAUSE_REST_S) - 1);
    world.refused(&world.pause(guardian, 1), Error::PauseTooSoon);
    world.wait(1);
    world.must(&world.pause(guardian, PAUSE_S_MAX));
    world.must(&world.pause(guardian, 0));
    world.must(&world.set_feed(250_000));
    world.must(&Party { nonce: 4, ..party }.post(1));
}
