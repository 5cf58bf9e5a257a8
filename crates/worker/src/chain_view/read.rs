//! Reading over RPC what [`super`] talks about, and the one transaction that a worker sends of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atoll_chain::market::data::{RESUME, SetAsk};
use atoll_chain::market::layout::{FleetPage, Lease, SLOT_SUSPENDED, SLOT_USED};
use atoll_chain::market::{At, Market, Table, fill, instruction, layout, read_table};
use atoll_chain::{Keypair, Rpc, RpcConfig};
use atoll_domain::key::{Digest, PublicKey, SecretKey};
use atoll_domain::worker::SlotRef;

use super::{LeaseView, OrderView};

/// The longest wait for one answer: the guard asks again soon anyway.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The longest answer: leases of the largest gang and one page with 1,024 slots are below 8 MiB.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// How long a transaction of this worker may take.
const TRANSACTION_MAX: Duration = Duration::from_secs(45);

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
    /// Whether it was seen there. A chain does not change its network.
    known: Arc<AtomicBool>,
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
        Self { market: Market::new(rpc), network: None, known: Arc::default() }
    }

    /// A reader that believes a chain only when it carries this network.
    #[must_use]
    pub fn of_network(rpc: Rpc, network: Digest) -> Self {
        Self { network: Some(network), ..Self::over(rpc) }
    }

    /// Makes sure, once, that the chain is the one that was meant.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn known(&self) -> Result<(), ReadError> {
        let Some(joined) = self.network.filter(|_| !self.known.load(Ordering::Relaxed)) else { return Ok(()) };
        let carries = self.network().await.map_err(ReadError::Unread)?;
        if carries != joined {
            return Err(ReadError::OtherNetwork { carries, joined });
        }
        self.known.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The market's accounts.
    #[must_use]
    pub const fn market(&self) -> &Market {
        &self.market
    }

    /// An order with its leases and their slots' keys; none when the chain has no such order.
    ///
    /// # Errors
    /// What the chain, or the way to it, answered instead.
    pub async fn order(&self, order: &PublicKey) -> Result<Option<OrderView>, String> {
        self.known().await.map_err(|error| error.to_string())?;
        let words = |error: &dyn std::error::Error| error.to_string();
        // What time alone decides is written down by the next instruction only; the program sees it already.
        let Some((found, now_s)) = self.market.order_now(&wire(*order)).await.map_err(|error| words(&error))? else {
            return Ok(None);
        };
        let mut leases = self.market.leases_of(&wire(*order)).await.map_err(|error| words(&error))?;
        for lease in &mut leases {
            lease.value.begin(&found);
        }
        let mut addresses: Vec<atoll_chain::Address> =
            leases.iter().map(|lease| atoll_chain::Address(lease.value.page)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let accounts = self.market.rpc().accounts(&addresses).await.map_err(|error| words(&error))?;
        let mut pages = BTreeMap::new();
        for account in accounts.iter().flatten() {
            let page = read_table::<FleetPage>(account).map_err(|error| words(&error))?;
            pages.insert(page.address.0, page.value);
        }
        let lease = |lease: &At<Lease>| view(lease, pages.get(&lease.value.page));
        Ok(Some(OrderView {
            renter: PublicKey(found.renter),
            // All zero when the wallet posted it.
            budget: (found.budget != [0; 32]).then_some(PublicKey(found.budget)),
            spec_root: Digest(found.spec_root),
            leases: leases.iter().map(lease).collect(),
            now_s,
        }))
    }

    /// A worker's slot; none when the page or the slot is not in use.
    ///
    /// # Errors
    /// What the chain, or the way to it, answered instead.
    pub async fn slot(&self, at: SlotRef) -> Result<Option<SlotView>, String> {
        self.known().await.map_err(|error| error.to_string())?;
        let page = self.market.page(&wire(at.page)).await.map_err(|error| error.to_string())?;
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

fn view(lease: &At<Lease>, page: Option<&Table<FleetPage, layout::Slot>>) -> LeaseView {
    let held = |(number, slot): (usize, &layout::Slot)| {
        let live = fill::bit(&lease.value.bitmap, number) && slot.flags & SLOT_USED != 0;
        live.then(|| Some((u16::try_from(number).ok()?, PublicKey(slot.device_key)))).flatten()
    };
    LeaseView {
        lease: key(lease.address),
        page: PublicKey(lease.value.page),
        mask: lease.value.mask,
        end_s: lease.value.end,
        slots: page.map(|page| page.rows.iter().enumerate().filter_map(held).collect()).unwrap_or_default(),
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
        let seen = view(&at, Some(&page));
        assert_eq!((seen.lease, seen.end_s, seen.slots), (PublicKey([7; 32]), 70, vec![(1, PublicKey([11; 32]))]));
        assert!(view(&at, None).slots.is_empty());
    }
}
