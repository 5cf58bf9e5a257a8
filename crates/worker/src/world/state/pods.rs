//! What happens to pods: news of their supervisors, what was found at start, stopping.

use atoll_domain::id::PodId;
use atoll_domain::time::UnixMs;

use super::{Effect, Effects, Found, FoundState, Phase, PodNews, State};
use crate::link::dial::OperatorName;
use crate::world::refusal::Refusal;

impl State {
    pub(super) fn news(&mut self, id: PodId, news: PodNews, now: UnixMs, out: &mut Effects) {
        let Some(pod) = self.pods.get_mut(&id) else { return };
        match news {
            PodNews::Prepared { wg_public, endpoint } if pod.phase == Phase::Preparing => {
                let statement = self.me.vouch(&pod.record, wg_public, endpoint);
                pod.record.statement = Some(hex::encode(statement));
                pod.phase = Phase::Prepared;
                tracing::info!(pod = %id, %endpoint, "a pod is prepared");
                out.push(Effect::Persist(self.records()));
                self.report(&id, out);
            }
            PodNews::Prepared { .. } => {}
            PodNews::NotPrepared { why } => self.over(id, None, format!("it could not be made: {why}"), now, out),
            PodNews::RosterTaken { command, refused, launched } => {
                let unanswered = pod.done_with(&command);
                if launched && pod.phase == Phase::Prepared {
                    pod.phase = Phase::Running;
                    tracing::info!(pod = %id, "a pod runs");
                }
                let outcome =
                    if refused.is_empty() { Ok(()) } else { Err(Refusal::StatementRefused(refused.join("; "))) };
                let operator = pod.record.operator.clone();
                if unanswered {
                    self.answer_operator(operator.as_ref(), command, outcome, out);
                }
                if launched {
                    self.report(&id, out);
                }
            }
            PodNews::RosterFailed { command, why } => {
                let unanswered = pod.done_with(&command);
                let operator = pod.record.operator.clone();
                if unanswered {
                    self.answer_operator(operator.as_ref(), command, Err(Refusal::Supervisor(why)), out);
                }
            }
            PodNews::Lengthened { end_s } => self.lengthened(id, end_s, out),
            PodNews::Ended { code, reason } => self.over(id, code, reason, now, out),
        }
    }

    /// Answers a command about a pod to the pod's operator, which alone may give one.
    pub(super) fn answer_operator(
        &mut self,
        to: Option<&OperatorName>,
        command: String,
        outcome: Result<(), Refusal>,
        out: &mut Effects,
    ) {
        if let Some(to) = to {
            self.answer(to, command, outcome, out);
        }
    }

    /// A pod has ended: says so once, and begins what waited for its devices.
    fn over(&mut self, id: PodId, code: Option<i32>, reason: String, now: UnixMs, out: &mut Effects) {
        let Some(pod) = self.pods.get_mut(&id) else { return };
        if !pod.is_live() {
            return;
        }
        let (code, reason) = match pod.stopping.take() {
            // What a program says that was told to end is not its own.
            Some(why) => (None, format!("{why} ({reason})")),
            None => (code, reason),
        };
        tracing::info!(pod = %id, ?code, reason, "a pod is over");
        pod.end(code, reason, now);
        let mut unanswered: Vec<String> = std::mem::take(&mut pod.with_supervisor);
        unanswered.extend(pod.rosters.drain(..).map(|(roster, _)| roster.command));
        let operator = pod.record.operator.clone();
        out.push(Effect::Persist(self.records()));
        for command in unanswered {
            self.answer_operator(operator.as_ref(), command, Err(Refusal::PodOver(id)), out);
        }
        self.report(&id, out);
        self.prepare_waiting(out);
    }

    /// Ends a pod that is not over. One that has not begun ends at once.
    pub(super) fn stop(&mut self, id: PodId, reason: &str, now: UnixMs, out: &mut Effects) {
        let Some(pod) = self.pods.get_mut(&id) else { return };
        match pod.phase {
            Phase::Over => {}
            Phase::Waiting => self.over(id, None, reason.to_owned(), now, out),
            Phase::Preparing | Phase::Prepared | Phase::Running => {
                if pod.stopping.is_none() {
                    tracing::info!(pod = %id, reason, "stopping a pod");
                    pod.stopping = Some(reason.to_owned());
                    out.push(Effect::Stop { pod: id, reason: reason.to_owned() });
                }
            }
        }
    }

    /// The worker has just started: what its supervisors kept meanwhile is taken up again, all else is ended.
    pub(super) fn found(&mut self, found: Vec<Found>, now: UnixMs, out: &mut Effects) {
        for Found { pod: id, now: state } in found {
            let Some(pod) = self.pods.get_mut(&id) else {
                // Nothing says for whom it runs, so no lease covers it.
                tracing::warn!(pod = %id, "a pod that this worker knows nothing of is ended");
                if !matches!(state, FoundState::Ended { .. }) {
                    out.push(Effect::Stop { pod: id, reason: "no record of it is left".to_owned() });
                }
                out.push(Effect::Forget { pod: id });
                continue;
            };
            match state {
                FoundState::Running => pod.phase = Phase::Running,
                FoundState::Ready if pod.record.statement.is_some() => pod.phase = Phase::Prepared,
                FoundState::Ready => {
                    // The worker went away in between; the control plane asks again with a higher fence.
                    pod.end(None, "its worker restarted before it was prepared".to_owned(), now);
                    out.push(Effect::Stop { pod: id, reason: "never prepared".to_owned() });
                }
                FoundState::Ended { code, reason } if pod.record.ended.is_none() => pod.end(code, reason, now),
                FoundState::Ended { .. } => {}
            }
            if pod.is_live() {
                tracing::info!(pod = %id, phase = ?pod.phase, "took up a pod again");
                pod.record.ended = None;
            }
        }
        for pod in self.pods.values_mut().filter(|pod| !pod.is_live() && pod.record.ended.is_none()) {
            pod.end(None, "its supervisor was gone when the worker started".to_owned(), now);
        }
        out.push(Effect::Persist(self.records()));
        self.guard_now(now, out);
    }
}
