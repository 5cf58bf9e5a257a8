//! A whole fake world on one seed, running the real control plane and workers.
//!
//! One thread, one runtime whose clock is paused: a world of five minutes runs in seconds, and the same seed twice runs
//! the same way to the last byte. [`world`] puts it together and judges it; [`seed`] says what it is like, [`faults`] what
//! goes wrong, [`laws`] what must hold all the same.
//!
//! Real: `atoll-control` with its SQLite store, `atoll-worker`, the market program, every byte on links and HTTP. Fake:
//! [`clock`]s, the [`net`]work (without TLS), [`disk`]s, the [`machine`]s with the [`program`]s in their pods, the
//! [`renter`]. The [`chain`] is the local one behind a bad network.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod chain;
pub mod clock;
pub mod disk;
pub mod faults;
pub mod genesis;
pub mod http;
pub mod laws;
pub mod machine;
pub mod net;
pub mod node;
pub mod planted;
pub mod program;
pub mod random;
pub mod renter;
pub mod seed;
pub mod store;
pub mod trace;
pub mod truth;
pub mod votes;
pub mod worker;
pub mod world;
