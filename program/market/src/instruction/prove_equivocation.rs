//! Proves that an attestor's key signed two roots of one epoch.
//!
//! On chain a key cannot vote twice for an epoch; the votes that receipts carry are signed off chain, and two of them are
//! the proof. The program judges alone: nobody is asked.

use crate::shared::{
    Cx, Outcome, account, address,
    token::{self, Call},
};
use atoll_interface::{
    Address as Bytes,
    instruction::{ProveEquivocation, ProveEquivocationAccounts},
    layout::{Attestor, Config, Rules},
    seeds,
    signature::{INSTRUCTIONS_ID, equivocates, signed},
};
use pinocchio::cpi::Seed;

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [prover, mut attestor, vault, mint, bounty, config, rules, instructions, _token] =
        cx.take(&ProveEquivocationAccounts::FLAGS)?;
    let prove = ProveEquivocation::decode(cx.fields)?;
    address::expect(&instructions, &INSTRUCTIONS_ID)?;
    let own = *attestor.address().as_array();
    let (slash, key, bump) = {
        let config = account::view::<Config>(cx.program, &config)?;
        let rules = account::view::<Rules>(cx.program, &rules)?;
        let mut attestor = account::view_mut::<Attestor>(cx.program, &mut attestor)?;
        address::expect(&mint, &config.mint)?;
        address::expect_derived(cx.program, &vault, seeds::attestor_vault(&own), attestor.vault_bump)?;
        let sysvar = instructions.try_borrow()?;
        let (first, second) = (signed(&sysvar, prove.first)?, signed(&sysvar, prove.second)?);
        equivocates(&attestor.key, &config.network_root, first, second)?;
        (attestor.slash(&rules)?, attestor.key, [attestor.bump])
    };
    let wallet: &Bytes = prover.address().as_array();
    token::expect_owner(&bounty, mint.address().as_array(), wallet)?;
    let [prefix, of] = seeds::attestor(&key);
    let seeds = [Seed::from(prefix), Seed::from(of), Seed::from(&bump)];
    if slash.bounty > 0 {
        Call { from: &vault, to: &bounty, authority: &attestor, seeds: &seeds }.transfer(slash.bounty)?;
    }
    if slash.burned > 0 {
        Call { from: &vault, to: &mint, authority: &attestor, seeds: &seeds }.burn(slash.burned)?;
    }
    Ok(())
}
