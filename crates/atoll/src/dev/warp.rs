//! `atoll dev warp`: moves the clock of a local network's chain forward, and sets the price feed as of the new time.
//!
//! Only the embedded chain takes this. What a lease, a waiting time or an epoch does at the new time is theirs: leases
//! whose end has come end, and pods with them.

use std::path::Path;

use anyhow::Context as _;
use atoll_chain::{Keypair, Rpc, RpcError};
use atoll_cli::chain::Chain;
use atoll_cli::exit::{Exit, Failure};
use atoll_cli::market::at;
use atoll_cli::output::Output;
use atoll_cli::span::Span;
use serde::Deserialize;

use super::layout::Ports;
use super::network::feed;

/// What is read of `dev.json`.
#[derive(Deserialize)]
struct Running {
    ports: Ports,
}

fn refused(message: String) -> anyhow::Error {
    Failure::new(Exit::Refused, "no_local_chain", message).into()
}

/// Moves the clock of the network that runs in `state`, or of the chain at `rpc`, whose feed then stays as it is.
pub(super) async fn run(state: &Path, rpc: Option<&str>, by: Span, out: Output) -> anyhow::Result<()> {
    let (url, admin) = match rpc {
        Some(url) => (url.to_owned(), None),
        None => running(state)?,
    };
    let chain = Chain::new(&url)?;
    let moved = warp(&chain.rpc, by).await?;
    if let Some(admin) = admin {
        feed(&chain.rpc, &admin).await.context("setting the price feed as of the new time")?;
    }
    let now = at(moved);
    out.result(&serde_json::json!({"moved_s": by.0, "now": now}), || {
        format!("moved by {by}: the chain's time is {now}")
    })?;
    Ok(())
}

/// Where the chain of a running network is, and who may set its feed.
fn running(state: &Path) -> anyhow::Result<(String, Option<Keypair>)> {
    let path = state.join("dev.json");
    let Ok(bytes) = std::fs::read(&path) else {
        let shown = state.display();
        let next = "start one, or name its folder with --state. No other chain's clock can be moved";
        return Err(refused(format!("no `atoll dev` runs in {shown}; nothing was moved: {next}")));
    };
    let running: Running = serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?;
    let admin = Keypair::load(&state.join("wallets/admin.json"))?;
    Ok((format!("http://127.0.0.1:{}", running.ports.chain), Some(admin)))
}

async fn warp(rpc: &Rpc, by: Span) -> anyhow::Result<i64> {
    match rpc.warp(by.0).await {
        Ok(clock) => Ok(clock.unix_timestamp),
        Err(RpcError::Refused { message, .. }) => {
            let why = atoll_cli::output::plain(&message);
            let next =
                "only the chain of `atoll dev` moves its clock, by a year at most; others' time is not ours to move";
            Err(refused(format!("the chain refused it ({why}); nothing was moved: {next}")))
        }
        Err(error) => Err(Failure::from(error).into()),
    }
}
