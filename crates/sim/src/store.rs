//! A node's way to its database: an operation arrives a little later, its answer later still, and a node can be killed
//! between the two.
//!
//! One node keeps its database itself, and both die together. Several nodes share one that is a place of its own, as
//! PostgreSQL is: it can be cut off, and dies alone. The database is the real SQLite store on a fake disk in both cases.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use atoll_control::store::rows::*;
use atoll_control::store::{Accepted, Result, Store, StoreError, sqlite_inline};
use atoll_domain::id::{ApiKeyId, ClusterId, CommandId, JobId, NodeId, PodId, UserId, WorkerId};
use atoll_domain::key::{Address, Digest, PublicKey};
use atoll_domain::meter::{Observation, SignedUsage};
use atoll_domain::time::UnixMs;

use crate::clock::Clock;
use crate::disk::vfs::Mount;
use crate::disk::{Disk, Platters};
use crate::net::{Net, Place};
use crate::random::Random;

/// How long a node waits for its database.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The database's file.
const FILE: &str = "control.db";

/// A database process and its disk. Clones are the same.
#[derive(Clone, Debug)]
pub struct Database(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    place: Place,
    disk: Disk,
    clock: Clock,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    store: Arc<dyn Store>,
    mount: Mount,
}

impl Database {
    /// A database that is not started.
    #[must_use]
    pub fn new(place: &Place, disk: Disk, clock: Clock) -> Self {
        Self(Arc::new(Inner { place: Arc::clone(place), disk, clock, open: Mutex::new(None) }))
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its disk.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.0.disk
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.0.place
    }

    /// Starts it, if it does not run.
    ///
    /// # Errors
    /// What the disk does not give.
    pub fn start(&self) -> Result<()> {
        let mut open = self.open();
        if open.is_none() {
            let mount = Mount::new(&self.0.disk, &self.0.clock);
            let store = sqlite_inline(Path::new(FILE), Some(mount.name()))?;
            *open = Some(Open { store, mount });
        }
        Ok(())
    }

    /// Kills it.
    pub fn kill(&self) {
        if let Some(open) = self.open().take() {
            open.mount.kill();
            drop(open.store);
        }
    }

    /// Its machine loses power.
    pub fn lose_power(&self) {
        self.kill();
        self.0.disk.lose_power();
    }

    /// Its machine loses power, and every sync since `then` turns out to have lied.
    pub fn lose_since(&self, then: &Platters) {
        self.kill();
        self.0.disk.lose_since(then);
    }

    /// The store itself.
    ///
    /// # Errors
    /// It does not run.
    pub fn store(&self) -> Result<Arc<dyn Store>> {
        self.open().as_ref().map(|open| Arc::clone(&open.store)).ok_or_else(|| broken("the database does not run"))
    }
}

fn broken(why: &str) -> StoreError {
    StoreError::Engine(why.into())
}

/// Something put between a node and its store that changes what is answered: a planted bug.
pub trait Tamper: std::fmt::Debug + Send + Sync {
    /// Changes what the node is told of a job's pods.
    fn pods_of(&self, _: &mut Vec<Pod>) {}

    /// Changes what the node is told of a job, by its id or among the open ones; none: it is not there.
    fn job(&self, job: Job) -> Option<Job> {
        Some(job)
    }
}

/// A node's way to its database.
#[derive(Debug)]
pub struct Distant {
    database: Database,
    from: Place,
    net: Net,
    random: Random,
    tamper: Option<Arc<dyn Tamper>>,
}

impl Distant {
    /// The way from a node.
    #[must_use]
    pub fn new(database: &Database, from: &Place, net: &Net, random: Random, tamper: Option<Arc<dyn Tamper>>) -> Self {
        Self { database: database.clone(), from: Arc::clone(from), net: net.clone(), random, tamper }
    }

    async fn there(&self) -> Result<Arc<dyn Store>> {
        self.travel(&self.from, &self.database.0.place).await?;
        self.database.store()
    }

    fn told(&self, job: Job) -> Option<Job> {
        match &self.tamper {
            Some(tamper) => tamper.job(job),
            None => Some(job),
        }
    }

    async fn back(&self) -> Result<()> {
        self.travel(&self.database.0.place, &self.from).await
    }

    async fn travel(&self, from: &Place, to: &Place) -> Result<()> {
        if from == to {
            // Three operations in four are over at once; the others take their time.
            if self.random.happens(750) {
                tokio::task::yield_now().await;
            } else {
                let ms = Duration::from_millis;
                tokio::time::sleep(self.random.lasts(ms(1)..ms(5))).await;
            }
            return Ok(());
        }
        let arrived = tokio::time::timeout(ANSWER_MAX, self.net.settle_leg(from, to)).await;
        arrived.map_err(|_| broken("the database does not answer"))
    }
}

macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        #[async_trait]
        impl Store for Distant {
            async fn pods_of(&self, job: JobId) -> Result<Vec<Pod>> {
                let mut pods = self.there().await?.pods_of(job).await?;
                if let Some(tamper) = &self.tamper {
                    tamper.pods_of(&mut pods);
                }
                self.back().await?;
                Ok(pods)
            }

            async fn job(&self, id: JobId) -> Result<Option<Job>> {
                let job = self.there().await?.job(id).await?.and_then(|job| self.told(job));
                self.back().await?;
                Ok(job)
            }

            async fn jobs_open(&self) -> Result<Vec<Job>> {
                let jobs = self.there().await?.jobs_open().await?.into_iter().filter_map(|job| self.told(job)).collect();
                self.back().await?;
                Ok(jobs)
            }

            $(async fn $name(&self, $($argument: $type),*) -> Result<$answer> {
                let answer = self.there().await?.$name($($argument),*).await;
                self.back().await?;
                answer
            })*
        }
    };
}

forward! {
    user_add(user: &User) -> ();
    user_by_name(name: &str) -> Option<User>;
    api_key_add(key: &ApiKey) -> ();
    api_key(id: ApiKeyId) -> Option<(ApiKey, User)>;
    api_key_revoke(id: ApiKeyId, now: UnixMs) -> ();
    nonce_use(signer: &PublicKey, nonce: &[u8; 16], now: UnixMs, forget_at: UnixMs) -> bool;
    job_accept(new: &NewJob, now: UnixMs) -> Accepted;
    job_by_order(order: &Address) -> Option<Job>;
    job_by_cluster(cluster: ClusterId) -> Option<Job>;
    jobs_of(user: UserId, limit: u32) -> Vec<Job>;
    job_change(id: JobId, generation: u64, change: &JobChange, events: &[Event]) -> Job;
    events_add(job: JobId, events: &[Event]) -> ();
    events(job: JobId, after: u64, limit: u32) -> Vec<(u64, Event)>;
    worker_put(worker: &Worker) -> ();
    worker(id: WorkerId) -> Option<Worker>;
    known(workers: &[WorkerId]) -> BTreeMap<WorkerId, Known>;
    workers() -> Vec<Worker>;
    devices_unreserve(job: JobId) -> ();
    devices_reserved(now: UnixMs) -> BTreeMap<WorkerId, u16>;
    pods_add(
        job: JobId,
        generation: u64,
        change: &JobChange,
        pods: &[Pod],
        commands: &[Command],
        events: &[Event]
    ) -> Job;
    pod(id: PodId) -> Option<Pod>;
    devices_reserve(reservations: &[Reservation], now: UnixMs) -> ();
    pods_on(worker: WorkerId) -> Vec<Pod>;
    pod_change(id: PodId, change: &PodChange, events: &[Event]) -> bool;
    usage_put(pod: PodId, usage: &SignedUsage) -> ();
    observations_put(seen: &BTreeMap<PodId, Observation>) -> ();
    commands_add(commands: &[Command]) -> ();
    commands_open(worker: WorkerId, limit: u32) -> Vec<Command>;
    workers_commanded() -> Vec<WorkerId>;
    command_answer(worker: WorkerId, id: CommandId, answer: &CommandAnswer) -> bool;
    command(id: CommandId) -> Option<(Command, Option<CommandAnswer>)>;
    chain_tx_put(tx: &ChainTx) -> ChainTx;
    chain_tx(key: &str) -> Option<ChainTx>;
    chain_txs_of(job: JobId) -> Vec<ChainTx>;
    chain_txs_pending() -> Vec<ChainTx>;
    chain_tx_state(signature: &str, state: ChainTxState, error: &str, told: &[Event]) -> ();
    chain_tx_gone(signature: &str) -> ();
    epoch_put(epoch: &Epoch) -> Epoch;
    epoch_latest() -> Option<Epoch>;
    epoch_with_lease(lease: &Address) -> Option<Epoch>;
    epoch_with_lease_up_to(lease: &Address, index: u64) -> Option<Epoch>;
    receipt_put(job: JobId, sha256: &Digest, receipt: &str) -> ();
    receipt(job: JobId) -> Option<String>;
    job_origin(job: JobId) -> Origin;
    job_adopt(new: &AdoptedJob) -> Job;
    stray_put(stray: &Stray) -> ();
    stray(pod: PodId) -> Option<Stray>;
    strays_on(worker: WorkerId) -> Vec<Stray>;
    strays_of(order: &Address) -> Vec<Stray>;
    stray_orders() -> Vec<Address>;
    strays_drop(order: &Address, before: UnixMs) -> ();
    node_beat(beat: &Beat) -> ();
    news(commands_after: u64) -> News;
    last_command() -> u64;
    links() -> BTreeMap<WorkerId, Held>;
    nodes_drop(nodes: &[NodeId]) -> ();
    pod_lose(id: PodId, seen: Option<Held>, change: &PodChange, events: &[Event]) -> bool;
    network_pin(pin: &NetworkPin) -> NetworkPin;
    network() -> Option<NetworkPin>;
    beat() -> ();
    ping() -> ();
}
