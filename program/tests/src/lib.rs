//! Runs the market program's real bytes in litesvm.
//!
//! A [`World`] is one chain with the network made; a [`Party`] is a renter, a supplier with two workers and an order.
//! Calls are built from `atoll-interface` alone, as a client's are. Every transaction's size is asserted here, because
//! litesvm does not.

pub mod calls;
pub mod disputes;
pub mod frauds;
pub mod governs;
pub mod loader;
pub mod pays;
pub mod reference;
pub mod spot;
pub mod stakes;
pub mod vestings;
pub mod world;

pub use calls::{Call, Party};
pub use world::{Refusal, World, sha256};
