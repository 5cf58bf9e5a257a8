//! What the chain offers, as this node last read it.
//!
//! A reconciler refreshes the view; handlers and placement read it without waiting. Placement decides on it, the chain
//! decides in the end: a view that is a second old costs a refused fill, never a double lease.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use atoll_domain::id::WorkerId;
use atoll_domain::key::{Address, Digest, PublicKey};
use atoll_domain::worker::Offer;
use tokio::sync::Notify;

/// A device model of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueModel {
    /// Its number on the chain.
    pub id: u16,
    /// Its name, for example `cpu`.
    pub name: String,
    /// `cpu`, `community` or `enterprise`.
    pub class: &'static str,
}

/// Parameters of the network that requests are checked and answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkFacts {
    /// Names the network for ever.
    pub network_root: Digest,
    /// The market program.
    pub program_id: PublicKey,
    /// The chain's genesis hash.
    pub genesis_hash: PublicKey,
    /// The mint of ATL.
    pub mint: Address,
    /// The treasury's token account.
    pub treasury: Address,
    /// Start of epoch 0, Unix seconds.
    pub epoch_zero: i64,
    /// Seconds of an epoch.
    pub epoch_s: u32,
    /// Seconds for which a root is held before it pays.
    pub epoch_hold_s: u32,
    /// How many seconds after its release a lease may be closed that nobody settled.
    pub stall_s: u32,
    /// The longest time an order may take fills, seconds.
    pub fill_s_max: u32,
    /// Different owners among the attestor seats.
    pub attestor_owners: u32,
    /// Attestor seats: owner and key, in order.
    pub seats: Vec<(PublicKey, PublicKey)>,
    /// Votes that make a root final.
    pub threshold: u16,
    /// Fee on each side, basis points.
    pub fee_bps: u16,
}

/// Everything read from the chain that is not one order's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarketView {
    /// Parameters.
    pub network: NetworkFacts,
    /// Device models.
    pub models: Vec<CatalogueModel>,
    /// Micro-USD per ATL.
    pub feed_usd_micros: u64,
    /// Whether the operator sets the feed (local networks).
    pub feed_by_operator: bool,
    /// Every used slot, by worker.
    pub offers: BTreeMap<WorkerId, Offer>,
    /// The cluster's clock when this was read, Unix seconds.
    pub chain_time: i64,
}

impl MarketView {
    /// Whether all but the time is the same.
    fn is_like(&self, other: &Self) -> bool {
        let Self { network, models, feed_usd_micros, feed_by_operator, offers, chain_time: _ } = self;
        (network, models, offers) == (&other.network, &other.models, &other.offers)
            && (*feed_usd_micros, *feed_by_operator) == (other.feed_usd_micros, other.feed_by_operator)
    }

    /// The catalogue's model of this name.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&CatalogueModel> {
        self.models.iter().find(|model| model.name == name)
    }
}

/// The latest view; none before the chain answered for the first time, and while it is not the one of this store.
#[derive(Clone, Debug, Default)]
pub struct Market(Arc<Latest>);

#[derive(Debug, Default)]
struct Latest {
    now: RwLock<Read>,
    /// Wakes whoever waits for the first view.
    read: Notify,
}

#[derive(Debug, Default)]
struct Read {
    view: Option<Arc<MarketView>>,
    refusal: Option<String>,
    /// Whether somebody is about to read it for the first time.
    is_due: bool,
}

impl Market {
    /// The latest view.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<MarketView>> {
        self.0.now.read().unwrap_or_else(PoisonError::into_inner).view.clone()
    }

    /// Why what the chain shows is not believed, in words.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.0.now.read().unwrap_or_else(PoisonError::into_inner).refusal.clone()
    }

    /// The chain is another one than it should be: there is no view until [`put`](Self::put) brings the right one's.
    pub fn refuse(&self, why: String) {
        let mut slot = self.0.now.write().unwrap_or_else(PoisonError::into_inner);
        *slot = Read { view: None, refusal: Some(why), is_due: false };
        drop(slot);
        self.0.read.notify_waiters();
    }

    /// Somebody begins to read the market.
    pub(crate) fn is_due(&self) {
        self.0.now.write().unwrap_or_else(PoisonError::into_inner).is_due = true;
    }

    /// Waits for the first view, or a refusal, where one is about to come.
    pub(crate) async fn first(&self) {
        let is_there = || !self.0.now.read().unwrap_or_else(PoisonError::into_inner).is_due;
        atoll_life::until(&self.0.read, is_there).await;
    }

    /// Puts a fresh view in place; true when it differs from the one before in more than time.
    pub fn put(&self, view: MarketView) -> bool {
        let mut slot = self.0.now.write().unwrap_or_else(PoisonError::into_inner);
        let same = slot.view.as_deref().is_some_and(|old| old.is_like(&view));
        *slot = Read { view: Some(Arc::new(view)), refusal: None, is_due: false };
        drop(slot);
        self.0.read.notify_waiters();
        !same
    }
}
