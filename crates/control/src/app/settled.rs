//! How an order was settled that others had a hand in, as its trail on the chain tells, for the receipt.
//!
//! An operator that comes back after another one settled in its place, or that lost a race to it, finds leases and order
//! closed: what it remembers of them is not what was paid. The leaf that the chain booked last for each lease stands in the
//! transaction that booked it, under a root that the chain still has. Only a trail that leads back to the order's beginning
//! is believed; what another program called, or what has another form than Atoll's own transactions, is not read.

use std::collections::BTreeMap;

use atoll_chain::market::{self, PROGRAM_ID, layout};
use atoll_chain::rpc::Commitment;
use atoll_chain::{Instruction as Sent, transaction};
use atoll_domain::key::{Address, Digest, PublicKey, sha256};
use atoll_interface::instruction::{Instruction, leaf_of};
use atoll_interface::merkle::{self, FLAG_FINAL, Leaf};
use atoll_interface::{Hash, Hashes};

use super::trail::{Next, Trail};
use super::{job, kept, leaves, order, taken};
use crate::control::Control;
use crate::store::rows::{
    BookedLeaf, ChainTxState, Elsewhere, EpochLeaf, ExtensionRecord, Job, JobNow, LeaseRecord, OrderTerms,
};

/// Places in the accounts of `settle_lease` and of `extend_lease`, in the order that `interface` declares them.
const ORDER: usize = 0;
const LEASE: usize = 1;
const EPOCH: usize = 2;
/// Places in the accounts of `settle_batch`: its leases come last.
const BATCH_EPOCH: usize = 1;
const BATCH_LEASES: usize = 3;
/// Places in the accounts of `settle_mixed`: an order for each leaf, and then the leases.
const MIXED_EPOCH: usize = 0;
const MIXED_ORDERS: usize = 2;
/// Place in the accounts of `settle_cosigned`.
const AGREED_ORDER: usize = 1;

/// Whether the chain may have booked for a lease last what this operator does not know of. It is sure of what it booked
/// itself, and of a lease without a clock that it closed itself.
async fn is_unsure(control: &Control, record: &LeaseRecord) -> anyhow::Result<bool> {
    let landed = async |key: String| {
        let Some(row) = control.store.chain_tx(&key).await? else { return anyhow::Ok(false) };
        if row.state == ChainTxState::Confirmed {
            return Ok(true);
        }
        // Nobody asks again for what shows on the chain.
        let status = control.rpc.status(&row.signature.parse()?).await?;
        Ok(status.is_some_and(|status| status.error.is_none()))
    };
    let Some(index) = record.epoch else {
        return Ok(record.start != 0 || !landed(format!("close_lease/{}", record.lease)).await?);
    };
    let own = own_leaf(control, record).await?;
    let is_own = own.is_some_and(|leaf| leaf.device_seconds == record.device_seconds && leaf.flags & FLAG_FINAL != 0);
    Ok(!is_own || !landed(format!("settle_lease/{}/{index}", record.lease)).await?)
}

/// The leaf that this operator wrote down as the last of a lease.
async fn own_leaf(control: &Control, record: &LeaseRecord) -> anyhow::Result<Option<EpochLeaf>> {
    let Some(index) = record.epoch else { return Ok(None) };
    let epoch = control.store.epoch_with_lease_up_to(&record.lease, index).await?;
    Ok(epoch.and_then(|epoch| leaves::find(&epoch, &record.lease)).map(|(_, leaf, _)| leaf))
}

/// Whether it is known how a job's closed order was settled, so that its receipt can be written. When it is not, it is asked
/// for: `tasks::history` looks. A trail that the chain's node has forgotten leaves only what this operator attested itself
/// as every lease's last leaf.
///
/// # Errors
/// When the store fails; `Conflict` when the job changed since it was read.
pub async fn is_known(control: &Control, found: &Job) -> anyhow::Result<bool> {
    match &found.now.elsewhere {
        Some(it) if it.is_known => return Ok(true),
        Some(it) if it.agreed => return Ok(false),
        _ => {}
    }
    let (mut unsure, mut without) = (false, false);
    for record in &found.now.leases {
        if is_unsure(control, record).await? {
            unsure = true;
            let own = own_leaf(control, record).await?;
            without |= own.is_none_or(|leaf| leaf.device_seconds != record.device_seconds);
        }
    }
    let forgotten = found.now.elsewhere.as_ref().is_some_and(|it| it.sought.is_some());
    if !unsure || (forgotten && !without) {
        return Ok(true);
    }
    if found.now.elsewhere.is_none() {
        job::change(control, found, |now| now.elsewhere = Some(Elsewhere::default())).await?;
    }
    Ok(false)
}

/// What one transaction did that a receipt tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Deed {
    /// The renter lengthened the order.
    Lengthened(ExtensionRecord),
    /// A lease went along to the order's end.
    WentAlong(Address),
    /// A leaf was booked, under the root in this account. Its epoch's number is not known yet.
    Booked(Address, BookedLeaf),
    /// Renter and worker settled by themselves, under no root.
    Agreed,
}

/// What a transaction that the chain took did to an order and its leases, first things first. Pure.
fn deeds(bytes: &[u8], order: &Address) -> Vec<Deed> {
    let Ok(decoded) = transaction::decode(bytes) else { return Vec::new() };
    let mut found: Vec<Deed> = taken::record(bytes, order).map(Deed::Lengthened).into_iter().collect();
    for sent in decoded.instructions.iter().filter(|sent| sent.program == PROGRAM_ID) {
        let account = |at: usize| sent.accounts.get(at).map(|meta| PublicKey(meta.address.0));
        let of_order = account(ORDER) == Some(*order);
        match Instruction::decode(&sent.data) {
            Ok(Instruction::ExtendLease(_)) if of_order => found.extend(account(LEASE).map(Deed::WentAlong)),
            Ok(Instruction::SettleLease(settle)) if of_order => {
                let (Some(lease), Some(epoch)) = (account(LEASE), account(EPOCH)) else { continue };
                let leaf = Leaf {
                    lease: lease.0,
                    device_seconds: settle.device_seconds,
                    until: settle.until,
                    flags: settle.flags,
                    slots_root: settle.slots_root,
                };
                let path: Vec<Hash> = settle.path.iter().copied().collect();
                found.extend(booked(&leaf, settle.leaf_index, path).map(|booked| Deed::Booked(epoch, booked)));
            }
            Ok(Instruction::SettleBatch(batch)) if of_order => {
                let path: Vec<Hash> = batch.path.iter().copied().collect();
                let accounts = (BATCH_EPOCH, BATCH_LEASES);
                found.extend(batched(sent, accounts, batch.first_leaf, batch.leaves, &path).into_iter().flatten());
            }
            Ok(Instruction::SettleMixed(batch)) => {
                let path: Vec<Hash> = batch.path.iter().copied().collect();
                let accounts = (MIXED_EPOCH, MIXED_ORDERS + batch.leaves.len());
                let all = batched(sent, accounts, batch.first_leaf, batch.leaves, &path).into_iter().enumerate();
                let own = |(at, deed)| if account(MIXED_ORDERS + at) == Some(*order) { deed } else { None };
                found.extend(all.filter_map(own));
            }
            Ok(Instruction::SettleCosigned(_)) if account(AGREED_ORDER) == Some(*order) => found.push(Deed::Agreed),
            _ => {}
        }
    }
    found
}

fn booked(leaf: &Leaf, leaf_index: u32, path: Vec<Hash>) -> Option<BookedLeaf> {
    let root = merkle::root_of_path(sha256, leaf.hash(sha256), leaf_index, Hashes::new(&path))?;
    let row = EpochLeaf {
        lease: PublicKey(leaf.lease),
        device_seconds: leaf.device_seconds,
        until: leaf.until,
        flags: leaf.flags,
        slots_root: Digest(leaf.slots_root),
    };
    Some(BookedLeaf {
        leaf: row,
        leaf_index,
        path: path.into_iter().map(Digest).collect(),
        root: Digest(root),
        epoch: 0,
    })
}

/// Leaves that were booked together, in their order: each one's path leads through the others first. `accounts` has the
/// places of the root and of the first lease.
fn batched(
    sent: &Sent,
    accounts: (usize, usize),
    first: u32,
    said: &[[u8; atoll_interface::instruction::SAID_LEN]],
    above: &[Hash],
) -> Vec<Option<Deed>> {
    let account = |at: usize| sent.accounts.get(at).map(|meta| meta.address.0);
    let Some(epoch) = account(accounts.0) else { return Vec::new() };
    let leaves: Option<Vec<Leaf>> =
        said.iter().enumerate().map(|(at, said)| Some(leaf_of(account(accounts.1 + at)?, said))).collect();
    let leaves = leaves.unwrap_or_default();
    let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf.hash(sha256)).collect();
    let one = |(at, leaf): (usize, &Leaf)| {
        let mut path = vec![[0; 32]; merkle::depth(hashes.len())];
        let (_, length) = merkle::root_and_path(sha256, &mut hashes.clone(), at, &mut path)?;
        path.truncate(length);
        path.extend(above);
        let index = first.checked_add(u32::try_from(at).ok()?)?;
        booked(leaf, index, path).map(|booked| Deed::Booked(PublicKey(epoch), booked))
    };
    leaves.iter().enumerate().map(one).collect()
}

/// A look along the trail of an order that is closed.
#[derive(Debug, Default)]
pub struct Look {
    trail: Trail,
    /// Newest first.
    deeds: Vec<Deed>,
}

/// Where a look stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// There is more to look at.
    NotYet,
    /// All, back to the order's beginning.
    All,
    /// All that the chain's node knows; the beginning is not among it.
    Some,
    /// That renter and worker settled by themselves.
    Agreed,
}

impl Look {
    /// Goes on with at most so many questions to the chain.
    ///
    /// # Errors
    /// When the chain does not answer: the next call goes on from there.
    pub async fn go_on(&mut self, control: &Control, job: &Job, questions: usize) -> anyhow::Result<Seen> {
        let posted = transaction::decode(&job.order_tx)?.signatures.first().copied();
        for _ in 0..questions {
            let name = match self.trail.next(control, &job.order).await? {
                Next::At(name) => name,
                Next::More => continue,
                Next::End => return Ok(Seen::Some),
            };
            // An order that stood at this address before has a trail of its own.
            if Some(name) == posted {
                return Ok(Seen::All);
            }
            // One that cannot be read may be any.
            let Some(bytes) = Trail::bytes(control, &name).await? else { return Ok(Seen::Some) };
            let did = deeds(&bytes, &job.order);
            if did.contains(&Deed::Agreed) {
                return Ok(Seen::Agreed);
            }
            self.deeds.extend(did.into_iter().rev());
            self.trail.pass();
        }
        Ok(Seen::NotYet)
    }

    /// Writes down what was seen: the job's leases are then as the chain settled them.
    ///
    /// # Errors
    /// When store or chain fail, or a lease is not known here; `Conflict` when the job changed since it was read.
    pub async fn note(mut self, control: &Control, found: Job, seen: Seen) -> anyhow::Result<()> {
        self.deeds.reverse();
        let at = control.now();
        let mut now = found.now.clone();
        let (is_known, agreed) = (seen == Seen::All, seen == Seen::Agreed);
        let mut elsewhere = Elsewhere { sought: Some(at), is_known, agreed, booked: BTreeMap::new() };
        if elsewhere.is_known {
            elsewhere.booked = self.last_booked(control).await?;
            let seconds = job::spec_of(&found)?.seconds_max;
            told(&mut now, &self.deeds, &elsewhere.booked, i64::try_from(seconds)?)?;
            if now.extended_s > found.now.extended_s {
                let terms = now.terms.ok_or_else(|| anyhow::anyhow!("the order's terms were not written down"))?;
                let first = posted_escrow(&found, terms)?;
                let escrow = now.extensions.iter().try_fold(first, |sum, one| sum.checked_add(one.escrow));
                let escrow = escrow.ok_or_else(|| anyhow::anyhow!("the order's extensions escrowed too much"))?;
                now.terms = Some(OrderTerms { escrow, ..terms });
                kept::put_extensions(control, &found.order, &now).await?;
            }
        }
        let mut events = Vec::new();
        if !elsewhere.is_known && found.now.elsewhere.as_ref().is_none_or(|it| it.sought.is_none()) {
            let message = if agreed {
                "its renter and a worker settled by themselves, without attestors: the order is over, and no receipt can say what \
                 they agreed on; the chain's history does"
            } else {
                "others had a hand in settling its order, and the chain's node does not remember how: once `rpc` leads to a node \
                 that has the order's whole history, its receipt is written"
            };
            tracing::warn!(job = %found.id, order = %found.order, "{message}");
            events.push(job::event(at, "chain", message, &[]));
        }
        now.elsewhere = Some(elsewhere);
        job::change_with(control, &found, |row| *row = now, events).await?;
        Ok(())
    }

    /// The leaf that was booked last for each lease, with its epoch's number, as the chain has it for good.
    async fn last_booked(&self, control: &Control) -> anyhow::Result<BTreeMap<Address, BookedLeaf>> {
        let settled = control.rpc.at(Commitment::Finalized);
        let mut last = BTreeMap::new();
        for deed in &self.deeds {
            if let Deed::Booked(account, booked) = deed {
                last.insert(booked.leaf.lease, (account, booked.clone()));
            }
        }
        let mut all = BTreeMap::new();
        for (lease, (account, booked)) in last {
            let found = settled.account(&atoll_chain::Address(account.0)).await?;
            let found = found.ok_or_else(|| anyhow::anyhow!("the root of a leaf of lease {lease} is gone"))?;
            let epoch = market::read::<layout::Epoch>(&found)?.value;
            anyhow::ensure!(
                epoch.final_at != 0 && epoch.root == booked.root.0,
                "lease {lease} has a leaf of another root"
            );
            all.insert(lease, BookedLeaf { epoch: epoch.index, ..booked });
        }
        Ok(all)
    }
}

/// Has a job's row say what the deeds did, first things first. `ordered_s` is the order's length as it was posted. Pure.
fn told(
    now: &mut JobNow,
    deeds: &[Deed],
    booked: &BTreeMap<Address, BookedLeaf>,
    ordered_s: i64,
) -> anyhow::Result<()> {
    let active_at = now.terms.map_or(0, |terms| terms.active_at);
    let mut end = active_at.saturating_add(ordered_s);
    for record in now.leases.iter_mut().filter(|record| record.start == 0 && active_at != 0) {
        (record.start, record.end) = (active_at, end);
    }
    for deed in deeds {
        match deed {
            Deed::Lengthened(one) => {
                end = end.saturating_add(i64::from(one.seconds));
                taken::merge(&mut now.extensions, [one.clone()]);
            }
            Deed::WentAlong(lease) => {
                for record in now.leases.iter_mut().filter(|record| record.lease == *lease) {
                    record.end = record.end.max(end);
                }
            }
            Deed::Booked(..) | Deed::Agreed => {}
        }
    }
    let extended_s = u32::try_from(taken::added_s(&now.extensions))?;
    now.extended_s = now.extended_s.max(extended_s);
    for record in &mut now.leases {
        let last = booked.get(&record.lease);
        record.device_seconds = last.map_or(0, |booked| booked.leaf.device_seconds);
        record.epoch = last.map(|booked| booked.epoch);
    }
    let is_known = |lease: &Address| now.leases.iter().any(|record| record.lease == *lease);
    anyhow::ensure!(booked.keys().all(is_known), "the chain settled a lease that was never written down");
    Ok(())
}

/// What was escrowed when a job's order was posted, by the terms that the chain gave it.
///
/// # Errors
/// When it does not fit.
pub fn posted_escrow(job: &Job, terms: OrderTerms) -> anyhow::Result<u64> {
    let posted = order::posted(&job.order_tx)?;
    let price_max = atoll_domain::money::UsdMicrosPerHour(posted.price_cap_uusd);
    let seconds = u64::from(posted.duration_s);
    Ok(order::escrow(price_max, posted.devices, seconds, terms.feed_uusd_per_atl, terms.fee_bps)?.0)
}

#[cfg(test)]
#[path = "settled_tests.rs"]
mod tests;
