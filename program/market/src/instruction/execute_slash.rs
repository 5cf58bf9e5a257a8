//! Slashes the stake that a proven case puts at risk: the harmed renter first, then who opened the case, the rest is burned.

use crate::shared::{
    Cx, Outcome, account, address,
    runtime::now,
    token::{self, Call, PageSeeds},
};
use atoll_interface::{
    Error,
    instruction::{ExecuteSlash, ExecuteSlashAccounts},
    layout::{DeviceKey, FleetPage, FraudCase, Rules, Table},
    seeds,
};
use pinocchio::{AccountView, Address};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut case, mut opener, mut device_key, mut page, mut first_page, vault, mint, bounty, refund, rules, _token] =
        cx.take(&ExecuteSlashAccounts::FLAGS)?;
    ExecuteSlash::decode(cx.fields)?;
    let (slash, signer, renter) = {
        let case = account::view::<FraudCase>(cx.program, &case)?;
        let rules = account::view::<Rules>(cx.program, &rules)?;
        case.check_execute(&rules, now()?)?;
        address::expect(&opener, &case.opener)?;
        mark(cx.program, &case, &mut device_key, &mut page)?;
        address::expect(&first_page, &case.first_page)?;
        let own = *first_page.address().as_array();
        let mut first = account::view_mut::<FleetPage>(cx.program, &mut first_page)?;
        address::expect_derived(cx.program, &vault, seeds::stake_vault(&own), first.vault_bump)?;
        (first.slash_device(&case, &rules)?, PageSeeds::of(&first), case.renter)
    };
    token::expect_paid_to(&bounty, &vault, opener.address().as_array())?;
    if slash.refund > 0 {
        token::expect_paid_to(&refund, &vault, &renter)?;
    } else {
        address::expect(&refund, vault.address().as_array())?;
    }
    let seeds = signer.seeds();
    for (to, amount) in [(&refund, slash.refund), (&bounty, slash.bounty)] {
        if amount > 0 {
            Call { from: &vault, to, authority: &first_page, seeds: &seeds }.transfer(amount)?;
        }
    }
    if slash.burned > 0 {
        Call { from: &vault, to: &mint, authority: &first_page, seeds: &seeds }.burn(slash.burned)?;
    }
    account::close(&mut case, &mut opener)
}

/// Marks key and worker as slashed. A page that was closed meanwhile holds no worker any more.
#[inline(never)]
fn mark(program: &Address, case: &FraudCase, device_key: &mut AccountView, page: &mut AccountView) -> Outcome {
    address::expect(page, &case.page)?;
    let mut key = account::view_mut::<DeviceKey>(program, device_key)?;
    if !address::same(&key.key, &case.device) || !address::same(&key.page, &case.page) {
        return Err(Error::AddressWrong.into());
    }
    if account::is_vacant(page) {
        return Ok(key.slash(None)?);
    }
    let number = usize::from(key.slot);
    let mut data = account::bytes_mut(program, page)?;
    let (_, rows) = FleetPage::view_table_mut(&mut data)?;
    Ok(key.slash(rows.get_mut(number))?)
}
