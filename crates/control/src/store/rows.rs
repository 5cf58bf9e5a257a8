//! What a row holds. Rows are the store's own shape: wire forms are `api`'s, meaning is `domain`'s.

use std::collections::{BTreeMap, BTreeSet};

use atoll_domain::cluster::{OverlayIndex, PodRole, PodState};
use atoll_domain::id::{ApiKeyId, ClusterId, CommandId, JobId, NodeId, PodId, UserId, WorkerId};
use atoll_domain::job::{JobOutcome, JobState};
use atoll_domain::key::{Address, Digest, PublicKey, Signature};
use atoll_domain::meter::{Observation, SignedUsage};
use atoll_domain::placement::Setback;
use atoll_domain::time::UnixMs;
use atoll_domain::worker::{Facts, SlotRef};
use serde::{Deserialize, Serialize};

/// Someone with an account at this operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Unique.
    pub name: String,
    /// The wallet that may sign for it.
    pub wallet: PublicKey,
    /// When it was added.
    pub created: UnixMs,
}

/// An API key. The secret itself is nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public part.
    pub id: ApiKeyId,
    /// Whose it is.
    pub user: UserId,
    /// SHA-256 of the 32-byte secret.
    pub secret_sha256: Digest,
    /// When it was made.
    pub created: UnixMs,
    /// When it stops working.
    pub expires: Option<UnixMs>,
    /// When it was ended.
    pub revoked: Option<UnixMs>,
}

/// A job with its cluster. One job has one cluster for now; the cluster's id is its own already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Who submitted it.
    pub user: UserId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The name in its specification.
    pub name: String,
    /// The specification's exact bytes.
    pub spec: Vec<u8>,
    /// The renter's signature over its root.
    pub spec_signature: Signature,
    /// The order account.
    pub order: Address,
    /// The renter's signed transaction that posts the order.
    pub order_tx: Vec<u8>,
    /// Base units escrowed.
    pub escrow: u64,
    /// When it was accepted.
    pub created: UnixMs,
    /// Raised by every change; a change names the generation it was decided on.
    pub generation: u64,
    /// What changes.
    pub now: JobNow,
}

/// The changing part of a job. Stored as one JSON document; its `state` also has a column of its own.
///
/// It is read and written back as a whole, also by a build that is older than the one beside it: fields that it does not
/// know are kept. Those inside of a field are not, there an unknown one is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobNow {
    /// Where it stands.
    pub state: JobState,
    /// How the command ended.
    pub outcome: Option<JobOutcome>,
    /// The renter wants it stopped.
    pub stop_wanted: bool,
    /// What it waits for, or why it failed, in words.
    pub reason: String,
    /// Why workers do not serve it, in words.
    pub refusals: BTreeMap<WorkerId, String>,
    /// Times the command was started; the fence of manifests and reports.
    pub attempt: u32,
    /// Name of the current attempt's submission at the runtime, while one runs.
    pub submission: Option<String>,
    /// The pod that runs the runtime's head.
    pub head: Option<PodId>,
    /// Pods that were lost or failed, and for which a replacement is wanted: their slots go back to the order.
    #[serde(default)]
    pub gone: BTreeSet<PodId>,
    /// How often and when each worker failed this job: it comes last, and rests before it is taken again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub setbacks: BTreeMap<WorkerId, Setback>,
    /// The next overlay index; never goes back.
    pub next_index: u16,
    /// Raised whenever membership changes.
    pub roster: u64,
    /// Raised whenever pods must start anew; a pod's fence is the value at its start.
    pub fence: u64,
    /// The runtime's access token: fresh per cluster.
    pub runtime_token: String,
    /// Last reported step.
    pub step: Option<u64>,
    /// Last reported accuracy, in millionths.
    pub accuracy_ppm: Option<u32>,
    /// Step that the current attempt resumed from, as its process says.
    pub resumed_from_step: Option<u64>,
    /// Bytes of output kept.
    pub log_bytes: u64,
    /// Bytes of the current attempt's output that are among them.
    #[serde(default)]
    pub attempt_log_bytes: u64,
    /// The order's terms as the chain posted them: what the receipt is made of.
    #[serde(default)]
    pub terms: Option<OrderTerms>,
    /// Leases that are closed or about to be, as they stood on the chain: the same.
    #[serde(default)]
    pub leases: Vec<LeaseRecord>,
    /// By how many seconds the chain says that its order was lengthened.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub extended_s: u32,
    /// What the chain took of its renter's extensions, for the receipt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<ExtensionRecord>,
    /// When the chain's history was last looked through for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions_sought: Option<UnixMs>,
    /// Leases that do not go along with the order's end, and why, in words.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left_behind: BTreeMap<Address, String>,
    /// When the current state began.
    pub since: UnixMs,
    /// When the command ended for good.
    pub ended: Option<UnixMs>,
    /// Since when what the store had forgotten of it is looked for; nothing else touches it meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopting: Option<UnixMs>,
    /// Device-seconds per lease that were attested for pods which the store has lost.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub carried: BTreeMap<Address, u64>,
    /// How its order was settled, once it is looked for on the chain because others had a hand in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elsewhere: Option<Elsewhere>,
    /// What a newer build wrote, as it stands.
    #[serde(flatten)]
    pub newer: BTreeMap<String, serde_json::Value>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// An order's terms as the chain posted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderTerms {
    /// Micro-USD per ATL when posted.
    pub feed_uusd_per_atl: u64,
    /// Fee on each side, basis points.
    pub fee_bps: u16,
    /// Base units escrowed.
    pub escrow: u64,
    /// When it was posted, Unix seconds.
    pub posted_at: i64,
    /// When it became active, Unix seconds; 0 before.
    pub active_at: i64,
}

/// How an order was settled that others had a hand in, as its trail on the chain tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// When that was last looked for; none before the first time.
    pub sought: Option<UnixMs>,
    /// Whether it was found, back to the order's beginning.
    pub is_known: bool,
    /// Whether renter and worker settled something by themselves: no root stands above that, and a receipt has no words
    /// for it.
    pub agreed: bool,
    /// The leaf that the chain booked last, by lease. Leases without one were paid nothing.
    pub booked: BTreeMap<Address, BookedLeaf>,
}

/// A leaf that the chain booked, whoever attested it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookedLeaf {
    /// Itself.
    pub leaf: EpochLeaf,
    /// Its place among its epoch's leaves.
    pub leaf_index: u32,
    /// Sibling hashes from it to the root.
    pub path: Vec<Digest>,
    /// Its epoch.
    pub epoch: u64,
    /// That epoch's root.
    pub root: Digest,
}

/// A renter's signed transaction that lengthened an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtensionRecord {
    /// Its exact bytes, base64.
    pub transaction: String,
    /// Its first signature.
    pub signature: Signature,
    /// Seconds that it added.
    pub seconds: u32,
    /// Base units that it added to the escrow.
    pub escrow: u64,
}

/// A lease as it stood on the chain before it was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRecord {
    /// Its account.
    pub lease: Address,
    /// Its number in the order.
    pub n: u16,
    /// Its fleet page.
    pub page: Address,
    /// The page's number among its supplier's.
    pub page_no: u16,
    /// The page's supplier.
    pub supplier: PublicKey,
    /// The workers in its slots.
    pub workers: Vec<WorkerId>,
    /// Whether it was released because its worker was lost.
    pub lost: bool,
    /// Whether it replaced a lost one.
    pub refill: bool,
    /// Slots it was made with.
    pub slots: Vec<u16>,
    /// Devices of each slot.
    pub mask: u16,
    /// The slots' ask, micro-USD per device-hour.
    pub ask_uusd: u64,
    /// Base units per device-second.
    pub rate: u64,
    /// Start of pay, Unix seconds.
    pub start: i64,
    /// Its end by time, Unix seconds.
    pub end: i64,
    /// When its last slot was released, Unix seconds; 0 never.
    pub released_at: i64,
    /// Device-seconds settled.
    pub device_seconds: u64,
    /// The epoch whose leaf was settled last, if any was.
    pub epoch: Option<u64>,
}

/// The new value of a job's changing part.
pub type JobChange = JobNow;

/// A submission to accept.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// The job as it will stand, generation 1.
    pub job: Job,
    /// Makes a retry the same request (per user).
    pub idempotency_key: String,
    /// Digest of the request's body: another body under the same key is refused.
    pub request_sha256: Digest,
    /// The seal's signer and nonce.
    pub seal: (PublicKey, [u8; 16]),
    /// Until when the nonce is remembered.
    pub nonce_forget_at: UnixMs,
    /// The first event.
    pub event: Event,
}

/// Whose a job is, and under which key it was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its user.
    pub user: User,
    /// Idempotency key and digest of the request's body.
    pub submission: Option<(String, Digest)>,
}

/// A job that the store had lost.
#[derive(Clone, Debug)]
pub struct AdoptedJob {
    /// Whose it was.
    pub user: User,
    /// The job as it will stand, generation 1.
    pub job: Job,
    /// Idempotency key and digest of the request's body: the renter's retry is this job.
    pub submission: Option<(String, Digest)>,
    /// The first event.
    pub event: Event,
}

/// Something that happened to a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: UnixMs,
    /// What kind, see `api::http::JobEvent`.
    pub kind: String,
    /// In words.
    pub message: String,
    /// Named values.
    pub fields: BTreeMap<String, String>,
}

/// A worker as it last introduced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// Its device key, proven at connect.
    pub device_key: PublicKey,
    /// Its slot on the chain.
    pub at: SlotRef,
    /// What it says of itself.
    pub facts: Facts,
    /// Where other pods' supervisors reach it.
    pub advertise: String,
    /// Last time it was seen, written in batches.
    pub last_seen: UnixMs,
}

/// Devices of a worker promised to a job until its fill lands on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// For whom.
    pub job: JobId,
    /// Where.
    pub worker: WorkerId,
    /// Bit n set: device n.
    pub mask: u16,
    /// When the promise lapses.
    pub until: UnixMs,
}

/// A pod: its fixed part, its state, its meter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its id.
    pub id: PodId,
    /// Its job.
    pub job: JobId,
    /// The worker that runs it.
    pub worker: WorkerId,
    /// That worker's device key.
    pub device_key: PublicKey,
    /// The lease that covers it.
    pub lease: Address,
    /// The slot on the chain.
    pub at: SlotRef,
    /// Devices.
    pub mask: u16,
    /// Its place in the overlay.
    pub index: OverlayIndex,
    /// Head or node.
    pub role: PodRole,
    /// Job's fence when it was started.
    pub fence: u64,
    /// When it was added.
    pub created: UnixMs,
    /// Where it stands.
    pub state: PodState,
    /// Why it is over.
    pub reason: String,
    /// Its signed overlay key, once prepared.
    pub statement: Option<Vec<u8>>,
    /// Exit status, once exited.
    pub exit_code: Option<i32>,
    /// What the worker claims.
    pub usage: Option<SignedUsage>,
    /// What this operator saw.
    pub observation: Observation,
}

/// A pod that a worker reports under one of its leases and that no job of this store has: another operator's, or this
/// one's from before its store was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Its id.
    pub id: PodId,
    /// The worker that runs it.
    pub worker: WorkerId,
    /// That worker's device key.
    pub device_key: PublicKey,
    /// The order that its lease serves, as the chain says.
    pub order: Address,
    /// The lease.
    pub lease: Address,
    /// The worker's slot.
    pub at: SlotRef,
    /// Devices of the lease in each slot.
    pub mask: u16,
    /// Its fence.
    pub fence: u64,
    /// Where it stands.
    pub state: PodState,
    /// Why it is over.
    pub reason: String,
    /// Its signed overlay key, once prepared.
    pub statement: Option<Vec<u8>>,
    /// Exit status, once exited.
    pub exit_code: Option<i32>,
    /// When its worker last spoke of it.
    pub reported: UnixMs,
    /// What the worker claims.
    pub usage: Option<SignedUsage>,
    /// What this operator saw.
    pub observation: Observation,
}

/// What changes in a pod. `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct PodChange {
    /// The new state.
    pub state: Option<PodState>,
    /// Why.
    pub reason: Option<String>,
    /// The signed overlay key.
    pub statement: Option<Vec<u8>>,
    /// Exit status.
    pub exit_code: Option<i32>,
}

/// A command to a worker: an encoded link `Envelope` body waiting for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its id; also inside the body.
    pub id: CommandId,
    /// For whom.
    pub worker: WorkerId,
    /// The pod it is about.
    pub pod: PodId,
    /// `api::link::Envelope` with only `body` set, encoded.
    pub body: Vec<u8>,
    /// When it was written.
    pub created: UnixMs,
}

/// A worker's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandAnswer {
    /// Whether it did it.
    pub accepted: bool,
    /// Stable code of a refusal.
    pub code: String,
    /// The refusal in words.
    pub message: String,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainTxState {
    /// Written, perhaps sent.
    Pending,
    /// Executed without error, seen at `confirmed`.
    Confirmed,
    /// Executed with an error, or refused before execution.
    Failed,
    /// Its blockhash is too old and it was never executed.
    Expired,
}

impl ChainTxState {
    /// The word in the store.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Confirmed => "confirmed",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }
}

/// A transaction asked of the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainTx {
    /// What it is for, for example `fill/<order>/<page>/<n>`: one live transaction a key.
    pub key: String,
    /// The job it serves.
    pub job: Option<JobId>,
    /// Signed bytes.
    pub bytes: Vec<u8>,
    /// First signature, base58: unique.
    pub signature: String,
    /// Block height after which it can no longer be executed.
    pub last_valid_height: u64,
    /// What became of it.
    pub state: ChainTxState,
    /// What the chain said, when it failed.
    pub error: String,
    /// When it was written.
    pub created: UnixMs,
}

/// The leaves under one posted root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Its index.
    pub index: u64,
    /// The Merkle root.
    pub root: Digest,
    /// By lease, in the order they were hashed.
    pub leaves: Vec<EpochLeaf>,
    /// When it was decided.
    pub created: UnixMs,
}

/// One lease's cumulative leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochLeaf {
    /// The lease.
    pub lease: Address,
    /// Seconds served, cumulative, over all its devices.
    pub device_seconds: u64,
    /// Chain time up to which they count.
    pub until: i64,
    /// Flags as `interface` defines them.
    pub flags: u8,
    /// Root over (slot, seconds, verdict).
    pub slots_root: Digest,
}

/// A control node over this store, as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Where others reach it.
    pub url: String,
    /// Its beats so far.
    pub beat: u64,
    /// How often links of its were written.
    pub changes: u64,
}

/// What a node writes of itself every second, and when its links change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Who.
    pub node: NodeId,
    /// Where others reach it.
    pub url: String,
    /// One more with each beat.
    pub count: u64,
    /// Links that began here: worker and number.
    pub begun: Vec<(WorkerId, u64)>,
    /// Links that ended here.
    pub ended: Vec<(WorkerId, u64)>,
}

/// Who holds a worker's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The node.
    pub node: NodeId,
    /// Tells a worker's links apart.
    pub number: u64,
}

/// What a node asks for several times a second, to see what others did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// All nodes, by id.
    pub nodes: Vec<Node>,
    /// A number that changes whenever an open job does.
    pub jobs: u64,
    /// Commands after the number asked for: number and worker.
    pub commands: Vec<(u64, WorkerId)>,
}

/// What a store has of a worker that links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What it said of itself when it linked last.
    pub worker: Option<Worker>,
    /// Whether it has pods or strays that are not over, or commands that it has not answered.
    pub is_busy: bool,
}

/// The network that a store is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkPin {
    /// The cluster.
    pub genesis_hash: PublicKey,
    /// The network on it.
    pub network_root: Digest,
}
