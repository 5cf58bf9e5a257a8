//! A whole local network in a folder of its own, driven from outside: by the binary's commands, by HTTP and by the
//! chain's JSON-RPC. Whatever happens, nothing of it runs afterwards.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use atoll_api::client::Client;
use atoll_chain::market::Market;
use atoll_chain::{Address, Keypair, Rpc, RpcConfig};
use atoll_cli::profile::{Home, Profile};
use serde::Deserialize;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::processes::{self, Process};

/// How long a condition may take to come true: ten times what it takes on two idle cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// How long stopping may take before everything is killed.
const STOP_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks at a condition.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What `atoll dev` writes to `dev.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Told {
    pub(crate) ports: Ports,
    pids: BTreeMap<String, u32>,
    pub(crate) network_root: String,
    pub(crate) mint: String,
    treasury: String,
    /// Worker ids by role, `worker-1` and so on.
    pub(crate) worker_ids: BTreeMap<String, String>,
    token_accounts: BTreeMap<String, String>,
    pub(crate) renter_wallet: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Ports {
    pub(crate) chain: u16,
    pub(crate) server: u16,
}

/// Balances over the chain's RPC, base units; and the renter's lamports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Balances {
    pub(crate) renter: u64,
    pub(crate) lamports: u64,
    pub(crate) suppliers: BTreeMap<String, u64>,
    pub(crate) treasury: u64,
    pub(crate) supply: u64,
}

impl Balances {
    /// That everything the renter spent since `before` is with suppliers, in the treasury or burned. Gives what was
    /// spent.
    pub(crate) fn conserved_since(&self, before: &Self) -> u64 {
        let spent = before.renter - self.renter;
        let paid: u64 = self.suppliers.iter().map(|(worker, now)| now - before.suppliers[worker]).sum();
        let fees = (self.treasury - before.treasury) + (before.supply - self.supply);
        assert_eq!(spent, paid + fees, "money appeared or vanished: {before:?} became {self:?}");
        spent
    }
}

/// A running network.
pub(crate) struct Network {
    dev: Child,
    /// Agents that were started again here.
    agents: BTreeMap<String, Child>,
    pub(crate) folder: PathBuf,
    pub(crate) told: Told,
    pub(crate) runtime: Runtime,
    pub(crate) client: Client,
    pub(crate) chain: Market,
}

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The Python environment that jobs run in, built by `cargo xtask pack ray-torch`.
pub(crate) fn pack() -> PathBuf {
    let packs = std::env::var_os("ATOLL_PACKS").map_or_else(|| repository().join("target/packs"), PathBuf::from);
    let pack = packs.join("ray-torch");
    assert!(pack.join("pack.json").is_file(), "no pack in {}: run `cargo xtask pack ray-torch`", pack.display());
    pack
}

/// A command that dies with this process.
pub(crate) fn tied(program: &Path) -> Command {
    let mut command = Command::new(program);
    // SAFETY: prctl with constants is async-signal-safe and takes no memory.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    command.stdin(Stdio::null());
    command
}

/// Waits until `look` finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command with text on its standard input.
pub(crate) fn fed(mut command: Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

impl Network {
    /// Starts a network in `folder` and waits until all its workers are linked.
    pub(crate) fn start(folder: &Path, workers: usize, store: Option<&str>) -> Self {
        Self::start_with(folder, workers, store, &[])
    }

    /// The same with more arguments of `atoll dev`.
    pub(crate) fn start_with(folder: &Path, workers: usize, store: Option<&str>, more: &[&str]) -> Self {
        fs::create_dir_all(folder).unwrap();
        let folder = folder.canonicalize().unwrap();
        let log = File::create(folder.join("dev.log")).unwrap();
        let mut command = tied(Path::new(env!("CARGO_BIN_EXE_atoll")));
        command.arg("dev").args(["--workers", &workers.to_string()]).arg("--state").arg(&folder);
        command.arg("--pack").arg(pack()).args(store.iter().flat_map(|url| ["--store", url])).args(more);
        let mut dev = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let told: Told = until("the network is ready", || {
            if let Some(status) = dev.try_wait().unwrap() {
                panic!("`atoll dev` ended ({status}): {}", text(&fs::read(folder.join("dev.log")).unwrap()));
            }
            Some(serde_json::from_slice(&fs::read(folder.join("dev.json")).ok()?).unwrap())
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let profile = Home::at(folder.join("client")).load().unwrap();
        let client = atoll_cli::session::client(&profile).unwrap();
        let chain = Market::new(Rpc::new(RpcConfig::new(&profile.rpc, 1)).unwrap());
        Self { dev, agents: BTreeMap::new(), folder, told, runtime, client, chain }
    }

    /// The renter's own profile folder.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.join("client")
    }

    pub(crate) fn profile(&self) -> Profile {
        Home::at(self.home()).load().unwrap()
    }

    /// Runs a client command with a profile folder.
    pub(crate) fn atoll(&self, home: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll"));
        command.args(arguments).env("ATOLL_HOME", home).env("COLUMNS", "200").stdin(Stdio::null()).output().unwrap()
    }

    /// Runs a command of the renter's with `--json` and reads its answer.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.atoll(&self.home(), &[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Makes an API key, as an operator does at the server.
    pub(crate) fn api_key(&self, user: &str, wallet: &str) -> String {
        let state = self.folder.join("server");
        let state = state.to_str().unwrap();
        let made = self.json(&["admin", "key", "create", "--state", state, "--user", user, "--wallet", wallet]);
        made["api_key"].as_str().unwrap().to_owned()
    }

    pub(crate) fn balances(&self) -> Balances {
        let address = |text: &str| text.parse::<Address>().unwrap();
        let rpc = self.chain.rpc();
        self.runtime.block_on(async {
            let mut tokens = BTreeMap::new();
            for (role, account) in &self.told.token_accounts {
                tokens.insert(role.clone(), rpc.token_balance(&address(account)).await.unwrap());
            }
            Balances {
                renter: tokens.remove("renter").unwrap(),
                lamports: rpc.balance(&address(&self.told.renter_wallet)).await.unwrap(),
                suppliers: tokens,
                treasury: rpc.token_balance(&address(&self.told.treasury)).await.unwrap(),
                supply: rpc.token_supply(&address(&self.told.mint)).await.unwrap(),
            }
        })
    }

    /// Orders of a wallet that stand on the chain.
    pub(crate) fn orders_of(&self, wallet: &str) -> usize {
        self.runtime.block_on(self.chain.orders_of(&wallet.parse().unwrap())).unwrap().len()
    }

    /// Devices free now, as anyone sees it.
    pub(crate) fn devices_free(&self) -> u32 {
        self.runtime.block_on(self.client.devices()).unwrap().iter().map(|model| model.devices_free).sum()
    }

    /// Whether a worker's link stands.
    pub(crate) fn is_linked(&self, role: &str) -> bool {
        let id = &self.told.worker_ids[role];
        let workers = self.runtime.block_on(self.client.workers()).unwrap();
        workers.iter().any(|worker| worker.linked && worker.worker.to_string() == *id)
    }

    /// The role of a worker by its id.
    pub(crate) fn role_of(&self, worker: &str) -> String {
        self.told.worker_ids.iter().find(|(_, id)| *id == worker).unwrap().0.clone()
    }

    pub(crate) fn server(&self) -> Process {
        Process::of(self.told.pids["server"]).expect("the server runs")
    }

    /// Waits until the server that `atoll dev` has started again answers.
    pub(crate) fn server_is_back(&mut self) {
        let old = self.told.pids["server"];
        let told: Told = until("the server is started again", || {
            let told: Told = serde_json::from_slice(&fs::read(self.folder.join("dev.json")).ok()?).ok()?;
            (told.pids["server"] != old).then_some(told)
        });
        self.told.pids.insert("server".to_owned(), told.pids["server"]);
        until("it answers", || self.runtime.block_on(self.client.version()).ok());
    }

    /// Makes the renter's API key anew, as an operator does whose store is lost, and puts it into the renter's profile.
    pub(crate) fn renew_key(&mut self) {
        let home = Home::at(self.home());
        let profile = Profile { api_key: self.api_key("renter", &self.told.renter_wallet), ..self.profile() };
        home.save(&profile).unwrap();
        self.client = atoll_cli::session::client(&profile).unwrap();
    }

    /// The agent of a worker: `atoll worker run`.
    pub(crate) fn agent(&self, role: &str) -> Process {
        let pid = self.agents.get(role).map_or_else(|| self.told.pids[role], Child::id);
        Process::of(pid).expect("the agent runs")
    }

    /// Starts a worker's agent again, as its owner would.
    pub(crate) fn start_agent(&mut self, role: &str) {
        let log = File::create(self.folder.join(format!("logs/{role}-again.log"))).unwrap();
        let mut command = tied(Path::new(env!("CARGO_BIN_EXE_atoll")));
        command.args(["worker", "run", "--state"]).arg(self.folder.join(role));
        let agent = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.agents.insert(role.to_owned(), agent);
    }

    /// Kills everything of a worker at once and deletes its disk, as a machine that burns.
    pub(crate) fn destroy_machine(&mut self, role: &str) {
        let state = self.folder.join(role);
        let mut died = processes::of_folder(&state);
        died.push(self.agent(role));
        for process in &died {
            process.signal(libc::SIGKILL);
        }
        if let Some(mut agent) = self.agents.remove(role) {
            agent.wait().unwrap();
        }
        until("the machine's processes are dead", || died.iter().all(|process| !process.runs()).then_some(()));
        fs::remove_dir_all(&state).unwrap();
        assert!(!state.exists() && processes::of_folder(&state).is_empty());
    }

    /// Has `atoll dev` look after nothing until it is told to stop.
    pub(crate) fn pause_dev(&self) {
        Process::of(self.dev.id()).expect("it runs").signal(libc::SIGSTOP);
    }

    /// Supervisors that run now.
    pub(crate) fn supervisors(&self) -> usize {
        let is_one = |process: &Process| {
            text(&fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default()).contains("pod-supervisor")
        };
        processes::of_folder(&self.folder).iter().filter(|process| is_one(process)).count()
    }

    /// Stops everything in order and sees that nothing is left.
    pub(crate) fn stop(mut self) {
        self.tell_to_stop();
        until("nothing of the network runs", || processes::of_folder(&self.folder).is_empty().then_some(()));
        let folder = self.folder.clone();
        drop(self);
        fs::remove_dir_all(folder).unwrap();
    }

    fn tell_to_stop(&mut self) {
        for child in self.agents.values_mut().chain([&mut self.dev]) {
            if let Some(process) = Process::of(child.id()) {
                process.signal(libc::SIGTERM);
                process.signal(libc::SIGCONT);
            }
        }
        let began = Instant::now();
        for child in self.agents.values_mut().chain([&mut self.dev]) {
            while matches!(child.try_wait(), Ok(None)) && began.elapsed() < STOP_MAX {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        // Supervisors outlive their agents on purpose; those of agents that were started here are nobody's children.
        for process in processes::of_folder(&self.folder) {
            process.signal(libc::SIGTERM);
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if processes::of_folder(&self.folder).is_empty() {
            return;
        }
        eprintln!("the network did not end well; its logs stay in {}", self.folder.join("logs").display());
        self.tell_to_stop();
        let began = Instant::now();
        while began.elapsed() < STOP_MAX {
            let left = processes::of_folder(&self.folder);
            if left.is_empty() {
                break;
            }
            left.iter().for_each(|process| process.signal(libc::SIGKILL));
            std::thread::sleep(LOOK_EVERY);
        }
        for child in self.agents.values_mut().chain([&mut self.dev]) {
            // Killed above; only its burial is left.
            child.wait().ok();
        }
    }
}

/// A wallet's address from its key file.
pub(crate) fn address_of(file: &Path) -> String {
    Keypair::load(file).unwrap().address().to_string()
}
