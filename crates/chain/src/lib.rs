//! The only crate that speaks Solana JSON-RPC, and, with feature `local`, the embedded chain behind the same RPC.
//!
//! - [`rpc`]: a client over HTTP with bounds, deadlines and typed errors.
//! - [`market`]: addresses, typed accounts and instructions of the market program. What the bytes mean is said by
//!   `atoll-interface`; this module fetches, checks and builds.
//! - [`transaction`], [`address`], [`keypair`], [`spl`], [`failure`]: the pure parts of Solana that Atoll needs.
//! - `local`: litesvm behind the RPC, kept in an append-only log. One process on one host, without consensus.
//!
//! Amounts are token base units or lamports (`u64`), times are seconds of the cluster's clock. Who signs what, and when
//! something is sent, is decided by the callers; this crate reads no configuration, no environment and draws no
//! randomness of its own.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod address;
pub mod failure;
pub mod keypair;
#[cfg(feature = "local")]
pub mod local;
pub mod market;
pub mod rpc;
pub mod spl;
pub mod transaction;

pub use address::{Address, Hash, Signature};
pub use failure::{Failure, FailureKind};
pub use keypair::Keypair;
pub use rpc::{Rpc, RpcConfig, RpcError};
pub use transaction::{AccountMeta, Instruction, SignedTransaction, sign};
