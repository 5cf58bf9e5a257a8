//! The supplier's side of Atoll.
//!
//! [`run::run`] is the worker: [`link`] carries commands and reports, [`world`] decides by them and by what the chain says
//! ([`chain_view`]), [`meter`] signs what was served, [`streams`] carry bytes, [`probe`] says what this machine is.
//! [`join::join`] takes a place on the chain, [`doctor::doctor`] says what is missing. Clock and randomness come from
//! [`outside`], the machine itself is behind [`host`]; the supplier's wallet is read by `join` alone.
//!
//! [`runtime`] makes one pod out of namespaces, bubblewrap and cgroups; [`supervisor`] is the small process that keeps it;
//! [`roles`] are the hidden commands under which `atoll` becomes one of the two.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod chain_view;
pub mod config;
pub mod doctor;
pub mod host;
pub mod join;
pub mod link;
pub mod meter;
pub mod outside;
pub mod probe;
pub mod roles;
pub mod run;
pub mod runtime;
pub mod sdk;
pub mod streams;
pub mod supervisor;
pub mod world;
