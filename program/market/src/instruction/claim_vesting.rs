//! Pays what is due of a vesting, to a token account of its beneficiary and nowhere else.

use crate::shared::{
    Cx, Outcome, account, address,
    runtime::now,
    token::{self, Call, VestingSeeds},
};
use atoll_interface::{
    instruction::{ClaimVesting, ClaimVestingAccounts},
    layout::{Rules, Vesting},
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut vesting, vault, destination, mut rules, _token] = cx.take(&ClaimVestingAccounts::FLAGS)?;
    ClaimVesting::decode(cx.fields)?;
    let own = *vesting.address().as_array();
    let (amount, signer) = {
        let mut vesting = account::view_mut::<Vesting>(cx.program, &mut vesting)?;
        let mut rules = account::view_mut::<Rules>(cx.program, &mut rules)?;
        address::expect_derived(cx.program, &vault, seeds::vesting_vault(&own), vesting.vault_bump)?;
        token::expect_paid_to(&destination, &vault, &vesting.beneficiary)?;
        (vesting.claim(&mut rules, now()?)?, VestingSeeds::of(&vesting))
    };
    Call { from: &vault, to: &destination, authority: &vesting, seeds: &signer.seeds() }.transfer(amount)
}
