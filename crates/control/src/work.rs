//! What a node does by itself, beside answering: its reconcilers, and what its links leave to be written down.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::control::Control;
use crate::{link, tasks};

/// Starts all of it. The tasks end when `stop` is cancelled, and none before: one that does is broken, and the node with
/// it.
#[must_use]
pub fn spawn(control: &Arc<Control>, stop: &CancellationToken) -> JoinSet<()> {
    let mut set = tasks::spawn(control, stop);
    set.spawn(atoll_life::bound(link::flush_observations(Arc::clone(control), stop.clone())));
    set.spawn(atoll_life::bound(link::attend(Arc::clone(control), stop.clone())));
    set
}

/// The same as one future, which ends when all is over.
pub async fn run(control: Arc<Control>, stop: CancellationToken) {
    let mut set = spawn(&control, &stop);
    while set.join_next().await.is_some() {}
}
