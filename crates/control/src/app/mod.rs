//! The verbs of the business, one file per noun. No HTTP, no SQL.

pub mod adopt;
pub mod auth;
pub mod budget;
pub mod candidates;
pub mod chain;
pub mod extension;
pub mod job;
pub mod jobs;
pub mod kept;
pub mod leaves;
pub mod market;
pub mod network;
pub mod order;
pub mod pod_token;
pub mod quotes;
pub mod receipt;
pub mod settled;
pub mod taken;
pub mod trail;
