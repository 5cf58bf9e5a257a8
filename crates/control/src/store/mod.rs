//! What the operator remembers, in words of the business.
//!
//! One trait, two engines: SQLite in process (the default) and PostgreSQL. Every operation is one transaction; every
//! guarded write repeats its guard (a generation, a state, a free mask) inside that transaction and says when it lost.
//! Never a key-value store: a rule that spans rows lives here, once, and the conformance suite holds both engines to it.
//!
//! What is not here: liveness of links (in memory, `link`), money (the chain has it; rows keep what was asked of the
//! chain and what it answered), blobs (the object store).

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "no simulation runs these tests")]
mod conformance;
mod postgres;
pub mod rows;
mod sql;
mod sqlite;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use atoll_domain::id::{ApiKeyId, ClusterId, CommandId, JobId, NodeId, PodId, UserId, WorkerId};
use atoll_domain::key::{Address, Digest, PublicKey};
use atoll_domain::meter::{Observation, SignedUsage};
use atoll_domain::time::UnixMs;

use rows::{
    AdoptedJob, ApiKey, Beat, ChainTx, ChainTxState, Command, CommandAnswer, Epoch, Event, Held, Job, JobChange, Known,
    NetworkPin, NewJob, News, Origin, Pod, PodChange, Reservation, Stray, User, Worker,
};

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Someone else changed the row first: read again and decide again.
    #[error("{what} changed meanwhile")]
    Conflict {
        /// The row's kind.
        what: &'static str,
    },
    /// There is no such row (or it is not the caller's to see).
    #[error("no such {what}")]
    NotFound {
        /// The row's kind.
        what: &'static str,
    },
    /// The engine failed. Nothing was written, unless the connection broke or the disk failed while it committed (the
    /// words say so): every operation may be repeated, and says a conflict or the same again when the first one passed.
    #[error("the store failed: {0}")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The store has moved on without this build: nothing that it writes counts any more. The node must stop.
    #[error(
        "this store needs an `atoll` that knows its schema {needs}; this one knows {knows}: stop it and run a newer one \
         (docs/operators/upgrade.md)"
    )]
    Outdated {
        /// The least schema that a build must know.
        needs: i64,
        /// What this one knows.
        knows: i64,
    },
    /// A row that this build cannot read: written by a newer one, or damaged.
    #[error("a stored {what} cannot be read: {reason}")]
    Corrupt {
        /// The row's kind.
        what: &'static str,
        /// What does not fit.
        reason: String,
    },
}

impl StoreError {
    /// Whether there is no room for what was to be written. Nothing of it is.
    #[must_use]
    pub fn is_full(&self) -> bool {
        sql::Failure::cure_of(self) == sql::Cure::Room
    }
}

/// What came of accepting a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It is new.
    New,
    /// The same submission was accepted before: this is its job.
    Again(JobId),
    /// The idempotency key was used for another request.
    KeyReused,
    /// The seal's nonce was used before: a replay.
    Replayed,
    /// Another job already runs under this order.
    OrderTaken,
}

/// The result of any store operation.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The operator's memory.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug {
    // Users and keys.

    /// Adds a user.
    async fn user_add(&self, user: &User) -> Result<()>;
    /// The user with this name, for `admin key create`.
    async fn user_by_name(&self, name: &str) -> Result<Option<User>>;
    /// Adds an API key. Only its secret's digest is stored.
    async fn api_key_add(&self, key: &ApiKey) -> Result<()>;
    /// A key with its user. The caller compares the digest in constant time.
    async fn api_key(&self, id: ApiKeyId) -> Result<Option<(ApiKey, User)>>;
    /// Ends a key. Idempotent.
    async fn api_key_revoke(&self, id: ApiKeyId, now: UnixMs) -> Result<()>;
    /// Remembers a seal's nonce until `forget_at`; false when it is known already. Also drops nonces whose time is over.
    async fn nonce_use(&self, signer: &PublicKey, nonce: &[u8; 16], now: UnixMs, forget_at: UnixMs) -> Result<bool>;

    // Jobs and their clusters.

    /// Accepts a job: nonce, idempotency key, job and first event in one transaction.
    async fn job_accept(&self, new: &NewJob, now: UnixMs) -> Result<Accepted>;
    /// One job.
    async fn job(&self, id: JobId) -> Result<Option<Job>>;
    /// The job that runs under an order.
    async fn job_by_order(&self, order: &Address) -> Result<Option<Job>>;
    /// The job of a cluster.
    async fn job_by_cluster(&self, cluster: ClusterId) -> Result<Option<Job>>;
    /// A user's jobs, newest first, at most `limit`.
    async fn jobs_of(&self, user: UserId, limit: u32) -> Result<Vec<Job>>;
    /// Jobs that are not in a final state, oldest first.
    async fn jobs_open(&self) -> Result<Vec<Job>>;
    /// Changes a job that still has `generation`, adds `events`, and raises the generation.
    async fn job_change(&self, id: JobId, generation: u64, change: &JobChange, events: &[Event]) -> Result<Job>;
    /// Adds events without changing the job.
    async fn events_add(&self, job: JobId, events: &[Event]) -> Result<()>;
    /// Events of a job after a number, at most `limit`, with their numbers.
    async fn events(&self, job: JobId, after: u64, limit: u32) -> Result<Vec<(u64, Event)>>;

    // Devices and pods.

    /// Records what a worker said of itself when it linked.
    async fn worker_put(&self, worker: &Worker) -> Result<()>;
    /// One worker.
    async fn worker(&self, id: WorkerId) -> Result<Option<Worker>>;
    /// What there is of each of these workers, in one look.
    async fn known(&self, workers: &[WorkerId]) -> Result<BTreeMap<WorkerId, Known>>;
    /// All workers, by id.
    async fn workers(&self) -> Result<Vec<Worker>>;
    /// Reserves devices for a job until `until`, all or nothing: refused as a conflict when any of them is reserved for
    /// another job. Expired reservations count as free and are dropped. Repeating a job's own reservation renews it.
    async fn devices_reserve(&self, reservations: &[Reservation], now: UnixMs) -> Result<()>;
    /// Drops a job's reservations, once its fill has landed or lost.
    async fn devices_unreserve(&self, job: JobId) -> Result<()>;
    /// Devices reserved now, by worker.
    async fn devices_reserved(&self, now: UnixMs) -> Result<BTreeMap<WorkerId, u16>>;
    /// Adds a job's pods together with the commands that start them and changes the job (same guard as
    /// [`job_change`](Self::job_change)), in one transaction.
    async fn pods_add(
        &self,
        job: JobId,
        generation: u64,
        change: &JobChange,
        pods: &[Pod],
        commands: &[Command],
        events: &[Event],
    ) -> Result<Job>;
    /// A pod.
    async fn pod(&self, id: PodId) -> Result<Option<Pod>>;
    /// A job's pods, oldest first.
    async fn pods_of(&self, job: JobId) -> Result<Vec<Pod>>;
    /// Pods that are not over, on one worker.
    async fn pods_on(&self, worker: WorkerId) -> Result<Vec<Pod>>;
    /// Changes a pod if it is not over yet and `change` does not go back to an earlier state; false when it was.
    async fn pod_change(&self, id: PodId, change: &PodChange, events: &[Event]) -> Result<bool>;
    /// Records a worker's cumulative usage of a pod or a stray; an older statement than the stored one is ignored.
    async fn usage_put(&self, pod: PodId, usage: &SignedUsage) -> Result<()>;
    /// Records what this operator saw of pods and strays, in one write.
    async fn observations_put(&self, seen: &BTreeMap<PodId, Observation>) -> Result<()>;

    // Commands to workers (outbox).

    /// Adds commands; one that is there already (same id) is left as it is.
    async fn commands_add(&self, commands: &[Command]) -> Result<()>;
    /// Commands of a worker that it has not answered, oldest first, at most `limit`.
    async fn commands_open(&self, worker: WorkerId, limit: u32) -> Result<Vec<Command>>;
    /// Workers with commands that they have not answered.
    async fn workers_commanded(&self) -> Result<Vec<WorkerId>>;
    /// Records a worker's answer; the first answer stays. False when the command is not this worker's.
    async fn command_answer(&self, worker: WorkerId, id: CommandId, answer: &CommandAnswer) -> Result<bool>;
    /// A command with its answer.
    async fn command(&self, id: CommandId) -> Result<Option<(Command, Option<CommandAnswer>)>>;

    // Transactions to the chain (outbox) and epochs.

    /// Writes a transaction before it is sent. One with the same key that is not expired or failed stays, and is
    /// returned instead.
    async fn chain_tx_put(&self, tx: &ChainTx) -> Result<ChainTx>;
    /// The latest transaction under a key.
    async fn chain_tx(&self, key: &str) -> Result<Option<ChainTx>>;
    /// Transactions of a job, oldest first (for its receipt).
    async fn chain_txs_of(&self, job: JobId) -> Result<Vec<ChainTx>>;
    /// Transactions of which it is not known what became, oldest first.
    async fn chain_txs_pending(&self) -> Result<Vec<ChainTx>>;
    /// Records what became of a transaction, and tells its job of it, if it has one: once, whoever records it again.
    async fn chain_tx_state(&self, signature: &str, state: ChainTxState, error: &str, told: &[Event]) -> Result<()>;
    /// A fork took a confirmed transaction back, and it can never land again: it counts as expired, and its key is free.
    async fn chain_tx_gone(&self, signature: &str) -> Result<()>;
    /// Writes an epoch's leaves before its root is posted. One that is there already stays and is returned instead.
    async fn epoch_put(&self, epoch: &Epoch) -> Result<Epoch>;
    /// The latest epoch, if any.
    async fn epoch_latest(&self) -> Result<Option<Epoch>>;
    /// The latest epoch with a leaf of this lease.
    async fn epoch_with_lease(&self, lease: &Address) -> Result<Option<Epoch>>;
    /// The latest epoch with a leaf of this lease whose index is at most `index`.
    async fn epoch_with_lease_up_to(&self, lease: &Address, index: u64) -> Result<Option<Epoch>>;
    /// Keeps a finished job's receipt. The first one stays.
    async fn receipt_put(&self, job: JobId, sha256: &Digest, receipt: &str) -> Result<()>;
    /// A job's receipt.
    async fn receipt(&self, job: JobId) -> Result<Option<String>>;

    // What the store had lost, and what it never had.

    /// Whose a job is, and under which key it was submitted.
    async fn job_origin(&self, job: JobId) -> Result<Origin>;
    /// Takes up a job that this store had lost, with its user and idempotency key, unless a job has its order already;
    /// gives the one that has it. A user of its id with another wallet is a conflict.
    async fn job_adopt(&self, new: &AdoptedJob) -> Result<Job>;
    /// Writes a pod that no job of this store has as its worker reports it. One that is there already does not change
    /// hands, does not come back from its end, and keeps its meter. The oldest of a worker give way.
    async fn stray_put(&self, stray: &Stray) -> Result<()>;
    /// A stray.
    async fn stray(&self, pod: PodId) -> Result<Option<Stray>>;
    /// Strays that are not over, on one worker.
    async fn strays_on(&self, worker: WorkerId) -> Result<Vec<Stray>>;
    /// Strays of an order, by fence.
    async fn strays_of(&self, order: &Address) -> Result<Vec<Stray>>;
    /// Orders that have strays.
    async fn stray_orders(&self) -> Result<Vec<Address>>;
    /// Drops an order's strays that were last reported before a time.
    async fn strays_drop(&self, order: &Address, before: UnixMs) -> Result<()>;

    // Nodes over this store.

    /// Writes that a node lives, and which links began and ended there: one that began takes over from any other node.
    async fn node_beat(&self, beat: &Beat) -> Result<()>;
    /// Which nodes there are, whether a job changed, and which commands were added after a number.
    async fn news(&self, commands_after: u64) -> Result<News>;
    /// The number of the latest command.
    async fn last_command(&self) -> Result<u64>;
    /// Who holds which worker's link, by worker.
    async fn links(&self) -> Result<BTreeMap<WorkerId, Held>>;
    /// Forgets nodes that ended or were silent for long, with their links.
    async fn nodes_drop(&self, nodes: &[NodeId]) -> Result<()>;
    /// As [`pod_change`](Self::pod_change), unless the link of the pod's worker is no longer `seen`.
    async fn pod_lose(&self, id: PodId, seen: Option<Held>, change: &PodChange, events: &[Event]) -> Result<bool>;
    /// Remembers the network that this store is for; the first one stays, and is returned.
    async fn network_pin(&self, pin: &NetworkPin) -> Result<NetworkPin>;
    /// That network, once it is known.
    async fn network(&self) -> Result<Option<NetworkPin>>;

    /// Says that this handle's build is alive, every ten seconds; forgets what is long over; applies steps of the schema
    /// that waited for older builds to end. [`StoreError::Outdated`] means that this node must stop.
    async fn beat(&self) -> Result<()>;
    /// Whether the store answers, for `/readyz`.
    async fn ping(&self) -> Result<()>;
}

/// Opens a store and brings its schema up to date.
///
/// `sqlite:PATH` is a file (created when missing), `postgres://…` a server's database.
///
/// # Errors
/// [`StoreError::Engine`] in words that never repeat the URL, which may hold a password.
pub async fn open(url: &str) -> Result<Arc<dyn Store>> {
    if let Some(path) = url.strip_prefix("sqlite:").filter(|path| !path.is_empty() && !path.starts_with(':')) {
        return Ok(Arc::new(sql::Sql(sqlite::Sqlite::open(PathBuf::from(path)).await?)));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Arc::new(sql::Sql(postgres::Postgres::open(url).await?)));
    }
    Err(sql::Failure::fatal("the store's URL must be sqlite:PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE"))
}

/// Opens a store in a SQLite file (created when missing) that has the file to itself, and brings its schema up to date.
/// For a simulation or a tool: the caller's thread does the work, and every operation is over when its future is first
/// polled. `vfs` names SQLite's file system where it is not the operating system's; one without shared memory will do.
///
/// A second handle on the same file is refused as long as the first one lives.
///
/// # Errors
/// [`StoreError::Engine`].
pub fn sqlite_inline(path: &Path, vfs: Option<&str>) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(sql::Sql(sqlite::Inline::open(path.to_owned(), vfs)?)))
}
