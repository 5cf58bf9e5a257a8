//! Reading over RPC what [`super`] talks about, and the one transaction that a worker sends of its own.
//!
//! An address can come to lead to another cluster, to a node that lost its accounts, or to several that lag by turns. There
//! orders are missing, and a worker that believed it would end every pod. So each answer carries its own proof: the
//! network's parameters and the clock come out of the same state as what was asked for, and a state older than one that
//! was seen before is not believed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use atoll_chain::market::data::{RESUME, SetAsk};
use atoll_chain::market::layout::{Config, FleetPage, Lease, Order, SLOT_SUSPENDED, SLOT_USED};
use atoll_chain::market::{At, Market, Table, address, fill, instruction, layout, made, read, read_table};
use atoll_chain::rpc::Account;
use atoll_chain::{Keypair, Rpc, RpcConfig, spl};
use atoll_domain::key::{Digest, PublicKey, SecretKey};
use atoll_domain::worker::SlotRef;

use super::{LeaseView, OrderView};

/// The longest wait for one answer: the guard asks again soon anyway.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The longest answer: leases of the largest gang and one page with 1,024 slots are below 8 MiB.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// How long a transaction of this worker may take.
const TRANSACTION_MAX: Duration = Duration::from_secs(45);
/// Most accounts that are asked for at once: 100 are of one state, and two of them prove whose.
const ACCOUNTS_MAX: usize = 98;

/// A key as `domain` shows it.
#[must_use]
pub const fn key(address: atoll_chain::Address) -> PublicKey {
    PublicKey(address.0)
}

/// A key as `chain` wants it.
#[must_use]
pub const fn wire(key: PublicKey) -> atoll_chain::Address {
    atoll_chain::Address(key.0)
}

/// A worker's slot as the chain shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// The device key in it.
    pub device_key: PublicKey,
    /// Takes no new leases since it was lost.
    pub suspended: bool,
    /// Takes none by its own wish.
    pub draining: bool,
    /// Posted price, micro-USD per device-hour.
    pub ask_uusd: u64,
    /// Devices.
    pub devices: u8,
    /// Model, by catalogue number.
    pub model: u16,
}

/// The chain as this worker reads it.
#[derive(Clone, Debug)]
pub struct Reader {
    market: Market,
    /// The network that must be there; none when any is fine.
    network: Option<Digest>,
    /// The latest clock that was seen, Unix seconds.
    seen_s: Arc<AtomicI64>,
}

/// Why a chain is not believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("{0}")]
    Unread(String),
    /// It is another one than this worker joined.
    #[error("it carries network {carries}, and this worker joined {joined}")]
    OtherNetwork {
        /// What is there.
        carries: Digest,
        /// What should be.
        joined: Digest,
    },
    /// It carries a copy of the network's accounts and is another cluster.
    #[error("its cluster is {found}, and the network is on {wanted}")]
    OtherCluster {
        /// Its genesis hash.
        found: PublicKey,
        /// That of the network's.
        wanted: PublicKey,
    },
    /// It shows an older state than it did before.
    #[error("it is {0} s behind what it showed before")]
    Behind(u64),
    /// Two answers are of two states.
    #[error("order {0} and its leases were read in two different states")]
    Torn(PublicKey),
}

impl ReadError {
    fn unread(error: impl std::fmt::Display) -> Self {
        Self::Unread(error.to_string())
    }
}

impl From<ReadError> for String {
    fn from(error: ReadError) -> Self {
        error.to_string()
    }
}

/// Accounts of one state of the chain, or of several that are no older than any before.
struct Seen {
    /// In the order asked.
    accounts: Vec<Option<Account>>,
    /// The clock, Unix seconds.
    now_s: i64,
    /// The genesis hash that the network's parameters name.
    genesis_hash: PublicKey,
}

/// How a worker asks the chain at `rpc`.
#[must_use]
pub fn rpc_config(rpc: &str, jitter_seed: u64) -> RpcConfig {
    RpcConfig {
        timeout: ANSWER_MAX,
        tries_max: 2,
        answer_bytes_max: ANSWER_BYTES_MAX,
        ..RpcConfig::new(rpc, jitter_seed)
    }
}

impl Reader {
    /// A reader of the chain at `rpc`.
    ///
    /// # Errors
    /// The address is none.
    pub fn new(rpc: &str, jitter_seed: u64) -> Result<Self, String> {
        Rpc::new(rpc_config(rpc, jitter_seed)).map(Self::over).map_err(|error| error.to_string())
    }

    /// A reader that asks by this client; its settings are best those of [`rpc_config`].
    #[must_use]
    pub fn over(rpc: Rpc) -> Self {
        Self { market: Market::new(rpc), network: None, seen_s: Arc::new(AtomicI64::new(i64::MIN)) }
    }

    /// A reader that believes a chain only when it carries this network.
    #[must_use]
    pub fn of_network(rpc: Rpc, network: Digest) -> Self {
        Self { network: Some(network), ..Self::over(rpc) }
    }

    /// Makes sure that the chain is the one that was meant.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn known(&self) -> Result<(), ReadError> {
        self.look(&[]).await.map(drop)
    }

    /// Reads accounts together with what proves whose state, and how new, they are of.
    async fn look(&self, wanted: &[atoll_chain::Address]) -> Result<Seen, ReadError> {
        let mut seen = self.look_once(&wanted[..wanted.len().min(ACCOUNTS_MAX)]).await?;
        for more in wanted.chunks(ACCOUNTS_MAX).skip(1) {
            seen.accounts.extend(self.look_once(more).await?.accounts);
        }
        Ok(seen)
    }

    async fn look_once(&self, wanted: &[atoll_chain::Address]) -> Result<Seen, ReadError> {
        let proof = [spl::CLOCK_SYSVAR, address::config()];
        let mut accounts = self.market.rpc().accounts(&[&proof, wanted].concat()).await.map_err(ReadError::unread)?;
        let wanted = accounts.split_off(proof.len());
        let [Some(clock), config] = accounts.as_slice() else {
            return Err(ReadError::unread("the node has no clock"));
        };
        let clock = spl::Clock::read(&clock.data).ok_or_else(|| ReadError::unread("the node has no clock"))?;
        let none = atoll_chain::market::ReadError::NoNetwork { expected: "parameters" };
        let config = config.as_ref().ok_or_else(|| ReadError::unread(none))?;
        let config = read_table::<Config>(config).map_err(ReadError::unread)?.value.header;
        let carries = Digest(config.network_root);
        if let Some(joined) = self.network.filter(|joined| *joined != carries) {
            return Err(ReadError::OtherNetwork { carries, joined });
        }
        let before_s = self.seen_s.fetch_max(clock.unix_timestamp, Ordering::Relaxed);
        if clock.unix_timestamp < before_s {
            return Err(ReadError::Behind(before_s.abs_diff(clock.unix_timestamp)));
        }
        Ok(Seen { accounts: wanted, now_s: clock.unix_timestamp, genesis_hash: PublicKey(config.genesis_hash) })
    }

    /// The market's accounts.
    #[must_use]
    pub const fn market(&self) -> &Market {
        &self.market
    }

    /// An order with its leases and their slots' keys; none when the chain has no such order.
    ///
    /// # Errors
    /// What the chain, or the way to it, answered instead; or why that is not believed.
    pub async fn order(&self, order: &PublicKey) -> Result<Option<OrderView>, String> {
        self.order_seen(order).await.map_err(String::from)
    }

    async fn order_seen(&self, order: &PublicKey) -> Result<Option<OrderView>, ReadError> {
        let mut leases = self.market.leases_of(&wire(*order)).await.map_err(ReadError::unread)?;
        let mut wanted: Vec<atoll_chain::Address> =
            leases.iter().map(|lease| atoll_chain::Address(lease.value.page)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.push(wire(*order));
        let mut seen = self.look(&wanted).await?;
        let Some(found) = made(seen.accounts.pop().flatten()) else {
            return self.cluster(seen.genesis_hash).await.map(|()| None);
        };
        let found = read::<Order>(&found).map_err(ReadError::unread)?;
        // What time alone decides is written down by the next instruction only; the program sees it already.
        let mut now = found.value;
        now.ripen(seen.now_s);
        for lease in &mut leases {
            lease.value.begin(&now);
        }
        let mut pages = BTreeMap::new();
        for account in seen.accounts.iter().flatten() {
            let page = read_table::<FleetPage>(account).map_err(ReadError::unread)?;
            pages.insert(page.address.0, page.value);
        }
        // The leases came out of another answer than the rest. One that is missing there ends a pod as well.
        if leases.len() != usize::from(now.leases_open) {
            return Err(ReadError::Torn(*order));
        }
        let lease = |lease: &At<Lease>| Some(view(lease, pages.get(&lease.value.page)?));
        let leases: Option<Vec<LeaseView>> = leases.iter().map(lease).collect();
        Ok(Some(OrderView {
            renter: PublicKey(now.renter),
            // All zero when the wallet posted it.
            budget: (now.budget != [0; 32]).then_some(PublicKey(now.budget)),
            spec_root: Digest(now.spec_root),
            leases: leases.ok_or(ReadError::Torn(*order))?,
            now_s: seen.now_s,
        }))
    }

    /// Makes sure that the node is on the cluster that the network's parameters name: that something is missing ends pods,
    /// and whoever copies a network's accounts to another cluster does not copy every order.
    async fn cluster(&self, wanted: PublicKey) -> Result<(), ReadError> {
        let found = PublicKey(self.market.rpc().genesis_hash().await.map_err(ReadError::unread)?.0);
        if found == wanted { Ok(()) } else { Err(ReadError::OtherCluster { found, wanted }) }
    }

    /// A worker's slot; none when the page or the slot is not in use.
    ///
    /// # Errors
    /// What the chain, or the way to it, answered instead; or why that is not believed.
    pub async fn slot(&self, at: SlotRef) -> Result<Option<SlotView>, String> {
        let page = made(self.look(&[wire(at.page)]).await?.accounts.pop().flatten());
        let page = page.as_ref().map(read_table::<FleetPage>).transpose().map_err(|error| error.to_string())?;
        let slot = page.and_then(|page| page.value.rows.get(usize::from(at.slot)).copied());
        Ok(slot.filter(|slot| slot.flags & SLOT_USED != 0).map(|slot| SlotView {
            device_key: PublicKey(slot.device_key),
            suspended: slot.flags & SLOT_SUSPENDED != 0,
            draining: slot.flags & layout::SLOT_DRAINING != 0,
            ask_uusd: slot.ask_uusd,
            devices: slot.devices,
            model: slot.model,
        }))
    }

    /// The network that this chain carries.
    ///
    /// # Errors
    /// What the chain, or the way to it, answered instead.
    pub async fn network(&self) -> Result<Digest, String> {
        let config = self.market.config().await.map_err(|error| error.to_string())?;
        Ok(Digest(config.value.header.network_root))
    }

    /// Clears the slot's suspension: the device key says that its machine is back, and pays the fee.
    ///
    /// # Errors
    /// Why the transaction did not come through.
    pub async fn resume(&self, at: SlotRef, device: &SecretKey) -> Result<(), String> {
        let device = Keypair::from_seed(&device.seed());
        let change = SetAsk { slot: at.slot, change: RESUME, ask_uusd: 0, lease_s_max: 0 };
        let resume = instruction::set_ask(device.address(), wire(at.page), &change);
        let sent = self.market.rpc().execute(&[resume], &device, &[], TRANSACTION_MAX).await;
        sent.map(drop).map_err(|error| error.to_string())
    }
}

fn view(lease: &At<Lease>, page: &Table<FleetPage, layout::Slot>) -> LeaseView {
    let held = |(number, slot): (usize, &layout::Slot)| {
        let live = fill::bit(&lease.value.bitmap, number) && slot.flags & SLOT_USED != 0;
        live.then(|| Some((u16::try_from(number).ok()?, PublicKey(slot.device_key)))).flatten()
    };
    LeaseView {
        lease: key(lease.address),
        page: PublicKey(lease.value.page),
        mask: lease.value.mask,
        end_s: lease.value.end,
        slots: page.rows.iter().enumerate().filter_map(held).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_shows_the_keys_of_the_slots_it_still_holds() {
        let mut lease = Lease::new();
        lease.page = [5; 32];
        lease.mask = 1;
        lease.end = 70;
        fill::set_bit(&mut lease.bitmap, 1, true);
        fill::set_bit(&mut lease.bitmap, 2, true);
        fill::set_bit(&mut lease.bitmap, 9, true);
        let slot = |n: u8, flags| layout::Slot { device_key: [n; 32], flags, ..layout::Slot::ZERO };
        let rows = vec![slot(10, SLOT_USED), slot(11, SLOT_USED | SLOT_SUSPENDED), slot(12, 0)];
        let page = Table { header: FleetPage::new(), rows };
        let at = At { address: atoll_chain::Address([7; 32]), value: lease };
        let seen = view(&at, &page);
        assert_eq!((seen.lease, seen.end_s, seen.slots), (PublicKey([7; 32]), 70, vec![(1, PublicKey([11; 32]))]));
    }
}
