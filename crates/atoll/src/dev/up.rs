//! The order of things: chain, set-up, server, workers, ready; then watching; then stopping in reverse.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use atoll_api::client::Client;
use atoll_chain::Keypair;
use atoll_chain::market::stake::{DEFAULT_RULES, LOCAL_RULES};
use atoll_cli::chain::Chain;
use atoll_cli::output::Output;
use atoll_cli::profile::{Home, Profile};
use atoll_domain::id::WorkerId;
use atoll_domain::key::PublicKey;
use atoll_domain::money::UsdMicrosPerHour;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use super::layout::{DevFile, Layout, Ports, packs};
use super::network::{FEED_EVERY, People, Setup, feed};
use super::process::{self, Part, wait_for};
use crate::arguments::Dev;

/// How long one part may take to be ready: a loaded machine's cold start.
const READY_MAX: Duration = Duration::from_secs(90);
/// Chain and server are started again so many times before this gives up.
const RESTARTS_MAX: u32 = 5;
/// Ask of the first worker, and what each next one asks more, in micro-USD per device-hour.
const ASK: (u64, u64) = (50_000, 10_000);

/// One network on its way up, and then running.
struct Network<'a> {
    args: &'a Dev,
    out: Output,
    layout: Layout,
    people: People,
    packs: Vec<PathBuf>,
    ports: Ports,
    parts: Vec<Part>,
    restarts: u32,
}

#[derive(Deserialize)]
struct ApiKey {
    api_key: String,
}

/// Runs a network until it is told to stop.
pub(super) async fn run(args: &Dev, json: bool) -> anyhow::Result<()> {
    let out = Output::detect(json);
    let packs = packs(&args.pack)?;
    let layout = Layout::open(&args.state)?;
    let lock = layout.lock()?;
    process::become_subreaper()?;
    let people = people(&layout, args.workers)?;
    let ports = layout.ports()?;
    let mut network = Network { args, out, layout, people, packs, ports, parts: Vec::new(), restarts: 0 };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let outcome = tokio::select! {
        outcome = network.up_and_watch() => outcome,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    };
    network.down().await;
    drop(lock);
    outcome
}

fn people(layout: &Layout, workers: u16) -> anyhow::Result<People> {
    Ok(People {
        admin: layout.key("wallets/admin.json")?,
        mint: layout.key("wallets/mint.json")?,
        attestor_owner: layout.key("wallets/attestor-owner.json")?,
        attestor: layout.key("server/keys/attestor.json")?,
        node: layout.key("server/keys/node.json")?,
        renter: layout.key("wallets/renter.json")?,
        suppliers: (1..=workers)
            .map(|n| layout.key(&format!("wallets/supplier-{n}.json")))
            .collect::<anyhow::Result<_>>()?,
    })
}

fn strings<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

fn public(key: &Keypair) -> PublicKey {
    PublicKey(key.address().0)
}

impl Network<'_> {
    async fn up_and_watch(&mut self) -> anyhow::Result<()> {
        self.forget_dev_file();
        let chain = self.start_chain().await?;
        self.out.say("chain up; setting the network up");
        let rules = if self.args.rules == "default" { &DEFAULT_RULES } else { &LOCAL_RULES };
        Setup { rpc: &chain.rpc, people: &self.people, rules }.run().await?;
        let found = chain.network().await.map_err(anyhow::Error::new)?;
        let home = self.start_server(found.root).await?;
        self.out.say("control plane up; workers join");
        let worker_ids = self.start_workers().await?;
        self.wait_linked(&home, &worker_ids).await?;
        let file = self.dev_file(&home, found.root, &worker_ids);
        self.layout.write("dev.json", &file)?;
        self.say_ready(&file)?;
        self.watch(&chain, file).await
    }

    fn rpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.chain)
    }

    /// Starts a part that writes a port file, and keeps its port for the next time.
    async fn start_listening(&mut self, name: &str, arguments: Vec<String>) -> anyhow::Result<u16> {
        let port_file = self.layout.path(&format!("run/{name}.port"));
        if port_file.exists() {
            std::fs::remove_file(&port_file).with_context(|| format!("removing {}", port_file.display()))?;
        }
        let mut arguments = arguments;
        arguments.extend(["--port-file".to_owned(), port_file.display().to_string()]);
        let part = process::start(&self.layout, name, arguments)?;
        self.parts.push(part);
        let part = self.parts.last_mut().expect("it was just pushed");
        let port = || async { std::fs::read_to_string(&port_file).ok()?.trim().parse::<u16>().ok() };
        wait_for(&self.layout, part, "listening", READY_MAX, port).await
    }

    async fn start_chain(&mut self) -> anyhow::Result<Chain> {
        let state = self.layout.path("chain").display().to_string();
        let listen = format!("127.0.0.1:{}", self.ports.chain);
        let arguments = strings(["local-chain", "--state", &state, "--listen", &listen]);
        self.ports.chain = self.start_listening("chain", arguments).await?;
        self.layout.keep_ports(self.ports)?;
        let chain = Chain::new(&self.rpc_url()).map_err(anyhow::Error::new)?;
        chain.rpc.genesis_hash().await.context("asking the new chain")?;
        Ok(chain)
    }

    async fn start_server(&mut self, network_root: atoll_domain::key::Digest) -> anyhow::Result<Home> {
        let home = Home::at(self.layout.path("client"));
        let state = self.layout.path("server").display().to_string();
        let store = self.args.store.clone().unwrap_or_else(|| format!("sqlite:{state}/control.db"));
        let api_key = match home.load() {
            Ok(profile) => profile.api_key,
            Err(_) => self.make_api_key(&state, &store).await?,
        };
        let (rpc, listen) = (self.rpc_url(), format!("127.0.0.1:{}", self.ports.server));
        let strangers = &self.args.strangers;
        let arguments = strings([
            "server",
            "--state",
            &state,
            "--listen",
            &listen,
            "--rpc",
            &rpc,
            "--store",
            &store,
            "--strangers",
            strangers,
        ]);
        self.ports.server = self.start_listening("server", arguments).await?;
        self.layout.keep_ports(self.ports)?;
        let profile = Profile {
            server: format!("https://127.0.0.1:{}", self.ports.server),
            ca: self.layout.path("server/tls/cert.pem"),
            api_key,
            wallet: self.layout.path("wallets/renter.json"),
            rpc,
            network_root,
        };
        home.save(&profile).map_err(anyhow::Error::new)?;
        let client = atoll_cli::session::client(&profile).map_err(anyhow::Error::new)?;
        let part = self.parts.last_mut().expect("the server was just started");
        let network = || async { client.network().await.ok() };
        let said = wait_for(&self.layout, part, "seeing the chain", READY_MAX, network).await?;
        if said.network_root != network_root {
            bail!("the server sees network {}, the chain is {network_root}: name an empty --state", said.network_root);
        }
        Ok(home)
    }

    async fn make_api_key(&self, state: &str, store: &str) -> anyhow::Result<String> {
        let wallet = public(&self.people.renter).to_string();
        let arguments = strings([
            "--json", "admin", "key", "create", "--state", state, "--store", store, "--user", "renter", "--wallet",
            &wallet,
        ]);
        let printed = process::once(&self.layout, "admin", arguments).await?;
        let key: ApiKey = serde_json::from_str(&printed).context("reading the new API key")?;
        Ok(key.api_key)
    }

    async fn start_workers(&mut self) -> anyhow::Result<BTreeMap<String, WorkerId>> {
        let (server, rpc) = (format!("https://127.0.0.1:{}", self.ports.server), self.rpc_url());
        let ca = self.layout.path("server/tls/cert.pem").display().to_string();
        let mut ids = BTreeMap::new();
        for n in 1..=self.args.workers {
            let name = format!("worker-{n}");
            let state = self.layout.path(&name).display().to_string();
            let wallet = self.layout.path(&format!("wallets/supplier-{n}.json")).display().to_string();
            let ask = usd(UsdMicrosPerHour(ASK.0 + u64::from(n - 1) * ASK.1));
            let mut join = strings([
                "worker",
                "join",
                "--state",
                &state,
                "--server",
                &server,
                "--ca",
                &ca,
                "--rpc",
                &rpc,
                "--wallet",
                &wallet,
                "--ask",
                &ask,
                "--advertise",
                "127.0.0.1",
            ]);
            for pack in &self.packs {
                join.extend(["--pack".to_owned(), pack.display().to_string()]);
            }
            process::once(&self.layout, &name, join).await?;
            let device = Keypair::load(&self.layout.path(&format!("{name}/device.json")))?;
            ids.insert(name.clone(), WorkerId::of_device_key(&public(&device)));
            let part = process::start(&self.layout, &name, strings(["worker", "run", "--state", &state]))?;
            self.parts.push(part);
        }
        Ok(ids)
    }

    async fn wait_linked(&mut self, home: &Home, ids: &BTreeMap<String, WorkerId>) -> anyhow::Result<()> {
        let profile = home.load().map_err(anyhow::Error::new)?;
        let client = atoll_cli::session::client(&profile).map_err(anyhow::Error::new)?;
        for (name, id) in ids {
            let part = self.parts.iter_mut().find(|part| part.name == *name).expect("each worker was started");
            let linked = || async { linked(&client).await.contains(id).then_some(()) };
            wait_for(&self.layout, part, "being linked", READY_MAX, linked).await?;
        }
        Ok(())
    }

    fn pids(&self) -> BTreeMap<String, u32> {
        let mut pids: BTreeMap<String, u32> =
            self.parts.iter().filter_map(|part| Some((part.name.clone(), part.pid()?))).collect();
        pids.insert("dev".to_owned(), std::process::id());
        pids
    }

    fn dev_file(
        &self,
        home: &Home,
        network_root: atoll_domain::key::Digest,
        worker_ids: &BTreeMap<String, WorkerId>,
    ) -> DevFile {
        let suppliers = || (1..).map(|n| format!("worker-{n}")).zip(&self.people.suppliers);
        let account = |key: &Keypair| PublicKey(self.people.token_account(key).0);
        let mut token_accounts: BTreeMap<_, _> = suppliers().map(|(name, key)| (name, account(key))).collect();
        token_accounts.insert("renter".to_owned(), account(&self.people.renter));
        DevFile {
            pids: self.pids(),
            ports: self.ports,
            network_root,
            program_id: PublicKey(atoll_chain::market::PROGRAM_ID.0),
            mint: public(&self.people.mint),
            supplier_wallets: suppliers().map(|(name, key)| (name, public(key))).collect(),
            token_accounts,
            worker_ids: worker_ids.iter().map(|(name, id)| (name.clone(), id.to_string())).collect(),
            renter_wallet: public(&self.people.renter),
            treasury: PublicKey(self.people.treasury().0),
            client_home: home.folder().to_owned(),
            profile: home.profile_path(),
            logs: self.layout.path("logs"),
        }
    }

    fn say_ready(&self, file: &DevFile) -> anyhow::Result<()> {
        let weak = if self.args.strangers == "no" {
            "\nworkers may be without enforced limits: this network is for you alone, not for strangers"
        } else {
            ""
        };
        self.out
            .result(file, || {
                format!(
                    "network root {}\nbe the renter: export ATOLL_HOME={}\nthe price feed is set by this process, not by a market; one operator attests{weak}\nready",
                    file.network_root,
                    file.client_home.display()
                )
            })
            .map_err(anyhow::Error::new)
    }

    /// Keeps the network going: feed, orphans, and parts that end.
    async fn watch(&mut self, chain: &Chain, mut file: DevFile) -> anyhow::Result<()> {
        let mut child = signal(SignalKind::child())?;
        let mut again = tokio::time::interval(FEED_EVERY);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = child.recv() => {
                    process::reap(&self.parts);
                    if self.look_after().await? {
                        file.pids = self.pids();
                        self.layout.write("dev.json", &file)?;
                    }
                }
                _ = again.tick() => {
                    // The chain may just be starting again; the feed has five chances within its age.
                    if let Err(error) = feed(&chain.rpc, &self.people.admin).await {
                        self.out.say(&format!("the price feed could not be set: {error:#}; trying again"));
                    }
                }
            }
        }
    }

    /// Sees which parts have ended: a lost worker stays lost, chain and server start again. Whether any had ended.
    async fn look_after(&mut self) -> anyhow::Result<bool> {
        let mut ended = Vec::new();
        for at in (0..self.parts.len()).rev() {
            if let Some(status) = self.parts[at].child.try_wait().context("looking at a child")? {
                ended.push((self.parts.remove(at), status));
            }
        }
        let any = !ended.is_empty();
        for (part, status) in ended {
            if part.name.starts_with("worker-") {
                self.out.say(&format!("{} ended ({status}) and stays so; the others go on", part.name));
                continue;
            }
            self.restarts += 1;
            if self.restarts > RESTARTS_MAX {
                let log = self.layout.path("logs").join(format!("{}.log", part.name));
                bail!("{} ended again ({status}): {}", part.name, process::last_lines(&log));
            }
            self.out.say(&format!("{} ended ({status}); starting it again", part.name));
            self.restart(part).await?;
        }
        Ok(any)
    }

    /// Starts a part again with what it was given, on the port that everybody knows.
    async fn restart(&mut self, part: Part) -> anyhow::Result<()> {
        let (mut arguments, port) = match part.name.as_str() {
            "chain" => (part.arguments, self.ports.chain),
            _ => (part.arguments, self.ports.server),
        };
        let at =
            arguments.iter().position(|word| word == "--listen").expect("chain and server are told where to listen");
        arguments[at + 1] = format!("127.0.0.1:{port}");
        arguments.truncate(arguments.len() - 2);
        self.start_listening(&part.name, arguments).await?;
        Ok(())
    }

    /// Stops everything: workers, then the pods they left, then server and chain.
    async fn down(&mut self) {
        self.out.say("stopping");
        let mut workers = Vec::new();
        let mut rest = Vec::new();
        for part in self.parts.drain(..) {
            if part.name.starts_with("worker-") { workers.push(part) } else { rest.push(part) }
        }
        process::stop(&mut workers).await;
        let orphans = process::stop_orphans(&rest).await;
        if orphans > 0 {
            self.out.say(&format!("stopped {orphans} process(es) of pods"));
        }
        rest.reverse();
        for part in &mut rest {
            process::stop(std::slice::from_mut(part)).await;
        }
        process::stop_orphans(&[]).await;
        self.forget_dev_file();
    }

    /// Takes away what names processes of an earlier run. That there is none is the usual case.
    fn forget_dev_file(&self) {
        let _ = std::fs::remove_file(self.layout.path("dev.json"));
    }
}

async fn linked(client: &Client) -> BTreeSet<WorkerId> {
    let workers = client.workers().await.unwrap_or_default();
    workers.into_iter().filter(|worker| worker.linked).map(|worker| worker.worker).collect()
}

/// A price as `--ask` takes it.
fn usd(price: UsdMicrosPerHour) -> String {
    format!("{}.{:06}", price.0 / 1_000_000, price.0 % 1_000_000)
}
