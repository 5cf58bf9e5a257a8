//! Makes or changes a session key with its own vault.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    address,
    token::{self, Call, MakeVault},
};
use atoll_interface::{
    Error,
    instruction::{SetBudget, SetBudgetAccounts},
    layout::{BUDGET_REVOKED, Budget, Config, Record},
    seeds,
};
use pinocchio::cpi::Seed;

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [renter, mut budget, vault, wallet_token, mint, config, ..] = cx.take(&SetBudgetAccounts::FLAGS)?;
    let set = SetBudget::decode(cx.fields)?;
    address::expect(&mint, &account::view::<Config>(cx.program, &config)?.mint)?;
    if set.revoked > 1 {
        return Err(Error::InstructionMalformed.into());
    }
    let (owner, wallet) = (*budget.address().as_array(), *renter.address().as_array());
    if account::is_vacant(&budget) {
        let seeds = seeds::budget(&wallet, &set.key);
        let bump = account::make(&Make {
            program: cx.program,
            payer: &renter,
            account: &budget,
            seeds: &seeds,
            space: Budget::SIZE,
            owner: cx.program,
        })?;
        let vault_bump = token::make(&MakeVault {
            program: cx.program,
            payer: &renter,
            vault: &vault,
            mint: &mint,
            seeds: seeds::budget_vault(&owner),
            owner: &owner,
        })?;
        let mut record = account::fresh::<Budget>(&mut budget)?;
        record.bump = bump;
        record.vault_bump = vault_bump;
        record.renter = wallet;
        record.key = set.key;
    }
    let (bump, vault_bump) = {
        let mut record = account::view_mut::<Budget>(cx.program, &mut budget)?;
        if !address::same(&record.renter, &wallet) || !address::same(&record.key, &set.key) {
            return Err(Error::NotAuthorised.into());
        }
        record.order_max = set.order_max;
        record.day_max = set.day_max;
        record.expires_at = set.expires_at;
        record.flags = if set.revoked == 1 { BUDGET_REVOKED } else { 0 };
        ([record.bump], record.vault_bump)
    };
    address::expect_derived(cx.program, &vault, seeds::budget_vault(&owner), vault_bump)?;
    token::expect_owner(&wallet_token, mint.address().as_array(), &wallet)?;
    if set.deposit > 0 {
        if token::read(&wallet_token, mint.address().as_array())?.amount < set.deposit {
            return Err(Error::FundsShort.into());
        }
        Call { from: &wallet_token, to: &vault, authority: &renter, seeds: &[] }.transfer(set.deposit)?;
    }
    if set.withdraw > 0 {
        if token::read(&vault, mint.address().as_array())?.amount < set.withdraw {
            return Err(Error::FundsShort.into());
        }
        let [prefix, of, key] = seeds::budget(&wallet, &set.key);
        let seeds = [Seed::from(prefix), Seed::from(of), Seed::from(key), Seed::from(&bump)];
        Call { from: &vault, to: &wallet_token, authority: &budget, seeds: &seeds }.transfer(set.withdraw)?;
    }
    Ok(())
}
