//! Writes a job's receipt once everything is settled.

use std::collections::BTreeMap;

use atoll_api::receipt::{
    AttestedLeaf, AttestorSet, CHECKED, EpochRecord, LeaseRecord, MoneyRecord, NetworkRecord, OrderRecord,
    RECEIPT_VERSION, Receipt, ReceiptBody, ResultRecord, SeatRecord, SpecRecord, TransactionRecord, UnshownRecord,
    VoteRecord,
};
use atoll_domain::job::JobState;
use atoll_domain::key::Digest;
use atoll_domain::lease::ReleaseReason;
use atoll_domain::money::{Atl, UsdMicrosPerHour};
use atoll_interface::merkle::FLAG_FINAL;
use atoll_interface::network::vote_message;
use atoll_interface::settlement::{FeeSplit, Pay};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::market::MarketView;
use super::{kept, leaves, settled, taken};
use crate::control::Control;
use crate::store::rows::{self, BookedLeaf, ChainTxState, Job, OrderTerms};

/// For how long after a transaction's last block every node of the chain still knows that it landed. Of what is older a
/// node may have forgotten all, and what was confirmed is believed.
const REMEMBERED_BLOCKS: u64 = 150;

/// Makes and keeps the receipt of a job whose order is closed. The first one stays.
///
/// # Errors
/// When the store fails, or the job's records are incomplete.
pub async fn write(control: &Control, job: &Job) -> anyhow::Result<()> {
    if let Some(written) = control.store.receipt(job.id).await? {
        return Ok(kept::put_receipt(control, job, &written).await?);
    }
    let Some(market) = control.market.snapshot() else { anyhow::bail!("the chain has not answered yet") };
    let Some(terms) = job.now.terms else { anyhow::bail!("the order's terms were not written down") };
    let mut epochs: BTreeMap<u64, Digest> = BTreeMap::new();
    let mut leases = Vec::new();
    for record in &job.now.leases {
        let booked = booked(control, job, record).await?;
        leases.push(lease(record, booked.as_ref()));
        epochs.extend(booked.map(|booked| (booked.epoch, booked.root)));
    }
    leases.sort_by_key(|lease| lease.n);
    let done = standing(control, job).await?;
    let body = ReceiptBody {
        version: RECEIPT_VERSION,
        network: network(&market),
        order: order(job, terms)?,
        spec: SpecRecord { bytes: BASE64.encode(&job.spec), signature: job.spec_signature },
        epochs: epochs.into_iter().map(|(index, root)| vote(control, &market, index, root)).collect(),
        money: money(job, terms)?,
        result: result(job, control),
        leases,
        transactions: done
            .iter()
            .filter_map(|tx| {
                let what = tx.key.split('/').next().unwrap_or_default().to_owned();
                Some(TransactionRecord { what, signature: tx.signature.parse().ok()? })
            })
            .collect(),
    };
    let receipt = Receipt::seal(&body, &control.keys.node)?;
    let text = serde_json::to_string(&receipt)?;
    kept::put_receipt(control, job, &text).await?;
    control.store.receipt_put(job.id, &Digest::of(text.as_bytes()), &text).await?;
    Ok(())
}

/// A job's transactions that stand. A fork may have taken one back whose effect then came with a later one, so that nobody
/// asked for it again.
async fn standing(control: &Control, job: &Job) -> anyhow::Result<Vec<rows::ChainTx>> {
    let mut done = control.store.chain_txs_of(job.id).await?;
    done.retain(|tx| tx.state == ChainTxState::Confirmed);
    let height = control.rpc.block_height().await?;
    let signatures = done.iter().map(|tx| tx.signature.parse()).collect::<Result<Vec<_>, _>>()?;
    let statuses = control.rpc.statuses(&signatures).await?.into_iter();
    let known: Vec<bool> = statuses.map(|status| status.is_some_and(|status| status.error.is_none())).collect();
    let last_blocks: Vec<u64> = done.iter().map(|tx| tx.last_valid_height).collect();
    let mut stands = stand(&last_blocks, &known, height).into_iter();
    done.retain(|_| stands.next().unwrap_or_default());
    Ok(done)
}

/// Which confirmed transactions stand, by the last block that each could be in and whether a node at `height` knows that it
/// landed. A node forgets the oldest first: who knows one knows all that came after it. Pure.
fn stand(last_blocks: &[u64], known: &[bool], height: u64) -> Vec<bool> {
    let pairs = || last_blocks.iter().copied().zip(known.iter().copied());
    let oldest_known = pairs().filter(|(_, known)| *known).map(|(last_block, _)| last_block).min();
    let forgotten = |last_block: u64| {
        let old = height > last_block.saturating_add(REMEMBERED_BLOCKS);
        old && oldest_known.is_none_or(|oldest| last_block < oldest)
    };
    pairs().map(|(last_block, known)| known || forgotten(last_block)).collect()
}

fn network(market: &MarketView) -> NetworkRecord {
    let facts = &market.network;
    let seats = facts.seats.iter().map(|&(owner, key)| SeatRecord { owner, key }).collect();
    NetworkRecord {
        program_id: facts.program_id,
        genesis_hash: facts.genesis_hash,
        attestors: AttestorSet { threshold: facts.threshold, seats },
        attestor_changes: Vec::new(),
    }
}

fn order(job: &Job, terms: OrderTerms) -> anyhow::Result<OrderRecord> {
    Ok(OrderRecord {
        address: job.order,
        transaction: BASE64.encode(&job.order_tx),
        extensions: job.now.extensions.iter().map(|one| one.transaction.clone()).collect(),
        unshown: unshown(job, terms)?,
        feed_uusd_per_atl: terms.feed_uusd_per_atl,
        fee_bps: terms.fee_bps,
        posted_at_s: terms.posted_at,
        active_at_s: (terms.active_at != 0).then_some(terms.active_at),
    })
}

/// What the chain says was added to the order, less what its transactions account for.
fn unshown(job: &Job, terms: OrderTerms) -> anyhow::Result<Option<UnshownRecord>> {
    let missing_s = u32::try_from(taken::missing_s(&job.now))?;
    if missing_s == 0 {
        return Ok(None);
    }
    let first = settled::posted_escrow(job, terms)?;
    let known = job.now.extensions.iter().try_fold(first, |sum, one| sum.checked_add(one.escrow));
    let missing = known.and_then(|known| terms.escrow.checked_sub(known));
    let missing = missing.ok_or_else(|| anyhow::anyhow!("the order's extensions escrowed more than the order has"))?;
    Ok(Some(UnshownRecord { seconds: missing_s, escrow: Atl(missing) }))
}

/// The leaf that a lease was settled with last: as the chain tells, where others had a hand in it.
async fn booked(control: &Control, job: &Job, record: &rows::LeaseRecord) -> anyhow::Result<Option<BookedLeaf>> {
    if let Some(elsewhere) = job.now.elsewhere.as_ref().filter(|it| it.is_known) {
        return Ok(elsewhere.booked.get(&record.lease).cloned());
    }
    let Some(index) = record.epoch else { return Ok(None) };
    let epoch = control.store.epoch_with_lease_up_to(&record.lease, index).await?;
    Ok(epoch.and_then(|epoch| {
        let (leaf_index, leaf, path) = leaves::find(&epoch, &record.lease)?;
        let path = path.into_iter().map(Digest).collect();
        Some(BookedLeaf { leaf, leaf_index, path, epoch: epoch.index, root: epoch.root })
    }))
}

fn lease(record: &rows::LeaseRecord, booked: Option<&BookedLeaf>) -> LeaseRecord {
    let released = record.released_at != 0 && record.released_at < record.end;
    let is_final = booked.is_some_and(|booked| booked.leaf.flags & FLAG_FINAL != 0);
    LeaseRecord {
        address: record.lease,
        n: record.n,
        refill: record.refill,
        supplier: record.supplier,
        page: record.page,
        page_no: record.page_no,
        slots: record.slots.clone(),
        workers: record.workers.clone(),
        mask: record.mask,
        ask: UsdMicrosPerHour(record.ask_uusd),
        rate: record.rate,
        start_s: record.start,
        end_s: record.end,
        released_at_s: released.then_some(record.released_at),
        reason: released.then_some(if record.lost { ReleaseReason::Lost } else { ReleaseReason::Done }),
        unfinished: record.start != 0 && !is_final,
        attested: booked.map(|booked| AttestedLeaf {
            device_seconds: booked.leaf.device_seconds,
            until_s: booked.leaf.until,
            flags: booked.leaf.flags,
            slots_root: booked.leaf.slots_root,
            epoch: booked.epoch,
            leaf_index: booked.leaf_index,
            path: booked.path.clone(),
        }),
    }
}

/// The attestor's own vote, signed off chain, for a root that the chain has.
fn vote(control: &Control, market: &MarketView, index: u64, root: Digest) -> EpochRecord {
    let message = vote_message(&market.network.network_root.0, index, &root.0);
    let signature = control.keys.attestor.sign_raw(&message);
    EpochRecord { index, root, votes: vec![VoteRecord { key: control.keys.attestor.public(), signature }] }
}

/// The sums, by the chain's own arithmetic over what was settled.
fn money(job: &Job, terms: OrderTerms) -> anyhow::Result<MoneyRecord> {
    let (mut paid, mut spent, mut fees) = (0_u64, 0_u64, 0_u64);
    let overflow = |error| anyhow::anyhow!("the order's sums do not fit: {error:?}");
    for record in &job.now.leases {
        let pay = Pay::of(record.rate, record.device_seconds, terms.fee_bps).map_err(overflow)?;
        paid += pay.supplier();
        spent += pay.renter().map_err(overflow)?;
        fees += pay.fees().map_err(overflow)?;
    }
    let refunded = terms.escrow.checked_sub(spent);
    let split = FeeSplit::of(fees);
    Ok(MoneyRecord {
        escrow: Atl(terms.escrow),
        paid: Atl(paid),
        refunded: Atl(refunded.ok_or_else(|| anyhow::anyhow!("more was spent than escrowed"))?),
        fees: Atl(fees),
        burned: Atl(split.burned),
        treasury: Atl(split.treasury),
    })
}

fn result(job: &Job, control: &Control) -> ResultRecord {
    let now = &job.now;
    let state: JobState = now.outcome.map_or(JobState::Failed, Into::into);
    ResultRecord {
        job: job.id,
        state,
        outcome: now.outcome,
        reason: now.reason.clone(),
        attempts: now.attempt,
        step: now.step,
        accuracy_ppm: now.accuracy_ppm,
        resumed_from_step: now.resumed_from_step,
        created: job.created,
        ended: now.ended.unwrap_or_else(|| control.now()),
        checked: CHECKED.to_owned(),
        fields: BTreeMap::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::stand;

    #[test]
    fn what_a_node_does_not_know_stands_only_where_it_has_forgotten_all_that_is_older() {
        assert_eq!(stand(&[100, 200, 300], &[false; 3], 451), [true, true, true]);
        assert_eq!(stand(&[100, 200, 300], &[false; 3], 450), [true, true, false], "it would know the last");
        assert_eq!(stand(&[100, 200, 300], &[false, true, false], 9_000), [true, true, false], "a fork took the last");
        assert_eq!(stand(&[100, 200, 300], &[true, false, true], 9_000), [true, false, true]);
        assert_eq!(stand(&[], &[], 1), [] as [bool; 0]);
    }
}
