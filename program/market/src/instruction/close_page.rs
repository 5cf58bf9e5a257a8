//! Closes a page that holds nothing; page 0 with the stake vault.

use crate::shared::{
    Cx, Outcome, account, address,
    token::{self, Call, PageSeeds},
};
use atoll_interface::{
    Error,
    instruction::{ClosePage, ClosePageAccounts},
    layout::FleetPage,
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut supplier, mut page, vault, destination, _token] = cx.take(&ClosePageAccounts::FLAGS)?;
    ClosePage::decode(cx.fields)?;
    let own = *page.address().as_array();
    let (vault_bump, signer) = {
        let header = account::view::<FleetPage>(cx.program, &page)?;
        if !address::is(&supplier, &header.supplier) {
            return Err(Error::NotAuthorised.into());
        }
        header.check_close()?;
        (header.vault_bump, PageSeeds::of(&header))
    };
    if vault_bump == 0 {
        address::expect(&vault, &own)?;
        address::expect(&destination, &own)?;
    } else {
        address::expect_derived(cx.program, &vault, seeds::stake_vault(&own), vault_bump)?;
        token::expect_paid_to(&destination, &vault, supplier.address().as_array())?;
        let amount = token::balance(&vault)?;
        if amount > 0 {
            Call { from: &vault, to: &destination, authority: &page, seeds: &signer.seeds() }.transfer(amount)?;
        }
        Call { from: &vault, to: &supplier, authority: &page, seeds: &signer.seeds() }.close()?;
    }
    account::close(&mut page, &mut supplier)
}
