//! The market's words and rules, pure.
//!
//! Ids, keys, money, machines, jobs and placement, as every other crate uses them. Nothing here waits, reads a clock,
//! draws a random number, opens a socket or touches a store: time and seeds are arguments. Wire forms live in `api`,
//! rows in `control::store`, what the chain must agree on in `interface`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cluster;
pub mod id;
pub mod job;
pub mod key;
pub mod lease;
pub mod meter;
pub mod model;
pub mod money;
pub mod placement;
pub mod pod_key;
pub mod request;
pub mod reward;
pub mod time;
pub mod worker;
