//! `atoll worker run`: puts the parts together and keeps them going until told to stop.
//!
//! Stopping leaves every pod where it is; the next start takes them up again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use atoll_chain::Keypair;
use atoll_domain::key::SecretKey;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::chain_view::Reader;
use crate::config::{Config, DEVICE_KEY_FILE, SOCKET_FILE};
use crate::link::dial::Dialer;
use crate::link::{self, Identity, Presence};
use crate::outside::SharedOutside;
use crate::probe::{self, CpuDevices, Machine};
use crate::world::act::Surroundings;
use crate::world::store::Records;
use crate::world::{Me, State, World};
use crate::{sdk, streams};

/// Runs a worker until SIGTERM or SIGINT.
///
/// `executable` is the program that has the hidden roles ([`crate::roles`]), `outside` brings clock and randomness.
///
/// # Errors
/// What keeps it from starting, with what to do; or that its state could no longer be written.
pub async fn run(state: &Path, config: Config, executable: PathBuf, outside: SharedOutside) -> Result<()> {
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut world = tokio::select! {
        world = start(state, config, executable, outside) => world?,
        _ = terminated.recv() => return Ok(()),
        _ = interrupted.recv() => return Ok(()),
    };
    tokio::select! {
        ended = Box::pin(world.run()) => ended,
        _ = terminated.recv() => { tracing::info!("stopping; pods go on"); Ok(()) }
        _ = interrupted.recv() => { tracing::info!("stopping; pods go on"); Ok(()) }
    }
}

async fn start(state: &Path, config: Config, executable: PathBuf, outside: SharedOutside) -> Result<World> {
    let state = std::path::absolute(state).with_context(|| format!("the state folder {}", state.display()))?;
    let device = Keypair::load(&state.join(DEVICE_KEY_FILE)).context("run `atoll worker join` first")?;
    let device = Arc::new(SecretKey::from_seed(&device.seed()));
    let announce = config.announce()?;
    let dialer = Dialer::new(&config.server, &config.ca)?;
    let mut seed = [0; 8];
    outside.fill(&mut seed);
    let chain = Reader::new(&config.rpc, u64::from_le_bytes(seed)).map_err(anyhow::Error::msg)?;
    same_network(&chain, &config).await?;

    let probed = {
        let (state, packs, cgroup) = (state.clone(), config.packs.clone(), config.cgroup.clone());
        let devices = CpuDevices { count: config.devices };
        let look = move || probe::probe(&state, &packs, &devices, cgroup.as_deref());
        tokio::task::spawn_blocking(look).await.context("the probe")??
    };
    tracing::info!(worker = %device.public(), facts = ?probed.facts, "probed");
    let records = Records::load(&state)?;
    let sdk = sdk::unpack(&state).context("write the Python package")?;
    let listener = streams::listen(&state.join(SOCKET_FILE)).context("listen for pods' store connections")?;

    let facts = serde_json::to_vec(&probed.facts)?;
    let (presence, shown) = watch::channel(Presence { facts: facts.clone(), ..Presence::default() });
    let (live, live_shown) = watch::channel(BTreeSet::new());
    let me = me(&config, &device, announce, probed, sdk, &state);
    let around = Surroundings {
        state_dir: state,
        executable,
        outside: Arc::clone(&outside),
        chain,
        dialer: dialer.clone(),
        device: Arc::clone(&device),
        slot: config.slot,
        facts,
    };
    let link_identity =
        Identity { device: SecretKey::from_seed(&device.seed()), slot: config.slot, advertise: announce.to_string() };
    // What runs is known before the link says it: the first Hello is complete.
    let later = link::Later::new();
    let mut world = World::new(State::new(me, records.clone()), around, later.link, presence, live);
    world.take_up(&records).await?;
    world.settle().await?;
    later.keeper.start(dialer.clone(), link_identity, outside, shown);
    tokio::spawn(streams::serve_store(listener, dialer, device, live_shown));
    Ok(world)
}

/// Waits for the chain, however long: without it nothing may start, and pods go on by themselves.
async fn same_network(chain: &Reader, config: &Config) -> Result<()> {
    loop {
        match chain.network().await {
            Ok(network) => {
                ensure!(
                    network == config.network,
                    "the chain at {} carries network {network}, and this worker joined {}: correct `rpc`, or join \
                     with another --state",
                    config.rpc,
                    config.network
                );
                return Ok(());
            }
            Err(why) => {
                tracing::warn!(reason = why, rpc = config.rpc, "waiting for the chain");
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            }
        }
    }
}

fn me(
    config: &Config,
    device: &SecretKey,
    announce: std::net::IpAddr,
    probed: Machine,
    sdk: PathBuf,
    state: &Path,
) -> Me {
    Me {
        public: device.public(),
        device: SecretKey::from_seed(&device.seed()),
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
    }
}
