//! What is kept beside the store, in the object store, so that a store that is lost or old can be brought up to the
//! present (`app::adopt`).
//!
//! Each thing is written before the step that makes it matter: an order's record before the job is acknowledged and the
//! order posted, an epoch's leaves before its root, a lease as it ended before it can be closed, that its renter wants a job stopped
//! before that is acknowledged, how a command ended before its leases are released, the receipt before the job is over. Marks say which fence, attempt and head were begun.
//!
//! The object store is believed less than the chain: every note carries the operator's own seal (HMAC-SHA-256 under the
//! secret that its nodes share) over its path and content, so that whoever can write there can withhold notes and not
//! invent or move them. What the renter signed is checked against the signature as well.

use std::str::FromStr;

use atoll_domain::id::{ClusterId, JobId, PodId, UserId};
use atoll_domain::job::{JobOutcome, JobSpec, SignedSpec};
use atoll_domain::key::{Address, Digest, PublicKey, Signature};
use atoll_domain::time::UnixMs;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::{leaves, pod_token};
use crate::control::Control;
use crate::objects::{ObjectError, Result};
use crate::store::rows::{Epoch, ExtensionRecord, Job, JobNow, LeaseRecord, OrderTerms, User};

/// Put before path and content when a note is sealed.
const SEPARATOR: &[u8] = b"atoll/kept/1\0";

/// A note as it lies in the object store.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    /// JSON, exactly as it was sealed.
    kept: String,
    /// HMAC-SHA-256 in hexadecimal.
    seal: String,
}

/// A job as it was accepted: `orders/<order>/job.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRecord {
    /// The job's id.
    pub job: JobId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Whose it is: also the owner of its bundle.
    pub user: UserId,
    /// That user's name.
    pub user_name: String,
    /// That user's wallet, the renter's.
    pub wallet: PublicKey,
    /// When the user was added.
    pub user_created: UnixMs,
    /// The specification's exact bytes, base64.
    pub spec: String,
    /// The renter's signature over its root.
    pub spec_signature: Signature,
    /// The renter's transaction that posts the order, base64.
    pub transaction: String,
    /// Base units escrowed.
    pub escrow: u64,
    /// When it was accepted.
    pub created: UnixMs,
    /// The submission's idempotency key and the digest of its body: a retry is the same job again.
    pub submission: Option<(String, Digest)>,
}

/// How far a job had begun: `orders/<order>/marks/<fence>-<attempt>-<roster>.json`. The highest name counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// The fence of its pods.
    pub fence: u64,
    /// The highest attempt that was begun.
    pub attempt: u32,
    /// The number of the membership.
    pub roster: u64,
    /// The head.
    pub head: Option<PodId>,
    /// The next overlay index.
    pub next_index: u16,
    /// Where the attempt's output begins in what is kept of the job's.
    pub attempt_from: u64,
}

impl Mark {
    /// Where a job stands.
    #[must_use]
    pub const fn of(now: &JobNow) -> Self {
        Self {
            fence: now.fence,
            attempt: now.attempt,
            roster: now.roster,
            head: now.head,
            next_index: now.next_index,
            attempt_from: now.log_bytes.saturating_sub(now.attempt_log_bytes),
        }
    }
}

/// A lease as last written down: `orders/<order>/leases/<n>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptLease {
    /// Its order's terms.
    pub terms: Option<OrderTerms>,
    /// Itself.
    pub record: LeaseRecord,
}

/// What lengthened an order, as last written down: `orders/<order>/extensions.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptExtensions {
    /// The order's terms with them.
    pub terms: Option<OrderTerms>,
    /// By how many seconds they and those that are not known lengthened it.
    #[serde(default)]
    pub extended_s: u32,
    /// Themselves.
    pub records: Vec<ExtensionRecord>,
}

/// How a job's command ended: `orders/<order>/ended.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ended {
    /// How.
    pub outcome: JobOutcome,
    /// In words.
    pub reason: String,
    /// When.
    pub at: UnixMs,
    /// Attempts made.
    pub attempt: u32,
    /// Last reported step.
    pub step: Option<u64>,
    /// Last reported accuracy, in millionths.
    pub accuracy_ppm: Option<u32>,
    /// Step that the last attempt resumed from.
    pub resumed_from_step: Option<u64>,
}

/// That its renter wants a job stopped: `orders/<order>/stop.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// When that was asked for.
    pub at: UnixMs,
}

/// Everything kept of an order.
#[derive(Clone, Debug)]
pub struct KeptOrder {
    /// The job.
    pub record: OrderRecord,
    /// Its specification, checked.
    pub spec: JobSpec,
    /// The same as bytes with the renter's signature.
    pub signed: SignedSpec,
    /// The renter's transaction.
    pub transaction: Vec<u8>,
    /// How far it had begun.
    pub mark: Option<Mark>,
    /// Leases, by number.
    pub leases: Vec<KeptLease>,
    /// What lengthened it.
    pub extensions: Option<KeptExtensions>,
    /// Whether its renter wants it stopped.
    pub stop: Option<Stop>,
    /// How its command ended.
    pub ended: Option<Ended>,
    /// Its receipt: everything is over.
    pub receipt: Option<String>,
}

fn seal(control: &Control, path: &str, text: &str) -> [u8; 32] {
    let message = [SEPARATOR, path.as_bytes(), b"\0", text.as_bytes()].concat();
    pod_token::hmac_sha256(&control.keys.pod_secret, &message)
}

fn corrupt(path: &str, why: impl std::fmt::Display) -> ObjectError {
    ObjectError::Corrupt(format!("{path}: {why}"))
}

/// Writes a note. With `once` the first one stays, and false says that it was another.
async fn put<T: Serialize + Sync>(control: &Control, path: &str, value: &T, once: bool) -> Result<bool> {
    let kept = serde_json::to_string(value).map_err(|error| corrupt(path, error))?;
    let seal = hex::encode(seal(control, path, &kept));
    let text = serde_json::to_string(&Sealed { kept, seal }).map_err(|error| corrupt(path, error))?;
    control.objects.put_note(path, text, once).await
}

/// Reads a note; none when it is not there.
async fn get<T: DeserializeOwned>(control: &Control, path: &str) -> Result<Option<T>> {
    let Some(text) = control.objects.note(path).await? else { return Ok(None) };
    let Sealed { kept, seal: shown } = serde_json::from_str(&text).map_err(|error| corrupt(path, error))?;
    let shown = hex::decode(shown).map_err(|error| corrupt(path, error))?;
    if !bool::from(shown.ct_eq(&seal(control, path, &kept))) {
        return Err(corrupt(path, "it is not sealed by this operator"));
    }
    serde_json::from_str(&kept).map(Some).map_err(|error| corrupt(path, error))
}

fn path_of(order: &Address, what: &str) -> String {
    format!("orders/{order}/{what}.json")
}

/// Keeps a job as it was accepted. A record that is there already stays.
///
/// # Errors
/// [`ObjectError::Conflict`] when another job's is there.
pub async fn put_order(control: &Control, job: &Job, user: &User, submission: Option<(String, Digest)>) -> Result<()> {
    let record = OrderRecord {
        job: job.id,
        cluster: job.cluster,
        user: user.id,
        user_name: user.name.clone(),
        wallet: user.wallet,
        user_created: user.created,
        spec: BASE64.encode(&job.spec),
        spec_signature: job.spec_signature,
        transaction: BASE64.encode(&job.order_tx),
        escrow: job.escrow,
        created: job.created,
        submission,
    };
    let path = path_of(&job.order, "job");
    if put(control, &path, &record, true).await? {
        return Ok(());
    }
    match get::<OrderRecord>(control, &path).await? {
        Some(there) if there.job == job.id => Ok(()),
        _ => Err(ObjectError::Conflict(path)),
    }
}

/// Whether a job's record is kept.
///
/// # Errors
/// When it cannot be read or is not this operator's.
pub async fn has_order(control: &Control, job: &Job) -> Result<bool> {
    let record = get::<OrderRecord>(control, &path_of(&job.order, "job")).await?;
    Ok(record.is_some_and(|record| record.job == job.id))
}

/// Everything kept of an order; none when nothing is: it is not this operator's.
///
/// # Errors
/// [`ObjectError::Corrupt`] when something is not sealed by this operator or not signed by the renter.
pub async fn order(control: &Control, address: &Address) -> Result<Option<KeptOrder>> {
    let path = path_of(address, "job");
    let Some(record) = get::<OrderRecord>(control, &path).await? else { return Ok(None) };
    let decode = |text: &str| BASE64.decode(text).map_err(|error| corrupt(&path, error));
    let signed = SignedSpec { bytes: decode(&record.spec)?, signature: record.spec_signature };
    let transaction = decode(&record.transaction)?;
    let spec = signed.open().map_err(|error| corrupt(&path, error))?;
    if spec.order != *address || spec.renter != record.wallet {
        return Err(corrupt(&path, "its specification is another order's or another wallet's"));
    }
    let mut leases = Vec::new();
    for note in control.objects.notes(&format!("orders/{address}/leases")).await? {
        leases.extend(get::<KeptLease>(control, &note).await?);
    }
    Ok(Some(KeptOrder {
        mark: mark(control, address).await?,
        extensions: get(control, &path_of(address, "extensions")).await?,
        stop: get(control, &path_of(address, "stop")).await?,
        ended: get(control, &path_of(address, "ended")).await?,
        receipt: get(control, &path_of(address, "receipt")).await?,
        record,
        spec,
        signed,
        transaction,
        leases,
    }))
}

/// Every order of which something is kept.
///
/// # Errors
/// When the object store fails.
pub async fn orders(control: &Control) -> Result<Vec<Address>> {
    let names = control.objects.folders("orders").await?;
    Ok(names.iter().filter_map(|name| Address::from_str(name).ok()).collect())
}

/// Marks where a job stands.
///
/// # Errors
/// When the object store fails.
pub async fn put_mark(control: &Control, order: &Address, now: &JobNow) -> Result<()> {
    let mark = Mark::of(now);
    let name = format!("orders/{order}/marks/{:020}-{:010}-{:020}.json", mark.fence, mark.attempt, mark.roster);
    put(control, &name, &mark, true).await.map(drop)
}

/// The highest mark of an order.
///
/// # Errors
/// When it cannot be read or is not this operator's.
pub async fn mark(control: &Control, order: &Address) -> Result<Option<Mark>> {
    match control.objects.notes(&format!("orders/{order}/marks")).await?.pop() {
        Some(newest) => get(control, &newest).await,
        None => Ok(None),
    }
}

/// Keeps a job's leases as they are written down now.
///
/// # Errors
/// When the object store fails.
pub async fn put_leases(control: &Control, job: &Job) -> Result<()> {
    for record in &job.now.leases {
        let kept = KeptLease { terms: job.now.terms, record: record.clone() };
        put(control, &format!("orders/{}/leases/{:05}.json", job.order, record.n), &kept, false).await?;
    }
    Ok(())
}

/// Keeps what lengthened a job's order.
///
/// # Errors
/// When the object store fails.
pub async fn put_extensions(control: &Control, order: &Address, now: &JobNow) -> Result<()> {
    let kept = KeptExtensions { terms: now.terms, extended_s: now.extended_s, records: now.extensions.clone() };
    put(control, &path_of(order, "extensions"), &kept, false).await.map(drop)
}

/// Keeps that a job's renter wants it stopped. The first word stays.
///
/// # Errors
/// When the object store fails.
pub async fn put_stop(control: &Control, order: &Address, at: UnixMs) -> Result<()> {
    put(control, &path_of(order, "stop"), &Stop { at }, true).await.map(drop)
}

/// Keeps how a job's command ended. The first word stays.
///
/// # Errors
/// When the object store fails.
pub async fn put_ended(control: &Control, job: &Job) -> Result<()> {
    let now = &job.now;
    let ended = Ended {
        outcome: now.outcome.unwrap_or(JobOutcome::Failed),
        reason: now.reason.clone(),
        at: now.ended.unwrap_or(now.since),
        attempt: now.attempt,
        step: now.step,
        accuracy_ppm: now.accuracy_ppm,
        resumed_from_step: now.resumed_from_step,
    };
    put(control, &path_of(&job.order, "ended"), &ended, true).await.map(drop)
}

/// Keeps a job's receipt. The first one stays.
///
/// # Errors
/// When the object store fails.
pub async fn put_receipt(control: &Control, job: &Job, receipt: &str) -> Result<()> {
    put(control, &path_of(&job.order, "receipt"), &receipt, true).await.map(drop)
}

fn epoch_path(index: u64) -> String {
    format!("epochs/{index:020}.json")
}

/// Keeps the leaves of a root that is about to be posted; false when others of this epoch are kept already. An attestor's
/// key must sign one root an epoch, and the object store writes a note once, whoever else writes it and whatever the store
/// has forgotten.
///
/// # Errors
/// When the object store fails.
pub async fn put_epoch(control: &Control, epoch: &Epoch) -> Result<bool> {
    let path = epoch_path(epoch.index);
    if put(control, &path, epoch, true).await? {
        return Ok(true);
    }
    match get::<Epoch>(control, &path).await {
        Ok(there) => Ok(there.is_some_and(|there| there.root == epoch.root)),
        // Whoever can write there can withhold an epoch's note, and no more than that epoch's.
        Err(ObjectError::Corrupt(why)) => {
            tracing::error!(path, why, "a kept epoch is not this operator's");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Every kept epoch after `index`, by index. Leaves are believed only when they give its root; what is not this operator's
/// is said and left out.
///
/// # Errors
/// When the object store fails.
pub async fn epochs_after(control: &Control, index: Option<u64>) -> Result<Vec<Epoch>> {
    let mut epochs = Vec::new();
    for path in control.objects.notes("epochs").await? {
        let number = path.strip_prefix("epochs/").and_then(|name| name.get(..20)).and_then(|name| name.parse().ok());
        if number.is_some_and(|number: u64| index.is_some_and(|index| number <= index)) {
            continue;
        }
        match get::<Epoch>(control, &path).await {
            Ok(Some(it)) if epoch_path(it.index) == path && leaves::root(&it.leaves) == it.root => {
                epochs.push(it);
            }
            Ok(None) => {}
            Ok(Some(_)) => tracing::error!(path, "a kept epoch is another one or does not give its root; left out"),
            Err(ObjectError::Corrupt(why)) => {
                tracing::error!(path, why, "a kept epoch is not this operator's; left out")
            }
            Err(error) => return Err(error),
        }
    }
    Ok(epochs)
}
