//! Ends a dispute whose times are over: books what it left of the leaf, thaws the lease, and pays the bonds.

use crate::shared::{
    Cx, Outcome, account, address,
    runtime::now,
    token::{self, Call, DisputeSeeds},
};
use atoll_interface::{
    Address as Bytes, Error,
    instruction::{CloseDispute, CloseDisputeAccounts},
    layout::{Dispute, Lease, Order},
    seeds,
};
use pinocchio::{AccountView, Address};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut dispute, vault, mut order, mut lease, mut opener, to_opener, to_appellant, to_supplier, mint, _token] =
        cx.take(&CloseDisputeAccounts::FLAGS)?;
    CloseDispute::decode(cx.fields)?;
    let now = now()?;
    let own = *dispute.address().as_array();
    let record = *account::view::<Dispute>(cx.program, &dispute)?;
    record.check_close(now)?;
    address::expect(&opener, &record.opener)?;
    address::expect(&lease, &record.lease)?;
    address::expect_derived(cx.program, &vault, seeds::dispute_vault(&own), record.vault_bump)?;
    token::expect_mint_of(&mint, &vault)?;
    thaw(cx.program, [&mut order, &mut lease], &record, now)?;

    let bonds = record.bonds(token::balance(&vault)?)?;
    let signer = DisputeSeeds::of(&record);
    let seeds = signer.seeds();
    for (to, wallet, amount) in [
        (&to_opener, &record.opener, bonds.opener),
        (&to_appellant, &record.appellant, bonds.appellant),
        (&to_supplier, &record.supplier, bonds.supplier),
    ] {
        expect_place(to, &vault, wallet, amount)?;
        if amount > 0 {
            Call { from: &vault, to, authority: &dispute, seeds: &seeds }.transfer(amount)?;
        }
    }
    if bonds.burned > 0 {
        Call { from: &vault, to: &mint, authority: &dispute, seeds: &seeds }.burn(bonds.burned)?;
    }
    Call { from: &vault, to: &opener, authority: &dispute, seeds: &seeds }.close()?;
    account::close(&mut dispute, &mut opener)
}

/// Who is paid names a token account of its wallet; the place of who is not holds the vault again.
#[inline(never)]
fn expect_place(to: &AccountView, vault: &AccountView, wallet: &Bytes, amount: u64) -> Outcome {
    if amount > 0 { token::expect_paid_to(to, vault, wallet) } else { address::expect(to, vault.address().as_array()) }
}

#[inline(never)]
fn thaw(program: &Address, [order, lease]: [&mut AccountView; 2], dispute: &Dispute, now: i64) -> Outcome {
    let order_address = *order.address().as_array();
    let mut order = account::view_mut::<Order>(program, order)?;
    let mut lease = account::view_mut::<Lease>(program, lease)?;
    if !address::same(&lease.order, &order_address) {
        return Err(Error::AddressWrong.into());
    }
    order.ripen(now);
    lease.begin(&order);
    Ok(lease.thaw(&mut order, dispute, now)?)
}
