//! Votes for one root of an epoch. One attestor a transaction; the root that reaches the threshold is final.
//!
//! A key votes on rising epochs only, so on chain it can never vote for two roots of one, and as the threshold is more
//! than half of the seats no two roots of one epoch are ever final. When the set changes, epochs that are over by then are
//! closed, and a key without a seat votes no more: all votes of an epoch are of one set. An epoch that splits stays without
//! a root; leaves are cumulative, so the next one says everything.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    address, authority,
    runtime::now,
};
use atoll_interface::{
    Error,
    instruction::{PostEpoch, PostEpochAccounts},
    layout::{Attestor, Config, Epoch, Record, Table},
    network::epoch_at,
    seeds, votes,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [key, payer, mut attestor, mut epoch, config, _system] = cx.take(&PostEpochAccounts::FLAGS)?;
    let vote = PostEpoch::decode(cx.fields)?;
    let now = now()?;
    let data = account::bytes(cx.program, &config)?;
    let (set, seats) = Config::view_table(&data)?;
    match epoch_at(now, set.epoch_zero, set.epoch_s) {
        Some(current) if vote.index < current => {}
        _ => return Err(Error::EpochNotOver.into()),
    }
    if epoch_at(set.set_at, set.epoch_zero, set.epoch_s).is_some_and(|first| vote.index < first) {
        return Err(Error::EpochClosed.into());
    }
    let seat = {
        let mut attestor = account::view_mut::<Attestor>(cx.program, &mut attestor)?;
        authority::expect_attestor(&attestor, &key, seats)?;
        if vote.index < attestor.next_epoch {
            return Err(Error::VoteRepeated.into());
        }
        attestor.next_epoch = vote.index.checked_add(1).ok_or(Error::Overflow)?;
        attestor.seat
    };
    if account::is_vacant(&epoch) {
        let index = vote.index.to_le_bytes();
        let seeds = seeds::epoch(&index, &vote.root);
        let bump = account::make(&Make {
            program: cx.program,
            payer: &payer,
            account: &epoch,
            seeds: &seeds,
            space: Epoch::SIZE,
            owner: cx.program,
        })?;
        let mut record = account::fresh::<Epoch>(&mut epoch)?;
        record.bump = bump;
        record.index = vote.index;
        record.root = vote.root;
        record.rent_payer = *payer.address().as_array();
        record.posted_at = now;
    }
    let mut record = account::view_mut::<Epoch>(cx.program, &mut epoch)?;
    if record.index != vote.index || !address::same(&record.root, &vote.root) {
        return Err(Error::AddressWrong.into());
    }
    let record = &mut *record;
    votes::cast(&mut record.votes, &mut record.vote_count, seat)?;
    if record.final_at == 0 && record.vote_count >= set.threshold {
        record.final_at = now;
    }
    Ok(())
}
