//! The device market, by model.

use std::sync::Arc;

use atoll_api::http::{DeviceModel, ErrorBody};
use axum::Json;
use axum::extract::State;

use super::extract::{self, Anyone};
use crate::app::candidates;
use crate::control::Control;
use crate::error::ApiError;

/// Models of the catalogue with what is offered and free now.
#[utoipa::path(get, path = "/v1/devices", operation_id = "devices_list", tag = "market", responses((status = 200, body = Vec<DeviceModel>), (status = 503, body = ErrorBody)))]
pub(crate) async fn list(State(control): State<Arc<Control>>, _: Anyone) -> Result<Json<Vec<DeviceModel>>, ApiError> {
    let view = extract::market(&control)?;
    let workers = candidates::view(&control, &view).await?;
    let model = |model: &crate::app::market::CatalogueModel| {
        let mut row = DeviceModel {
            model: model.name.clone(),
            class: model.class.to_owned(),
            devices: 0,
            devices_free: 0,
            ask_min: None,
        };
        for worker in workers.iter().filter(|worker| worker.linked && worker.offer.model == model.name) {
            let offer = &worker.offer;
            row.devices += offer.devices_mask.count_ones();
            let free = offer.devices_mask & !offer.leased_mask & !worker.reserved_mask;
            if free != 0 && !offer.draining && !offer.suspended {
                row.devices_free += free.count_ones();
                row.ask_min = Some(row.ask_min.map_or(offer.ask, |least| least.min(offer.ask)));
            }
        }
        row
    };
    Ok(Json(view.models.iter().map(model).collect()))
}
