//! Appeals against what a dispute's first panel said.

use crate::shared::{
    Cx, Outcome, account, address,
    runtime::now,
    token::{self, Call},
};
use atoll_interface::{
    Error,
    instruction::{Appeal, AppealAccounts},
    layout::{Config, Dispute, Table},
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [appellant, mut dispute, vault, source, config, _token] = cx.take(&AppealAccounts::FLAGS)?;
    Appeal::decode(cx.fields)?;
    let own = *dispute.address().as_array();
    let bond = {
        let data = account::bytes(cx.program, &config)?;
        let (_, seats) = Config::view_table(&data)?;
        let mut dispute = account::view_mut::<Dispute>(cx.program, &mut dispute)?;
        address::expect_derived(cx.program, &vault, seeds::dispute_vault(&own), dispute.vault_bump)?;
        dispute.appeal(appellant.address().as_array(), seats, now()?)?
    };
    if token::balance_beside(&source, &vault)? < bond {
        return Err(Error::FundsShort.into());
    }
    Call { from: &source, to: &vault, authority: &appellant, seeds: &[] }.transfer(bond)
}
