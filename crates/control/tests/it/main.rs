//! One control node over TLS, as its callers meet it: real sockets, the real store, real signatures.
//!
//! The chain is a JSON-RPC server that shows given accounts: what the program does with them is tested where the program
//! is. Reconcilers do not run here.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, which no simulation runs")]

mod http;
mod link;
mod openapi;
mod pods;
mod rig;
mod submit;
