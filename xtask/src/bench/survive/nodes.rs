//! A network to be hurt: a chain with thousands of registered workers, a private PostgreSQL, and control nodes on it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::network::{Network, signal, tail};
use crate::postgres::Postgres;

/// How long a process may take until it listens.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Chain, store and folder of one network, without nodes yet.
pub(super) struct Ground {
    /// The binary under test.
    pub(super) binary: PathBuf,
    /// Everything lies here.
    pub(super) folder: PathBuf,
    /// The one store of all nodes.
    postgres: Postgres,
    rpc: String,
    chain: Child,
}

/// One control node.
pub(super) struct Node {
    /// Its process.
    pub(super) child: Child,
    /// Where it listens on 127.0.0.1.
    pub(super) port: u16,
}

/// What registering said of itself.
pub(super) struct Registered {
    pub(super) transactions: f64,
    pub(super) seconds: f64,
}

impl Ground {
    /// Sets a network up with `atoll dev`, registers `workers` device keys by transactions, and leaves the chain running.
    pub(super) fn prepare(binary: &Path, swarm: &Path, folder: &Path, workers: usize) -> Result<(Self, Registered)> {
        let network = Network::start(binary, folder, &no_pack(folder)?, 1)?;
        network.stop()?;
        let postgres = Postgres::start()?;
        let (state, listen) = (folder.join("chain"), "127.0.0.1:0");
        let mut command = Command::new(binary);
        command.arg("local-chain").arg("--state").arg(state).args(["--listen", listen]);
        let (chain, port) = listening(command, folder, "bench-chain")?;
        let rpc = format!("http://127.0.0.1:{port}");
        let ground = Self { binary: binary.to_owned(), folder: folder.to_owned(), postgres, rpc, chain };
        let output = Command::new(swarm)
            .args(["register", "--rpc", &ground.rpc, "--count", &workers.to_string()])
            .output()
            .context("the swarm cannot be started")?;
        if !output.status.success() {
            bail!("the swarm could not be registered: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let told: Value = serde_json::from_slice(&output.stdout).context("the swarm told no JSON")?;
        let number = |key: &str| told[key].as_f64().with_context(|| format!("the swarm told no {key}"));
        let registered = Registered { transactions: number("transactions")?, seconds: number("seconds")? };
        Ok((ground, registered))
    }

    /// The store's address, of one database for all nodes.
    pub(super) fn store(&self) -> String {
        self.postgres.url("postgres")
    }

    /// The certificate of all nodes.
    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join("server/tls/cert.pem")
    }

    /// Starts a node of the operator: keys and certificate are the same for all, the folder is its own. Port 0 takes a
    /// free one.
    pub(super) fn node(&self, name: &str, heartbeat_ms: u32, port: u16) -> Result<Node> {
        let state = self.folder.join(name);
        for part in ["keys", "tls"] {
            copy_folder(&self.folder.join("server").join(part), &state.join(part))?;
        }
        let settings = format!("connections_max = 19000\nheartbeat_ms = {heartbeat_ms}\n");
        let config = state.join("node.toml");
        std::fs::write(&config, settings)?;
        let mut command = Command::new(&self.binary);
        command.arg("server").arg("--config").arg(config).arg("--state").arg(&state);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--rpc", &self.rpc, "--store", &self.store()]);
        command.arg("--objects").arg(self.folder.join("objects"));
        // A line a link would measure the log.
        command.env("RUST_LOG", "warn");
        let (child, port) = listening(command, &self.folder, name)?;
        Ok(Node { child, port })
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        end(&mut self.chain);
    }
}

impl Node {
    /// Its user and system time so far, in seconds.
    pub(super) fn cpu_s(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields = stat.rsplit_once(") ").context("no fields in stat")?.1;
        // User and system time are fields 14 and 15, and the first one here is 3; in ticks of 10 ms.
        let ticks: f64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(ticks / 100.0)
    }

    /// SIGKILL, as a machine that loses power.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a child; nothing of a bench is worth a farewell.
fn end(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        signal(child.id(), libc::SIGKILL);
        let _ = child.wait();
    }
}

/// Starts a process that writes a port file, and waits for it.
fn listening(mut command: Command, folder: &Path, name: &str) -> Result<(Child, u16)> {
    let (port_file, log_path) = (folder.join(format!("{name}.port")), folder.join(format!("{name}.log")));
    if port_file.exists() {
        std::fs::remove_file(&port_file)?;
    }
    let log = File::create(&log_path)?;
    command.arg("--port-file").arg(&port_file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
    let started = Instant::now();
    loop {
        let port = std::fs::read_to_string(&port_file).ok().and_then(|text| text.trim().parse().ok());
        if let Some(port) = port {
            return Ok((child, port));
        }
        if let Some(status) = child.try_wait()? {
            bail!("{name} ended with {status}:\n{}", tail(&log_path));
        }
        if started.elapsed() > READY_WITHIN {
            end(&mut child);
            bail!("{name} did not listen within {READY_WITHIN:?}:\n{}", tail(&log_path));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A pack in name only: nothing runs here.
fn no_pack(folder: &Path) -> Result<PathBuf> {
    let pack = folder.join("pack");
    std::fs::create_dir_all(pack.join("bin"))?;
    std::fs::write(pack.join("bin/python"), "")?;
    let record = serde_json::json!({ "name": "nothing", "version": "1", "sha256": "0".repeat(64) });
    std::fs::write(pack.join("pack.json"), record.to_string())?;
    Ok(pack)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        // Modes are copied too: keys stay their owner's.
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
