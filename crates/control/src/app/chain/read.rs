//! Reading: typed accounts from the market's reader, as the program would see them now.

use atoll_chain::market::{At, Market, Network, Shorter, Table as Rows};
use atoll_chain::rpc::{Commitment, Status};
use atoll_chain::{SignedTransaction, market as program, spl};
use atoll_domain::id::WorkerId;
use atoll_domain::key::{Address, PublicKey};
use atoll_domain::money::UsdMicrosPerHour;
use atoll_domain::worker::{Offer, SlotRef};
use atoll_interface::fill::bit;
use atoll_interface::layout::{
    Config, FEED_OPERATOR, FleetPage, GpuModel, Lease, MODEL_CPU, Order, SLOT_DRAINING, SLOT_SUSPENDED, SLOT_USED,
    SLOTS_MAX, Seat, Slot, TIER_ENTERPRISE,
};

use super::super::market::{CatalogueModel, MarketView, NetworkFacts};
use super::super::network;
use super::at;
use crate::control::Control;
use crate::store::rows::{Job, OrderTerms};

/// A leased slot that has not been released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveSlot {
    /// The lease.
    pub lease: Address,
    /// Where.
    pub at: SlotRef,
    /// Devices.
    pub mask: u16,
    /// The worker in the slot.
    pub worker: WorkerId,
    /// Its device key.
    pub device_key: PublicKey,
    /// When its lease ends, Unix seconds; 0 while that is not known.
    pub end: i64,
}

pub(super) fn market(control: &Control) -> Market {
    Market::new(control.rpc.clone())
}

/// The cluster's clock, Unix seconds.
///
/// # Errors
/// When the chain does not answer.
pub async fn time(control: &Control) -> anyhow::Result<i64> {
    Ok(control.rpc.clock().await?.unix_timestamp)
}

/// An order as the program would see it now; none when there is none (any more, or yet: see [`order_is_closed`]).
///
/// # Errors
/// When the chain does not answer.
pub async fn order(control: &Control, address: &Address) -> anyhow::Result<Option<Order>> {
    Ok(order_now(control, address).await?.map(|(order, _)| order))
}

/// The same with the cluster's clock, Unix seconds, of the same state.
///
/// # Errors
/// When the chain does not answer.
pub async fn order_now(control: &Control, address: &Address) -> anyhow::Result<Option<(Order, i64)>> {
    Ok(market(control).order_now(&at(address)).await?)
}

/// Whether an order that stood is closed for good. A node that lags may not have it yet, so its absence counts only in
/// a finalized state that is later than the order's own beginning. Of a job that never saw its order, that is where its
/// renter's transaction did it.
///
/// # Errors
/// When the chain does not answer.
pub async fn order_is_closed(control: &Control, job: &Job) -> anyhow::Result<bool> {
    let landed = match job.now.terms {
        Some(_) => None,
        None => match landed_for_good(control, job).await? {
            Some(slot) => Some(slot),
            None => return Ok(false),
        },
    };
    let Some((stands, clock)) = order_for_good(control, &job.order).await? else { return Ok(false) };
    let later = job.now.terms.is_none_or(|terms| clock.unix_timestamp > terms.posted_at)
        && landed.is_none_or(|slot| clock.slot >= slot);
    Ok(!stands && later)
}

/// Whether an order stands, and when, in a state that cannot be undone; none when another cluster is behind the URL, where
/// every order is missing. Order and clock are read from one state.
///
/// # Errors
/// When the chain does not answer.
pub async fn order_for_good(control: &Control, order: &Address) -> anyhow::Result<Option<(bool, spl::Clock)>> {
    if network::check(network::cluster(control).await?, None, control.store.network().await?).is_err() {
        return Ok(None);
    }
    let found = control.rpc.at(Commitment::Finalized).accounts(&[at(order), spl::CLOCK_SYSVAR]).await?;
    let [order, Some(clock)] = found.as_slice() else { return Ok(None) };
    let stands = order.as_ref().is_some_and(|order| order.owner == program::PROGRAM_ID);
    Ok(spl::Clock::read(&clock.data).map(|clock| (stands, clock)))
}

/// The slot in which the renter's transaction posted the order, if no fork can take that back, as far as the chain's node
/// remembers.
async fn landed_for_good(control: &Control, job: &Job) -> anyhow::Result<Option<u64>> {
    let status = control.rpc.status(&SignedTransaction::from_bytes(job.order_tx.clone())?.signature()).await?;
    let done = |status: &Status| status.error.is_none() && status.commitment == Commitment::Finalized;
    Ok(status.filter(done).map(|status| status.slot))
}

/// Every order on the chain, and the cluster's clock by which they are seen, Unix seconds.
///
/// # Errors
/// When the chain does not answer.
pub async fn orders(control: &Control) -> anyhow::Result<(Vec<(Address, Order)>, i64)> {
    let (found, now) = (market(control).orders().await?, time(control).await?);
    let ripe = |mut order: Order| {
        order.ripen(now);
        order
    };
    Ok((found.into_iter().map(|it| (PublicKey(it.address.0), ripe(it.value))).collect(), now))
}

/// An order's terms, for its receipt.
#[must_use]
pub const fn terms(order: &Order) -> OrderTerms {
    OrderTerms {
        feed_uusd_per_atl: order.feed_uusd_per_atl,
        fee_bps: order.fee_bps,
        escrow: order.escrow_initial,
        posted_at: order.posted_at,
        active_at: order.active_at,
    }
}

/// A fleet page.
///
/// # Errors
/// When the chain does not answer or shows something else there.
pub async fn page_of(control: &Control, address: &Address) -> anyhow::Result<Rows<FleetPage, Slot>> {
    let page = market(control).page(&at(address)).await?;
    Ok(page.ok_or_else(|| anyhow::anyhow!("no fleet page at {address}"))?.value)
}

/// A lease that is not closed.
///
/// # Errors
/// When the chain does not answer.
pub async fn lease(control: &Control, address: &Address) -> anyhow::Result<Option<Lease>> {
    Ok(market(control).lease(&at(address)).await?.map(|found| found.value))
}

/// All leases of an order that are not closed, as the program would see them now, by number.
///
/// # Errors
/// When the chain does not answer.
pub async fn leases(control: &Control, order_address: &Address) -> anyhow::Result<Vec<(Address, Lease)>> {
    let Some(order) = order(control, order_address).await? else { return Ok(Vec::new()) };
    leases_under(control, order_address, &order).await
}

/// The same of an order that was read.
///
/// # Errors
/// When the chain does not answer.
pub async fn leases_under(
    control: &Control,
    order_address: &Address,
    order: &Order,
) -> anyhow::Result<Vec<(Address, Lease)>> {
    let found = market(control).leases_of(&at(order_address)).await?;
    let mut leases: Vec<(Address, Lease)> = found.into_iter().map(|it| (PublicKey(it.address.0), it.value)).collect();
    for (_, lease) in &mut leases {
        lease.begin(order);
    }
    leases.sort_by_key(|(_, lease)| lease.n);
    Ok(leases)
}

/// The leases of an order that end before it; `order` as the program sees it at `now`, or will once it is lengthened.
///
/// # Errors
/// When the chain does not answer.
pub async fn shorter_leases(
    control: &Control,
    address: &Address,
    order: &Order,
    now: i64,
) -> anyhow::Result<Vec<Shorter>> {
    Ok(market(control).shorter_leases(&at(address), order, now).await?)
}

/// Every leased slot of a job's order that has not been released.
///
/// # Errors
/// When the chain does not answer, or shows a slot whose worker is unknown to it.
pub async fn live_slots(control: &Control, job: &Job) -> anyhow::Result<Vec<LiveSlot>> {
    live_slots_of(control, &job.order).await
}

/// The same of any order.
///
/// # Errors
/// As [`live_slots`].
pub async fn live_slots_of(control: &Control, order: &Address) -> anyhow::Result<Vec<LiveSlot>> {
    let mut slots = Vec::new();
    for (address, lease) in leases(control, order).await?.into_iter().filter(|(_, lease)| lease.devices_live > 0) {
        let page_address = PublicKey(lease.page);
        let page = page_of(control, &page_address).await?;
        for slot in (0..u16::MAX).take(SLOTS_MAX).filter(|slot| bit(&lease.bitmap, usize::from(*slot))) {
            let Some(row) = page.rows.get(usize::from(slot)) else {
                anyhow::bail!("lease {address} holds slot {slot} of page {page_address}, which has none");
            };
            let device_key = PublicKey(row.device_key);
            let worker = WorkerId::of_device_key(&device_key);
            let at = SlotRef { page: page_address, slot };
            slots.push(LiveSlot { lease: address, at, mask: lease.mask, worker, device_key, end: lease.end });
        }
    }
    Ok(slots)
}

/// The same, once the order is active; none before.
///
/// # Errors
/// As [`live_slots`].
pub async fn active_slots(control: &Control, job: &Job) -> anyhow::Result<Option<Vec<LiveSlot>>> {
    let Some(order) = order(control, &job.order).await? else { return Ok(None) };
    if order.active_at == 0 || order.devices_open > 0 {
        return Ok(None);
    }
    live_slots(control, job).await.map(Some)
}

/// Parameters, catalogue, feed and every worker's slot.
///
/// # Errors
/// When the chain does not answer or no network is there.
pub async fn read_market(control: &Control) -> anyhow::Result<MarketView> {
    let market = market(control);
    let Network { config, catalogue, feed, now } = market.network().await?;
    let models: Vec<CatalogueModel> = catalogue.rows.iter().map(model).collect();
    let pages = market.pages().await?;
    Ok(MarketView {
        network: network(&config),
        feed_usd_micros: feed.uusd_per_atl,
        feed_by_operator: feed.source == FEED_OPERATOR,
        offers: pages.iter().flat_map(|page| offers(page, &models)).collect(),
        models,
        chain_time: now,
    })
}

fn network(found: &Rows<Config, Seat>) -> NetworkFacts {
    let config = &found.header;
    let seats: Vec<(PublicKey, PublicKey)> =
        found.rows.iter().map(|seat| (PublicKey(seat.owner), PublicKey(seat.key))).collect();
    let mut owners: Vec<PublicKey> = seats.iter().map(|(owner, _)| *owner).collect();
    owners.sort_unstable();
    owners.dedup();
    NetworkFacts {
        network_root: atoll_domain::key::Digest(config.network_root),
        program_id: PublicKey(program::PROGRAM_ID.0),
        genesis_hash: PublicKey(config.genesis_hash),
        mint: PublicKey(config.mint),
        treasury: PublicKey(config.treasury),
        epoch_zero: config.epoch_zero,
        epoch_s: config.epoch_s,
        epoch_hold_s: config.epoch_hold_s,
        stall_s: config.stall_s,
        fill_s_max: config.fill_s_max,
        attestor_owners: u32::try_from(owners.len()).unwrap_or(u32::MAX),
        seats,
        threshold: config.threshold,
        fee_bps: config.fee_bps,
    }
}

fn model(row: &GpuModel) -> CatalogueModel {
    let class = match row {
        row if row.flags & MODEL_CPU != 0 => "cpu",
        row if row.tier == TIER_ENTERPRISE => "enterprise",
        _ => "community",
    };
    let name: Vec<u8> = row.name.iter().copied().take_while(|&byte| byte != 0).collect();
    CatalogueModel { id: row.id, name: String::from_utf8_lossy(&name).into_owned(), class }
}

fn offers(page: &At<Rows<FleetPage, Slot>>, models: &[CatalogueModel]) -> Vec<(WorkerId, Offer)> {
    let used = |(_, row): &(usize, &Slot)| row.flags & SLOT_USED != 0;
    let offer = |(index, row): (usize, &Slot)| {
        let model = models.iter().find(|model| model.id == row.model)?;
        let device_key = PublicKey(row.device_key);
        let devices_mask = u16::try_from((1_u32 << u32::from(row.devices.min(16))) - 1).ok()?;
        let offer = Offer {
            at: SlotRef { page: PublicKey(page.address.0), slot: u16::try_from(index).ok()? },
            device_key,
            supplier: PublicKey(page.value.header.supplier),
            model: model.name.clone(),
            ask: UsdMicrosPerHour(row.ask_uusd),
            devices_mask,
            leased_mask: row.leased_mask,
            draining: row.flags & SLOT_DRAINING != 0,
            suspended: row.flags & SLOT_SUSPENDED != 0,
        };
        Some((WorkerId::of_device_key(&device_key), offer))
    };
    page.value.rows.iter().enumerate().filter(used).filter_map(offer).collect()
}
