//! Starts the waiting time of stake that no device requires.

use crate::shared::{Cx, Outcome, account, address, runtime::now};
use atoll_interface::{
    Error,
    instruction::{UnstakeRequest, UnstakeRequestAccounts},
    layout::{FleetPage, Rules},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [supplier, mut first_page, rules] = cx.take(&UnstakeRequestAccounts::FLAGS)?;
    let UnstakeRequest { amount } = UnstakeRequest::decode(cx.fields)?;
    let rules = account::view::<Rules>(cx.program, &rules)?;
    let mut first = account::view_mut::<FleetPage>(cx.program, &mut first_page)?;
    if first.page_no != 0 || !address::is(&supplier, &first.supplier) {
        return Err(Error::NotAuthorised.into());
    }
    Ok(first.unstake(amount, &rules, now()?)?)
}
