//! The supplier's side of Atoll.
//!
//! [`runtime`] makes one pod out of namespaces, bubblewrap and cgroups; [`supervisor`] is the small process that keeps it;
//! [`roles`] are the hidden commands under which `atoll` becomes one of the two.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod roles;
pub mod runtime;
pub mod supervisor;
