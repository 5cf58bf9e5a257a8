//! Counts the votes of a proposal.

use crate::shared::{Cx, Outcome, account, runtime::now};
use atoll_interface::{
    instruction::{Queue, QueueAccounts},
    layout::{Proposal, Rules},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut proposal, rules] = cx.take(&QueueAccounts::FLAGS)?;
    Queue::decode(cx.fields)?;
    let rules = account::view::<Rules>(cx.program, &rules)?;
    Ok(account::view_mut::<Proposal>(cx.program, &mut proposal)?.queue(&rules, now()?)?)
}
