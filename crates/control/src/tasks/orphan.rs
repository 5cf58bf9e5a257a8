//! Settles orders whose operator is gone, as anyone may: another operator's, whose time is over.
//!
//! Workers report all their pods to every operator that they are linked to, and each keeps what it sees (`link::strays`).
//! An order that is over and that nobody closes for a while is released, attested from what this operator saw and the
//! worker signed, settled, and closed: the supplier is paid, the renter refunded. An operator that still settles by itself
//! is left its time. One that was lengthened and whose leases do not follow is helped on in their last minute (`extension`).
//! A lease of which no operator saw anything is closed when the program allows it, unpaid: its renter is refunded.
//! What any operator may do, each does at its own time, by its key and the order, so that not all send the same at once.
//! There is no receipt then: only the renter's own operator has the specification.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use atoll_domain::key::{Address, Digest, PublicKey};
use atoll_domain::time::UnixMs;
use atoll_interface::layout::{LEASE_FINAL, Lease, Order};

use super::{Reconciler, extension, settlement};
use crate::app::chain::{self, Sent};
use crate::control::Control;
use crate::store::rows::{EpochLeaf, Stray};

/// For how long an order must have been missing, as this node watched, before its strays are forgotten: a node of the chain
/// that lags, or another cluster, is not believed.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// Most orders of one run whose absence is looked at for good.
const FORGET_MAX: usize = 20;

/// How often the chain's orders are looked through, however many signals come.
const SCAN_PERIOD: Duration = Duration::from_secs(2);

/// How long an order of nobody here rests whose leases were lengthened: who lengthens it by a second every second must not
/// have every operator send a transaction each time.
const FOLLOWED_FOR: Duration = Duration::from_secs(20);

/// What is to be done about a lease of an order that is nobody's here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing yet.
    Nothing,
    /// Release it: its operator should have.
    Release,
    /// Attest, settle and close it.
    Settle,
    /// Close it: nobody attested its end, and the program waits no longer.
    Close,
}

/// The times that decide what is due, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// How long an order's own operator is left to act.
    grace: i64,
    /// How long a root is held before it pays.
    hold: i64,
    /// After how long the program lets a lease be closed that is not settled.
    stall: i64,
    /// When it is this operator's turn to do what all may do.
    turn: i64,
}

/// When an order is over for good, Unix seconds.
const fn over_at(order: &Order) -> i64 {
    if order.active_at != 0 { order.end } else { order.fill_by }
}

/// Decides what is due of a lease at `now`. An operator that released it in time is alive, and has a whole hold to settle
/// it by itself. Pure.
pub(super) fn due(order: &Order, lease: &Lease, now: i64, times: Times) -> Due {
    let late = over_at(order).saturating_add(times.grace);
    let stalled = lease.released_at.saturating_add(times.stall).saturating_add(times.turn);
    if !may_be_due(order, now, times) {
        Due::Nothing
    } else if lease.devices_live > 0 {
        Due::Release
    } else if lease.released_at < late && now < late.saturating_add(times.hold).saturating_add(times.grace) {
        Due::Nothing
    } else if lease.flags & LEASE_FINAL != 0 || lease.start == 0 || now >= stalled {
        // A lease that never got a clock has nothing to attest.
        Due::Close
    } else {
        Due::Settle
    }
}

fn times(control: &Control, order: &Address) -> Option<Times> {
    let market = control.market.snapshot()?;
    let grace = i64::from(control.config.orphan_grace_s);
    let turn = turn_s(&control.keys.node.public(), order, grace);
    Some(Times { grace, hold: i64::from(market.network.epoch_hold_s), stall: i64::from(market.network.stall_s), turn })
}

/// After how many of `among` seconds it is an operator's turn to do for an order what all operators may do. Pure; even over
/// operators, the same for each at every run.
pub(super) fn turn_s(node: &PublicKey, order: &Address, among: i64) -> i64 {
    let hash = Digest::of(&[node.0, order.0].concat()).0;
    let number = u64::from_le_bytes(std::array::from_fn(|at| hash[at]));
    let among = u64::try_from(among.max(1)).unwrap_or(1);
    i64::try_from(number % among).unwrap_or_default()
}

/// Whether anything at all can be due of an order at `now`: it is over, and its own operator had its time. Pure.
fn may_be_due(order: &Order, now: i64, times: Times) -> bool {
    order.is_over(now) && now >= over_at(order).saturating_add(times.grace)
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
    let mut found = Vec::new();
    let seen = control.store.stray_orders().await?;
    if seen.is_empty() {
        return Ok(found);
    }
    let orders: BTreeMap<Address, Order> = chain::orders(control).await?.0.into_iter().collect();
    for address in seen {
        let Some(order) = orders.get(&address).copied() else { continue };
        let Some(times) = times(control, &address) else { return Ok(Vec::new()) };
        if order.leases_open == 0 || !may_be_due(&order, now, times) || !is_nobodys(control, &address).await? {
            continue;
        }
        let strays = control.store.strays_of(&address).await?;
        let mut leases = chain::leases_under(control, &address, &order).await?;
        leases.retain(|(lease_at, lease)| {
            let seen = strays.iter().any(|stray| stray.lease == *lease_at);
            seen && due(&order, lease, now, times) == Due::Settle
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
    /// When leases of orders were last lengthened, by order.
    followed: BTreeMap<Address, UnixMs>,
    /// Orders of strays that are not on the chain, since when this node knows: by its own clock and by the chain's.
    missing: BTreeMap<Address, (UnixMs, i64)>,
}

impl Orphans {
    pub(super) fn new(control: &Arc<Control>) -> Self {
        Self { control: Arc::clone(control), scanned: None, followed: BTreeMap::new(), missing: BTreeMap::new() }
    }

    async fn step(&self, address: &Address, order: &Order, now: i64) -> anyhow::Result<()> {
        let control = &self.control;
        let Some(times) = times(control, address) else { return Ok(()) };
        // One renter with many small orders must not have every operator ask the chain about each of them for nothing.
        if !may_be_due(order, now, times) || !is_nobodys(control, address).await? {
            return Ok(());
        }
        let leases =
            if order.leases_open > 0 { chain::leases_under(control, address, order).await? } else { Vec::new() };
        let is_due = |lease: &Lease, what| due(order, lease, now, times) == what;
        if leases.iter().any(|(_, lease)| is_due(lease, Due::Release)) {
            return self.release(address).await;
        }
        for (at, lease) in &leases {
            match due(order, lease, now, times) {
                Due::Close => self.told(chain::close_lease(control, *address, at, lease).await?),
                Due::Settle => self.settle(address, at, lease).await?,
                Due::Release | Due::Nothing => {}
            }
        }
        let late = over_at(order).saturating_add(2 * times.grace).saturating_add(times.hold);
        if order.leases_open > 0 || now < late.saturating_add(times.turn) {
            return Ok(());
        }
        if order.fees > 0 {
            self.told(chain::collect_fees(control, *address, order).await?);
            return Ok(());
        }
        self.told(chain::close_order(control, *address, order).await?);
        Ok(())
    }

    async fn lengthen(&mut self, address: &Address, order: &Order, now: i64) -> anyhow::Result<()> {
        if self.followed.contains_key(address) {
            return Ok(());
        }
        let done = extension::in_the_last_minute(&self.control, address, order, now).await;
        // What failed may have been sent.
        if !matches!(done, Ok(false)) {
            self.followed.insert(*address, self.control.now());
        }
        done.map(drop)
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
        let last = |leaf: &EpochLeaf| settlement::is_last(leaf, lease);
        if let Some(found) = settlement::newest_that_pays(control, at, last).await? {
            self.told(chain::settle(control, *order, &found.epoch, found.index, &found.leaf, &found.path).await?);
        }
        Ok(())
    }

    /// Forgets the strays of orders that are closed: those that `orders`, read at `chain_now`, lacks for long, and that no
    /// state of this network's own cluster has which cannot be undone and is no older than the first that lacked them.
    async fn forget(&mut self, orders: &BTreeSet<Address>, chain_now: i64) -> anyhow::Result<()> {
        let control = &self.control;
        let now = control.now();
        let seen = control.store.stray_orders().await?;
        let lacks: BTreeSet<Address> = seen.into_iter().filter(|order| !orders.contains(order)).collect();
        self.missing.retain(|order, _| lacks.contains(order));
        for order in lacks {
            self.missing.entry(order).or_insert((now, chain_now));
        }
        let long = |(_, (since, _)): &(&Address, &(UnixMs, i64))| now.since(*since) >= FORGET_AFTER;
        let due: Vec<(Address, i64)> =
            self.missing.iter().filter(long).map(|(order, (_, first))| (*order, *first)).take(FORGET_MAX).collect();
        for (order, first) in due {
            match chain::order_for_good(control, &order).await? {
                Some((false, clock)) if clock.unix_timestamp >= first => control.store.strays_drop(&order, now).await?,
                // It is watched anew.
                _ => drop(self.missing.remove(&order)),
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
        self.followed.retain(|_, at| looks.since(*at) < FOLLOWED_FOR);
        let (orders, now) = chain::orders(&self.control).await?;
        for (address, order) in &orders {
            let runs = !order.is_over(now) && !order.is_stopped();
            let done =
                if runs { self.lengthen(address, order, now).await } else { self.step(address, order, now).await };
            if let Err(error) = done {
                tracing::warn!(order = %address, error = format!("{error:#}"), "an orphan's step failed; the next run retries");
            }
        }
        self.forget(&orders.iter().map(|(address, _)| *address).collect(), now).await?;
        self.scanned = Some(looks);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { grace: 60, hold: 300, stall: 1_000, turn: 7 };

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
        let due = |lease: &Lease, now| due(&order, lease, now, TIMES);
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
        lease.flags |= LEASE_FINAL;
        assert_eq!(due(&lease, 2_062), Due::Close);
    }

    #[test]
    fn what_nobody_attested_is_closed_in_ones_turn_once_the_program_waits_no_longer() {
        let (order, mut lease) = order();
        (lease.devices_live, lease.released_at) = (0, 2_061);
        let due = |now| due(&order, &lease, now, TIMES);
        assert_eq!(due(2_061 + 1_000 + 6), Due::Settle);
        assert_eq!(due(2_061 + 1_000 + 7), Due::Close);
    }

    #[test]
    fn turns_are_spread_and_stay() {
        let turn = |node: u8, order: u8| turn_s(&PublicKey([node; 32]), &PublicKey([order; 32]), 60);
        let turns: std::collections::BTreeSet<i64> = (0..100).map(|node| turn(node, 1)).collect();
        assert!(turns.len() > 40 && turns.iter().all(|turn| (0..60).contains(turn)), "{turns:?}");
        assert_eq!(turn(3, 1), turn(3, 1));
        assert!((0..10).any(|order| turn(3, order) != turn(3, 1)), "another one is first for another order");
        assert_eq!(turn_s(&PublicKey([1; 32]), &PublicKey([1; 32]), 0), 0);
    }

    #[test]
    fn an_order_that_never_became_active_is_over_with_its_time_to_fill() {
        let mut order = Order::new();
        order.fill_by = 500;
        let lease = Lease::new();
        let times = Times { hold: 0, ..TIMES };
        assert_eq!(due(&order, &lease, 559, times), Due::Nothing);
        assert_eq!(due(&order, &lease, 700, times), Due::Close, "it has nothing to attest");
    }
}
