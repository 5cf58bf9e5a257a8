//! Every worker as placement sees it: the chain's view, the store's reservations, the links.

use atoll_domain::placement::Candidate;

use super::market::MarketView;
use crate::control::Control;
use crate::store::Result;

/// All workers that the chain shows and that ever linked to this operator, in the order of their ids.
///
/// # Errors
/// When the store fails.
pub async fn view(control: &Control, market: &MarketView) -> Result<Vec<Candidate>> {
    let reserved = control.store.devices_reserved(control.now()).await?;
    let known = control.store.workers().await?;
    let candidates = known.into_iter().filter_map(|worker| {
        let offer = market.offers.get(&worker.id)?.clone();
        Some(Candidate {
            worker: worker.id,
            offer,
            reserved_mask: reserved.get(&worker.id).copied().unwrap_or_default(),
            linked: control.links.is_linked(worker.id),
            packs: worker.facts.packs,
            limits: worker.facts.limits,
        })
    });
    Ok(candidates.collect())
}
