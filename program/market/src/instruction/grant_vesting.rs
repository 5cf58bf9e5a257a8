//! Promises tokens over time and locks them: what is promised is there from the first second on. Nobody takes it back.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    address, authority,
    runtime::now,
    token::{self, Call, MakeVault},
};
use atoll_interface::{
    Error,
    instruction::{GrantVesting, GrantVestingAccounts},
    layout::{Config, Record, Rules, Vesting},
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [admin, mut vesting, vault, source, emission, mint, config, mut rules, ..] =
        cx.take(&GrantVestingAccounts::FLAGS)?;
    let grant = GrantVesting::decode(cx.fields)?;
    {
        let config = account::view::<Config>(cx.program, &config)?;
        authority::expect_admin(&config, &admin)?;
        address::expect(&mint, &config.mint)?;
    }
    grant.check(now()?)?;
    let atl = *mint.address().as_array();
    {
        let owner = *rules.address().as_array();
        let mut rules = account::view_mut::<Rules>(cx.program, &mut rules)?;
        let rewards = token::owned(&emission, &atl, &owner)?;
        rules.promise(grant.total, token::supply(&mint)?, rewards)?;
    }
    let own = *vesting.address().as_array();
    let bump = account::make(&Make {
        program: cx.program,
        payer: &admin,
        account: &vesting,
        seeds: &seeds::vesting(&grant.beneficiary, &grant.n.to_le_bytes()),
        space: Vesting::SIZE,
        owner: cx.program,
    })?;
    let vault_bump = token::make(&MakeVault {
        program: cx.program,
        payer: &admin,
        vault: &vault,
        mint: &mint,
        seeds: seeds::vesting_vault(&own),
        owner: &own,
    })?;
    if token::owned(&source, &atl, admin.address().as_array())? < grant.total {
        return Err(Error::FundsShort.into());
    }
    Call { from: &source, to: &vault, authority: &admin, seeds: &[] }.transfer(grant.total)?;
    let mut record = account::fresh::<Vesting>(&mut vesting)?;
    record.bump = bump;
    record.vault_bump = vault_bump;
    record.open(&grant);
    Ok(())
}
