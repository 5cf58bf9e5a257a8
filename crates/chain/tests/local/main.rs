//! The local chain over real HTTP, with the real client and the real virtual machine.
#![allow(clippy::unwrap_used)]

mod support;

mod chain;
mod engine;
mod faults;
mod finality;
mod hostile;
mod market;
mod market_faults;
mod market_supply;
mod pubsub;
mod restart;
