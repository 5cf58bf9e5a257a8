//! What waits while the records cannot be written: a full disk, or one that is gone. Pure.
//!
//! Nothing that the control plane would take for settled is said, and nothing is begun or deleted, before the records that
//! say so are safe. Everything else goes on: pods run, are stopped, and their time is told.

use std::collections::VecDeque;

use atoll_api::link::envelope::Body;

use crate::world::state::Effect;
use crate::world::store::Records;

/// The most effects that wait. Beyond them the oldest words are dropped: the control plane asks again.
const HELD_MAX: usize = 1024;

/// Open, or closed with what waits.
#[derive(Debug, Default)]
pub(super) struct Gate {
    unsaved: Option<Records>,
    held: VecDeque<Effect>,
}

impl Gate {
    /// The newest records that are not safe; none while the gate is open.
    pub(super) fn unsaved(&self) -> Option<&Records> {
        self.unsaved.as_ref()
    }

    /// Closes, or stays closed with newer records.
    pub(super) fn close(&mut self, records: Records) {
        self.unsaved = Some(records);
    }

    /// Opens: the records are safe. Gives what waited, in order.
    pub(super) fn open(&mut self) -> VecDeque<Effect> {
        self.unsaved = None;
        std::mem::take(&mut self.held)
    }

    /// Whether an effect is about a pod whose making waits: it can only follow.
    fn holds_the_making_of(&self, effect: &Effect) -> bool {
        let (Effect::Stop { pod, .. } | Effect::Extend { pod, .. } | Effect::Roster { pod, .. }) = effect else {
            return false;
        };
        self.held.iter().any(|held| matches!(held, Effect::Prepare(spec) if spec.pod == *pod))
    }

    /// Gives an effect back that may be carried out now; keeps one that must wait.
    pub(super) fn pass(&mut self, effect: Effect) -> Option<Effect> {
        if self.unsaved.is_none() || !(waits(&effect) || self.holds_the_making_of(&effect)) {
            return Some(effect);
        }
        if self.held.len() >= HELD_MAX {
            let words = self.held.iter().position(|held| matches!(held, Effect::Send { .. }));
            words.and_then(|at| self.held.remove(at));
        }
        self.held.push_back(effect);
        None
    }
}

/// Whether an effect says or does what a crash of this worker could make untrue.
fn waits(effect: &Effect) -> bool {
    match effect {
        Effect::Prepare(_) | Effect::Forget { .. } => true,
        Effect::Send { body: Body::PodReport(_), .. } => true,
        Effect::Send { body: Body::CommandResult(result), .. } => result.accepted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use atoll_api::link::{CommandResult, PodReport, Usage};
    use atoll_domain::id::PodId;
    use atoll_domain::key::PublicKey;

    use super::*;
    use crate::link::dial::OperatorName;

    fn said(body: Body) -> Effect {
        Effect::Send { to: OperatorName("own".into()), body }
    }

    fn answer(accepted: bool) -> Effect {
        said(Body::CommandResult(CommandResult { accepted, ..CommandResult::default() }))
    }

    #[test]
    fn what_depends_on_the_records_waits_and_comes_in_order() {
        let pod = PodId::from_random([1; 16]);
        let mut gate = Gate::default();
        assert!(gate.pass(answer(true)).is_some());
        gate.close(Records::default());
        let waiting = [answer(true), said(Body::PodReport(PodReport::default())), Effect::Forget { pod }];
        for effect in &waiting {
            assert_eq!(gate.pass(effect.clone()), None);
        }
        let stop = Effect::Stop { pod, reason: String::new() };
        let read = Effect::ReadOrder(PublicKey([1; 32]));
        for effect in [answer(false), said(Body::Usage(Usage::default())), stop, read] {
            assert_eq!(gate.pass(effect.clone()), Some(effect));
        }
        let newer = Records { version: 2, ..Records::default() };
        gate.close(newer.clone());
        assert_eq!(gate.unsaved(), Some(&newer));
        assert_eq!(gate.open(), waiting);
        assert!(gate.unsaved().is_none() && gate.pass(answer(true)).is_some());
    }

    #[test]
    fn a_pod_that_is_not_made_yet_is_stopped_when_it_is() {
        let mut gate = Gate::default();
        gate.close(Records::default());
        let spec = crate::supervisor::spec::tests::spec();
        let made = Effect::Prepare(Box::new(spec.clone()));
        let stop = Effect::Stop { pod: spec.pod, reason: String::new() };
        assert_eq!((gate.pass(made.clone()), gate.pass(stop.clone())), (None, None));
        assert_eq!(gate.open(), [made, stop]);
    }

    #[test]
    fn no_more_waits_than_may_and_deeds_before_words() {
        let mut gate = Gate::default();
        gate.close(Records::default());
        let forget = Effect::Forget { pod: PodId::from_random([1; 16]) };
        gate.pass(forget.clone());
        for _ in 0..2 * HELD_MAX {
            gate.pass(answer(true));
        }
        let waited = gate.open();
        assert_eq!((waited.len(), waited.front()), (HELD_MAX, Some(&forget)));
    }
}
