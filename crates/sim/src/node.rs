//! A real control node: started, killed, started again on what its database kept.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use atoll_chain::RpcConfig;
use atoll_control::config::{Config, Overrides};
use atoll_control::control::{Control, Keys, Parts, World};
use atoll_control::neighbours::{Neighbours, Stream};
use atoll_control::objects::Objects;
use atoll_control::serve::connection_over;
use atoll_control::tls::Peer;
use atoll_control::{http, work};
use atoll_domain::key::SecretKey;
use atoll_domain::time::UnixMs;
use atoll_life::Life;
use object_store::memory::InMemory;
use tokio_util::sync::CancellationToken;

use crate::chain::Chain;
use crate::clock::Clock;
use crate::net::{Net, Place};
use crate::random::Random;
use crate::store::{Database, Distant, Tamper};
use crate::trace::Trace;

/// How long whatever watches over a node takes to start it again after it could not start.
const RESTART: Duration = Duration::from_secs(1);
/// The longest wait for a node that is to be killed while it works.
pub const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// A control node. Clones are the same.
#[derive(Clone, Debug)]
pub struct Node(Arc<Inner>);

/// What a node is made of.
#[derive(Debug)]
pub struct Inner {
    /// Where it is.
    pub place: Place,
    /// Its wall clock.
    pub clock: Clock,
    /// Its randomness.
    pub random: Random,
    /// The network.
    pub net: Net,
    /// The chain.
    pub chain: Chain,
    /// What is written down.
    pub trace: Trace,
    /// Its operator's database.
    pub database: Database,
    /// Its operator's blobs.
    pub objects: Arc<InMemory>,
    /// Seeds of its node key, its operator's attestor key and pod secret.
    pub keys: [[u8; 32]; 3],
    /// A bug: its operator's blobs are gone with each process.
    pub notes_lost: bool,
    /// A bug in the way to the store.
    pub tamper: Option<Arc<dyn Tamper>>,
    /// Its operator's number.
    pub operator: usize,
    /// Its operator's turns with the attestor key, as the configuration says them; none: it has the key alone.
    pub turn: Option<String>,
    /// Whether it is gone for good.
    pub gone: AtomicBool,
    /// Whether the database dies with it.
    pub own_database: bool,
    /// Covers the process.
    pub life: Mutex<Option<Life>>,
    /// The node inside, while it runs.
    pub control: Mutex<Option<Arc<Control>>>,
}

#[derive(Debug)]
struct Fake {
    clock: Clock,
    random: Random,
}

impl World for Fake {
    fn now(&self) -> UnixMs {
        self.clock.now()
    }

    fn random(&self, bytes: &mut [u8]) {
        self.random.fill(bytes);
    }
}

impl Node {
    /// A node that is not started.
    #[must_use]
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The node inside, while it runs.
    #[must_use]
    pub fn control(&self) -> Option<Arc<Control>> {
        self.0.control.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn life(&self) -> std::sync::MutexGuard<'_, Option<Life>> {
        self.0.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it, if it does not run. When it cannot start or breaks, it is started again.
    pub fn start(&self) {
        if self.is_gone() || self.life().as_ref().is_some_and(|life| !life.is_ended()) {
            return;
        }
        let life = Life::default();
        *self.life() = Some(life.clone());
        let node = self.clone();
        tokio::spawn(async move {
            let again = async {
                loop {
                    let ended = node.run().await;
                    let why = ended.map_or_else(|error| format!("{error:#}"), |()| "no reason".to_owned());
                    node.0.trace.line(node.place(), &format!("the node ended: {why}"));
                    tokio::time::sleep(RESTART).await;
                }
            };
            life.cover(again).await
        });
    }

    /// Kills the process, wherever it stands.
    pub async fn kill(&self) {
        let life = self.life().take();
        if self.0.own_database {
            // Before its connection is closed, which would tidy up.
            self.0.database.kill();
        }
        if let Some(life) = life {
            life.end().await;
        }
        *self.0.control.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Kills it when its tasks have been polled so often.
    pub async fn kill_after(&self, polls: u64) {
        let life = self.life().clone();
        if let Some(life) = life {
            life.end_after(polls);
            let _ = tokio::time::timeout(KILLED_WITHIN, life.ended()).await;
        }
        self.kill().await;
    }

    /// The machine loses power.
    pub async fn lose_power(&self) {
        self.0.net.darken(self.place());
        self.kill().await;
        if self.0.own_database {
            self.0.database.lose_power();
        }
    }

    /// The machine loses power, and nobody ever comes back to it.
    pub async fn vanish(&self) {
        self.0.gone.store(true, Ordering::Relaxed);
        self.lose_power().await;
    }

    /// Whether it is gone for good.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.gone.load(Ordering::Relaxed)
    }

    /// Its operator's number.
    #[must_use]
    pub fn operator(&self) -> usize {
        self.0.operator
    }

    /// The machine is on again.
    pub fn power_up(&self) {
        if self.is_gone() {
            return;
        }
        self.0.net.light(self.place());
        self.start();
    }

    async fn run(&self) -> anyhow::Result<()> {
        let Inner {
            place, clock, random, net, chain, database, objects, keys, tamper, own_database, notes_lost, ..
        } = &*self.0;
        if *own_database {
            database.start()?;
        }
        let store = Distant::new(database, place, net, random.clone(), tamper.clone());
        let [node, attestor, pod_secret] = keys;
        let objects = if *notes_lost { Arc::new(InMemory::new()) } else { Arc::clone(objects) };
        let control = Control::new(Parts {
            config: config(place, self.0.turn.clone())?,
            neighbours: Arc::new(Way { net: net.clone(), from: Arc::clone(place) }),
            store: Arc::new(store),
            world: Arc::new(Fake { clock: clock.clone(), random: random.clone() }),
            rpc: chain.rpc(place, |url| RpcConfig::new(url, random.bits())),
            objects: Objects::over(objects as Arc<dyn object_store::ObjectStore>),
            keys: Keys {
                node: SecretKey::from_seed(node),
                attestor: SecretKey::from_seed(attestor),
                pod_secret: *pod_secret,
            },
        });
        *self.0.control.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&control));
        let stop = CancellationToken::new();
        let router = http::router(&control);
        let mut listener = net.listen(place);
        let mut work = work::spawn(&control, &stop);
        loop {
            let incoming = tokio::select! {
                biased;
                ended = work.join_next() => anyhow::bail!("a reconciler ended: {ended:?}"),
                incoming = listener.accept() => incoming,
            };
            let Some(incoming) = incoming else { anyhow::bail!("somebody else listens at {place}") };
            let peer = Peer { address: incoming.from, exporter: incoming.exporter, place: None };
            atoll_life::spawn(connection_over(incoming.stream, peer, router.clone(), stop.clone()));
        }
    }
}

/// The way to the operator's other nodes.
#[derive(Debug)]
struct Way {
    net: Net,
    from: Place,
}

#[async_trait]
impl Neighbours for Way {
    async fn dial(&self, url: &str) -> std::io::Result<Box<dyn Stream>> {
        let to: Place = url.trim_start_matches("https://").into();
        let (stream, _) = self.net.connect(&self.from, &to).await?;
        Ok(Box::new(stream))
    }
}

fn config(place: &Place, attest_turn: Option<String>) -> anyhow::Result<Config> {
    let flags = Overrides {
        state: Some("/sim".into()),
        rpc: Some("http://chain:8899".to_owned()),
        url: Some(format!("https://{place}")),
        requests_per_s: Some(1_000),
        requests_burst: Some(10_000),
        attest_turn,
        ..Overrides::default()
    };
    Ok(Config::read(None, flags)?)
}
