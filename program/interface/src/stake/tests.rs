use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn rules() -> Rules {
    let votes = Rules { proposal_s: 5, quorum_bps: 1, ..Rules::new() };
    Rules { unbond_s: 14, exit_wait_s: 7, dispute_window_s: 3, voting_s: 2, appeal_s: 7, ..votes }
}

fn offer(amount: u64) -> CoStake {
    CoStake { state: CO_STAKE_OFFERED, amount, reward_bps: 5_000, ..CoStake::new() }
}

fn supplier(own: u64) -> FleetPage {
    let mut page = FleetPage::new();
    page.stake(own, 1).unwrap();
    page
}

fn accepted(page: &mut FleetPage, amount: u64) -> CoStake {
    let mut costake = offer(amount);
    page.offers += 1;
    costake.accept(page, &[1; 32], (amount, 5_000), 1).unwrap();
    costake
}

#[test]
fn rules_are_taken_over_whole_and_the_given_ones_are_in_range() {
    for set in [DEFAULT_RULES, LOCAL_RULES] {
        let mut rules = Rules::new();
        rules.set(&set);
        assert_eq!(rules.check(), Ok(()));
        // In the order of the account, the fields are those of the instruction.
        let data = set.encode().unwrap();
        assert_eq!(crate::layout::bytes_of(&rules)[8..8 + data.as_slice().len() - 1], data.as_slice()[1..]);
        rules.unbond_s = rules.dispute_window_s + rules.voting_s + rules.appeal_s;
        assert_eq!(rules.check(), Err(Error::ParameterOutOfRange));
    }
}

#[test]
fn stake_that_devices_require_does_not_leave() {
    let mut page = supplier(100);
    page.required = 60;
    assert_eq!(page.unstake(41, &rules(), 1), Err(Error::StakeTooLow));
    assert_eq!(page.unstake(101, &rules(), 1), Err(Error::StakeTooLow));
    assert_eq!(page.unstake(0, &rules(), 1), Err(Error::NothingToDo));
    page.unstake(30, &rules(), 1).unwrap();
    page.unstake(10, &rules(), 5).unwrap();
    assert_eq!(page.withdraw(18), Err(Error::StakeBound), "the second request started the time of all anew");
    assert_eq!(page.withdraw(19), Ok(40));
    assert_eq!(page.withdraw(19), Err(Error::NothingToDo));
    page.votes_open = 1;
    page.required = 0;
    assert_eq!(page.unstake(1, &rules(), 1), Err(Error::StakeBound));
}

#[test]
fn co_stake_is_at_most_half_and_on_the_terms_offered() {
    let mut page = supplier(100);
    let mut costake = offer(101);
    page.offers = 1;
    assert_eq!(costake.accept(&mut page, &[1; 32], (101, 5_000), 1), Err(Error::CoStakeTooHigh));
    costake.amount = 100;
    assert_eq!(costake.accept(&mut page, &[1; 32], (101, 5_000), 1), Err(Error::OfferChanged));
    assert_eq!(costake.accept(&mut page, &[1; 32], (100, 4_999), 1), Err(Error::OfferChanged));
    costake.accept(&mut page, &[1; 32], (100, 5_000), 1).unwrap();
    assert_eq!(costake.accept(&mut page, &[1; 32], (100, 5_000), 1), Err(Error::CoStakeStateWrong));
    assert_eq!(page.unstake(1, &rules(), 1), Err(Error::CoStakeTooHigh));
}

#[test]
fn co_stake_counts_while_it_waits_and_is_slashed_until_it_is_paid() {
    let mut page = supplier(100);
    let mut costake = accepted(&mut page, 100);
    assert_eq!(costake.leave(&mut page, &rules(), 1), Err(Error::CoStakeStateWrong));
    costake.wait(&rules(), 10).unwrap();
    assert_eq!(costake.leave(&mut page, &rules(), 16), Err(Error::StakeBound));
    assert_eq!((page.slash(50), page.own, page.costake), (Ok(50), 75, 75));
    costake.leave(&mut page, &rules(), 17).unwrap();
    assert_eq!((page.costake, page.costake_leaving), (0, 75));
    assert_eq!((page.slash(75), page.own, page.costake_leaving), (Ok(75), 37, 38));
    assert_eq!(costake.pay_out(&mut page, 30), Err(Error::StakeBound));
    assert_eq!(costake.pay_out(&mut page, 31), Ok(37));
    assert_eq!((page.staked(), page.offers, page.index()), (Ok(38), 0, WHOLE));
}

#[test]
fn a_whole_slash_leaves_nothing_and_nobody_joins_the_ruin() {
    let mut page = supplier(100);
    let costake = accepted(&mut page, 100);
    assert_eq!(page.slash(u64::MAX), Ok(200));
    assert_eq!((page.staked(), costake.worth(&page)), (Ok(0), Ok(0)));
    page.stake(1_000, 2).unwrap();
    page.offers += 1;
    let late = offer(10).accept(&mut page, &[2; 32], (10, 5_000), 2);
    assert_eq!(late, Err(Error::CoStakeTooHigh));
    assert_eq!(page.slash(0), Ok(0));
}

#[test]
fn rules_keep_faults_shorter_than_unbonding() {
    rules().check().unwrap();
    for wrong in [
        Rules { unbond_s: 12, ..rules() },
        Rules { unbond_s: u32::MAX, ..rules() },
        Rules { appeal_s: u32::MAX, ..rules() },
        Rules { bounty_bps: 10_001, ..rules() },
        Rules { proposal_s: 0, ..rules() },
        Rules { quorum_bps: 0, ..rules() },
    ] {
        assert_eq!(wrong.check(), Err(Error::ParameterOutOfRange));
    }
}

#[test]
fn device_keys_are_kept_while_faults_may_be_brought() {
    let mut key = DeviceKey::new();
    assert_eq!(key.check_close(&rules(), i64::MAX), Err(Error::DeviceKeyKept));
    key.retired_at = 10;
    assert_eq!(key.check_close(&rules(), 23), Err(Error::DeviceKeyKept));
    key.check_close(&rules(), 24).unwrap();
}

#[test]
fn an_attestor_is_slashed_once_and_the_bounty_is_bounded() {
    let rules = Rules { attestor_slash_bps: 10_000, bounty_bps: 1_000, bounty_max: 50, ..rules() };
    let mut attestor = Attestor { stake: 400, ..Attestor::new() };
    assert_eq!(attestor.slash(&rules), Ok(Slash { refund: 0, bounty: 40, burned: 360 }));
    assert_eq!((attestor.stake, attestor.slash(&rules)), (0, Err(Error::AttestorSlashed)));
    let mut rich = Attestor { stake: u64::MAX, ..Attestor::new() };
    assert_eq!(rich.slash(&rules), Ok(Slash { refund: 0, bounty: 50, burned: u64::MAX - 50 }));
}

#[derive(Clone, Debug)]
enum Step {
    Stake(u64),
    Unstake(u64),
    Withdraw,
    Join(u64),
    Exit(usize),
    Slash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1u64..1 << 60).prop_map(Step::Stake),
        (1u64..1 << 60).prop_map(Step::Unstake),
        Just(Step::Withdraw),
        (1u64..1 << 59).prop_map(Step::Join),
        (0usize..8).prop_map(Step::Exit),
        prop_oneof![1u64..100, 1u64..1 << 60].prop_map(Step::Slash),
    ]
}

proptest! {
    /// Whatever happens, the vault holds what the books say, and enough for every co-staker.
    #[test]
    fn books_hold_what_all_are_worth(steps in prop::collection::vec(step(), 1..60)) {
        let (mut page, mut vault, mut now) = (supplier(1 << 50), 1u128 << 50, 100i64);
        let mut costakes: Vec<CoStake> = Vec::new();
        for step in steps {
            now += 5;
            let before = page;
            match step {
                Step::Stake(amount) => {
                    if page.stake(amount, now).is_ok() { vault += u128::from(amount) } else { page = before }
                }
                Step::Unstake(amount) => { let _ = page.unstake(amount, &rules(), now); }
                Step::Withdraw => if let Ok(paid) = page.withdraw(now) { vault -= u128::from(paid) },
                Step::Join(amount) => {
                    let mut costake = offer(amount);
                    page.offers += 1;
                    if costake.accept(&mut page, &[1; 32], (amount, 5_000), now).is_ok() {
                        vault += u128::from(amount);
                        costakes.push(costake);
                    } else {
                        page = before;
                    }
                }
                Step::Exit(which) => if let Some(costake) = costakes.get_mut(which) {
                    if let Ok(paid) = costake.pay_out(&mut page, now) {
                        vault -= u128::from(paid);
                        costakes.remove(which);
                    } else if costake.leave(&mut page, &rules(), now).is_err() {
                        let _ = costake.wait(&rules(), now);
                    }
                },
                Step::Slash(amount) => vault -= u128::from(page.slash(amount).unwrap()),
            }
            prop_assert_eq!(u128::from(page.staked().unwrap()), vault);
            let worth = |leaving: bool| costakes.iter()
                .filter(|costake| (costake.state == CO_STAKE_LEAVING) == leaving)
                .map(|costake| u128::from(costake.worth(&page).unwrap()))
                .sum::<u128>();
            prop_assert!(worth(false) <= u128::from(page.costake), "{} {}", worth(false), page.costake);
            prop_assert!(worth(true) <= u128::from(page.costake_leaving));
        }
    }
}
