//! Other people's clients of Solana against the local chain, over real sockets.
//!
//! Each script runs twice: once on a new chain, and once after the chain was stopped and started on the same folder, to
//! read back what the first run did. `cargo xtask test` installs the clients by their lock files and names the folder
//! in `ATOLL_CLIENTS`; without it these tests fail. Solana's client in Rust is in a workspace of its own (`rust/`) and in
//! `cargo xtask test --long`, because its 391 crates take five minutes of processor time to build.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use atoll_chain::local::{self, LocalChain, LocalChainConfig};
use tokio::process::Command;

/// Longest run of one script; every wait in it has a shorter deadline of its own.
const SCRIPT_MAX: Duration = Duration::from_secs(120);

fn folder() -> PathBuf {
    let folder = std::env::var_os("ATOLL_CLIENTS");
    PathBuf::from(
        folder.expect("ATOLL_CLIENTS names the folder of the clients: `cargo xtask test` makes it in target/clients"),
    )
}

async fn start(state: &Path, port: u16) -> LocalChain {
    let mut config = LocalChainConfig::new(state.to_owned(), [7; 32]);
    config.listen.set_port(port);
    local::serve(config).await.unwrap()
}

/// Runs a script and gives the last line that it printed.
async fn run(program: &Path, script: Option<&Path>, arguments: &[&str]) -> String {
    let shown = script.unwrap_or(program);
    let mut command = Command::new(program);
    command.args(script).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(SCRIPT_MAX, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{} did not end in time", shown.display()));
    let output = output.unwrap_or_else(|error| panic!("{} cannot be run: {error}", program.display()));
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let ended = output.status;
    assert!(ended.success(), "{} {arguments:?} ended with {ended}\n{printed}{errors}", shown.display());
    printed.lines().last().unwrap_or_default().to_owned()
}

/// Both phases of a script.
async fn check(program: &Path, script: Option<&Path>) {
    let state = tempfile::tempdir().unwrap();
    let chain = start(state.path(), 0).await;
    let port = chain.address().port();
    let found = run(program, script, &[&chain.url(), &chain.ws_url()]).await;
    // A script that does nothing must not pass.
    let signature = serde_json::from_str::<serde_json::Value>(&found).unwrap()["signature"].clone();
    assert!(signature.as_str().is_some_and(|text| text.len() > 60), "no signature in {found}");
    chain.shutdown().await;
    let chain = start(state.path(), port).await;
    run(program, script, &[&chain.url(), &chain.ws_url(), &found]).await;
    chain.shutdown().await;
}

#[tokio::test]
async fn web3_js() {
    check(&folder().join("python/venv/bin/node"), Some(&folder().join("js/web3.mjs"))).await;
}

#[tokio::test]
async fn kit() {
    check(&folder().join("python/venv/bin/node"), Some(&folder().join("js/kit.mjs"))).await;
}

#[tokio::test]
async fn solana_py() {
    check(&folder().join("python/venv/bin/python"), Some(&folder().join("python/client.py"))).await;
}

#[cfg(feature = "rust-client")]
#[tokio::test]
async fn rust_client() {
    check(&folder().join("rust/debug/atoll-chain-rust-client"), None).await;
}
