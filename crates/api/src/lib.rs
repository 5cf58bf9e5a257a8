//! What goes over the wire, and nothing else.
//!
//! `http` holds the requests and answers of the HTTP API (OpenAPI 3.1 behind feature `openapi`), `link` the frames
//! between a worker and the control plane, `pod` what a pod says to its object store, `client` (feature `client`) the
//! HTTP client that the CLI and the worker use, `receipt` the
//! signed record of a finished job. Meaning lives in `domain`; rows live in `control::store`. Nothing here
//! assumes that there is one operator or one store.
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(feature = "client")]
pub mod client;
pub mod http;
pub mod link;
pub mod pod;
pub mod receipt;
