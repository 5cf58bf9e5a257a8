//! One control node's parts, handed to handlers, link sessions and reconcilers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use atoll_domain::key::SecretKey;
use atoll_domain::time::UnixMs;
use tokio::sync::Notify;

use crate::app::extension::Relayed;
use crate::app::market::Market;
use crate::config::Config;
use crate::link::Links;
use crate::neighbours::Neighbours;
use crate::objects::Objects;
use crate::pod_store::Tenants;
use crate::store::Store;

/// Time and randomness, from outside: the real ones in a server, given ones in a simulation.
pub trait World: Send + Sync + std::fmt::Debug {
    /// The time now.
    fn now(&self) -> UnixMs;
    /// Fills `bytes` with randomness fit for secrets.
    fn random(&self, bytes: &mut [u8]);
}

/// Keys that a control node holds. None of them can move a renter's, a supplier's or the mint's money.
#[derive(Debug)]
pub struct Keys {
    /// Fills orders that name it as solver, releases as `lost`, pays fees of relayed transactions, signs receipts.
    pub node: SecretKey,
    /// Signs epoch roots.
    pub attestor: SecretKey,
    /// Seals pods' store credentials (HMAC-SHA-256). Shared by an operator's nodes.
    pub pod_secret: [u8; 32],
}

/// Wakes every reconciler, in the order in which they wait. A signal is never lost, several may become one; each run looks
/// at everything anyway.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Signals>);

#[derive(Debug, Default)]
struct Signals {
    count: AtomicU64,
    notify: Notify,
}

/// Sees every signal since it was made.
#[derive(Debug)]
pub struct Woken {
    wake: Wake,
    seen: u64,
}

impl Wake {
    /// Something changed.
    pub fn signal(&self) {
        self.0.count.fetch_add(1, Ordering::AcqRel);
        self.0.notify.notify_waiters();
    }

    /// A receiver that sees every later signal.
    #[must_use]
    pub fn subscribe(&self) -> Woken {
        Woken { wake: self.clone(), seen: self.count() }
    }

    fn count(&self) -> u64 {
        self.0.count.load(Ordering::Acquire)
    }
}

impl Woken {
    /// Everything so far counts as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.wake.count();
    }

    /// Waits for a signal that was not seen.
    pub async fn changed(&mut self) {
        atoll_life::until(&self.wake.0.notify, || self.wake.count() != self.seen).await;
        self.mark_unchanged();
    }
}

/// Whether the store is known to be up to what the operator keeps beside it. Set until a node begins to look.
#[derive(Clone, Debug, Default)]
pub struct CaughtUp(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    is_unknown: AtomicBool,
    /// Whether the store was seen to have gone back. Such a node ends.
    is_old: AtomicBool,
    /// One more than the index of the latest epoch that was seen in the store.
    epochs: AtomicU64,
    /// The highest number of a command that was seen in the store.
    commands: AtomicU64,
    notify: Notify,
}

impl CaughtUp {
    /// It is not known yet.
    pub(crate) fn unset(&self) {
        self.0.is_unknown.store(true, Ordering::Release);
    }

    /// It is.
    pub(crate) fn set(&self) {
        self.0.is_unknown.store(false, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Whether it is.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.0.is_unknown.load(Ordering::Acquire) && !self.is_old()
    }

    /// Whether the store was seen to have gone back.
    #[must_use]
    pub fn is_old(&self) -> bool {
        self.0.is_old.load(Ordering::Acquire)
    }

    /// Notes how far the store is: its latest epoch, and the number of its last command where that was read. True from
    /// when it was once less far than before.
    pub(crate) fn went_back(&self, epoch: Option<u64>, command: Option<u64>) -> bool {
        let epochs = epoch.map_or(0, |index| index.saturating_add(1));
        let behind = self.0.epochs.fetch_max(epochs, Ordering::AcqRel) > epochs;
        let fewer = command.is_some_and(|command| self.0.commands.fetch_max(command, Ordering::AcqRel) > command);
        if behind || fewer {
            self.0.is_old.store(true, Ordering::Release);
        }
        self.is_old()
    }

    /// Waits until it is.
    pub(crate) async fn wait(&self) {
        atoll_life::until(&self.0.notify, || self.is_set()).await;
    }
}

/// One control node.
#[derive(Debug)]
pub struct Control {
    /// How it was told to run.
    pub config: Config,
    /// The operator's memory.
    pub store: Arc<dyn Store>,
    /// The chain.
    pub rpc: atoll_chain::Rpc,
    /// Workers linked to this node.
    pub links: Links,
    /// Blobs, checkpoints, kept output.
    pub objects: Objects,
    /// What the chain offers, refreshed by a reconciler.
    pub market: Market,
    /// This node's keys.
    pub keys: Keys,
    /// The way to the operator's other nodes.
    pub neighbours: Arc<dyn Neighbours>,
    /// Time and randomness.
    pub world: Arc<dyn World>,
    /// What is counted of tenants.
    pub(crate) tenants: Tenants,
    /// Orders of nobody here that were lengthened through this node.
    pub(crate) relayed: Relayed,
    /// Whether the store is up to date with the operator's notes.
    pub caught_up: CaughtUp,
    /// Wakes the reconcilers.
    pub wake: Wake,
}

/// What a node is made of; whoever starts one brings it.
#[derive(Debug)]
pub struct Parts {
    /// See [`Control::config`]. What is said there of folders and addresses is for whoever opens them.
    pub config: Config,
    /// See [`Control::store`].
    pub store: Arc<dyn Store>,
    /// See [`Control::world`].
    pub world: Arc<dyn World>,
    /// See [`Control::rpc`].
    pub rpc: atoll_chain::Rpc,
    /// See [`Control::objects`].
    pub objects: Objects,
    /// See [`Control::keys`].
    pub keys: Keys,
    /// See [`Control::neighbours`].
    pub neighbours: Arc<dyn Neighbours>,
}

impl Control {
    /// A node, at rest. `http::router` is what it answers with, [`crate::work::run`] what it does by itself.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { config, store, world, rpc, objects, keys, neighbours } = parts;
        Arc::new(Self {
            links: Links::new(Arc::clone(&world)),
            market: Market::default(),
            tenants: Tenants::default(),
            relayed: Relayed::default(),
            caught_up: CaughtUp::default(),
            wake: Wake::default(),
            config,
            store,
            world,
            rpc,
            objects,
            keys,
            neighbours,
        })
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        self.world.now()
    }

    /// Fresh random bytes.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.world.random(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::CaughtUp;

    #[test]
    fn a_store_that_was_once_seen_further_has_gone_back_for_good() {
        let store = CaughtUp::default();
        assert!(!store.went_back(None, Some(0)));
        assert!(!store.went_back(Some(0), Some(3)) && !store.went_back(Some(4), None) && store.is_set());
        assert!(store.went_back(Some(3), None) && !store.is_set());
        assert!(store.went_back(Some(9), Some(9)), "what is written after that tells nothing");
        let store = CaughtUp::default();
        assert!(!store.went_back(Some(4), Some(3)) && store.went_back(Some(4), Some(2)));
        assert!(CaughtUp(store.0).went_back(None, None));
    }
}
