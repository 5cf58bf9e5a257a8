//! Burns half of an order's fees and sends the rest to the treasury.

use crate::shared::{
    Cx, Outcome, account, address,
    token::{self, Call},
};
use atoll_interface::{
    Error,
    instruction::{CollectFees, CollectFeesAccounts},
    layout::{Config, Order},
    seeds,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [mut order, vault, mint, treasury, config, _token] = cx.take(&CollectFeesAccounts::FLAGS)?;
    CollectFees::decode(cx.fields)?;
    {
        let config = account::view::<Config>(cx.program, &config)?;
        address::expect(&mint, &config.mint)?;
        address::expect(&treasury, &config.treasury)?;
    }
    let order_address = *order.address().as_array();
    let (split, signer) = {
        let mut order = account::view_mut::<Order>(cx.program, &mut order)?;
        address::expect_derived(cx.program, &vault, seeds::order_vault(&order_address), order.vault_bump)?;
        if order.fees == 0 {
            return Err(Error::NothingToDo.into());
        }
        (order.collect()?, token::OrderSeeds::of(&order))
    };
    if split.burned > 0 {
        Call { from: &vault, to: &mint, authority: &order, seeds: &signer.seeds() }.burn(split.burned)?;
    }
    if split.treasury > 0 {
        Call { from: &vault, to: &treasury, authority: &order, seeds: &signer.seeds() }.transfer(split.treasury)?;
    }
    Ok(())
}
