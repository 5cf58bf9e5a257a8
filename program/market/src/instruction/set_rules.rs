//! Makes or changes the rules of stake, faults, rewards and votes.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    authority,
    runtime::now,
};
use atoll_interface::{
    instruction::{SetRules, SetRulesAccounts},
    layout::{Config, Record, Rules},
    seeds,
};
use core::hint::black_box;

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [admin, config, mut rules, _system] = cx.take(&SetRulesAccounts::FLAGS)?;
    let set = SetRules::decode(cx.fields)?;
    authority::expect_admin(&*account::view::<Config>(cx.program, &config)?, &admin)?;
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
    rules.set(&set);
    Ok(rules.check()?)
}
