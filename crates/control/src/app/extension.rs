//! Lengthening an order: the renter signs `extend_order`, anybody's node brings it to the chain, and then moves each lease's
//! end by `extend_lease`.
//!
//! Nothing here asks whose order it is: the chain says who its renter is, so that an order whose operator is gone is
//! lengthened through any other. What an extension added is read from the chain as well, whoever sent it (`taken`); the
//! receipt carries the renter's transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use atoll_api::http::{ExtendOrder, ExtensionState, ExtensionView, RefusedWorker};
use atoll_chain::market;
use atoll_chain::market::{EXTENSION_S_MIN, Extension, Shorter, extensions};
use atoll_chain::transaction::{self, Decoded, TRANSACTION_BYTES_MAX};
use atoll_domain::id::WorkerId;
use atoll_domain::job::JobState;
use atoll_domain::key::{Address, PublicKey};
use atoll_domain::money::Atl;
use atoll_domain::request::{NONCE_KEPT, RequestSeal};
use atoll_interface::layout::Order;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::auth::Caller;
use super::chain::{self, For, Sent, Standing};
use super::job;
use crate::control::Control;
use crate::error::{ApiError, Code};
use crate::store::StoreError;
use crate::store::rows::{ChainTx, ChainTxState, Job};

/// A request whose seal was checked.
#[derive(Debug)]
pub struct Request {
    /// Who asks.
    pub caller: Caller,
    /// The wallet's seal.
    pub seal: RequestSeal,
    /// Makes a retry the same extension, also when its transaction had to be signed again.
    pub idempotency_key: String,
    /// Which order.
    pub order: Address,
    /// What is asked.
    pub body: ExtendOrder,
}

/// Why an extension's transaction is refused, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the extension's transaction does not fit: {0}")]
pub struct Misfit(String);

/// Holds the transaction against the order as the chain shows it at `now`. Pure.
///
/// # Errors
/// [`Misfit`], naming the first thing that differs.
pub fn check(transaction: &Decoded, address: &Address, order: &Order, now: i64) -> Result<Extension, Misfit> {
    let refuse = |words: String| Err(Misfit(words));
    let of_market = transaction.instructions.iter().filter(|instruction| instruction.program == market::PROGRAM_ID);
    let [extension] = extensions(transaction, &market::PROGRAM_ID)[..] else {
        return refuse("it must hold exactly one `extend_order`, signed by the order's renter".into());
    };
    if of_market.count() != 1 {
        return refuse("it asks more of the market program than one `extend_order`".into());
    }
    if extension.renter.0 != order.renter || extension.order.0 != address.0 {
        return refuse(format!("it lengthens order {} of {}", extension.order, extension.renter));
    }
    let vault = market::address::order_vault(&extension.order);
    if extension.vault != vault {
        return refuse(format!("it pays into {}, and the order's vault is {vault}", extension.vault));
    }
    if extension.seconds < EXTENSION_S_MIN {
        return refuse(format!("it adds {} s, and {EXTENSION_S_MIN} s is the least", extension.seconds));
    }
    let words = |error: atoll_interface::Error| Misfit(error.words().to_owned());
    if !order.is_active(now) || order.is_stopped() {
        return Err(words(atoll_interface::Error::OrderNotActive));
    }
    let wanted = order.extension(extension.seconds).map_err(words)?;
    if extension.escrow != wanted {
        let (said, wanted) = (Atl(extension.escrow), Atl(wanted));
        return refuse(format!("it adds {said} to the escrow, and {wanted} is the worst case of the time it adds"));
    }
    order.clone().extend(extension.seconds, extension.escrow, now).map_err(words)?;
    Ok(extension)
}

/// What the chain could not be asked for. Nothing was changed.
fn unread(error: anyhow::Error) -> ApiError {
    let message = "the operator's chain node does not answer now; nothing was changed. Try again in a few seconds";
    ApiError { context: Some(error), ..ApiError::new(Code::NotReady, message) }
}

/// Takes an extension on: from now on it is sent until the chain has taken it, refused it, or can no longer take it. The
/// same request again gives what became of it.
///
/// # Errors
/// The first check that fails, in words; nothing is left behind then.
pub async fn accept(control: &Control, request: &Request) -> Result<ExtensionView, ApiError> {
    let order = chain::order(control, &request.order).await.map_err(unread)?;
    let order = order.filter(|order| order.renter == request.caller.user.wallet.0);
    let order = order.ok_or_else(|| ApiError::not_found("open order"))?;
    let bytes = read(&request.body)?;
    let transaction = transaction::decode(&bytes).map_err(|error| misfit(&Misfit(error.to_string())))?;
    if let Some(known) = chain::extension_known(control, &request.order, &request.idempotency_key).await? {
        if known.bytes == bytes {
            return view(&request.order, &transaction, &known, None, Vec::new());
        }
        if matches!(known.state, ChainTxState::Pending | ChainTxState::Confirmed) {
            return Err(reused());
        }
    }
    let job = control.store.job_by_order(&request.order).await?;
    if let Some(job) = job.as_ref().filter(|job| job.now.state >= JobState::Settling) {
        let message =
            format!("{} has ended ({}), and what it did not use is refunded: submit it again", job.id, job.now.state);
        return Err(ApiError::new(Code::CannotBeExtended, message));
    }
    one_at_a_time(control, &request.order).await?;
    let now = chain::time(control).await.map_err(unread)?;
    let extension = check(&transaction, &request.order, &order, now).map_err(|why| misfit(&why))?;
    let mut refusals = who_stays(control, &request.order, &order, &extension, now).await?;
    if let Some(job) = &job
        && !job::spec_of(job)?.checkpoints
    {
        let end =
            |refused: &mut RefusedWorker| refused.reason.push_str("; the job writes no checkpoints and ends with it");
        refusals.iter_mut().for_each(end);
    }
    let job = job.map(|job| job.id);
    check_funds(control, &order, &extension).await?;
    let (seal, at) = (&request.seal, control.now());
    if !control.store.nonce_use(&seal.signer, &seal.nonce, at, at.after(NONCE_KEPT)).await? {
        let message = "this sealed request was used before: seal a new one (for a retry, keep the Idempotency-Key)";
        return Err(ApiError::new(Code::ReplayedRequest, message));
    }
    let of = For { order: request.order, job };
    let kept = match chain::keep_extension(control, of, &request.idempotency_key, &bytes).await {
        Ok(kept) => kept,
        Err(error) => match error.downcast::<StoreError>() {
            // Its signature stands under another key, or under this one and is over.
            Ok(StoreError::Conflict { .. }) => return Err(reused()),
            Ok(error) => return Err(error.into()),
            Err(error) => return Err(unread(error)),
        },
    };
    if kept.bytes != bytes {
        return Err(reused());
    }
    tracing::info!(order = %request.order, seconds = extension.seconds, escrow = extension.escrow, "extension accepted");
    if job.is_none() {
        control.relayed.add(request.order);
    }
    // It is written down: whatever fails from here on, `tasks::extension` goes on with it.
    let said = match send(control, &kept).await {
        Ok(standing) => standing.said,
        Err(error) => {
            tracing::info!(order = %request.order, error = format!("{error:#}"), "an extension could not be sent yet");
            None
        }
    };
    control.wake.signal();
    let known = chain::extension_known(control, &request.order, &request.idempotency_key).await?;
    view(&request.order, &transaction, &known.unwrap_or(kept), said, refusals)
}

/// Orders of nobody here that were lengthened through this node. In memory: only to follow them sooner than in their last
/// minute.
#[derive(Debug, Default)]
pub(crate) struct Relayed(Mutex<BTreeSet<Address>>);

impl Relayed {
    fn orders(&self) -> MutexGuard<'_, BTreeSet<Address>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, order: Address) {
        self.orders().insert(order);
    }

    pub(crate) fn remove(&self, order: &Address) {
        self.orders().remove(order);
    }

    pub(crate) fn all(&self) -> BTreeSet<Address> {
        self.orders().clone()
    }
}

fn read(body: &ExtendOrder) -> Result<Vec<u8>, ApiError> {
    let bad = |why: String| ApiError::new(Code::BadRequest, format!("`transaction` {why}"));
    if body.transaction.len() > TRANSACTION_BYTES_MAX * 4 / 3 + 4 {
        return Err(bad(format!("has more than {TRANSACTION_BYTES_MAX} bytes")));
    }
    BASE64.decode(&body.transaction).map_err(|error| bad(format!("is not base64: {error}")))
}

fn misfit(why: &Misfit) -> ApiError {
    ApiError::new(Code::BadExtension, format!("{why}; nothing was sent"))
}

/// Refuses an extension while another one of its order is on its way: each is sent again and again, and one wallet must not
/// have thousands sent before anybody else's. Two that come at one moment may both pass.
async fn one_at_a_time(control: &Control, order: &Address) -> Result<(), ApiError> {
    let pending = control.store.chain_txs_pending().await?;
    let other = pending.iter().find(|row| chain::is_extension(row) && chain::extension_order(row) == Some(*order));
    other.map_or(Ok(()), |row| {
        let message = format!(
            "another extension of this order is on its way ({}): wait until the chain has taken it for good, or can no \
             longer take it; that is less than two minutes",
            row.signature
        );
        Err(ApiError::new(Code::CannotBeExtended, message))
    })
}

fn reused() -> ApiError {
    let message = "this Idempotency-Key stands for another transaction, or this transaction for another key: use a new \
                   key for a new extension, and the same key only to sign an extension again that the chain did not take";
    ApiError::new(Code::IdempotencyKeyReused, message)
}

/// Everyone whose lease would not go along. When that is everyone and no device is open, nothing is gained by the extension;
/// an open one, as while a lost machine is replaced, gets a lease with the new end.
async fn who_stays(
    control: &Control,
    address: &Address,
    order: &Order,
    extension: &Extension,
    now: i64,
) -> Result<Vec<RefusedWorker>, ApiError> {
    let mut longer = *order;
    longer.extend(extension.seconds, extension.escrow, now).map_err(|error| misfit(&Misfit(error.words().into())))?;
    let shorter = chain::shorter_leases(control, address, &longer, now).await.map_err(unread)?;
    let refusals = refused(&shorter);
    if !market::is_in_vain(&longer, &shorter) {
        return Ok(refusals);
    }
    let message =
        "no lease of this order can be lengthened now; nothing was charged. The reasons are listed per worker";
    Err(ApiError::new(Code::CannotBeExtended, message).with_refusals(refusals))
}

fn refused(leases: &[Shorter]) -> Vec<RefusedWorker> {
    let worker = |device: atoll_chain::Address| WorkerId::of_device_key(&PublicKey(device.0));
    let refusal = |(device, reason)| RefusedWorker { worker: worker(device), reason };
    market::stay_behind(leases).into_iter().map(refusal).collect()
}

async fn check_funds(control: &Control, order: &Order, extension: &Extension) -> Result<(), ApiError> {
    let account = match control.rpc.token_account(&extension.source).await {
        Ok(account) => account,
        Err(atoll_chain::RpcError::Malformed { .. }) => {
            return Err(misfit(&Misfit(format!("it pays from {}, which is no token account", extension.source))));
        }
        Err(error) => return Err(ApiError::chain(error)),
    };
    if account.is_some_and(|account| account.owner.0 != order.renter) {
        return Err(misfit(&Misfit(format!("it pays from {}, which is not the renter's account", extension.source))));
    }
    let balance = Atl(account.map_or(0, |account| account.amount));
    match Atl(extension.escrow).checked_sub(balance) {
        None | Some(Atl(0)) => Ok(()),
        Some(missing) => {
            let escrow = Atl(extension.escrow);
            let message = format!(
                "the extension escrows {escrow} and the wallet has {balance}: {missing} are missing; add funds, or add less time"
            );
            Err(ApiError::new(Code::InsufficientFunds, message))
        }
    }
}

fn view(
    order: &Address,
    transaction: &Decoded,
    row: &ChainTx,
    said: Option<String>,
    refusals: Vec<RefusedWorker>,
) -> Result<ExtensionView, ApiError> {
    let [extension] = extensions(transaction, &market::PROGRAM_ID)[..] else {
        return Err(ApiError::internal(Misfit(row.key.clone())));
    };
    Ok(ExtensionView {
        order: *order,
        transaction: row.signature.clone(),
        state: match row.state {
            ChainTxState::Pending => ExtensionState::Pending,
            ChainTxState::Confirmed => ExtensionState::Confirmed,
            ChainTxState::Failed => ExtensionState::Failed,
            ChainTxState::Expired => ExtensionState::Expired,
        },
        reason: said.filter(|_| row.state == ChainTxState::Pending).unwrap_or_else(|| row.error.clone()),
        added_s: u64::from(extension.seconds),
        escrow: Atl(extension.escrow),
        refusals,
    })
}

/// Moves the end of every lease that can go along with its order, and gives those that cannot, with the reason in words:
/// once such a lease has ended, the one that it had `before`.
///
/// # Errors
/// When store or chain fail.
pub async fn follow(
    control: &Control,
    of: For,
    order: &Order,
    before: &BTreeMap<Address, String>,
) -> anyhow::Result<BTreeMap<Address, String>> {
    let mut behind = BTreeMap::new();
    let now = chain::time(control).await?;
    for shorter in chain::shorter_leases(control, &of.order, order, now).await? {
        let lease = PublicKey(shorter.address.0);
        let known = before.get(&lease).filter(|_| shorter.goes_along == Err(atoll_interface::Error::LeaseEnded));
        if let Some(why) = known {
            behind.insert(lease, why.clone());
        } else if let Some(first) = refused(std::slice::from_ref(&shorter)).into_iter().next() {
            behind.insert(lease, format!("{} {}", first.worker, first.reason));
        } else if chain::extend_lease(control, of, &shorter, order.end).await? == Sent::Confirmed {
            tracing::info!(order = %of.order, %lease, end = order.end, "a lease was lengthened");
        }
    }
    Ok(behind)
}

/// Brings an extension to the chain; its job is told when that took it not.
///
/// # Errors
/// When store or chain fail.
pub async fn send(control: &Control, row: &ChainTx) -> anyhow::Result<Standing> {
    chain::send_extension(control, row, |sent| {
        let why = match sent {
            Sent::Failed(reason) => reason.as_str(),
            Sent::Expired => "its transaction expired before the chain took it",
            Sent::Confirmed | Sent::Waiting => return None,
        };
        let message = format!("was not lengthened: {why}; nothing was charged for it");
        Some(job::event(control.now(), "chain", message, &[("signature", row.signature.clone())]))
    })
    .await
}

/// Changes which leases of a job stay behind its order's end, and tells of those that are new.
///
/// # Errors
/// `Conflict` when the job changed since it was read.
pub async fn leave_behind(control: &Control, found: &Job, behind: BTreeMap<Address, String>) -> anyhow::Result<()> {
    if found.now.left_behind == behind {
        return Ok(());
    }
    let at = control.now();
    let is_new = |(lease, why): &(&Address, &String)| found.now.left_behind.get(*lease) != Some(*why);
    let told = behind.iter().filter(is_new).map(|(lease, why)| {
        let message = format!("{why}; its lease ends as it would have, and its devices are then looked for elsewhere");
        job::event(at, "chain", message, &[("lease", lease.to_string())])
    });
    let told = told.collect();
    job::change_with(control, found, |now| now.left_behind = behind, told).await?;
    Ok(())
}

#[cfg(test)]
#[path = "extension_tests.rs"]
mod tests;
