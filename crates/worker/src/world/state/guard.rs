//! The guard: looks again and again whether the chain still covers what runs, and clears up what is long over.

use std::time::Duration;

use atoll_domain::id::PodId;
use atoll_domain::key::Address;
use atoll_domain::time::UnixMs;

use super::plan::GRACE;
use super::{Effect, Effects, Phase, Pod, State};
use crate::chain_view::{OrderView, SlotView, Standing};

/// Between two looks at the leases of running pods.
const GUARD_PERIOD: Duration = Duration::from_secs(3);
/// Between two looks at this worker's own slot.
const SLOT_PERIOD: Duration = Duration::from_secs(10);
/// The link must have stood this long before a suspension is cleared: a flapping worker stays suspended.
const LINKED_BEFORE_RESUME: Duration = Duration::from_secs(10);
/// Between two attempts to clear a suspension.
const RESUME_PERIOD: Duration = Duration::from_secs(60);
/// Reads in a row that do not show a lease before its pod is stopped: one node that lags must not end a job.
const UNSEEN_MAX: u32 = 3;
/// How long an ended pod is reported and its output kept.
const ENDED_KEPT: Duration = Duration::from_secs(600);
/// How long after a lease's end its fence is remembered; a lease's account is never made again.
const FENCE_KEPT_S: i64 = 86_400;

impl State {
    pub(super) fn tick(&mut self, now: UnixMs, out: &mut Effects) {
        let mut asking: Vec<Address> = self.pending.values().map(|pending| pending.start.order).collect();
        asking.extend(self.pods.values().filter(|pod| !pod.rosters.is_empty()).map(|pod| pod.record.order));
        for order in asking {
            self.read_order(order, out);
        }
        if now.since(self.guarded_at) >= GUARD_PERIOD {
            self.guard_now(now, out);
        }
        if now.since(self.slot_read_at) >= SLOT_PERIOD {
            self.slot_read_at = now;
            out.push(Effect::ReadSlot);
        }
        self.end_by_time(now, out);
        self.clear_up(now, out);
    }

    /// Ends what is over with nobody to ask: the last look at the chain said until when. A supervisor does the same by
    /// itself; this is for one that does not.
    fn end_by_time(&mut self, now: UnixMs, out: &mut Effects) {
        let over = |pod: &Pod| pod.is_live() && pod.end_seen && now >= pod.record.ends_at.after(GRACE);
        let over: Vec<PodId> = self.pods.iter().filter(|(_, pod)| over(pod)).map(|(id, _)| *id).collect();
        for id in over {
            self.stop(id, "its lease has ended, and so has the grace", now, out);
        }
    }

    pub(super) fn guard_now(&mut self, now: UnixMs, out: &mut Effects) {
        self.guarded_at = now;
        let orders: Vec<Address> = self.pods.values().filter(|pod| pod.is_live()).map(|pod| pod.record.order).collect();
        for order in orders {
            self.read_order(order, out);
        }
    }

    pub(super) fn order_read(
        &mut self,
        order: Address,
        view: &Result<Option<OrderView>, String>,
        now: UnixMs,
        out: &mut Effects,
    ) {
        self.reading.remove(&order);
        self.decide_pending(order, view, now, out);
        self.decide_rosters(order, view, now, out);
        // With nobody to ask, pods go on: their supervisors end them at the end of the lease.
        if let Ok(view) = view {
            self.guard(order, view.as_ref(), now, out);
        }
    }

    fn guard(&mut self, order: Address, view: Option<&OrderView>, now: UnixMs, out: &mut Effects) {
        let mut uncovered: Vec<(PodId, String)> = vec![];
        for (id, pod) in self.pods.iter_mut().filter(|(_, pod)| pod.is_live() && pod.record.order == order) {
            let lease = pod.record.lease;
            let standing = view.map_or(Standing::Unknown, |view| view.standing(&lease, self.me.slot, &self.me.public));
            match (standing, view) {
                (Standing::Holds { mask, end_s }, Some(view)) if mask == pod.record.mask => {
                    pod.unseen = 0;
                    let ends_at = super::plan::local_end(end_s, view, now);
                    if end_s != pod.record.end_s {
                        // Again and again until its supervisor has it ([`State::lengthened`]).
                        pod.record.ends_at = ends_at;
                        match (&mut pod.plan, pod.phase) {
                            (Some(plan), Phase::Waiting) => (plan.ends_at, pod.record.end_s) = (ends_at, end_s),
                            _ => out.push(Effect::Extend { pod: *id, end_s, ends_at }),
                        }
                    } else if !pod.end_seen || ends_at < pod.record.ends_at {
                        // Never later: a chain that stands still does not make leases longer.
                        pod.record.ends_at = ends_at;
                    }
                    pod.end_seen = true;
                }
                (Standing::Unknown | Standing::NotActive, _) => {
                    pod.unseen += 1;
                    if pod.unseen >= UNSEEN_MAX {
                        uncovered.push((*id, format!("lease {lease} is not on the chain")));
                    }
                }
                (Standing::Ended, _) => uncovered.push((*id, format!("lease {lease} has ended"))),
                _ => uncovered.push((*id, format!("lease {lease} was released"))),
            }
        }
        for (id, reason) in uncovered {
            self.stop(id, &reason, now, out);
        }
    }

    /// A supervisor keeps to another end of its pod's lease. Only now is it written down: what a worker that restarts does
    /// not find written down, it tells the supervisor again.
    pub(super) fn lengthened(&mut self, id: PodId, end_s: i64, out: &mut Effects) {
        let Some(pod) = self.pods.get_mut(&id) else { return };
        tracing::info!(pod = %id, end_s, "the lease of a pod was lengthened");
        pod.record.end_s = end_s;
        if let Some(fence) = self.fences.get_mut(&pod.record.lease) {
            fence.end_s = fence.end_s.max(end_s);
        }
        out.push(Effect::Persist(self.records()));
    }

    pub(super) fn slot_read(&mut self, slot: SlotView, now: UnixMs, out: &mut Effects) {
        let linked = self.operators.linked_since().is_some_and(|since| now.since(since) >= LINKED_BEFORE_RESUME);
        let idle = self.pods.values().all(|pod| pod.phase == Phase::Over);
        let due = self.resumed_at == UnixMs(0) || now.since(self.resumed_at) >= RESUME_PERIOD;
        if slot.suspended && linked && idle && due {
            self.resumed_at = now;
            out.push(Effect::ResumeSlot);
        }
    }

    fn clear_up(&mut self, now: UnixMs, out: &mut Effects) {
        let over = |ended: &Option<super::Ended>| {
            ended.as_ref().is_some_and(|ended| now.since(UnixMs(ended.at_ms)) >= ENDED_KEPT)
        };
        let gone: Vec<PodId> =
            self.pods.iter().filter(|(_, pod)| !pod.is_live() && over(&pod.record.ended)).map(|(id, _)| *id).collect();
        let now_s = i64::try_from(now.secs()).unwrap_or(i64::MAX);
        let fences_before = self.fences.len();
        self.fences.retain(|_, fence| fence.end_s.saturating_add(FENCE_KEPT_S) > now_s);
        for id in &gone {
            self.pods.remove(id);
            self.usage.remove(id);
            out.push(Effect::Forget { pod: *id });
        }
        if !gone.is_empty() || self.fences.len() != fences_before {
            out.push(Effect::Persist(self.records()));
        }
    }
}
