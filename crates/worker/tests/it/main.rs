//! The worker against a real TLS WebSocket server, and its reader against real chains.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test's own tasks are nobody's life")]

mod chain;
mod link;
mod moving;
mod server;
mod streams;
