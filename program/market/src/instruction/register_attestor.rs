//! Stakes for a seat of the attestor set.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    address,
    runtime::now,
    token::{self, Call, MakeVault},
};
use atoll_interface::{
    Error,
    instruction::{RegisterAttestor, RegisterAttestorAccounts},
    layout::{Attestor, Config, Record, Table},
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [owner, key, mut attestor, vault, source, mint, config, ..] = cx.take(&RegisterAttestorAccounts::FLAGS)?;
    let RegisterAttestor { seat } = RegisterAttestor::decode(cx.fields)?;
    let stake = {
        let data = account::bytes(cx.program, &config)?;
        let (config, seats) = Config::view_table(&data)?;
        address::expect(&mint, &config.mint)?;
        let holder = seats.get(usize::from(seat)).ok_or(Error::SeatUnknown)?;
        if !address::is(&owner, &holder.owner) || !address::is(&key, &holder.key) {
            return Err(Error::SeatUnknown.into());
        }
        config.attestor_stake
    };
    let (voter, holder) = (*key.address().as_array(), *attestor.address().as_array());
    let bump = account::make(&Make {
        program: cx.program,
        payer: &owner,
        account: &attestor,
        seeds: &seeds::attestor(&voter),
        space: Attestor::SIZE,
        owner: cx.program,
    })?;
    let vault_bump = token::make(&MakeVault {
        program: cx.program,
        payer: &owner,
        vault: &vault,
        mint: &mint,
        seeds: seeds::attestor_vault(&holder),
        owner: &holder,
    })?;
    if token::read(&source, mint.address().as_array())?.amount < stake {
        return Err(Error::FundsShort.into());
    }
    if stake > 0 {
        Call { from: &source, to: &vault, authority: &owner, seeds: &[] }.transfer(stake)?;
    }
    let mut record = account::fresh::<Attestor>(&mut attestor)?;
    record.bump = bump;
    record.vault_bump = vault_bump;
    record.seat = seat;
    record.owner = *owner.address().as_array();
    record.key = voter;
    record.stake = stake;
    record.registered_at = now()?;
    Ok(())
}
