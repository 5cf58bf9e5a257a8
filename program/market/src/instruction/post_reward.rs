//! Votes for one root of an hour of rewards, as `post_epoch` does for an epoch of settlement: one attestor a transaction,
//! on rising hours only, final at more than half of the seats.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    address, authority,
    runtime::now,
};
use atoll_interface::{
    Error,
    instruction::{PostReward, PostRewardAccounts},
    layout::{Attestor, Config, Record, Reward, Rules, Table},
    network::epoch_at,
    seeds,
};

/// Seconds of an hour.
const HOUR: u32 = 3_600;

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [key, payer, mut attestor, mut reward, config, rules, _system] = cx.take(&PostRewardAccounts::FLAGS)?;
    let vote = PostReward::decode(cx.fields)?;
    let now = now()?;
    let data = account::bytes(cx.program, &config)?;
    let (set, seats) = Config::view_table(&data)?;
    {
        let rules = account::view::<Rules>(cx.program, &rules)?;
        rules.check_reward(vote.hour, vote.total, now)?;
        if epoch_at(set.set_at, rules.reward_zero, HOUR).is_some_and(|first| vote.hour < first) {
            return Err(Error::EpochClosed.into());
        }
    }
    let seat = {
        let mut attestor = account::view_mut::<Attestor>(cx.program, &mut attestor)?;
        authority::expect_attestor(&attestor, &key, seats)?;
        attestor.vote_hour(vote.hour)?;
        attestor.seat
    };
    if account::is_vacant(&reward) {
        let (hour, total) = (vote.hour.to_le_bytes(), vote.total.to_le_bytes());
        let bump = account::make(&Make {
            program: cx.program,
            payer: &payer,
            account: &reward,
            seeds: &seeds::reward(&hour, &vote.root, &total),
            space: Reward::SIZE,
            owner: cx.program,
        })?;
        let mut record = account::fresh::<Reward>(&mut reward)?;
        record.bump = bump;
        record.hour = vote.hour;
        record.root = vote.root;
        record.total = vote.total;
        record.rent_payer = *payer.address().as_array();
        record.posted_at = now;
    }
    let mut record = account::view_mut::<Reward>(cx.program, &mut reward)?;
    if record.hour != vote.hour || record.total != vote.total || !address::same(&record.root, &vote.root) {
        return Err(Error::AddressWrong.into());
    }
    Ok(record.vote(seat, set.threshold, now)?)
}
