//! What a job would cost now, and why workers would not serve it.

use std::collections::{BTreeMap, BTreeSet};

use atoll_api::http::{Quote, QuoteRequest, RefusedWorker};
use atoll_domain::job::{DEVICES_MAX, PackRef, SECONDS_MAX};
use atoll_domain::key::Digest;
use atoll_domain::money::UsdMicrosPerHour;
use atoll_domain::placement::{Candidate, Plan, Problem, place};

use super::market::{CatalogueModel, MarketView};
use super::{candidates, order};
use crate::control::Control;
use crate::error::{ApiError, Code};

/// The catalogue's model of a name.
///
/// # Errors
/// [`Code::UnknownModel`], naming those there are.
pub fn model<'a>(view: &'a MarketView, name: &str) -> Result<&'a CatalogueModel, ApiError> {
    view.model(name).ok_or_else(|| {
        let known: Vec<&str> = view.models.iter().map(|model| model.name.as_str()).collect();
        let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        let message =
            format!("there is no device model `{shown}`: choose one of {} (`atoll gpu list`)", known.join(", "));
        ApiError::new(Code::UnknownModel, message)
    })
}

/// Everyone who would not serve, and why. When the gang does not fit, those with too few devices are named too.
#[must_use]
pub fn refusals(plan: &Plan, view: &[Candidate], devices: u32) -> Vec<RefusedWorker> {
    let refused = |(worker, refusal): (&_, &atoll_domain::placement::Refusal)| RefusedWorker {
        worker: *worker,
        reason: refusal.to_string(),
    };
    let mut all: Vec<RefusedWorker> = plan.refusals.iter().map(refused).collect();
    if plan.placed.is_empty() {
        for fit in view.iter().filter(|candidate| !plan.refusals.contains_key(&candidate.worker)) {
            let free = (fit.offer.devices_mask & !fit.offer.leased_mask & !fit.reserved_mask).count_ones();
            let total = plan.devices_free;
            let reason = format!(
                "would serve with {free} of {devices} devices, but all together have {total}: ask for fewer, or wait"
            );
            all.push(RefusedWorker { worker: fit.worker, reason });
        }
    }
    all
}

/// Who would serve `problem` now.
///
/// # Errors
/// When the store fails.
pub async fn plan(control: &Control, view: &MarketView, problem: &Problem) -> Result<(Plan, Vec<Candidate>), ApiError> {
    let candidates = candidates::view(control, view).await?;
    Ok((place(problem, &candidates, &Plan::default()), candidates))
}

/// Quotes a job. Nothing is reserved.
///
/// # Errors
/// [`Code::BadSpec`] or [`Code::UnknownModel`].
pub async fn quote(control: &Control, view: &MarketView, request: &QuoteRequest) -> Result<Quote, ApiError> {
    check(request)?;
    model(view, &request.model)?;
    let pack_sha256 = pack(control, &request.pack).await?;
    let problem = Problem {
        model: request.model.clone(),
        devices: request.devices,
        price_max: request.price_max,
        pack: PackRef { name: request.pack.clone(), sha256: pack_sha256.unwrap_or(Digest([0; 32])) },
        excluded: BTreeSet::new(),
        setbacks: BTreeMap::new(),
        strangers: control.config.strangers,
        now: control.now(),
    };
    let (plan, candidates) = plan(control, view, &problem).await?;
    let chosen = |placed: &atoll_domain::placement::Placed| view.offers.get(&placed.worker).map(|offer| offer.ask);
    let escrow = order::escrow(
        request.price_max,
        request.devices,
        request.seconds_max,
        view.feed_usd_micros,
        view.network.fee_bps,
    );
    Ok(Quote {
        fits: !plan.placed.is_empty(),
        devices_free: plan.devices_free,
        price: plan.placed.iter().filter_map(chosen).max(),
        feed_usd_micros: view.feed_usd_micros,
        feed_by_operator: view.feed_by_operator,
        escrow: escrow.map_err(|misfit| ApiError::new(Code::BadSpec, misfit.to_string()))?,
        pack_sha256,
        refusals: refusals(&plan, &candidates, request.devices),
    })
}

fn check(request: &QuoteRequest) -> Result<(), ApiError> {
    let bad = |message: String| Err(ApiError::new(Code::BadSpec, message));
    if request.devices == 0 || request.devices > DEVICES_MAX {
        return bad(format!("`devices` is {}: ask for 1 to {DEVICES_MAX}", request.devices));
    }
    if request.seconds_max == 0 || request.seconds_max > SECONDS_MAX {
        return bad(format!("`seconds_max` is {}: ask for more than 0 and at most {SECONDS_MAX}", request.seconds_max));
    }
    if request.price_max.0 == 0 || request.price_max > UsdMicrosPerHour::MAX {
        return bad(format!(
            "`price_max` is {}: it must be above 0 and at most {}",
            request.price_max,
            UsdMicrosPerHour::MAX
        ));
    }
    Ok(())
}

/// The digest that most workers, linked ones first, have under a pack's name.
async fn pack(control: &Control, name: &str) -> Result<Option<Digest>, ApiError> {
    let mut counts = std::collections::BTreeMap::<Digest, u32>::new();
    for worker in control.store.workers().await? {
        let weight = if control.links.is_linked(worker.id) { 1000 } else { 1 };
        for pack in worker.facts.packs.into_iter().filter(|pack| pack.name == name) {
            *counts.entry(pack.sha256).or_default() += weight;
        }
    }
    Ok(counts.into_iter().max_by_key(|(_, count)| *count).map(|(sha256, _)| sha256))
}
