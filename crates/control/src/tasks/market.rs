//! Keeps the view of the market fresh: parameters, catalogue, feed, every worker's slot.

use std::sync::Arc;
use std::time::Duration;

use super::Reconciler;
use crate::app::{chain, network};
use crate::control::Control;
use crate::store::rows::NetworkPin;

pub(super) struct MarketReader {
    control: Arc<Control>,
}

impl MarketReader {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control) }
    }

    fn refuse(&self, wrong: &network::Wrong) {
        let why = wrong.to_string();
        if self.control.market.refusal().as_ref() != Some(&why) {
            tracing::error!(why, "this node does nothing until the chain is the right one again");
        }
        self.control.market.refuse(why);
    }
}

impl Reconciler for MarketReader {
    const NAME: &'static str = "market";
    const PERIOD: Duration = Duration::from_secs(1);
    // It reads whole pages: workers that link by the thousand signal by the thousand.
    const GAP: Duration = Duration::from_millis(250);
    const FIRST: bool = true;
    const ON_CHAIN: bool = false;

    async fn run(&mut self) -> anyhow::Result<()> {
        let control = &self.control;
        // Before anything is read: on another cluster even the program may be missing.
        let (cluster, pin) = (network::cluster(control).await?, control.store.network().await?);
        if let Err(wrong) = network::check(cluster, None, pin) {
            self.refuse(&wrong);
            return Ok(());
        }
        let view = chain::read_market(control).await?;
        if let Err(wrong) = network::check(cluster, Some(&view.network), pin) {
            self.refuse(&wrong);
            return Ok(());
        }
        if pin.is_none() {
            let facts = &view.network;
            let pin = NetworkPin { genesis_hash: facts.genesis_hash, network_root: facts.network_root };
            if control.store.network_pin(&pin).await? != pin {
                // Another node was first, with another network; the next run says so.
                return Ok(());
            }
        }
        if self.control.market.put(view) {
            self.control.wake.signal();
        }
        Ok(())
    }
}
