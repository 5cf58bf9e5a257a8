//! Workers as anyone may see them.

use std::sync::Arc;

use atoll_api::http::{ErrorBody, WorkerView};
use axum::Json;
use axum::extract::State;

use super::extract::{self, Anyone};
use crate::control::Control;
use crate::error::ApiError;

/// Every worker that this operator knows and the chain shows.
#[utoipa::path(get, path = "/v1/workers", operation_id = "workers_list", tag = "market", responses((status = 200, body = Vec<WorkerView>), (status = 503, body = ErrorBody)))]
pub(crate) async fn list(State(control): State<Arc<Control>>, _: Anyone) -> Result<Json<Vec<WorkerView>>, ApiError> {
    let view = extract::market(&control)?;
    let known = control.store.workers().await?.into_iter().filter_map(|worker| {
        let offer = view.offers.get(&worker.id)?;
        Some(WorkerView {
            worker: worker.id,
            device_key: worker.device_key,
            supplier: offer.supplier,
            linked: control.links.is_linked(worker.id),
            facts: worker.facts,
            ask: offer.ask,
            devices_leased: offer.leased_mask.count_ones(),
            suspended: offer.suspended,
        })
    });
    Ok(Json(known.collect()))
}
