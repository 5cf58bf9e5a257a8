//! Pays a supplier its rewards, and nobody else. The supplier's page may be closed by now: wallet and page follow from each
//! other.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    address,
    runtime::{now, sha256},
    token::{self, Call},
};
use atoll_interface::{
    Error,
    instruction::{ClaimReward, ClaimRewardAccounts},
    layout::{Claim, Config, Record, Reward, Rules},
    merkle::root_of_path,
    reward::leaf_hash,
    seeds,
};
use core::hint::black_box;
use pinocchio::cpi::Seed;

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [payer, supplier, page, mut claim, reward, emission, destination, mut rules, config, ..] =
        cx.take(&ClaimRewardAccounts::FLAGS)?;
    let take = ClaimReward::decode(cx.fields)?;
    let now = now()?;
    let (wallet, own) = (*supplier.address().as_array(), *page.address().as_array());
    address::find(cx.program, &page, &seeds::page(&wallet, &[0, 0]))?;
    if account::is_vacant(&claim) {
        let bump = account::make(&Make {
            program: cx.program,
            payer: &payer,
            account: &claim,
            seeds: &seeds::claim(&own),
            space: Claim::SIZE,
            owner: cx.program,
        })?;
        let mut record = account::fresh::<Claim>(&mut claim)?;
        record.bump = bump;
        record.page = own;
    }
    let (amount, bump) = {
        let config = account::view::<Config>(cx.program, &config)?;
        let reward = account::view::<Reward>(cx.program, &reward)?;
        reward.check_pays(config.epoch_hold_s, now)?;
        match root_of_path(sha256, leaf_hash(sha256, &own, take.sum), take.leaf_index, take.path) {
            Some(root) if address::same(&root, &reward.root) => {}
            _ => return Err(Error::LeafPathWrong.into()),
        }
        let owner = *rules.address().as_array();
        let mut rules = account::view_mut::<Rules>(cx.program, &mut rules)?;
        let mut claim = account::view_mut::<Claim>(cx.program, &mut claim)?;
        address::expect(&page, &claim.page)?;
        let amount = claim.take(&mut rules, &reward, take.sum)?;
        if token::owned(&emission, &config.mint, &owner)? < amount {
            return Err(Error::EmissionShort.into());
        }
        token::expect_owner(&destination, &config.mint, &wallet)?;
        (amount, [rules.bump])
    };
    let [prefix] = black_box(seeds::rules());
    let seeds = [Seed::from(prefix), Seed::from(&bump)];
    Call { from: &emission, to: &destination, authority: &rules, seeds: &seeds }.transfer(amount)
}
