//! The encrypted network between the pods of one cluster.
//!
//! Userspace WireGuard (boringtun): a pod's only route is its TUN device, and this crate stands between that device and a
//! UDP socket outside the pod. [`statement`] says who a key belongs to (signed by a worker's device key), [`roster`] decides
//! which of those statements make a peer, [`engine`] turns packets into packets, [`pump`] is the loop over real descriptors.
//!
//! It protects tenants against everyone *except the suppliers of the same cluster*: a supplier can read its own pod's memory.
//! It does not create devices (the pod's init does), fetch statements (the worker does) or traverse NAT.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::cast_possible_truncation))]

pub mod engine;
pub mod packet;
pub mod pump;
pub mod roster;
pub mod statement;

pub use engine::{Emit, Engine, Peer};
pub use roster::{Authorised, Refusal, Roster};
pub use statement::{PodKeyStatement, SignedStatement};
