//! Shows one wrong element of a case's commitment. The program computes it again: nobody is asked, so anyone may send it.

use crate::shared::{
    Cx, Outcome, account, address,
    runtime::{now, sha256},
};
use atoll_interface::{
    Error,
    capacity::{Keys, Shown, element},
    fraud::Progress,
    instruction::{AddFraudElement, AddFraudElementAccounts},
    layout::{FraudCase, Rules},
};
use pinocchio::{AccountView, Address};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut case, mut other, mut other_opener, rules] = cx.take(&AddFraudElementAccounts::FLAGS)?;
    let shown = AddFraudElement::decode(cx.fields)?;
    let alone = other.address() == case.address();
    let progress = {
        let rules = account::view::<Rules>(cx.program, &rules)?;
        let beside = if alone { None } else { Some(account::view::<FraudCase>(cx.program, &other)?) };
        let opener = beside.as_ref().map_or(*case.address().as_array(), |other| other.opener);
        address::expect(&other_opener, &opener)?;
        expect_wrong(cx.program, &case, &shown)?;
        let mut case = account::view_mut::<FraudCase>(cx.program, &mut case)?;
        case.count((shown.row, shown.column), beside.as_deref(), &rules, now()?)?
    };
    if progress == Progress::Joined { account::close(&mut other, &mut other_opener) } else { Ok(()) }
}

/// Whether the element shown is the committed one, and wrong.
#[inline(never)]
fn expect_wrong(program: &Address, case: &AccountView, element_of: &AddFraudElement<'_>) -> Outcome {
    let case = account::view::<FraudCase>(program, case)?;
    let &AddFraudElement { row, column, ref leaf, path } = element_of;
    let committed = Shown { row, column, leaf, path }.committed(sha256, &case.root, case.n)?;
    let keys = Keys::of(sha256, &case.seed, &case.device);
    if committed == element(sha256, &keys, case.n, row, column) { Err(Error::ElementRight.into()) } else { Ok(()) }
}
