//! Commands of the control plane: checked here against what this machine has, and against the chain once it was read.

use std::time::Duration;

use atoll_api::link::envelope::Body;
use atoll_api::link::{OpenStream, Roster, StartPod, StopPod};
use atoll_chain::market::address;
use atoll_domain::id::PodId;
use atoll_domain::key::{Address, PublicKey};
use atoll_domain::time::UnixMs;

use super::{Effect, Effects, PODS_MAX, Pending, Phase, Pod, State};
use crate::chain_view::{OrderView, Standing};
use crate::link::dial::OperatorName;
use crate::world::command::{self, Members, Start};
use crate::world::refusal::Refusal;
use crate::world::store::{FenceRecord, PodRecord};

/// How long a command waits for the chain to show what the control plane saw: about 25 slots of 0.4 s.
const CHAIN_WAIT: Duration = Duration::from_secs(10);
/// Rosters that may wait for one pod; a newer one replaces what an older one said.
const ROSTERS_MAX: usize = 8;

impl State {
    pub(super) fn received(&mut self, from: &OperatorName, body: Body, now: UnixMs, out: &mut Effects) {
        match body {
            Body::StartPod(start) => self.start_pod(from, start, now, out),
            Body::Roster(roster) => self.roster(from, roster, now, out),
            Body::StopPod(stop) => self.stop_pod(from, &stop, now, out),
            Body::OpenStream(stream) => self.open_stream(from, &stream, out),
            Body::Heartbeat(_) => {}
            other => tracing::warn!(body = ?std::mem::discriminant(&other), "a body that no worker is sent; ignored"),
        }
    }

    /// Answers a command that came before; true when nothing more is to be done.
    fn is_repeated(&self, from: &OperatorName, command: &str, out: &mut Effects) -> bool {
        if !command::answerable(command) {
            tracing::warn!("a command without a usable id; ignored");
            return true;
        }
        if let Some(answer) = self.operators.answer(from, command) {
            out.push(Effect::Send { to: from.clone(), body: Body::CommandResult(answer.clone()) });
            return true;
        }
        let of_pod = |pod: &Pod| {
            let asked = pod.with_supervisor.iter().any(|one| one == command);
            pod.is_of(from) && (asked || pod.rosters.iter().any(|(roster, _)| roster.command == command))
        };
        let waits = |pending: &Pending| pending.from == *from && pending.start.command == command;
        self.pending.values().any(waits) || self.pods.values().any(of_pod)
    }

    /// Whether a pod that is here, or waits for the chain, is another operator's.
    fn is_foreign(&self, pod: PodId, from: &OperatorName) -> bool {
        self.pods.get(&pod).is_some_and(|pod| !pod.is_of(from))
            || self.pending.get(&pod).is_some_and(|pending| pending.from != *from)
    }

    fn start_pod(&mut self, from: &OperatorName, start: StartPod, now: UnixMs, out: &mut Effects) {
        let command = start.command.clone();
        if self.is_repeated(from, &command, out) {
            return;
        }
        match command::start(start) {
            Err(refusal) => self.answer(from, command, Err(refusal), out),
            Ok(start) if self.is_foreign(start.pod, from) => {
                self.answer(from, command, Err(Refusal::OtherOperator(start.pod)), out);
            }
            Ok(start) if self.operators.has_stopped(from, start.pod) => {
                self.answer(from, command, Err(Refusal::Cancelled), out);
            }
            Ok(start) if self.pods.contains_key(&start.pod) => {
                self.answer(from, command, Ok(()), out);
                self.report(&start.pod, out);
            }
            Ok(start) => match self.fits_here(from, &start) {
                Err(refusal) => self.answer(from, command, Err(refusal), out),
                Ok(()) => {
                    self.read_order(start.order, out);
                    let pending = Pending { from: from.clone(), until: now.after(CHAIN_WAIT), start };
                    if let Some(earlier) = self.pending.insert(pending.start.pod, pending) {
                        self.answer(from, earlier.start.command, Err(Refusal::Cancelled), out);
                    }
                }
            },
        }
    }

    fn fits_here(&self, from: &OperatorName, start: &Start) -> Result<(), Refusal> {
        if start.spec.network != self.me.network {
            return Err(Refusal::SpecOtherNetwork(start.spec.network));
        }
        if self.me.pack(&start.spec.pack).is_none() {
            let pack = &start.spec.pack;
            return Err(Refusal::PackMissing { name: pack.name.clone(), sha256: pack.sha256 });
        }
        // Ended ones are only kept for their output and give way. What another operator asks for takes nobody's place
        // before the chain has agreed.
        let live = self.pods.values().filter(|pod| pod.is_live()).count();
        let pending = self.pending.values().filter(|pending| pending.from == *from).count();
        if live + pending >= PODS_MAX {
            return Err(Refusal::TooManyPods(PODS_MAX));
        }
        self.fence_is_fresh(start)
    }

    fn fence_is_fresh(&self, start: &Start) -> Result<(), Refusal> {
        match self.fences.get(&start.lease) {
            Some(known) if start.fence <= known.highest => {
                Err(Refusal::StaleFence { lease: start.lease, fence: start.fence, highest: known.highest })
            }
            _ => Ok(()),
        }
    }

    /// What the chain says about a start; the lease's end when it agrees.
    fn judge(&self, start: &Start, view: Option<&OrderView>) -> Result<i64, Refusal> {
        let Some(view) = view else { return Err(Refusal::OrderUnknown(start.order)) };
        if view.spec_root != start.root {
            return Err(Refusal::SpecNotOrdered { ordered: view.spec_root, given: start.root });
        }
        // Of a session key only what it ordered itself is believed.
        let wire = |key: PublicKey| atoll_chain::Address(key.0);
        let budget = start.spec.budget.map(|key| address::budget(&wire(start.spec.renter), &wire(key)));
        let budget = budget.map(|budget| PublicKey(budget.0));
        if view.renter != start.spec.renter || budget.is_some() && view.budget != budget {
            return Err(Refusal::OtherRenter);
        }
        if let Some(why) = &self.unwritable {
            return Err(Refusal::RecordsUnwritable(why.clone()));
        }
        match view.standing(&start.lease, self.me.slot, &self.me.public) {
            Standing::Unknown => Err(Refusal::LeaseUnknown { order: start.order, lease: start.lease }),
            Standing::NotHere => Err(Refusal::LeaseNotHere(start.lease)),
            Standing::NotActive => Err(Refusal::LeaseNotActive(start.lease)),
            Standing::Released | Standing::Ended => Err(Refusal::LeaseOver(start.lease)),
            Standing::Holds { mask, .. } if mask != start.mask => {
                Err(Refusal::OtherMask { lease: start.lease, leased: mask, named: start.mask })
            }
            Standing::Holds { end_s, .. } => self.fence_is_fresh(start).map(|()| end_s),
        }
    }

    /// The chain answered: decides the starts that wait for this order.
    pub(super) fn decide_pending(
        &mut self,
        order: Address,
        view: &Result<Option<OrderView>, String>,
        now: UnixMs,
        out: &mut Effects,
    ) {
        let waiting: Vec<PodId> =
            self.pending.iter().filter(|(_, pending)| pending.start.order == order).map(|(pod, _)| *pod).collect();
        for pod in waiting {
            let Some(pending) = self.pending.get(&pod) else { continue };
            let judged = match view {
                Ok(view) => self.judge(&pending.start, view.as_ref()),
                Err(why) => Err(Refusal::ChainUnreachable(why.clone())),
            };
            if judged.as_ref().is_err_and(|refusal| refusal.may_pass() && now < pending.until) {
                continue;
            }
            let Some(Pending { from, start, .. }) = self.pending.remove(&pod) else { continue };
            match (judged, view) {
                (Ok(end_s), Ok(Some(view))) => self.accept(&from, start, end_s, view, now, out),
                (Err(refusal), _) => self.answer(&from, start.command, Err(refusal), out),
                (Ok(_), _) => {}
            }
        }
    }

    fn accept(
        &mut self,
        from: &OperatorName,
        start: Start,
        end_s: i64,
        view: &OrderView,
        now: UnixMs,
        out: &mut Effects,
    ) {
        tracing::info!(operator = %from, pod = %start.pod, job = %start.job, lease = %start.lease, fence = start.fence, "a pod is accepted");
        let fence = FenceRecord { lease: start.lease, highest: start.fence, end_s };
        self.fences.insert(start.lease, fence);
        let plan = Box::new(self.me.plan(&start, end_s, view, now));
        // The chain says whose devices these are now; whoever else still uses one of them has lost it.
        let rivals: Vec<PodId> = self.rivals(start.pod, start.mask);
        for rival in &rivals {
            self.stop(*rival, "a later pod holds its devices", now, out);
        }
        let record = PodRecord {
            pod: start.pod,
            operator: Some(from.clone()),
            cluster: start.cluster,
            job: start.job,
            order: start.order,
            lease: start.lease,
            mask: start.mask,
            fence: start.fence,
            index: start.index,
            end_s,
            ends_at: plan.ends_at,
            statement: None,
            ended: None,
        };
        self.make_room(out);
        self.pods.insert(start.pod, Pod { end_seen: true, ..Pod::new(record, Phase::Waiting, Some(plan)) });
        out.push(Effect::Persist(self.records()));
        self.answer(from, start.command, Ok(()), out);
        self.prepare_waiting(out);
    }

    /// Forgets the pod that ended first when as many are kept as may be: a job whose pods end at once must not keep this
    /// worker from serving others.
    fn make_room(&mut self, out: &mut Effects) {
        if self.pods.len() < PODS_MAX {
            return;
        }
        let ended_at = |pod: &Pod| pod.record.ended.as_ref().map(|ended| ended.at_ms);
        let ended = self.pods.iter().filter(|(_, pod)| !pod.is_live());
        if let Some(id) = ended.min_by_key(|(_, pod)| ended_at(pod)).map(|(id, _)| *id) {
            self.pods.remove(&id);
            self.usage.remove(&id);
            out.push(Effect::Forget { pod: id });
        }
    }

    fn rivals(&self, pod: PodId, mask: u16) -> Vec<PodId> {
        let rival = |(id, other): &(&PodId, &Pod)| **id != pod && other.is_live() && other.record.mask & mask != 0;
        self.pods.iter().filter(rival).map(|(id, _)| *id).collect()
    }

    /// Begins every pod whose devices have become free.
    pub(super) fn prepare_waiting(&mut self, out: &mut Effects) {
        let waiting: Vec<(PodId, u16)> = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.phase == Phase::Waiting)
            .map(|(id, pod)| (*id, pod.record.mask))
            .collect();
        for (id, mask) in waiting {
            if !self.rivals(id, mask).is_empty() {
                continue;
            }
            let Some(pod) = self.pods.get_mut(&id) else { continue };
            if let Some(plan) = pod.plan.take() {
                pod.phase = Phase::Preparing;
                out.push(Effect::Prepare(plan));
            }
        }
    }

    fn roster(&mut self, from: &OperatorName, roster: Roster, now: UnixMs, out: &mut Effects) {
        let command = roster.command.clone();
        if self.is_repeated(from, &command, out) {
            return;
        }
        let members = match command::roster(roster) {
            Ok(members) => members,
            Err(refusal) => return self.answer(from, command, Err(refusal), out),
        };
        let id = members.pod;
        let refusal = match self.pods.get(&id) {
            None => Some(Refusal::PodUnknown(id)),
            Some(pod) if !pod.is_of(from) => Some(Refusal::OtherOperator(id)),
            Some(pod) => match pod.phase {
                Phase::Over => Some(Refusal::PodOver(id)),
                Phase::Waiting | Phase::Preparing => Some(Refusal::PodNotPrepared(id)),
                Phase::Prepared | Phase::Running => None,
            },
        };
        if let Some(refusal) = refusal {
            return self.answer(from, command, Err(refusal), out);
        }
        let Some(pod) = self.pods.get_mut(&id) else { return };
        let order = pod.record.order;
        if members.generation < pod.generation || pod.rosters.len() >= ROSTERS_MAX {
            // A newer roster has been passed on, or enough are on their way: the control plane sends what is missing.
            return self.answer(from, command, Ok(()), out);
        }
        pod.rosters.push_back((members, now.after(CHAIN_WAIT)));
        self.read_order(order, out);
    }

    /// The chain answered: passes on the rosters that wait for this order, with whom the chain lets vouch.
    pub(super) fn decide_rosters(
        &mut self,
        order: Address,
        view: &Result<Option<OrderView>, String>,
        now: UnixMs,
        out: &mut Effects,
    ) {
        let mut refused = vec![];
        for (id, pod) in self.pods.iter_mut().filter(|(_, pod)| pod.record.order == order) {
            match view {
                Ok(Some(view)) => {
                    let authorised = super::plan::authorised(view);
                    let own = pod.record.statement.as_ref().and_then(|text| hex::decode(text).ok());
                    while let Some((roster, _)) = pod.rosters.pop_front() {
                        let Members { command, generation, statements, launch, env, .. } = roster;
                        pod.generation = pod.generation.max(generation);
                        pod.with_supervisor.push(command.clone());
                        let members = statements.into_iter().filter(|one| Some(one) != own.as_ref()).collect();
                        // A launch that fails makes room for the next one.
                        let launch = launch && pod.phase == Phase::Prepared && pod.launching.is_none();
                        let run = launch.then(|| super::plan::passed_on(env));
                        if launch {
                            pod.launching = Some(command.clone());
                        }
                        let (pod, authorised) = (*id, authorised.clone());
                        out.push(Effect::Roster { pod, command, members, authorised, run });
                    }
                }
                Ok(None) | Err(_) => {
                    while pod.rosters.front().is_some_and(|(_, until)| *until <= now) {
                        let Some((roster, _)) = pod.rosters.pop_front() else { break };
                        let refusal = match view {
                            Err(why) => Refusal::ChainUnreachable(why.clone()),
                            Ok(_) => Refusal::OrderUnknown(order),
                        };
                        refused.push((pod.record.operator.clone(), roster.command, refusal));
                    }
                }
            }
        }
        for (operator, command, refusal) in refused {
            self.answer_operator(operator.as_ref(), command, Err(refusal), out);
        }
    }

    fn stop_pod(&mut self, from: &OperatorName, stop: &StopPod, now: UnixMs, out: &mut Effects) {
        if self.is_repeated(from, &stop.command, out) {
            return;
        }
        let (pod, reason) = match command::stop(stop) {
            Ok(parsed) => parsed,
            Err(refusal) => return self.answer(from, stop.command.clone(), Err(refusal), out),
        };
        if self.is_foreign(pod, from) {
            return self.answer(from, stop.command.clone(), Err(Refusal::OtherOperator(pod)), out);
        }
        if let Some(pending) = self.pending.remove(&pod) {
            self.answer(from, pending.start.command, Err(Refusal::Cancelled), out);
        }
        // A pod that is not here is stopped already; one that comes behind its stop does not start.
        if !self.pods.contains_key(&pod) {
            self.operators.stopped(from, pod);
        }
        self.answer(from, stop.command.clone(), Ok(()), out);
        match self.pods.get(&pod) {
            Some(known) if known.is_live() => {
                self.stop(pod, &format!("stopped by the control plane: {reason}"), now, out)
            }
            _ => self.report(&pod, out),
        }
    }

    fn open_stream(&self, from: &OperatorName, stream: &OpenStream, out: &mut Effects) {
        let stream = match command::stream(stream) {
            Ok(stream) => stream,
            Err(refusal) => return tracing::warn!(reason = %refusal, "a stream is refused"),
        };
        let refused = match (self.pods.get(&stream.pod), stream.target) {
            (None, _) => Some(Refusal::PodUnknown(stream.pod)),
            (Some(pod), _) if !pod.is_of(from) => Some(Refusal::OtherOperator(stream.pod)),
            (Some(pod), command::StreamTarget::Port(_)) => match pod.phase {
                Phase::Running => None,
                Phase::Over => Some(Refusal::PodOver(stream.pod)),
                _ => Some(Refusal::PodNotPrepared(stream.pod)),
            },
            (Some(_), command::StreamTarget::Output(_)) => None,
        };
        out.push(match refused {
            None => Effect::OpenStream { to: from.clone(), stream },
            Some(refusal) => Effect::RefuseStream { to: from.clone(), stream, why: refusal.to_string() },
        });
    }

    /// Asks the chain about an order, once at a time.
    pub(super) fn read_order(&mut self, order: Address, out: &mut Effects) {
        if self.reading.insert(order) {
            out.push(Effect::ReadOrder(order));
        }
    }
}
