//! Keeps the view of the market fresh: parameters, catalogue, feed, every worker's slot.

use std::sync::Arc;
use std::time::Duration;

use super::Reconciler;
use crate::app::chain;
use crate::control::Control;

pub(super) struct MarketReader {
    control: Arc<Control>,
}

impl MarketReader {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control) }
    }
}

impl Reconciler for MarketReader {
    const NAME: &'static str = "market";
    const PERIOD: Duration = Duration::from_secs(1);
    const FIRST: bool = true;

    async fn run(&mut self) -> anyhow::Result<()> {
        let view = chain::read_market(&self.control).await?;
        if self.control.market.put(view) {
            self.control.wake.signal();
        }
        Ok(())
    }
}
