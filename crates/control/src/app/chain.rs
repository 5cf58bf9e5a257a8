//! What this node reads from the chain and asks of it.
//!
//! Reading gives `interface`'s own accounts, brought up to the present by its own rules. Asking goes through the outbox:
//! a transaction is written down under a key before it is sent, so that a crash, a retry or a second node never sends
//! two where one was meant. The program decides; a refusal comes back as words.

use std::time::Duration;

use atoll_chain::rpc::{Account, Commitment, ConfirmError, Filter};
use atoll_chain::{Hash, Instruction, Keypair, RpcError, SignedTransaction, market as program, spl, transaction};
use atoll_domain::id::WorkerId;
use atoll_domain::key::{Address, PublicKey};
use atoll_domain::lease::ReleaseReason;
use atoll_domain::money::UsdMicrosPerHour;
use atoll_domain::placement::Plan;
use atoll_domain::worker::{Offer, SlotRef};
use atoll_interface::fill::bit;
use atoll_interface::layout::{
    Catalogue, Config, FEED_OPERATOR, FleetPage, GpuModel, Kind, Lease, MODEL_CPU, Order, PriceFeed, Record,
    SLOT_DRAINING, SLOT_SUSPENDED, SLOT_USED, Slot, TIER_ENTERPRISE, Table,
};
use atoll_interface::settlement::Reason;
use atoll_interface::{Hashes, NO_ADDRESS, instruction as ix, seeds};

use super::leaves;
use super::market::{CatalogueModel, MarketView, NetworkFacts};
use crate::control::Control;
use crate::store::rows::{ChainTx, ChainTxState, Epoch, EpochLeaf, Job, OrderTerms};

/// How long one run of a reconciler waits for a transaction; a slower chain is asked again by the next run.
const CONFIRM_WAIT: Duration = Duration::from_secs(3);
/// After this long without a trace of the renter's transaction its blockhash is asked about: 150 slots are 60 s.
const RENTERS_TX_LIFE: Duration = Duration::from_secs(60);

/// The last valid height of a transaction that somebody else signed: the store's largest number.
const HEIGHT_UNKNOWN: u64 = i64::MAX.cast_unsigned();

/// What became of a transaction so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Done.
    Confirmed,
    /// On its way.
    Waiting,
    /// The program or the chain refused it, in words. It did nothing.
    Failed(String),
    /// It can no longer be executed, and was not.
    Expired,
}

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
}

/// Slots of one page with one mask and one ask: what one `fill_order` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    page: Address,
    supplier: PublicKey,
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

// Reading.

fn account<T: Record>(account: &Account) -> Option<T> {
    (account.owner == program::PROGRAM_ID).then(|| T::read(&account.data).ok()).flatten()
}

fn pda(seeds: &[&[u8]]) -> atoll_chain::Address {
    atoll_chain::Address::find_program_address(seeds, &program::PROGRAM_ID)
        .map(|(address, _)| address)
        .expect("the interface's seeds are short, and some bump of 256 leaves the curve")
}

/// The cluster's clock, Unix seconds.
///
/// # Errors
/// When the chain does not answer.
pub async fn time(control: &Control) -> anyhow::Result<i64> {
    Ok(control.rpc.clock().await?.unix_timestamp)
}

/// An order as the program would see it now; none when there is none (any more).
///
/// # Errors
/// When the chain does not answer.
pub async fn order(control: &Control, address: &Address) -> anyhow::Result<Option<Order>> {
    let Some(found) = control.rpc.account(&atoll_chain::Address(address.0)).await? else { return Ok(None) };
    let Some(mut order) = account::<Order>(&found) else { return Ok(None) };
    order.ripen(time(control).await?);
    Ok(Some(order))
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

/// The header of a fleet page.
///
/// # Errors
/// When the chain does not answer or shows something else there.
pub async fn page(control: &Control, address: &[u8; 32]) -> anyhow::Result<FleetPage> {
    let found = control.rpc.account(&atoll_chain::Address(*address)).await?;
    let page = found.as_ref().and_then(account::<FleetPage>);
    page.ok_or_else(|| anyhow::anyhow!("no fleet page at {}", PublicKey(*address)))
}

/// All leases of an order that are not closed, as the program would see them now, by number.
///
/// # Errors
/// When the chain does not answer.
pub async fn leases(control: &Control, order_address: &Address) -> anyhow::Result<Vec<(Address, Lease)>> {
    let Some(order) = order(control, order_address).await? else { return Ok(Vec::new()) };
    let filters = [
        Filter::DataSize(Lease::SIZE),
        Filter::Bytes { offset: 0, bytes: vec![Kind::Lease as u8] },
        Filter::Bytes { offset: std::mem::offset_of!(Lease, order), bytes: order_address.0.to_vec() },
    ];
    let found = control.rpc.program_accounts(&program::PROGRAM_ID, &filters).await?;
    let mut leases: Vec<(Address, Lease)> =
        found.iter().filter_map(|it| Some((PublicKey(it.address.0), account::<Lease>(it)?))).collect();
    for (_, lease) in &mut leases {
        lease.begin(&order);
    }
    leases.sort_by_key(|(_, lease)| lease.n);
    Ok(leases)
}

/// Every leased slot of a job's order that has not been released.
///
/// # Errors
/// When the chain does not answer, or shows a slot whose worker is unknown to it.
pub async fn live_slots(control: &Control, job: &Job) -> anyhow::Result<Vec<LiveSlot>> {
    let mut slots = Vec::new();
    for (address, lease) in leases(control, &job.order).await? {
        let found = control.rpc.account(&atoll_chain::Address(lease.page)).await?;
        let data = found.filter(|it| it.owner == program::PROGRAM_ID).map(|it| it.data).unwrap_or_default();
        for slot in (0..u16::MAX).take(atoll_interface::layout::SLOTS_MAX) {
            if !bit(&lease.bitmap, usize::from(slot)) {
                continue;
            }
            let Ok(Some(row)) = FleetPage::read_row(&data, usize::from(slot)) else {
                anyhow::bail!("lease {address} holds slot {slot} of page {}, which has none", PublicKey(lease.page));
            };
            let device_key = PublicKey(row.device_key);
            let worker = WorkerId::of_device_key(&device_key);
            let at = SlotRef { page: PublicKey(lease.page), slot };
            slots.push(LiveSlot { lease: address, at, mask: lease.mask, worker, device_key });
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
    let addresses = [pda(&seeds::config()), pda(&seeds::catalogue()), pda(&seeds::feed())];
    let found = control.rpc.accounts(&addresses).await?;
    let [Some(config), Some(catalogue), Some(feed)] = found.as_slice() else {
        anyhow::bail!("the chain has no market at program {}: initialise the network first", program::PROGRAM_ID);
    };
    let (Some(network), Some(prices)) = (network(config), account::<PriceFeed>(feed)) else {
        anyhow::bail!("the market's accounts on the chain are not of this version");
    };
    let models = models(catalogue);
    let filters = [Filter::Bytes { offset: 0, bytes: vec![Kind::FleetPage as u8] }];
    let pages = control.rpc.program_accounts(&program::PROGRAM_ID, &filters).await?;
    Ok(MarketView {
        network,
        feed_usd_micros: prices.uusd_per_atl,
        feed_by_operator: prices.source == FEED_OPERATOR,
        offers: pages.iter().flat_map(|page| offers(page, &models)).collect(),
        models,
        chain_time: time(control).await?,
    })
}

fn rows<T: Table>(found: &Account) -> Vec<T::Row> {
    let Some(header) = account::<T>(found) else { return Vec::new() };
    (0..header.count()).filter_map(|index| T::read_row(&found.data, index).ok().flatten()).collect()
}

fn network(found: &Account) -> Option<NetworkFacts> {
    let config = account::<Config>(found)?;
    let seats: Vec<(PublicKey, PublicKey)> =
        rows::<Config>(found).iter().map(|seat| (PublicKey(seat.owner), PublicKey(seat.key))).collect();
    let mut owners: Vec<PublicKey> = seats.iter().map(|(owner, _)| *owner).collect();
    owners.sort_unstable();
    owners.dedup();
    Some(NetworkFacts {
        network_root: atoll_domain::key::Digest(config.network_root),
        program_id: PublicKey(program::PROGRAM_ID.0),
        genesis_hash: PublicKey(config.genesis_hash),
        mint: PublicKey(config.mint),
        treasury: PublicKey(config.treasury),
        epoch_zero: config.epoch_zero,
        epoch_s: config.epoch_s,
        epoch_hold_s: config.epoch_hold_s,
        fill_s_max: config.fill_s_max,
        attestor_owners: u32::try_from(owners.len()).unwrap_or(u32::MAX),
        seats,
        threshold: config.threshold,
        fee_bps: config.fee_bps,
    })
}

fn models(found: &Account) -> Vec<CatalogueModel> {
    let class = |row: &GpuModel| match row {
        row if row.flags & MODEL_CPU != 0 => "cpu",
        row if row.tier == TIER_ENTERPRISE => "enterprise",
        _ => "community",
    };
    let name = |row: &GpuModel| {
        let text: Vec<u8> = row.name.iter().copied().take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&text).into_owned()
    };
    rows::<Catalogue>(found)
        .iter()
        .map(|row| CatalogueModel { id: row.id, name: name(row), class: class(row) })
        .collect()
}

fn offers(found: &Account, models: &[CatalogueModel]) -> Vec<(WorkerId, Offer)> {
    let Some(header) = account::<FleetPage>(found) else { return Vec::new() };
    let used = |(_, row): &(usize, Slot)| row.flags & SLOT_USED != 0;
    let offer = |(index, row): (usize, Slot)| {
        let model = models.iter().find(|model| model.id == row.model)?;
        let device_key = PublicKey(row.device_key);
        let devices_mask = u16::try_from((1_u32 << u32::from(row.devices.min(16))) - 1).ok()?;
        let offer = Offer {
            at: SlotRef { page: PublicKey(found.address.0), slot: u16::try_from(index).ok()? },
            device_key,
            supplier: PublicKey(header.supplier),
            model: model.name.clone(),
            ask: UsdMicrosPerHour(row.ask_uusd),
            devices_mask,
            leased_mask: row.leased_mask,
            draining: row.flags & SLOT_DRAINING != 0,
            suspended: row.flags & SLOT_SUSPENDED != 0,
        };
        Some((WorkerId::of_device_key(&device_key), offer))
    };
    rows::<FleetPage>(found).into_iter().enumerate().filter(used).filter_map(offer).collect()
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
            None => groups.push(Group {
                page: offer.at.page,
                supplier: offer.supplier,
                mask: placed.mask,
                ask: offer.ask,
                slots: vec![member],
            }),
        }
    }
    groups
}

// Asking.

fn instruction(
    metas: &[ix::Meta],
    data: Result<atoll_interface::Data, atoll_interface::Error>,
) -> anyhow::Result<Instruction> {
    let data = data.map_err(|error| anyhow::anyhow!("an instruction does not fit: {}", error.words()))?;
    let account = |meta: &ix::Meta| transaction::AccountMeta {
        address: atoll_chain::Address(meta.address),
        signer: meta.signer,
        writable: meta.writable,
    };
    let accounts = metas.iter().map(account).collect();
    Ok(Instruction { program: program::PROGRAM_ID, accounts, data: data.as_slice().to_vec() })
}

fn node_key(control: &Control) -> Keypair {
    Keypair::from_seed(&control.keys.node.seed())
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

/// Gives one group to a job's order.
///
/// # Errors
/// When store or chain fail.
pub async fn fill(control: &Control, job: &Job, group: &Group) -> anyhow::Result<Sent> {
    let Some(order) = order(control, &job.order).await? else { return Ok(Sent::Failed("the order is gone".into())) };
    let numbers: Vec<u16> = group.slots.iter().map(|(slot, _)| *slot).collect();
    let (first_slot, bits) = bitmap(&numbers);
    let node = node_key(control);
    let accounts = ix::FillOrderAccounts {
        filler: node.address().0,
        payer: node.address().0,
        order: job.order.0,
        page: group.page.0,
        first_page: pda(&seeds::page(&group.supplier.0, &0_u16.to_le_bytes())).0,
        lease: pda(&seeds::lease(&job.order.0, &group.page.0, &order.leases_made.to_le_bytes())).0,
        config: pda(&seeds::config()).0,
    };
    let data = ix::FillOrder {
        mask: group.mask,
        ask_max: group.ask.0,
        first_slot,
        bits: &bits,
        group_index: 0,
        group_path: Hashes::new(&[]),
    };
    let key = format!("fill_order/{}/{}", job.order, order.leases_made);
    submit(control, key, Some(job), &[instruction(&accounts.metas(), data.encode())?], &[&node]).await
}

/// Gives one slot of a lease back.
///
/// # Errors
/// When store or chain fail.
pub async fn release(control: &Control, job: &Job, slot: &LiveSlot, reason: ReleaseReason) -> anyhow::Result<Sent> {
    let node = node_key(control);
    let reason = match reason {
        ReleaseReason::Lost => Reason::Lost,
        ReleaseReason::Leave => Reason::Leave,
        ReleaseReason::Done | ReleaseReason::Stopped => Reason::Done,
    };
    let accounts = ix::ReleaseLeaseAccounts {
        authority: node.address().0,
        order: job.order.0,
        lease: slot.lease.0,
        page: slot.at.page.0,
        budget: job.order.0,
    };
    let (first_slot, bits) = bitmap(&[slot.at.slot]);
    let effective_at = time(control).await?;
    let data = ix::ReleaseLease { reason: reason as u8, effective_at, first_slot, bits: &bits };
    let key = format!("release_lease/{}/{}", slot.lease, slot.at.slot);
    submit(control, key, Some(job), &[instruction(&accounts.metas(), data.encode())?], &[&node]).await
}

/// Votes for an epoch's root.
///
/// # Errors
/// When store or chain fail.
pub async fn post_epoch(control: &Control, epoch: &Epoch) -> anyhow::Result<Sent> {
    let node = node_key(control);
    let attestor = Keypair::from_seed(&control.keys.attestor.seed());
    let accounts = ix::PostEpochAccounts {
        key: attestor.address().0,
        payer: node.address().0,
        attestor: pda(&seeds::attestor(&attestor.address().0)).0,
        epoch: epoch_address(epoch).0,
        config: pda(&seeds::config()).0,
    };
    let data = ix::PostEpoch { index: epoch.index, root: epoch.root.0 };
    let key = format!("post_epoch/{}", epoch.index);
    submit(control, key, None, &[instruction(&accounts.metas(), data.encode())?], &[&node, &attestor]).await
}

fn epoch_address(epoch: &Epoch) -> atoll_chain::Address {
    pda(&seeds::epoch(&epoch.index.to_le_bytes(), &epoch.root.0))
}

/// Whether an epoch's root is final and out of its hold.
///
/// # Errors
/// When the chain does not answer.
pub async fn epoch_pays(control: &Control, epoch: &Epoch) -> anyhow::Result<bool> {
    let Some(market) = control.market.snapshot() else { return Ok(false) };
    // Money moves on what cannot be undone.
    let found = control.rpc.at(Commitment::Finalized).account(&epoch_address(epoch)).await?;
    let Some(on_chain) = found.as_ref().and_then(account::<atoll_interface::layout::Epoch>) else { return Ok(false) };
    let pays_at = on_chain.final_at.saturating_add(i64::from(market.network.epoch_hold_s));
    Ok(on_chain.final_at != 0 && time(control).await? > pays_at)
}

/// Books a leaf.
///
/// # Errors
/// When store or chain fail.
pub async fn settle(
    control: &Control,
    job: &Job,
    epoch: &Epoch,
    leaf_index: u32,
    leaf: &EpochLeaf,
    path: &[[u8; 32]],
) -> anyhow::Result<Sent> {
    let accounts = ix::SettleLeaseAccounts {
        order: job.order.0,
        lease: leaf.lease.0,
        epoch: epoch_address(epoch).0,
        config: pda(&seeds::config()).0,
    };
    let row = leaves::of_row(leaf);
    let data = ix::SettleLease {
        device_seconds: row.device_seconds,
        until: row.until,
        flags: row.flags,
        slots_root: row.slots_root,
        leaf_index,
        path: Hashes::new(path),
    };
    let key = format!("settle_lease/{}/{}", leaf.lease, epoch.index);
    submit(control, key, Some(job), &[instruction(&accounts.metas(), data.encode())?], &[]).await
}

/// Makes sure that a wallet has a token account of ATL, and names it.
fn token_account(control: &Control, wallet: &[u8; 32], mint: &Address) -> (Instruction, [u8; 32]) {
    let (wallet, mint) = (atoll_chain::Address(*wallet), atoll_chain::Address(mint.0));
    let create = spl::create_associated_token(node_key(control).address(), wallet, mint);
    (create, spl::associated_token_address(&wallet, &mint).0)
}

fn mint(control: &Control) -> anyhow::Result<(Address, Address)> {
    let market = control.market.snapshot().ok_or_else(|| anyhow::anyhow!("the chain has not answered yet"))?;
    Ok((market.network.mint, market.network.treasury))
}

/// Pays what a lease is owed and closes it.
///
/// # Errors
/// When store or chain fail.
pub async fn close_lease(control: &Control, job: &Job, address: &Address, lease: &Lease) -> anyhow::Result<Sent> {
    let (create, destination) = token_account(control, &page(control, &lease.page).await?.supplier, &mint(control)?.0);
    let accounts = ix::CloseLeaseAccounts {
        order: job.order.0,
        lease: address.0,
        page: lease.page,
        vault: pda(&seeds::order_vault(&job.order.0)).0,
        destination,
        rent_payer: lease.rent_payer,
        config: pda(&seeds::config()).0,
    };
    let close = instruction(&accounts.metas(), ix::CloseLease {}.encode())?;
    submit(control, format!("close_lease/{address}"), Some(job), &[create, close], &[]).await
}

/// Burns and banks an order's fees.
///
/// # Errors
/// When store or chain fail.
pub async fn collect_fees(control: &Control, job: &Job) -> anyhow::Result<Sent> {
    let (mint, treasury) = mint(control)?;
    let accounts = ix::CollectFeesAccounts {
        order: job.order.0,
        vault: pda(&seeds::order_vault(&job.order.0)).0,
        mint: mint.0,
        treasury: treasury.0,
        config: pda(&seeds::config()).0,
    };
    let collect = instruction(&accounts.metas(), ix::CollectFees {}.encode())?;
    submit(control, format!("collect_fees/{}", job.order), Some(job), &[collect], &[]).await
}

/// Refunds the rest of the escrow and closes the order.
///
/// # Errors
/// When store or chain fail.
pub async fn close_order(control: &Control, job: &Job, order: &Order) -> anyhow::Result<Sent> {
    let node = node_key(control);
    let mut instructions = Vec::new();
    let (refund, budget) = if order.budget == NO_ADDRESS {
        let (create, refund) = token_account(control, &order.renter, &mint(control)?.0);
        instructions.push(create);
        (refund, job.order.0)
    } else {
        (pda(&seeds::budget_vault(&order.budget)).0, order.budget)
    };
    let accounts = ix::CloseOrderAccounts {
        authority: node.address().0,
        order: job.order.0,
        vault: pda(&seeds::order_vault(&job.order.0)).0,
        refund,
        rent_payer: order.rent_payer,
        budget,
    };
    instructions.push(instruction(&accounts.metas(), ix::CloseOrder {}.encode())?);
    submit(control, format!("close_order/{}", job.order), Some(job), &instructions, &[&node]).await
}

/// Sends the renter's own transaction, which nobody here can change or sign again.
///
/// # Errors
/// When store or chain fail.
pub async fn send_renters(control: &Control, job: &Job) -> anyhow::Result<Sent> {
    let transaction = SignedTransaction::from_bytes(job.order_tx.clone())?;
    let key = format!("post_order/{}", job.order);
    if control.store.chain_tx(&key).await?.is_none() {
        let row = row(control, key, Some(job), &transaction, HEIGHT_UNKNOWN);
        control.store.chain_tx_put(&row).await?;
    }
    let signature = transaction.signature();
    let sent = match control.rpc.status(&signature).await? {
        Some(status) => match status.error {
            Some(error) => Sent::Failed(error.to_string()),
            None => Sent::Confirmed,
        },
        None => match control.rpc.send(&transaction).await {
            Ok(()) => Sent::Waiting,
            Err(RpcError::Failed(failure)) => Sent::Failed(failure.to_string()),
            Err(_) if control.now().since(job.created) > RENTERS_TX_LIFE => Sent::Expired,
            Err(error) => return Err(error.into()),
        },
    };
    remember(control, &signature.to_string(), &sent).await?;
    Ok(sent)
}

fn row(
    control: &Control,
    key: String,
    job: Option<&Job>,
    transaction: &SignedTransaction,
    last_valid_height: u64,
) -> ChainTx {
    ChainTx {
        key,
        job: job.map(|job| job.id),
        bytes: transaction.bytes().to_vec(),
        signature: transaction.signature().to_string(),
        last_valid_height,
        state: ChainTxState::Pending,
        error: String::new(),
        created: control.now(),
    }
}

async fn remember(control: &Control, signature: &str, sent: &Sent) -> anyhow::Result<()> {
    let (state, error) = match sent {
        Sent::Waiting => return Ok(()),
        Sent::Confirmed => (ChainTxState::Confirmed, ""),
        Sent::Failed(reason) => (ChainTxState::Failed, reason.as_str()),
        Sent::Expired => (ChainTxState::Expired, ""),
    };
    control.store.chain_tx_state(signature, state, error).await?;
    Ok(())
}

/// Asks something of the chain under a key: writes it down, sends it, waits a little. A transaction under the same key
/// that may still land is followed instead of signing another.
async fn submit(
    control: &Control,
    key: String,
    job: Option<&Job>,
    instructions: &[Instruction],
    signers: &[&Keypair],
) -> anyhow::Result<Sent> {
    let node = node_key(control);
    let row = match control.store.chain_tx(&key).await? {
        Some(row) if row.state == ChainTxState::Confirmed => return Ok(Sent::Confirmed),
        Some(row) if row.state == ChainTxState::Pending => row,
        _ => {
            let latest = control.rpc.latest_blockhash().await?;
            let others: Vec<&Keypair> = signers.iter().copied().filter(|key| key.address() != node.address()).collect();
            let transaction = transaction::sign(instructions, &node, &others, &Hash(latest.blockhash.0))?;
            let row = row(control, key, job, &transaction, latest.last_valid_block_height);
            control.store.chain_tx_put(&row).await?
        }
    };
    let transaction = SignedTransaction::from_bytes(row.bytes)?;
    let sent = match control.rpc.send(&transaction).await {
        Err(RpcError::Failed(failure)) => Sent::Failed(failure.to_string()),
        // Refused outright, for example for a blockhash that is too old: only its status tells.
        Ok(()) | Err(RpcError::Refused { .. }) => {
            match control.rpc.confirm(&transaction, row.last_valid_height, CONFIRM_WAIT).await {
                Ok(_) => Sent::Confirmed,
                Err(ConfirmError::Failed { failure, .. }) => Sent::Failed(failure.to_string()),
                Err(ConfirmError::Expired { .. }) => Sent::Expired,
                Err(ConfirmError::Deadline { .. }) => Sent::Waiting,
                Err(error) => return Err(error.into()),
            }
        }
        Err(error) => return Err(error.into()),
    };
    match &sent {
        Sent::Failed(reason) => tracing::warn!(key = row.key, reason, "the chain refused a transaction"),
        Sent::Confirmed => tracing::debug!(key = row.key, signature = row.signature, "confirmed"),
        Sent::Waiting | Sent::Expired => {}
    }
    remember(control, &row.signature, &sent).await?;
    Ok(sent)
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
