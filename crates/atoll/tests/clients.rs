//! Other people's clients of Solana against `atoll local-chain`, a process of its own.
//!
//! Each script runs twice: once on a new chain, and once after the process was killed and another started on the same
//! folder, to read back what the first run did. `cargo xtask test` installs the clients by their lock files and names the folder
//! in `ATOLL_CLIENTS`; without it these tests fail. Solana's client in Rust is in a workspace of its own (`rust/`) and in
//! `cargo xtask test --long`, because its 391 crates take five minutes of processor time to build.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::Instant;

/// Longest run of one script; every wait in it has a shorter deadline of its own.
const SCRIPT_MAX: Duration = Duration::from_secs(120);
/// The longest that the chain may take to listen: a hundred times what it takes.
const START_MAX: Duration = Duration::from_secs(60);

fn folder() -> PathBuf {
    let folder = std::env::var_os("ATOLL_CLIENTS");
    PathBuf::from(
        folder.expect("ATOLL_CLIENTS names the folder of the clients: `cargo xtask test` makes it in target/clients"),
    )
}

/// A chain that runs until it is killed or dropped.
struct Chain {
    process: Child,
    port: u16,
}

impl Chain {
    /// Starts it on a folder; port 0 takes a free one.
    async fn start(folder: &Path, port: u16) -> Self {
        let port_file = folder.join("port");
        std::fs::remove_file(&port_file).ok();
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        command.args(["local-chain", "--listen", &format!("127.0.0.1:{port}"), "--state"]).arg(folder.join("chain"));
        command.arg("--port-file").arg(&port_file).stdin(Stdio::null()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let deadline = Instant::now() + START_MAX;
        loop {
            if let Ok(port) = std::fs::read_to_string(&port_file) {
                return Self { process, port: port.trim().parse().unwrap() };
            }
            assert_eq!(process.try_wait().unwrap(), None, "the chain ended");
            assert!(Instant::now() < deadline, "the chain does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where its JSON-RPC and its subscriptions are.
    fn urls(&self) -> [String; 2] {
        ["http", "ws"].map(|scheme| format!("{scheme}://127.0.0.1:{}/", self.port))
    }

    /// SIGKILL.
    async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
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
    let chain = Chain::start(state.path(), 0).await;
    let (port, [rpc, subscriptions]) = (chain.port, chain.urls());
    let found = run(program, script, &[&rpc, &subscriptions]).await;
    // A script that does nothing must not pass.
    let signature = serde_json::from_str::<serde_json::Value>(&found).unwrap()["signature"].clone();
    assert!(signature.as_str().is_some_and(|text| text.len() > 60), "no signature in {found}");
    chain.kill().await;
    let _again = Chain::start(state.path(), port).await;
    run(program, script, &[&rpc, &subscriptions, &found]).await;
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
