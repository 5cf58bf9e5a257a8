//! Pods that a worker reports and no job of this store has: another operator's, or this one's from before its store was
//! lost.
//!
//! They are kept under their order, with what the worker's meter says and what this node sees of them, so that a lost job
//! can be taken up (`app::adopt`) and an order can be settled whose operator is gone (`tasks::orphan`). Believed is what
//! the chain confirms: the lease is the order's, it holds this worker's slot now, and the device key signed.

use atoll_api::link::PodReport;
use atoll_domain::cluster::PodState;
use atoll_domain::id::PodId;
use atoll_domain::key::PublicKey;
use atoll_domain::meter::{Observation, SignedUsage};
use atoll_domain::pod_key::{self, Expected};
use atoll_interface::fill::bit;

use super::connection::{End, Link};
use super::inbound::{refused, words};
use crate::app::chain;
use crate::store::rows::Stray;

/// Leases that one link may have looked up: as many pods as a worker handles at once.
const LOOKED_UP_MAX: u32 = 64;
/// How far ahead of now a fence may lie, in seconds: fences count starts, or are seconds since 1970.
const FENCE_AHEAD_MAX: u64 = 86_400;

/// A report about a pod that no job of this store has.
pub(super) async fn report(link: &mut Link, id: PodId, state: PodState, report: &PodReport) -> Result<(), End> {
    let key = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map(PublicKey).ok();
    let (Some(order), Some(lease)) = (key(&report.order), key(&report.lease)) else { return Ok(()) };
    let now = link.control.now();
    if report.fence > now.secs().saturating_add(FENCE_AHEAD_MAX) {
        return Err(refused(format!("{id}: the fence {} is none that anybody gave", report.fence)));
    }
    let known = link.control.store.stray(id).await?;
    let mask = match &known {
        Some(known) if known.worker == link.worker.id && known.lease == lease && known.order == order => known.mask,
        Some(_) => return Ok(()),
        None => match leased(link, &order, &lease).await? {
            Some(mask) => mask,
            None => return Ok(()),
        },
    };
    let stray = Stray {
        id,
        worker: link.worker.id,
        device_key: link.worker.device_key,
        order,
        lease,
        at: link.worker.at,
        mask,
        fence: report.fence,
        state,
        reason: words(&report.reason),
        statement: statement(link, order, lease, &report.statement),
        exit_code: (state == PodState::Exited).then_some(report.exit_code),
        reported: now,
        usage: None,
        observation: Observation::default(),
    };
    if known.is_none() {
        tracing::info!(worker = %stray.worker, pod = %id, %order, %state, "a pod that no job here has; kept under its order");
    }
    link.control.store.stray_put(&stray).await?;
    link.control.wake.signal();
    Ok(())
}

/// The mask of a lease that holds this worker's slot for an order now; none when the chain does not say so.
async fn leased(link: &mut Link, order: &PublicKey, lease: &PublicKey) -> Result<Option<u16>, End> {
    if link.looked_up >= LOOKED_UP_MAX {
        return Ok(None);
    }
    link.looked_up += 1;
    let found = chain::lease(&link.control, lease).await.map_err(End::Failed)?;
    let at = link.worker.at;
    let holds = |lease: &atoll_interface::layout::Lease| {
        lease.order == order.0 && lease.page == at.page.0 && bit(&lease.bitmap, usize::from(at.slot))
    };
    Ok(found.filter(holds).map(|lease| lease.mask))
}

/// A statement that is the pod's own; without one it has no place in an overlay, and cannot be taken up.
fn statement(link: &Link, order: PublicKey, lease: PublicKey, signed: &[u8]) -> Option<Vec<u8>> {
    let address = pod_key::overlay_address(signed)?;
    let expected =
        Expected { order, lease, address, device_key: link.worker.device_key, now_s: link.control.now().secs() };
    pod_key::check(signed, &expected).ok().map(|_| signed.to_vec())
}

/// What the worker has not named when it came back has ended unseen.
pub(super) async fn unnamed(link: &Link, named: impl Fn(PodId) -> bool) -> Result<(), End> {
    for stray in link.control.store.strays_on(link.worker.id).await? {
        if !named(stray.id) {
            let reason = "its worker came back without it".to_owned();
            link.control.store.stray_put(&Stray { state: PodState::Exited, reason, ..stray }).await?;
        }
    }
    Ok(())
}

/// A usage statement about a stray.
pub(super) async fn usage(link: &Link, signed: &SignedUsage) -> Result<(), End> {
    let Some(stray) = link.control.store.stray(signed.statement.pod).await? else { return Ok(()) };
    let own = stray.worker == link.worker.id && stray.lease == signed.statement.lease;
    if own && signed.verify(&stray.device_key).is_ok() {
        link.control.store.usage_put(stray.id, signed).await?;
    }
    Ok(())
}

/// Counts observed time: for one stray of each lease at most, the one of the highest fence, because one slot serves one
/// pod at a time.
pub(super) async fn beat(link: &Link, running: impl Fn(PodId) -> bool) -> Result<(), End> {
    let mut strays = link.control.store.strays_on(link.worker.id).await?;
    strays.retain(|stray| stray.state == PodState::Running && running(stray.id));
    strays.sort_by_key(|stray| (stray.lease, std::cmp::Reverse(stray.fence), stray.id));
    strays.dedup_by_key(|stray| stray.lease);
    for stray in strays {
        if link.control.store.pod(stray.id).await?.is_none() {
            link.control.links.beat(stray.id, stray.observation);
        }
    }
    Ok(())
}
