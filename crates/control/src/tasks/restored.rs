//! Ends the node when its store went back: somebody put an older copy in its place while the node ran.
//!
//! No reconciler: it runs on a period alone, and ending is its one decision. What a node remembers of workers and pods is
//! younger than such a store, and what the store knows is older than what the chain was told. At its next start the node
//! brings the store up to the operator's notes (`adopt`), and workers say again what runs. Until it has ended its
//! reconcilers rest, and it attests nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::store::Result;

/// How often. Whoever attests looks before each epoch as well.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

/// Whether the store is older than this node has seen it before.
async fn went_back(control: &Control) -> Result<bool> {
    let epoch = control.store.epoch_latest().await?.map(|epoch| epoch.index);
    let command = control.store.last_command().await?;
    Ok(control.caught_up.went_back(epoch, Some(command)))
}

/// Runs until `stop`, or until the store went back: then it returns, and with it the node ends.
pub(super) async fn watch(control: Arc<Control>, stop: CancellationToken) {
    loop {
        match went_back(&control).await {
            Ok(false) => {}
            Ok(true) => {
                tracing::error!(
                    "the store is older than this node has seen it: a copy was put in its place. This node stops; start it \
                     again, and it brings the store up to the operator's notes"
                );
                return;
            }
            Err(error) => tracing::debug!(%error, "the store was not looked at; the next look does"),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_PERIOD) => {}
        }
    }
}
