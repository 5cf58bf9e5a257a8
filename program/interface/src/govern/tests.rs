use super::*;

const NOW: i64 = 1_800_000_000;

#[test]
fn a_pause_ends_by_itself_and_the_next_one_waits() {
    let mut config = Config::new();
    assert_eq!(config.pause(PAUSE_S_MAX + 1, NOW), Err(Error::ParameterOutOfRange));
    assert_eq!(config.pause(0, NOW), Err(Error::NothingToDo));
    config.pause(PAUSE_S_MAX, NOW).unwrap();
    let end = NOW + i64::from(PAUSE_S_MAX);
    assert_eq!(config.paused_until, end);
    let rested = end + i64::from(PAUSE_REST_S);
    for soon in [NOW, end - 1, end, rested - 1] {
        assert_eq!(config.pause(1, soon), Err(Error::PauseTooSoon), "{soon}");
    }
    config.pause(1, rested).unwrap();
    assert_eq!(config.paused_until, rested + 1);
    // Ended early, it rests from there on.
    let mut config = Config::new();
    config.pause(100, NOW).unwrap();
    config.pause(0, NOW + 10).unwrap();
    assert_eq!(config.paused_until, NOW + 10);
    assert_eq!(config.pause(0, NOW + 10), Err(Error::NothingToDo));
    assert_eq!(config.pause(1, NOW + 9 + i64::from(PAUSE_REST_S)), Err(Error::PauseTooSoon));
    config.pause(1, NOW + 10 + i64::from(PAUSE_REST_S)).unwrap();
}

/// However a guardian's key is used, of any time two thirds or more are free.
#[test]
fn no_guardian_pauses_for_longer_than_it_rests() {
    let mut config = Config::new();
    let (mut paused, days) = (0, 365);
    for hour in 0..days * 24 {
        let now = NOW + hour * 3_600;
        let _ = config.pause(PAUSE_S_MAX, now);
        paused += i64::from(now < config.paused_until);
    }
    assert!(paused * 10 <= days * 24 * 3 + 720, "{paused} hours");
}

fn page(own: u64, raised_at: i64) -> FleetPage {
    let mut page = FleetPage::new();
    (page.own, page.raised_at) = (own, raised_at);
    page
}

fn rules() -> Rules {
    let mut rules = Rules::new();
    rules.set(&crate::stake::DEFAULT_RULES);
    rules
}

fn opened(circulates: u64, rules: &mut Rules) -> Result<Proposal, Error> {
    let mut proposal = Proposal::new();
    let propose = Propose { action: ACTION_GOVERN, payload: &[], payload_hash: [0; 32] };
    proposal.open(&propose, (rules, circulates), &page(u64::MAX, NOW - 1), NOW)?;
    Ok(proposal)
}

#[test]
fn the_quorum_is_a_part_of_what_circulates() {
    let mut rules = rules();
    assert_eq!(opened(1_000_000, &mut rules).unwrap().quorum, 40_000);
    // Nothing circulates: still nobody decides without a unit.
    assert_eq!(opened(0, &mut rules).unwrap().quorum, 1);
    assert_eq!(rules.proposals, 2);
    rules.proposals = u64::MAX;
    assert_eq!(opened(1, &mut rules), Err(Error::Overflow));
}

#[test]
fn votes_at_the_edges_of_time_and_of_64_bits() {
    let mut rules = rules();
    let mut proposal = opened(u64::MAX, &mut rules).unwrap();
    let end = proposal.vote_until;
    assert_eq!(proposal.vote(VOTE_FOR, 0, NOW), Err(Error::NothingToDo));
    assert_eq!(proposal.vote(VOTE_FOR, 1, end), Err(Error::ProposalStateWrong));
    proposal.vote(VOTE_FOR, u64::MAX, end - 1).unwrap();
    assert_eq!(proposal.vote(VOTE_FOR, 1, end - 1), Err(Error::Overflow));
    proposal.vote(VOTE_AGAINST, 1, end - 1).unwrap();
    assert_eq!(proposal.queue(&rules, end), Err(Error::Overflow));
    proposal.stake_against = 0;
    proposal.queue(&rules, end).unwrap();
    assert_eq!((proposal.state, proposal.execute_from), (PROPOSAL_QUEUED, end + i64::from(rules.timelock_s)));
    // A clock at its end overflows nothing.
    proposal.execute_from = i64::MAX;
    assert_eq!(proposal.execute(i64::MAX), Err(Error::ProposalStateWrong));
}

#[test]
fn every_action_reads_what_it_wrote_and_nothing_shorter_or_longer() {
    let rules = crate::stake::DEFAULT_RULES.encode().unwrap();
    let row = crate::instruction::SetCatalogue {
        id: 1,
        tier: 1,
        flags: 0,
        memory_mib: 1,
        multiplier_milli: 1,
        name: [0; 32],
    };
    let row = row.encode().unwrap();
    let seat = SetSeat { seat: 1, threshold: 2, owner: [1; 32], key: [2; 32] };
    let parameters = Parameters {
        fee_bps: 25,
        epoch_hold_s: 1,
        stall_s: 2,
        open_s: 30,
        fill_s_max: 600,
        feed_age_s_max: 60,
        stake_per_device: 1,
        attestor_stake: 1,
    };
    let (seat, parameters) = (seat.encode().unwrap(), parameters.encode().unwrap());
    let actions: [(u16, &[u8]); 7] = [
        (ACTION_RULES, &rules.as_slice()[1..]),
        (ACTION_PARAMETERS, parameters.as_slice()),
        (ACTION_CATALOGUE, &row.as_slice()[1..]),
        (ACTION_SEAT, seat.as_slice()),
        (ACTION_TREASURY, &[3; 32]),
        (ACTION_UPGRADE, &[]),
        (ACTION_GOVERN, &[]),
    ];
    for (action, payload) in actions {
        Action::read(action, payload, &[1; 32]).unwrap_or_else(|error| panic!("{action}: {error:?}"));
        assert!(payload.len() <= Proposal::ZERO.payload.len(), "{action} does not fit");
        let longer = [payload, &[0]].concat();
        assert_eq!(Action::read(action, &longer, &[1; 32]), Err(Error::InstructionMalformed), "{action}");
        if let Some((_, shorter)) = payload.split_last() {
            assert_eq!(Action::read(action, shorter, &[1; 32]), Err(Error::InstructionMalformed), "{action}");
        }
    }
}

#[test]
fn a_seat_is_added_behind_the_last_and_only_the_last_is_taken_away() {
    let seat = |seat| SetSeat { seat, threshold: 1, owner: [1; 32], key: [2; 32] };
    let gone = |at| SetSeat { owner: [0; 32], key: [0; 32], ..seat(at) };
    assert_eq!([0, 1, 2, 3].map(|at| seat(at).count(2)), [Ok(2), Ok(2), Ok(3), Err(Error::SeatUnknown)]);
    assert_eq!([0, 1, 2].map(|at| gone(at).count(2)), [Err(Error::SeatUnknown), Ok(1), Err(Error::SeatUnknown)]);
    for (threshold, seats, fits) in
        [(0, 0, false), (1, 1, true), (1, 2, false), (2, 2, true), (3, 2, false), (129, 256, true), (129, 257, false)]
    {
        assert_eq!(check_majority(threshold, seats).is_ok(), fits, "{threshold} of {seats}");
    }
}
