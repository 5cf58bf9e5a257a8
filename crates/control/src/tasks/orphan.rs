//! Settles orders whose operator is gone, as anyone may: another operator's, whose time is over.
//!
//! Workers report all their pods to every operator that they are linked to, and each keeps what it sees (`link::strays`).
//! An order that is over and that nobody closes for a while is released, attested from what this operator saw and the
//! worker signed, settled, and closed: the supplier is paid, the renter refunded. An operator that still settles by itself
//! is left its time. One that was lengthened and whose leases do not follow is helped on in their last minute (`extension`).
//! There is no receipt then: only the renter's own operator has the specification.

use std::sync::Arc;
use std::time::Duration;

use atoll_domain::key::Address;
use atoll_domain::time::UnixMs;
use atoll_interface::layout::{LEASE_FINAL, Lease, Order};

use super::{Reconciler, extension, settlement};
use crate::app::chain::{self, Sent};
use crate::app::leaves;
use crate::control::Control;
use crate::store::rows::Stray;

/// How long strays of an order that is not on the chain are kept: a node of the chain that lags is not believed at once.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// How often the chain's orders are looked through, however many signals come.
const SCAN_PERIOD: Duration = Duration::from_secs(2);

/// What is to be done about a lease of an order that is nobody's here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// Release it: its operator should have.
    Release,
    /// Attest, settle and close it.
    Settle,
}

/// When an order is over for good, Unix seconds.
const fn over_at(order: &Order) -> i64 {
    if order.active_at != 0 { order.end } else { order.fill_by }
}

/// Decides what is due of a lease at `now`. An operator that released it in time is alive, and has a whole hold to settle
/// it by itself. Pure.
pub(super) fn due(order: &Order, lease: &Lease, now: i64, grace_s: i64, hold_s: i64) -> Due {
    let late = over_at(order).saturating_add(grace_s);
    if !order.is_over(now) || now < late {
        Due::Nothing
    } else if lease.devices_live > 0 {
        Due::Release
    } else if lease.released_at < late && now < late.saturating_add(hold_s).saturating_add(grace_s) {
        Due::Nothing
    } else {
        Due::Settle
    }
}

/// Grace and hold, in seconds.
fn times(control: &Control) -> Option<(i64, i64)> {
    let hold_s = control.market.snapshot()?.network.epoch_hold_s;
    Some((i64::from(control.config.orphan_grace_s), i64::from(hold_s)))
}

/// Whether no open job of this operator runs under an order.
pub(super) async fn is_nobodys(control: &Control, order: &Address) -> anyhow::Result<bool> {
    let job = control.store.job_by_order(order).await?;
    Ok(job.is_none_or(|job| job.now.state.is_final()))
}

/// An order of nobody here with the leases that are to be attested, and what this operator saw under it.
pub(super) struct Attestable {
    pub(super) leases: Vec<(Address, Lease)>,
    pub(super) strays: Vec<Stray>,
}

/// What this operator attests in the place of one that is gone. A lease of which it saw nothing is left alone: somebody
/// else may have.
pub(super) async fn attestable(control: &Control, now: i64) -> anyhow::Result<Vec<Attestable>> {
    let Some((grace_s, hold_s)) = times(control) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for address in control.store.stray_orders().await? {
        if !is_nobodys(control, &address).await? {
            continue;
        }
        let Some(order) = chain::order(control, &address).await? else { continue };
        let strays = control.store.strays_of(&address).await?;
        let mut leases = chain::leases(control, &address).await?;
        leases.retain(|(lease_at, lease)| {
            let seen = strays.iter().any(|stray| stray.lease == *lease_at);
            seen && due(&order, lease, now, grace_s, hold_s) == Due::Settle
        });
        if !leases.is_empty() {
            found.push(Attestable { leases, strays });
        }
    }
    Ok(found)
}

pub(super) struct Orphans {
    control: Arc<Control>,
    /// When the chain's orders were last looked through.
    scanned: Option<UnixMs>,
}

impl Orphans {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control), scanned: None }
    }

    async fn step(&self, address: &Address, order: &Order, now: i64) -> anyhow::Result<()> {
        let control = &self.control;
        let Some((grace_s, hold_s)) = times(control) else { return Ok(()) };
        if !is_nobodys(control, address).await? {
            return Ok(());
        }
        let leases = chain::leases(control, address).await?;
        let is_due = |lease: &Lease, what| due(order, lease, now, grace_s, hold_s) == what;
        if leases.iter().any(|(_, lease)| is_due(lease, Due::Release)) {
            return self.release(address).await;
        }
        for (at, lease) in leases.iter().filter(|(_, lease)| is_due(lease, Due::Settle)) {
            // A lease that never got a clock has nothing to attest.
            if lease.flags & LEASE_FINAL != 0 || lease.start == 0 {
                self.told(chain::close_lease(control, *address, at, lease).await?);
            } else {
                self.settle(address, at, lease).await?;
            }
        }
        let late = over_at(order).saturating_add(2 * grace_s).saturating_add(hold_s);
        if order.leases_open > 0 || now < late {
            return Ok(());
        }
        if order.fees > 0 {
            self.told(chain::collect_fees(control, *address, order).await?);
            return Ok(());
        }
        self.told(chain::close_order(control, *address, order).await?);
        Ok(())
    }

    fn told(&self, sent: Sent) {
        if sent == Sent::Confirmed {
            self.control.wake.signal();
        }
    }

    async fn release(&self, order: &Address) -> anyhow::Result<()> {
        for slot in chain::live_slots_of(&self.control, order).await? {
            tracing::warn!(%order, worker = %slot.worker, "a lease is over and its operator does not release it");
            self.told(chain::release_expired(&self.control, *order, &slot).await?);
        }
        Ok(())
    }

    /// Books the newest leaf that this operator attested and that is out of its hold: the last one only, as on anything
    /// earlier that reaches as far anyone could close the lease.
    async fn settle(&self, order: &Address, at: &Address, lease: &Lease) -> anyhow::Result<()> {
        let control = &self.control;
        let Some(epoch) = settlement::newest_out_of_hold(control, at).await? else { return Ok(()) };
        let Some((index, leaf, path)) = leaves::find(&epoch, at) else { return Ok(()) };
        let last = leaf.flags & atoll_interface::merkle::FLAG_FINAL != 0 && lease.flags & LEASE_FINAL == 0;
        if last && chain::epoch_pays(control, &epoch).await? {
            self.told(chain::settle(control, *order, &epoch, index, &leaf, &path).await?);
        }
        Ok(())
    }

    /// Forgets the strays of orders that are closed.
    async fn forget(&self) -> anyhow::Result<()> {
        let control = &self.control;
        let now = control.now();
        let before = UnixMs(now.0.saturating_sub(u64::try_from(FORGET_AFTER.as_millis())?));
        for order in control.store.stray_orders().await? {
            if chain::order(control, &order).await?.is_none() {
                control.store.strays_drop(&order, before).await?;
            }
        }
        Ok(())
    }
}

impl Reconciler for Orphans {
    const NAME: &'static str = "orphans";
    const PERIOD: Duration = SCAN_PERIOD;

    async fn run(&mut self) -> anyhow::Result<()> {
        let looks = self.control.now();
        let rests = self.scanned.is_some_and(|scanned| looks.since(scanned) < SCAN_PERIOD);
        if rests || !self.control.links.is_home(Self::NAME) {
            return Ok(());
        }
        let now = chain::time(&self.control).await?;
        for (address, order) in chain::orders(&self.control).await? {
            let runs = !order.is_over(now) && !order.is_stopped();
            let done = if runs {
                extension::in_the_last_minute(&self.control, &address, &order, now).await
            } else {
                self.step(&address, &order, now).await
            };
            if let Err(error) = done {
                tracing::warn!(order = %address, error = format!("{error:#}"), "an orphan's step failed; the next run retries");
            }
        }
        self.forget().await?;
        self.scanned = Some(looks);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over at 2,000, with a lease of one device.
    fn order() -> (Order, Lease) {
        let (mut order, mut lease) = (Order::new(), Lease::new());
        (order.active_at, order.end) = (1_000, 2_000);
        (lease.start, lease.cap_since, lease.end, lease.devices_live) = (1_000, 1_000, 2_000, 1);
        (order, lease)
    }

    #[test]
    fn an_operator_that_lives_is_left_its_time() {
        let (order, mut lease) = order();
        let due = |lease: &Lease, now| due(&order, lease, now, 60, 300);
        assert_eq!(due(&lease, 1_999), Due::Nothing);
        assert_eq!(due(&lease, 2_059), Due::Nothing);
        assert_eq!(due(&lease, 2_060), Due::Release, "nobody released it");
        // Released at its end by its own operator, which now waits for its hold.
        (lease.devices_live, lease.released_at) = (0, 2_003);
        assert_eq!(due(&lease, 2_100), Due::Nothing);
        assert_eq!(due(&lease, 2_419), Due::Nothing);
        assert_eq!(due(&lease, 2_420), Due::Settle);
        // Released late, so by somebody else: nobody settles it.
        lease.released_at = 2_061;
        assert_eq!(due(&lease, 2_062), Due::Settle);
    }

    #[test]
    fn an_order_that_never_became_active_is_over_with_its_time_to_fill() {
        let mut order = Order::new();
        order.fill_by = 500;
        let lease = Lease::new();
        assert_eq!(due(&order, &lease, 559, 60, 0), Due::Nothing);
        assert_eq!(due(&order, &lease, 700, 60, 0), Due::Settle);
    }
}
