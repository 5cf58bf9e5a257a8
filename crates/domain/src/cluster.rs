//! Clusters and pods: overlay addresses, roles, pod states.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The place of a pod in its cluster's overlay; never given twice in a cluster's life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OverlayIndex(u16);

impl OverlayIndex {
    /// The most indices of one cluster: the /16 without its network, the last block and broadcast.
    pub const MAX: u16 = 65_000;

    /// The index, unless the cluster has used up its addresses.
    #[must_use]
    pub const fn new(index: u16) -> Option<Self> {
        if index < Self::MAX { Some(Self(index)) } else { None }
    }

    /// The index of an address; none when it is no pod's.
    #[must_use]
    pub const fn of_address(address: Ipv4Addr) -> Option<Self> {
        match address.octets() {
            [10, 77, high, low] => match u16::from_be_bytes([high, low]).checked_sub(1) {
                Some(index) => Self::new(index),
                None => None,
            },
            _ => None,
        }
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The pod's address: 10.77.0.1 for index 0.
    #[must_use]
    pub const fn address(self) -> Ipv4Addr {
        let [high, low] = (self.0 + 1).to_be_bytes();
        Ipv4Addr::new(10, 77, high, low)
    }
}

/// What a pod does for its cluster's runtime.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodRole {
    /// Runs the runtime's head and the job's command.
    Head,
    /// Joins the head.
    Node,
}

impl PodRole {
    /// The word in the pod's environment and in the store.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Node => "node",
        }
    }
}

/// Where a pod stands, as its worker reports it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodState {
    /// Asked for; the worker has not answered yet.
    Requested,
    /// Its network stands and its overlay key is signed; the tenant's program does not run yet.
    Prepared,
    /// The tenant's program runs.
    Running,
    /// It ended or was stopped by its worker.
    Exited,
    /// Its worker was lost.
    Lost,
}

impl PodState {
    /// The word on the wire and in the store.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Prepared => "prepared",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Lost => "lost",
        }
    }

    /// Whether the pod is gone for good.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Exited | Self::Lost)
    }
}

impl fmt::Display for PodState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_map_to_distinct_addresses_inside_the_overlay() {
        assert_eq!(OverlayIndex(0).address(), Ipv4Addr::new(10, 77, 0, 1));
        assert_eq!(OverlayIndex(254).address(), Ipv4Addr::new(10, 77, 0, 255));
        assert_eq!(OverlayIndex(255).address(), Ipv4Addr::new(10, 77, 1, 0));
        assert_eq!(OverlayIndex::new(OverlayIndex::MAX), None);
        for index in [0, 1, 254, 255, OverlayIndex::MAX - 1] {
            let index = OverlayIndex(index);
            assert_eq!(OverlayIndex::of_address(index.address()), Some(index));
        }
        for foreign in [[10, 77, 0, 0], [10, 78, 0, 1], [10, 77, 255, 255]] {
            assert_eq!(OverlayIndex::of_address(Ipv4Addr::from(foreign)), None);
        }
    }
}
