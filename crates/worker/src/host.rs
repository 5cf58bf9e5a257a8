//! The machine under a worker, as far as the worker touches it: records on a disk, pods, their usage and output, and the
//! socket on which pods call for their store.
//!
//! [`machine`] is the real one: files, and a supervisor for each pod. A simulation brings its own, with a disk that fails
//! and pods that lie. Everything above it (what may run, for how long, for whom) is decided in [`crate::world`] and is
//! the same code over both.

pub mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use atoll_domain::id::PodId;
use atoll_domain::time::UnixMs;
use atoll_overlay::SignedStatement;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::supervisor::protocol::Verdict;
use crate::supervisor::spec::{AuthorisedKey, PodSpec};
use crate::world::store::{Records, StoreError};

pub use crate::world::state::{Found, FoundState};

/// Bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// A machine as every part holds it.
pub type SharedHost = Arc<dyn Host>;

/// A pod whose network stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its X25519 key, for the pod key statement.
    pub wg_public: [u8; 32],
    /// Where other supervisors reach it.
    pub endpoint: SocketAddr,
}

/// How a pod ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// Exit status of a program that ended by itself; none when it was told to end, was killed or never ran.
    pub code: Option<i32>,
    /// Why, in words.
    pub reason: String,
}

/// A piece of a pod's output.
pub struct Output {
    /// Offset of its first byte; later than asked for when older output was dropped.
    pub begins: u64,
    /// The bytes. A piece that has none is the end of the output.
    pub bytes: Box<dyn AsyncRead + Send + Unpin>,
}

impl Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Output(from {})", self.begins)
    }
}

/// The machine. Pods outlive the worker: what is started here goes on when the worker is gone, until the end of its lease
/// and grace.
#[async_trait]
pub trait Host: Debug + Send + Sync + 'static {
    /// What was written by [`Host::save`] last; nothing on a new machine.
    ///
    /// # Errors
    /// [`StoreError`].
    async fn load(&self) -> Result<Records, StoreError>;

    /// Replaces the records as a whole; they are safe when this returns.
    ///
    /// # Errors
    /// [`StoreError::Io`]: what was there before is still there.
    async fn save(&self, records: &Records) -> Result<(), StoreError>;

    /// Looks for every pod on this machine, ends those that are not `known`, and says how the others are.
    ///
    /// # Errors
    /// The machine's pods cannot be listed.
    async fn take_up(&self, known: &BTreeSet<PodId>) -> anyhow::Result<Vec<Found>>;

    /// Makes a pod's network; its program waits for [`Host::run`].
    ///
    /// # Errors
    /// What is missing.
    async fn prepare(&self, spec: &PodSpec) -> anyhow::Result<Standing>;

    /// Makes exactly the members that can be verified a pod's peers; one verdict for each.
    ///
    /// # Errors
    /// The pod's supervisor is gone.
    async fn roster(
        &self,
        pod: PodId,
        members: &[SignedStatement],
        authorised: Vec<AuthorisedKey>,
    ) -> anyhow::Result<Vec<Verdict>>;

    /// Starts a pod's program, once, with `env` in addition to its specification's.
    ///
    /// # Errors
    /// It could not be started, or was before.
    async fn run(&self, pod: PodId, env: BTreeMap<String, String>) -> anyhow::Result<()>;

    /// Moves the end of a pod's lease, on this machine's wall clock.
    ///
    /// # Errors
    /// The pod's supervisor is gone.
    async fn extend(&self, pod: PodId, ends_at: UnixMs) -> anyhow::Result<()>;

    /// Asks a pod's program to end, kills the pod after `term`, and waits until it is over.
    ///
    /// # Errors
    /// Nobody knows how it ended.
    async fn stop(&self, pod: PodId, term: Duration) -> anyhow::Result<Over>;

    /// Waits for the end of a pod; none when it still is after `patience`.
    ///
    /// # Errors
    /// Its supervisor is gone, and nobody knows how it ended.
    async fn wait(&self, pod: PodId, patience: Duration) -> anyhow::Result<Option<Over>>;

    /// Deletes what is left of a pod that is over.
    ///
    /// # Errors
    /// What the disk refused.
    async fn discard(&self, pod: PodId) -> std::io::Result<()>;

    /// At most `bytes_max` bytes of a pod's usage spool from an offset; none at its end.
    ///
    /// # Errors
    /// `NotFound`: it has none yet. `UnexpectedEof`: it is shorter than `from`. Else the disk's.
    async fn usage(&self, pod: PodId, from: u64, bytes_max: usize) -> std::io::Result<Vec<u8>>;

    /// A byte stream to a TCP port on a pod's own overlay address.
    ///
    /// # Errors
    /// Nothing listens there.
    async fn dial(&self, pod: PodId, port: u16) -> anyhow::Result<Box<dyn ByteStream>>;

    /// A pod's output from an offset, as far as it goes in one piece; of a pod that is not over, it comes as it is printed.
    ///
    /// # Errors
    /// There is no such pod any more.
    async fn output(&self, pod: PodId, from: u64) -> std::io::Result<Output>;

    /// The next connection of a pod on its way to its store. Its first line says whose it is (`{"pod":"pod_…"}`).
    ///
    /// # Errors
    /// This one failed; others may come.
    async fn accept(&self) -> std::io::Result<Box<dyn ByteStream>>;
}
