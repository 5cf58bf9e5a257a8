//! The client's commands: what a developer types.
//!
//! [`Command`](command::Command) is the tree that `atoll` parses, [`run`](command::run) carries one out. A command reads the [`profile`],
//! asks the operator over HTTP and the chain over RPC, and signs with the renter's wallet, which never leaves this
//! machine. Deciding parts are pure: [`manifest`] (what a folder asks for), [`verify`] (whether a receipt holds).
//!
//! It leaves to others: placement, settlement and recovery (`control`), money's rules (`interface`), RPC (`chain`).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bundle;
pub mod exit;
pub mod manifest;
pub mod output;
pub mod profile;
