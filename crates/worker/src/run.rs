//! `atoll worker run`: puts the parts together and keeps them going until told to stop.
//!
//! Stopping leaves every pod where it is; the next start takes them up again. [`run`] reads files and environment and
//! makes the parts of a real machine; [`with`] runs a worker of any parts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use atoll_chain::{Keypair, Rpc};
use atoll_domain::key::SecretKey;
use atoll_domain::worker::Facts;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::chain_view::{ReadError, Reader, rpc_config};
use crate::config::{Config, DEVICE_KEY_FILE, SOCKET_FILE};
use crate::host::{SharedHost, machine};
use crate::link::dial::{Operator, OperatorName};
use crate::link::{Identity, Later, Presence};
use crate::outside::SharedOutside;
use crate::probe::{self, CpuDevices};
use crate::sdk;
use crate::streams::{self, Stores};
use crate::world::act::{Line, Surroundings};
use crate::world::{Me, State, World};

/// Everything that a worker is made of.
#[derive(Debug)]
pub struct Parts {
    /// This worker: its keys, its place on the chain, what its machine brings.
    pub me: Me,
    /// What the control plane is told of the machine.
    pub facts: Facts,
    /// The machine.
    pub host: SharedHost,
    /// Whom it serves; at least one, the first one being that of pods from a time when there was one only.
    pub operators: Vec<Operator>,
    /// The chain; settings as [`crate::chain_view::rpc_config`] makes them.
    pub rpc: Rpc,
    /// Clock and randomness.
    pub outside: SharedOutside,
}

/// Runs a worker until SIGTERM or SIGINT.
///
/// `executable` is the program that has the hidden roles ([`crate::roles`]), `outside` brings clock and randomness.
///
/// # Errors
/// What keeps it from starting, with what to do; or that its pods could not be listed.
pub async fn run(state: &Path, config: Config, executable: PathBuf, outside: SharedOutside) -> Result<()> {
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let whole = async { with(parts(state, config, executable, outside).await?).await };
    tokio::select! {
        biased;
        _ = terminated.recv() => { tracing::info!("stopping; pods go on"); Ok(()) }
        _ = interrupted.recv() => { tracing::info!("stopping; pods go on"); Ok(()) }
        ended = Box::pin(whole) => ended,
    }
}

/// Runs a worker of these parts until it is dropped.
///
/// # Errors
/// The chain carries another network, or what is left from before cannot be read; or that its pods could not be listed.
pub async fn with(parts: Parts) -> Result<()> {
    let Parts { me, facts, host, operators, rpc, outside } = parts;
    let chain = Reader::of_network(rpc, me.network);
    let network = same_network(chain.clone());
    let records = host.load().await?;
    let facts = serde_json::to_vec(&facts)?;
    let (live, live_shown) = watch::channel(BTreeMap::new());
    let device = Arc::new(SecretKey::from_seed(&me.device.seed()));
    let identity = Identity { device: Arc::clone(&device), slot: me.slot, advertise: me.announce.to_string() };
    let (mut lines, mut starters) = (vec![], vec![]);
    for operator in &operators {
        let (presence, shown) = watch::channel(Presence { facts: facts.clone(), ..Presence::default() });
        let Later { link, keeper } = Later::new();
        lines.push(Line { operator: operator.name().clone(), link, presence });
        starters.push((keeper, operator.clone(), shown));
    }
    let names: Vec<OperatorName> = operators.iter().map(|operator| operator.name().clone()).collect();
    let operators: BTreeMap<OperatorName, Operator> =
        operators.into_iter().map(|operator| (operator.name().clone(), operator)).collect();
    ensure!(operators.len() == names.len() && !names.is_empty(), "two operators have one name, or there is none");
    let operators = Arc::new(operators);
    let around = Surroundings {
        host: Arc::clone(&host),
        outside: Arc::clone(&outside),
        chain,
        operators: Arc::clone(&operators),
        device: Arc::clone(&device),
        slot: me.slot,
        facts,
    };
    // What runs is known before a link says it: the first Hello is complete.
    let mut world = World::new(State::new(me, records.clone(), &names), around, lines, live);
    world.take_up(&records).await?;
    world.settle().await;
    for (keeper, operator, shown) in starters {
        keeper.start(operator, identity.clone(), Arc::clone(&outside), shown);
    }
    atoll_life::spawn(streams::serve_store(host, Stores { operators, device, live: live_shown }));
    tokio::select! {
        biased;
        other = network => Err(other),
        () = world.run() => Ok(()),
    }
}

async fn parts(state: &Path, config: Config, executable: PathBuf, outside: SharedOutside) -> Result<Parts> {
    let state = std::path::absolute(state).with_context(|| format!("the state folder {}", state.display()))?;
    let device = Keypair::load(&state.join(DEVICE_KEY_FILE)).context("run `atoll worker join` first")?;
    let device = SecretKey::from_seed(&device.seed());
    let announce = config.announce()?;
    let operators = config.operators()?;
    let mut seed = [0; 8];
    outside.fill(&mut seed);
    let rpc = Rpc::new(rpc_config(&config.rpc, u64::from_le_bytes(seed)))?;
    let probed = {
        let (state, packs, cgroup) = (state.clone(), config.packs.clone(), config.cgroup.clone());
        let devices = CpuDevices { count: config.devices };
        let look = move || probe::probe(&state, &packs, &devices, cgroup.as_deref());
        tokio::task::spawn_blocking(look).await.context("the probe")??
    };
    tracing::info!(worker = %device.public(), facts = ?probed.facts, "probed");
    let sdk = sdk::unpack(&state).context("write the Python package")?;
    let host = machine::Machine::open(state.clone(), executable).context("listen for pods' store connections")?;
    let me = Me {
        public: device.public(),
        device,
        slot: config.slot,
        network: config.network,
        announce,
        packs: probed.packs,
        sdk,
        socket: state.join(SOCKET_FILE),
        device_share: probed.device_share,
        root: nix::unistd::geteuid().is_root(),
        tun_device: config.tun_device.clone(),
        bwrap: config.bwrap.clone(),
        cgroup: config.cgroup.clone(),
    };
    Ok(Parts { me, facts: probed.facts, host: Arc::new(host), operators, rpc, outside })
}

/// Waits for the chain, however long, and gives what is wrong with it. Until it has shown itself nothing is started, and
/// nothing is ended for what it says; pods go on, and are reported.
async fn same_network(chain: Reader) -> anyhow::Error {
    let rpc = chain.market().rpc().endpoint();
    loop {
        match chain.known().await {
            Ok(()) => std::future::pending().await,
            Err(ReadError::OtherNetwork { carries, joined }) => {
                return anyhow::anyhow!(
                    "the chain at {rpc} carries network {carries}, and this worker joined {joined}: correct `rpc`, or \
                     join with another --state"
                );
            }
            Err(why) => tracing::warn!(reason = %why, rpc, "waiting for the chain"),
        }
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
}
