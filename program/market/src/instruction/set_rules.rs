//! Makes or changes the rules of stake, faults, rewards and votes.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    address,
};
use atoll_interface::{
    Error,
    instruction::{SetRules, SetRulesAccounts},
    layout::{Config, RULES_GOVERNED, Record, Rules},
    seeds,
};
use core::hint::black_box;

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [admin, config, mut rules, _system] = cx.take(&SetRulesAccounts::FLAGS)?;
    let set = SetRules::decode(cx.fields)?;
    if !address::is(&admin, &account::view::<Config>(cx.program, &config)?.admin) {
        return Err(Error::NotAuthorised.into());
    }
    if account::is_vacant(&rules) {
        let bump = account::make(&Make {
            program: cx.program,
            payer: &admin,
            account: &rules,
            seeds: &black_box(seeds::rules()),
            space: Rules::SIZE,
            owner: cx.program,
        })?;
        account::fresh::<Rules>(&mut rules)?.bump = bump;
    }
    let mut rules = account::view_mut::<Rules>(cx.program, &mut rules)?;
    if rules.flags & RULES_GOVERNED != 0 {
        return Err(Error::NotAuthorised.into());
    }
    write(&mut rules, &set);
    Ok(rules.check()?)
}

fn write(rules: &mut Rules, set: &SetRules) {
    rules.guardian = set.guardian;
    rules.unbond_s = set.unbond_s;
    rules.exit_wait_s = set.exit_wait_s;
    rules.dispute_window_s = set.dispute_window_s;
    rules.voting_s = set.voting_s;
    rules.appeal_s = set.appeal_s;
    rules.case_s = set.case_s;
    rules.proposal_s = set.proposal_s;
    rules.timelock_s = set.timelock_s;
    rules.device_slash_bps = set.device_slash_bps;
    rules.attestor_slash_bps = set.attestor_slash_bps;
    rules.bounty_bps = set.bounty_bps;
    rules.quorum_bps = set.quorum_bps;
    rules.surcharge_bps = set.surcharge_bps;
    rules.feed_width_bps = set.feed_width_bps;
    rules.hired_cap_bps = set.hired_cap_bps;
    rules.enterprise_bps = set.enterprise_bps;
    rules.bounty_max = set.bounty_max;
    rules.dispute_bond = set.dispute_bond;
    rules.proposal_stake = set.proposal_stake;
}
