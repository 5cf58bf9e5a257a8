//! Asking: one function a request. Who must act, on which accounts, under which key of the outbox.

use atoll_chain::market::instruction::{self as build, Place};
use atoll_chain::market::{Shorter, address, data as ix};
use atoll_chain::rpc::Commitment;
use atoll_chain::{Hash, Instruction, Keypair, SignedTransaction, spl};
use atoll_domain::id::{JobId, WorkerId};
use atoll_domain::key::{Address, PublicKey};
use atoll_domain::lease::ReleaseReason;
use atoll_domain::money::UsdMicrosPerHour;
use atoll_domain::placement::Plan;
use atoll_interface::layout::{Lease, Order};
use atoll_interface::settlement::Reason;
use atoll_interface::{Hashes, NO_ADDRESS};

use super::super::leaves;
use super::super::market::MarketView;
use super::outbox::{self, Sent, Standing, node_key, submit};
use super::read::{self, LiveSlot};
use super::{at, page_of};
use crate::control::Control;
use crate::store::StoreError;
use crate::store::rows::{ChainTx, ChainTxState, Epoch, EpochLeaf, Event, Job};

/// How many blocks a renter's transaction is waited for, counted from when it was accepted: the 150 that a blockhash
/// lives, and 50 more for nodes that lag behind one another.
const RENTERS_BLOCKS: u64 = 200;

/// Slots of one page with one mask and one ask: what one `fill_order` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    page: Address,
    mask: u16,
    ask: UsdMicrosPerHour,
    slots: Vec<(u16, WorkerId)>,
}

impl Group {
    /// How many devices it takes.
    #[must_use]
    pub fn devices(&self) -> u32 {
        self.mask.count_ones() * u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }

    /// Its workers, for people.
    #[must_use]
    pub fn workers_in_words(&self) -> String {
        self.slots.iter().map(|(_, worker)| worker.to_string()).collect::<Vec<_>>().join(", ")
    }
}

/// The groups that a plan needs: one `fill_order` each.
#[must_use]
pub fn groups(market: &MarketView, plan: &Plan) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for placed in &plan.placed {
        let Some(offer) = market.offers.get(&placed.worker) else { continue };
        let same =
            |group: &&mut Group| group.page == offer.at.page && group.mask == placed.mask && group.ask == offer.ask;
        let member = (offer.at.slot, placed.worker);
        match groups.iter_mut().find(same) {
            Some(group) => group.slots.push(member),
            None => {
                groups.push(Group { page: offer.at.page, mask: placed.mask, ask: offer.ask, slots: vec![member] });
            }
        }
    }
    groups
}

/// For which order something is asked, and for which job of this operator, if it has one.
#[derive(Clone, Copy, Debug)]
pub struct For {
    /// The order.
    pub order: Address,
    /// The job.
    pub job: Option<JobId>,
}

impl From<&Job> for For {
    fn from(job: &Job) -> Self {
        Self { order: job.order, job: Some(job.id) }
    }
}

impl From<Address> for For {
    fn from(order: Address) -> Self {
        Self { order, job: None }
    }
}

fn fits(instruction: Result<Instruction, atoll_interface::Error>) -> anyhow::Result<Instruction> {
    instruction.map_err(|error| anyhow::anyhow!("an instruction does not fit: {}", error.words()))
}

/// First slot and bitmap bytes of some slots.
fn bitmap(slots: &[u16]) -> (u16, Vec<u8>) {
    let first = slots.iter().copied().min().unwrap_or_default();
    let last = slots.iter().copied().max().unwrap_or_default();
    let mut bits = vec![0_u8; usize::from(last - first) / 8 + 1];
    for slot in slots {
        let at = usize::from(slot - first);
        bits[at / 8] |= 1 << (at % 8);
    }
    (first, bits)
}

fn fill_key(job: &Job, order: &Order) -> String {
    format!("fill_order/{}/{}", job.order, order.leases_made)
}

/// Follows the order's next fill, when one is on its way already; none when there is none.
///
/// # Errors
/// When store or chain fail.
pub async fn fill_under_way(control: &Control, job: &Job, order: &Order) -> anyhow::Result<Option<Sent>> {
    outbox::under_way(control, &fill_key(job, order)).await
}

/// Gives one group to a job's order.
///
/// # Errors
/// When store or chain fail.
pub async fn fill(control: &Control, job: &Job, group: &Group) -> anyhow::Result<Sent> {
    let Some(order) = read::order(control, &job.order).await? else {
        return Ok(Sent::Failed("the order is gone".into()));
    };
    let page = page_of(control, &group.page).await?.header;
    let numbers: Vec<u16> = group.slots.iter().map(|(slot, _)| *slot).collect();
    let (first_slot, bits) = bitmap(&numbers);
    let place = Place {
        order: at(&job.order),
        supplier: at(&PublicKey(page.supplier)),
        page_no: page.page_no,
        n: order.leases_made,
    };
    let data = ix::FillOrder {
        mask: group.mask,
        ask_max: group.ask.0,
        first_slot,
        bits: &bits,
        group_index: 0,
        group_path: Hashes::new(&[]),
    };
    let node = node_key(control);
    let fill = fits(build::fill_order(node.address(), node.address(), place, &data))?;
    submit(control, fill_key(job, &order), Some(job.id), &[fill], &[&node]).await
}

/// Gives one slot of a lease back at `now`, Unix seconds of the chain. A slot is leased once in a lease's life, so once is
/// for ever. What its lease outlived is no fault of its worker's, whatever its pod said then.
///
/// # Errors
/// When store or chain fail.
pub async fn release(
    control: &Control,
    job: &Job,
    slot: &LiveSlot,
    reason: ReleaseReason,
    now: i64,
) -> anyhow::Result<Sent> {
    let reason = match reason {
        _ if slot.end != 0 && now >= slot.end => Reason::Expired,
        ReleaseReason::Lost => Reason::Lost,
        ReleaseReason::Leave => Reason::Leave,
        ReleaseReason::Done | ReleaseReason::Stopped => Reason::Done,
    };
    release_for(control, job.into(), slot, reason).await
}

/// Gives one slot back whose lease is over, as anyone may: no fault of its worker's.
///
/// # Errors
/// When store or chain fail.
pub async fn release_expired(control: &Control, of: impl Into<For> + Send, slot: &LiveSlot) -> anyhow::Result<Sent> {
    release_for(control, of.into(), slot, Reason::Expired).await
}

async fn release_for(control: &Control, of: For, slot: &LiveSlot, reason: Reason) -> anyhow::Result<Sent> {
    let (first_slot, bits) = bitmap(&[slot.at.slot]);
    // The chain heeds the time only from the supplier's side.
    let data = ix::ReleaseLease { reason: reason as u8, effective_at: 0, first_slot, bits: &bits };
    let node = node_key(control);
    let (order, lease, page) = (at(&of.order), at(&slot.lease), at(&slot.at.page));
    let release = fits(build::release_lease(node.address(), order, lease, page, None, &data))?;
    let key = format!("release_lease/{}/{}", slot.lease, slot.at.slot);
    submit(control, key, of.job, &[release], &[&node]).await
}

/// Whether an epoch's root has all its votes, in a state that cannot be undone.
///
/// # Errors
/// When the chain does not answer.
pub async fn epoch_stands(control: &Control, epoch: &Epoch) -> anyhow::Result<bool> {
    let settled = atoll_chain::market::Market::new(control.rpc.at(Commitment::Finalized));
    let found = settled.epoch(epoch.index, &Hash(epoch.root.0)).await?;
    Ok(found.is_some_and(|found| found.value.final_at != 0))
}

/// Votes for an epoch's root.
///
/// # Errors
/// When store or chain fail.
pub async fn post_epoch(control: &Control, epoch: &Epoch) -> anyhow::Result<Sent> {
    let node = node_key(control);
    let attestor = Keypair::from_seed(&control.keys.attestor.seed());
    let vote = build::post_epoch(attestor.address(), node.address(), epoch.index, Hash(epoch.root.0));
    let sent = submit(control, format!("post_epoch/{}", epoch.index), None, &[vote], &[&node, &attestor]).await?;
    if !matches!(sent, Sent::Failed(_)) {
        return Ok(sent);
    }
    // A store that was lost forgot the vote, the chain did not.
    let stands = read::market(control).epoch(epoch.index, &Hash(epoch.root.0)).await?.is_some();
    Ok(if stands { Sent::Confirmed } else { sent })
}

/// The first epoch that this operator's attestor key may still vote on, none when it has no seat; and the cluster's clock,
/// Unix seconds, of the same state.
///
/// # Errors
/// When the chain does not answer.
pub async fn next_epoch(control: &Control) -> anyhow::Result<(Option<u64>, i64)> {
    let key = at(&control.keys.attestor.public());
    let (attestor, now) = read::market(control).attestor_now(&key).await?;
    Ok((attestor.map(|attestor| attestor.next_epoch), now))
}

/// Whether an epoch's root is final and out of its hold.
///
/// # Errors
/// When the chain does not answer.
pub async fn epoch_pays(control: &Control, epoch: &Epoch) -> anyhow::Result<bool> {
    let Some(market) = control.market.snapshot() else { return Ok(false) };
    // Money moves on what cannot be undone.
    let settled = atoll_chain::market::Market::new(control.rpc.at(Commitment::Finalized));
    let Some(found) = settled.epoch(epoch.index, &Hash(epoch.root.0)).await? else { return Ok(false) };
    let final_at = found.value.final_at;
    let pays_at = final_at.saturating_add(i64::from(market.network.epoch_hold_s));
    Ok(final_at != 0 && read::time(control).await? > pays_at)
}

/// Books a leaf.
///
/// # Errors
/// When store or chain fail.
pub async fn settle(
    control: &Control,
    of: impl Into<For> + Send,
    epoch: &Epoch,
    leaf_index: u32,
    leaf: &EpochLeaf,
    path: &[[u8; 32]],
) -> anyhow::Result<Sent> {
    let of = of.into();
    let row = leaves::of_row(leaf);
    let data = ix::SettleLease {
        device_seconds: row.device_seconds,
        until: row.until,
        flags: row.flags,
        slots_root: row.slots_root,
        leaf_index,
        path: Hashes::new(path),
    };
    let root = address::epoch(epoch.index, &Hash(epoch.root.0));
    let settle = fits(build::settle_lease(at(&of.order), at(&leaf.lease), root, &data))?;
    submit(control, format!("settle_lease/{}/{}", leaf.lease, epoch.index), of.job, &[settle], &[]).await
}

/// Makes sure that a wallet has a token account of ATL, and names it.
fn token_account(control: &Control, wallet: &[u8; 32], mint: &Address) -> (Instruction, atoll_chain::Address) {
    let (wallet, mint) = (atoll_chain::Address(*wallet), at(mint));
    let create = spl::create_associated_token(node_key(control).address(), wallet, mint);
    (create, spl::associated_token_address(&wallet, &mint))
}

fn mint(control: &Control) -> anyhow::Result<(Address, Address)> {
    let market = control.market.snapshot().ok_or_else(|| anyhow::anyhow!("the chain has not answered yet"))?;
    Ok((market.network.mint, market.network.treasury))
}

/// Pays what a lease is owed and closes it.
///
/// # Errors
/// When store or chain fail.
pub async fn close_lease(
    control: &Control,
    of: impl Into<For> + Send,
    address: &Address,
    lease: &Lease,
) -> anyhow::Result<Sent> {
    let of = of.into();
    let page = PublicKey(lease.page);
    let supplier = page_of(control, &page).await?.header.supplier;
    let (create, destination) = token_account(control, &supplier, &mint(control)?.0);
    let rent_payer = atoll_chain::Address(lease.rent_payer);
    let close = build::close_lease(at(&of.order), at(address), at(&page), destination, rent_payer);
    submit(control, format!("close_lease/{address}"), of.job, &[create, close], &[]).await
}

/// Burns and banks an order's fees. They may come again after they were collected, so each time has its own key.
///
/// # Errors
/// When store or chain fail.
pub async fn collect_fees(control: &Control, of: impl Into<For> + Send, order: &Order) -> anyhow::Result<Sent> {
    let of = of.into();
    let (mint, treasury) = mint(control)?;
    let collect = build::collect_fees(at(&of.order), at(&mint), at(&treasury));
    let key = format!("collect_fees/{}/{}", of.order, order.fees_collected);
    submit(control, key, of.job, &[collect], &[]).await
}

/// Refunds the rest of the escrow and closes the order.
///
/// # Errors
/// When store or chain fail.
pub async fn close_order(control: &Control, of: impl Into<For> + Send, order: &Order) -> anyhow::Result<Sent> {
    let of = of.into();
    let node = node_key(control);
    let mut instructions = Vec::new();
    let (refund, budget) = if order.budget == NO_ADDRESS {
        let (create, refund) = token_account(control, &order.renter, &mint(control)?.0);
        instructions.push(create);
        (refund, None)
    } else {
        let budget = atoll_chain::Address(order.budget);
        (address::budget_vault(&budget), Some(budget))
    };
    let rent_payer = atoll_chain::Address(order.rent_payer);
    instructions.push(build::close_order(node.address(), at(&of.order), refund, rent_payer, budget));
    submit(control, format!("close_order/{}", of.order), of.job, &instructions, &[&node]).await
}

fn renters_key(job: &Job) -> String {
    format!("post_order/{}", job.order)
}

/// Sends the renter's own transaction, which nobody here can change or sign again, and looks what became of it. Only what
/// the chain's final state says is believed ([`outbox::relay`]): a node that lags by a slot does not know its blockhash yet,
/// and the bytes may have arrived all the same.
///
/// # Errors
/// When store or chain fail: then nothing is known, and it is asked again.
pub async fn send_renters(control: &Control, job: &Job) -> anyhow::Result<Standing> {
    let key = renters_key(job);
    let row = match control.store.chain_tx(&key).await? {
        Some(row) => row,
        None => {
            let transaction = SignedTransaction::from_bytes(job.order_tx.clone())?;
            let last_valid_height = control.rpc.block_height().await?.saturating_add(RENTERS_BLOCKS);
            let row = outbox::row(control, key, Some(job.id), &transaction, last_valid_height);
            control.store.chain_tx_put(&row).await?
        }
    };
    let over = |sent| Ok(Standing { sent, said: None });
    match row.state {
        ChainTxState::Failed => return over(Sent::Failed(row.error)),
        ChainTxState::Expired => return over(Sent::Expired),
        ChainTxState::Pending | ChainTxState::Confirmed => {}
    }
    let standing = outbox::relay(control, &row).await?;
    match (row.state, &standing.sent) {
        // A fork took back what had been seen.
        (ChainTxState::Confirmed, Sent::Failed(_) | Sent::Expired) => {
            control.store.chain_tx_gone(&row.signature).await?;
        }
        (ChainTxState::Pending, sent) => outbox::remember(control, &row.signature, sent).await?,
        _ => {}
    }
    Ok(standing)
}

/// Whether the renter's transaction shows as executed, and be it on a fork that may lose.
///
/// # Errors
/// When the chain does not answer.
pub async fn renters_show(control: &Control, job: &Job) -> anyhow::Result<bool> {
    let transaction = SignedTransaction::from_bytes(job.order_tx.clone())?;
    let status = control.rpc.status(&transaction.signature()).await?;
    Ok(status.is_some_and(|status| status.error.is_none()))
}

/// What the outbox's keys of extensions begin with.
const EXTENSION: &str = "extend_order/";

fn extension_key(order: &Address, idempotency_key: &str) -> String {
    format!("{EXTENSION}{order}/{idempotency_key}")
}

/// Whether a transaction of the outbox is a renter's extension of an order.
#[must_use]
pub fn is_extension(row: &ChainTx) -> bool {
    row.key.starts_with(EXTENSION)
}

/// The order that an extension of the outbox is for.
#[must_use]
pub fn extension_order(row: &ChainTx) -> Option<Address> {
    row.key.strip_prefix(EXTENSION)?.split('/').next()?.parse().ok()
}

/// What was written down of an extension that its renter asks for under a key.
///
/// # Errors
/// When the store fails.
pub async fn extension_known(
    control: &Control,
    order: &Address,
    idempotency_key: &str,
) -> Result<Option<ChainTx>, StoreError> {
    control.store.chain_tx(&extension_key(order, idempotency_key)).await
}

/// Writes the renter's own transaction down; gives the one that stands under its key.
///
/// # Errors
/// When store or chain fail; `Conflict` when these bytes were written down before and are over, or under another key.
pub async fn keep_extension(
    control: &Control,
    of: For,
    idempotency_key: &str,
    bytes: &[u8],
) -> anyhow::Result<ChainTx> {
    let transaction = SignedTransaction::from_bytes(bytes.to_vec())?;
    let last_valid_height = control.rpc.block_height().await?.saturating_add(RENTERS_BLOCKS);
    let key = extension_key(&of.order, idempotency_key);
    let row = outbox::row(control, key, of.job, &transaction, last_valid_height);
    Ok(control.store.chain_tx_put(&row).await?)
}

/// Sends a renter's extension and looks what became of it. When that is known for good, it is written down together with
/// what `tell` makes of it for the job's events.
///
/// # Errors
/// When store or chain fail: then nothing is known, and it is asked again.
pub async fn send_extension(
    control: &Control,
    row: &ChainTx,
    tell: impl FnOnce(&Sent) -> Option<Event> + Send,
) -> anyhow::Result<Standing> {
    let standing = outbox::relay(control, row).await?;
    if let Some((state, error)) = outbox::fate(&standing.sent) {
        let told: Vec<Event> = tell(&standing.sent).into_iter().collect();
        control.store.chain_tx_state(&row.signature, state, error, &told).await?;
    }
    Ok(standing)
}

/// Moves a lease's end to its order's, `end`: once for each end.
///
/// # Errors
/// When store or chain fail.
pub async fn extend_lease(control: &Control, of: For, shorter: &Shorter, end: i64) -> anyhow::Result<Sent> {
    let extend = build::extend_lease(at(&of.order), shorter.address, atoll_chain::Address(shorter.lease.page));
    submit(control, format!("extend_lease/{}/{end}", shorter.address), of.job, &[extend], &[]).await
}

/// Writes down that the renter's transaction has landed, if it was that one. For the receipt.
///
/// # Errors
/// When store or chain fail.
pub async fn renters_landed(control: &Control, job: &Job) -> anyhow::Result<()> {
    let Some(row) = control.store.chain_tx(&renters_key(job)).await? else { return Ok(()) };
    let status = control.rpc.status(&row.signature.parse()?).await?;
    if row.state == ChainTxState::Pending && status.is_some_and(|status| status.error.is_none()) {
        outbox::remember(control, &row.signature, &Sent::Confirmed).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use atoll_interface::fill::Slots;

    #[test]
    fn bitmaps_name_their_slots() {
        for slots in [vec![0], vec![5], vec![3, 10, 20], vec![1000, 1023]] {
            let (first, bits) = bitmap(&slots);
            let named: Vec<u16> =
                Slots::new(first, &bits).unwrap().iter().map(|slot| u16::try_from(slot).unwrap()).collect();
            assert_eq!(named, slots);
        }
    }
}
