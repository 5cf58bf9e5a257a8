//! The worker against a real TLS WebSocket server.
#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "a test's own tasks are nobody's life")]

mod link;
mod moving;
mod server;
mod streams;
