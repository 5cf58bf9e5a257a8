//! The control plane of one operator: HTTP API, worker links, reconcilers, over one store.
//!
//! `http` parses, authorises and renders; `app` has the verbs of the business; `store` all SQL; `tasks` the
//! reconcilers; `link` the workers' sessions and byte streams; `pod_store` what pods see of the object store. Any node
//! over the same store can do all of it; no node holds a renter's, supplier's or mint key.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admin;
mod admission;
pub mod app;
pub mod config;
mod connections;
pub mod control;
pub mod error;
pub mod http;
pub mod link;
pub mod neighbours;
pub mod objects;
pub mod places;
pub mod pod_store;
pub mod ray;
pub mod serve;
pub mod store;
pub mod tasks;
pub mod tls;
pub mod work;
