//! Starts one control node and stops it: keys, store, chain, TLS, connections, reconcilers.
//!
//! [`serve`] is what `atoll server` runs; [`Node`] is the same in parts, for tests that bring their own store or leave
//! the reconcilers out.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use atoll_domain::key::SecretKey;
use atoll_domain::time::UnixMs;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::app::network;
use crate::config::Config;
pub use crate::connections::connection_over;
use crate::connections::{Connections, DRAIN_MAX};
use crate::control::{Control, Keys, Parts, World};
use crate::neighbours::{Pinned, reachable};
use crate::objects::Objects;
use crate::places::Places;
use crate::store::{Store, StoreError};
use crate::{http, link, tls};

/// Open files that are not for connections: the store, the chain, objects, a margin.
const FILES_RESERVED: u64 = 256;

/// The real world.
#[derive(Debug)]
pub struct RealWorld;

impl World for RealWorld {
    #[expect(clippy::disallowed_methods, reason = "this is where time comes in")]
    fn now(&self) -> UnixMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "this is where randomness comes in")]
    fn random(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives randomness; nothing secret can be made without");
    }
}

/// Runs a control node until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start: unusable state, store, chain address or port.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let files = raise_open_files()?;
    let connections_max = config.connections_max.min(u32::try_from(files - FILES_RESERVED).unwrap_or(u32::MAX));
    let config = Config { connections_max, ..config };
    tracing::info!(files, connections_max, "connections that fit");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let store = crate::store::open(&config.store).await.context("opening the store")?;
    let node = Node::listen(config, store, Arc::new(RealWorld), stop.clone()).await?;
    if let Err(wrong) = is_the_right_chain(&node.control).await? {
        node.stop().await;
        return Err(wrong.into());
    }
    let mut reconcilers = crate::tasks::spawn(&node.control, &stop);
    let ended = tokio::select! {
        biased;
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        // None ends by itself. A node without one would look well and, say, pay nobody.
        Some(ended) = reconcilers.join_next() => Err(match ended {
            Ok(()) => anyhow::anyhow!("a reconciler ended"),
            Err(error) => anyhow::anyhow!("a reconciler broke: {error}"),
        }),
    };
    // Starting this build again would not help.
    let outdated = match ended {
        Ok(()) => None,
        Err(_) => node.control.store.beat().await.err().filter(|error| matches!(error, StoreError::Outdated { .. })),
    };
    tracing::info!("stopping");
    node.stop().await;
    drain(reconcilers).await;
    if let Some(outdated) = outdated {
        return Err(outdated.into());
    }
    ended.context("this node stops: start it again, it goes on from its store")
}

/// Whether the chain is the store's. One that does not answer now is asked again by a reconciler.
async fn is_the_right_chain(control: &Control) -> anyhow::Result<Result<(), network::Wrong>> {
    let pin = control.store.network().await.context("asking the store for its network")?;
    Ok(match network::cluster(control).await {
        Ok(found) => network::check(found, None, pin),
        Err(error) => {
            tracing::warn!(%error, "the chain does not answer; nothing is done before it does");
            Ok(())
        }
    })
}

/// Raises the bound on open files as far as the system lets it be: each connection is one.
fn raise_open_files() -> anyhow::Result<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("asking how many files may be open")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising how many files may be open")?;
    if hard < 2 * FILES_RESERVED {
        anyhow::bail!(
            "at most {hard} files may be open, too few to serve: raise the limit (`ulimit -Hn`) to 8192 or more"
        );
    }
    Ok(hard)
}

async fn drain(mut tasks: JoinSet<()>) {
    let ended = tokio::time::timeout(DRAIN_MAX, async { while tasks.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!("a reconciler did not stop in time; what it was doing is done again at the next start");
        tasks.shutdown().await;
    }
}

/// A control node that listens.
#[derive(Debug)]
pub struct Node {
    /// Its parts.
    pub control: Arc<Control>,
    /// Where it listens.
    pub address: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Node {
    /// Loads or makes what is in the state folder, and serves API and links until `stop` is cancelled.
    ///
    /// # Errors
    /// When state, chain address or port are not usable.
    pub async fn listen(
        config: Config,
        store: Arc<dyn Store>,
        world: Arc<dyn World>,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        let tls = TlsAcceptor::from(tls::load(&config.state, &config.names)?);
        let listener =
            TcpListener::bind(config.listen).await.with_context(|| format!("listening on {}", config.listen))?;
        let address = listener.local_addr()?;
        let url = config.url.clone().unwrap_or_else(|| format!("https://{}", reachable(address)));
        let config = Config { url: Some(url), ..config };
        let control = Control::new(parts(config, store, world)?);
        let tasks = TaskTracker::new();
        let connections = Connections {
            router: http::router(&control),
            tls,
            places: Places::new(control.config.connections_max),
            admission: Admission::new(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(atoll_life::bound(connections.accept(listener)));
        tasks.spawn(atoll_life::bound(link::flush_observations(Arc::clone(&control), stop.clone())));
        tasks.spawn(atoll_life::bound(link::attend(Arc::clone(&control), stop.clone())));
        if let Some(path) = &control.config.port_file {
            tls::write_new(path, format!("{}\n", address.port()).as_bytes(), 0o644)?;
        }
        tracing::info!(%address, node = %control.keys.node.public(), "listening");
        Ok(Self { control, address, stop, tasks })
    }

    /// Ends links, lets open requests finish for a moment, and returns when all is over.
    pub async fn stop(self) {
        self.stop.cancel();
        self.control.links.close();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_MAX + Duration::from_secs(1), self.tasks.wait()).await.is_err() {
            tracing::warn!("connections were cut off");
        }
    }
}

/// What a real node is made of.
fn parts(config: Config, store: Arc<dyn Store>, world: Arc<dyn World>) -> anyhow::Result<Parts> {
    let keys = load_keys(&config.state, &*world)?;
    let mut seed = [0; 8];
    world.random(&mut seed);
    let rpc = atoll_chain::Rpc::new(atoll_chain::RpcConfig::new(&config.rpc, u64::from_le_bytes(seed)))?;
    let objects = Objects::open(&config.objects).with_context(|| format!("opening {}", config.objects.display()))?;
    let neighbours = Arc::new(Pinned::of(&config.state)?);
    Ok(Parts { config, store, world, rpc, objects, keys, neighbours })
}

/// Loads the node's keys from `keys/`, making those that are not there.
///
/// # Errors
/// When a key file is open to others, damaged, or cannot be written.
pub fn load_keys(state: &Path, world: &dyn World) -> anyhow::Result<Keys> {
    let folder = state.join("keys");
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.with_context(|| format!("making {}", folder.display()))?;
    Ok(Keys {
        node: load_key(&folder.join("node.json"), world)?,
        attestor: load_key(&folder.join("attestor.json"), world)?,
        pod_secret: *load_keypair(&folder.join("pod-secret.json"), world)?.seed(),
    })
}

fn load_key(path: &Path, world: &dyn World) -> anyhow::Result<SecretKey> {
    Ok(SecretKey::from_seed(&load_keypair(path, world)?.seed()))
}

fn load_keypair(path: &Path, world: &dyn World) -> anyhow::Result<atoll_chain::Keypair> {
    if !path.exists() {
        let mut seed = [0; 32];
        world.random(&mut seed);
        atoll_chain::Keypair::from_seed(&seed).save(path)?;
    }
    Ok(atoll_chain::Keypair::load(path)?)
}
