//! Sets the price of ATL, by the operator of a local cluster.

use crate::shared::{Cx, Outcome, account, address, runtime::now};
use atoll_interface::{
    Error,
    instruction::{SetFeed, SetFeedAccounts},
    layout::{Config, PriceFeed},
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [admin, config, mut feed] = cx.take(&SetFeedAccounts::FLAGS)?;
    let price = SetFeed::decode(cx.fields)?;
    if !address::is(&admin, &account::view::<Config>(cx.program, &config)?.admin) {
        return Err(Error::NotAuthorised.into());
    }
    if price.uusd_per_atl == 0 {
        return Err(Error::ParameterOutOfRange.into());
    }
    let mut feed = account::view_mut::<PriceFeed>(cx.program, &mut feed)?;
    feed.uusd_per_atl = price.uusd_per_atl;
    feed.confidence_uusd = price.confidence_uusd;
    feed.published_at = now()?;
    Ok(())
}
