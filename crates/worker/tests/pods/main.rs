//! Pods for real: namespaces, bubblewrap, TUN devices, cgroups. Run as root (as CI does); each test says what it needs.
//!
//! `cargo test -p atoll-worker --features pods --test pods`. Left out by `cargo xtask test --fast`.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test's own tasks are nobody's life")]

mod faults;
mod life;
mod limits;
mod overlay;
mod ray;
mod sandbox;
mod support;
