//! Pays out stake whose waiting time is over, to the supplier and nowhere else.

use crate::shared::{
    Cx, Outcome, account, address,
    runtime::now,
    token::{self, Call, PageSeeds},
};
use atoll_interface::{
    Error,
    instruction::{UnstakeWithdraw, UnstakeWithdrawAccounts},
    layout::FleetPage,
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut first_page, vault, destination, _token] = cx.take(&UnstakeWithdrawAccounts::FLAGS)?;
    UnstakeWithdraw::decode(cx.fields)?;
    let own = *first_page.address().as_array();
    let (amount, signer) = {
        let mut first = account::view_mut::<FleetPage>(cx.program, &mut first_page)?;
        if first.page_no != 0 {
            return Err(Error::AddressWrong.into());
        }
        let amount = first.withdraw(now()?)?;
        address::expect_derived(cx.program, &vault, seeds::stake_vault(&own), first.vault_bump)?;
        token::expect_paid_to(&destination, &vault, &first.supplier)?;
        (amount, PageSeeds::of(&first))
    };
    Call { from: &vault, to: &destination, authority: &first_page, seeds: &signer.seeds() }.transfer(amount)
}
