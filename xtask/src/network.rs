//! A whole local network (`atoll dev`) in a folder of its own, driven from outside as a user would: by the binary's
//! commands and the chain's JSON-RPC.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

/// How long the network may take to come up: key making, a dozen transactions, four probes of a disk.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long it may take to stop: pods get their end of lease, then SIGKILL.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// What `atoll dev` writes to `dev.json` once everything is linked. Parts go by names like `worker-1`.
#[derive(Debug, Deserialize)]
struct Told {
    ports: Ports,
    pids: BTreeMap<String, u32>,
    network_root: String,
    mint: String,
    treasury: String,
    worker_ids: BTreeMap<String, String>,
    /// Token accounts of `renter` and of each worker's supplier.
    token_accounts: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Ports {
    chain: u16,
}

/// Where everything of a network is.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) chain: String,
    pub(crate) network_root: String,
    mint: String,
    treasury: String,
    renter_token_account: String,
    pub(crate) server_pid: u32,
    pub(crate) workers: Vec<WorkerFacts>,
}

/// One worker of the network.
#[derive(Debug)]
pub(crate) struct WorkerFacts {
    pub(crate) worker: String,
    pub(crate) pid: u32,
    state: PathBuf,
    token_account: String,
}

impl Facts {
    fn of(told: &Told, folder: &Path) -> Result<Self> {
        let pid = |name: &str| told.pids.get(name).copied().with_context(|| format!("dev.json names no pid of {name}"));
        let account = |name: &str| {
            told.token_accounts.get(name).cloned().with_context(|| format!("dev.json names no token account of {name}"))
        };
        let worker = |(name, id): (&String, &String)| {
            let (worker, state) = (id.clone(), folder.join(name));
            anyhow::Ok(WorkerFacts { worker, pid: pid(name)?, state, token_account: account(name)? })
        };
        Ok(Self {
            chain: format!("127.0.0.1:{}", told.ports.chain),
            network_root: told.network_root.clone(),
            mint: told.mint.clone(),
            treasury: told.treasury.clone(),
            renter_token_account: account("renter")?,
            server_pid: pid("server")?,
            workers: told.worker_ids.iter().map(worker).collect::<Result<_>>()?,
        })
    }
}

/// A running network. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Network {
    dev: Child,
    binary: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) facts: Facts,
    /// For how long a client command is repeated that failed. Every one may be: submitting again is the same job.
    pub(crate) patience: Duration,
}

/// Balances that the demo compares, base units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Balances {
    pub(crate) renter: u64,
    pub(crate) suppliers: BTreeMap<String, u64>,
    pub(crate) treasury: u64,
    pub(crate) supply: u64,
}

impl Network {
    /// Starts a network and waits until all its workers are linked.
    pub(crate) fn start(binary: &Path, folder: &Path, pack: &Path, workers: u32) -> Result<Self> {
        Self::start_with(binary, folder, pack, workers, &[])
    }

    /// The same with more arguments of `atoll dev`.
    pub(crate) fn start_with(binary: &Path, folder: &Path, pack: &Path, workers: u32, more: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let log = File::create(folder.join("dev.log"))?;
        let mut command = Command::new(binary);
        command.arg("dev").arg("--workers").arg(workers.to_string()).arg("--state").arg(folder).arg("--pack").arg(pack);
        command.args(more).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut dev = command.spawn().with_context(|| format!("{} cannot be started", binary.display()))?;
        let (started, told) = (Instant::now(), folder.join("dev.json"));
        let facts = loop {
            if let Ok(text) = std::fs::read(&told) {
                let told: Told = serde_json::from_slice(&text).context("dev.json is not what was expected")?;
                break Facts::of(&told, folder)?;
            }
            if let Some(status) = dev.try_wait()? {
                bail!("`atoll dev` ended with {status}; its last words:\n{}", tail(&folder.join("dev.log")));
            }
            if started.elapsed() > READY_WITHIN {
                dev.kill()?;
                dev.wait()?;
                bail!("the network was not ready within {READY_WITHIN:?}:\n{}", tail(&folder.join("dev.log")));
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        Ok(Self { dev, binary: binary.to_owned(), folder: folder.to_owned(), facts, patience: Duration::ZERO })
    }

    /// A command of the client, with this network's profile.
    pub(crate) fn atoll(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).env("ATOLL_HOME", self.folder.join("client")).stdin(Stdio::null());
        command
    }

    /// Runs a client command with `--json` and reads its answer; again, for as long as the network says, when it fails.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let started = Instant::now();
        loop {
            match self.json_once(arguments) {
                Err(error) if started.elapsed() < self.patience => {
                    eprintln!("          again       {error:#}");
                    std::thread::sleep(Duration::from_millis(500));
                }
                answer => return answer,
            }
        }
    }

    fn json_once(&self, arguments: &[&str]) -> Result<Value> {
        let shown = format!("atoll {}", arguments.join(" "));
        let output = self.atoll(arguments).arg("--json").output()?;
        if !output.status.success() {
            bail!("`{shown}` ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("`{shown}` did not print JSON"))
    }

    /// The control node's process now: a killed one is started again.
    pub(crate) fn server_pid(&self) -> Result<u32> {
        let told: Told = serde_json::from_slice(&std::fs::read(self.folder.join("dev.json"))?)?;
        told.pids.get("server").copied().context("dev.json names no pid of the server")
    }

    /// Balances as the chain's RPC tells them.
    pub(crate) fn balances(&self) -> Result<Balances> {
        let of = |account: &str| amount(&self.rpc("getTokenAccountBalance", &json!([account]))?);
        let mut suppliers = BTreeMap::new();
        for worker in &self.facts.workers {
            suppliers.insert(worker.worker.clone(), of(&worker.token_account)?);
        }
        Ok(Balances {
            renter: of(&self.facts.renter_token_account)?,
            suppliers,
            treasury: of(&self.facts.treasury)?,
            supply: amount(&self.rpc("getTokenSupply", &json!([self.facts.mint]))?)?,
        })
    }

    fn rpc(&self, method: &str, params: &Value) -> Result<Value> {
        rpc(&self.facts.chain, method, params)
    }

    /// Kills a worker with everything it runs (agent, supervisors, pods) by SIGKILL, as a machine that loses power.
    /// Returns how many processes died.
    pub(crate) fn kill_worker(&self, worker: &WorkerFacts) -> Result<usize> {
        let mut pids = vec![worker.pid];
        pids.extend(processes_naming(&worker.state)?);
        pids.extend(descendants(&pids)?);
        pids.sort_unstable();
        pids.dedup();
        for pid in &pids {
            signal(*pid, libc::SIGKILL);
        }
        Ok(pids.len())
    }

    /// Stops the network and checks that nothing of it runs any more.
    pub(crate) fn stop(mut self) -> Result<()> {
        signal(self.dev.id(), libc::SIGTERM);
        let started = Instant::now();
        while self.dev.try_wait()?.is_none() {
            if started.elapsed() > STOPPED_WITHIN {
                bail!("the network did not stop within {STOPPED_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        loop {
            let left = processes_naming(&self.folder)?;
            if left.is_empty() {
                return Ok(());
            }
            if started.elapsed() > STOPPED_WITHIN {
                bail!("{} processes of the network are still running: {left:?}", left.len());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Leaves the network running after this process.
    pub(crate) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if matches!(self.dev.try_wait(), Ok(None)) {
            signal(self.dev.id(), libc::SIGTERM);
            // A network that does not stop is killed: its children die with it.
            let started = Instant::now();
            while matches!(self.dev.try_wait(), Ok(None)) {
                if started.elapsed() > STOPPED_WITHIN {
                    signal(self.dev.id(), libc::SIGKILL);
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// One JSON-RPC call over plain HTTP/1.1 to `host:port`.
pub(crate) fn rpc(address: &str, method: &str, params: &Value) -> Result<Value> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    let (_, text) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let answer: Value = serde_json::from_str(text).with_context(|| format!("{method} gave no JSON"))?;
    match answer.get("result") {
        Some(result) if !result.is_null() => Ok(result.clone()),
        _ => bail!("{method} failed: {answer}"),
    }
}

fn amount(answer: &Value) -> Result<u64> {
    let text = answer["value"]["amount"].as_str().context("no amount in the answer")?;
    Ok(text.parse()?)
}

/// The last lines of a log.
pub(crate) fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

pub(crate) fn signal(pid: u32, signal: libc::c_int) {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return };
    // SAFETY: kill() takes two integers; a process that is gone already is not an error here.
    unsafe { libc::kill(pid, signal) };
}

/// All processes: pid and parent.
fn processes() -> Result<Vec<(u32, u32)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        found.extend(parent.map(|parent| (pid, parent)));
    }
    Ok(found)
}

/// Processes whose command line names a path.
fn processes_naming(path: &Path) -> Result<Vec<u32>> {
    let path = path.to_string_lossy().into_owned();
    let own = std::process::id();
    let names = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&path)
    };
    Ok(processes()?.into_iter().map(|(pid, _)| pid).filter(|pid| *pid != own).filter(names).collect())
}

fn descendants(roots: &[u32]) -> Result<Vec<u32>> {
    let all = processes()?;
    let mut found: Vec<u32> = roots.to_vec();
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(all.iter().filter(|(pid, its)| *its == parent && !roots.contains(pid)).map(|(pid, _)| *pid));
        at += 1;
    }
    Ok(found.split_off(roots.len()))
}
