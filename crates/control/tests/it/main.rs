//! One control node over TLS, as its callers meet it: real sockets, the real store, real signatures.
//!
//! With a `rig`, the chain is a JSON-RPC server that shows given accounts, and reconcilers do not run. A `whole` network
//! has the local chain with the real program, and nodes that do everything that they do by themselves.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests, which no simulation runs")]

mod adopt;
mod away;
mod budget;
mod disk;
mod dying;
mod extend;
mod extend_amiss;
mod forks;
mod fuzz;
mod http;
mod link;
mod nodes;
mod openapi;
mod orphan;
mod pods;
mod restored;
mod returns;
mod rig;
mod starts;
mod submit;
mod time;
mod whole;
