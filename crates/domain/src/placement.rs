//! Decides which workers serve an order.
//!
//! Hard constraints filter, each refusal with a reason a person can act on; what is left is ranked by how often it failed
//! this order, then by price, then by how many free devices the choice leaves stranded on the machine, then by id. A gang
//! is all or nothing. Pure: the same problem and view give the same plan, and a plan that is still possible is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::WorkerId;
use crate::job::PackRef;
use crate::money::UsdMicrosPerHour;
use crate::time::UnixMs;
use crate::worker::{Limits, Offer};

/// How long a worker that failed an order once is not taken for it again; twice as long with each further time.
const REST: Duration = Duration::from_secs(10);
/// The longest such rest.
const REST_MAX: Duration = Duration::from_secs(600);

/// What an order still needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The device model, by catalogue name.
    pub model: String,
    /// Devices still wanted.
    pub devices: u32,
    /// The most the renter pays for one device.
    pub price_max: UsdMicrosPerHour,
    /// The environment that must be ready.
    pub pack: PackRef,
    /// Workers that serve this order now.
    pub excluded: BTreeSet<WorkerId>,
    /// Workers that failed this order before.
    pub setbacks: BTreeMap<WorkerId, Setback>,
    /// Whether only workers with enforced limits will do.
    pub strangers: bool,
    /// The time it is.
    pub now: UnixMs,
}

/// What a worker's failures are for one order: it comes last there, and rests after each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setback {
    /// How often it failed.
    pub count: u32,
    /// When it last did.
    pub last: UnixMs,
}

impl Setback {
    /// Counts one more.
    #[must_use]
    pub fn after(earlier: Option<Self>, now: UnixMs) -> Self {
        Self { count: earlier.map_or(0, |it| it.count).saturating_add(1), last: now }
    }

    /// How long it rests after the last.
    #[must_use]
    pub fn rest(self) -> Duration {
        let doubled = 1_u32.checked_shl(self.count.saturating_sub(1)).and_then(|times| REST.checked_mul(times));
        doubled.unwrap_or(REST_MAX).min(REST_MAX)
    }

    /// Whether it still rests. A clock that went back by more than the rest makes none longer.
    fn is_resting(self, now: UnixMs) -> bool {
        Duration::from_millis(now.0.abs_diff(self.last.0)) < self.rest()
    }
}

/// One worker as the operator knows it now: the chain's view and its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The worker.
    pub worker: WorkerId,
    /// Its slot on the chain.
    pub offer: Offer,
    /// Devices reserved in the store for orders whose fill is on its way.
    pub reserved_mask: u16,
    /// Whether its link stands.
    pub linked: bool,
    /// Packs it has ready.
    pub packs: Vec<PackRef>,
    /// How well it holds pods to limits.
    pub limits: Limits,
}

/// Devices taken on one worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placed {
    /// The worker.
    pub worker: WorkerId,
    /// Bit n set: device n is taken.
    pub mask: u16,
}

/// Why a worker does not serve an order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Refusal {
    /// Another model.
    OtherModel {
        /// What it offers.
        model: String,
    },
    /// It asks more than the renter pays.
    TooDear {
        /// Its posted price.
        ask: UsdMicrosPerHour,
    },
    /// All its devices are leased or reserved.
    Taken,
    /// Its supplier takes no new leases.
    Draining,
    /// It was lost and has not come back yet.
    Suspended,
    /// It is not connected.
    NotLinked,
    /// It serves this order now.
    Excluded,
    /// It failed this order a short time ago.
    Resting {
        /// How long after that it is taken again.
        rest_s: u64,
    },
    /// It does not have the pack.
    NoPack,
    /// It cannot hold a stranger's pod to its limits.
    WeakLimits {
        /// What is missing there.
        why: String,
    },
}

impl fmt::Display for Refusal {
    /// The reason, and what would cure it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherModel { model } => write!(f, "offers {model}, another model"),
            Self::TooDear { ask } => write!(f, "asks {ask}, more than the order pays: raise max_price"),
            Self::Taken => f.write_str("all its devices are leased: wait, or ask for fewer"),
            Self::Draining => f.write_str("takes no new leases, its supplier is draining it"),
            Self::Suspended => f.write_str("was lost during a lease and has not reported back"),
            Self::NotLinked => f.write_str("is not connected"),
            Self::Excluded => f.write_str("serves this order already"),
            Self::Resting { rest_s } => write!(f, "failed this order, and is taken again {rest_s} s after that"),
            Self::NoPack => f.write_str("does not have the pack: its supplier must build it"),
            Self::WeakLimits { why } => write!(f, "is not for strangers: {why}"),
        }
    }
}

/// Who serves the order, and why the others do not.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Empty when the gang does not fit.
    pub placed: Vec<Placed>,
    /// Devices that were free for this order, whether or not they sufficed.
    pub devices_free: u32,
    /// One entry per worker that was not considered.
    pub refusals: BTreeMap<WorkerId, Refusal>,
}

/// Compared field by field, top to bottom; the last makes ties deterministic.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    not_previous: bool,
    setbacks: u32,
    ask: UsdMicrosPerHour,
    stranded: u32,
    worker: WorkerId,
}

/// Chooses workers for an order. `previous` is kept where it is still possible, so that
/// `place(p, place(p, x)) == place(p, x)`.
#[must_use]
pub fn place(problem: &Problem, view: &[Candidate], previous: &Plan) -> Plan {
    let mut plan = Plan::default();
    let mut fit = Vec::new();
    for candidate in view {
        match refuse(problem, candidate) {
            Some(refusal) => drop(plan.refusals.insert(candidate.worker, refusal)),
            None => fit.push((candidate, free_mask(candidate))),
        }
    }
    plan.devices_free = fit.iter().map(|(_, free)| free.count_ones()).sum();
    if problem.devices == 0 || plan.devices_free < problem.devices {
        return plan;
    }
    fit.sort_by_key(|(candidate, free)| Score {
        not_previous: !previous.placed.iter().any(|placed| placed.worker == candidate.worker),
        setbacks: problem.setbacks.get(&candidate.worker).map_or(0, |it| it.count),
        ask: candidate.offer.ask,
        stranded: free.count_ones().saturating_sub(problem.devices),
        worker: candidate.worker,
    });
    let mut wanted = problem.devices;
    for (candidate, free) in fit {
        let mask = lowest_bits(free, wanted);
        wanted -= mask.count_ones();
        plan.placed.push(Placed { worker: candidate.worker, mask });
        if wanted == 0 {
            break;
        }
    }
    plan
}

fn free_mask(candidate: &Candidate) -> u16 {
    candidate.offer.devices_mask & !candidate.offer.leased_mask & !candidate.reserved_mask
}

/// The lowest `count` set bits of `mask`.
fn lowest_bits(mask: u16, count: u32) -> u16 {
    let mut taken = 0;
    for bit in (0..16).map(|n| 1_u16 << n).filter(|bit| mask & bit != 0).take(count as usize) {
        taken |= bit;
    }
    taken
}

fn refuse(problem: &Problem, candidate: &Candidate) -> Option<Refusal> {
    let offer = &candidate.offer;
    if offer.model != problem.model {
        return Some(Refusal::OtherModel { model: offer.model.clone() });
    }
    if problem.excluded.contains(&candidate.worker) {
        return Some(Refusal::Excluded);
    }
    if offer.suspended {
        return Some(Refusal::Suspended);
    }
    if !candidate.linked {
        return Some(Refusal::NotLinked);
    }
    if offer.draining {
        return Some(Refusal::Draining);
    }
    if offer.ask > problem.price_max {
        return Some(Refusal::TooDear { ask: offer.ask });
    }
    if let (true, Limits::Weak { why }) = (problem.strangers, &candidate.limits) {
        return Some(Refusal::WeakLimits { why: why.clone() });
    }
    if !candidate.packs.contains(&problem.pack) {
        return Some(Refusal::NoPack);
    }
    if free_mask(candidate) == 0 {
        return Some(Refusal::Taken);
    }
    let setback = problem.setbacks.get(&candidate.worker).filter(|it| it.is_resting(problem.now));
    setback.map(|it| Refusal::Resting { rest_s: it.rest().as_secs() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Digest, PublicKey};
    use crate::worker::SlotRef;
    use proptest::prelude::*;

    fn pack() -> PackRef {
        PackRef { name: "ray-torch".into(), sha256: Digest::of(b"pack") }
    }

    fn candidate(n: u8, ask: u64, devices_mask: u16, leased_mask: u16) -> Candidate {
        Candidate {
            worker: WorkerId::from_random([n; 16]),
            offer: Offer {
                at: SlotRef { page: PublicKey([n; 32]), slot: 0 },
                device_key: PublicKey([n; 32]),
                supplier: PublicKey([n; 32]),
                model: "cpu".into(),
                ask: UsdMicrosPerHour(ask),
                devices_mask,
                leased_mask,
                draining: false,
                suspended: false,
            },
            reserved_mask: 0,
            linked: true,
            packs: vec![pack()],
            limits: Limits::Enforced,
        }
    }

    fn problem(devices: u32) -> Problem {
        Problem {
            model: "cpu".into(),
            devices,
            price_max: UsdMicrosPerHour(100),
            pack: pack(),
            excluded: BTreeSet::new(),
            setbacks: BTreeMap::new(),
            strangers: true,
            now: UnixMs(1_000_000),
        }
    }

    fn workers(plan: &Plan) -> Vec<u8> {
        plan.placed.iter().map(|p| p.worker.to_string().as_bytes()[5]).collect()
    }

    #[test]
    fn the_cheapest_serve_and_a_gang_is_all_or_nothing() {
        let view = [candidate(1, 90, 1, 0), candidate(2, 50, 1, 0), candidate(3, 101, 1, 0), candidate(4, 60, 1, 0)];
        let plan = place(&problem(2), &view, &Plan::default());
        assert_eq!(plan.placed.iter().map(|p| p.worker).collect::<Vec<_>>(), [view[1].worker, view[3].worker]);
        assert_eq!(plan.refusals[&view[2].worker], Refusal::TooDear { ask: UsdMicrosPerHour(101) });
        let too_many = place(&problem(4), &view, &Plan::default());
        assert!(workers(&too_many).is_empty());
        assert_eq!(too_many.devices_free, 3);
    }

    #[test]
    fn every_refusal_has_its_own_reason() {
        let base = || candidate(1, 50, 1, 0);
        let refusal = |change: &dyn Fn(&mut Candidate)| {
            let mut changed = base();
            change(&mut changed);
            place(&problem(1), &[changed], &Plan::default()).refusals.into_values().next()
        };
        assert_eq!(refusal(&|_| {}), None);
        assert_eq!(refusal(&|c| c.offer.leased_mask = 1), Some(Refusal::Taken));
        assert_eq!(refusal(&|c| c.reserved_mask = 1), Some(Refusal::Taken));
        assert_eq!(refusal(&|c| c.linked = false), Some(Refusal::NotLinked));
        assert_eq!(refusal(&|c| c.offer.suspended = true), Some(Refusal::Suspended));
        assert_eq!(refusal(&|c| c.offer.draining = true), Some(Refusal::Draining));
        assert_eq!(refusal(&|c| c.packs.clear()), Some(Refusal::NoPack));
        assert!(matches!(refusal(&|c| c.offer.model = "h100".into()), Some(Refusal::OtherModel { .. })));
        assert!(matches!(
            refusal(&|c| c.limits = Limits::Weak { why: "no cgroups".into() }),
            Some(Refusal::WeakLimits { .. })
        ));
    }

    fn with_setback(devices: u32, worker: WorkerId, count: u32, ago_ms: i64) -> Problem {
        let problem = problem(devices);
        let last = UnixMs(problem.now.0.checked_add_signed(-ago_ms).unwrap());
        Problem { setbacks: BTreeMap::from([(worker, Setback { count, last })]), ..problem }
    }

    #[test]
    fn who_failed_the_order_rests_longer_each_time_and_then_comes_last() {
        let view = [candidate(1, 50, 1, 0), candidate(2, 90, 1, 0)];
        let (failed, other) = (view[0].worker, view[1].worker);
        let placed = |devices, count, ago_ms| {
            let plan = place(&with_setback(devices, failed, count, ago_ms), &view, &Plan::default());
            plan.placed.iter().map(|p| p.worker).collect::<Vec<_>>()
        };
        assert_eq!(placed(1, 1, 9_999), [other]);
        assert_eq!(placed(2, 1, 9_999), [], "it rests");
        assert_eq!(placed(1, 1, 10_000), [other], "cheaper, and yet last");
        assert_eq!(placed(2, 1, 10_000), [other, failed], "there is nobody else");
        assert_eq!((placed(2, 2, 19_999), placed(2, 2, 20_000)), (vec![], vec![other, failed]));
        assert_eq!(placed(2, 1, -10_000), [other, failed], "the clock went back");
        let resting = place(&with_setback(2, failed, 3, 0), &view, &Plan::default());
        assert_eq!(resting.refusals[&failed], Refusal::Resting { rest_s: 40 });
        let rests = [1, 2, 6, 7, 8, 40, u32::MAX].map(|count| Setback { count, last: UnixMs(0) }.rest().as_secs());
        assert_eq!(rests, [10, 20, 320, 600, 600, 600, 600]);
        let twice = Setback::after(Some(Setback::after(None, UnixMs(1))), UnixMs(5));
        assert_eq!(twice, Setback { count: 2, last: UnixMs(5) });
    }

    #[test]
    fn who_serves_the_order_is_not_taken_twice() {
        let view = [candidate(1, 50, 3, 1), candidate(2, 90, 1, 0)];
        let problem = Problem { excluded: BTreeSet::from([view[0].worker]), ..problem(1) };
        let plan = place(&problem, &view, &Plan::default());
        assert_eq!(plan.placed, [Placed { worker: view[1].worker, mask: 1 }]);
        assert_eq!(plan.refusals[&view[0].worker], Refusal::Excluded);
    }

    fn any_view() -> impl Strategy<Value = Vec<Candidate>> {
        proptest::collection::vec((0_u64..150, any::<u16>(), any::<u16>(), any::<bool>()), 0..12).prop_map(|rows| {
            let row = |(n, (ask, devices, leased, linked)): (usize, (u64, u16, u16, bool))| Candidate {
                linked,
                ..candidate(u8::try_from(n).unwrap(), ask, devices, leased & devices)
            };
            rows.into_iter().enumerate().map(row).collect()
        })
    }

    proptest! {
        #[test]
        fn a_plan_is_idempotent_exact_and_takes_only_free_devices(view in any_view(), devices in 1_u32..40) {
            let plan = place(&problem(devices), &view, &Plan::default());
            prop_assert_eq!(&place(&problem(devices), &view, &plan), &plan);
            let taken: u32 = plan.placed.iter().map(|p| p.mask.count_ones()).sum();
            prop_assert!(taken == devices || plan.placed.is_empty());
            for placed in &plan.placed {
                let candidate = view.iter().find(|c| c.worker == placed.worker).unwrap();
                prop_assert!(candidate.linked && candidate.offer.ask.0 <= 100);
                prop_assert_eq!(placed.mask & !free_mask(candidate), 0);
            }
        }
    }
}
