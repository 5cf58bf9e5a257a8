//! Offers to take co-stake on some terms.

use crate::shared::{
    Cx, Outcome,
    account::{self, Make},
    address,
};
use atoll_interface::{
    Error,
    arithmetic::BPS,
    instruction::{CostakeOffer, CostakeOfferAccounts},
    layout::{CO_STAKE_OFFERED, CoStake, FleetPage, Record},
    seeds,
    stake::OFFERS_MAX,
};

#[inline(never)]
pub(crate) fn run(cx: &mut Cx<'_>) -> Outcome {
    let [supplier, mut first_page, mut costake, _system] = cx.take(&CostakeOfferAccounts::FLAGS)?;
    let offer = CostakeOffer::decode(cx.fields)?;
    if offer.n >= OFFERS_MAX {
        return Err(Error::OffersFull.into());
    }
    if offer.amount == 0 || u64::from(offer.reward_bps) > BPS {
        return Err(Error::ParameterOutOfRange.into());
    }
    let page = *first_page.address().as_array();
    {
        let mut first = account::view_mut::<FleetPage>(cx.program, &mut first_page)?;
        if first.page_no != 0 || !address::is(&supplier, &first.supplier) {
            return Err(Error::NotAuthorised.into());
        }
        first.offers = first.offers.checked_add(1).ok_or(Error::Overflow)?;
    }
    let number = offer.n.to_le_bytes();
    let bump = account::make(&Make {
        program: cx.program,
        payer: &supplier,
        account: &costake,
        seeds: &seeds::costake(&page, &number),
        space: CoStake::SIZE,
        owner: cx.program,
    })?;
    let mut record = account::fresh::<CoStake>(&mut costake)?;
    record.bump = bump;
    record.state = CO_STAKE_OFFERED;
    record.n = offer.n;
    record.reward_bps = offer.reward_bps;
    record.page = page;
    record.amount = offer.amount;
    Ok(())
}
