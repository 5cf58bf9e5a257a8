//! Proposes a change on which stakers vote.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    address,
    runtime::now,
    token,
};
use atoll_interface::{
    Error,
    instruction::{Propose, ProposeAccounts},
    layout::{Config, FleetPage, Proposal, Record, Rules},
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [proposer, first_page, mut proposal, mint, emission, config, mut rules, _system] =
        cx.take(&ProposeAccounts::FLAGS)?;
    let propose = Propose::decode(cx.fields)?;
    address::expect(&mint, &account::view::<Config>(cx.program, &config)?.mint)?;
    let (number, circulates) = {
        let owner = rules.address().as_array();
        let waiting = token::owned(&emission, mint.address().as_array(), owner)?;
        let rules = account::view::<Rules>(cx.program, &rules)?;
        (rules.proposals.to_le_bytes(), rules.circulating(token::supply(&mint)?, waiting))
    };
    let bump = account::make(&Make {
        program: cx.program,
        payer: &proposer,
        account: &proposal,
        seeds: &seeds::proposal(&number),
        space: Proposal::SIZE,
        owner: cx.program,
    })?;
    let first = account::view::<FleetPage>(cx.program, &first_page)?;
    if first.page_no != 0 || !address::is(&proposer, &first.supplier) {
        return Err(Error::NotAuthorised.into());
    }
    let mut rules = account::view_mut::<Rules>(cx.program, &mut rules)?;
    let mut record = account::fresh::<Proposal>(&mut proposal)?;
    record.bump = bump;
    record.proposer = *first_page.address().as_array();
    record.rent_payer = *proposer.address().as_array();
    Ok(record.open(&propose, (&mut rules, circulates), &first, now()?)?)
}
