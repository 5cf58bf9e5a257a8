//! Draws a dispute's first panel, and votes for a seat of the panel that votes now.

use crate::shared::{
    Cx, Fault, Outcome, account, address,
    runtime::{now, sha256},
    slot::hash_for,
};
use atoll_interface::{
    Error,
    instruction::{DRAW, VoteDispute, VoteDisputeAccounts},
    layout::{ATTESTOR_SLASHED, Attestor, Config, Dispute, Table},
};
use pinocchio::{AccountView, Address};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [key, attestor, mut dispute, config] = cx.take(&VoteDisputeAccounts::FLAGS)?;
    let vote = VoteDispute::decode(cx.fields)?;
    let now = now()?;
    let own = *dispute.address().as_array();
    let data = account::bytes(cx.program, &config)?;
    let (_, seats) = Config::view_table(&data)?;
    let voter = if vote.choice == DRAW {
        address::expect(&attestor, &own)?;
        None
    } else {
        let number = seat(cx.program, &key, &attestor)?;
        let seat = seats.get(number).ok_or(Error::SeatUnknown)?;
        if !address::is(&key, &seat.key) {
            return Err(Error::SeatUnknown.into());
        }
        Some((number, seat))
    };
    let mut dispute = account::view_mut::<Dispute>(cx.program, &mut dispute)?;
    if voter.is_none() || dispute.lacks_draw() {
        let hash = hash_for(dispute.draw_slot)?;
        dispute.draw(sha256, (&hash, &own), seats, now)?;
    }
    match voter {
        Some(voter) => Ok(dispute.vote(voter, vote.choice, now)?),
        None => Ok(()),
    }
}

/// The seat of a key that staked for it and was not slashed.
#[inline(never)]
fn seat(program: &Address, key: &AccountView, attestor: &AccountView) -> Result<usize, Fault> {
    let attestor = account::view::<Attestor>(program, attestor)?;
    if !address::is(key, &attestor.key) {
        return Err(Error::NotAuthorised.into());
    }
    if attestor.flags & ATTESTOR_SLASHED != 0 {
        return Err(Error::AttestorSlashed.into());
    }
    Ok(usize::from(attestor.seat))
}
