//! What the chain took of renters' extensions: by transaction, for the receipt.
//!
//! The order says how many seconds were added, not by what. Most of it stands in this operator's outbox; what the renter
//! sent elsewhere is looked for in the order's history, a few questions at a time, since a renter can make that as long as
//! it pays for. Only what no fork takes back is believed, each transaction once, so that what adds up to all the seconds is
//! all there is. Nothing waits for it but the receipt, which says what it does not show: a node forgets what is old, and
//! what another program called, or what has another form than Atoll's own transactions, is not read.

use atoll_chain::market::{Extension, PROGRAM_ID, extensions};
use atoll_chain::transaction;
use atoll_domain::key::{Address, Signature};
use atoll_domain::money::Atl;
use atoll_interface::layout::Order;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::trail::{Next, Trail};
use super::{chain, job, kept};
use crate::control::Control;
use crate::store::rows::{ChainTxState, ExtensionRecord, Job, JobNow};

/// The seconds that a job's order was lengthened by and of which the transaction is not known.
#[must_use]
pub fn missing_s(now: &JobNow) -> u64 {
    u64::from(now.extended_s).saturating_sub(added_s(&now.extensions))
}

pub(super) fn added_s(records: &[ExtensionRecord]) -> u64 {
    records.iter().map(|one| u64::from(one.seconds)).sum()
}

/// Adds what is not among them yet.
pub(super) fn merge(known: &mut Vec<ExtensionRecord>, more: impl IntoIterator<Item = ExtensionRecord>) {
    for one in more {
        if known.iter().all(|it| it.signature != one.signature) {
            known.push(one);
        }
    }
}

/// Writes down what a job's order says of its length, and what this operator itself sent to lengthen it: before the order
/// can be closed, and beside the store as well. Asks the chain nothing.
///
/// # Errors
/// When a store fails; `Conflict` when the job changed since it was read.
pub async fn note(control: &Control, found: Job, order: &Order) -> anyhow::Result<Job> {
    if order.extended_s == 0 {
        return Ok(found);
    }
    let mut records = found.now.extensions.clone();
    if added_s(&records) < u64::from(order.extended_s) {
        for row in control.store.chain_txs_of(found.id).await? {
            if row.state == ChainTxState::Confirmed && chain::is_extension(&row) {
                merge(&mut records, record(&row.bytes, &found.order));
            }
        }
    }
    // What is written down stands on the chain: a node that shows less lags.
    if added_s(&records) > u64::from(order.extended_s) {
        return Ok(found);
    }
    keep(control, found, records, |now| (now.terms, now.extended_s) = (Some(chain::terms(order)), order.extended_s))
        .await
}

async fn keep(
    control: &Control,
    found: Job,
    records: Vec<ExtensionRecord>,
    edit: impl FnOnce(&mut JobNow),
) -> anyhow::Result<Job> {
    let mut now = found.now.clone();
    edit(&mut now);
    now.extensions = records;
    if now == found.now {
        return Ok(found);
    }
    let is_new = |one: &&ExtensionRecord| !found.now.extensions.contains(one);
    let told = now.extensions.iter().filter(is_new).map(|one| {
        let message = format!("lengthened by {} s for at most {} more", one.seconds, Atl(one.escrow));
        let fields = [("added_s", one.seconds.to_string()), ("signature", one.signature.to_string())];
        job::event(control.now(), "chain", message, &fields)
    });
    let told = told.collect();
    let is_news =
        (now.terms, now.extended_s, &now.extensions) != (found.now.terms, found.now.extended_s, &found.now.extensions);
    if is_news {
        // First: with the row written, this does not come by again.
        kept::put_extensions(control, &found.order, &now).await?;
    }
    Ok(job::change_with(control, &found, |row| *row = now, told).await?)
}

/// A look through an order's history, newest first, that goes on where it stopped.
#[derive(Debug, Default)]
pub struct Search {
    found: Vec<ExtensionRecord>,
    trail: Trail,
}

/// Where a search stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// There is more to look at.
    NotYet,
    /// It saw all that it will.
    Over,
}

impl Search {
    /// Goes on with at most so many questions to the chain.
    ///
    /// # Errors
    /// When the chain does not answer: the next call goes on from there.
    pub async fn go_on(&mut self, control: &Control, job: &Job, questions: usize) -> anyhow::Result<Sought> {
        for _ in 0..questions {
            let name = match self.trail.next(control, &job.order).await? {
                Next::At(name) => name,
                Next::More => continue,
                Next::End => return Ok(Sought::Over),
            };
            let known = |one: &ExtensionRecord| one.signature.0 == name.0;
            if !job.now.extensions.iter().any(known) {
                let bytes = Trail::bytes(control, &name).await?;
                let one = bytes.and_then(|bytes| record(&bytes, &job.order));
                // An order that stood at this address before has a history of its own.
                let room = missing_s(&job.now).saturating_sub(added_s(&self.found));
                self.found.extend(one.filter(|one| u64::from(one.seconds) <= room));
            }
            self.trail.pass();
            if added_s(&self.found) >= missing_s(&job.now) {
                return Ok(Sought::Over);
            }
        }
        Ok(Sought::NotYet)
    }

    /// Writes down what was found, and that it was looked for.
    ///
    /// # Errors
    /// When a store fails; `Conflict` when the job changed since it was read.
    pub async fn note(mut self, control: &Control, found: Job) -> anyhow::Result<()> {
        let mut records = found.now.extensions.clone();
        self.found.reverse();
        merge(&mut records, self.found);
        let at = control.now();
        let noted = keep(control, found, records, |now| now.extensions_sought = Some(at)).await?;
        if missing_s(&noted.now) > 0 {
            let missing_s = missing_s(&noted.now);
            tracing::warn!(job = %noted.id, order = %noted.order, missing_s, "not every extension of this order is known");
        }
        Ok(())
    }
}

/// What a transaction that the chain took added to an order. One transaction is one record, whatever it holds.
pub(super) fn record(bytes: &[u8], order: &Address) -> Option<ExtensionRecord> {
    let decoded = transaction::decode(bytes).ok()?;
    let of_order: Vec<Extension> =
        extensions(&decoded, &PROGRAM_ID).into_iter().filter(|extension| extension.order.0 == order.0).collect();
    let signature = Signature(decoded.signatures.first()?.0);
    let seconds = of_order.iter().try_fold(0_u32, |sum, one| sum.checked_add(one.seconds))?;
    let escrow = of_order.iter().try_fold(0_u64, |sum, one| sum.checked_add(one.escrow))?;
    (seconds > 0).then(|| ExtensionRecord { transaction: BASE64.encode(bytes), signature, seconds, escrow })
}

#[cfg(test)]
#[path = "taken_tests.rs"]
mod tests;
