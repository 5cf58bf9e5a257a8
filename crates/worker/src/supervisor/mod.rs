//! The small process that keeps one pod, and the worker's way to talk to it.
//!
//! A supervisor (`atoll pod-supervisor --dir DIR`) holds the pod's TUN device, WireGuard sessions, output and usage; it
//! starts init from its main thread, so that the pod dies with it and with nothing else. It outlives the worker, which
//! finds it again by its socket. It stops the pod at the end of the lease plus grace with nobody's help.
//!
//! Reads [`spec`] (`pod.json`), speaks [`protocol`] on `supervisor.sock`, and leaves behind in the pod's directory
//! `output-OFFSET.log`, `usage.jsonl` ([`usage`]) and `exit.json` ([`protocol::Exit`]). A directory serves one pod once.
//!
//! It does not know the chain, the control node or prices: its worker tells it which device keys may sign, and when the
//! lease ends.

pub mod bench;
pub mod client;
pub mod keeper;
pub mod output;
pub mod protocol;
pub mod serve;
pub mod shared;
pub mod spec;
pub mod start;
pub mod streams;
mod trim;
pub mod usage;
