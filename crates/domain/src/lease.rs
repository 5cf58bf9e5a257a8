//! Leases: devices locked for one order, and why they are given back.

use serde::{Deserialize, Serialize};

/// Why a lease's slots are released before their end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseReason {
    /// The work is done.
    Done,
    /// The renter stopped.
    Stopped,
    /// The worker was lost.
    Lost,
    /// The worker leaves by its own wish.
    Leave,
}
