//! Makes or changes the rules of stake, faults, rewards and votes.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    address,
    runtime::now,
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
        let mut record = account::fresh::<Rules>(&mut rules)?;
        record.bump = bump;
        record.reward_zero = now()?;
    }
    let mut rules = account::view_mut::<Rules>(cx.program, &mut rules)?;
    if rules.flags & RULES_GOVERNED != 0 {
        return Err(Error::NotAuthorised.into());
    }
    rules.set(&set);
    Ok(rules.check()?)
}
