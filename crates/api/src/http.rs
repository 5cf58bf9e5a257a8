//! Requests and answers of the HTTP API.
//!
//! All paths are under `/v1`. A caller shows an API key as `Authorization: Bearer atoll_<id>_<secret>`; a request that
//! moves money or leases also carries a seal ([`SEAL_HEADERS`]) by the renter's wallet, and a retry carries the same
//! `Idempotency-Key`. Amounts are integer base units (10⁻⁹ ATL), prices micro-USD per device-hour, times milliseconds
//! since the Unix epoch.

use std::collections::BTreeMap;

use atoll_domain::cluster::{PodRole, PodState};
use atoll_domain::id::{ClusterId, JobId, PodId, WorkerId};
use atoll_domain::job::{JobOutcome, JobState};
use atoll_domain::key::{Address, Digest, PublicKey, Signature};
use atoll_domain::money::{Atl, UsdMicrosPerHour};
use atoll_domain::time::UnixMs;
use atoll_domain::worker::Facts;
use serde::{Deserialize, Serialize};
#[cfg(feature = "openapi")]
use utoipa::ToSchema;

/// Header names of a [`RequestSeal`](atoll_domain::request::RequestSeal): signer (base58), expiry (milliseconds),
/// nonce (32 hexadecimal digits), signature (base58).
pub const SEAL_HEADERS: [&str; 4] = ["atoll-signer", "atoll-expires", "atoll-nonce", "atoll-signature"];
/// Header that makes a retry the same request: 1 to 64 visible ASCII characters.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";

macro_rules! wire {
    ($($item:item)*) => {$(
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(ToSchema))]
        $item
    )*};
}

wire! {
    /// Every error answer. `code` is stable and has a page in `docs/errors/`.
    pub struct ErrorBody {
        /// Stable name, for example `insufficient_funds`.
        pub code: String,
        /// What happened, why, and the next step.
        pub message: String,
        /// Why each worker was refused, where that is the cause.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub refusals: Vec<RefusedWorker>,
    }

    /// A worker that does not serve a request, with the reason in words.
    pub struct RefusedWorker {
        /// The worker.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub worker: WorkerId,
        /// Why, and what would cure it.
        pub reason: String,
    }

    /// What a client needs to know of the network and the operator before it signs anything.
    pub struct Network {
        /// SHA-256 over program id, genesis hash and first attestor set. Pin it.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub network_root: Digest,
        /// The market program.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub program_id: PublicKey,
        /// The chain's genesis hash, base58.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub genesis_hash: PublicKey,
        /// Keys that an order should name as its solvers for this operator.
        #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
        pub solvers: Vec<PublicKey>,
        /// How often leaves are attested, in seconds.
        pub epoch_s: u64,
        /// How long a root waits before it pays, in seconds.
        pub epoch_hold_s: u64,
        /// How many owners attest; 1 means "trusted, not proven".
        pub attestor_owners: u32,
        /// Environments this operator knows.
        pub packs: Vec<Pack>,
    }

    /// An environment that jobs may name.
    pub struct Pack {
        /// Its name.
        pub name: String,
        /// The digest over its files.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub sha256: Digest,
        /// Workers that have it ready.
        pub workers: u32,
    }

    /// A row of the device market.
    pub struct DeviceModel {
        /// Catalogue name, for example `cpu`.
        pub model: String,
        /// Class as the catalogue marks it, for example `cpu`.
        pub class: String,
        /// Devices on linked workers.
        pub devices: u32,
        /// Of them, free now.
        pub devices_free: u32,
        /// Lowest ask among the free ones.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
        pub ask_min: Option<UsdMicrosPerHour>,
    }

    /// A worker as anyone may see it.
    pub struct WorkerView {
        /// Its id.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub worker: WorkerId,
        /// Its device key.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub device_key: PublicKey,
        /// Its supplier's wallet.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub supplier: PublicKey,
        /// Whether its link stands.
        pub linked: bool,
        /// What it says of itself; not proven.
        #[cfg_attr(feature = "openapi", schema(value_type = Object))]
        pub facts: Facts,
        /// Posted price.
        #[cfg_attr(feature = "openapi", schema(value_type = u64))]
        pub ask: UsdMicrosPerHour,
        /// Devices leased now.
        pub devices_leased: u32,
        /// Lost in a lease and not reported back yet.
        pub suspended: bool,
    }

    /// Asks what a job would cost.
    pub struct QuoteRequest {
        /// Device model, by catalogue name.
        pub model: String,
        /// Devices, all or nothing.
        pub devices: u32,
        /// Longest run, in seconds.
        pub seconds_max: u64,
        /// The most one device-hour may cost.
        #[cfg_attr(feature = "openapi", schema(value_type = u64))]
        pub price_max: UsdMicrosPerHour,
        /// Name of the environment.
        pub pack: String,
    }

    /// What a job would cost now. Nothing is reserved.
    pub struct Quote {
        /// Whether the gang fits now.
        pub fits: bool,
        /// Devices that fit now.
        pub devices_free: u32,
        /// The dearest ask among the chosen, at most `price_max`.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
        pub price: Option<UsdMicrosPerHour>,
        /// Micro-USD per ATL that the chain would use now.
        pub feed_usd_micros: u64,
        /// Whether the feed is set by this operator (local networks) rather than read from an oracle.
        pub feed_by_operator: bool,
        /// The most the order can cost, fee included: what is escrowed.
        #[cfg_attr(feature = "openapi", schema(value_type = u64))]
        pub escrow: Atl,
        /// The environment's digest, for the specification.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        pub pack_sha256: Option<Digest>,
        /// Everyone who was not chosen, and why.
        pub refusals: Vec<RefusedWorker>,
    }

    /// Submits a job: the signed specification and the renter's signed `post_order` transaction.
    pub struct SubmitJob {
        /// Exact bytes of the specification (JSON), base64.
        pub spec: String,
        /// The renter's signature over its root.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub spec_signature: Signature,
        /// The signed transaction, base64.
        pub order_transaction: String,
    }

    /// Lengthens an order: the renter's signed `extend_order` transaction.
    pub struct ExtendOrder {
        /// The signed transaction, base64.
        pub transaction: String,
    }

    /// Where an extension stands whose transaction was taken on. The chain alone says when the order and its leases end.
    pub struct ExtensionView {
        /// The order.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub order: Address,
        /// The transaction's first signature, base58.
        pub transaction: String,
        /// What became of the transaction so far.
        pub state: ExtensionState,
        /// Why the chain did not take it; while it is on its way, why a node's trial run did not, which may change.
        pub reason: String,
        /// Seconds that it adds.
        pub added_s: u64,
        /// What it adds to the escrow.
        #[cfg_attr(feature = "openapi", schema(value_type = u64))]
        pub escrow: Atl,
        /// Workers whose leases would not go along, when it was taken on.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub refusals: Vec<RefusedWorker>,
    }

    /// What became of a renter's transaction.
    #[derive(Copy)]
    #[serde(rename_all = "snake_case")]
    pub enum ExtensionState {
        /// It is on its way.
        Pending,
        /// The chain took it, and no fork takes it back.
        Confirmed,
        /// The chain refused it, and nothing was charged.
        Failed,
        /// It can no longer be taken; nothing was charged.
        Expired,
    }

    /// A job as its owner sees it.
    pub struct JobView {
        /// Its id.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub job: JobId,
        /// The name in its specification.
        pub name: String,
        /// Where it stands.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub state: JobState,
        /// How the command ended, once it has.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
        pub outcome: Option<JobOutcome>,
        /// What it waits for, or why it failed, in words.
        pub reason: String,
        /// The order on the chain.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub order: Address,
        /// Its cluster.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub cluster: ClusterId,
        /// Devices asked for.
        pub devices: u32,
        /// Times the command was started.
        pub attempt: u32,
        /// Last reported training step.
        pub step: Option<u64>,
        /// Last reported test accuracy, in millionths.
        pub accuracy_ppm: Option<u32>,
        /// Step that the current attempt resumed from, as the resumed process says.
        pub resumed_from_step: Option<u64>,
        /// When it was accepted.
        #[cfg_attr(feature = "openapi", schema(value_type = u64))]
        pub created: UnixMs,
        /// When it ended, settled or not.
        #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
        pub ended: Option<UnixMs>,
        /// Escrowed.
        #[cfg_attr(feature = "openapi", schema(value_type = u64))]
        pub escrow: Atl,
        /// Its pods, newest last; lost ones stay listed.
        pub pods: Vec<PodView>,
        /// Why nobody (else) serves it, when it waits for workers.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub refusals: Vec<RefusedWorker>,
    }

    /// A pod of a job's cluster.
    pub struct PodView {
        /// Its id.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub pod: PodId,
        /// The worker that runs it.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub worker: WorkerId,
        /// Its lease.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub lease: Address,
        /// Head or node.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub role: PodRole,
        /// Where it stands.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub state: PodState,
        /// Address in the overlay.
        pub overlay_ip: String,
        /// Seconds served: metered by the worker and seen by this operator. The work itself is not checked.
        pub served_s: u64,
        /// Why it ended, where it has.
        pub reason: String,
    }

    /// One thing that happened to a job.
    pub struct JobEvent {
        /// Its number within the job, from 1.
        pub seq: u64,
        /// When the operator saw it.
        #[cfg_attr(feature = "openapi", schema(value_type = u64))]
        pub at: UnixMs,
        /// What kind: `state`, `pod`, `chain`, or a kind reported from inside the pod (`started`, `step`, `checkpoint`,
        /// `resumed`, `result`).
        pub kind: String,
        /// In words.
        pub message: String,
        /// Named values, for example `step`, `loss`, `accuracy`, `worker`, `lease`, `signature`.
        #[serde(default)]
        pub fields: BTreeMap<String, String>,
    }

    /// Events after a number.
    pub struct JobEvents {
        /// In order; at most 500.
        pub events: Vec<JobEvent>,
        /// The job's state when they were read.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub state: JobState,
    }

    /// Who the caller is.
    pub struct Whoami {
        /// Name given when the key was made.
        pub user: String,
        /// The key's id; its secret is never shown again.
        pub key: String,
        /// The wallet that may sign for this user.
        #[cfg_attr(feature = "openapi", schema(value_type = String))]
        pub wallet: PublicKey,
    }

    /// A build.
    pub struct Version {
        /// Of this server.
        pub version: String,
    }
}
