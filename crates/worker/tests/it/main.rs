//! The worker against a real TLS WebSocket server.
#![allow(clippy::unwrap_used)]

mod link;
mod server;
mod streams;
