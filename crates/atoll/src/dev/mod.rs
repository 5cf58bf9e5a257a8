//! `atoll dev`: a whole network on this machine.
//!
//! Every part is its own process of this executable with its own state folder, as it would be on its own machine; this
//! process only starts them, sets the chain up once, waits for conditions and stops everything. It alone holds the keys
//! of admin, mint and attestor's owner, and it alone may set the price feed. Everything listens on 127.0.0.1.
//!
//! - [`layout`]: where what lies. - [`process`]: children that die with this process. - [`network`]: the chain's set-up,
//!   each step only when its result is missing, so that a stopped start goes on. - [`up`]: the order of things.
//! - [`warp`]: moving the chain's clock, from another process.

use crate::arguments::Dev;
#[cfg(feature = "local")]
use crate::arguments::DevVerb;

#[cfg(feature = "local")]
mod layout;
#[cfg(feature = "local")]
mod network;
#[cfg(feature = "local")]
mod process;
#[cfg(feature = "local")]
mod up;
#[cfg(feature = "local")]
mod warp;

/// The market program, as committed.
#[cfg(feature = "local")]
pub(crate) const MARKET_ELF: &[u8] = include_bytes!("../../../../program/market.so");

/// What a build without the embedded chain says.
#[cfg(not(feature = "local"))]
pub(crate) const WITHOUT_LOCAL: &str = "this build has no local chain: build it with `cargo build -p atoll --features local` (needs libssl-dev), or use a network that runs elsewhere";

/// Runs a network until SIGTERM or ctrl-c, or moves the clock of one that runs.
#[cfg(feature = "local")]
pub(crate) fn run(args: &Dev, json: bool) -> anyhow::Result<()> {
    // One thread: children carry a death signal that is tied to the thread that made them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match &args.verb {
        None => runtime.block_on(Box::pin(up::run(args, json))),
        Some(DevVerb::Warp { by, state, rpc }) => {
            let out = atoll_cli::output::Output::detect(json);
            runtime.block_on(Box::pin(warp::run(state, rpc.as_deref(), *by, out)))
        }
    }
}

/// Says how to get a build that can.
#[cfg(not(feature = "local"))]
pub(crate) fn run(_: &Dev, _: bool) -> anyhow::Result<()> {
    anyhow::bail!(WITHOUT_LOCAL)
}
