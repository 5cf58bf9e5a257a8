//! What a client must know before it signs anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use atoll_api::http::{ErrorBody, Network, Pack};
use atoll_domain::job::PackRef;
use axum::Json;
use axum::extract::State;

use super::extract::{self, Anyone};
use crate::control::Control;
use crate::error::ApiError;

/// Network root, program, solver keys, packs.
#[utoipa::path(get, path = "/v1/network", operation_id = "network_show", tag = "network", responses((status = 200, body = Network), (status = 503, body = ErrorBody)))]
pub(crate) async fn show(State(control): State<Arc<Control>>, _: Anyone) -> Result<Json<Network>, ApiError> {
    let view = extract::market(&control)?;
    let mut packs: BTreeMap<(String, [u8; 32]), u32> = BTreeMap::new();
    for worker in control.store.workers().await? {
        for PackRef { name, sha256 } in worker.facts.packs {
            *packs.entry((name, sha256.0)).or_default() += u32::from(control.links.is_linked(worker.id));
        }
    }
    let pack = |((name, sha256), workers)| Pack { name, sha256: atoll_domain::key::Digest(sha256), workers };
    Ok(Json(Network {
        network_root: view.network.network_root,
        program_id: view.network.program_id,
        genesis_hash: view.network.genesis_hash,
        solvers: vec![control.keys.node.public()],
        epoch_s: u64::from(view.network.epoch_s),
        epoch_hold_s: u64::from(view.network.epoch_hold_s),
        attestor_owners: view.network.attestor_owners,
        packs: packs.into_iter().map(pack).collect(),
    }))
}
