//! The client's commands: what a developer types.
//!
//! [`command`] is the tree that `atoll` parses and the place where one is carried out. A command reads the [`profile`],
//! asks the operator over HTTP and the chain over RPC, and signs with the renter's wallet, which never leaves this
//! machine. Deciding parts are pure: [`manifest`] (what a folder asks for), [`verify`] (whether a receipt holds). What
//! people do on the chain without any operator is [`market`].
//!
//! It leaves to others: placement, settlement and recovery (`control`), money's rules (`interface`), RPC (`chain`).
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod account;
pub mod bundle;
pub mod chain;
pub mod command;
pub mod exit;
pub mod extend;
#[cfg(test)]
mod fuzz;
pub mod jobs;
pub mod manifest;
pub mod market;
pub mod output;
pub mod pending;
pub mod profile;
pub mod receipts;
pub mod session;
pub mod span;
pub mod submit;
pub mod verify;
pub mod watch;
