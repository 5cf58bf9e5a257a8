//! Workers: what a machine says of itself, and what makes it fit for whom.

use serde::{Deserialize, Serialize};

use crate::key::{Address, PublicKey};
use crate::money::UsdMicrosPerHour;

/// How well a worker can hold a pod to its limits.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Limits {
    /// Memory, CPU and process counts are enforced by cgroups.
    Enforced,
    /// They are not: the worker is *not for strangers*.
    Weak {
        /// What is missing and how to cure it.
        why: String,
    },
}

/// What the probe found. Claims of the machine, not yet proven.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// The processor's name.
    pub cpu: String,
    /// Logical processors.
    pub cpu_count: u32,
    /// Installed memory.
    pub memory_bytes: u64,
    /// Free space where pods live.
    pub disk_free_bytes: u64,
    /// Sequential write speed there, measured with fsync.
    pub disk_write_mib_s: u32,
    /// Devices offered, by model name of the catalogue.
    pub model: String,
    /// How many of them.
    pub devices: u16,
    /// Packs ready on this machine: name and digest in hexadecimal.
    pub packs: Vec<crate::job::PackRef>,
    /// Whether pods can be held to their limits.
    pub limits: Limits,
}

/// Where a worker stands on the chain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotRef {
    /// Its supplier's fleet page.
    pub page: Address,
    /// The slot in it.
    pub slot: u16,
}

/// A worker as the chain shows it: what it offers and what is taken.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Offer {
    /// Where it stands.
    pub at: SlotRef,
    /// Its device key.
    pub device_key: PublicKey,
    /// The supplier's wallet.
    pub supplier: PublicKey,
    /// The device model, by catalogue name.
    pub model: String,
    /// The posted price.
    pub ask: UsdMicrosPerHour,
    /// Bit n set: device n exists.
    pub devices_mask: u16,
    /// Bit n set: device n is leased.
    pub leased_mask: u16,
    /// Takes no new leases by its own wish.
    pub draining: bool,
    /// Takes no new leases since it was lost, until its device key says otherwise.
    pub suspended: bool,
}
