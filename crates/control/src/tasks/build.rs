//! Says that this build of `atoll` is alive over the store, and ends the node when the store has moved on without it.
//!
//! No reconciler: it runs on a period alone, and ending is its one decision. What a build may do over a store is the
//! store's (`store/sql/builds.rs`).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::store::StoreError;

/// How often. The store counts a build as alive for six of these.
const BEAT_PERIOD: Duration = Duration::from_secs(10);

/// Runs until `stop`, or until this build is too old: then it returns, and with it the node ends.
pub(super) async fn beat(control: Arc<Control>, stop: CancellationToken) {
    loop {
        match control.store.beat().await {
            Ok(()) => {}
            Err(error @ StoreError::Outdated { .. }) => {
                tracing::error!(%error, "this node stops");
                return;
            }
            Err(error) => tracing::warn!(%error, "the store was not told that this node lives; the next beat does"),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(BEAT_PERIOD) => {}
        }
    }
}
